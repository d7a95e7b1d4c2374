"""Changes of windows that keep a tagger from learning its training text by heart.

A word is hidden behind the mask, so that its neighbours have to tell what it is; a mention gives
way to another one of its type from the same corpus, so that names and contexts meet anew. What is
changed follows from the generator that is given.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy
from numpy.random import Generator
from numpy.typing import NDArray

from spacy_vaner.decoding import B, I, O
from spacy_vaner.training.rows_folder import NO_LOSS, IntArray, Source


class Window(NamedTuple):
    """A stretch of a document.

    subword_ids: (subwords,).
    units: (units, 2), the ranges of their subwords in it.
    tags: per annotation of the document (units,), O, B, I or NO_LOSS.
    """

    subword_ids: IntArray
    units: IntArray
    tags: list[IntArray]


class Name(NamedTuple):
    """A mention apart from its text: subword_ids (subwords,), units (units, 2), as in Window."""

    subword_ids: IntArray
    units: IntArray


def mask_units(window: Window, share: float, *, mask_id: int, rng: Generator) -> Window:
    """Show a share of the units as the mask, all subwords of each; labels stay."""
    ids = window.subword_ids.copy()
    for start, end in window.units[rng.random(len(window.units)) < share].tolist():
        ids[start:end] = mask_id
    return window._replace(subword_ids=ids)


class NamePool:
    """The distinct mentions of a source, by its questions and by whether a space comes before.

    begins_word: (ids,), whether a subword stands behind a space.
    """

    def __init__(self, source: Source, begins_word: NDArray[numpy.bool_]) -> None:
        self._begins_word = begins_word
        found: dict[tuple[str, str | None, bool], dict[bytes, Name]] = {}
        for index in range(len(source)):
            document = source[index]
            for annotation in document.annotations:
                for first, last in _mentions(annotation.tags):
                    units = document.units[first:last, :2]
                    start = int(units[0, 0])
                    ids = numpy.array(document.subword_ids[start : int(units[-1, 1])])
                    key = (annotation.type, annotation.corpus, bool(begins_word[ids[0]]))
                    names = found.setdefault(key, {})
                    names.setdefault(ids.tobytes(), Name(ids, units - start))
        self._names = {key: list(names.values()) for key, names in found.items()}

    def draw(
        self, type_name: str, corpus: str | None, *, first_id: int, rng: Generator
    ) -> Name | None:
        """A name that may stand where one that begins with a subword stands."""
        names = self._names.get((type_name, corpus, bool(self._begins_word[first_id])))
        return names[int(rng.integers(len(names)))] if names else None


def replace_mentions(
    window: Window,
    questions: list[tuple[str, str | None]],
    share: float,
    *,
    pool: NamePool,
    longest: int,
    rng: Generator,
) -> Window:
    """Put other names in the place of a share of the distinct mentions.

    A name that is there several times gives way to the same other name everywhere. Mentions that
    meet one of another type stay, and all stay where the window would grow too long.

    questions: type and corpus name per annotation.
    longest: subwords that the window may have then.
    """
    ids, units = window.subword_ids, window.units
    # (annotation, bytes of the mention) → what stands there instead; None = it stays.
    chosen: dict[tuple[int, bytes], Name | None] = {}
    swaps: list[tuple[int, int, Name]] = []
    length = len(ids)
    for number, (type_name, corpus) in enumerate(questions):
        for first, last in _mentions(window.tags[number]):
            mention = ids[int(units[first, 0]) : int(units[last - 1, 1])]
            key = (number, mention.tobytes())
            if key not in chosen:
                keep = rng.random() >= share
                first_id = int(mention[0])
                drawn = pool.draw(type_name, corpus, first_id=first_id, rng=rng)
                chosen[key] = None if keep else drawn
            name = chosen[key]
            grown = length + len(name.subword_ids) - len(mention) if name else length
            if name is None or grown > longest or not _is_alone(window.tags, number, first, last):
                continue
            swaps.append((first, last, name))
            length = grown
    return _swapped(window, sorted(swaps, key=lambda swap: swap[0]))


def _swapped(window: Window, swaps: list[tuple[int, int, Name]]) -> Window:
    if not swaps:
        return window
    ids: list[IntArray] = []
    units: list[IntArray] = []
    tags: list[list[IntArray]] = [[] for _ in window.tags]
    # Up to where the old window is taken over, and by how much its rest is moved.
    unit = subword = moved = 0
    for first, last, name in swaps:
        start, end = int(window.units[first, 0]), int(window.units[last - 1, 1])
        ids += [window.subword_ids[subword:start], name.subword_ids]
        units += [window.units[unit:first] + moved, name.units + (start + moved)]
        for parts, old in zip(tags, window.tags, strict=True):
            new = numpy.full(len(name.units), old[first], old.dtype)
            if old[first] == B:
                new[1:] = I
            parts += [old[unit:first], new]
        unit, subword = last, end
        moved += len(name.subword_ids) - (end - start)
    ids.append(window.subword_ids[subword:])
    units.append(window.units[unit:] + moved)
    for parts, old in zip(tags, window.tags, strict=True):
        parts.append(old[unit:])
    return Window(
        numpy.concatenate(ids), numpy.concatenate(units), [numpy.concatenate(one) for one in tags]
    )


def _mentions(tags: IntArray) -> list[tuple[int, int]]:
    """Ranges of the units of the mentions that a row of tags marks."""
    found = []
    for first in numpy.flatnonzero(tags == B).tolist():
        last = first + 1
        while last < len(tags) and tags[last] == I:
            last += 1
        found.append((first, last))
    return found


def _is_alone(tags: list[IntArray], number: int, first: int, last: int) -> bool:
    """Whether each other annotation says the same of all units of a mention: O, or nothing."""
    for other, row in enumerate(tags):
        values = set(row[first:last].tolist())
        if other != number and values != {O} and values != {NO_LOSS}:
            return False
    return True
