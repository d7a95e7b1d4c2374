"""Counts of hits and misses, precision, recall and F1, and their bootstrap intervals.

Pure: plain values in, plain values out, no spaCy. A document gives one `Counts` per type; sums and
resampling work on these, so everything that is reported rests on the same numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Offsets

ANY_TYPE = "*"
"""The key under which `count` reports when types are not told apart."""

_RESAMPLES_AT_ONCE = 64  # 30,000 documents then take 15 MB, not 240


@dataclass(frozen=True, slots=True)
class Counts:
    """Hits (`tp`), spurious predictions (`fp`) and missed gold mentions (`fn`)."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def gold(self) -> int:
        return self.tp + self.fn

    @property
    def predicted(self) -> int:
        return self.tp + self.fp

    @property
    def p(self) -> float | None:
        """Precision, 0 to 1; None if nothing was predicted."""
        return self.tp / self.predicted if self.predicted else None

    @property
    def r(self) -> float | None:
        """Recall, 0 to 1; None if there is no gold mention."""
        return self.tp / self.gold if self.gold else None

    @property
    def f(self) -> float | None:
        """F1 = 2 tp / (gold + predicted), 0 to 1; None if both are zero.

        With gold mentions and no prediction it is 0.0, although the precision is undefined.
        """
        either = self.gold + self.predicted
        return 2 * self.tp / either if either else None


class Intervals(NamedTuple):
    """Lower and upper bound of precision, recall and F1; None where the figure is undefined."""

    p: tuple[float, float] | None
    r: tuple[float, float] | None
    f: tuple[float, float] | None


class PairedDifference(NamedTuple):
    """How much a figure of one system lies above that of another, on the same documents.

    difference: first minus second; None where a figure is undefined.
    interval: its bootstrap bounds.
    p_value: two-sided; how often a difference as large as this one comes out of resampling when
        the systems are equally good.
    """

    difference: float | None
    interval: tuple[float, float] | None
    p_value: float | None


Matching = Callable[[Offsets, Offsets], bool]


def _strict(gold: Offsets, predicted: Offsets) -> bool:
    return gold == predicted


def _near(gold: Offsets, predicted: Offsets) -> bool:
    return abs(gold[0] - predicted[0]) <= 1 and abs(gold[1] - predicted[1]) <= 1


def _overlap(gold: Offsets, predicted: Offsets) -> bool:
    return gold[0] < predicted[1] and predicted[0] < gold[1]


MATCHINGS: dict[str, Matching] = {"strict": _strict, "near": _near, "overlap": _overlap}
"""When a prediction of the right type hits a gold mention: the same offsets; each boundary off by
one character at most (as HunFlair's figures are scored); at least one character in common."""


def count(
    gold: Iterable[tuple[str, Sequence[Offsets]]],
    predicted: Iterable[tuple[str, int, int]],
    types: Iterable[str],
    *,
    matching: str = "strict",
    typed: bool = True,
    alternatives: Iterable[tuple[str, Sequence[Offsets]]] = (),
) -> dict[str, Counts]:
    """Compare the predictions of one document with its gold mentions.

    Each gold mention is hit by one prediction at most and each prediction hits one gold mention at
    most (under `near` and `overlap`, the assignment with the most hits counts). The same type and
    offsets twice, in gold or among the predictions, are counted once. A discontinuous gold mention
    (several fragments) counts as missed under every matching.

    gold: type and fragments (start, end) of each mention.
    predicted: type, start and end of each span.
    types: the types to score, those that the document annotates completely; gold and predictions
        of other types are left out.
    matching: a key of MATCHINGS.
    typed: whether the type has to agree; if not, mentions and spans of all `types` are taken
        together and one entry, ANY_TYPE, is returned.
    alternatives: boundaries that count as those of a gold mention that they overlap, if it has
        their type; under `strict`. BC2GM's official score is this one.
    RETURNS: an entry for every type of `types`, in that order, zeros included.
    RAISES VanerError: VE401, an unknown matching.
    """
    if matching not in MATCHINGS:
        raise VanerError(Messages.VE401.format(matching=matching, known=", ".join(MATCHINGS)))
    asked = list(dict.fromkeys(types))
    scored = {type: type if typed else ANY_TYPE for type in asked}
    gold_by_type: dict[str, set[tuple[Offsets, ...]]] = {key: set() for key in scored.values()}
    spans_by_type: dict[str, set[Offsets]] = {key: set() for key in scored.values()}
    for type, fragments in gold:
        if type in scored:
            gold_by_type[scored[type]].add(tuple((start, end) for start, end in fragments))
    for type, start, end in predicted:
        if type in scored:
            spans_by_type[scored[type]].add((start, end))
    also_right: dict[str, set[Offsets]] = {key: set() for key in scored.values()}
    for type, fragments in alternatives:
        if type in scored and len(fragments) == 1:
            start, end = fragments[0]
            also_right[scored[type]].add((start, end))
    return {
        key: _count_one(mentions, spans_by_type[key], matching, also_right[key])
        for key, mentions in gold_by_type.items()
    }


def _count_one(
    mentions: set[tuple[Offsets, ...]],
    spans: set[Offsets],
    matching: str,
    alternatives: set[Offsets],
) -> Counts:
    contiguous = {fragments[0] for fragments in mentions if len(fragments) == 1}
    if matching == "strict" and alternatives:

        def hits(gold: Offsets, predicted: Offsets) -> bool:
            return gold == predicted or (predicted in alternatives and _overlap(gold, predicted))

        tp = _most_hits(sorted(contiguous), sorted(spans), hits)
    elif matching == "strict":
        tp = len(contiguous & spans)
    else:
        tp = _most_hits(sorted(contiguous), sorted(spans), MATCHINGS[matching])
    return Counts(tp=tp, fp=len(spans) - tp, fn=len(mentions) - tp)


