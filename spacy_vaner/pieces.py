"""The grain of the tagger: pieces finer than spaCy's tokens, and the way back to tokens.

Tokens cut across mentions ("BRCA1-deficient" is one token, its gene is five letters of it).
A piece is a stretch of one token that holds one kind of character: letters of one case pattern,
digits, or a single other sign. Gold mentions are laid onto pieces, predictions are read off them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spacy_vaner.decoding import B, I

if TYPE_CHECKING:
    from spacy.tokens import Doc

IntArray = NDArray[np.int64]


class _CharacterKinds(dict[int, str]):
    """str.translate table from a character to its kind, filled as characters are met."""

    def __missing__(self, code: int) -> str:
        kind = self[code] = self._kind(chr(code))
        return kind

    @staticmethod
    def _kind(character: str) -> str:
        category = unicodedata.category(character)
        if category in ("Lu", "Lt"):
            return "U"
        # Marks belong to the letter before them; letters without case behave like small ones.
        if category[0] in "LM":
            return "l"
        if category == "Nd":
            return "d"
        # Separators, control and format characters, surrogates: nothing to label.
        if category[0] in "ZC" and category != "Co":
            return " "
        return "p"


_KINDS = _CharacterKinds()
_PIECE = re.compile(r"U{2,}|U?l+|U|d+|p")


def split_pieces(doc: Doc) -> IntArray:
    """Cut a document into pieces.

    A piece ends where letters, digits and other signs meet, where a small letter is followed by a
    capital, and after two or more capitals: "mRNA" is m|RNA, "HDACs" is HDAC|s, "p53" is p|53.
    White space, control and format characters belong to no piece.

    RETURNS: (pieces, 2), half-open character offsets in text order.
    """
    kinds = doc.text.translate(_KINDS)
    finditer = _PIECE.finditer
    # An array, since spaCy makes an object of every token that is iterated over.
    pieces = [
        match.span()
        for start, length in doc.to_array(["IDX", "LENGTH"]).tolist()
        for match in finditer(kinds, start, start + length)
    ]
    return np.array(pieces, dtype=np.int64).reshape(-1, 2)


def split_plain(text: str) -> IntArray:
    """Cut a text into pieces without a tokenizer: white space alone separates its tokens.

    RETURNS: as split_pieces.
    """
    pieces = [match.span() for match in _PIECE.finditer(text.translate(_KINDS))]
    return np.array(pieces, dtype=np.int64).reshape(-1, 2)


def label_units(pieces: IntArray, subwords: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """What gets a label of its own: the finest stretches that pieces and subwords both respect.

    Pieces that share a subword become one unit; pieces without a subword (signs that the
    tokenizer drops) get no label, and a mention around them still covers them by its offsets.

    pieces, subwords: (n, 2), half-open character offsets in text order.
    RETURNS: units (n, 2) in characters; the half-open range (first, last) of their subwords.
    """
    first = np.searchsorted(subwords[:, 1], pieces[:, 0], side="right")
    last = np.searchsorted(subwords[:, 0], pieces[:, 1], side="left")
    found = first < last
    pieces, first, last = pieces[found], first[found], last[found]
    opens = np.ones(len(pieces), dtype=bool)
    opens[1:] = first[1:] >= last[:-1]
    closes = np.ones(len(pieces), dtype=bool)
    closes[:-1] = opens[1:]
    units = np.stack([pieces[opens, 0], pieces[closes, 1]], axis=1)
    return units, first[opens], last[closes]


def overlapping(units: IntArray, start: int, end: int) -> slice:
    """Which of the sorted, disjoint units (n, 2) share a character with [start, end)."""
    first = int(np.searchsorted(units[:, 1], start, side="right"))
    last = int(np.searchsorted(units[:, 0], end, side="left"))
    return slice(first, max(first, last))


def label_subwords(
    first: IntArray, last: IntArray, tags: IntArray, *, which: str
) -> tuple[IntArray, IntArray]:
    """Which subwords of units are labelled, and how.

    first, last: (units,), the half-open range of the subwords of each unit.
    tags: (units,), O, B or I.
    which: "first", or "all": then the further subwords of a unit that begins a mention are inside.
    RETURNS: positions (labels,) and their labels.
    """
    if which == "first":
        return first, tags
    sizes = last - first
    # 0, 1, … within each unit: all positions, less the position of the unit's first subword.
    rest: IntArray = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    positions: IntArray = np.repeat(first, sizes) + rest
    labels: IntArray = np.repeat(tags, sizes)
    labels[(rest > 0) & (labels == B)] = I
    return positions, labels
