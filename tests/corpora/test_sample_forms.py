"""The sample corpus in every format: the same mentions out of all, and as our writers make it."""

from __future__ import annotations

from pathlib import Path

import pytest

from spacy_vaner.corpora.formats import FORMATS, read_records, write_records

SAMPLE = Path(__file__).parents[2] / "project" / "corpora" / "sample"
SPLITS = ("train", "dev", "test")
TYPES = ("Chemical", "Disease", "Gene", "Species")
PLACES = {
    "bc2gm": "bc2gm/{0}/{0}.in",
    "bioc_json": "sample.{0}.bioc.json",
    "bioc_xml": "sample.{0}.bioc.xml",
    "brat": "brat/{0}",
    "iob": "sample.{0}.iob2",
    "jsonl": "sample.{0}.jsonl",
    "knowtator": "knowtator/{0}",
    "pubtator": "sample.{0}.pubtator",
    "spacy": "sample.{0}.spacy",
    "spacy_json": "sample.{0}.spacy.jsonl",
}
WRITTEN = sorted(set(PLACES) - {"iob", "jsonl", "pubtator"})


def read(name, split):
    return list(read_records(SAMPLE / PLACES[name].format(split), name))


def by_text(records):
    """Per document: text and mentions, discontinuous ones apart."""
    return {
        record.id: (
            record.text,
            [(m.type, m.fragments) for m in record.mentions if len(m.fragments) == 1],
            [(m.type, m.fragments) for m in record.mentions if len(m.fragments) > 1],
        )
        for record in records
    }


def test_every_format_is_there():
    assert {*PLACES, "vaner_jsonl"} == set(FORMATS)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", [name for name in PLACES if name not in ("iob", "jsonl")])
def test_the_same_mentions_out_of_all(name, split):
    expected, found = by_text(read("jsonl", split)), by_text(read(name, split))
    assert found.keys() == expected.keys()
    for id_, (text, contiguous, discontinuous) in found.items():
        assert (text, contiguous) == expected[id_][:2]
        if "discontinuous" in FORMATS[name].carries:
            assert discontinuous == expected[id_][2]


@pytest.mark.parametrize("split", SPLITS)
def test_the_authors_form_is_the_iob_form(split):
    """A line per sentence and file per type against documents of tagged words."""
    iob = read("iob", split)
    for type_ in TYPES:
        lines = list(
            read_records(SAMPLE / f"vaner/{split}.{type_}.jsonl", "vaner_jsonl", type_name=type_)
        )
        assert len(lines) == sum(len(record.sentences) for record in iob)
        surfaces = [
            record.text[slice(*m.fragments[0])] for record in lines for m in record.mentions
        ]
        assert surfaces == [
            record.text[slice(*m.fragments[0])]
            for record in iob
            for m in record.mentions
            if m.type == type_
        ]


@pytest.mark.parametrize("name", WRITTEN)
def test_the_files_are_what_our_writers_make(tmp_path, name):
    place = Path(PLACES[name].format("dev"))
    write_records(read("jsonl", "dev"), tmp_path / place, name)
    if name == "spacy":  # Its bytes are spaCy's business.
        assert [r.mentions for r in read_records(tmp_path / place, name)] == [
            r.mentions for r in read("jsonl", "dev")
        ]
        return
    made = {
        path.relative_to(tmp_path): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert made
    assert made == {path: (SAMPLE / path).read_bytes() for path in made}
