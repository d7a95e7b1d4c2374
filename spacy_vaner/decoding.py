"""From probabilities per unit to legal IOB2, to spans with a probability, to a choice among them.

The tagger gives every unit (a piece, or pieces that share a subword) a distribution over O, B, I.
A sequence is legal if no I follows an O or starts the text. Taking the distributions as
independent but for that rule gives p(y) = 1/Z * prod_i p_i(y_i) over the legal sequences y:

- the spans are those of the most probable legal sequence (Viterbi);
- the probability of a span is its exact marginal: the summed p(y) of all legal sequences that
  have a span with just these boundaries (forward-backward).

Everything is vectorised over sequences; nothing here knows spaCy or torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from spacy_vaner.types import ScoredSpan

FloatArray = NDArray[np.float64]

O, B, I = 0, 1, 2  # noqa: E741  columns of the head

# Padded cells per chunk of sequences that are decoded together; bounds the memory (about 100 MB).
_CELLS = 400_000
_TINY = 1e-38


class UnitSpan(NamedTuple):
    """A span of units: [start, end), and the exact probability of these boundaries."""

    start: int
    end: int
    probability: float


def softmax(logits: NDArray[np.floating]) -> FloatArray:
    """Probabilities from logits (..., 3), in double precision."""
    shifted: FloatArray = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def decode(probabilities: Sequence[FloatArray]) -> list[list[UnitSpan]]:
    """The spans of the most probable legal sequence, for each of many sequences.

    probabilities: per sequence (units, 3), columns O B I, rows that sum to 1.
    RETURNS: per sequence, its spans in order.
    """
    spans: list[list[UnitSpan]] = [[] for _ in probabilities]
    for chunk in _chunks_of_like_length([len(sequence) for sequence in probabilities]):
        log_p, lengths = _pad([probabilities[index] for index in chunk])
        tags = _most_probable_legal_tags(log_p)
        for index, found in zip(chunk, _spans_with_marginals(log_p, tags, lengths), strict=True):
            spans[index] = found
    return spans


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


def _pad(sequences: list[FloatArray]) -> tuple[FloatArray, NDArray[np.int64]]:
    """Log-probabilities (longest, sequences, 3); padding is certain to be O."""
    lengths = np.array([len(sequence) for sequence in sequences])
    padded = np.full((int(lengths.max()), len(sequences), 3), _TINY)
    padded[:, :, O] = 1.0
    for column, sequence in enumerate(sequences):
        padded[: len(sequence), column] = sequence
    return np.log(np.maximum(padded, _TINY)), lengths


def _most_probable_legal_tags(log_p: FloatArray) -> NDArray[np.int8]:
    """Viterbi. log_p: (units, sequences, 3). RETURNS: (units, sequences)."""
    n_units, n_sequences, _ = log_p.shape
    best = np.array(log_p[0])
    best[:, I] = -np.inf
    # from_any: the best tag before an O or B; from_inside: the best of B and I before an I.
    from_any = np.zeros((n_units, n_sequences), dtype=np.int8)
    from_inside = np.zeros((n_units, n_sequences), dtype=np.int8)
    for unit in range(1, n_units):
        from_any[unit] = best.argmax(axis=1)
        from_inside[unit] = B + (best[:, I] > best[:, B])
        any_score = best.max(axis=1)
        inside_score = best[:, B:].max(axis=1)
        best[:, O] = any_score
        best[:, B] = any_score
        best[:, I] = inside_score
        best += log_p[unit]
    tags = np.zeros((n_units, n_sequences), dtype=np.int8)
    column = np.arange(n_sequences)
    tags[-1] = best.argmax(axis=1)
    for unit in range(n_units - 1, 0, -1):
        inside = tags[unit] == I
        tags[unit - 1] = np.where(inside, from_inside[unit, column], from_any[unit, column])
    return tags


def _spans_with_marginals(
    log_p: FloatArray, tags: NDArray[np.int8], lengths: NDArray[np.int64]
) -> list[list[UnitSpan]]:
    n_units, n_sequences, _ = log_p.shape
    unit_of, sequence_of = np.nonzero(tags == B)
    if not len(unit_of):
        return [[] for _ in range(n_sequences)]
    before, after_any, z = _forward_backward(log_p)
    # Summed log p(I) up to and including a unit, to get a span's inside in one subtraction.
    inside_sum = np.cumsum(log_p[:, :, I], axis=0)
    not_inside = np.vstack([tags != I, np.ones((1, n_sequences), dtype=bool)])
    spans: list[list[UnitSpan]] = [[] for _ in range(n_sequences)]
    for unit, sequence in zip(unit_of.tolist(), sequence_of.tolist(), strict=True):
        end = unit + 1 + int(not_inside[unit + 1 :, sequence].argmax())
        log_probability = (
            before[unit, sequence]
            + log_p[unit, sequence, B]
            + (inside_sum[end - 1, sequence] - inside_sum[unit, sequence])
            + after_any[end, sequence]
            - z[sequence]
        )
        spans[sequence].append(UnitSpan(unit, end, float(np.exp(min(log_probability, 0.0)))))
    return spans


def _forward_backward(log_p: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log masses of the legal sequences around a unit.

    RETURNS: before (units, sequences), mass of all legal ways to tag the units before a unit;
        after_any (units + 1, sequences), mass of all legal ways to tag from a unit on, given that
        it is O or B; z (sequences,), mass of all legal sequences.
    """
    n_units, n_sequences, _ = log_p.shape
    before = np.zeros((n_units, n_sequences))
    outside = np.full(n_sequences, 0.0)
    inside = np.full(n_sequences, -np.inf)
    for unit in range(n_units):
        total = np.logaddexp(outside, inside)
        before[unit] = total
        o_or_b = log_p[unit]
        inside = np.logaddexp(total + o_or_b[:, B], inside + o_or_b[:, I])
        outside = total + o_or_b[:, O]
    z = np.logaddexp(outside, inside)
    # after_any: the unit is O or B; after_inside: it may also be I (its neighbour is B or I).
    after_any = np.zeros((n_units + 1, n_sequences))
    after_inside = np.zeros(n_sequences)
    for unit in range(n_units - 1, -1, -1):
        as_o = log_p[unit, :, O] + after_any[unit + 1]
        as_b = log_p[unit, :, B] + after_inside
        as_i = log_p[unit, :, I] + after_inside
        after_any[unit] = np.logaddexp(as_o, as_b)
        after_inside = np.logaddexp(after_any[unit], as_i)
    return before, after_any, z


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
