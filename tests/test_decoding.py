"""Decoding against enumeration of every legal sequence, and the choice for doc.ents."""

from __future__ import annotations

import itertools
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spacy_vaner.decoding import (
    B,
    I,
    O,
    UnitSpan,
    above_threshold,
    choose_non_overlapping,
    decode,
    softmax,
)
from spacy_vaner.types import ScoredSpan

Tags = tuple[int, ...]


def legal_sequences(n_units: int) -> list[Tags]:
    return [
        tags
        for tags in itertools.product((O, B, I), repeat=n_units)
        if all(tag != I or (i and tags[i - 1] != O) for i, tag in enumerate(tags))
    ]


def spans_of(tags: Tags) -> list[tuple[int, int]]:
    starts = [i for i, tag in enumerate(tags) if tag == B]
    bounds = []
    for start in starts:
        end = start + 1
        while end < len(tags) and tags[end] == I:
            end += 1
        bounds.append((start, end))
    return bounds


def enumerate_all(
    probabilities: NDArray[np.float64],
) -> tuple[set[Tags], dict[tuple[int, int], float]]:
    """The most probable legal sequences, and the exact marginal of every possible span."""
    weights = {
        tags: float(np.prod([row[tag] for row, tag in zip(probabilities, tags, strict=True)]))
        for tags in legal_sequences(len(probabilities))
    }
    total, best = sum(weights.values()), max(weights.values())
    marginals: dict[tuple[int, int], float] = {}
    for tags, weight in weights.items():
        for bounds in spans_of(tags):
            marginals[bounds] = marginals.get(bounds, 0.0) + weight / total
    likeliest = {tags for tags, weight in weights.items() if weight >= best * (1 - 1e-12)}
    return likeliest, marginals


def random_rows(n_units: int, seed: int, concentration: float = 1.0) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    return generator.dirichlet(np.full(3, concentration), size=n_units)


def as_bounds(spans: list[UnitSpan]) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in spans]


def assert_exact(probabilities: NDArray[np.float64], spans: list[UnitSpan]) -> None:
    likeliest, marginals = enumerate_all(probabilities)
    assert as_bounds(spans) in [spans_of(tags) for tags in likeliest]
    for span in spans:
        assert span.probability == pytest.approx(marginals[span.start, span.end], abs=1e-9)


@pytest.mark.parametrize("n_units", range(1, 8))
@pytest.mark.parametrize("concentration", [0.1, 1.0, 5.0])
def test_decoding_equals_enumeration(n_units: int, concentration: float) -> None:
    sequences = [random_rows(n_units, seed, concentration) for seed in range(20)]
    for probabilities, spans in zip(sequences, decode(sequences), strict=True):
        assert_exact(probabilities, spans)


