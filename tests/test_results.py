"""No figure without a committed result behind it: the tables of docs/results.md."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
ROOT = DOCS.parent
RESULTS = sorted((DOCS / "results").glob("*.json"))


def rows(result: dict[str, Any]) -> list[str]:
    """A line of the table per corpus and type."""

    def line(name: str, type_name: str, score: dict[str, Any]) -> str:
        figures = " | ".join(f"{100 * score[key]:.2f}" for key in ("p", "r", "f"))
        low, high = (f"{100 * bound:.1f}" for bound in score["f_interval"])
        return f"| {name} | {type_name} | {score['gold']} | {figures} | {low}–{high} |"

    lines = []
    for name, corpus in result["corpora"].items():
        lines += [line(name, type_name, score) for type_name, score in corpus["types"].items()]
        if len(corpus["types"]) > 1:
            lines.append(line(name, "all", corpus["micro"]))
    return lines


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_page_has_the_figures_of_the_committed_result(path: Path) -> None:
    page = (DOCS / "results.md").read_text("utf8")
    result = json.loads(path.read_text("utf8"))
    assert f"results/{path.name}" in page
    for row in rows(result):
        assert row in page, row


def shipped_on_test(file: str) -> dict[str, Any]:
    path = DOCS / f"results/benchmark/results/vaner-small/{file}.json"
    corpora: dict[str, Any] = json.loads(path.read_text("utf8"))["corpora"]
    return corpora


@pytest.mark.parametrize(
    "corpus", ["BC5CDR", "NCBI-disease", "Linnaeus", "S800", "JNLPBA", "BC2GM", "CRAFT"]
)
def test_the_figures_of_the_shipped_tagger_are_those_of_the_report(corpus: str) -> None:
    page = (DOCS / "results.md").read_text("utf8")
    if corpus == "CRAFT":
        scales, named = shipped_on_test("CRAFT.whole.test")[corpus], None
    else:
        scales = shipped_on_test(f"{corpus}.text.test")[corpus]
        named = shipped_on_test(f"{corpus}.tokens.test")[corpus]["strict"]
    found = {**scales["strict"]["types"]}
    if len(found) > 1 and named is not None:
        found["all"] = scales["strict"]["micro"]
    for type_name, score in found.items():
        if score["f"] is None:  # a type that the tagger is not asked for
            continue
        name, other = corpus, "–"
        if named is None:
            name += f", ±1 character {100 * scales['near']['types'][type_name]['f']:.2f}"
        else:
            asked = named["micro"] if type_name == "all" else named["types"][type_name]
            other = f"{100 * asked['f']:.2f}"
        low, high = (f"{100 * bound:.1f}" for bound in score["f_interval"])
        p, r, f = (f"{100 * score[key]:.2f}" for key in ("p", "r", "f"))
        figures = f"{p} | {r} | **{f}** | {low}–{high} | {other} |"
        assert f"| {name} | {type_name} | {score['gold']} | {figures}" in page


def test_the_time_for_the_literature_is_that_of_the_measured_speed() -> None:
    pytest.importorskip("psutil")
    script, result = "project/scripts/measure_annotation.py", "docs/results/annotation/speed.json"
    command = [sys.executable, script, "--table", result]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    page = (DOCS / "pubmed.md").read_text("utf8")
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(lines) > 6 and all(line in page for line in lines)


def test_the_speeds_of_the_engines_are_those_that_were_measured() -> None:
    page = (DOCS / "results.md").read_text("utf8")
    shipped = (DOCS / "shipped.md").read_text("utf8")
    result = json.loads((DOCS / "results/speed/one-thread.json").read_text("utf8"))

    def medians(system: str) -> tuple[float, float]:
        rounds = result["systems"][system]
        batches, single = (
            statistics.median(one[key] for one in rounds)
            for key in ("words_per_s", "single_words_per_s")
        )
        return batches, single

    cnn = medians("spaCy CNN (untrained)")
    for system in ("torch fp32", "torch bf16", "onnx 8 bits"):
        batches, single = medians(system)
        shares = [f"{own / beside:.3f}" for own, beside in zip((batches, single), cnn, strict=True)]
        (line,) = [
            line.replace("*", "")
            for line in page.splitlines()
            if line.startswith("| `") and f"| {batches:,.0f} |" in line
        ]
        assert f"| {batches:,.0f} | {shares[0]} | {single:,.0f} | {shares[1]} |" in line
    figures = [result["strict_f1"][name] for name in ("torch fp32", "torch bf16", "onnx 8 bits")]
    assert "| " + " | ".join(f"{figure:.2f}" for figure in figures) + " |" in shipped


def test_the_learning_curve_of_a_new_type_is_the_one_that_was_measured() -> None:
    page = (DOCS / "new-type.md").read_text("utf8")
    result = json.loads((DOCS / "results/new-type/AnatEM.json").read_text("utf8"))
    for point in result["curve"]:
        p, r, f = (f"{100 * point[key]:.2f}" for key in ("p", "r", "f"))
        low, high = (f"{100 * bound:.1f}" for bound in point["f_interval"])
        row = f"| {point['sentences']} | {point['mentions']} | {point['processor_seconds']:.0f} "
        assert f"{row}| {p} | {r} | {f} | {low}–{high} |" in page
        assert point["old_types_unchanged"]


def micro_or_type(result: dict[str, Any], corpus: str, type_name: str) -> str:
    scores = result["corpora"][corpus]
    scores = scores.get("types", scores) if type_name != "all" else {"all": scores["micro"]}
    return f"{100 * scores[type_name]['f']:.2f}"


def read(file: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((DOCS / f"results/{file}.json").read_text("utf8"))
    return result


def test_what_the_shipped_tagger_is_set_beside_on_dev_was_measured() -> None:
    page = (DOCS / "results.md").read_text("utf8")
    files = [
        "tagger-3/dev.text.repeated",
        "tagger-3/dev.text.once",
        "tagger-2/text.dev",
        "tagger-3/dev.tokens.named",
        "tagger-3/dev.text.no-lexicon",
    ]
    beside = [read(file) for file in files]
    shipped = read("tagger-3.text.dev")
    for row in rows(shipped):
        corpus, type_name = (cell.strip() for cell in row.split("|")[1:3])
        figures = " | ".join(micro_or_type(result, corpus, type_name) for result in beside)
        assert f"{row} {figures} |" in page
    others = {name: read(f"tagger-5/dev.text.{name}") for name in ("third", "seed-0", "seed-1")}
    for name, result in {"second, ships": shipped, **others}.items():
        corpora = ("BC5CDR", "NCBI-disease", "Linnaeus", "JNLPBA", "S800", "BC2GM")
        cells = [f"{100 * result['corpora'][corpus]['micro']['f']:.2f}" for corpus in corpora]
        cells.append(f"{100 * result['overall']['f']:.2f}")
        assert f"| {name.replace('-', ' ')} | {' | '.join(cells)} |" in page
        settings = next(iter(result["component_settings"].values()))
        assert settings["threshold"] == read_thresholds()
    means = read("tagger-5/dev.mean-of-probabilities")["mean_f"]
    for name in ("second and seed 1", "second", "seed 1"):
        assert f"{means[name]:.2f}" in page


def test_whose_name_a_text_is_asked_with_was_measured() -> None:
    page = (DOCS / "results.md").read_text("utf8")
    for type_name, found in read("tagger-3/dev.guidelines")["f"].items():
        assert f"| {type_name} | {' | '.join(found)} |" in page
        for corpus in found["none"]:
            figures = " | ".join(f"{found[name][corpus]:.2f}" for name in found)
            assert f"| {corpus} | {figures} |" in page


def read_thresholds() -> dict[str, float]:
    """Those that ship."""
    folder = ROOT / "spacy_vaner/pretrained/vaner-small"
    thresholds: dict[str, float] = json.loads((folder / "tagger.json").read_bytes())["thresholds"]
    return thresholds


def test_what_spans_are_held_to_was_chosen_on_dev() -> None:
    page = " ".join((DOCS / "results.md").read_text("utf8").split())
    chosen = read("tagger-3/dev.choices")
    assert chosen["threshold"] == read_thresholds()
    means = {name: choice["mean_f"] for name, choice in chosen["choices"].items()}
    assert max(means.values()) - means["thresholds, names repeated, short forms"] < 0.05
    assert all(f"{mean:.2f}" in page for mean in means.values())
    # The choices are made of the same spans as the complete results.
    for name, file in (
        ("as found", "tagger-3/dev.text.once"),
        ("names repeated", "tagger-3/dev.text.repeated"),
        ("thresholds, names repeated, short forms", "tagger-3.text.dev"),
    ):
        for line, figure in chosen["choices"][name]["f"].items():
            assert float(micro_or_type(read(file), *line.split())) == pytest.approx(
                figure, abs=0.006
            )


def test_the_figures_of_the_shipped_tagger_with_its_settings_before_were_measured() -> None:
    page = (DOCS / "results.md").read_text("utf8")
    told = ["BC5CDR all", "NCBI-disease Disease", "Linnaeus Species", "S800 Species", "JNLPBA Gene"]
    told += ["BC2GM Gene", "CRAFT Species", "CRAFT Gene", "CRAFT Chemical"]
    for name, file in (("as found", "test.text.once"), ("repeated", "test.text.repeated")):
        corpora = read(f"tagger-3/{file}")["corpora"]
        figures = [f"{100 * corpora[c][t]['f']:.2f}" for c, t in (one.split() for one in told)]
        assert f"| {name} | {' | '.join(figures)} |" in page


def test_the_tables_of_rows_of_names_are_those_of_the_runs() -> None:
    page = (DOCS / "results.md").read_text("utf8")
    start = page.index("## What rows of names are worth")
    section = page[start : page.index("\n## ", start)]
    made = "".join(
        (DOCS / f"results/{name}.md").read_text("utf8")
        for name in ("ablation", "ablation-remedies")
    )
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [cell.strip() for line in lines for cell in line.strip("|").split("|")]
    told = [cell for cell in cells if "±" in cell or (" to " in cell and cell[0] in "+-")]
    assert len(told) > 60
    assert [cell for cell in told if cell not in made] == []


def test_the_table_of_pretraining_and_tuning_is_that_of_the_runs() -> None:
    """Causal and not: mean and deviation over the seeds, as the command makes them."""
    page = (DOCS / "results.md").read_text("utf8")
    folder = DOCS / "results/two-by-two"
    found: dict[tuple[str, str], list[float]] = {}
    for path in sorted((folder / "results").glob("*.json")):
        run = json.loads(path.read_text("utf8"))
        if run["kind"] == "tuned":
            found.setdefault((run["system"], run["tuning"]), []).append(100 * run["dev_f"])
    assert len(found) == 6
    table = (folder / "table.md").read_text("utf8")
    for (system, tuning), figures in found.items():
        (line,) = [one for one in table.splitlines() if one.startswith(f"| {system} | {tuning} |")]
        mean, deviation = statistics.mean(figures), statistics.stdev(figures)
        assert f"{mean:.1f} ± {deviation:.1f} ({len(figures)} seeds)" in line
        assert line in page
