"""Where names of a knowledge base stand in rows of subwords, to be hidden as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy
from numpy.typing import NDArray

from spacy_vaner.backbone.tokenizer import SubwordTokenizer
from spacy_vaner.training.sources import read_concepts

# What may stand before a name: a subword at the start of a word is another one than inside of it.
_BEFORE = ("a ", "a (")
# Letters of the shortest name: "a" or "II" would be found everywhere and be none.
_FEWEST_LETTERS = 3
_MOST_SUBWORDS = 16

IntArray = NDArray[numpy.int64]


class NameIndex:
    """Names by their subwords.

    names: as they are written; the lower-case form and the one with a capital are added.
    """

    def __init__(self, names: Iterable[str], tokenizer: SubwordTokenizer) -> None:
        texts = tokenizer.subword_texts()
        # Whether its first, and its last, character may belong to a longer word.
        self._joins_left = numpy.zeros(tokenizer.n_tokens, numpy.bool_)
        self._joins_right = numpy.zeros(tokenizer.n_tokens, numpy.bool_)
        for id_, (text, begins_word) in texts.items():
            self._joins_left[id_] = not begins_word and text[:1].isalnum()
            self._joins_right[id_] = text[-1:].isalnum()
        self._names: set[tuple[int, ...]] = set()
        for form in set().union(*map(_forms, names)):
            for before in _BEFORE:
                ids, spans = tokenizer.encode(before + form)
                found = tuple(
                    id_ for id_, (_, end) in zip(ids, spans, strict=True) if end > len(before)
                )
                if 0 < len(found) <= _MOST_SUBWORDS:
                    self._names.add(found)
        lengths: dict[int, set[int]] = {}
        for found in self._names:
            lengths.setdefault(found[0], set()).add(len(found))
        self._lengths = {first: sorted(of, reverse=True) for first, of in lengths.items()}
        self._is_first = numpy.zeros(tokenizer.n_tokens, numpy.bool_)
        self._is_first[list(lengths)] = True

    @classmethod
    def from_file(cls, path: Path, tokenizer: SubwordTokenizer) -> NameIndex:
        """Read a file of names, as `prepare` does.

        RAISES VanerError: VE503-VE505, with file and line.
        """
        return cls((name for names in read_concepts(path).values() for name in names), tokenizer)

    def sha256(self) -> str:
        """Hash of what is looked for."""
        lines = sorted(" ".join(map(str, name)) for name in self._names)
        return hashlib.sha256("\n".join(lines).encode("ascii")).hexdigest()

    def find(self, rows: IntArray) -> IntArray:
        """The names in rows, the longest first found from the left, none within another.

        rows: (rows, row_subwords).
        RETURNS: (names, 2), starts and ends in the flattened rows; no name reaches over two rows
            or ends inside of a word.
        """
        size = rows.shape[1]
        ids = rows.ravel()
        listed = ids.tolist()
        goes_on = self._joins_left[ids]
        goes_on[1:] &= self._joins_right[ids[:-1]]
        goes_on[::size] = False
        spans: list[tuple[int, int]] = []
        past = 0
        for start in numpy.flatnonzero(self._is_first[ids] & ~goes_on).tolist():
            if start < past:
                continue
            row_end = start - start % size + size
            for length in self._lengths[listed[start]]:
                end = start + length
                if end > row_end or (end < row_end and goes_on[end]):
                    continue
                if tuple(listed[start:end]) in self._names:
                    spans.append((start, end))
                    past = end
                    break
        return numpy.array(spans, numpy.int64).reshape(-1, 2)


def _forms(name: str) -> set[str]:
    if sum(character.isalpha() for character in name) < _FEWEST_LETTERS:
        return set()
    return {name, name.lower(), name[:1].upper() + name[1:]}
