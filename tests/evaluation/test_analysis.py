"""The whole analysis: figures, comparison, JSON and report."""

from __future__ import annotations

import json

import pytest

from spacy_vaner.errors import VanerError
from spacy_vaner.evaluation.analysis import ALL_TYPES, UNSEEN, analyse, write_analysis
from spacy_vaner.evaluation.analysis_report import report_analysis
from spacy_vaner.evaluation.leakage import TrainingNames, TrainingSentences
from spacy_vaner.evaluation.predictions import FoundSpan
from spacy_vaner.evaluation.scales import SCALES
from spacy_vaner.metrics import Counts
from tests.support.gold_documents import (
    TYPES,
    by_heart,
    gold_document,
    place,
    predicted_document,
    sample_documents,
)

TEXT = "Aspirin and BRCA1 gene | lung <b>cancer</b> in mice."


def one_document(*found, types=("Chemical", "Gene"), **settings):
    mentions = [("Chemical", "Aspirin"), ("Gene", "BRCA1")]
    gold = gold_document(TEXT, mentions, types=types, **settings)
    return predicted_document(gold, found)


@pytest.fixture(scope="module")
def sample():
    names = TrainingNames()
    for document in sample_documents("train"):
        names.add(document.doc.text, document.gold.mentions)
    documents = by_heart()
    nothing = [predicted_document(each.document, []) for each in documents]
    return analyse(documents, other=nothing, training=names, n_resamples=200)["sample"]


def test_every_scale_has_a_row_for_each_type_and_for_all(sample):
    assert list(sample.scores) == [name for name in SCALES if name != "alternatives"]
    for scale, types in sample.scores.items():
        expected = {ALL_TYPES} if scale == "untyped" else {*TYPES, ALL_TYPES}
        assert set(types) == expected
    f = {scale: types[ALL_TYPES].counts.f for scale, types in sample.scores.items()}
    assert f["strict"] <= f["near"] <= f["overlap"]
    assert f["strict"] <= f["untyped"]
    assert sample.flatters(ALL_TYPES) == pytest.approx(f["paper"] - f["strict"])


def test_the_parts_of_the_sample_add_up(sample):
    strict = sample.scores["strict"]
    for type in TYPES:
        mentions, spans = sample.outcomes["mentions"][type], sample.outcomes["spans"][type]
        counts = strict[type].counts
        assert (mentions.total(), spans.total()) == (counts.gold, counts.predicted)
        assert mentions["hit"] == spans["hit"] == counts.tp
        assert mentions["discontinuous"] == strict[type].n_discontinuous
    for values in sample.groups.values():
        total = sum(values.values(), Counts())
        assert total == strict[ALL_TYPES].counts


def test_a_system_that_knows_names_by_heart_finds_those_it_has_seen(sample):
    seen = sample.groups["name in training data"]
    assert seen["seen"].r > 0.8
    assert seen["unseen"].r < 0.1


def test_two_systems_are_compared_on_the_same_documents(sample):
    difference = sample.differences[ALL_TYPES]
    assert difference.difference == sample.scores["strict"][ALL_TYPES].counts.f
    assert difference.p_value == pytest.approx(1 / 201)
    assert list(sample.differences) == [*TYPES, ALL_TYPES]


def test_other_documents_are_refused():
    other = predicted_document(gold_document("Another text."), [])
    with pytest.raises(VanerError, match="VE444"):
        analyse([one_document()], other=[other])
    with pytest.raises(VanerError, match="VE444"):
        analyse([one_document()], other=[])


def test_a_type_that_only_one_system_was_asked_for_is_not_compared():
    ours, theirs = one_document(("Gene", "BRCA1")), one_document(("Gene", "BRCA1"))
    theirs = predicted_document(theirs.document, theirs.spans, types=["Gene"])
    differences = analyse([ours], other=[theirs], n_resamples=5)["Corpus"].differences
    assert list(differences) == ["Gene"]


