"""The ablation of DBR rows: runs that go on one by one, and the table and plots of their files."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent.parent / "project/scripts"
SETTINGS = Path(__file__).parent.parent / "project/configs/ablation.json"
RESULTS = Path(__file__).parent.parent / "docs/results"
COMMITTED = [RESULTS / "ablation", RESULTS / "ablation-remedies"]


def script(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name=name))


def result(variant: str, seed: int, dev: dict[str, list[list[int]]], f: float = 0.5) -> Any:
    return {
        **{"format": 1, "set": "mixture", "variant": variant, "seed": seed, "n_steps": 20},
        **{"n_subwords": 1234, "minutes": 0.5, "best_step": 10, "test": None},
        "dev_curve": [{"step": 10, "f": f}, {"step": 20, "f": f + 0.1}],
        "dev": {name: {"f": None, "per_document": counts} for name, counts in dev.items()},
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two seeds of two variants on two corpora. F1: A 50, 60 against 50, 80; B 100 throughout."""
    folder = tmp_path / "results"
    folder.mkdir()
    sure = [[2, 0, 0], [1, 0, 0]]
    runs = [
        result("off", 0, {"A": [[1, 2, 0], [0, 0, 0]], "B": sure}),
        result("off", 1, {"A": [[3, 2, 2], [0, 0, 0]], "B": sure}),
        result("retrieved", 0, {"A": [[1, 1, 1], [0, 0, 0]], "B": sure}, 0.6),
        result("retrieved", 1, {"A": [[2, 1, 0], [0, 0, 0]], "B": sure}, 0.6),
    ]
    for run in runs:
        path = folder / f"{run['set']}.{run['variant']}.{run['seed']}.json"
        path.write_text(json.dumps(run), "utf8")
    bases = {"row_positives": 4.0, "row_negatives": 3.0, "words": 20.0, "covered": 0.5}
    facts = {"sentences": {"mentions": 1.5, "words": 24.0}, "bases": {"honest": bases}}
    (folder / "density.json").write_text(json.dumps({"corpora": {"A": facts}}), "utf8")
    return folder


def test_the_table_has_means_deviations_and_paired_differences(
    results: Path, tmp_path: Path
) -> None:
    assert script("ablation_report").main([str(results), str(tmp_path / "out/dbr")]) == 0
    page = (tmp_path / "out/dbr.md").read_text("utf8")
    # Of two documents that are drawn, the empty one changes no F1: the interval is a point, but
    # where both draws take it.
    # P and R of A: 33 and 100, 60 and 60; 50 and 50, 67 and 100.
    assert "| mixture | A | no rows | 2 | 46.7 | 80.0 | 55.00 ± 7.07 |  |" in page
    assert "| A | retrieved | 2 | 58.3 | 75.0 | 65.00 ± 21.21 | +10.00 (+0.00 to +10.00) |" in page
    assert "| B | retrieved | 2 | 100.0 | 100.0 | 100.00 ± 0.00 | +0.00 (+0.00 to +0.00)" in page
    assert "| mean | retrieved | 2 | 79.2 | 87.5 | 82.50 ± 10.61 | +5.00 (+0.00 to +5.00) |" in page
    assert "| mixture.off.0 | 20 | 10 | 1,234 | 0.5 |" in page
    assert "| A | 1.50 | honest | 4.0, 3.0 | 24.0, 20.0 | 50.0 % |" in page
    assert "test documents" not in page


def test_other_variants_and_other_comparisons_stand_in_the_table(
    results: Path, tmp_path: Path
) -> None:
    for variant, counts in (("random", [3, 1, 1]), ("weight 0.3", [1, 1, 1])):
        run = result(variant, 0, {"A": [counts, [0, 0, 0]]})
        (results / f"mixture.{variant}.0.json").write_text(json.dumps(run), "utf8")
    for path in results.glob("mixture.*.json"):
        run = json.loads(path.read_text("utf8"))
        path.write_text(json.dumps({**run, "dev": {"A": run["dev"]["A"]}}), "utf8")
    planned = "| run | steps |\n| --- | --- |\n| mixture.off.0 | 9 |\n| mixture.leaky.0 | 9 |\n"
    (results / "plan.md").write_text(planned, "utf8")
    script("ablation_report").main([str(results), str(tmp_path / "dbr")])
    page = (tmp_path / "dbr.md").read_text("utf8")
    assert "Planned and not run: mixture.leaky.0.\n" in page
    assert "| weight 0.3 | 1 | 50.0 | 50.0 | 50.00 | +0.00 (+0.00 to +0.00) |" in page
    # Seed 0 alone has both: 50 against 75.
    assert "| mixture | A | retrieved against random | -25.00 (-25.00 to +0.00) |" in page
    assert "leaky against" not in page


