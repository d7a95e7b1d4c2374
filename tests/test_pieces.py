"""The grain: pieces of tokens, and the units that pieces and subwords share."""

from __future__ import annotations

import unicodedata
from time import process_time

import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_vaner.pieces import label_units, overlapping, split_pieces, split_plain

NLP = spacy.blank("en")


def pieces_of(text: str) -> list[str]:
    return [text[start:end] for start, end in split_pieces(NLP.make_doc(text)).tolist()]


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("BRCA1-deficient", ["BRCA", "1", "-", "deficient"]),
        ("mRNA", ["m", "RNA"]),
        ("HDACs", ["HDAC", "s"]),
        ("p53", ["p", "53"]),
        ("IL-2Rα", ["IL", "-", "2", "Rα"]),
        ("Crohn's disease", ["Crohn", "'", "s", "disease"]),
        ("5-FU/leucovorin", ["5", "-", "FU", "/", "leucovorin"]),
        ("(n=37)", ["(", "n", "=", "37", ")"]),
        ("...", [".", ".", "."]),
        # A mark belongs to its letter, in whatever form the letter is written.
        ("Sjögren", ["Sjögren"]),
        (unicodedata.normalize("NFD", "Sjögren"), [unicodedata.normalize("NFD", "Sjögren")]),
        # Letters without case behave like small ones.
        ("βタンパク質", ["βタンパク質"]),
        ("²³Na⁺", ["²", "³", "Na", "⁺"]),
        ("😀👍🏽", ["😀", "👍", "🏽"]),
        # White space, control and format characters belong to no piece.
        ("a\u200bb", ["a", "b"]),
        ("\x00a\x1f\ufeff", ["a"]),
        (" \n\t\r\n ", []),
        ("\n", []),
        ("", []),
        ("\ue000", ["\ue000"]),  # private use: some fonts keep their Greek there
    ],
)
def test_pieces(text: str, pieces: list[str]) -> None:
    assert pieces_of(text) == pieces


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_pieces_hold_every_visible_character_and_respect_tokens(text: str) -> None:
    doc = NLP.make_doc(text)
    pieces = split_pieces(doc)
    covered = {position for start, end in pieces.tolist() for position in range(start, end)}
    for position, character in enumerate(doc.text):
        if unicodedata.category(character)[0] in "LNPSM":
            assert position in covered
    assert (pieces[:, 0] < pieces[:, 1]).all()
    assert (pieces[1:, 0] >= pieces[:-1, 1]).all()
    token_of = {i: token.i for token in doc for i in range(token.idx, token.idx + len(token))}
    assert all(token_of[start] == token_of[end - 1] for start, end in pieces.tolist())
    # Without tokens the same characters, in pieces that tokens cut further at most.
    plain = split_plain(doc.text).tolist()
    assert {position for start, end in plain for position in range(start, end)} == covered
    assert {start for start, _ in plain} <= set(pieces[:, 0].tolist())


def test_a_word_of_a_hundred_thousand_characters_is_cut_in_no_time() -> None:
    started = process_time()
    assert len(pieces_of("contact" * 14_286)) == 1
    assert len(pieces_of("Ba" * 50_000)) == 50_000
    assert process_time() - started < 3


@pytest.mark.parametrize(
    "start, end, expected",
    [
        (0, 2, [0]),
        (1, 5, [0, 1]),
        (2, 3, []),
        (3, 4, [1]),
        (5, 9, [2]),
        (8, 9, []),
        (0, 9, [0, 1, 2]),
    ],
)
def test_units_that_share_a_character(start: int, end: int, expected: list[int]) -> None:
    units = np.array([(0, 2), (3, 5), (6, 8)])
    assert np.arange(3)[overlapping(units, start, end)].tolist() == expected


# Units: what pieces and subwords both respect


