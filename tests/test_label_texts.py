"""Texts that a tagger labelled, to train the next one on."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import spacy

from spacy_vaner.corpora.docbins import read_docs
from spacy_vaner.gold import get_gold
from spacy_vaner.rows import prepare_rows
from spacy_vaner.shipped import DEFAULT_NAME, FOLDER
from spacy_vaner.training.protected import ProtectedRuns

SCRIPT = Path(__file__).parent.parent / "project/scripts/label_texts.py"
TEXTS = [
    "Cisplatin-induced nephrotoxicity in mice that lack BRCA1.",
    "Of twelve words in a row that no one may read there are these in a test.",
    "TP53 is mutated in lung cancer.",
    "Nothing of the kind is named here.",
]
READABLE = [TEXTS[0], TEXTS[2], TEXTS[3]]


@pytest.fixture
def label_texts() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="label")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf8")
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    path = tmp_path / "protected.runs"
    ProtectedRuns.from_texts([TEXTS[1]]).to_file(path)
    return path


def test_texts_become_a_corpus_to_train_on(
    label_texts: dict[str, Any], texts: Path, runs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labelled.text.train.spacy"
    label_texts["main"]([str(texts), str(output), "--protected", str(runs), "--documents", "9"])

    docs = list(read_docs(output, spacy.blank("en").vocab))
    assert sorted(doc.text for doc in docs) == sorted(READABLE)
    found = {}
    for doc in docs:
        gold = get_gold(doc)
        assert gold is not None and len(gold.types) == 4 and gold.corpus == "labelled.text"
        found[doc.text] = {
            (mention.type, doc.text[start:end])
            for mention in gold.mentions
            for start, end in mention.fragments
        }
    assert {("Chemical", "Cisplatin"), ("Gene", "BRCA1"), ("Species", "mice")} <= found[TEXTS[0]]
    assert ("Disease", "lung cancer") in found[TEXTS[2]]
    assert not found[TEXTS[3]]
    prepare_rows([output], tmp_path / "rows", tokenizer_path=FOLDER / DEFAULT_NAME)


def test_what_the_tagger_doubts_gives_no_loss(label_texts: dict[str, Any]) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner")

    def masked(unsure: tuple[float, float]) -> set[tuple[int, int]]:
        (doc,) = label_texts["label_documents"](nlp, TEXTS[:1], corpus="x", unsure=unsure)
        gold = get_gold(doc)
        assert gold is not None
        return set(gold.masked)

    assert masked((0.0, 1.0)) > masked((0.01, 0.99)) >= masked((0.5, 0.5)) == set()
    # A name that is found for sure is in no doubt.
    assert (0, len("Cisplatin")) not in masked((0.2, 0.8))


def test_the_choice_of_documents_depends_on_the_seed_alone(
    label_texts: dict[str, Any], texts: Path, runs: Path
) -> None:
    (texts.parent / "names.tsv").write_text("name\ttype\tid\nasthma\tDisease\t1\n", "utf8")
    choose = label_texts["choose_documents"]
    first = choose([texts.parent], 2, protected=runs, seed=1)
    assert first == choose([texts.parent], 2, protected=runs, seed=1) and len(set(first)) == 2
    assert any(choose([texts.parent], 2, protected=runs, seed=s) != first for s in range(2, 8))
    assert sorted(choose([texts.parent], 9, protected=runs, seed=1)) == sorted(READABLE)


def test_an_output_that_would_not_be_trained_on_is_refused(
    label_texts: dict[str, Any], texts: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            label_texts["main"]([str(texts), *arguments])
        return capsys.readouterr().err

    assert "--protected" in complaint("labelled.text.train.spacy")
    assert "must end in .train.spacy" in complaint("labelled.spacy", "--protected", str(runs))
    arguments = ["labelled.text.train.spacy", "--protected", str(runs)]
    assert "LOW not above HIGH" in complaint(*arguments, "--unsure", "0.8", "0.2")
