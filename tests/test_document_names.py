"""What makes the spans of a document agree: shared probabilities, short forms, repeated names."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spacy_vaner.document_names import (
    choose_spans,
    is_short_form,
    repeat_names,
    share_probabilities,
)
from spacy_vaner.types import ScoredSpan

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
    # Also where no place is sure enough to be repeated.
    names = ("Chemical", "MPA", 1, 0.3), ("Chemical", "MPA", 0, 0.6)
    kept = [("Chemical", "MPA", start, 0.6) for start in (0, 8)]
    assert repeated(text, *names, threshold=0.5) == kept


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


@pytest.mark.parametrize(
    "short, name, fits",
    [
        ("CsA", "cyclosporin A", True),
        ("TNF-α", "tumor necrosis factor-α", True),
        ("HCC", "hepatocellular carcinoma", True),
        ("ALL", "Acute Lymphoblastic Leukemia", True),
        ("LL", "acute lymphoblastic leukemia", True),
        ("CsB", "cyclosporin A", False),
        ("yA", "cyclosporin A", False),  # the first letter begins a word
        ("As", "cyclosporin A", False),  # in their order
        ("A", "A", False),
        ("aspirin", "aspirin", False),
        ("1-2", "1 or 2 doses", False),  # letters are needed
        ("--", "a--b", False),
        ("", "name", False),
    ],
)
def test_a_short_form_is_made_of_its_name(short: str, name: str, fits: bool) -> None:
    assert is_short_form(short, name) == fits


@pytest.mark.parametrize(
    "text",
    [
        "cyclosporin A (CsA) and CsA",
        "cyclosporin A [CsA] and CsA",
        "cyclosporin A ( CsA ) and CsA",
        "cyclosporin A(CsA, 5 mg) and CsA",
        "cyclosporin A (CsA; Sandimmun) and CsA",
    ],
)
def test_a_name_lends_its_probability_to_its_short_form(text: str) -> None:
    long = ("Chemical", "cyclosporin A", 0, 0.9)
    first, second = (match.start() for match in re.finditer("CsA", text))
    found = [
        ("Chemical", "cyclosporin A", 0, 0.9),
        ("Chemical", "CsA", first, 0.9),
        ("Chemical", "CsA", second, 0.9),
    ]
    # Not found, found with doubt in one place or in the other: all the same.
    for short in ([], [("Chemical", "CsA", 0, 0.2)], [("Chemical", "CsA", 1, 0.2)]):
        assert repeated(text, long, *short, threshold=0.5) == found
    # And the other way round.
    doubted = ("Chemical", "cyclosporin A", 0, 0.2)
    assert repeated(text, doubted, ("Chemical", "CsA", 1, 0.9), threshold=0.5) == found
    # Below what is called sure a short form is marked where it is defined, and not elsewhere.
    assert repeated(text, ("Chemical", "cyclosporin A", 0, 0.5)) == [
        ("Chemical", "cyclosporin A", 0, 0.5),
        ("Chemical", "CsA", first, 0.5),
    ]


def test_what_is_no_definition_brings_nothing() -> None:
    long = ("Disease", "renal failure", 0, 0.9)
    alone = [("Disease", "renal failure", 0, 0.9)]
    for text in (
        "renal failure (30 %)",
        "renal failure (severe)",
        "renal failure and (RF)",
        "renal failure (RF or not)",
        "renal failure (RF",
        "renal failure",
    ):
        assert repeated(text, long) == alone
    # Of another type it is another name.
    text = "renal failure (RF)"
    gene = ("Gene", "RF", 0, 0.3)
    assert repeated(text, long, gene) == [
        ("Disease", "renal failure", 0, 0.9),
        ("Disease", "RF", 15, 0.9),
        ("Gene", "RF", 15, 0.3),
    ]
    # What was found of its type in its place stays as it is.
    text = "renal failure (RF-2)"
    wider = ("Disease", "(RF-2)", 0, 0.4)
    assert repeated(text, long, wider) == [*alone, ("Disease", "(RF-2)", 14, 0.4)]
    # Nothing begins or ends within a unit.
    text, units = "renal failure (RF)", np.array([[0, 5], [6, 13], [14, 18]])
    span = ScoredSpan("Disease", 0, 13, 0.9)
    assert share_probabilities(text, [span], units) == [span]


def test_without_repeats_every_place_is_taken_by_itself() -> None:
    text = "cyclosporin A (CsA), CsA"
    spans = [
        place(text, "Chemical", "cyclosporin A", 0, 0.9),
        place(text, "Chemical", "CsA", 1, 0.2),
    ]
    assert choose_spans(text, spans, cut(text), threshold=0.0, repeat_threshold=None) == spans


@settings(deadline=None)
@given(
    data=st.data(),
    text=st.text("aAbB1 .β()", max_size=40),
    sure=st.sampled_from([0, 0.5, 1]),
)
def test_doing_it_twice_changes_nothing_and_nothing_is_lost(
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
    shared = share_probabilities(text, spans, units)
    assert [span[:3] for span in shared[: len(spans)]] == [span[:3] for span in spans]
    assert all(a.probability >= b.probability for a, b in zip(shared, spans, strict=False))
    found = repeat_names(text, shared, units, sure)
    assert found[: len(shared)] == shared
    assert sorted(repeat_names(text, found, units, sure)) == sorted(found)
    for first, second in itertools.pairwise(sorted(found)):
        assert first.end <= second.start
    names = {text[span.start : span.end] for span in shared}
    assert all(text[span.start : span.end] in names for span in found)