@pytest.mark.parametrize("folder", [folder for folder in COMMITTED if folder.is_dir()])
def test_the_committed_table_is_that_of_the_committed_results(folder: Path, tmp_path: Path) -> None:
    script("ablation_report").main([str(folder), str(tmp_path / "dbr")])
    committed = folder.with_suffix(".md").read_text("utf8")
    assert (tmp_path / "dbr.md").read_text("utf8") == committed


def test_an_interval_lies_around_its_difference(results: Path) -> None:
    report = script("ablation_report")
    many = [[1, 1, 1], [2, 0, 1], [0, 1, 1], [1, 0, 0]] * 20
    better = [[1, 0, 1], [2, 0, 1], [0, 1, 1], [1, 0, 0]] * 20
    runs = [result("off", 0, {"A": many}), result("random", 0, {"A": better})]
    cell = report.compare(runs, "mixture", "dev")["A", "random"]
    assert cell.low < cell.difference < cell.high and cell.low > 0
    # A seed without its pair gives no difference.
    alone = report.compare([runs[1]], "mixture", "dev")["A", "random"]
    assert alone.difference is None and len(alone.figures) == 1


def test_plots_are_drawn(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    script("ablation_report").main([str(results), str(tmp_path / "dbr")])
    for name in ("density", "words", "curves"):
        assert (tmp_path / f"dbr.{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_results_is_told(tmp_path: Path, capsys: Any) -> None:
    assert script("ablation_report").main([str(tmp_path), str(tmp_path / "x")]) == 1
    assert "no result" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_parts_of_the_runs_are_all_of_them() -> None:
    ablation = script("ablation")
    runs = [ablation.Run("single", variant, seed) for variant in "abc" for seed in (0, 1)]
    parts = [list(ablation.chosen(runs, None, f"{n}/4")) for n in (1, 2, 3, 4)]
    assert sorted(run for part in parts for run in part) == sorted(runs)
    assert list(ablation.chosen(runs, "single.b.1", "2/2")) == [runs[3]]


def test_a_result_of_other_settings_is_told_from_one_of_the_same() -> None:
    changes = script("ablation").changes
    settings = {"seed": 0, "n_threads": 1, "dbr": {"mode": "off", "share": 0.5}}
    assert changes(settings, {**settings, "n_threads": 2, "new": 1}) == ""
    assert changes(settings, {**settings, "seed": 1, "dbr": {"mode": "random"}}) == "dbr, seed"


def test_sets_and_variants_have_settings_of_their_own(tmp_path: Path) -> None:
    ablation = script("ablation")
    settings = {
        "sets": {
            "one": {"corpora": ["A"], "n_steps": 7},
            "two": {"corpora": ["A", "B"], "n_steps": 9, "tag": {"windows_per_step": 5}},
        },
        "variants": {
            "off": {},
            "leaky": {},
            "light": {"dbr": {"weight": 0.3}},
            "near": {"base": "close"},
        },
        "seeds": [3],
        "tag": {"windows_per_step": 4, "dbr": {"share": 0.5}, "start": {}},
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings), "utf8")
    paths = dict.fromkeys(("converted", "knowledge", "tokenizer"), tmp_path)
    options = SimpleNamespace(
        settings=tmp_path / "settings.json", output=tmp_path, view="text", **paths
    )
    options.backbone = options.vectors = None
    runs = ablation.Ablation(options)
    light = runs.config(ablation.Run("two", "light", 3))
    assert (light.windows_per_step, light.n_steps, light.seed) == (5, 9, 3)
    assert (light.dbr.mode, light.dbr.weight, light.dbr.share) == ("retrieved", 0.3, 0.5)
    assert runs.config(ablation.Run("one", "off", 3)).windows_per_step == 4
    variants = ("light", "leaky", "near")
    folders = [runs.rows(ablation.Run("one", variant, 3)).name for variant in variants]
    assert folders == ["one.honest", "one.leaky", "one.close"]
    assert str(tmp_path) in light.rows
    shown = ablation.shown(light)
    assert shown["rows"] == "two.honest" and shown["backbone"] is None
    assert len(runs.runs()) == 8


@pytest.mark.slow
def test_runs_are_trained_once_and_measured(tmp_path: Path, capsys: Any) -> None:
    """Two runs of a few steps on the sample corpus, with a real knowledge base."""
    from typer.testing import CliRunner

    from spacy_vaner.cli import vaner_app

    def vaner(*words: object) -> None:
        run = CliRunner().invoke(vaner_app, [str(word) for word in words])
        assert run.exit_code == 0, run.output

    sample = Path(__file__).parent.parent / "project/corpora/sample"
    for split in ("train", "dev", "test"):
        source = sample / f"sample.{split}.jsonl"
        vaner("convert", source, tmp_path / f"s.text.{split}.spacy", "--format", "jsonl")
    training = tmp_path / "s.text.train.spacy"
    vaner("tokenizer", training, tmp_path / "tok", "--vocab-size", 800)
    for base, more in (("honest", []), ("leaky", [f"leaky={tmp_path}"])):
        folder = tmp_path / "kb" / base
        vaner("kb", "build", folder / "kb.parquet", f"corpus={training}", *more)
        vaner("dbr", training, folder / "kb.parquet", folder / "s.text.train.candidates.parquet")
    settings = json.loads(SETTINGS.read_text("utf8"))
    settings["sets"] = {"single": {"corpora": ["s"], "n_steps": 4}}
    settings["seeds"] = [0]
    settings["tag"] |= {"dev_steps": 2, "windows_per_step": 4, "dev_documents": 3}
    settings["tag"]["start"] |= {"hidden_size": 32, "n_layers": 1, "n_heads": 2, "word_rows": 0}
    (tmp_path / "settings.json").write_text(json.dumps(settings), "utf8")
    main = script("ablation").main
    options = [str(tmp_path / "settings.json"), str(tmp_path / "out")]
    options += ["--converted", str(tmp_path), "--tokenizer", str(tmp_path / "tok")]
    options += ["--knowledge", str(tmp_path / "kb")]
    assert main(["prepare", *options]) == 0
    density = json.loads((tmp_path / "out/results/density.json").read_text("utf8"))
    of_bases = density["corpora"]["s"]["bases"]
    assert of_bases["leaky"]["covered"] == 1 > of_bases["honest"]["covered"]
    assert main(["plan", *options, "--trial-steps", "2"]) == 0
    assert "| single.leaky.0 | 4 |" in (tmp_path / "out/results/plan.md").read_text("utf8")
    runs = ["--runs", "single.off.0,single.leaky.0"]
    assert main(["run", *options, *runs]) == 0
    assert "single.leaky.0: dev s" in capsys.readouterr().out
    path = tmp_path / "out/results/single.leaky.0.json"
    found = json.loads(path.read_text("utf8"))
    assert [point["step"] for point in found["dev_curve"]] == [2, 4]
    assert found["settings"]["dbr"]["mode"] == "retrieved" and found["test"] is None
    n_documents = len((sample / "sample.dev.jsonl").read_text("utf8").splitlines())
    assert len(found["dev"]["s"]["per_document"]) == n_documents
    # Once more: nothing is trained; the test split is read when asked, and the reading noted.
    before = path.stat().st_mtime_ns
    assert main(["run", *options, *runs]) == 0 and path.stat().st_mtime_ns == before
    assert main(["run", *options, *runs, "--test"]) == 0
    assert json.loads(path.read_text("utf8"))["test"]["s"]["per_document"]
    notes = (tmp_path / "out/results/readings.md").read_text("utf8").splitlines()
    assert len(notes) == 2 and "single.off.0 | s test" in notes[0]
