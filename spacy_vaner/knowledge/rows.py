"""DBR rows: training inputs made of candidates, dense in entities of the asked type.

A row is a text of names with the places of those that are of the type; the others are negatives.
Rows are drawn anew in every epoch and follow from (seed, epoch, sentence, types) alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.knowledge.candidates import SentenceCandidates
from spacy_vaner.knowledge.store import KnowledgeBase
from spacy_vaner.types import Mention, Offsets

Mode = Literal["retrieved", "random", "off"]
MODES: tuple[Mode, ...] = ("retrieved", "random", "off")
RUNNING_TEXT = ", "
AUTHORS = " "
"""The authors' separator: none but the blank, so that neighbours read as one name."""


@dataclass(frozen=True, slots=True)
class RowSettings:
    """How rows are drawn.

    mode: "retrieved": names that were found for the sentence; "random": as many drawn from the
        whole knowledge base (the paper's ablation); "off": no rows.
    n_positive, n_negative: at most so many.
    separator: between two names.
    max_words: a name of more words fits in no window and is left out.
    every_epoch: False draws once, as the authors do: the epoch does not count.
    SOURCE: VANER, section 3.4 (10 and 5); differs: separator, drawn anew, exact types
        (docs/knowledge.md).
    """

    mode: Mode = "retrieved"
    n_positive: int = 10
    n_negative: int = 5
    separator: str = RUNNING_TEXT
    max_words: int = 100
    every_epoch: bool = True

    def __post_init__(self) -> None:
        """RAISES VanerError: VE612."""
        if self.mode not in MODES:
            expected = ", ".join(MODES)
            raise VanerError(Messages.VE612.format(key="mode", value=self.mode, expected=expected))
        for key in ("n_positive", "n_negative", "max_words"):
            least = int(key == "max_words")
            if getattr(self, key) < least:
                raise VanerError(
                    Messages.VE612.format(
                        key=key, value=getattr(self, key), expected=f"{least} or more"
                    )
                )
        if not self.separator or self.separator.strip(",;/|. \n"):
            expected = "of blanks and marks between names"
            raise VanerError(
                Messages.VE612.format(key="separator", value=self.separator, expected=expected)
            )


@dataclass(frozen=True, slots=True)
class DbrRow:
    """One training input.

    types: asked; annotated completely.
    text: the names in their order; places: where each of them stands, positive or negative.
    mentions: of the names that have an asked type; one per such type.
    n_too_long: candidates that were left out as too long.
    """

    types: tuple[str, ...]
    text: str
    places: tuple[Offsets, ...]
    mentions: tuple[Mention, ...]
    n_too_long: int


def draw_row(
    candidates: SentenceCandidates,
    types: Sequence[str],
    kb: KnowledgeBase,
    settings: RowSettings,
    *,
    seed: int,
    epoch: int,
) -> DbrRow | None:
    """Draw the row of a sentence.

    types: one, or all that are asked together: a name is a positive if it has any of them, and a
        mention of each that it has.
    RETURNS: None with mode "off", and where no candidate is left.
    """
    if settings.mode == "off":
        return None
    key = candidates.key
    drawn_in = epoch if settings.every_epoch else 0
    draw = random.Random(f"{seed}/{drawn_in}/{key.corpus}/{key.document}/{key.start}/{types}")
    named = list(zip(candidates.names, candidates.types, strict=True))
    kept = [row for row in named if len(row[0].split()) <= settings.max_words]
    positives = [row for row in kept if not set(types).isdisjoint(row[1])]
    negatives = [row for row in kept if set(types).isdisjoint(row[1])]
    n_positive = min(settings.n_positive, len(positives))
    n_negative = min(settings.n_negative, len(negatives))
    if not n_positive + n_negative:
        return None
    if settings.mode == "random":
        chosen = _from_anywhere(kb, types, n_positive, n_negative, settings.max_words, draw)
    else:
        chosen = draw.sample(positives, n_positive) + draw.sample(negatives, n_negative)
    draw.shuffle(chosen)
    places: list[Offsets] = []
    mentions = []
    text = ""
    for name, own in chosen:
        text += settings.separator if text else ""
        places.append((len(text), len(text) + len(name)))
        mentions += [Mention(type, (places[-1],)) for type in types if type in own]
        text += name
    n_too_long = len(named) - len(kept)
    return DbrRow(tuple(types), text, tuple(places), tuple(mentions), n_too_long)


def _from_anywhere(
    kb: KnowledgeBase,
    types: Sequence[str],
    n_positive: int,
    n_negative: int,
    max_words: int,
    draw: random.Random,
) -> list[tuple[str, tuple[str, ...]]]:
    """So many names of the types and of others, from the whole knowledge base."""
    own = kb.positions(types)
    chosen: dict[int, None] = {}
    n_tries = 50 * (n_positive + n_negative)  # a base with one type only has no negatives
    while n_positive and own and n_tries:
        n_tries -= 1
        position = draw.choice(own)
        if position not in chosen and len(kb.names[position].split()) <= max_words:
            chosen[position] = None
            n_positive -= 1
    while n_negative and n_tries:
        n_tries -= 1
        position = draw.randrange(len(kb))
        is_other = set(types).isdisjoint(kb.types[position])
        if is_other and position not in chosen and len(kb.names[position].split()) <= max_words:
            chosen[position] = None
            n_negative -= 1
    return [(kb.names[position], kb.types[position]) for position in chosen]
