"""Evaluation of pipelines on gold files: what is asked, what is shown, what is counted."""

from __future__ import annotations

import json
import warnings
import zlib

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_vaner.corpora.docbins import find_files
from spacy_vaner.errors import VanerError, VanerWarning
from spacy_vaner.evaluation.documents import GoldFile
from spacy_vaner.evaluation.run import evaluate_pipeline
from spacy_vaner.metrics import Counts

WORDS = ["Aspirin", "eases", "head", "and", "neck", "pain", "."]
SPACES = [True, True, True, True, True, False, False]
TEXT = "Aspirin eases head and neck pain."
ASPIRIN, HEAD_PAIN, NECK_PAIN = [[0, 7]], [[14, 18], [28, 32]], [[23, 32]]
MENTIONS = [
    ["Chemical", ASPIRIN, ["D001241"]],
    ["Disease", HEAD_PAIN, []],
    ["Disease", NECK_PAIN, ["D019547"]],
]


def annotation(**changes):
    return {
        "corpus": "Pains",
        "id": None,
        "types": ["Chemical", "Disease"],
        "partial": [],
        "names": {"Chemical": "Pains-chem"},
        "mentions": MENTIONS,
        **changes,
    }


def gold_doc(nlp, sent_starts=None, **changes):
    doc = Doc(nlp.vocab, words=WORDS, spaces=SPACES, sent_starts=sent_starts)
    assert doc.text == TEXT
    doc.user_data["vaner"] = annotation(**changes)
    return doc


def entity_doc(nlp, *ents):
    doc = Doc(nlp.vocab, words=WORDS, spaces=SPACES)
    doc.ents = [doc.char_span(start, end, label=label) for label, start, end in ents]
    return doc


def write(path, docs):
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


class Recorder:
    """Stands for vaner_ner: predicts what it is told to and keeps what it was given."""

    types = ("Chemical", "Disease")
    label_map = {"Chemical": "CHEM"}

    def __init__(self):
        self.predictions = []
        self.docs = []

    def __call__(self, doc):
        self.docs.append(doc)
        asked = doc.user_data["vaner"]["ask"]["types"]
        doc.user_data["vaner_predictions"] = [p for p in self.predictions if p[0] in asked]
        return doc


@Language.factory("test_recorder")
def make_recorder(nlp, name):
    return Recorder()


def recording(*predictions):
    """A pipeline that predicts the given [type, start, end, probability] on every text."""
    nlp = spacy.blank("en")
    recorder = nlp.add_pipe("test_recorder")
    recorder.predictions = list(predictions)
    return nlp, recorder


PREDICTIONS = (
    ["Chemical", 0, 7, 0.9],
    ["Disease", 14, 32, 0.8],
    ["Disease", 23, 32, 0.7],
)


def test_counts_per_corpus_and_type(tmp_path):
    nlp, _ = recording(*PREDICTIONS)
    path = write(tmp_path / "a.test.spacy", [gold_doc(nlp), gold_doc(nlp, types=["Disease"])])
    result = evaluate_pipeline(nlp, [path])
    corpus = result.corpora["Pains"]
    assert list(corpus.types) == ["Chemical", "Disease"]
    assert corpus.types["Chemical"].counts == Counts(tp=1)
    assert corpus.types["Chemical"].n_documents == 1
    # Per document one hit, the joined span spurious, the discontinuous mention missed.
    assert corpus.types["Disease"].counts == Counts(tp=2, fp=2, fn=2)
    assert corpus.types["Disease"].n_documents == 2
    assert corpus.types["Disease"].n_discontinuous == 2
    assert corpus.micro.counts == result.overall.counts == Counts(tp=3, fp=2, fn=2)
    assert result.n_words == 14


def test_the_pipeline_sees_words_and_sentences_and_no_annotation(tmp_path):
    nlp, recorder = recording()
    starts = [True, False, False, True, False, False, False]
    doc = gold_doc(nlp, sent_starts=starts)
    doc.spans["gold"] = [doc[0:1]]
    doc.set_ents([spacy.tokens.Span(doc, 0, 1, label="Chemical")])
    evaluate_pipeline(nlp, [write(tmp_path / "a.spacy", [doc, gold_doc(nlp)])])
    seen, without_sentences = recorder.docs
    assert [token.text_with_ws for token in seen] == [token.text_with_ws for token in doc]
    assert [token.is_sent_start for token in seen] == starts
    assert not without_sentences.has_annotation("SENT_START")
    assert (list(seen.ents), dict(seen.spans), seen.has_annotation("ENT_IOB")) == ([], {}, False)
    assert set(seen.user_data) == {"vaner", "vaner_predictions"}
    assert set(seen.user_data["vaner"]) == {"ask"}


