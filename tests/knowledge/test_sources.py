"""Every kind of source: what is read, what is left out and counted, what is refused."""

from __future__ import annotations

import gzip
import json
import lzma
from collections import Counter
from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc, DocBin

from spacy_vaner.errors import VanerError
from spacy_vaner.knowledge.sources import SOURCES, read_entries
from spacy_vaner.knowledge.sources.base import Entry
from spacy_vaner.knowledge.sources.umls import umls_types


def read(path: Path, kind: str, **options: object) -> tuple[list[Entry], Counter[str]]:
    left_out: Counter[str] = Counter()

    def note(cause: str, where: str) -> None:
        left_out[cause] += 1

    return list(read_entries(path, kind, note=note, **options)), left_out


def pairs(entries: list[Entry]) -> list[tuple[str, str]]:
    return [(entry.name, entry.type) for entry in entries]


OBO_TEXT = """format-version: 1.2
default-namespace: test

[Term]
id: T:1
name: mallow fever ! a comment
synonym: "mallow \\"marsh\\" fever" EXACT []
synonym: "marsh illness" RELATED [X:1]
synonym: "fever of marshes" NARROW OMO:1 [X:1]
is_a: T:9 ! illness

[Term]
id: T:2
name: old fever
is_obsolete: true

[Term]
id: T:3

[Typedef]
id: part_of
name: part of

[Term]
id: T:1
name: second with this id
"""


def test_term_list_with_header_in_any_order_and_packed(tmp_path: Path) -> None:
    text = "id\tname\tmore\ttype\n7\taspirin\tx\tChemical\n\n\tBRCA1\t\tGene\n\tuntyped\t\t\n"
    (tmp_path / "names.tsv").write_text(text, encoding="utf8")
    (tmp_path / "names.tsv.xz").write_bytes(lzma.compress(text.encode()))
    (tmp_path / "names.tsv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("names.tsv", "names.tsv.xz", "names.tsv.gz"):
        entries, left_out = read(tmp_path / name, "tsv")
        assert entries == [
            Entry("aspirin", "Chemical", "7", name),
            Entry("BRCA1", "Gene", "", name),
        ]
        assert left_out == {"name without a type": 1}


def test_term_list_without_types_takes_the_one_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "drugs.tsv").write_text("name\naspirin\n", encoding="utf8")
    assert pairs(read(tmp_path / "drugs.tsv", "tsv", type="Chemical")[0]) == [
        ("aspirin", "Chemical")
    ]
    with pytest.raises(VanerError, match=r"VE601.*line 1: expected a header"):
        read(tmp_path / "drugs.tsv", "tsv")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"name\ttype\naspirin\n", "VE601.*line 2: expected 2 columns.*found: aspirin"),
        (b"name\ttype\nasp\xe9\tChemical\n", "VE603.*line 2.*0xe9"),
    ],
)
def test_broken_term_list_is_refused_with_its_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "names.tsv").write_bytes(content)
    with pytest.raises(VanerError, match=message):
        read(tmp_path / "names.tsv", "tsv")


def test_truncated_archive_and_missing_file_are_refused(tmp_path: Path) -> None:
    packed = gzip.compress(b"name\ttype\n" + b"aspirin\tChemical\n" * 100)
    (tmp_path / "names.tsv.gz").write_bytes(packed[:-20])
    with pytest.raises(VanerError, match="VE602"):
        read(tmp_path / "names.tsv.gz", "tsv")
    with pytest.raises(VanerError, match="VE602"):
        read(tmp_path / "nothing.tsv", "tsv")


def test_ontology_gives_names_and_synonyms_of_the_chosen_scopes(tmp_path: Path) -> None:
    path = tmp_path / "test.obo"
    path.write_text(OBO_TEXT, encoding="utf8")
    entries, left_out = read(path, "obo", type="Disease")
    assert [entry.name for entry in entries] == [
        "mallow fever",
        'mallow "marsh" fever',
        "fever of marshes",
        "second with this id",
    ]
    assert {(entry.type, entry.id, entry.source) for entry in entries} == {
        ("Disease", "T:1", "test.obo")
    }
    assert left_out == {
        "obsolete term": 1,
        "term without a name or an id": 1,
        "identifier that occurs twice": 1,
    }
    related, _ = read(path, "obo", type="Disease", scopes=["RELATED"])
    assert "marsh illness" in [entry.name for entry in related]


@pytest.mark.parametrize(
    "text, message",
    [
        ("[Term]\nid: T:1\nname: a\nsynonym: no quotes EXACT []\n", "VE601.*line 4"),
        ("format-version: 1.2\n", "VE601.*stanzas"),
    ],
)
def test_broken_ontology_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.obo").write_text(text, encoding="utf8")
    with pytest.raises(VanerError, match=message):
        read(tmp_path / "a.obo", "obo", type="Disease")