def _most_hits(mentions: list[Offsets], spans: list[Offsets], hits: Matching) -> int:
    """Size of the largest one-to-one assignment of spans to mentions that they hit.

    Grows the assignment along shortest augmenting paths, without recursion: a chain of overlaps
    may be as long as the document.
    """
    hit_by = [[j for j, span in enumerate(spans) if hits(mention, span)] for mention in mentions]
    mention_of: dict[int, int] = {}
    span_of: dict[int, int] = {}
    for first in range(len(mentions)):
        reached_from: dict[int, int] = {}
        queue = deque([first])
        free = None
        while queue and free is None:
            mention = queue.popleft()
            for span in hit_by[mention]:
                if span in reached_from:
                    continue
                reached_from[span] = mention
                if span not in mention_of:
                    free = span
                    break
                queue.append(mention_of[span])
        while free is not None:
            mention = reached_from[free]
            given_up = span_of.get(mention)
            mention_of[free], span_of[mention] = mention, free
            free = given_up
    return len(mention_of)


def micro(counts: Iterable[Counts]) -> Counts:
    """The sum: every mention weighs the same, whatever its type or document."""
    total = Counts()
    for each in counts:
        total += each
    return total


def bootstrap_intervals(
    per_document: Sequence[Counts], *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Intervals:
    """Percentile bootstrap intervals: documents are drawn with replacement, as many as there are.

    Documents, not mentions, are the unit: the mentions of one text are hit or missed together.
    Draws in which a figure is undefined are left out of its interval.

    per_document: one entry per document that was scored, also where it is all zeros.
    n: draws.
    level: share of the draws inside the interval.
    RETURNS: bounds from 0 to 1; the same for the same counts, n, seed and level.
    """
    sums = _resampled_sums(
        np.array([(c.tp, c.fp, c.fn) for c in per_document], dtype=np.float64).reshape(-1, 3),
        n=n,
        seed=seed,
    )
    tp, fp, fn = sums[:, 0], sums[:, 1], sums[:, 2]
    return Intervals(
        p=_bounds(tp, tp + fp, level),
        r=_bounds(tp, tp + fn, level),
        f=_bounds(2 * tp, 2 * tp + fp + fn, level),
    )


def paired_bootstrap(
    first: Sequence[Counts],
    second: Sequence[Counts],
    *,
    n: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Compare F1 of two systems by drawing the same documents for both.

    first, second: counts of the same documents, in the same order.
    n: draws; the smallest p value is 1 / (n + 1).
    RAISES VanerError: VE440, not as many documents on both sides.
    SOURCE: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 16: the draws are moved
        to a difference of zero and compared with the one observed.
    """
    if len(first) != len(second):
        raise VanerError(Messages.VE440.format(first=len(first), second=len(second)))
    rows = [
        (2 * a.tp, a.gold + a.predicted, 2 * b.tp, b.gold + b.predicted)
        for a, b in zip(first, second, strict=True)
    ]
    return _difference(rows, n=n, seed=seed, level=level)


def recall_over_precision(
    per_document: Sequence[Counts], *, n: int = 10_000, seed: int = 0, level: float = 0.95
) -> PairedDifference:
    """By how much recall exceeds precision, as paired_bootstrap compares two systems."""
    rows = [(c.tp, c.gold, c.tp, c.predicted) for c in per_document]
    return _difference(rows, n=n, seed=seed, level=level)


def _difference(
    per_document: Sequence[tuple[int, int, int, int]], *, n: int, seed: int, level: float
) -> PairedDifference:
    """Of two ratios. per_document: numerator and denominator of the first, then of the second."""
    table = np.array(per_document, dtype=np.float64).reshape(-1, 4)
    total = table.sum(axis=0)
    if not (total[1] and total[3]):
        return PairedDifference(None, None, None)
    observed = float(total[0] / total[1] - total[2] / total[3])
    sums = _resampled_sums(table, n=n, seed=seed)
    defined = sums[(sums[:, 1] > 0) & (sums[:, 3] > 0)]
    if not len(defined):
        return PairedDifference(observed, None, None)
    differences = defined[:, 0] / defined[:, 1] - defined[:, 2] / defined[:, 3]
    tail = (1 - level) / 2
    lower, upper = np.quantile(differences, [tail, 1 - tail])
    # Rounding must not make a difference of zero look smaller than that of its draws.
    as_large = np.abs(differences - observed) >= abs(observed) - 1e-12
    p_value = (1 + int(as_large.sum())) / (1 + len(differences))
    return PairedDifference(observed, (float(lower), float(upper)), p_value)


def _resampled_sums(per_document: NDArray[np.float64], *, n: int, seed: int) -> NDArray[np.float64]:
    """Sum the columns over documents drawn with replacement.

    per_document: (documents, columns); whole numbers, exact in a float far beyond any corpus.
    RETURNS: (n, columns). Systems compared on the same documents belong into the columns of one
        call, so that each draw takes the same documents for both.
    """
    n_documents = len(per_document)
    if n_documents == 0:
        return np.zeros((n, per_document.shape[1]))
    rng = np.random.default_rng(seed)
    even = np.full(n_documents, 1 / n_documents)
    blocks = [
        rng.multinomial(n_documents, even, size=min(_RESAMPLES_AT_ONCE, n - done)) @ per_document
        for done in range(0, n, _RESAMPLES_AT_ONCE)
    ]
    return np.concatenate(blocks)


def _bounds(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64], level: float
) -> tuple[float, float] | None:
    defined = denominators > 0
    if not defined.any():
        return None
    tail = (1 - level) / 2
    lower, upper = np.quantile(numerators[defined] / denominators[defined], [tail, 1 - tail])
    return float(lower), float(upper)