def test_the_text_view_is_cut_by_the_tokenizer_of_the_pipeline(tmp_path):
    nlp, recorder = recording(*PREDICTIONS)
    doc = Doc(nlp.vocab, words=[TEXT], spaces=[False])
    doc.user_data["vaner"] = annotation()
    path = write(tmp_path / "a.spacy", [doc])
    result = evaluate_pipeline(nlp, [path], view="text")
    assert [token.text for token in recorder.docs[0]] == WORDS
    assert result.overall.counts.tp == 2
    assert result.n_words == 1  # words of the file: the same for every pipeline that is compared
    evaluate_pipeline(nlp, [path])
    assert len(recorder.docs[1]) == 1


@pytest.mark.parametrize(
    ("changes", "name_corpus", "ask"),
    [
        ({}, True, {"types": ["Chemical", "Disease"], "corpus": {"Chemical": "Pains-chem"}}),
        ({}, False, {"types": ["Chemical", "Disease"], "corpus": None}),
        # Where no name is known the component's own corpus holds.
        ({"names": {}}, True, {"types": ["Chemical", "Disease"]}),
        ({"types": ["Disease"], "partial": ["Chemical"]}, True, {"types": ["Disease"]}),
    ],
)
def test_only_complete_types_are_asked_with_their_names(tmp_path, changes, name_corpus, ask):
    nlp, recorder = recording()
    path = write(tmp_path / "a.spacy", [gold_doc(nlp, **changes)])
    evaluate_pipeline(nlp, [path], name_corpus=name_corpus)
    assert recorder.docs[0].user_data["vaner"]["ask"] == ask


def test_documents_without_a_complete_type_are_left_out_and_counted(tmp_path):
    nlp, recorder = recording(*PREDICTIONS)
    docs = [gold_doc(nlp, types=[], partial=["Disease"]), gold_doc(nlp)]
    progress = []
    result = evaluate_pipeline(
        nlp,
        [write(tmp_path / "a.spacy", docs)],
        on_progress=lambda *numbers: progress.append(numbers),
    )
    assert len(recorder.docs) == 1
    assert (result.n_unscored_documents, result.overall.n_documents) == (1, 1)
    assert progress == [(2, 2)]


def test_exact_offsets_decide_where_a_mention_cuts_a_word(tmp_path):
    nlp, _ = recording(["Chemical", 0, 3, 0.9])
    doc = gold_doc(nlp, mentions=[["Chemical", [[0, 3]], []]])
    assert evaluate_pipeline(nlp, [write(tmp_path / "a.spacy", [doc])]).overall.counts.tp == 1


def test_near_matching_allows_one_character(tmp_path):
    nlp, _ = recording(["Chemical", 1, 8, 0.9])
    path = write(tmp_path / "a.spacy", [gold_doc(nlp, types=["Chemical"])])
    assert evaluate_pipeline(nlp, [path]).overall.counts.tp == 0
    assert evaluate_pipeline(nlp, [path], matching="near").overall.counts.tp == 1


def test_corpora_are_reported_apart_and_together(tmp_path):
    nlp, _ = recording(*PREDICTIONS)
    first = write(tmp_path / "a.spacy", [gold_doc(nlp)])
    second = write(tmp_path / "b.spacy", [gold_doc(nlp, corpus="Others", types=["Chemical"])])
    unnamed = write(tmp_path / "c.spacy", [gold_doc(nlp, corpus=None, types=["Chemical"])])
    result = evaluate_pipeline(nlp, [first, second, unnamed])
    assert list(result.corpora) == ["Pains", "Others", "c"]
    assert result.overall.counts == Counts(tp=4, fp=1, fn=1)
    assert result.overall.n_documents == 3
    # The discontinuous disease of the others is not scored, so it is not counted either.
    assert [corpus.micro.n_discontinuous for corpus in result.corpora.values()] == [1, 0, 0]


def test_any_pipeline_with_entities_can_be_scored(tmp_path):
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "CHEM", "pattern": "Aspirin"}, {"label": "Disease", "pattern": "neck pain"}]
    )
    path = write(tmp_path / "a.spacy", [gold_doc(nlp)])
    result = evaluate_pipeline(nlp, [path], label_map={"CHEM": "Chemical"})
    assert result.overall.counts == Counts(tp=2, fn=1)
    assert result.unscored_labels == {}
    with pytest.warns(VanerWarning, match=r"VW401.*CHEM \(1\).*Chemical, Disease"):
        result = evaluate_pipeline(nlp, [path])
    assert result.overall.counts == Counts(tp=1, fn=2)
    assert result.unscored_labels == {"CHEM": 1}


