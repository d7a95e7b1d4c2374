"""What became of every gold mention and of every predicted span: hit, or which kind of error.

Mentions and spans are judged one by one. A mention that was not hit is set against the span that
is closest to it among those that hit nothing, and a span likewise; so a span that joins two
mentions is one wrong span and two wrong mentions. The mentions that are not hits are the misses of
strict scoring, the spans that are not hits its spurious ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spacy_vaner.evaluation.predictions import FoundSpan, PredictedDocument
from spacy_vaner.types import Mention, Offsets

HIT, MISSED, SPURIOUS, DISCONTINUOUS = "hit", "missed", "spurious", "discontinuous"
LEFT, RIGHT, BOTH = "left boundary", "right boundary", "both boundaries"
TYPE, TYPE_AND_BOUNDARY = "type", "type and boundary"

BOUNDARY = (LEFT, RIGHT, BOTH)
"""The right type, and a boundary that is not right."""

OUTCOMES = (HIT, *BOUNDARY, TYPE, TYPE_AND_BOUNDARY, MISSED, DISCONTINUOUS, SPURIOUS)
"""Of these a span is never missed or discontinuous (mentions of several fragments can't be
predicted), a mention never spurious."""

_SHORT_FORM = re.compile(r"(?=.{2,10}\Z)\S+", re.DOTALL)
LONG_WORDS = 5


class Judged(NamedTuple):
    """A mention or a span with its outcome.

    partner: text offsets of what it was set against; None for hits and for what stands alone.
    partner_type: its type.
    """

    type: str
    start: int
    end: int
    outcome: str
    probability: float | None = None
    partner: Offsets | None = None
    partner_type: str | None = None


@dataclass(frozen=True, slots=True)
class JudgedDocument:
    """mentions, spans: of the scored types, in the order of the text, each once.

    joined: spans that cover several mentions of their type, none of which was hit.
    """

    predicted: PredictedDocument
    mentions: tuple[Judged, ...]
    spans: tuple[Judged, ...]
    joined: tuple[Judged, ...]

    @property
    def text(self) -> str:
        return self.predicted.document.doc.text


def judge(predicted: PredictedDocument) -> JudgedDocument:
    """Say of each mention and span of the scored types what became of it."""
    types = predicted.types
    gold = {(m.fragments, m.type): m for m in predicted.document.gold.mentions if m.type in types}
    mentions = [gold[key] for key in sorted(gold)]
    spans = predicted.scored()
    right = {(m.type, *m.fragments[0]) for m in mentions if len(m.fragments) == 1}
    hits = {span[:3] for span in spans} & right
    lost = [
        (m.type, *m.fragments[0])
        for m in mentions
        if len(m.fragments) == 1 and (m.type, *m.fragments[0]) not in hits
    ]
    wrong = [span[:3] for span in spans if span[:3] not in hits]
    judged_mentions = tuple(_judge_mention(mention, hits, wrong) for mention in mentions)
    judged_spans = tuple(_judge_span(span, hits, lost) for span in spans)
    joined = tuple(
        span
        for span in judged_spans
        if span.outcome in BOUNDARY
        and _n_disjoint(
            [m[1:] for m in lost if m[0] == span.type and span.start <= m[1] and m[2] <= span.end]
        )
        > 1
    )
    return JudgedDocument(predicted, judged_mentions, judged_spans, joined)


_Typed = tuple[str, int, int]


def _judge_mention(mention: Mention, hits: set[_Typed], wrong: Sequence[_Typed]) -> Judged:
    start, end = mention.fragments[0][0], mention.fragments[-1][1]
    one = (mention.type, start, end)
    if len(mention.fragments) > 1:
        return Judged(*one, DISCONTINUOUS)
    if one in hits:
        return Judged(*one, HIT)
    return _against(one, wrong, MISSED)


def _judge_span(span: FoundSpan, hits: set[_Typed], lost: Sequence[_Typed]) -> Judged:
    one = (span.type, span.start, span.end)
    judged = Judged(*one, HIT) if one in hits else _against(one, lost, SPURIOUS)
    return judged._replace(probability=span.probability)


def _against(one: _Typed, others: Sequence[_Typed], alone: str) -> Judged:
    """Set one side against the closest of the other side that it overlaps, its own type first."""
    type, start, end = one
    partner = max(
        (other for other in others if other[1] < end and start < other[2]),
        key=lambda other: (
            other[0] == type,
            other[1:] == (start, end),
            min(end, other[2]) - max(start, other[1]),
            -other[1],
        ),
        default=None,
    )
    if partner is None:
        return Judged(*one, alone)
    if partner[0] != type:
        outcome = TYPE if partner[1:] == (start, end) else TYPE_AND_BOUNDARY
    elif partner[2] == end:
        outcome = LEFT
    else:
        outcome = RIGHT if partner[1] == start else BOTH
    return Judged(*one, outcome, partner=(partner[1], partner[2]), partner_type=partner[0])


def _n_disjoint(spans: Sequence[Offsets]) -> int:
    """The most spans that do not overlap each other."""
    n, furthest = 0, 0
    for start, end in sorted(set(spans), key=lambda span: span[1]):
        if start >= furthest:
            n, furthest = n + 1, end
    return n


def is_short_form(surface: str) -> bool:
    """Whether a name looks like an abbreviation or a symbol: ACTH, p53, TNF-α, HIV-1.

    One word of at most ten characters; half of its letters or more are capitals, or it holds a
    letter and a digit.
    """
    if not _SHORT_FORM.fullmatch(surface):
        return False
    letters = [character for character in surface if character.isalpha()]
    capitals = sum(character.isupper() for character in letters)
    has_digit = any(character.isdigit() for character in surface)
    return bool(letters) and (2 * capitals >= len(letters) > 1 or has_digit)


def length_of(surface: str) -> str:
    """The number of words between blanks, as a name of a group."""
    n = len(surface.split())
    return f"{LONG_WORDS} words or more" if n >= LONG_WORDS else f"{n} word{'s' * (n > 1)}"


class PaperCase(NamedTuple):
    """A case of one of the kinds of the paper's figure 6.

    kind: a key of PAPER_CASES.
    other: what the other system, or the gold, has there; None = nothing.
    """

    kind: str
    judged: Judged
    other: Judged | None
    document: JudgedDocument


PAPER_CASES = {
    "found": "right, and missed by the other system",
    "type": "right, and of another type in the other system",
    "boundary": "right, and with another boundary in the other system",
    "joined": "two mentions taken for one",
    "spurious": "nothing that is annotated, such as a symptom taken for a disease",
    "wrong boundary": "the right mention with a wrong boundary",
}
"""SOURCE: VANER, section 4.7 and figure 6. The paper's other system is VANER without DBR."""

