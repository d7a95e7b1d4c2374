"""The table and the plots of an ablation, from its result files alone (ablation.py).

    python project/scripts/ablation_report.py docs/results/ablation docs/results/ablation

writes ablation.md and, where matplotlib is installed, ablation.density.png, ablation.words.png and
ablation.curves.png.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from spacy_vaner.files import write_whole

BASELINE = "off"
VARIANTS = {
    "off": "no rows",
    "retrieved": "retrieved",
    "random": "random",
    "leaky": "leaky: must not be done",
}
PAIRS = (("retrieved", "random"), ("leaky", "retrieved"))
"""What is compared beside each variant with the baseline."""
N_DRAWS = 2000
_PLANNED = re.compile(r"^\| ([^ |]+\.[^ |]+\.\d+) \|", re.MULTILINE)

Result = dict[str, Any]


class Cell(NamedTuple):
    """A variant on a corpus.

    figures: F1 per seed, in percent. p, r: means over the seeds.
    difference: mean over the seeds that the baseline has too.
    low, high: 95 % bootstrap interval of it, documents drawn anew for both at once.
    """

    figures: list[float]
    p: float
    r: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def read_results(folder: Path) -> list[Result]:
    """Every result of a run in a folder."""
    found = [json.loads(path.read_text("utf8")) for path in sorted(folder.glob("*.json"))]
    return [result for result in found if "variant" in result]


def f1(counts: NDArray[Any]) -> NDArray[Any]:
    """counts: (…, 3), tp, fp, fn. RETURNS: (…), percent; 0 where there is nothing."""
    tp, fp, fn = numpy.moveaxis(counts, -1, 0)
    either = 2 * tp + fp + fn
    return 100 * 2 * tp / numpy.maximum(either, 1)


def shares(counts: NDArray[Any]) -> NDArray[Any]:
    """counts: (documents, 3), tp, fp, fn. RETURNS: (2,), precision and recall, percent."""
    tp, fp, fn = counts.sum(0).tolist()
    return 100 * numpy.array([tp / max(1, tp + fp), tp / max(1, tp + fn)])


def compare(
    results: Sequence[Result], set_: str, split: str, *, baseline: str = BASELINE, seed: int = 0
) -> dict[Any, Cell]:
    """Cells by (corpus, variant); where there are several corpora, also their mean.

    A difference is taken between runs of the same seed. Its interval draws documents of each
    corpus, the same ones for every run, and keeps the runs: what other seeds would do shows in the
    standard deviation.
    """
    own = {
        (result["variant"], result["seed"]): result[split]
        for result in results
        if result["set"] == set_ and result.get(split)
    }
    if not own:
        return {}
    corpora = list(next(iter(own.values())))
    draw = numpy.random.default_rng(seed)
    figures: dict[str, dict[Any, float]] = {}
    drawn: dict[str, dict[Any, NDArray[Any]]] = {}
    pr: dict[str, dict[Any, NDArray[Any]]] = {}
    for corpus in corpora:
        counts = {run: numpy.array(scores[corpus]["per_document"]) for run, scores in own.items()}
        n_documents = len(next(iter(counts.values())))
        times = draw.multinomial(n_documents, [1 / n_documents] * n_documents, size=N_DRAWS)
        figures[corpus] = {run: float(f1(array.sum(0))) for run, array in counts.items()}
        drawn[corpus] = {run: f1(times @ array) for run, array in counts.items()}
        pr[corpus] = {run: shares(array) for run, array in counts.items()}
    if len(corpora) > 1:
        pr["mean"] = {run: sum(pr[c][run] for c in corpora) / len(corpora) for run in own}
        figures["mean"] = {run: statistics.fmean(figures[c][run] for c in corpora) for run in own}
        drawn["mean"] = {run: sum(drawn[c][run] for c in corpora) / len(corpora) for run in own}
    cells = {}
    for name, of_runs in figures.items():
        for variant in variants_of(results):
            seeds = sorted(seed for own_variant, seed in own if own_variant == variant)
            if not seeds:
                continue
            p, r = sum(pr[name][variant, seed] for seed in seeds) / len(seeds)
            cell = Cell([of_runs[variant, seed] for seed in seeds], p, r)
            paired = [seed for seed in seeds if (baseline, seed) in own]
            if variant != baseline and paired:
                differences = sum(
                    drawn[name][variant, seed] - drawn[name][baseline, seed] for seed in paired
                ) / len(paired)
                low, high = numpy.quantile(differences, [0.025, 0.975])
                mean = statistics.fmean(
                    of_runs[variant, seed] - of_runs[baseline, seed] for seed in paired
                )
                cell = cell._replace(difference=mean, low=float(low), high=float(high))
            cells[name, variant] = cell
    return cells


def variants_of(results: Sequence[Result]) -> list[str]:
    """Those that were run: the four of the comparison first, then others as they come."""
    found = dict.fromkeys(result["variant"] for result in results)
    return [*(name for name in VARIANTS if name in found), *(n for n in found if n not in VARIANTS)]


def table(results: Sequence[Result]) -> str:
    """Markdown: a table per split that was measured, and one of further comparisons."""
    lines = []
    sets = list(dict.fromkeys(result["set"] for result in results))
    for split in ("dev", "test"):
        rows = [
            f"| {set_} | {corpus} | {VARIANTS.get(variant, variant)} | {len(cell.figures)} | "
            f"{cell.p:.1f} | {cell.r:.1f} | {spread(cell.figures)} | {difference(cell)} |"
            for set_ in sets
            for (corpus, variant), cell in compare(results, set_, split).items()
        ]
        if rows:
            lines += [
                f"Strict F1 on complete {split} documents, raw text, no corpus named:",
                "",
                "| trained on | corpus | rows | runs | P | R | F1, mean ± sd "
                "| against no rows (95 %) |",
                "| --- | --- | --- | --- | --- | --- | --- | --- |",
                *rows,
                "",
            ]
        pairs = [
            f"| {set_} | {corpus} | {one} against {other} | {difference(cell)} |"
            for set_ in sets
            for one, other in PAIRS
            for (corpus, variant), cell in compare(results, set_, split, baseline=other).items()
            if variant == one and cell.difference is not None
        ]
        if pairs:
            lines += [
                "| trained on | corpus | rows | difference of F1 (95 %) |",
                "| --- | --- | --- | --- |",
                *pairs,
                "",
            ]
    return "\n".join(lines)


def spread(figures: Sequence[float]) -> str:
    mean = f"{statistics.fmean(figures):.2f}"
    return f"{mean} ± {statistics.stdev(figures):.2f}" if len(figures) > 1 else mean


def difference(cell: Cell) -> str:
    if cell.difference is None:
        return ""
    return f"{cell.difference:+.2f} ({cell.low:+.2f} to {cell.high:+.2f})"


def runs_table(results: Sequence[Result]) -> str:
    """Markdown: what every run read and took."""
    lines = ["| run | steps | best step | subwords | minutes |", "| --- | --- | --- | --- | --- |"]
    for result in results:
        name = f"{result['set']}.{result['variant']}.{result['seed']}"
        lines.append(
            f"| {name} | {result['n_steps']} | {result['best_step']} | {result['n_subwords']:,} | "
            f"{result['minutes']} |"
        )
    return "\n".join(lines) + "\n"


def missing(results: Sequence[Result], plan: str) -> str:
    """What stands in the table of planned runs and has no result, in words; "" = nothing."""
    done = {f"{result['set']}.{result['variant']}.{result['seed']}" for result in results}
    names = [name for name in _PLANNED.findall(plan) if name not in done]
    return f"Planned and not run: {', '.join(names)}.\n" if names else ""


def density_table(density: Mapping[str, Any]) -> str:
    """Markdown: names per sentence, and how many dev mentions the knowledge bases hold."""
    lines = [
        "| corpus | mentions per sentence | base | positives, negatives per row | "
        "words per sentence, row | dev mentions in the base |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for corpus, facts in density["corpora"].items():
        for base, of_base in facts["bases"].items():
            sentences = facts["sentences"]
            lines.append(
                f"| {corpus} | {sentences['mentions']:.2f} | {base} | "
                f"{of_base['row_positives']:.1f}, {of_base['row_negatives']:.1f} | "
                f"{sentences['words']:.1f}, {of_base['words']:.1f} | "
                f"{100 * of_base['covered']:.1f} % |"
            )
    return "\n".join(lines) + "\n"


def plot(results: Sequence[Result], density: Mapping[str, Any] | None, output: Path) -> list[Path]:
    """Draw what the paper draws. SOURCE: VANER, figures 3 (density), 4 (length), 5 (curves)."""
    from matplotlib.figure import Figure

    made = []
    if density is not None:
        corpora = list(density["corpora"])
        places = numpy.arange(len(corpora))
        bars = {
            "density": ("entities per input", ("row_positives", "row_negatives"), "mentions"),
            "words": ("words per input", ("words",), "words"),
        }
        for name, (label, of_rows, of_sentences) in bars.items():
            figure = Figure(figsize=(6, 3.5), layout="constrained")
            axes = figure.subplots()
            facts = [density["corpora"][corpus] for corpus in corpora]
            axes.bar(
                places - 0.2, [own["sentences"][of_sentences] for own in facts], 0.4, label="text"
            )
            below = numpy.zeros(len(corpora))
            for key in of_rows:
                heights = numpy.array([own["bases"]["honest"][key] for own in facts])
                names = {"row_positives": "row, positives", "row_negatives": "row, negatives"}
                axes.bar(places + 0.2, heights, 0.4, bottom=below, label=names.get(key, "row"))
                below += heights
            axes.set_xticks(places, corpora)
            axes.set_ylabel(label)
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
            made.append(output.with_name(f"{output.name}.{name}.png"))
            figure.savefig(made[-1], dpi=120)
    sets = list(dict.fromkeys(result["set"] for result in results))
    figure = Figure(figsize=(5 * len(sets), 3.5), layout="constrained")
    for axes, set_ in zip(numpy.atleast_1d(figure.subplots(1, len(sets))), sets, strict=True):
        for variant in variants_of(results):
            curves = [
                result["dev_curve"]
                for result in results
                if (result["set"], result["variant"]) == (set_, variant)
            ]
            if curves:
                steps = [point["step"] for point in min(curves, key=len)]
                means = [
                    100 * statistics.fmean(curve[index]["f"] for curve in curves)
                    for index in range(len(steps))
                ]
                axes.plot(steps, means, "o-", markersize=3, label=VARIANTS.get(variant, variant))
        axes.set_title(f"{set_}, dev")
        axes.set_xlabel("steps")
        axes.set_ylabel("F1 over all mentions")
        axes.grid(alpha=0.3)
        axes.legend()
    made.append(output.with_name(f"{output.name}.curves.png"))
    figure.savefig(made[-1], dpi=120)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="folder of the result files")
    parser.add_argument("output", type=Path, help="what the files are called, without suffix")
    options = parser.parse_args(arguments)
    results = read_results(options.results)
    if not results:
        print(f"There is no result of a run in {options.results}.", file=sys.stderr)
        return 1
    facts = options.results / "density.json"
    density = json.loads(facts.read_text("utf8")) if facts.is_file() else None
    parts = [table(results), runs_table(results)]
    plan = options.results / "plan.md"
    if plan.is_file() and (left := missing(results, plan.read_text("utf8"))):
        parts.append(left)
    if density is not None:
        parts.append(density_table(density))
    output: Path = options.output
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output.with_name(f"{output.name}.md"), "\n".join(parts).encode("utf8"))
    try:
        plot(results, density, output)
    except ImportError as error:
        print(f"No plots: {error}. Install it: pip install matplotlib", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
