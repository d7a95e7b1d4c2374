"""A trained vaner_ner, saved, loaded and scored by the command."""

from __future__ import annotations

import json

import pytest
import spacy
from spacy.cli._util import app as spacy_app
from spacy.tokens import DocBin
from spacy.training import Example
from typer.testing import CliRunner

import spacy_vaner.cli
import spacy_vaner.component  # noqa: F401, registers the factory
from spacy_vaner.errors import VanerWarning
from spacy_vaner.evaluation.run import evaluate_pipeline

TEXT = "Aspirin eases head and neck pain."
CONFIG = {
    "types": ["Chemical", "Disease"],
    # Each place of a name keeps a probability of its own.
    "repeat_threshold": None,
    "model": {
        "dropout": 0.0,
        "max_subwords": 96,
        "backbone": {
            "@misc": "spacy-vaner.small_llama.v1",
            "hidden_size": 32,
            "n_layers": 1,
            "n_heads": 2,
            "intermediate_size": 48,
            "max_positions": 256,
            "vocab_size": 400,
            "tokenizer_path": None,
            "attn_implementation": "sdpa",
        },
    },
}


def gold_doc(nlp, **changes):
    doc = nlp.make_doc(TEXT)
    doc.user_data["vaner"] = {
        "corpus": "Pains",
        "types": ["Chemical", "Disease"],
        "names": {"Chemical": "Pains-chem"},
        "mentions": [["Chemical", [[0, 7]], []], ["Disease", [[23, 32]], []]],
        **changes,
    }
    return doc


@pytest.fixture(scope="module")
def trained():
    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner", config=CONFIG)
    examples = [
        Example(nlp.make_doc(TEXT), gold_doc(nlp, **changes)) for changes in ({}, {"names": {}}) * 2
    ]
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.01
    for _ in range(40):
        nlp.update(examples, sgd=optimizer)
    return nlp


@pytest.mark.parametrize("options", [["--view", "tokens"], ["--no-corpus-name"]])
def test_the_command_scores_what_the_component_learnt(trained, tmp_path, options):
    trained.to_disk(tmp_path / "pipeline")
    folder = tmp_path / "corpora"
    folder.mkdir()
    docs = [
        gold_doc(trained),
        gold_doc(trained, types=["Disease"]),
        gold_doc(trained, mentions=[["Disease", [[14, 32]], []]]),
    ]
    DocBin(docs=docs, store_user_data=True).to_disk(folder / "pains.test.spacy")
    output = tmp_path / "metrics.json"
    command = ["vaner", "evaluate", tmp_path / "pipeline", folder, "--output", output, *options]
    result = CliRunner().invoke(spacy_app, [str(part) for part in command])
    assert result.exit_code == 0, result.output
    types = json.loads(output.read_text(encoding="utf-8"))["corpora"]["Pains"]["types"]
    counts = {name: [score[key] for key in ("tp", "fp", "fn")] for name, score in types.items()}
    # The second document does not ask for chemicals; in the third one all is spurious or missed.
    assert counts == {"Chemical": [1, 1, 0], "Disease": [2, 1, 1]}


