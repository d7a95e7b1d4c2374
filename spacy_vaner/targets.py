"""What the tagger should have said: gold mentions as labels of subwords, and the loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spacy_vaner.decoding import B, FloatArray, I, O, softmax
from spacy_vaner.pieces import IntArray, label_subwords, overlapping
from spacy_vaner.reading import Reading, Row


class Target(NamedTuple):
    """What a row should be labelled.

    positions: (labels,), indices into the row's input_ids.
    tags: (labels,), O, B or I.
    weight: of the loss of its labels.
    """

    positions: IntArray
    tags: IntArray
    weight: float = 1.0


class GoldTags(NamedTuple):
    """What the annotation says about the units of a document, for one type.

    tags: (units,), O, B or I.
    counts: (units,), False where the annotation says nothing: no loss there.
    """

    tags: IntArray
    counts: NDArray[np.bool_]


def gold_tags(
    units: IntArray,
    mentions: Iterable[Sequence[tuple[int, int]]],
    masked: Iterable[tuple[int, int]],
    *,
    is_complete: bool,
) -> GoldTags:
    """Lay mentions of one type onto the units of a document.

    A mention that cuts a unit is widened to it. Of mentions that overlap the longest is taken.
    A discontinuous mention can't be tagged in IOB2: its units give no loss.

    mentions: per mention its fragments, character offsets.
    masked: stretches that give no loss.
    is_complete: False if the type is annotated incompletely; then only mentions give loss.
    """
    tags: IntArray = np.full(len(units), O, dtype=np.int64)
    counts: NDArray[np.bool_] = np.full(len(units), is_complete, dtype=np.bool_)
    contiguous = [fragments[0] for fragments in mentions if len(fragments) == 1]
    for start, end in sorted(contiguous, key=lambda bounds: (bounds[0] - bounds[1], bounds)):
        inside = overlapping(units, start, end)
        if inside.stop > inside.start and not tags[inside].any():
            tags[inside] = I
            tags[inside.start] = B
            counts[inside] = True
    for fragments in mentions:
        if len(fragments) > 1:
            for start, end in fragments:
                inside = overlapping(units, start, end)
                counts[inside] &= tags[inside] != O
    for start, end in masked:
        counts[overlapping(units, start, end)] = False
    return GoldTags(tags, counts)


def make_targets(
    reading: Reading, gold: GoldTags, *, labelled_subwords: str, weight: float = 1.0
) -> list[Target]:
    """What the rows of a reading should be labelled, in the order of its windows.

    labelled_subwords: "first" or "all" subwords of a unit.
    """
    targets = []
    for (start, end), units in zip(reading.windows.ranges, reading.units_by_window(), strict=True):
        units = units[gold.counts[units]]
        positions, tags = label_subwords(
            reading.first[units],
            # A very long word may reach past its window.
            np.minimum(reading.last[units], end),
            gold.tags[units],
            which=labelled_subwords,
        )
        targets.append(Target(positions - start, tags, weight))
    return targets


def loss_and_gradient(
    logits: FloatArray, rows: Sequence[Row], targets: Sequence[Target], n_labels: int
) -> tuple[float, FloatArray]:
    """Weighed cross-entropy over the labelled subwords, divided by n_labels (of the whole update).

    logits: (rows, longest row, 3).
    RETURNS: loss and its gradient, of the shape of logits.
    """
    gradient = np.zeros_like(logits)
    loss = 0.0
    for line, (row, target) in enumerate(zip(rows, targets, strict=True)):
        positions = target.positions + row.text_start
        probabilities = softmax(logits[line, positions])
        picked = np.arange(len(positions)), target.tags
        logs = np.log(np.maximum(probabilities[picked], 1e-38))
        loss -= target.weight * float(logs.sum())
        probabilities[picked] -= 1.0
        gradient[line, positions] = probabilities * (target.weight / n_labels)
    return loss / n_labels, gradient
