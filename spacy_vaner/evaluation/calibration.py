"""How far probabilities can be trusted, and thresholds that are fitted on a dev split."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.evaluation.judgement import HIT, judge
from spacy_vaner.evaluation.predictions import PredictedDocument
from spacy_vaner.metrics import Counts

N_BINS = 10

Scored = tuple[float, bool]
"""The probability of a span, and whether it is a hit."""


class Bin(NamedTuple):
    """The spans whose probability lies in [lower, upper); the last bin holds 1.0 too.

    mean_probability, precision: None where there are none.
    """

    lower: float
    upper: float
    n: int
    mean_probability: float | None
    precision: float | None


class Calibration(NamedTuple):
    """How far the probabilities of predicted spans agree with their precision.

    error: expected calibration error, 0 to 1: the difference between mean probability and
        precision of a bin, averaged over the spans; None without any.
    SOURCE: Guo and others, On Calibration of Modern Neural Networks, section 2; ten bins of equal
        width. There a prediction is a class of an image, here it is a span with its type.
    """

    error: float | None
    n: int
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "error": self.error,
            "spans": self.n,
            "bins": [each._asdict() for each in self.bins],
        }


def calibrate(spans: Iterable[Scored]) -> Calibration:
    """Compare the probabilities of spans with how many of them are hits."""
    binned: list[list[Scored]] = [[] for _ in range(N_BINS)]
    for probability, is_hit in spans:
        binned[min(int(probability * N_BINS), N_BINS - 1)].append((probability, is_hit))
    bins = []
    n = sum(map(len, binned))
    error = 0.0
    for number, held in enumerate(binned):
        mean = sum(p for p, _ in held) / len(held) if held else None
        precision = sum(is_hit for _, is_hit in held) / len(held) if held else None
        bins.append(Bin(number / N_BINS, (number + 1) / N_BINS, len(held), mean, precision))
        if mean is not None and precision is not None:
            error += len(held) / n * abs(mean - precision)
    return Calibration(error if n else None, n, tuple(bins))


def draw_reliability(calibrations: Mapping[str, Calibration], path: Path) -> None:
    """Draw precision over probability, and how many spans stand behind each point, as PNG.

    calibrations: name of a line to what is drawn; lines without spans are left out.
    RAISES VanerError: VE443, matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise VanerError(Messages.VE443.format(reason=error)) from error
    figure = Figure(figsize=(5, 6), layout="constrained")
    curve, bars = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], color="0.7", linestyle=":", label="as good as said")
    for name, calibration in calibrations.items():
        filled = [each for each in calibration.bins if each.n]
        if calibration.error is None:
            continue
        (line,) = curve.plot(
            [each.mean_probability for each in filled],
            [each.precision for each in filled],
            marker="o",
            label=f"{name}: error {100 * calibration.error:.1f}, {calibration.n:,} spans",
        )
        middles = [(each.lower + each.upper) / 2 for each in filled]
        bars.plot(middles, [each.n for each in filled], marker="o", color=line.get_color())
    curve.set(ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    curve.legend(loc="best", fontsize="small")
    bars.set(xlabel="probability", ylabel="spans", yscale="log", ylim=(0.8, None))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib in the file, the same figures give the same bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})


class FittedThreshold(NamedTuple):
    """The threshold with the best F1 of a type.

    before, after: without it and with it, on the documents that it was fitted on: flattering.
    held_out: with thresholds that were fitted on other documents each (cross-validation): what
        new text has to expect. None where there are too few documents.
    """

    threshold: float
    before: Counts
    after: Counts
    held_out: Counts | None = None


class ScoredSpans(NamedTuple):
    """The predicted spans, at threshold 0, and the number of gold mentions of one type."""

    spans: Sequence[Scored]
    n_gold: int


class _Document(NamedTuple):
    corpus: str
    found: ScoredSpans


def fit_thresholds(
    documents: Iterable[PredictedDocument], *, n_folds: int = 5, seed: int = 0
) -> dict[str, FittedThreshold]:
    """Fit a threshold for every type that the documents annotate completely.

    documents: of dev splits, predicted with threshold 0; spans without a probability stay.
    n_folds: parts of the cross-validation; of fewer documents each is a part. Below 2: none.
    seed: of the order in which documents are dealt out to the parts.
    """
    found: dict[str, list[_Document]] = {}
    for predicted in documents:
        judged = judge(predicted)
        for type in predicted.types:
            spans = [
                (1.0 if span.probability is None else span.probability, span.outcome == HIT)
                for span in judged.spans
                if span.type == type
            ]
            n_gold = sum(mention.type == type for mention in judged.mentions)
            document = _Document(predicted.document.corpus, ScoredSpans(spans, n_gold))
            found.setdefault(type, []).append(document)
    return {
        type: _fit(of_type)._replace(held_out=_cross_validate(of_type, n_folds, seed))
        for type, of_type in found.items()
    }


def _fit(documents: Sequence[_Document]) -> FittedThreshold:
    corpora: dict[str, list[ScoredSpans]] = {}
    for document in documents:
        corpora.setdefault(document.corpus, []).append(document.found)
    return fit_threshold(
        [
            ScoredSpans(
                [span for each in found for span in each.spans], sum(e.n_gold for e in found)
            )
            for found in corpora.values()
        ]
    )


def _cross_validate(documents: Sequence[_Document], n_folds: int, seed: int) -> Counts | None:
    """Counts of all documents, each with the threshold that those of the other folds give."""
    dealt = list(documents)
    random.Random(seed).shuffle(dealt)
    n_folds = min(n_folds, len(dealt))
    if n_folds < 2:
        return None
    total = Counts()
    for fold in range(n_folds):
        others = [each for number, each in enumerate(dealt) if number % n_folds != fold]
        threshold = _fit(others).threshold
        for _, (spans, n_gold) in dealt[fold::n_folds]:
            kept = [is_hit for probability, is_hit in spans if probability >= threshold]
            total += Counts(sum(kept), len(kept) - sum(kept), n_gold - sum(kept))
    return total


def fit_threshold(corpora: Sequence[ScoredSpans]) -> FittedThreshold:
    """Find the threshold with the highest mean strict F1 of corpora; of equal ones the lowest.

    Every corpus counts alike, however many mentions it has. The threshold lies half-way between the
    probabilities of the spans that it parts, rounded down to four digits where that parts the same
    ones.
    """
    counts = []
    for spans, n_gold in corpora:
        tp = sum(is_hit for _, is_hit in spans)
        counts.append(Counts(tp, len(spans) - tp, n_gold - tp))
    best = FittedThreshold(0.0, before := sum(counts, Counts()), before)
    highest = sum(each.f or 0.0 for each in counts)
    ordered = sorted(
        (probability, is_hit, number)
        for number, (spans, _) in enumerate(corpora)
        for probability, is_hit in spans
    )
    for (below, is_hit, corpus), (above, *_) in itertools.pairwise(ordered):
        # The span below is dropped.
        counts[corpus] += Counts(-is_hit, -(not is_hit), is_hit)
        if below == above:
            continue
        total = sum(each.f or 0.0 for each in counts)
        if total > highest:
            highest = total
            best = FittedThreshold(_between(below, above), before, sum(counts, Counts()))
    return best


def _between(below: float, above: float) -> float:
    middle = (below + above) / 2
    rounded = int(middle * 10_000) / 10_000
    return rounded if below < rounded <= above else middle