def test_what_is_undefined_is_shown_as_such(tmp_path):
    document = one_document(types=("Chemical", "Gene", "Disease"))
    analyses = analyse([document], n_resamples=5)
    written = write_analysis(analyses, tmp_path / "a.json", settings={"system": "none"})
    disease = written["corpora"]["Corpus"]["scores"]["strict"]["Disease"]
    assert (disease["p"], disease["r"], disease["f"]) == (None, None, None)
    assert written["corpora"]["Corpus"]["paper_flatters"]["Disease"] is None
    report = report_analysis(written)
    assert "| strict | 0 | – | – | – | – |" in report
    assert "| Gene | – | – | – |" in report  # recall minus precision


def test_corpora_are_analysed_apart():
    documents = [one_document(("Gene", "BRCA1"), corpus=corpus) for corpus in ("A", "B", "A")]
    analyses = analyse(documents, n_resamples=5)
    assert {name: len(each.documents) for name, each in analyses.items()} == {"A": 2, "B": 1}
    assert "calibration" not in report_analysis_of(analyses)
    assert list(analyses["A"].cases) == ["joined", "spurious", "wrong boundary"]


def report_analysis_of(analyses, tmp_path=None):
    written = {
        "scales": {name: scale.description for name, scale in SCALES.items()},
        "corpora": {name: each.to_dict() for name, each in analyses.items()},
    }
    return report_analysis(json.loads(json.dumps(written))).lower()


def test_the_report_is_made_of_the_json_alone(sample, tmp_path):
    path = tmp_path / "new" / "analysis.json"
    written = write_analysis({"sample": sample}, path, settings={"system": "by heart"})
    assert report_analysis(json.loads(path.read_text("utf8"))) == report_analysis(written)
    report = report_analysis(written)
    strict = written["corpora"]["sample"]["scores"]["strict"]["Gene"]
    assert f"| strict | {strict['gold']} | {100 * strict['p']:.2f} |" in report
    assert "expected calibration error" in report
    for kind, found in written["corpora"]["sample"]["cases"].items():
        assert f"**{kind}** ({found['meaning']}): {found['n']}" in report
        assert len(found["examples"]) <= 5


def test_text_of_a_corpus_makes_no_markup_in_the_report():
    found = FoundSpan("Chemical", *place(TEXT, "| lung <b>cancer</b>"), 0.5)
    report = report_analysis_of(analyse([one_document(found)], n_resamples=5))
    assert "[\\| lung &lt;b>cancer&lt;/b>]" in report
    assert "<b>" not in report


def test_types_that_are_not_told_apart_count_for_all():
    document = one_document(("Gene", "Aspirin"), ("Gene", "BRCA1"))
    scores = analyse([document], n_resamples=5)["Corpus"].scores
    assert scores["untyped"][ALL_TYPES].counts == Counts(tp=2)
    assert scores["strict"][ALL_TYPES].counts == Counts(tp=1, fp=1, fn=1)


def test_sentences_of_the_training_data_can_be_left_out():
    known = "Lung cancer was found in all of the mice that got BRCA1."
    text = f"{known} Then zinc eased pain in the rats of this very study."
    gold = gold_document(
        text, [("Disease", "Lung cancer"), ("Gene", "BRCA1"), ("Disease", "pain")], id="1"
    )
    found = [("Disease", "Lung cancer"), ("Gene", "BRCA1"), ("Species", "rats")]
    sentences = TrainingSentences()
    sentences.add(gold_document(f"{known} And so on.", sentences=[known]).doc, source="other")
    predicted = predicted_document(gold, found)
    (analysis,) = analyse([predicted], sentences=sentences, n_resamples=5).values()
    assert analysis.scores["strict"]["all types"].counts == Counts(2, 1, 1)
    assert analysis.scores[UNSEEN]["all types"].counts == Counts(0, 1, 1)
    assert UNSEEN not in next(iter(analyse([predicted], n_resamples=5).values())).scores


def test_a_report_can_do_without_text_of_the_corpus(sample, tmp_path):
    path = tmp_path / "analysis.json"
    with_text = write_analysis({"sample": sample}, path, settings={})
    without = write_analysis({"sample": sample}, path, settings={}, n_examples=0)
    for kind, cases in without["corpora"]["sample"]["cases"].items():
        told = with_text["corpora"]["sample"]["cases"][kind]
        assert cases["n"] == told["n"]
        assert not cases["examples"] and bool(told["examples"]) == bool(told["n"])
    assert "[" not in report_analysis(without).replace("](", "")