COMPARING_CASES = ("found", "type", "boundary")
"""Those of them that need another system."""

_KIND_OF_OTHER = {
    MISSED: "found",
    TYPE: "type",
    TYPE_AND_BOUNDARY: "type",
    **dict.fromkeys(BOUNDARY, "boundary"),
}


def paper_cases(
    documents: Sequence[JudgedDocument], others: Sequence[JudgedDocument] | None = None
) -> Iterator[PaperCase]:
    """Sort what a system got right and wrong as the paper's case study does.

    others: the same documents as another system has them; without, COMPARING_CASES are left out.
    """
    for number, document in enumerate(documents):
        if others is not None:
            theirs = {(m.type, m.start, m.end): m for m in others[number].mentions}
            for mention in document.mentions:
                other = theirs.get((mention.type, mention.start, mention.end))
                if mention.outcome == HIT and other is not None:
                    kind = _KIND_OF_OTHER.get(other.outcome)
                    if kind is not None:
                        yield PaperCase(kind, mention, other, document)
        for span in document.spans:
            if span in document.joined:
                yield PaperCase("joined", span, None, document)
            elif span.outcome == SPURIOUS:
                yield PaperCase("spurious", span, None, document)
            elif span.outcome in BOUNDARY:
                yield PaperCase("wrong boundary", span, None, document)
