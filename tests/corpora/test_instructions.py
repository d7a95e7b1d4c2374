"""Corpora as rows for generating models."""

from __future__ import annotations

import json

import pytest

from spacy_vaner.corpora.instructions import write_instructions
from spacy_vaner.errors import VanerError
from spacy_vaner.gold import KEY
from spacy_vaner.types import Mention
from tests.support.gold_documents import gold_document, sample_documents, save

TEXT = "Aspirin eases head and neck pain. No drug was given."


@pytest.fixture
def corpus(tmp_path):
    mentions = [
        ("Disease", "neck pain"),
        Mention("Disease", ((14, 18), (28, 32))),
        ("Chemical", "Aspirin"),
        ("Gene", "drug"),
    ]
    document = gold_document(TEXT, mentions, types=["Chemical", "Disease"], id="1")
    return save(tmp_path / "a.spacy", [document, gold_document("Other.", types=[])])


def rows_of(path, corpus, **settings):
    n_rows = write_instructions([corpus], path, **settings)
    rows = [json.loads(line) for line in path.read_text("utf8").splitlines()]
    assert len(rows) == n_rows
    return rows


def test_a_row_per_sentence_and_type_that_is_annotated_completely(tmp_path, corpus):
    rows = rows_of(tmp_path / "new" / "rows.jsonl", corpus, instruction="Find each {type}: {x}")
    assert [(row["input"], row["type"], row["output"]) for row in rows] == [
        ("Aspirin eases head and neck pain.", "Chemical", "Aspirin"),
        ("Aspirin eases head and neck pain.", "Disease", "head pain; neck pain"),
        ("No drug was given.", "Chemical", "None"),
        ("No drug was given.", "Disease", "None"),
    ]
    assert rows[0]["instruction"] == "Find each Chemical: {x}"
    assert (rows[0]["corpus"], rows[0]["id"]) == ("Corpus", "1")


def test_few_shot_examples_hold_all_types_of_a_sentence(tmp_path, corpus):
    first, second = rows_of(tmp_path / "rows.jsonl", corpus, form="few-shot")
    assert first == {
        "text": "Aspirin eases head and neck pain.",
        "entities": {"Chemical": ["Aspirin"], "Disease": ["head pain", "neck pain"]},
    }
    assert second["entities"] == {"Chemical": [], "Disease": []}


def test_a_draw_is_the_same_for_a_seed_and_keeps_the_order(tmp_path):
    corpus = save(tmp_path / "sample.spacy", sample_documents("dev"))
    everything = rows_of(tmp_path / "all.jsonl", corpus, form="few-shot")
    drawn = rows_of(tmp_path / "a.jsonl", corpus, form="few-shot", sample=7, seed=1)
    again = rows_of(tmp_path / "b.jsonl", corpus, form="few-shot", sample=7, seed=1)
    other = rows_of(tmp_path / "c.jsonl", corpus, form="few-shot", sample=7, seed=2)
    assert drawn == again != other
    places = [everything.index(row) for row in drawn]
    assert places == sorted(set(places)) and len(places) == 7
    assert len(rows_of(tmp_path / "d.jsonl", corpus, form="few-shot", sample=10**6)) == len(
        everything
    )


def test_sentences_that_are_masked_give_no_rows(tmp_path):
    text = "Zinc helps. Rats ate zinc. Mice ate\nlead. Zinc again."
    # The last one is named across the end of its sentence.
    crossing = Mention("Species", ((27, 31), (42, 46)))
    document = gold_document(text, [("Chemical", "Zinc"), crossing], types=["Chemical", "Species"])
    zinc, ate = text.index("zinc"), text.index("Zinc again")
    document.doc.user_data[KEY]["masked"] = [[zinc, zinc + 4], [ate, ate + 4]]
    rows = rows_of(
        tmp_path / "rows.jsonl", save(tmp_path / "masked.spacy", [document]), form="few-shot"
    )
    assert rows == [{"text": "Zinc helps.", "entities": {"Chemical": ["Zinc"], "Species": []}}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"form": "chat"}, "VE230.*instruction, few-shot"), ({"instruction": "Find."}, "VE230")],
)
def test_wrong_settings_are_refused(tmp_path, corpus, settings, message):
    with pytest.raises(VanerError, match=message):
        write_instructions([corpus], tmp_path / "rows.jsonl", **settings)
    assert not (tmp_path / "rows.jsonl").exists()


def test_without_anything_to_ask_nothing_is_written(tmp_path):
    corpus = save(tmp_path / "a.spacy", [gold_document("Other.", types=[])])
    with pytest.raises(VanerError, match="VE231"):
        write_instructions([corpus], tmp_path / "rows.jsonl")