def test_documents_with_entities_only_are_gold_too(tmp_path):
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "Chemical", "pattern": "Aspirin"}])
    never_annotated = Doc(nlp.vocab, words=["Aspirin"])
    docs = [entity_doc(nlp, ("CHEM", 0, 7)), entity_doc(nlp), never_annotated]
    path = write(tmp_path / "plain.test.spacy", docs)
    result = evaluate_pipeline(nlp, [path], label_map={"CHEM": "Chemical"})
    assert result.corpora["plain.test"].types["Chemical"].counts == Counts(tp=1, fp=1)
    assert result.n_unscored_documents == 1


def test_documents_with_entities_only_are_asked_for_the_types_of_the_component(
    tmp_path, monkeypatch
):
    nlp, recorder = recording(*PREDICTIONS)
    monkeypatch.setattr("spacy_vaner.gold.FACTORY", "test_recorder")
    monkeypatch.setattr("spacy_vaner.evaluation.run.settings_in_use", lambda nlp: {})
    path = write(tmp_path / "a.spacy", [entity_doc(nlp, ("CHEM", 0, 7))])
    result = evaluate_pipeline(nlp, [path])
    assert recorder.docs[0].user_data["vaner"]["ask"]["types"] == ["Chemical", "Disease"]
    assert result.overall.counts == Counts(tp=1, fp=2)


def test_scoring_a_document_twice_is_said(tmp_path):
    nlp, _ = recording(*PREDICTIONS)
    chemical = write(tmp_path / "a.spacy", [gold_doc(nlp, id="7", types=["Chemical"])])
    disease = write(tmp_path / "b.spacy", [gold_doc(nlp, id="7", types=["Disease"])])
    evaluate_pipeline(nlp, [chemical, disease])
    again = write(tmp_path / "c.spacy", [gold_doc(nlp, id="7")])
    with pytest.warns(VanerWarning, match="VW402: 1 documents.*c.spacy.*Pains, document 7"):
        evaluate_pipeline(nlp, [chemical, disease, again])


def test_type_without_gold_and_predictions_is_undefined(tmp_path):
    nlp, _ = recording()
    path = write(tmp_path / "a.spacy", [gold_doc(nlp, types=["Gene"], mentions=[])])
    score = evaluate_pipeline(nlp, [path]).to_dict()["corpora"]["Pains"]["types"]["Gene"]
    assert {score[key] for key in ("p", "r", "f", "p_interval", "r_interval", "f_interval")} == {
        None
    }
    assert score["documents"] == 1


def test_batches_and_file_order_do_not_change_the_scores(tmp_path):
    nlp, _ = recording(*PREDICTIONS)
    docs = [gold_doc(nlp, types=types) for types in [["Chemical"], ["Disease"]] * 5]
    path = write(tmp_path / "a.spacy", docs)
    assert (
        evaluate_pipeline(nlp, [path], batch_size=1).corpora
        == evaluate_pipeline(nlp, [path], batch_size=7).corpora
    )


def test_empty_and_whitespace_documents_are_scored(tmp_path):
    nlp, _ = recording()
    docs = [Doc(nlp.vocab), Doc(nlp.vocab, words=["\n"], spaces=[False])]
    for doc in docs:
        doc.user_data["vaner"] = annotation(mentions=[])
    result = evaluate_pipeline(nlp, [write(tmp_path / "a.spacy", docs)])
    assert (result.overall.n_documents, result.n_words) == (2, 1)


def test_the_seconds_are_those_of_the_pipeline(tmp_path, monkeypatch):
    nlp, _ = recording()
    clock = iter(range(10_000))
    monkeypatch.setattr("spacy_vaner.evaluation.run.perf_counter", lambda: float(next(clock)))
    path = write(tmp_path / "a.spacy", [gold_doc(nlp)] * 3)
    result = evaluate_pipeline(nlp, [path], batch_size=1)
    # Each look at the clock takes a second: what is left are the stretches inside the pipeline.
    assert 3 <= result.seconds <= 12
    assert result.words_per_s == pytest.approx(21 / result.seconds)


def test_the_json_repeats_the_run(tmp_path):
    nlp, _ = recording(*PREDICTIONS)
    nlp.config["system"] = {"seed": 11}
    nlp.config["training"] = {"seed": "${system.seed}"}
    path = write(tmp_path / "a.spacy", [gold_doc(nlp)])
    result = evaluate_pipeline(nlp, [path], seed=7, command="the command")
    output = tmp_path / "new" / "metrics.json"
    result.to_disk(output)
    saved = json.loads(output.read_text(encoding="utf-8"))
    assert [file.name for file in output.parent.iterdir()] == ["metrics.json"]
    assert list(saved) == list(result.to_dict())
    assert (saved["format"], saved["command"], saved["seed"]) == (1, "the command", 7)
    assert (saved["view"], saved["name_corpus"], saved["matching"]) == ("tokens", True, "strict")
    assert saved["training_seed"] == 11
    assert saved["versions"]["spacy"] == spacy.__version__
    assert "onnxruntime" in saved["versions"]
    disease = saved["corpora"]["Pains"]["types"]["Disease"]
    assert (disease["gold"], disease["tp"], disease["fp"], disease["fn"]) == (2, 1, 1, 1)
    assert (disease["p"], disease["r"], disease["f"]) == (0.5, 0.5, 0.5)
    assert disease["f_interval"] == [0.5, 0.5]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    nlp, _ = recording(*PREDICTIONS)
    result = evaluate_pipeline(nlp, [write(tmp_path / "a.spacy", [gold_doc(nlp)])])
    output = tmp_path / "metrics.json"
    output.write_text("old")
    monkeypatch.setattr(
        "spacy_vaner.evaluation.result.json.dumps", lambda *_, **__: "half" + chr(0xD800)
    )
    with pytest.raises(UnicodeEncodeError):
        result.to_disk(output)
    assert output.read_text() == "old"