# Few values, so that ties, zeros and certainty are frequent.
COARSE_ROWS = st.sampled_from(
    [
        (1.0, 0.0, 0.0),
        (0.0, 1.0, 0.0),
        (0.25, 0.25, 0.5),
        (0.5, 0.25, 0.25),
        (0.25, 0.5, 0.25),
        (0.0, 0.5, 0.5),
        (0.5, 0.0, 0.5),
        (1 / 3, 1 / 3, 1 / 3),
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(COARSE_ROWS, min_size=1, max_size=7))
def test_ties_and_zeros_give_a_most_probable_sequence(rows: list[tuple[float, ...]]) -> None:
    probabilities = np.array(rows)
    (spans,) = decode([probabilities])
    likeliest, marginals = enumerate_all(np.maximum(probabilities, 1e-38))
    assert as_bounds(spans) in [spans_of(tags) for tags in likeliest]
    for span in spans:
        assert span.probability == pytest.approx(marginals[span.start, span.end], abs=1e-9)


@pytest.mark.parametrize(
    "rows, expected",
    [
        # Everything equally probable: O is taken before B, B before I.
        ([(1 / 3, 1 / 3, 1 / 3)] * 4, []),
        ([(0.2, 0.4, 0.4)] * 2, [(0, 1), (1, 2)]),
        # An I that may not stand first becomes the best that is legal.
        ([(0.1, 0.2, 0.7)], [(0, 1)]),
        ([(0.3, 0.0, 0.7)], []),
        # A weak B is worth it where strong I's follow.
        ([(0.6, 0.4, 0.0), (0.1, 0.0, 0.9), (0.1, 0.0, 0.9)], [(0, 3)]),
        ([(0.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)], [(0, 1), (1, 3)]),
    ],
)
def test_sequences_worked_out_by_hand(
    rows: list[tuple[float, ...]], expected: list[tuple[int, int]]
) -> None:
    (spans,) = decode([np.array(rows)])
    assert as_bounds(spans) == expected


def test_certain_but_illegal_input_gives_a_finite_answer() -> None:
    (spans,) = decode([np.array([(0.0, 0.0, 1.0)] * 5)])
    assert all(0.0 <= span.probability <= 1.0 for span in spans)


def test_probability_of_a_span_of_thousands_of_units_is_exact() -> None:
    # O is impossible, so the one span of 5,001 units survives 5,000 chances of another B.
    probabilities = np.tile([0.0, 0.001, 0.999], (5_001, 1))
    (spans,) = decode([probabilities])
    assert as_bounds(spans) == [(0, 5_001)]
    assert spans[0].probability == pytest.approx(0.999**5_000, rel=1e-9)


def test_probability_of_a_sure_span_among_thousands_of_units_is_exact() -> None:
    # Far from anything else a lone unit is a span with p(B) / (p(O) + p(B)).
    probabilities = np.tile([1.0, 0.0, 0.0], (20_001, 1))
    probabilities[10_000] = [0.3, 0.7, 0.0]
    (spans,) = decode([probabilities])
    assert as_bounds(spans) == [(10_000, 10_001)]
    assert spans[0].probability == pytest.approx(0.7, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    seed=st.integers(0, 1_000),
    data=st.data(),
)
def test_neighbours_and_padding_do_not_matter(
    lengths: list[int], seed: int, data: st.DataObject
) -> None:
    sequences = [random_rows(n, seed + i) for i, n in enumerate(lengths)]
    alone = [decode([sequence])[0] for sequence in sequences]
    order = data.draw(st.permutations(range(len(sequences))))
    together = decode([sequences[i] for i in order])
    # A long neighbour pads all others.
    padded = decode([*sequences, random_rows(150, seed)])
    for position, index in enumerate(order):
        assert together[position] == alone[index]
        assert padded[index] == alone[index]


def test_more_than_is_decoded_at_once_gives_the_same() -> None:
    generator = np.random.default_rng(0)
    long = [generator.dirichlet([8, 1, 1], size=10_000) for _ in range(45)]
    assert decode(long)[-1] == decode(long[-1:])[0]


def test_decoding_is_fast() -> None:
    generator = np.random.default_rng(0)
    sequences = [
        generator.dirichlet([8, 0.3, 0.3], size=int(n)) for n in generator.integers(50, 400, 512)
    ]

    def measure() -> float:
        started = process_time()
        decode(sequences)
        return process_time() - started

    # 0.03 s on a free core; the loop in log space that this replaced took 0.3 s.
    assert min(measure() for _ in range(4)) < 0.2


def test_nothing_in_nothing_out() -> None:
    assert decode([]) == []
    assert decode([np.zeros((0, 3))]) == [[]]


def test_softmax_is_stable_and_double() -> None:
    probabilities = softmax(np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]], dtype=np.float32))
    assert probabilities.dtype == np.float64
    assert probabilities.tolist() == [[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]


SPANS = [
    ScoredSpan("Disease", 0, 5, 0.25),
    ScoredSpan("Disease", 9, 12, 0.75),
    ScoredSpan("Gene", 0, 5, 0.5),
]


@pytest.mark.parametrize(
    "threshold, kept",
    [
        (0.0, [0, 1, 2]),
        (0.5, [1, 2]),
        (0.75, [1]),
        ({"Disease": 0.5}, [1, 2]),
        ({"Gene": 0.9, "Disease": 0.9}, []),
        ({}, [0, 1, 2]),
    ],
)
def test_threshold_is_a_number_or_one_per_type(
    threshold: float | dict[str, float], kept: list[int]
) -> None:
    assert above_threshold(SPANS, threshold) == [SPANS[i] for i in kept]


@pytest.mark.parametrize(
    "spans, chosen",
    [
        # probability, then length, then the order of types, then the earlier
        ([("B", 0, 4, 0.5), ("A", 2, 3, 0.9)], [("A", 2, 3, 0.9)]),
        ([("B", 0, 4, 0.5), ("A", 2, 3, 0.5)], [("B", 0, 4, 0.5)]),
        ([("B", 0, 4, 0.5), ("A", 0, 4, 0.5)], [("A", 0, 4, 0.5)]),
        ([("A", 0, 4, 0.5), ("A", 2, 6, 0.5)], [("A", 0, 4, 0.5)]),
        # a type that is not in the list comes last
        ([("Z", 0, 4, 0.5), ("B", 0, 4, 0.5)], [("B", 0, 4, 0.5)]),
        # neighbours share nothing
        ([("A", 4, 6, 0.5), ("A", 0, 4, 0.6)], [("A", 0, 4, 0.6), ("A", 4, 6, 0.5)]),
    ],
)
def test_choice_among_overlapping_spans(
    spans: list[tuple[str, int, int, float]], chosen: list[tuple[str, int, int, float]]
) -> None:
    assert choose_non_overlapping(spans, ["A", "B"]) == chosen
    assert choose_non_overlapping(reversed(spans), ["A", "B"]) == chosen


SPAN = st.builds(
    lambda name, start, size, probability: ScoredSpan(name, start, start + size, probability),
    st.sampled_from(["A", "B", "C"]),
    st.integers(0, 12),
    st.integers(1, 5),
    st.sampled_from([0.25, 0.5, 0.75]),
)


@settings(deadline=None)
@given(spans=st.lists(SPAN, max_size=12), data=st.data())
def test_choice_does_not_depend_on_the_order_of_spans(
    spans: list[ScoredSpan], data: st.DataObject
) -> None:
    chosen = choose_non_overlapping(spans, ["C", "A", "B"])
    shuffled = data.draw(st.permutations(spans))
    assert choose_non_overlapping(shuffled, ["C", "A", "B"]) == chosen
    for first, second in itertools.pairwise(chosen):
        assert first.end <= second.start
    taken = {position for span in chosen for position in range(span.start, span.end)}
    for span in set(spans) - set(chosen):
        assert not taken.isdisjoint(range(span.start, span.end)), "left out without a reason"
