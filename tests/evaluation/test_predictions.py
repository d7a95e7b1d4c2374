"""The file of predictions, and how its lines find their gold documents."""

from __future__ import annotations

import json

import pytest

from spacy_vaner.errors import VanerError
from spacy_vaner.evaluation.documents import GoldFile
from spacy_vaner.evaluation.predictions import FoundSpan, pair_with_gold, write_predictions
from tests.support.gold_documents import gold_document, predicted_document, save

TEXT = "Aspirin for\u2028gout."
SPANS = [FoundSpan("Chemical", 0, 7, 0.123456789), FoundSpan("Disease", 12, 16, None)]


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


@pytest.fixture
def gold_path(tmp_path):
    documents = [gold_document(TEXT, id="1"), gold_document("None.", id="2")]
    return save(tmp_path / "gold.spacy", documents)


def paired(path, gold_path, **settings):
    return pair_with_gold(path, [GoldFile(gold_path)], **settings)


def test_what_is_written_comes_back(tmp_path, gold_path):
    documents = [
        predicted_document(gold_document(TEXT, id="1"), SPANS, types=["Chemical", "Disease"]),
        predicted_document(gold_document("None.", id="2"), []),
    ]
    path = tmp_path / "new" / "found.jsonl"
    write_predictions(path, documents)
    first, second = paired(path, gold_path)
    assert first.spans == (SPANS[0]._replace(probability=0.123457), SPANS[1])
    assert first.types == ("Disease", "Chemical")
    assert (second.spans, second.types) == ((), documents[1].types)
    assert len(path.read_text("utf8").split("\n")) == 3


def test_the_jsonl_of_annotate_is_read(tmp_path, gold_path):
    rows = [
        {"id": "9", "text": "None.", "ents": []},
        {"id": "8", "text": TEXT, "ents": [[0, 7, "CHEM", "Aspirin", "D1"]], "scores": [0.5]},
    ]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    first, _ = paired(path, gold_path, label_map={"CHEM": "Chemical"})
    assert first.spans == (FoundSpan("Chemical", 0, 7, 0.5),)
    assert first.types == first.document.gold.types


def test_a_line_of_another_corpus_or_document_is_not_taken(tmp_path):
    gold_path = save(
        tmp_path / "gold.spacy",
        [gold_document("Same.", id=id, corpus=corpus) for corpus in "AB" for id in "12"],
    )
    rows = [
        {"corpus": corpus, "id": id, "text": "Same.", "ents": [[0, n, "Gene"]]}
        for n, (corpus, id) in enumerate([("B", "2"), ("B", "1"), ("A", "1")], start=1)
    ]
    found = paired(write_lines(tmp_path / "a.jsonl", *rows), gold_path)
    # A's second document has no line of its own, but one with the same text of its corpus.
    assert [each.spans[0].end for each in found] == [3, 3, 2, 1]
    with pytest.raises(VanerError, match="VE442.*no line for 2 of the gold.*gold.spacy, '1'"):
        paired(write_lines(tmp_path / "b.jsonl", *rows[:2]), gold_path)


def test_documents_that_annotate_no_type_completely_need_no_line(tmp_path):
    gold_path = save(
        tmp_path / "gold.spacy", [gold_document("One."), gold_document("Two.", types=[])]
    )
    path = write_lines(tmp_path / "a.jsonl", {"text": "One.", "ents": []})
    assert len(paired(path, gold_path)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        '["a list"]',
        '{"text": "Aspirin"}',
        '{"text": 5, "ents": []}',
        '{"text": "Aspirin", "ents": [[0, 99, "Gene"]]}',
        '{"text": "Aspirin", "ents": [[5, 5, "Gene"]]}',
        '{"text": "Aspirin", "ents": [["0", 5, "Gene"]]}',
        '{"text": "Aspirin", "ents": [[0, 5, "Gene"]], "scores": [0.5, 0.5]}',
        '{"text": "Aspirin", "ents": [[0, 5, "Gene"]], "scores": [1.5]}',
        '{"text": "Aspirin", "ents": [], "types": "Gene"}',
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, gold_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "None.", "ents": []}}\n\n{line}\n')
    with pytest.raises(VanerError, match="VE441: .*a.jsonl, line 3:"):
        paired(path, gold_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path, gold_path):
    with pytest.raises(VanerError, match="VE441.*none.jsonl"):
        paired(tmp_path / "none.jsonl", gold_path)
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(VanerError, match="VE441"):
        paired(tmp_path / "a.jsonl", gold_path)
