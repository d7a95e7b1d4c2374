"""A document as the tagger reads it: subwords, units and windows, and the rows made of them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional

import numpy as np
from spacy.tokens import Doc

from spacy_vaner.backbone.batching import plan_batches
from spacy_vaner.pieces import IntArray, label_units, split_pieces
from spacy_vaner.windows import SpanGetter, Windows, subword_windows

if TYPE_CHECKING:
    from spacy_vaner.backbone.adapters import Adapter
    from spacy_vaner.backbone.tokenizer import SubwordTokenizer


class Question(NamedTuple):
    """What is asked of a document: a type, and the corpus name in the instruction (None = none)."""

    type: str
    corpus: str | None


class Reading(NamedTuple):
    """A document as the tagger reads it, the same for every question.

    subword_ids: (subwords,).
    units: (units, 2), character offsets of what gets a label of its own.
    first, last: (units,), the half-open range of the subwords of each unit.
    windows: the ranges of subwords that are read together.
    """

    subword_ids: IntArray
    units: IntArray
    first: IntArray
    last: IntArray
    windows: Windows

    def units_by_window(self) -> list[IntArray]:
        """Per window the units whose label is read in it."""
        owner = self.windows.owner[self.first]
        order = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[order], np.arange(1, len(self.windows.ranges)))
        return np.split(order, bounds) if self.windows.ranges else []


class Row(NamedTuple):
    """One input of the tagger: instruction, then the subwords of a window, then an encoder's mark.

    input_ids: (subwords of the row,).
    text_start: index of the window's first subword.
    adapter: the adapter that tags it; None = the tagger's own head.
    questions: texts of what is asked of it, each with an answer of its own; none where the
        instruction in it asks.
    """

    input_ids: IntArray
    text_start: int
    adapter: Optional["Adapter"] = None
    questions: tuple[str, ...] = ()


def encode_document(
    doc: Doc, tokenizer: "SubwordTokenizer", *, window: SpanGetter, max_subwords: int
) -> Reading:
    """Subwords, units and windows of a document.

    max_subwords: longest window.
    """
    ids, offsets = tokenizer.encode(doc.text)
    subwords = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    units, first, last = label_units(split_pieces(doc), subwords)
    windows = subword_windows(
        [(span.start_char, span.end_char) for span in window([doc])[0]] if len(doc) else [],
        subwords,
        first,
        longest=max_subwords,
        overlap=max_subwords // 4,
    )
    return Reading(np.array(ids, dtype=np.int64), units, first, last, windows)


def plan_rows(rows: Sequence[Row], batch_subwords: int) -> Iterator[list[int]]:
    """Indices of rows in batches, as plan_batches makes them for the rows of every adapter.

    What is asked of one adapter does not change the batches of another, or of the tagger beneath:
    their results stay equal to the bit.
    """
    by_adapter: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_adapter.setdefault(id(row.adapter), []).append(index)
    for indices in by_adapter.values():
        for batch in plan_batches([len(rows[i].input_ids) for i in indices], batch_subwords):
            yield [indices[i] for i in batch]
