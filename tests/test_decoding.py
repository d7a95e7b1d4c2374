"""Decoding against enumeration of every legal sequence, and the choice for doc.ents."""

from __future__ import annotations

import itertools
import re
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
    choose_spans,
    decode,
    lift_names,
    repeat_names,
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


PIECES = r"[A-Z]+|[a-z]+|\d+|[^\w\s]"


def cut(text: str, pattern: str = PIECES) -> NDArray[np.int64]:
    bounds = [match.span() for match in re.finditer(pattern, text)]
    return np.array(bounds, dtype=np.int64).reshape(-1, 2)


def place(text: str, type_name: str, name: str, number: int, probability: float) -> ScoredSpan:
    """The span of a name where it stands for the number-th time, from 0."""
    start = [match.start() for match in re.finditer(re.escape(name), text)][number]
    return ScoredSpan(type_name, start, start + len(name), probability)


def repeated(
    text: str, *names: tuple[str, str, int, float], threshold: float = 0.0
) -> list[tuple[str, str, int, float]]:
    """Type, name, place and probability after all that a component does with `names`."""
    spans = [place(text, *name) for name in names]
    found = choose_spans(text, spans, cut(text), threshold=threshold, repeat_threshold=0.7)
    return [(s.type, text[s.start : s.end], s.start, s.probability) for s in sorted(found)]


def test_a_name_found_for_sure_is_marked_wherever_it_stands() -> None:
    text = "MPA (MPA acid) in mice; MPA again, and AMPA."
    marked = [("Chemical", "MPA", start, 0.8) for start in (0, 5, 24)]
    assert repeated(text, ("Chemical", "MPA", 1, 0.8)) == marked


def test_a_name_found_with_doubt_stays_where_it_was_found() -> None:
    text = "MPA and MPA and MPA"
    assert repeated(text, ("Chemical", "MPA", 1, 0.6)) == [("Chemical", "MPA", 8, 0.6)]
    # Its surest place decides, and lends its probability to the others.
    sure = repeated(text, ("Chemical", "MPA", 1, 0.6), ("Chemical", "MPA", 0, 0.9))
    assert sure == [("Chemical", "MPA", start, 0.9) for start in (0, 8, 16)]
    # So a threshold between the two keeps all of them.
    names = ("Chemical", "MPA", 1, 0.6), ("Chemical", "MPA", 0, 0.9)
    assert repeated(text, *names, threshold=0.8) == sure
    assert repeated(text, *names, threshold=0.95) == []


@pytest.mark.parametrize(
    "text, name, marked",
    [
        # parts of words, and of words with digits, are other names
        ("IL and IL2 and HIL and IL-2", "IL", [0, 23]),
        ("p53 and p533 and wtp53 and p53.", "p53", [0, 27]),
        ("β-actin, ββ, β", "β", [0]),  # a single character means too many things
        ("no e. coli; e. coli-like", "e. coli", [3, 12]),
        ("-mer and -mers, -mer", "-mer", [0, 16]),
        ("Mice and mice", "mice", [9]),
    ],
)
def test_only_whole_words_in_the_same_case_are_the_same_name(
    text: str, name: str, marked: list[int]
) -> None:
    span = place(text, "Gene", name, 0, 0.9)
    units = cut(text, PIECES + "|β")
    assert [s.start for s in repeat_names(text, [span], units, 0.7)] == marked


def test_a_name_is_found_where_it_is_cut_into_other_units() -> None:
    text = "IL2 and IL2"
    units = np.array([[0, 2], [2, 3], [4, 7], [8, 11]])
    span = ScoredSpan("Gene", 0, 3, 0.9)
    assert [s[1:3] for s in repeat_names(text, [span], units, 0.7)] == [(0, 3), (8, 11)]
    # But nothing begins or ends within a unit.
    units = np.array([[0, 3], [4, 7], [8, 12]])
    assert repeat_names(text + "a", [span], units, 0.7) == [span]
    assert repeat_names("IL2-a", [ScoredSpan("Gene", 0, 3, 0.9)], np.array([[0, 5]]), 0.7)


def test_longer_names_and_what_was_found_come_first() -> None:
    text = "lung cancer, cancer of the lung, lung cancer, skin cancer"
    names = [("Disease", "cancer", 1, 0.9), ("Disease", "lung cancer", 0, 0.8)]
    assert repeated(text, *names, ("Disease", "skin cancer", 0, 0.3)) == [
        ("Disease", "lung cancer", 0, 0.8),
        ("Disease", "cancer", 13, 0.9),
        ("Disease", "lung cancer", 33, 0.8),
        ("Disease", "skin cancer", 46, 0.3),
    ]


def test_what_a_threshold_drops_is_not_in_the_way() -> None:
    text = "cancer grew. skin cancer, cancer"
    names = ("Disease", "cancer", 0, 0.95), ("Disease", "skin cancer", 0, 0.3)
    kept = repeated(text, *names, threshold=0.5)
    assert kept == [("Disease", "cancer", start, 0.95) for start in (0, 18, 26)]


def test_what_is_found_of_a_type_does_not_depend_on_what_else_is_asked() -> None:
    text = "CAT ate. CAT scan. CAT. mouse; mouse p53"
    species = [("Species", "CAT", 0, 0.99), ("Species", "mouse", 0, 0.9)]
    genes = [("Gene", "CAT", 2, 0.5), ("Gene", "mouse p53", 0, 0.9)]
    together = repeated(text, *species, *genes)
    assert together == [*repeated(text, *genes), *repeated(text, *species)]
    assert len(together) == 2 + 3 + 2


@settings(deadline=None)
@given(data=st.data(), text=st.text("aA1 .β", max_size=40), sure=st.sampled_from([0, 0.5, 1]))
def test_repeating_twice_changes_nothing_and_nothing_is_lost(
    data: st.DataObject, text: str, sure: float
) -> None:
    units = cut(text, r"\w+|[^\w\s]")
    spans: list[ScoredSpan] = []
    unit = 0
    while unit < len(units):
        size = data.draw(st.integers(0, min(3, len(units) - unit)))
        if size:
            start, end = int(units[unit, 0]), int(units[unit + size - 1, 1])
            probability = data.draw(st.sampled_from([0.25, 0.5, 0.75]))
            spans.append(ScoredSpan("A", start, end, probability))
        unit += max(size, 1)
    lifted = lift_names(text, spans, sure)
    assert lift_names(text, lifted, sure) == lifted
    assert [span[:3] for span in lifted] == [span[:3] for span in spans]
    found = repeat_names(text, lifted, units, sure)
    assert found[: len(lifted)] == lifted
    assert sorted(repeat_names(text, found, units, sure)) == sorted(found)
    for first, second in itertools.pairwise(sorted(found)):
        assert first.end <= second.start
    for span in found:
        assert any(text[s.start : s.end] == text[span.start : span.end] for s in spans)
