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


@pytest.mark.parametrize("options", [[], ["--view", "text", "--no-corpus-name"]])
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


def test_types_that_the_pipeline_does_not_ask_are_named_and_not_scored(trained, tmp_path):
    trained.to_disk(tmp_path / "pipeline")
    nlp = spacy.load(tmp_path / "pipeline")
    nlp.get_pipe("vaner_ner").types = ["Disease"]
    path = tmp_path / "pains.test.spacy"
    DocBin(docs=[gold_doc(trained)], store_user_data=True).to_disk(path)
    with pytest.warns(VanerWarning, match="VW403.*Chemical"):
        result = evaluate_pipeline(nlp, [path])
    assert [list(corpus.types) for corpus in result.corpora.values()] == [["Disease"]]
