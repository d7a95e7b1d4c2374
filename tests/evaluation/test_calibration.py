"""Calibration, the plot, and thresholds that are fitted on dev splits."""

from __future__ import annotations

import random
import struct
import sys

import pytest

from spacy_vaner.cli.thresholds import gains
from spacy_vaner.errors import VanerError
from spacy_vaner.evaluation.calibration import (
    FittedThreshold,
    ScoredSpans,
    calibrate,
    draw_reliability,
    fit_threshold,
    fit_thresholds,
)
from spacy_vaner.evaluation.predictions import FoundSpan
from spacy_vaner.metrics import Counts
from tests.support.gold_documents import gold_document, place, predicted_document


def test_the_error_is_the_mean_distance_of_the_bins():
    # 4 spans at 0.95 of which 2 hit, 6 at 0.25 of which 3 hit: (4 * 0.45 + 6 * 0.25) / 10
    scored = [(0.95, i < 2) for i in range(4)] + [(0.25, i < 3) for i in range(6)]
    calibration = calibrate(scored)
    assert calibration.error == pytest.approx(0.33)
    assert [each.n for each in calibration.bins] == [0, 0, 6, 0, 0, 0, 0, 0, 0, 4]
    assert calibration.bins[9].precision == 0.5
    assert calibration.bins[0].precision is None


def test_every_probability_has_a_bin():
    assert calibrate([(0.0, False), (1.0, True), (0.1, False)]).bins[9].n == 1
    assert calibrate([(0.0, False), (1.0, True)]).error == 0.0


def test_without_spans_the_error_is_undefined():
    assert calibrate([]).error is None


def test_honest_probabilities_have_a_small_error():
    rng = random.Random(0)
    probabilities = [rng.random() for _ in range(20_000)]
    assert calibrate((p, rng.random() < p) for p in probabilities).error < 0.02
    assert calibrate((p, rng.random() < p / 2) for p in probabilities).error > 0.2


def test_the_plot_is_a_png_and_the_same_for_the_same_figures(tmp_path):
    pytest.importorskip("matplotlib")
    drawn = {"Gene": calibrate([(0.9, True), (0.4, False)]), "Disease": calibrate([])}
    for name in ("a", "b"):
        draw_reliability(drawn, tmp_path / "new" / f"{name}.png")
    one, other = ((tmp_path / "new" / f"{name}.png").read_bytes() for name in "ab")
    assert one == other
    assert one.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", one[16:24])
    assert (width, height) == (600, 720)


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(VanerError, match="VE443.*pip install matplotlib"):
        draw_reliability({}, tmp_path / "a.png")


def f_at(threshold, scored, n_gold):
    kept = [hit for p, hit in scored if p >= threshold]
    return Counts(sum(kept), len(kept) - sum(kept), n_gold - sum(kept)).f or 0.0


def test_the_threshold_is_the_best_there_is():
    rng = random.Random(1)
    for _ in range(200):
        scored = [(rng.randint(0, 20) / 20, rng.random() < 0.5) for _ in range(rng.randint(0, 15))]
        n_gold = sum(hit for _, hit in scored) + rng.randint(0, 5)
        fitted = fit_threshold([ScoredSpans(scored, n_gold)])
        tried = [f_at(threshold / 80, scored, n_gold) for threshold in range(81)]
        assert f_at(fitted.threshold, scored, n_gold) == pytest.approx(max(tried))
        assert (fitted.after.f or 0.0) == pytest.approx(max(tried))
        assert (fitted.before.f or 0.0) == pytest.approx(f_at(0.0, scored, n_gold))


def test_nothing_is_thrown_away_without_gain():
    assert fit_threshold([ScoredSpans([(0.1, True), (0.9, True)], 2)]).threshold == 0.0
    assert fit_threshold([ScoredSpans([], 0)]).threshold == 0.0
    assert fit_threshold([ScoredSpans([(0.3, False)], 0)]).threshold == 0.0


def test_close_probabilities_are_parted():
    fitted = fit_threshold([ScoredSpans([(0.50001, False), (0.50002, True)], 1)])
    assert 0.50001 < fitted.threshold <= 0.50002


def test_every_corpus_counts_alike():
    large = ScoredSpans([(0.3, True)] * 60 + [(0.2, False)] * 10, 60)
    small = ScoredSpans([(0.9, True)] * 3 + [(0.5, False)] * 9, 3)
    assert 0.2 < fit_threshold([large]).threshold <= 0.3
    fitted = fit_threshold([large, small])
    assert 0.2 < fitted.threshold <= 0.3
    # With a second small one that loses as much below 0.9, it pays to lose the large one.
    fitted = fit_threshold([large, small, small, small])
    assert 0.5 < fitted.threshold <= 0.9
    assert fitted.before == Counts(69, 37, 0) and fitted.after == Counts(9, 0, 60)


def test_thresholds_are_fitted_per_type():
    text = "aspirin and zinc and BRCA1 and water"
    gold = gold_document(text, [("Chemical", "aspirin"), ("Gene", "BRCA1")])
    found = [
        FoundSpan("Chemical", *place(text, "aspirin"), 0.9),
        FoundSpan("Chemical", *place(text, "water"), 0.3),
        FoundSpan("Gene", *place(text, "BRCA1"), 0.2),
        FoundSpan("Gene", *place(text, "zinc"), 0.1),
    ]
    fitted = fit_thresholds([predicted_document(gold, found)])
    thresholds = {type: round(fit.threshold, 4) for type, fit in fitted.items()}
    assert thresholds == {"Disease": 0.0, "Chemical": 0.6, "Gene": 0.15, "Species": 0.0}


def test_other_documents_judge_a_threshold():
    """Nine documents agree that 0.5 parts hits from the rest, the tenth has it the other way."""
    text = "aspirin and water"
    gold = gold_document(text, [("Chemical", "aspirin")], types=("Chemical",))

    def found(hit: float, miss: float):
        spans = [("aspirin", hit), ("water", miss)]
        return predicted_document(
            gold, [FoundSpan("Chemical", *place(text, name), p) for name, p in spans]
        )

    documents = [*[found(0.9, 0.1)] * 9, found(0.1, 0.9)]
    fitted = fit_thresholds(documents, n_folds=10)["Chemical"]
    assert round(fitted.threshold, 4) == 0.5
    assert fitted.held_out == fitted.after == Counts(tp=9, fp=1, fn=1)
    # Two documents that contradict each other: what the first one gains cuts the second one's hit.
    fitted = fit_thresholds([found(0.9, 0.5), found(0.4, 0.45)])["Chemical"]
    assert fitted.after == Counts(tp=2, fp=2)
    assert fitted.held_out == Counts(tp=1, fp=1, fn=1)
    assert fit_thresholds([found(0.9, 0.1)])["Chemical"].held_out is None


def test_a_threshold_that_new_documents_gain_nothing_from_is_told_apart():
    helps = FittedThreshold(0.5, Counts(2, 2, 0), Counts(2, 0, 0), Counts(2, 1, 0))
    assert gains(helps)
    assert not gains(helps._replace(held_out=Counts(1, 1, 1)))
    assert gains(helps._replace(held_out=None))
