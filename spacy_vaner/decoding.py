"""From probabilities per unit to legal IOB2, to spans with a probability, to a choice among them.

The tagger gives every unit (a piece, or pieces that share a subword) a distribution over O, B, I.
A sequence is legal if no I follows an O or starts the text. Taking the distributions as
independent but for that rule gives p(y) = 1/Z * prod_i p_i(y_i) over the legal sequences y:

- the spans are those of the most probable legal sequence (Viterbi);
- the probability of a span is its exact marginal: the summed p(y) of all legal sequences that
  have a span with just these boundaries (forward-backward).

Decoding is vectorised over sequences; nothing here knows spaCy or torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from spacy_vaner.types import ScoredSpan

FloatArray = NDArray[np.float64]

O, B, I = 0, 1, 2  # noqa: E741  columns of the head

# Padded units per chunk of sequences that are decoded together; bounds the memory (about 60 MB).
_CELLS = 400_000
_TINY = 1e-38


class UnitSpan(NamedTuple):
    """A span of units: [start, end), and the exact probability of these boundaries."""

    start: int
    end: int
    probability: float


def softmax(logits: NDArray[np.floating[Any]]) -> FloatArray:
    """Probabilities from logits (..., 3), in double precision."""
    shifted: FloatArray = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def decode(probabilities: Sequence[FloatArray]) -> list[list[UnitSpan]]:
    """The spans of the most probable legal sequence, for each of many sequences.

    probabilities: per sequence (units, 3), columns O B I, rows that sum to 1.
    RETURNS: per sequence, its spans in order. Of sequences that are equally probable the one that
        has O rather than B, and B rather than I, at the last unit where they differ.
    """
    spans: list[list[UnitSpan]] = [[] for _ in probabilities]
    for chunk in _chunks_of_like_length([len(sequence) for sequence in probabilities]):
        padded = _pad([probabilities[index] for index in chunk])
        tags = _most_probable_legal_tags(np.log(padded))
        # Most sequences hold nothing: only the others need their masses.
        holding = np.flatnonzero((tags == B).any(axis=1))
        found = _spans_with_marginals(padded[holding], tags[holding])
        for column, of_sequence in zip(holding.tolist(), found, strict=True):
            spans[chunk[column]] = of_sequence
    return spans


def decode_documents(
    types: Iterable[Sequence[str]],
    probabilities: Sequence[Sequence[FloatArray]],
    offsets: Iterable[NDArray[np.integer[Any]]],
) -> list[list[ScoredSpan]]:
    """The spans of documents, each of which was asked for one or more types.

    types, probabilities: per document, in the same order, what was asked and (units, 3).
    offsets: per document (units, 2), the characters of its units, half-open.
    RETURNS: per document its spans, by type in the order of asking, then by place.
    """
    decoded = iter(decode([one for of_document in probabilities for one in of_document]))
    return [
        [
            ScoredSpan(
                type_name,
                int(units[span.start, 0]),
                int(units[span.end - 1, 1]),
                span.probability,
            )
            for type_name in asked
            for span in next(decoded)
        ]
        for asked, units in zip(types, offsets, strict=True)
    ]


def _chunks_of_like_length(lengths: list[int]) -> Iterable[list[int]]:
    """Indices of the sequences that hold anything, so grouped that padding stays small."""
    chunk: list[int] = []
    for index in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: lengths[i]):
        longest = lengths[index]
        if chunk and ((len(chunk) + 1) * longest > _CELLS or longest > 2 * lengths[chunk[0]] + 64):
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        yield chunk


def _pad(sequences: list[FloatArray]) -> FloatArray:
    """Probabilities (sequences, longest, 3), none of them zero; padding is certain to be O."""
    padded = np.zeros((len(sequences), max(map(len, sequences)), 3))
    padded[:, :, O] = 1.0
    for line, sequence in enumerate(sequences):
        padded[line, : len(sequence)] = sequence
    return np.maximum(padded, _TINY, out=padded)


def _most_probable_legal_tags(log_p: FloatArray) -> NDArray[np.int8]:
    """Viterbi. log_p: (sequences, units, 3). RETURNS: (sequences, units)."""
    # Contiguous over the sequences of one unit: that is what the loops below walk.
    log_o, log_b, log_i = np.ascontiguousarray(log_p.transpose(2, 1, 0))
    # behind: by how much the best way to tag the units so far that ends inside a span (in B or I,
    # so that an I may follow) is less probable than the best of all.
    behind = np.full(log_o.shape[1], -np.inf)
    ends_in_o = np.empty(log_o.shape, dtype=np.bool_)
    inside_is_i = np.empty(log_o.shape, dtype=np.bool_)
    for unit in range(len(log_o)):
        as_i = behind + log_i[unit]
        np.greater(as_i, log_b[unit], out=inside_is_i[unit])
        behind = np.maximum(as_i, log_b[unit]) - log_o[unit]
        np.less_equal(behind, 0.0, out=ends_in_o[unit])
        behind = np.minimum(behind, 0.0)
    inside_tag = np.where(inside_is_i, np.int8(I), np.int8(B))
    tags = np.where(ends_in_o, np.int8(O), inside_tag)
    for unit in range(len(tags) - 1, 0, -1):
        # Before an I only B and I are legal.
        np.copyto(tags[unit - 1], inside_tag[unit - 1], where=tags[unit] == I)
    return np.ascontiguousarray(tags.T)


def _spans_with_marginals(p: FloatArray, tags: NDArray[np.int8]) -> list[list[UnitSpan]]:
    """p: (sequences, units, 3); tags: (sequences, units). RETURNS: per sequence its spans."""
    inside_share, outside_share, growth = _forward_backward(p)
    # One unit more than there are: the end of the last span. Flat, since no span crosses a line.
    n_columns = tags.shape[1] + 1
    starts = np.flatnonzero(np.pad(tags == B, ((0, 0), (0, 1))))
    stops = np.flatnonzero(np.pad(tags != I, ((0, 0), (0, 1)), constant_values=True))
    ends = stops[np.searchsorted(stops, starts, side="right")]
    # What a unit adds to the probability of a span, as a later unit of it and as its first.
    factors = np.pad(p[:, :, I] / growth, ((0, 0), (0, 1))).ravel()
    lines, units = np.divmod(starts, n_columns)
    factors[starts] = p[lines, units, B] / growth[lines, units]
    products = np.multiply.reduceat(factors, np.stack([starts, ends], axis=1).ravel())[::2]
    share = inside_share[lines, units]
    probabilities = (
        products
        * outside_share[lines, ends % n_columns]
        # All sequences: after B and I a unit can go on with their `inside`, after O with `outside`.
        / (share + (1.0 - share) * outside_share[lines, units])
    )
    spans: list[list[UnitSpan]] = [[] for _ in p]
    columns = (lines, units, units + ends - starts, np.minimum(probabilities, 1.0))
    for line, unit, end, probability in zip(*(c.tolist() for c in columns), strict=True):
        spans[line].append(UnitSpan(unit, end, probability))
    return spans


def _forward_backward(p: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Summed probabilities (masses) of the legal sequences, as ratios, which never underflow.

    Call `inside` the mass of all legal ways to tag from a unit on if the unit before is B or I
    (so that all three tags are legal), `outside` if it is O or there is none (no I).

    p: (sequences, units, 3), without zeros.
    RETURNS: inside_share (sequences, units): of the mass of the ways to tag the units before a
        unit, the share of those that end in B or I; outside_share (sequences, units + 1):
        outside / inside; growth (sequences, units): inside at a unit / inside at the next.
    """
    n_sequences, n_units, _ = p.shape
    p_o, p_b, p_i = np.ascontiguousarray(p.transpose(2, 1, 0))
    inside_share = np.empty((n_units, n_sequences))
    share = np.zeros(n_sequences)
    for unit in range(n_units):
        inside_share[unit] = share
        share = p_b[unit] + p_i[unit] * share
        share = share / (p_o[unit] + share)
    outside_share = np.empty((n_units + 1, n_sequences))
    growth = np.empty((n_units, n_sequences))
    outside_share[n_units] = 1.0
    for unit in range(n_units - 1, -1, -1):
        outside = p_o[unit] * outside_share[unit + 1] + p_b[unit]
        growth[unit] = outside + p_i[unit]
        outside_share[unit] = outside / growth[unit]
    return inside_share.T, outside_share.T, growth.T


