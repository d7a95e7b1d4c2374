"""Rows of different lengths in batches: which go together, and how wide they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# Rows are padded to a multiple of this. In training, new shapes at every step cost more than the
# padding; in prediction the padding does.
_PAD_TO, _PAD_TO_IN_PREDICTION = 32, 8


def padded_length(length: int, *, is_train: bool = True) -> int:
    """The width of a batch whose longest row is of this length."""
    multiple = _PAD_TO if is_train else _PAD_TO_IN_PREDICTION
    return -(-length // multiple) * multiple


def plan_batches(lengths: Sequence[int], batch_subwords: int) -> Iterator[list[int]]:
    """Indices of rows of like length, in batches of at most batch_subwords with padding.

    A row that is longer than the budget is a batch of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i), reverse=True):
        width = padded_length(lengths[batch[0] if batch else index])
        if batch and (len(batch) + 1) * width > batch_subwords:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