def test_umls_filters_language_suppressed_and_untyped_and_joins_types(umls: Path) -> None:
    entries, left_out = read(umls, "umls")
    assert entries == [
        Entry("Mallow fever", "Disease", "C1", "UMLS:MSH"),
        Entry("Fever, mallow", "Disease", "C1", "UMLS:OTHER"),
        Entry("Mallowase", "Chemical", "C2", "UMLS:MSH"),
        Entry("Mallowase", "Gene", "C2", "UMLS:MSH"),
        Entry("Mallow street", "Place", "C3", "UMLS:MSH"),
    ]
    assert left_out == {
        "suppressed name": 1,
        "name of a concept without a type": 1,
        "semantic type T999 that is not in the table": 1,
    }


def test_umls_vocabularies_languages_and_types_are_options(umls: Path, tmp_path: Path) -> None:
    assert [entry.name for entry in read(umls, "umls", vocabularies=["OTHER"])[0]] == [
        "Fever, mallow"
    ]
    assert [entry.name for entry in read(umls, "umls", languages=["GER"])[0]] == ["Malvenfieber"]
    table = tmp_path / "types.json"
    table.write_text('{"T083": {"name": "Geographic Area", "types": ["Street"]}}', "utf8")
    assert pairs(read(umls, "umls", types=table)[0]) == [("Mallow street", "Street")]
    table.write_text('{"T083": "Street"}', "utf8")
    with pytest.raises(VanerError, match="VE606"):
        read(umls, "umls", types=table)


def test_truncated_and_missing_umls_files_are_refused(umls: Path) -> None:
    conso = umls / "MRCONSO.RRF"
    whole = conso.read_text("utf8")
    conso.write_text(whole + "C9|ENG|P|L1\n", "utf8")
    with pytest.raises(VanerError, match=r"VE601.*line 8: expected 18 columns"):
        read(umls, "umls")
    conso.write_text(whole[:-3], "utf8")
    with pytest.raises(VanerError, match=r"VE601.*line 7"):
        read(umls, "umls")
    conso.write_text(whole, "utf8")
    (umls / "MRSTY.RRF").unlink()
    with pytest.raises(VanerError, match=r"VE602.*MRSTY\.RRF"):
        read(umls, "umls")


def test_table_of_semantic_types_is_complete() -> None:
    table = umls_types()
    assert len(table) == 127
    assert all(table.values())
    expected = {
        "T047": ("Disease",),
        "T121": ("Chemical",),
        "T028": ("Gene",),
        "T015": ("Species",),
    }
    assert {tui: table[tui] for tui in expected} == expected
    assert "Disease" not in {*table["T184"], *table["T033"], *table["T023"]}


def corpus_file(path: Path, mentions: list[object], masked: list[object]) -> Path:
    nlp = spacy.blank("en")
    doc: Doc = nlp.make_doc("Mallow fever and marsh fever are illnesses of marsh people.")
    doc.user_data["vaner"] = {
        "corpus": "MARSH",
        "id": "1",
        "types": ["Disease"],
        "mentions": mentions,
        "masked": masked,
    }
    DocBin(docs=[doc, nlp.make_doc("Plain.")], store_user_data=True).to_disk(path)
    return path


def test_training_split_gives_its_mentions_but_none_in_masked_stretches(tmp_path: Path) -> None:
    mentions: list[object] = [
        ["Disease", [[0, 12]], ["D1", "D2"]],
        ["Disease", [[17, 28]], []],
        ["Disease", [[0, 6], [23, 28]], []],
    ]
    path = corpus_file(tmp_path / "MARSH.text.train.spacy", mentions, [[13, 30]])
    entries, left_out = read(path, "corpus")
    assert entries == [Entry("Mallow fever", "Disease", "D1,D2", "corpus:MARSH")]
    assert left_out == {
        "mention in a masked stretch": 1,
        "discontinuous mention": 1,
        "document without annotation": 1,
    }


@pytest.mark.parametrize("name", ["MARSH.dev.spacy", "MARSH.text.test.spacy", "training.spacy"])
def test_other_splits_are_refused_unless_the_leak_is_wanted(tmp_path: Path, name: str) -> None:
    path = corpus_file(tmp_path / name, [["Disease", [[0, 12]], []]], [])
    with pytest.raises(VanerError, match="VE607"):
        read(path, "corpus")
    assert read(path, "leaky")[0] == [Entry("Mallow fever", "Disease", "", "leaky:MARSH")]


def test_unknown_kinds_and_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VanerError, match="VE604.*tsv, obo, umls"):
        read(tmp_path, "csv")
    with pytest.raises(VanerError, match="VE605.*'corpus'.*'type'"):
        read(tmp_path, "corpus", type="Disease")


def test_shipped_table_of_semantic_types_has_one_form() -> None:
    path = Path(SOURCES["umls"].read.__code__.co_filename).with_name("umls_types.json")
    rows = json.loads(path.read_text("utf8"))
    assert list(rows) == sorted(rows)
    assert all(row.keys() == {"name", "types"} for row in rows.values())