def above_threshold(
    spans: Iterable[ScoredSpan], threshold: float | Mapping[str, float]
) -> list[ScoredSpan]:
    """The spans whose probability reaches the threshold (of their type, in a table; absent: 0)."""
    if isinstance(threshold, Mapping):
        return [span for span in spans if span.probability >= threshold.get(span.type, 0.0)]
    return [span for span in spans if span.probability >= threshold]


HasBounds = TypeVar("HasBounds", bound=tuple[str, int, int, float])


def choose_non_overlapping(spans: Iterable[HasBounds], types: Sequence[str]) -> list[HasBounds]:
    """Spans that share no position, for doc.ents.

    Preferred are the more probable, then the longer, then the type that comes first in `types`,
    then the earlier; the same input in any order gives the same choice.

    spans: (type, start, end, probability) in any unit of position.
    RETURNS: sorted by start.
    """
    priority = {name: rank for rank, name in enumerate(types)}

    def preference(span: HasBounds) -> tuple[float, int, int, int, str]:
        type_name, start, end, probability = span
        rank = priority.get(type_name, len(priority))
        return (-probability, start - end, rank, start, type_name)

    chosen: list[HasBounds] = []
    taken: set[int] = set()
    for span in sorted(spans, key=preference):
        positions = range(span[1], span[2])
        if taken.isdisjoint(positions):
            taken.update(positions)
            chosen.append(span)
    return sorted(chosen, key=lambda span: span[1])
