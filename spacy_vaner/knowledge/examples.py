"""DBR rows for `spacy train`: settings spacy-vaner.dbr_rows.v1, and the documents made of rows."""

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from spacy.language import Language
from spacy.tokens import Doc

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.gold import KEY, Gold
from spacy_vaner.knowledge.candidates import SentenceCandidates, candidates_of
from spacy_vaner.knowledge.rows import RUNNING_TEXT, RowSettings, draw_row
from spacy_vaner.knowledge.store import KnowledgeBase

logger = logging.getLogger("spacy_vaner")


def dbr_rows(
    candidates: str | list[str] | None,
    kb: str | None,
    mode: Literal["retrieved", "random", "off"] = "retrieved",
    share: float = 1.0,
    weight: float = 1.0,
    n_positive: int = 10,
    n_negative: int = 5,
    separator: str = RUNNING_TEXT,
    max_words: int = 100,
    every_epoch: bool = True,
) -> "DbrRows | None":
    """Documents of names beside those of a corpus: Dense Bio-entities Recognition.

    candidates: files of `python -m spacy vaner dbr` or folders of them, a list or one string with
        commas between; kb: the knowledge base that they come from.
    mode: "retrieved", names that are like phrases of the sentence; "random", as many from the whole
        knowledge base; "off".
    share: of the sentences, how many give a row in an epoch. 0 to 1.
    weight: of the loss of a label in a row, where one in a text has 1.
    n_positive, n_negative: at most so many names of an asked type, and of others.
    separator: between two names; " " is the authors'.
    max_words: a name of more is left out and counted.
    every_epoch: rows are drawn anew in every epoch; False: once.
    RETURNS: None with mode "off".
    RAISES VanerError: VE612.
    """
    for name, value, most in (("share", share, 1.0), ("weight", weight, float("inf"))):
        if not 0 <= value <= most:
            expected = "0 to 1" if most == 1 else "0 or more"
            raise VanerError(Messages.VE612.format(key=name, value=value, expected=expected))
    settings = RowSettings(
        mode=mode,
        n_positive=n_positive,
        n_negative=n_negative,
        separator=separator,
        max_words=max_words,
        every_epoch=every_epoch,
    )
    if mode == "off":
        return None
    paths = candidates.split(",") if isinstance(candidates, str) else candidates or []
    return DbrRows(
        [Path(path.strip()) for path in paths if path.strip()],
        None if kb is None else Path(kb),
        settings,
        share=share,
        weight=weight,
    )


class DbrRows:
    """Rows of names for the documents of a corpus, drawn by (seed, epoch).

    n_rows, n_left_out: rows so far, and names that were left out of them as too long.
    """

    def __init__(
        self,
        candidates: Sequence[Path],
        kb: Path | None,
        settings: RowSettings,
        *,
        share: float,
        weight: float,
    ) -> None:
        self.settings = settings
        self.share = share
        self.weight = weight
        self.n_rows = self.n_left_out = 0
        self._paths = candidates
        self._kb_path = kb
        self._kb: KnowledgeBase | None = None
        self._by_corpus: dict[Path, dict[tuple[str, str], list[SentenceCandidates]]] = {}

    def open(self, corpora: Iterable[Path]) -> None:
        """Read the candidates of corpus files.

        RAISES VanerError: VE626, no files are named; VE608, VE609, VE621, VE622, VE624, VE625, they
            cannot be used.
        """
        if not self._paths or self._kb_path is None:
            raise VanerError(Messages.VE626.format(mode=self.settings.mode))
        corpora = list(corpora)
        self._kb = KnowledgeBase.from_file(self._kb_path)
        self._by_corpus = candidates_of(self._paths, self._kb, corpora)
        if without := [path.name for path in corpora if path not in self._by_corpus]:
            logger.info("DBR rows: no candidates for %s", ", ".join(without))

    def sentences(
        self, corpus: Path, key: tuple[str, str], masked: Iterable[tuple[int, int]]
    ) -> list[SentenceCandidates]:
        """The sentences of a document, as `document_keys` names it, that no mask touches."""
        masked = list(masked)
        return [
            sentence
            for sentence in self._by_corpus.get(corpus, {}).get(key, ())
            if not sentence.overlaps(masked)
        ]

    def docs(
        self,
        nlp: Language,
        sentences: Iterable[SentenceCandidates],
        types: Sequence[str],
        *,
        jointly: bool,
        seed: int,
        epoch: int,
        draw: random.Random,
    ) -> Iterator[Doc]:
        """Annotated documents of names, a share of the sentences.

        types: asked of the sentences' document. Those that the knowledge base does not know give no
            row: all its names would be their negatives.
        jointly: one row for all types; else one for each.
        draw: chooses the sentences.
        """
        assert self._kb is not None
        known = [type for type in types if type in self._kb.by_type]
        groups = [[type] for type in known]
        if jointly:
            groups = [known] if known else []
        for sentence in sentences:
            for group in groups if draw.random() < self.share else ():
                row = draw_row(sentence, group, self._kb, self.settings, seed=seed, epoch=epoch)
                if row is None:
                    continue
                self.n_rows += 1
                self.n_left_out += row.n_too_long
                doc = nlp.make_doc(row.text)
                gold = Gold(types=row.types, mentions=row.mentions, weight=self.weight)
                doc.user_data[KEY] = gold.to_user_data()
                yield doc