def test_a_pipeline_without_entities_is_refused(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    path = write(tmp_path / "a.spacy", [gold_doc(nlp)])
    with pytest.raises(VanerError, match=r"VE408.*\(sentencizer\).*neither a vaner_ner"):
        evaluate_pipeline(nlp, [path])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain text", "VE402.*bad.spacy"),
        (b"", "VE402.*bad.spacy"),
        (zlib.compress(b"\x93\x01\x02\x03"), "VE402.*bad.spacy"),
    ],
)
def test_a_file_that_is_no_docbin_is_refused(tmp_path, content, message):
    path = tmp_path / "bad.spacy"
    path.write_bytes(content)
    with pytest.raises(VanerError, match=message):
        GoldFile(path)


def test_a_file_without_annotation_is_refused(tmp_path):
    nlp = spacy.blank("en")
    raw, asked = nlp(TEXT), nlp(TEXT)
    asked.user_data["vaner"] = {"ask": {"types": ["Disease"], "corpus": None}}
    partial = gold_doc(nlp, types=[], partial=["Disease"])
    path = write(tmp_path / "a.spacy", [raw, asked, partial])
    with pytest.raises(VanerError, match="VE403.*a.spacy"):
        evaluate_pipeline(nlp, [path])


@pytest.mark.parametrize(
    "changes",
    [
        {"mentions": [["Disease", 3]]},
        {"mentions": None},
        {"types": 5},
        {"mentions": [["Disease", [[0, 1, 2]], []]]},
    ],
)
def test_a_malformed_annotation_is_refused_with_its_document(tmp_path, changes):
    nlp, _ = recording()
    path = write(tmp_path / "a.spacy", [gold_doc(nlp), gold_doc(nlp, **changes)])
    with pytest.raises(VanerError, match="VE404.*a.spacy, document 2"):
        evaluate_pipeline(nlp, [path])


def test_all_files_are_checked_before_the_pipeline_runs(tmp_path):
    nlp, recorder = recording()
    good = write(tmp_path / "a.spacy", [gold_doc(nlp)])
    with pytest.raises(VanerError, match="VE405"):
        evaluate_pipeline(nlp, [good, tmp_path / "missing.spacy"])
    assert recorder.docs == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"view": "raw"}, "VE411.*tokens, text"), ({"matching": "fuzzy"}, "VE401")],
)
def test_wrong_settings_are_refused(tmp_path, setting, message):
    nlp, _ = recording()
    path = write(tmp_path / "a.spacy", [gold_doc(nlp)])
    with pytest.raises(VanerError, match=message):
        evaluate_pipeline(nlp, [path], **setting)
    with pytest.raises(VanerError, match="VE412"):
        evaluate_pipeline(nlp, [])


def test_a_folder_stands_for_the_files_of_the_split(tmp_path):
    for name in ("b.test.spacy", "a.test.spacy", "a.train.spacy", "a.test.report.json"):
        (tmp_path / name).touch()
    a, b = tmp_path / "a.test.spacy", tmp_path / "b.test.spacy"
    assert find_files([tmp_path], split="test") == [a, b]
    assert find_files([b, tmp_path / "." / "b.test.spacy", tmp_path], split="test") == [b, a]
    assert find_files([tmp_path], split="train") == [tmp_path / "a.train.spacy"]
    with pytest.raises(VanerError, match="VE302.*dev.spacy"):
        find_files([tmp_path], split="dev")
    with pytest.raises(VanerError, match="VE301.*nowhere"):
        find_files([tmp_path / "nowhere"], split="test")


def test_predictions_do_not_read_the_gold_of_the_file(tmp_path):
    """The same copy is made whatever the mentions are, so nothing can leak."""
    nlp, recorder = recording()
    docs = [gold_doc(nlp), gold_doc(nlp, mentions=[])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_pipeline(nlp, [write(tmp_path / "a.spacy", docs)])
    first, second = recorder.docs
    assert first.to_bytes() == second.to_bytes()
