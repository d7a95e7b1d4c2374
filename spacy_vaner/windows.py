"""Which tokens are read together, and which reading of a token counts.

A span getter (the same signature as spacy-transformers') proposes windows of tokens. Windows that
are too long for the backbone are cut with an overlap, what a getter leaves out is filled in, and
every subword is scored once: from the window that gives it most context.
"""

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import catalogue
import numpy as np
from spacy.tokens import Doc, Span
from spacy.util import registry

from spacy_vaner.errors import Messages, VanerError, VanerWarning
from spacy_vaner.pieces import IntArray

# spaCy itself has none; spacy-transformers makes the same one, before this module or after it.
if not hasattr(registry, "span_getters"):
    registry.span_getters = catalogue.create(  # type: ignore[attr-defined]
        "spacy", "span_getters", entry_points=True
    )

SpanGetter = Callable[[Iterable[Doc]], list[list[Span]]]


class Windows(NamedTuple):
    """The windows of one document, in subwords.

    ranges: half-open (start, end) into the document's subwords.
    owner: (subwords,), the index of the window whose reading of the subword counts.
    """

    ranges: list[tuple[int, int]]
    owner: IntArray


def packed_sentences(n_words: int = 160, overlap: int = 32, pack: bool = True) -> SpanGetter:
    """Windows of whole sentences where the document has sentences, else strides.

    n_words: longest window, in tokens. 160 tokens are about 300 subwords: long enough that the
        instruction costs little, short enough that attention does.
    overlap: tokens that neighbouring strides share, in documents without sentences and in
        sentences longer than n_words.
    pack: read neighbouring sentences together up to n_words; False reads one sentence at a time,
        as the paper does.
    RAISES VanerError: VE010, overlap not smaller than n_words.
    """
    if not 0 <= overlap < n_words:
        raise VanerError(Messages.VE010.format(overlap=overlap, n_words=n_words))
    return partial(_get_packed_sentences, n_words=n_words, overlap=overlap, pack=pack)


def _get_packed_sentences(
    docs: Iterable[Doc], *, n_words: int, overlap: int, pack: bool
) -> list[list[Span]]:
    return [
        [doc[start:end] for start, end in _pack(_sentence_bounds(doc), n_words, overlap, pack)]
        for doc in docs
    ]


def _sentence_bounds(doc: Doc) -> list[tuple[int, int]]:
    """Token bounds of the sentences; a document without sentences is one."""
    if not len(doc):
        return []
    if not doc.has_annotation("SENT_START"):
        return [(0, len(doc))]
    starts = [token.i for token in doc if token.i == 0 or token.is_sent_start]
    return list(zip(starts, [*starts[1:], len(doc)], strict=True))


def _pack(
    sentences: list[tuple[int, int]], n_words: int, overlap: int, pack: bool
) -> list[tuple[int, int]]:
    windows: list[tuple[int, int]] = []
    for start, end in sentences:
        if end - start > n_words:
            windows.extend(cut_with_overlap(start, end, n_words, overlap))
        elif pack and windows and windows[-1][1] == start and end - windows[-1][0] <= n_words:
            windows[-1] = (windows[-1][0], end)
        else:
            windows.append((start, end))
    return windows


def cut_with_overlap(start: int, end: int, longest: int, overlap: int) -> list[tuple[int, int]]:
    """Cut [start, end) into the fewest ranges of at most `longest` that share `overlap` or more.

    The ranges are of one length and spread evenly, so that none is a stump with little context.
    """
    size = end - start
    if size <= longest:
        return [(start, end)]
    n_ranges = -(-(size - overlap) // (longest - overlap))
    width = -(-(size + (n_ranges - 1) * overlap) // n_ranges)
    firsts = (start + index * (size - width) // (n_ranges - 1) for index in range(n_ranges))
    return [(first, first + width) for first in firsts]


def subword_windows(
    spans: Iterable[tuple[int, int]],
    subwords: IntArray,
    labelled: IntArray,
    *,
    longest: int,
    overlap: int,
) -> Windows:
    """Turn windows of characters into windows of subwords that read every labelled subword.

    spans: half-open character offsets of the windows that a span getter proposed.
    subwords: (subwords, 2), character offsets, in text order.
    labelled: indices of the subwords whose label is wanted.
    longest: most subwords in one window; longer ones are cut.
    overlap: subwords that the parts of a cut window share.
    WARNS VanerWarning: VW010, the getter left text out; windows are added for it.
    """
    ranges: list[tuple[int, int]] = []
    owner = np.full(len(subwords), -1, dtype=np.int64)
    context = np.full(len(subwords), -1, dtype=np.int64)

    def add(first: int, last: int) -> None:
        for window in cut_with_overlap(first, last, longest, overlap):
            _claim(len(ranges), window, owner, context)
            ranges.append(window)

    for start, end in spans:
        first = int(np.searchsorted(subwords[:, 1], start, side="right"))
        last = int(np.searchsorted(subwords[:, 0], end, side="left"))
        if first < last:
            add(first, last)
    left_out = labelled[owner[labelled] < 0]
    if len(left_out):
        warnings.warn(Messages.VW010.format(n=len(left_out)), VanerWarning, stacklevel=2)
        unread = np.flatnonzero(owner < 0)
        for run in np.split(unread, np.flatnonzero(np.diff(unread) > 1) + 1):
            add(int(run[0]), int(run[-1]) + 1)
    return Windows(ranges, owner)


def _claim(index: int, window: tuple[int, int], owner: IntArray, context: IntArray) -> None:
    """Give a window the subwords that it reads with more context than the windows before it."""
    start, end = window
    n_subwords = len(owner)
    position = np.arange(start, end)
    # At an end of the document there is no more context to be had.
    left = position - start if start else np.full(end - start, n_subwords)
    right = end - 1 - position if end < n_subwords else np.full(end - start, n_subwords)
    offered = np.minimum(left, right)
    better = offered > context[start:end]
    owner[start:end][better] = index
    context[start:end][better] = offered[better]
