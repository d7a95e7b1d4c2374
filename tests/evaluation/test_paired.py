"""Paired tests of a benchmark: what is kept per document, and what is compared with what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spacy_vaner.evaluation.benchmark import Benchmark, Settings, read_json, write_json
from spacy_vaner.evaluation.lines import Question
from spacy_vaner.evaluation.paired import compare, write_counts
from spacy_vaner.evaluation.report import build_report
from spacy_vaner.evaluation.systems.base import SystemSpec
from spacy_vaner.evaluation.worker import score
from tests.support.gold_documents import gold_document, predicted_document

TEXTS = ["Aspirin eases pain.", "Zinc is no cure of pain.", "Pain is pain."]


def documents() -> list:
    return [
        gold_document(text, [("Disease", "pain")], types=("Disease", "Chemical"), id=str(number))
        for number, text in enumerate(TEXTS)
    ]


def counts_of(path: Path, found: dict[int, list[tuple[str, str]]], types: tuple[str, ...]) -> dict:
    rows = [
        (number, predicted_document(document, found.get(number, []), types=types))
        for number, document in enumerate(documents())
    ]
    write_counts(path, rows)
    return json.loads(path.read_text("utf8"))


def test_types_and_documents_of_both_are_compared(tmp_path: Path) -> None:
    right = {number: [("Disease", "pain")] for number in range(3)}
    first = counts_of(tmp_path / "a.json", right, ("Disease", "Chemical"))
    assert first["Corpus"]["Disease"] == {"0": [1, 0, 0], "1": [1, 0, 0], "2": [1, 0, 0]}
    second = counts_of(tmp_path / "b.json", {0: [("Disease", "pain")]}, ("Disease",))
    (found,) = compare(first, second, seed=0, n_resamples=99).values()
    # Two of three missed: 100 - 2 · 1 / (3 + 1). Chemical is asked of one system alone.
    assert list(found) == ["Disease"]
    assert found["Disease"]["difference"] == 0.5
    assert 0 < found["Disease"]["p_value"] <= 1
    assert compare(first, first, seed=0, n_resamples=99)["Corpus"]["all"]["difference"] == 0.0
    assert compare(first, {"Other": {}}, seed=0, n_resamples=99) == {}


def test_a_document_that_one_system_was_not_asked_of_is_left_out(tmp_path: Path) -> None:
    first = counts_of(tmp_path / "a.json", {}, ("Disease",))
    second = {"Corpus": {"Disease": {"1": [1, 0, 0]}}}
    (found,) = compare(first, second, seed=0, n_resamples=9).values()
    assert found["Disease"]["difference"] == -1.0  # of document 1 alone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of ours, which finds nothing, and of a rival, which finds all, asked in two ways."""
    out = tmp_path / "out"
    for view, named in (("text", False), ("tokens", True)):
        for name, kind in (("ours", "vaner"), ("rival", "spacy")):
            found = [("Disease", "pain")] if name == "rival" else []
            rows = [predicted_document(each, found, types=("Disease",)) for each in documents()]
            file = f"Pains.{view}.dev"
            write_counts(out / "predictions" / name / f"{file}.counts.json", enumerate(rows))
            frame = {
                **{"system": SystemSpec(name, kind).to_dict(), "file": f"{file}.spacy"},
                **{"view": view, "name_corpus": named, "seed": 0, "fingerprint": name},
                **{"command": None, "status": "ok"},
            }
            outcome = score(rows, seed=0, n_resamples=50)
            write_json(out / "results" / name / f"{file}.json", {**frame, **outcome})
    return out


def test_ours_is_tested_against_the_others_and_the_report_says_so(
    folder: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"Pains.{view}.dev.spacy" for view in ("text", "tokens")]
    spec = SystemSpec("rival", "spacy")
    benchmark = Benchmark([spec], files, folder, Settings(speed_rounds=0, n_resamples=50))
    for file in files:
        benchmark._compare(file)
    kept = read_json(folder / "paired/Pains.text.dev.json")
    (pair,) = kept["pairs"]
    assert (pair["first"], pair["second"]) == ("ours", "rival")
    assert pair["corpora"]["Corpus"]["Disease"]["difference"] == -1.0
    report = build_report(folder)
    row = "| Corpus Disease | ours, 0.00 | rival, 100.00 | -100.00 | -100.0 to -100.0 | 0.020 |"
    assert f"{row} **behind** |" in report
    # One way of asking after the other, never in one table.
    first, second = Question("text", False).title, Question("tokens", True).title
    assert report.index(f"### {first}") < report.index(f"### {second}")
    assert report.count("| system | Corpus Disease |") == 2
    # Nothing is compared again before a result changes.
    before = (folder / "paired/Pains.text.dev.json").stat().st_mtime_ns
    benchmark._compare(files[0])
    assert (folder / "paired/Pains.text.dev.json").stat().st_mtime_ns == before