def units_of(
    pieces: list[tuple[int, int]], subwords: list[tuple[int, int]]
) -> list[tuple[int, int, int, int]]:
    """Per unit: start and end in characters, first and last subword."""
    columns = label_units(
        np.array(pieces, dtype=np.int64).reshape(-1, 2),
        np.array(subwords, dtype=np.int64).reshape(-1, 2),
    )
    units, first, last = columns
    return [
        (int(start), int(end), int(one), int(other))
        for (start, end), one, other in zip(units, first, last, strict=True)
    ]


@pytest.mark.parametrize(
    "pieces, subwords, units",
    [
        # one to one; a piece of two subwords; two pieces in one subword
        ([(0, 2), (2, 4)], [(0, 2), (2, 4)], [(0, 2, 0, 1), (2, 4, 1, 2)]),
        ([(0, 4)], [(0, 2), (2, 4)], [(0, 4, 0, 2)]),
        ([(0, 2), (2, 4)], [(0, 4)], [(0, 4, 0, 1)]),
        # a chain: every neighbour shares a subword with the next
        ([(0, 2), (2, 4), (4, 6)], [(0, 3), (3, 5), (5, 6)], [(0, 6, 0, 3)]),
        # a piece without a subword gets no unit, at the start, inside, at the end
        ([(0, 1), (2, 3), (4, 5)], [(2, 3)], [(2, 3, 0, 1)]),
        ([(0, 1), (2, 3), (4, 5)], [(0, 1), (4, 5)], [(0, 1, 0, 1), (4, 5, 1, 2)]),
        ([(0, 1)], [], []),
        ([], [(0, 1)], []),
        # marks: subwords without a character, before, between and after
        ([(0, 2), (3, 5)], [(0, 0), (0, 2), (3, 3), (3, 5), (5, 5)], [(0, 2, 1, 2), (3, 5, 3, 4)]),
        # a subword that reaches over the space into the next piece joins both
        ([(0, 2), (3, 5)], [(0, 3), (3, 5)], [(0, 2, 0, 1), (3, 5, 1, 2)]),
        ([(0, 2), (3, 5)], [(0, 4), (4, 5)], [(0, 5, 0, 2)]),
        # bytes of one character: all have its span
        ([(0, 1)], [(0, 1), (0, 1), (0, 1), (0, 1)], [(0, 1, 0, 4)]),
    ],
)
def test_units(
    pieces: list[tuple[int, int]],
    subwords: list[tuple[int, int]],
    units: list[tuple[int, int, int, int]],
) -> None:
    assert units_of(pieces, subwords) == units


def _bounds(n: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Sorted, disjoint stretches within [0, n)."""
    cuts = st.lists(st.integers(0, n), unique=True, max_size=12).map(sorted)
    return cuts.flatmap(
        lambda points: st.lists(
            st.booleans(), min_size=max(len(points) - 1, 0), max_size=max(len(points) - 1, 0)
        ).map(
            lambda kept: [
                pair
                for pair, keep in zip(zip(points, points[1:], strict=False), kept, strict=True)
                if keep
            ]
        )
    )


@settings(max_examples=150, deadline=None)
@given(_bounds(30), _bounds(30))
def test_units_respect_pieces_and_subwords(
    pieces: list[tuple[int, int]], subwords: list[tuple[int, int]]
) -> None:
    units = units_of(pieces, subwords)

    def share(one: tuple[int, int], other: tuple[int, int]) -> bool:
        return one[0] < other[1] and other[0] < one[1]

    for piece in pieces:
        holders = [unit for unit in units if share((unit[0], unit[1]), piece)]
        read = [index for index, subword in enumerate(subwords) if share(subword, piece)]
        if read:
            # The piece lies in one unit, whole, and the unit has all its subwords.
            ((start, end, first, last),) = holders
            assert start <= piece[0] and piece[1] <= end
            assert first <= min(read) and max(read) < last
        else:
            assert all(piece[0] > unit[0] and piece[1] < unit[1] for unit in holders)
    # No subword counts for two units, and each unit has one.
    assert all(first < last for _, _, first, last in units)
    assert all(one[3] <= other[2] for one, other in zip(units, units[1:], strict=False))
    assert all(one[1] <= other[0] for one, other in zip(units, units[1:], strict=False))
