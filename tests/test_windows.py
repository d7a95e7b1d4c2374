"""Windows: every labelled subword is read, and counts once, where it has most context."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from spacy_vaner.errors import VanerError, VanerWarning
from spacy_vaner.pieces import IntArray
from spacy_vaner.windows import Windows, cut_with_overlap, packed_sentences, subword_windows

VOCAB = spacy.blank("en").vocab


def make_doc(sentence_lengths: Sequence[int], *, has_sentences: bool = True) -> Doc:
    n_words = sum(sentence_lengths)
    firsts = {int(i) for i in np.cumsum([0, *sentence_lengths])[:-1]}
    starts: list[bool | int | None] | None = (
        [i in firsts for i in range(n_words)] if has_sentences else None
    )
    return Doc(VOCAB, words=["w"] * n_words, sent_starts=starts)


def word_windows(doc: Doc, **settings: int | bool) -> list[tuple[int, int]]:
    (spans,) = packed_sentences(**settings)([doc])  # type: ignore[arg-type]
    return [(span.start, span.end) for span in spans]


@pytest.mark.parametrize(
    "sentences, expected",
    [
        ([3, 3, 3], [(0, 9)]),
        # As many whole sentences as there is room for.
        ([4, 4, 4], [(0, 8), (8, 12)]),
        ([10], [(0, 10)]),
        # A sentence that is too long is read with overlap, and shares no window with others.
        ([2, 16, 2], [(0, 2), (2, 11), (9, 18), (18, 20)]),
    ],
)
def test_sentences_are_packed(sentences: list[int], expected: list[tuple[int, int]]) -> None:
    assert word_windows(make_doc(sentences), n_words=10, overlap=2) == expected


def test_one_sentence_at_a_time_if_not_packed() -> None:
    windows = word_windows(make_doc([3, 3, 3]), n_words=10, overlap=2, pack=False)
    assert windows == [(0, 3), (3, 6), (6, 9)]


def test_a_document_without_sentences_is_read_in_strides() -> None:
    doc = make_doc([8, 8, 8], has_sentences=False)
    windows = word_windows(doc, n_words=10, overlap=3)
    assert windows[0][0] == 0 and windows[-1][1] == 24
    assert all(later[0] <= earlier[1] - 3 for earlier, later in zip(windows, windows[1:]))  # noqa: B905


def test_an_empty_document_has_no_window() -> None:
    assert word_windows(Doc(VOCAB)) == []


@pytest.mark.parametrize("n_words, overlap", [(10, 10), (10, -1), (0, 0)])
def test_an_overlap_that_leaves_no_step_is_refused(n_words: int, overlap: int) -> None:
    with pytest.raises(VanerError, match="VE010"):
        packed_sentences(n_words, overlap)


@settings(deadline=None)
@given(
    start=st.integers(0, 50),
    size=st.integers(0, 300),
    longest=st.integers(1, 40),
    data=st.data(),
)
def test_cut_ranges_cover_everything_with_their_overlap(
    start: int, size: int, longest: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, longest - 1))
    ranges = cut_with_overlap(start, start + size, longest, overlap)
    assert ranges[0][0] == start and ranges[-1][1] == start + size
    assert all(last - first <= longest for first, last in ranges)
    for earlier, later in zip(ranges, ranges[1:], strict=False):
        assert earlier[0] < later[0]
        assert earlier[1] - later[0] >= overlap


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=12), st.booleans(), st.booleans(), st.integers(1, 20))
def test_packed_sentences_leave_no_word_out(
    sentences: list[int], has_sentences: bool, pack: bool, n_words: int
) -> None:
    doc = make_doc(sentences, has_sentences=has_sentences)
    windows = word_windows(doc, n_words=n_words, overlap=n_words // 3, pack=pack)
    read = {position for start, end in windows for position in range(start, end)}
    assert read == set(range(len(doc)))
    assert all(end - start <= n_words for start, end in windows)


# From windows of characters to windows of subwords


def subwords_of(lengths: Iterable[int]) -> IntArray:
    """Subwords that lie side by side; 0 = one that stands for no character."""
    ends = np.cumsum(list(lengths), dtype=np.int64)
    subwords: IntArray = np.stack([ends - np.diff(ends, prepend=0), ends], axis=1)
    return subwords


def context(windows: Windows, index: int, subword: int, n_subwords: int) -> float:
    """Subwords between this one and the nearer cut of a window; an end of the text is no cut."""
    start, end = windows.ranges[index]
    left = subword - start if start > 0 else np.inf
    right = end - 1 - subword if end < n_subwords else np.inf
    return float(min(left, right, n_subwords))


SPANS = st.lists(
    st.tuples(st.integers(0, 120), st.integers(1, 60)).map(lambda pair: (pair[0], sum(pair))),
    max_size=5,
)


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    spans=SPANS,
    longest=st.integers(2, 20),
    data=st.data(),
)
def test_every_labelled_subword_counts_once_where_it_has_most_context(
    lengths: list[int], spans: list[tuple[int, int]], longest: int, data: st.DataObject
) -> None:
    subwords = subwords_of(lengths)
    holding = np.flatnonzero(subwords[:, 0] < subwords[:, 1])
    labelled = np.array(
        data.draw(st.lists(st.sampled_from(holding.tolist()), unique=True)) if len(holding) else [],
        dtype=np.int64,
    )
    labelled.sort()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VanerWarning)
        windows = subword_windows(spans, subwords, labelled, longest=longest, overlap=longest // 4)
    assert all(0 <= start < end <= len(subwords) for start, end in windows.ranges)
    assert all(end - start <= longest for start, end in windows.ranges)
    for subword in labelled:
        owner = windows.owner[subword]
        assert owner >= 0, "a subword is left out"
        start, end = windows.ranges[owner]
        assert start <= subword < end
        offers = [
            context(windows, index, subword, len(subwords))
            for index, (first, last) in enumerate(windows.ranges)
            if first <= subword < last
        ]
        assert context(windows, owner, subword, len(subwords)) == max(offers)


def test_the_ends_of_a_document_need_no_context() -> None:
    # Two windows share subwords 4 and 5; the one that sees more on the nearer side gets each.
    windows = subword_windows(
        [(0, 6), (4, 10)], subwords_of([1] * 10), np.arange(10), longest=6, overlap=2
    )
    assert windows.ranges == [(0, 6), (4, 10)]
    assert windows.owner.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    # The whole document is the most that there is to be seen, at its first and last word too.
    windows = subword_windows(
        [(0, 6), (4, 10), (0, 10)], subwords_of([1] * 10), np.arange(10), longest=10, overlap=2
    )
    assert windows.owner.tolist() == [2] * 10


def test_text_that_a_getter_leaves_out_is_read_with_a_warning() -> None:
    with pytest.warns(VanerWarning, match="VW010.*4 subwords"):
        windows = subword_windows(
            [(3, 6)], subwords_of([1] * 7), np.arange(7), longest=8, overlap=2
        )
    assert windows.ranges == [(3, 6), (0, 3), (6, 7)]
    assert windows.owner.tolist() == [1, 1, 1, 0, 0, 0, 2]


def test_text_without_labels_may_be_left_out_silently() -> None:
    # White space at the end of a document, for instance. Warnings are errors here.
    windows = subword_windows(
        [(0, 3)], subwords_of([1, 1, 1, 0]), np.arange(3), longest=8, overlap=2
    )
    assert windows.ranges == [(0, 3)]


def test_nothing_to_read() -> None:
    empty = np.zeros((0, 2), dtype=np.int64)
    windows = subword_windows([], empty, np.zeros(0, dtype=np.int64), longest=8, overlap=2)
    assert windows.ranges == [] and len(windows.owner) == 0
