"""The knowledge base: joining of names, its file, and that no held-out name gets in."""

from __future__ import annotations

from pathlib import Path

import pytest

from spacy_vaner.corpora.batch import convert_catalogue
from spacy_vaner.corpora.docbins import read_docs
from spacy_vaner.errors import VanerError
from spacy_vaner.knowledge.sources import read_entries
from spacy_vaner.knowledge.sources.base import Entry
from spacy_vaner.knowledge.store import BuildReport, KnowledgeBase, build, name_key
from tests.knowledge.conftest import NAMES, make_kb

CORPORA = Path(__file__).parent.parent.parent / "project/corpora"


def test_names_are_joined_over_case_and_white_space_and_keep_all_types(kb: KnowledgeBase) -> None:
    position = kb.find(" CaT")
    assert position is not None
    assert kb.names[position] == "CAT"
    assert kb.types[position] == ("Gene", "Species")
    assert kb.ids[position] == ("Gene:3", "Species:1")
    assert kb.find("CA T") is None
    assert len(kb) == sum(map(len, NAMES.values())) - 1
    assert position in kb.by_type["Gene"] and position in kb.by_type["Species"]


def test_composed_and_decomposed_letters_are_one_name() -> None:
    kb = make_kb({"Disease": ["Sjögren syndrome", "Sjo\u0308gren  syndrome"]})
    assert list(kb.names) == ["Sjögren syndrome"]


def test_every_name_that_is_left_out_or_joined_is_counted() -> None:
    entries = [
        Entry("aspirin", "Chemical", "1", "first"),
        Entry("Aspirin", "Chemical", "2", "second"),
        Entry("aspirin", "Drug", "3", "second"),
        Entry("x", "Chemical", "", "first"),
        Entry("12-3", "Chemical", "", "first"),
        Entry("a" * 101, "Chemical", "", "first"),
    ]
    report = BuildReport()
    kb = build(entries, report)
    assert (kb.names, kb.types) == (["aspirin"], [("Chemical", "Drug")])
    assert (kb.ids, kb.sources) == ([("1", "3")], [("first", "second")])
    assert (report.n_read, report.n_names, report.n_repeated) == (6, 1, 1)
    assert report.n_several_types == 1
    assert report.types == {"Chemical": 1, "Drug": 1}
    assert report.sources == {"first": 1, "second": 1}
    assert sum(report.left_out.values()) == 3
    assert report.n_read == sum(report.types.values()) + report.n_repeated + 3


@pytest.mark.parametrize("type", ["", "a:b", "a=b", "a\nb"])
def test_types_that_cannot_be_asked_are_refused(type: str) -> None:
    with pytest.raises(VanerError, match="VE611"):
        build([Entry("aspirin", type, "", "s")], BuildReport())


def test_sources_without_a_usable_name_are_refused() -> None:
    with pytest.raises(VanerError, match="VE610"):
        build([Entry("1", "Gene", "", "s")], BuildReport())


def test_file_gives_back_the_same_knowledge_base(kb: KnowledgeBase, tmp_path: Path) -> None:
    path = tmp_path / "new" / "kb.parquet"
    kb.to_file(path)
    again = KnowledgeBase.from_file(path)
    assert (again.names, again.types, again.ids, again.sources) == (
        kb.names,
        kb.types,
        kb.ids,
        kb.sources,
    )
    assert again.fingerprint == kb.fingerprint
    assert [file.name for file in path.parent.iterdir()] == ["kb.parquet"]


def test_fingerprint_changes_with_a_name_a_type_and_the_order() -> None:
    changed = [
        {"Disease": ["fever"], "Gene": ["BRCA1"]},
        {"Disease": ["fever", "BRCA1"]},
        {"Gene": ["BRCA1"], "Disease": ["fever"]},
        {"Disease": ["fever"], "Gene": ["BRCA2"]},
    ]
    assert len({make_kb(names).fingerprint for names in changed}) == len(changed)


def test_other_and_broken_files_are_refused(kb: KnowledgeBase, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = tmp_path / "kb.parquet"
    with pytest.raises(VanerError, match="VE608"):
        KnowledgeBase.from_file(path)
    parquet.write_table(pa.table({"name": ["a"]}), path)
    with pytest.raises(VanerError, match="VE608.*does not say"):
        KnowledgeBase.from_file(path)
    kb.to_file(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(VanerError, match="VE608"):
        KnowledgeBase.from_file(path)
    kb.to_file(path)
    table = parquet.read_table(path)
    newer = table.replace_schema_metadata({b"spacy_vaner.knowledge_base": b"9"})
    parquet.write_table(newer, path)
    with pytest.raises(VanerError, match="VE609.*9"):
        KnowledgeBase.from_file(path)


def test_a_failing_source_leaves_no_file(tmp_path: Path) -> None:
    from spacy_vaner.cli.kb import kb_build_command

    (tmp_path / "names.tsv").write_text("name\ttype\naspirin\tChemical\nbroken\n", "utf8")
    output = tmp_path / "kb.parquet"
    with pytest.raises(VanerError, match="VE601"):
        kb_build_command(output, [f"tsv={tmp_path / 'names.tsv'}"])
    assert not list(tmp_path.glob("*kb*"))


def test_no_name_of_dev_or_test_gets_in_by_the_way_of_training_splits(tmp_path: Path) -> None:
    """The sample corpus through the real conversion: all splits lie in one folder."""
    for _ in convert_catalogue(["sample"], tmp_path, corpora_dir=CORPORA, views=["text"]):
        pass
    files = sorted(tmp_path.glob("*.spacy"))
    assert len(files) == 3
    accepted = []
    entries: list[Entry] = []
    for path in files:
        try:
            entries += read_entries(path, "corpus", note=lambda cause, where: None)
            accepted.append(path)
        except VanerError as error:
            assert "VE607" in str(error)
    kb = build(entries, BuildReport())
    names = {split: mentions_of(tmp_path / f"sample.text.{split}.spacy") for split in SPLITS}
    held_out = (names["dev"] | names["test"]) - names["train"]
    assert held_out, "the sample's held-out splits have names of their own"
    assert [path.name for path in accepted] == ["sample.text.train.spacy"]
    assert not held_out & set(map(name_key, kb.names))
    assert set(map(name_key, kb.names)) <= names["train"]


SPLITS = ("train", "dev", "test")


def mentions_of(path: Path) -> set[str]:
    """Compared as a knowledge base compares names."""
    return {
        name_key(doc.text[fragments[0][0] : fragments[0][1]])
        for doc in read_docs(path)
        for _, fragments, _ in doc.user_data["vaner"]["mentions"]
        if len(fragments) == 1
    }
