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
from spacy_vaner.training.token_file import Ids, Vocabulary

_EPOCH, _MASK, _CAUSAL, _DEV = range(4)
"""Purposes of generators."""

Rows = NDArray[numpy.int64]


class Batch(NamedTuple):
    """Rows of one forward pass.

    input_ids: (rows, row_subwords), int64.
    positions: (predictions,), places in the flattened rows whose states predict; sorted.
    targets: (predictions,), the subwords to predict.
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
    ) -> None:
        if len(ids) < row_subwords:
            raise VanerError(
                Messages.VE517.format(split=split, path=path, n=len(ids), row=row_subwords)
            )
        self._ids = ids
        self._objective = objective
        self._vocabulary = vocabulary
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
            make = causal_batch if causal else masked_batch
            batches.append(make(of_pass, self._objective, self._vocabulary, rng))
        return batches

    def fixed(self, *, n_rows: int, rows_per_pass: int) -> list[Batch]:
        """Rows from all over the text, the same ones each time: for the dev loss.

        They are predicted as the objective says; under the causal mask only if it always is.
        """
        n_rows = min(n_rows, len(self._ids) // self._row_subwords)
        starts = numpy.linspace(0, len(self._ids) - self._row_subwords, n_rows).astype(int)
        rows = numpy.stack([self._read(start) for start in starts])
        make = causal_batch if self._objective.causal_share == 1 else masked_batch
        return [
            make(
                rows[start : start + rows_per_pass],
                self._objective,
                self._vocabulary,
                numpy.random.default_rng([_DEV, start]),
            )
            for start in range(0, n_rows, rows_per_pass)
        ]

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


def masked_batch(rows: Rows, objective: Objective, vocabulary: Vocabulary, rng: Generator) -> Batch:
    """Hide a fixed share of the subwords and predict them; special subwords are never hidden.

    With whole words the last word that is drawn may be cut, so that the count is exact.
    """
    n_rows, size = rows.shape
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
    draw[hidden_from] = 1.0  # drawn numbers are below
    n_hidden = min(round(objective.masking_rate * len(ids)), int((~hidden_from).sum()))
    hidden = numpy.sort(numpy.argsort(draw, kind="stable")[:n_hidden])
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


def causal_batch(rows: Rows, objective: Objective, vocabulary: Vocabulary, rng: Generator) -> Batch:
    """Predict the next subword at a fixed share of the places, the first of a document nowhere."""
    n_rows, size = rows.shape
    ids = rows.ravel()
    places = numpy.arange(n_rows * size).reshape(n_rows, size)[:, :-1].ravel()
    places = places[~vocabulary.is_special[ids[places + 1]]]
    n_places = min(round(objective.causal_rate * n_rows * (size - 1)), len(places))
    positions = numpy.sort(rng.permutation(places)[:n_places])
    return Batch(rows.copy(), positions, ids[positions + 1], causal=True)
