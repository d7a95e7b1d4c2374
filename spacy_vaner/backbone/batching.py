"""Rows of different lengths in batches: which go together, and how wide they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# Rows are padded to a multiple of this: new shapes at every step cost more than the padding.
_PAD_TO = 32


def padded_length(length: int) -> int:
    """The width of a batch whose longest row is of this length."""
    return -(-length // _PAD_TO) * _PAD_TO


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