def test_a_difference_within_the_noise_is_no_lead(folder: Path) -> None:
    test = {"difference": -0.1, "interval": [-0.3, 0.1], "p_value": 0.4}
    corpora = {"Corpus": {"Disease": test}}
    pairs = [{"first": "ours", "second": "rival", "corpora": corpora}]
    kept = {"file": "Pains.text.dev.spacy", "pairs": pairs}
    write_json(folder / "paired/Pains.text.dev.json", kept)
    assert "| -30.0 to +10.0 | 0.400 | not told apart |" in build_report(folder)


def test_a_difference_that_was_not_tested_is_neither_a_lead_nor_a_lag(folder: Path) -> None:
    row = "| Corpus Disease | ours, 0.00 | rival, 100.00 | -100.00 |"
    assert f"{row} – | – | not tested |" in build_report(folder)
    test = {"difference": -1.0, "interval": None, "p_value": None}
    pairs = [{"first": "ours", "second": "rival", "corpora": {"Corpus": {"Disease": test}}}]
    kept = {"file": "Pains.text.dev.spacy", "pairs": pairs}
    write_json(folder / "paired/Pains.text.dev.json", kept)
    report = build_report(folder)
    assert report.count(f"{row} – | – | not tested |") == 2
    assert "behind" not in report and "ahead" not in report


def test_what_training_data_holds_and_what_was_not_measured_have_a_table_each(folder: Path) -> None:
    names = {"mentions": 8, "mentions_seen": 2, "names": 3, "names_seen": 1}
    leak = {
        **{"documents": 3, "documents_with_pmid_seen": 1, "sentences": 9, "sentences_seen": 4},
        "types": {"Disease": names, "Chemical": {**names, "mentions": 0, "mentions_seen": 0}},
    }
    write_json(folder / "leakage/ours.json", {"Corpus": leak})
    missing = {
        **{"system": SystemSpec("gone", "flair", "x").to_dict(), "command": None, "seed": 0},
        **{"status": "missing", "reason": "no | weights"},
    }
    for view, named in (("text", False), ("tokens", True)):
        frame = {"file": f"Pains.{view}.dev.spacy", "view": view, "name_corpus": named}
        write_json(folder / f"results/gone/Pains.{view}.dev.json", {**missing, **frame})
    report = build_report(folder)
    assert "| ours | Corpus | 1 of 3 | 4 of 9 | 25.00 % of 8 |" in report
    assert "| gone | missing | all | no \\| weights |" in report
    assert "| gone | flair | – | – | – |" in report


@pytest.mark.parametrize(("split", "n_rows"), [("test", 1), ("dev", 0)])
def test_ours_stands_beside_published_figures_of_test_splits(
    split: str, n_rows: int, tmp_path: Path
) -> None:
    gold = gold_document("Mice and men.", [("Species", "Mice")], types=["Species"], corpus="CRAFT")
    for name, found in (("right", [("Species", "Mice")]), ("wrong", [("Species", "men")])):
        frame = {
            **{"system": SystemSpec(name, "vaner").to_dict(), "file": f"CRAFT.whole.{split}.spacy"},
            **{"view": "text", "name_corpus": False, "seed": 0, "command": None, "status": "ok"},
        }
        outcome = score([predicted_document(gold, found)], seed=0, n_resamples=9)
        write_json(tmp_path / "results" / name / "a.json", {**frame, **outcome})
    report = build_report(tmp_path)
    row = "| CRAFT Species | lenient | 100.00 (paper) | 86.36 | +13.64 | VANER, second row"
    assert report.count(row) == n_rows
    # HunFlair's figures allow a character, and so does ours beside them.
    assert report.count("| CRAFT Species | near | 100.00 (near) | – | – | HunFlair, ") == n_rows
