"""Gold mentions as labels of subwords, and the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_vaner.decoding import B, I, O
from spacy_vaner.reading import Reading, Row
from spacy_vaner.targets import Target, gold_tags, loss_and_gradient, make_targets
from spacy_vaner.windows import Windows

# Six units of two characters each: [0, 2), [2, 4), …
UNITS = np.stack([np.arange(0, 12, 2), np.arange(2, 14, 2)], axis=1)
Fragments = list[tuple[int, int]]


def tagged(
    mentions: list[Fragments],
    masked: Sequence[tuple[int, int]] = (),
    *,
    is_complete: bool = True,
) -> str:
    """Tags as letters, "." where there is no loss."""
    tags, counts = gold_tags(UNITS, mentions, masked, is_complete=is_complete)
    return "".join("OBI"[t] if c else "." for t, c in zip(tags, counts, strict=True))


@pytest.mark.parametrize(
    "mentions, tags",
    [
        ([], "OOOOOO"),
        ([[(0, 4)]], "BIOOOO"),
        # neighbours
        ([[(0, 4)], [(4, 6)]], "BIBOOO"),
        # a mention that cuts a unit is widened to it
        ([[(1, 3)]], "BIOOOO"),
        ([[(3, 4)]], "OBOOOO"),
        # of mentions that overlap the longest counts, then the first
        ([[(2, 4)], [(0, 6)]], "BIIOOO"),
        ([[(2, 6)], [(0, 4)]], "BIOOOO"),
        ([[(0, 4)], [(2, 8)], [(8, 12)]], "OBIIBI"),
        ([[(0, 4)], [(0, 4)]], "BIOOOO"),
        # a mention outside of every unit
        ([[(40, 44)]], "OOOOOO"),
        # discontinuous: no loss on its fragments, unless another mention says what they are
        ([[(0, 2), (6, 8)]], ".OO.OO"),
        ([[(0, 2), (6, 8)], [(6, 10)]], ".OOBIO"),
    ],
)
def test_tags_of_a_completely_annotated_type(mentions: list[Fragments], tags: str) -> None:
    assert tagged(mentions) == tags


@pytest.mark.parametrize(
    "mentions, tags",
    [([], "......"), ([[(2, 6)]], ".BI..."), ([[(2, 4), (8, 10)]], "......")],
)
def test_only_the_mentions_of_a_partial_type_give_loss(
    mentions: list[Fragments], tags: str
) -> None:
    assert tagged(mentions, is_complete=False) == tags


def test_masked_stretches_give_no_loss() -> None:
    assert tagged([[(0, 4)], [(8, 10)]], [(3, 7)]) == "B...BO"
    assert tagged([[(0, 4)]], [(0, 12)], is_complete=False) == "......"


def test_a_document_without_units() -> None:
    tags, counts = gold_tags(np.zeros((0, 2), dtype=np.int64), [[(0, 3)]], [], is_complete=True)
    assert len(tags) == len(counts) == 0


MENTION = st.tuples(st.integers(0, 11), st.integers(1, 8)).map(lambda p: [(p[0], sum(p))])


@settings(deadline=None)
@given(st.lists(MENTION, max_size=6))
def test_tags_are_legal_and_hold_the_longest_mention(mentions: list[Fragments]) -> None:
    tags = tagged(mentions)
    assert "OI" not in tags and not tags.startswith("I")
    assert tagged(mentions[::-1]) == tags
    assert tags.count("B") <= len(mentions)
    if mentions:
        (start, end), *_ = max(mentions, key=lambda m: (m[0][1] - m[0][0], -m[0][0]))
        first, last = start // 2, min((end - 1) // 2, 5)
        assert tags[first] == "B" and set(tags[first + 1 : last + 1]) <= {"I"}


# Subwords: the units of the reading below have one, three and two of them.
READING = Reading(
    subword_ids=np.arange(6),
    units=np.array([(0, 2), (2, 4), (4, 6)]),
    first=np.array([0, 1, 4]),
    last=np.array([1, 4, 6]),
    windows=Windows([(0, 6)], np.zeros(6, dtype=np.int64)),
)


def targets_of(
    reading: Reading, mentions: list[Fragments], labelled_subwords: str
) -> list[tuple[list[int], list[int]]]:
    gold = gold_tags(reading.units, mentions, [], is_complete=True)
    targets = make_targets(reading, gold, labelled_subwords=labelled_subwords)
    return [(target.positions.tolist(), target.tags.tolist()) for target in targets]


def test_the_first_subword_of_every_unit_is_labelled() -> None:
    assert targets_of(READING, [[(2, 6)]], "first") == [([0, 1, 4], [O, B, I])]


def test_all_subwords_are_labelled_and_a_span_begins_once() -> None:
    expected = [([0, 1, 2, 3, 4, 5], [O, B, I, I, I, I])]
    assert targets_of(READING, [[(2, 6)]], "all") == expected
    expected = [([0, 1, 2, 3, 4, 5], [B, B, I, I, B, I])]
    assert targets_of(READING, [[(0, 2)], [(2, 4)], [(4, 6)]], "all") == expected


def test_every_window_is_labelled_where_its_reading_counts() -> None:
    windows = Windows([(0, 3), (1, 6)], np.array([0, 0, 1, 1, 1, 1]))
    reading = READING._replace(windows=windows)
    assert targets_of(reading, [[(2, 6)]], "first") == [([0, 1], [O, B]), ([3], [I])]
    # The second unit is the first window's, which ends within it.
    assert targets_of(reading, [[(2, 6)]], "all") == [
        ([0, 1, 2], [O, B, I]),
        ([3, 4], [I, I]),
    ]


def test_a_reading_without_units_has_empty_targets() -> None:
    none = np.zeros(0, dtype=np.int64)
    reading = Reading(none, none.reshape(0, 2), none, none, Windows([], none))
    assert targets_of(reading, [], "all") == []
    windows = Windows([(0, 1)], np.full(1, -1))
    reading = Reading(np.zeros(1, dtype=np.int64), none.reshape(0, 2), none, none, windows)
    assert targets_of(reading, [], "all") == [([], [])]


def test_units_are_sorted_into_the_windows_that_read_them() -> None:
    owner = np.array([2, 2, 0, 0, 2, 0])
    windows = Windows([(0, 6), (0, 1), (0, 6)], owner)
    reading = Reading(np.arange(6), UNITS, np.arange(6), np.arange(1, 7), windows)
    by_window = [units.tolist() for units in reading.units_by_window()]
    assert by_window == [[2, 3, 5], [], [0, 1, 4]]


def test_loss_and_gradient_are_those_of_torch() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2, 6, 3)).astype(np.float32)
    rows = [Row(np.zeros(6, dtype=np.int64), 2), Row(np.zeros(5, dtype=np.int64), 1)]
    targets = [
        Target(np.array([0, 3]), np.array([B, O])),
        Target(np.array([1, 2, 3]), np.array([O, B, I])),
    ]
    loss, gradient = loss_and_gradient(logits.astype(np.float64), rows, targets, 5)
    reference = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    picked = torch.stack(
        [reference[0, 2], reference[0, 5], reference[1, 2], reference[1, 3], reference[1, 4]]
    )
    expected = torch.nn.functional.cross_entropy(picked, torch.tensor([B, O, O, B, I]))
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss == pytest.approx(float(expected.detach()), abs=1e-7)
    assert reference.grad is not None
    np.testing.assert_allclose(gradient, reference.grad.numpy(), atol=1e-7)