def test_the_result_tells_the_settings_that_decide_about_it(trained, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    trained.to_disk(tmp_path / "pipeline")
    nlp = spacy.load(tmp_path / "pipeline")
    ner = nlp.get_pipe("vaner_ner")
    ner.threshold, ner.repeat_threshold = {"Disease": 0.25}, 0.75
    ner.engine, ner.precision = "onnx", "fp32"
    path = tmp_path / "pains.dev.spacy"
    DocBin(docs=[gold_doc(trained)], store_user_data=True).to_disk(path)

    def told():
        return evaluate_pipeline(nlp, [path], n_resamples=1).to_dict()["component_settings"]

    settings = {"threshold": {"Disease": 0.25}, "repeat_threshold": 0.75, "asking": "joint"}
    settings = {**settings, "precision": "fp32"}
    assert told() == {"vaner_ner": {**settings, "engine": "onnx"}}
    ner.engine = "torch"
    assert told() == {"vaner_ner": {**settings, "engine": "torch"}}

    # What was asked for is not always what runs.
    def differ(tagger, layers):
        raise ValueError("states differ")

    nlp = spacy.load(
        tmp_path / "pipeline", config={"components": {"vaner_ner": {"engine": "onnx"}}}
    )
    monkeypatch.setattr("spacy_vaner.backbone.tagger.Tagger._compare_engines", differ)
    with pytest.warns(VanerWarning, match="VW108"):
        assert told()["vaner_ner"]["engine"] == "torch"


def test_types_that_the_pipeline_does_not_ask_are_named_and_not_scored(trained, tmp_path):
    trained.to_disk(tmp_path / "pipeline")
    nlp = spacy.load(tmp_path / "pipeline")
    nlp.get_pipe("vaner_ner").types = ["Disease"]
    path = tmp_path / "pains.test.spacy"
    DocBin(docs=[gold_doc(trained)], store_user_data=True).to_disk(path)
    with pytest.warns(VanerWarning, match="VW403.*Chemical"):
        result = evaluate_pipeline(nlp, [path])
    assert [list(corpus.types) for corpus in result.corpora.values()] == [["Disease"]]


def run(*arguments):
    result = CliRunner().invoke(spacy_app, ["vaner", *(str(part) for part in arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_thresholds_are_fitted_on_dev_and_saved_with_the_pipeline(trained, tmp_path):
    trained.to_disk(tmp_path / "pipeline")
    texts = [TEXT, "Aspirin, Aspirin eases neck pain.", "Aspirin and neck pain and Aspirin."]
    docs = list(trained.pipe(texts))
    found = [
        (probability, number, start, end)
        for number, doc in enumerate(docs)
        for type, start, end, probability in doc.user_data["vaner_predictions"]
        if type == "Chemical"
    ]
    best, second = sorted(found, reverse=True)[:2]
    assert best[0] > second[0]
    # Only the most probable chemical is one, so that all others have to go.
    for number, doc in enumerate(docs):
        mentions = [["Chemical", [list(best[2:])], []]] if number == best[1] else []
        gold = {"corpus": "Pains", "types": ["Chemical"], "mentions": mentions}
        docs[number] = trained.make_doc(doc.text)
        docs[number].user_data["vaner"] = gold
    dev = tmp_path / "pains.dev.spacy"
    DocBin(docs=docs, store_user_data=True).to_disk(dev)
    command = ("thresholds", tmp_path / "pipeline", dev, "--no-corpus-name")
    row = next(line for line in run(*command).splitlines() if line.startswith("Chemical"))
    fitted, *_, new = row.split()[-4:]
    # Documents without the hit cannot tell where it lies: on new ones it is less.
    assert fitted == "100.00" and float(new) < 100
    assert spacy.load(tmp_path / "pipeline").get_pipe("vaner_ner").threshold is None
    run(*command, "--output", tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    threshold = loaded.get_pipe("vaner_ner").threshold["Chemical"]
    assert second[0] < threshold <= best[0]
    kept = [
        span
        for doc in loaded.pipe(texts)
        for span in doc.user_data["vaner_predictions"]
        if span[0] == "Chemical"
    ]
    assert len(kept) == 1


def test_thresholds_are_not_fitted_on_a_test_split(trained, tmp_path):
    trained.to_disk(tmp_path / "pipeline")
    path = tmp_path / "pains.test.spacy"
    DocBin(docs=[gold_doc(trained)], store_user_data=True).to_disk(path)
    result = CliRunner().invoke(
        spacy_app, ["vaner", "thresholds", str(tmp_path / "pipeline"), str(path)]
    )
    assert result.exit_code == 1
    assert "VE447" in result.output


def test_a_pipeline_is_analysed_and_its_predictions_can_be_analysed_again(trained, tmp_path):
    trained.to_disk(tmp_path / "pipeline")
    path = tmp_path / "pains.test.spacy"
    DocBin(docs=[gold_doc(trained), gold_doc(trained, id="2")], store_user_data=True).to_disk(path)
    first, again = tmp_path / "first", tmp_path / "again"
    output = run("analyse", path, "--pipeline", tmp_path / "pipeline", "-o", first)
    assert "paper − strict" in output
    found = first / "predictions.jsonl"
    run("analyse", path, "--predictions", found, "--other", found, "--train", path, "-o", again)
    one, other = (
        json.loads((folder / "analysis.json").read_text("utf8")) for folder in (first, again)
    )
    scores, with_training = (each["corpora"]["Pains"]["scores"] for each in (one, other))
    assert with_training.pop("unseen sentences")
    assert scores == with_training
    assert scores["strict"]["all types"]["f"] == 1.0
    assert other["corpora"]["Pains"]["groups"]["name in training data"]["seen"]["r"] == 1.0
    difference = other["corpora"]["Pains"]["difference_to_other"]["all types"]
    assert difference["difference"] == 0.0
    assert one["corpora"]["Pains"]["calibration"]["Disease"]["spans"] == 2
    assert {file.name for file in first.iterdir()} >= {"analysis.md", "page.html"}


@pytest.mark.parametrize("options", [[], ["--pipeline", "a", "--predictions", "b"]])
def test_an_analysis_is_of_one_system(tmp_path, options):
    result = CliRunner().invoke(
        spacy_app, ["vaner", "analyse", "gold.spacy", *options, "-o", str(tmp_path / "new")]
    )
    assert result.exit_code == 1
    assert "VE445: give either --pipeline or --predictions" in result.output
    assert not (tmp_path / "new").exists()


def test_leakage_and_instructions_are_written_from_the_command_line(trained, tmp_path):
    train, test = tmp_path / "pains.train.spacy", tmp_path / "pains.test.spacy"
    for path in (train, test):
        DocBin(docs=[gold_doc(trained)], store_user_data=True).to_disk(path)
    table = run("leakage", tmp_path, "--train", tmp_path, "--output", tmp_path / "leak.json")
    assert ["Pains", "Disease:", "names", "1", "1", "100.00"] in [
        line.split() for line in table.splitlines()
    ]
    leak = json.loads((tmp_path / "leak.json").read_text("utf8"))["Pains"]
    assert leak["types"]["Chemical"]["mentions_seen"] == 1
    assert "Saved 2 rows" in run("instructions", tmp_path, tmp_path / "rows.jsonl")
