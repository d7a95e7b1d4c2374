"""The commands `kb` and `dbr` as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spacy_vaner.cli import vaner_app
from spacy_vaner.knowledge.candidates import read_candidates
from spacy_vaner.knowledge.store import KnowledgeBase

SAMPLE = Path(__file__).parent.parent.parent / "project/corpora/sample/sample.train.jsonl"

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def invoke(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(vaner_app, list(words))
        assert result.exit_code == status, result.output
        return " ".join(result.output.split())

    return invoke


def write_names(path: Path) -> None:
    rows = ["name\ttype\tid", "breast cancer\tDisease\tD1", "x\tDisease\t", "breast\tAnatomy\tA1"]
    path.write_text("\n".join(rows) + "\n", encoding="utf8")


def test_from_sources_to_candidates(run: Run, tmp_path: Path, umls: Path) -> None:
    write_names(tmp_path / "names.tsv")
    (tmp_path / "a.obo").write_text("[Term]\nid: T:1\nname: marsh fever\n", "utf8")
    run("convert", str(SAMPLE), "s.train.spacy", "--format", "jsonl")
    sources = ["tsv=names.tsv", "obo:Disease=a.obo", "umls=META", "corpus=s.train.spacy"]
    told = run("kb", "build", "kb.parquet", *sources, "--vocabularies", "MSH")
    assert "1 noted: shorter than two characters" in told
    assert "1 noted: suppressed name" in told
    kb = KnowledgeBase.from_file(tmp_path / "kb.parquet")
    assert f"{len(kb):,} names: kb.parquet" in told
    assert kb.find("mallow fever") is not None and kb.find("fever, mallow") is None

    stats = run("kb", "stats", "kb.parquet")
    assert f"{len(kb):,} names" in stats and "UMLS:MSH" in stats and "corpus:s" in stats

    assert "Saved to index" in run("kb", "index", "kb.parquet", "index")
    searched = run("kb", "search", "kb.parquet", "breast cancers", "qqqq", "--index", "index")
    assert "breast cancer Disease D1" in searched and "qqqq: nothing alike" in searched
    assert run("kb", "search", "kb.parquet", "breast cancers", "qqqq") == searched

    told = run("dbr", "s.train.spacy", "kb.parquet", "c.parquet", "--index", "index")
    rows = read_candidates(tmp_path / "c.parquet", kb)
    assert f"{len(rows):,} sentences of " in told
    assert sum(bool(row.names) for row in rows.values()) > len(rows) / 2


def test_one_type_and_a_leak_are_warned_of(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.obo").write_text("[Term]\nid: T:1\nname: marsh fever\n", "utf8")
    assert "VW601" in run("kb", "build", "kb.parquet", "obo:Disease=a.obo")
    run("convert", str(SAMPLE), "s.dev.spacy", "--format", "jsonl")
    assert "VE607" in run("kb", "build", "kb2.parquet", "corpus=s.dev.spacy", status=1)
    assert not (tmp_path / "kb2.parquet").exists()
    assert "VW602" in run("kb", "build", "kb2.parquet", "leaky=s.dev.spacy")
    assert "leaky:s" in run("kb", "stats", "kb2.parquet")


@pytest.mark.parametrize(
    "words, number",
    [
        (["kb", "build", "kb.parquet", "names.tsv"], "VE618"),
        (["kb", "build", "kb.parquet", "obo=a.obo"], "VE618"),
        (["kb", "build", "kb.parquet", "tsv:=a.tsv"], "VE618"),
        (["kb", "build", "kb.parquet", "csv=a.csv"], "VE604"),
        (["kb", "build", "kb.parquet", "umls:Disease=META"], "VE605"),
        (["kb", "stats", "nothing.parquet"], "VE608"),
    ],
)
def test_wrong_words_are_told(run: Run, words: list[str], number: str) -> None:
    assert number in run(*words, status=1)


def test_two_places_for_phrases_are_refused(run: Run, tmp_path: Path) -> None:
    write_names(tmp_path / "names.tsv")
    run("kb", "build", "kb.parquet", "tsv=names.tsv")
    run("convert", str(SAMPLE), "s.train.spacy", "--format", "jsonl")
    words = ["dbr", "s.train.spacy", "kb.parquet", "c.parquet"]
    told = run(*words, "--phrases-per-word", "1", "--pipeline", "en", status=1)
    assert "VE623" in told and "--pipeline and --phrases-per-word" in told
    (tmp_path / "seg.txt").write_text("<phrase>breast cancer</phrase>\n", "utf8")
    assert "Saved to" in run(*words, "--segmentation", "seg.txt")


def test_recall_of_mentions_is_reported_for_every_kind_of_phrases(run: Run, tmp_path: Path) -> None:
    import spacy

    texts = ["Breast cancer and marsh fever.", "No fever, but breast cancer and BRCA1."]
    lines = [
        {"id": "1", "text": texts[0], "ents": [[0, 13, "Disease"], [18, 29, "Disease"]]},
        {"id": "2", "text": texts[1], "ents": [[14, 27, "Disease"], [32, 37, "Gene"]]},
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", "utf8")
    run("convert", "c.jsonl", "c.dev.spacy", "--format", "jsonl")
    marked = "<phrase_Q=0.9>breast cancer</phrase> and fever. <phrase>No fever</phrase>\n"
    (tmp_path / "segmentation.txt").write_text(marked, "utf8")
    # 2 of 4 mentions; 3 phrases in 2 sentences.
    told = run("phrases", "c.dev.spacy", "--segmentation", "segmentation.txt")
    assert "c.dev.spacy 4 0.500 1.5" in told
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "X", "pattern": "BRCA1"}])  # type: ignore[attr-defined]
    nlp.to_disk(tmp_path / "nlp")
    assert "c.dev.spacy 4 0.250 0.5" in run("phrases", "c.dev.spacy", "--pipeline", "nlp")
    assert "c.dev.spacy 4 1.000" in run("phrases", "c.dev.spacy", "--phrases-per-word", "9")
    assert "VE623" in run(
        "phrases", "c.dev.spacy", "--pipeline", "nlp", "--segmentation", "x", status=1
    )


def test_a_folder_gives_names_and_candidates_of_all_its_training_splits(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "all").mkdir()
    for name in ("a.train", "b.train", "a.dev"):
        line = {
            "id": name,
            "text": f"Some {name[0]}{name[2:]} fever.",
            "ents": [[5, 16, "Disease"]],
        }
        (tmp_path / "x.jsonl").write_text(json.dumps(line) + "\n", "utf8")
        run("convert", "x.jsonl", f"all/{name}.spacy", "--format", "jsonl")
    run("kb", "build", "kb.parquet", "corpus=all")
    kb = KnowledgeBase.from_file(tmp_path / "kb.parquet")
    assert len(kb) == 2 and not any("dev" in name for name in kb.names)
    run("kb", "build", "leaky.parquet", "leaky=all")
    assert len(KnowledgeBase.from_file(tmp_path / "leaky.parquet")) == 3
    told = run("dbr", "all", "kb.parquet", "candidates")
    found = sorted(path.name for path in (tmp_path / "candidates").iterdir())
    assert found == ["a.train.candidates.parquet", "b.train.candidates.parquet"]
    assert told.count("1 sentences of 1 documents") == 2
