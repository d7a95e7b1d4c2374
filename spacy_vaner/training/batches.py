"""Rows of packed text and what is predicted in them; all by (seed, step), none by the past.

An epoch cuts the text into rows from a random offset on and shuffles them. Everything drawn comes
from a generator that is seeded with the run's seed, a number for its purpose and the step, so a
resumed run sees what an uninterrupted one sees.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy
from numpy.random import Generator
from numpy.typing import NDArray

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.training.config import Objective
from spacy_vaner.training.names import NameIndex
from spacy_vaner.training.token_file import Ids, Vocabulary

_EPOCH, _MASK, _CAUSAL, _DEV = range(4)
"""Purposes of generators."""

# Subwords of the text whose frequencies are taken for all of it.
_COUNTED = 4_000_000
# Higher than any draw, so never among the lowest that are taken.
_NEVER = 9.0

Rows = NDArray[numpy.int64]


class Batch(NamedTuple):
    """Rows of one forward pass.

    input_ids: (rows, row_subwords), int64.
    positions: (predictions,), places in the flattened rows whose states predict; sorted.
    targets: (predictions,), the subwords to predict; in "rtd" 1 where a place shows what was
        written and 0 where it shows another subword.
    causal: under the causal mask.
    """

    input_ids: Rows
    positions: NDArray[numpy.int64]
    targets: NDArray[numpy.int64]
    causal: bool

    @property
    def n_subwords(self) -> int:
        return self.input_ids.size

    @property
    def n_targets(self) -> int:
        return len(self.targets)


class Batches:
    """The batches of a run.

    ids: (subwords,), the whole text.
    names: that are hidden as a whole.
    RAISES VanerError: VE517, a text shorter than one row.
    """

    def __init__(
        self,
        ids: Ids,
        *,
        objective: Objective,
        vocabulary: Vocabulary,
        row_subwords: int,
        seed: int,
        split: str,
        path: Path,
        names: NameIndex | None = None,
    ) -> None:
        if len(ids) < row_subwords:
            raise VanerError(
                Messages.VE517.format(split=split, path=path, n=len(ids), row=row_subwords)
            )
        self._ids = ids
        self._objective = objective
        self._vocabulary = vocabulary
        self._names = names
        self._noise = unigrams(ids[:_COUNTED], vocabulary) if objective.name == "rtd" else None
        self._row_subwords = row_subwords
        self._seed = seed
        # As many rows in every epoch, wherever it begins.
        self.rows_per_epoch: int = max(1, (len(ids) - row_subwords + 1) // row_subwords)
        self._order = lru_cache(maxsize=2)(self._new_order)

    def step(self, step: int, *, n_rows: int, rows_per_pass: int) -> list[Batch]:
        """The passes of a training step."""
        rows = numpy.stack([self._row(step * n_rows + row) for row in range(n_rows)])
        share = self._objective.causal_share
        causal = bool(numpy.random.default_rng([self._seed, _CAUSAL, step]).random() < share)
        batches = []
        for start in range(0, n_rows, rows_per_pass):
            rng = numpy.random.default_rng([self._seed, _MASK, step, start])
            of_pass = rows[start : start + rows_per_pass]
            batches.append(self._batch(of_pass, rng, causal=causal))
        return batches

    def fixed(self, *, n_rows: int, rows_per_pass: int) -> list[Batch]:
        """Rows from all over the text, the same ones each time: for the dev loss.

        They are predicted as the objective says; under the causal mask only if it always is.
        """
        n_rows = min(n_rows, len(self._ids) // self._row_subwords)
        starts = numpy.linspace(0, len(self._ids) - self._row_subwords, n_rows).astype(int)
        rows = numpy.stack([self._read(start) for start in starts])
        causal = self._objective.causal_share == 1
        return [
            self._batch(
                rows[start : start + rows_per_pass],
                numpy.random.default_rng([_DEV, start]),
                causal=causal,
            )
            for start in range(0, n_rows, rows_per_pass)
        ]

    def _batch(self, rows: Rows, rng: Generator, *, causal: bool) -> Batch:
        objective, vocabulary = self._objective, self._vocabulary
        if causal:
            return causal_batch(rows, objective, vocabulary, rng)
        hidden = hidden_places(rows, objective, vocabulary, rng, names=self._names)
        if self._noise is not None:
            return replaced_batch(rows, hidden, vocabulary, rng, noise=self._noise)
        return masked_batch(rows, hidden, objective, vocabulary, rng)

    def _row(self, number: int) -> Rows:
        epoch, place = divmod(number, self.rows_per_epoch)
        offset, order = self._order(epoch)
        return self._read(offset + int(order[place]) * self._row_subwords)

    def _read(self, start: int) -> Rows:
        return self._ids[start : start + self._row_subwords].astype(numpy.int64)

    def _new_order(self, epoch: int) -> tuple[int, NDArray[numpy.int64]]:
        rng = numpy.random.default_rng([self._seed, _EPOCH, epoch])
        left = len(self._ids) - self.rows_per_epoch * self._row_subwords
        offset = int(rng.integers(0, min(left, self._row_subwords - 1) + 1))
        return offset, rng.permutation(self.rows_per_epoch)


def hidden_places(
    rows: Rows,
    objective: Objective,
    vocabulary: Vocabulary,
    rng: Generator,
    *,
    names: NameIndex | None = None,
) -> NDArray[numpy.int64]:
    """Draw a fixed share of the subwords; special subwords are never drawn.

    With whole words, and for names, the last one that is drawn may be cut, so that the count is
    exact.
    RETURNS: (hidden,), places in the flattened rows; sorted.
    """
    ids = rows.ravel()
    is_first = numpy.zeros(rows.shape, numpy.bool_)
    is_first[:, 0] = True
    hidden_from = vocabulary.is_special[ids]
    if objective.name == "mntp":  # nothing stands before a row's first subword
        hidden_from = hidden_from | is_first.ravel()
    if objective.whole_words:
        word = numpy.cumsum(vocabulary.starts_word[ids] | is_first.ravel()) - 1
        draw = rng.random(int(word[-1]) + 1)[word]
    else:
        draw = rng.random(len(ids))
    n_hidden = min(round(objective.masking_rate * len(ids)), int((~hidden_from).sum()))
    if names is not None:
        _prefer_names(draw, names.find(rows), round(objective.name_share * n_hidden), rng)
    draw[hidden_from] = _NEVER
    return numpy.sort(numpy.argsort(draw, kind="stable")[:n_hidden])


def _prefer_names(
    draw: NDArray[numpy.float64], spans: NDArray[numpy.int64], n_wanted: int, rng: Generator
) -> None:
    """Order the draw so: `n_wanted` subwords of whole names, other subwords, the other names."""
    left = n_wanted
    for start, end in rng.permutation(spans).tolist():
        draw[start:end] += 1 if left <= 0 else -1
        # Of the last one as many as are wanted; the rest of it counts as no name.
        if 0 < left < end - start:
            draw[start + left : end] += 1
        left -= end - start


def masked_batch(
    rows: Rows,
    hidden: NDArray[numpy.int64],
    objective: Objective,
    vocabulary: Vocabulary,
    rng: Generator,
) -> Batch:
    """Show the mask at most of the hidden places, and predict what was written there."""
    n_rows, size = rows.shape
    ids = rows.ravel()
    n_hidden = len(hidden)
    targets = ids[hidden]
    shown = ids.copy()
    how = rng.random(n_hidden)
    others = rng.choice(vocabulary.ordinary, n_hidden)
    is_kept = how < objective.kept_share
    is_random = ~is_kept & (how < objective.kept_share + objective.random_share)
    shown[hidden] = numpy.where(
        is_kept, targets, numpy.where(is_random, others, vocabulary.mask_id)
    )
    positions = hidden - 1 if objective.name == "mntp" else hidden
    return Batch(shown.reshape(n_rows, size), positions, targets, causal=False)


def replaced_batch(
    rows: Rows,
    hidden: NDArray[numpy.int64],
    vocabulary: Vocabulary,
    rng: Generator,
    *,
    noise: NDArray[numpy.float64],
) -> Batch:
    """Show drawn subwords at the hidden places, and ask at all places whether one was drawn.

    noise: as `unigrams` gives it. A draw of what was written counts as written.
    """
    ids = rows.ravel()
    shown = ids.copy()
    drawn = numpy.searchsorted(noise, rng.random(len(hidden)), side="right")
    shown[hidden] = vocabulary.ordinary[drawn]
    positions = numpy.flatnonzero(~vocabulary.is_special[ids])
    targets = (shown == ids)[positions].astype(numpy.int64)
    return Batch(shown.reshape(rows.shape), positions, targets, causal=False)


def unigrams(ids: Ids, vocabulary: Vocabulary) -> NDArray[numpy.float64]:
    """How frequent ordinary subwords are, summed up: (ordinary,), the last one is 1.

    Each is counted once more than it was seen, so that all can be drawn.
    """
    counts = numpy.bincount(ids, minlength=vocabulary.n_subwords)[vocabulary.ordinary] + 1
    sums: NDArray[numpy.float64] = numpy.cumsum(counts / counts.sum())
    sums[-1] = 1.0
    return sums


def causal_batch(rows: Rows, objective: Objective, vocabulary: Vocabulary, rng: Generator) -> Batch:
    """Predict the next subword at a fixed share of the places, the first of a document nowhere."""
    n_rows, size = rows.shape
    ids = rows.ravel()
    places = numpy.arange(n_rows * size).reshape(n_rows, size)[:, :-1].ravel()
    places = places[~vocabulary.is_special[ids[places + 1]]]
    n_places = min(round(objective.causal_rate * n_rows * (size - 1)), len(places))
    positions = numpy.sort(rng.permutation(places)[:n_places])
    return Batch(rows.copy(), positions, ids[positions + 1], causal=True)
