"""One page of Markdown and two plots from the folder of a benchmark.

Everything on the page comes from the JSON files there and from published.json: the same files give
the same page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.evaluation.benchmark import read_folder, read_json
from spacy_vaner.evaluation.scales import SCALES
from spacy_vaner.evaluation.worker import OK
from spacy_vaner.files import write_whole

UNDEFINED = "–"
PAGE, F1_PLOT, SPEED_PLOT = "report.md", "f1.png", "speed.png"
_SEEN = "‡"
_FEWER = "*"
_ALL = "all"

_INTRODUCTION = f"""\
# Benchmark

Strict figures: a prediction counts if its character offsets and its type are exactly those of a
gold mention, over complete documents and the types that a corpus annotates; F1 in percent with the
95 % bootstrap interval over documents. {UNDEFINED} is a figure that is undefined or was not
measured. {_SEEN}: the system saw this test split in training. {_FEWER}: it does not know all types
of the corpus, so that its figure over "all" is not comparable with those of the others.

This page is made from the JSON files beside it by `python -m spacy vaner benchmark`; what is
written here by hand is lost.
"""


@dataclass(frozen=True)
class _Line:
    """What a system reached on a corpus, over all its types (`type` is "all") or on one."""

    result: Mapping[str, Any]
    corpus: str
    type: str
    scales: Mapping[str, Mapping[str, Any]]

    @property
    def system(self) -> str:
        return str(self.result["system"]["name"])

    @property
    def is_ours(self) -> bool:
        return bool(self.result["system"]["kind"] == "vaner")

    @property
    def is_seen(self) -> bool:
        return self.corpus in self.result["system"]["seen"]

    @property
    def gold(self) -> int:
        return int(self.scales["strict"]["gold"])

    @property
    def strict_f(self) -> float | None:
        return self.f("strict")

    def f(self, scale: str) -> float | None:
        score = self.scales.get(scale)
        return None if score is None else score["f"]


def write_report(folder: Path, *, plots: bool = True) -> Path:
    """Write the page and, with matplotlib, the plots. RETURNS: the page.

    RAISES VanerError: VE474, no result.
    """
    if plots:
        draw(folder)
    path = folder / PAGE
    write_whole(path, build_report(folder).encode("utf8"))
    return path


def build_report(folder: Path) -> str:
    """The page; links the plots that lie in the folder. RAISES VanerError: VE474, no result."""
    results = list(read_folder(folder))
    if not results:
        raise VanerError(Messages.VE474.format(folder=folder))
    lines = list(_lines(results))
    parts = [
        _INTRODUCTION,
        _systems(results),
        _overview(lines),
        _plot(folder, F1_PLOT, "F1 per corpus and type"),
        _standing(lines),
        *_corpora(results, lines),
        _across(lines),
        _speed(folder),
        _plot(folder, SPEED_PLOT, "Words per second"),
        _made_with(results),
    ]
    return "\n".join(part for part in parts if part)


def _lines(results: Iterable[Mapping[str, Any]]) -> Iterator[_Line]:
    for result in results:
        for corpus, scales in result.get("corpora", {}).items():
            types = list(scales["strict"].get("types", {}))
            for type in types:
                own = {name: s["types"][type] for name, s in scales.items() if "types" in s}
                yield _Line(result, corpus, type, own)
            if len(types) > 1:
                micro = {name: score["micro"] for name, score in scales.items()}
                yield _Line(result, corpus, _ALL, micro)


def _systems(results: Sequence[Mapping[str, Any]]) -> str:
    rows = {}
    for result in results:
        system = result["system"]
        facts = result.get("facts", {})
        seed = facts.get("training_seed")
        rows[system["name"]] = [
            system["name"],
            system["kind"],
            ", ".join(system["trained_on"]) or UNDEFINED,
            UNDEFINED if seed is None else str(seed),
            system["note"] or UNDEFINED,
        ]
    header = ["system", "kind", "trained on", "seed", "note"]
    return "## Systems\n\n" + _table(header, rows.values())


def _of_most_types(lines: Sequence[_Line]) -> list[_Line]:
    """Of the lines of a corpus and type those over as many gold mentions as any has."""
    most = max((line.gold for line in lines), default=0)
    return [line for line in lines if line.gold == most]


def _overview(lines: Sequence[_Line]) -> str:
    """Strict F1: a row per system, a column per corpus and type."""
    columns = list(dict.fromkeys((_file(line), line.corpus, line.type) for line in lines))
    cells: dict[str, dict[tuple[str, str, str], str]] = {}
    for column in columns:
        here = [line for line in lines if (_file(line), line.corpus, line.type) == column]
        full = _of_most_types(here)
        for line in here:
            marks = (_SEEN if line.is_seen else "") + ("" if line in full else _FEWER)
            cells.setdefault(line.system, {})[column] = _percent(line.strict_f) + marks
    header = ["system", *(f"{corpus} {type}" for _, corpus, type in columns)]
    rows = [[name, *(own.get(c, UNDEFINED) for c in columns)] for name, own in cells.items()]
    return "## Strict F1\n\n" + _table(header, rows)


def _standing(lines: Sequence[_Line]) -> str:
    """How far the best of ours is from the best other system that was measured here."""
    rows = []
    for key in dict.fromkeys((_file(line), line.corpus, line.type) for line in lines):
        here = [line for line in lines if (_file(line), line.corpus, line.type) == key]
        comparable = _of_most_types(here)
        fair = [line for line in comparable if not line.is_seen and line.strict_f is not None]
        ours = max((x for x in fair if x.is_ours), key=_f, default=None)
        other = max((x for x in fair if not x.is_ours), key=_f, default=None)
        if ours is None or other is None:
            continue
        difference = 100 * (_f(ours) - _f(other))
        verdict = "ahead" if difference > 0 else "**behind**" if difference < 0 else "level"
        rows.append(
            [
                f"{ours.corpus} {ours.type}",
                f"{ours.system}, {_percent(ours.strict_f)}",
                f"{other.system}, {_percent(other.strict_f)}",
                f"{difference:+.2f}",
                verdict,
            ]
        )
    if not rows:
        return ""
    header = ["corpus, type", "best of ours", "best other, measured here", "difference", ""]
    return "## Where ours stands\n\n" + _table(header, rows)


def _corpora(results: Sequence[Mapping[str, Any]], lines: Sequence[_Line]) -> Iterator[str]:
    for file in dict.fromkeys(result["file"] for result in results):
        of_file = [result for result in results if result["file"] == file]
        here = [line for line in lines if line.result["file"] == file]
        names = dict.fromkeys(line.corpus for line in here)
        first = of_file[0]
        named = "named" if first["name_corpus"] else "not named"
        yield (
            f"## {', '.join(names) or file}\n\nFile `{file}`, view {first['view']}, corpus {named} "
            "in instructions.\n"
        )
        if here:
            yield _measured(here)
        failed = [result for result in of_file if result["status"] != OK]
        if failed:
            rows = [[r["system"]["name"], r["status"], _cell(r["reason"])] for r in failed]
            yield _table(["not measured", "", "reason"], rows)
        unmapped = {
            result["system"]["name"]: result["unmapped_labels"]
            for result in of_file
            if result.get("unmapped_labels")
        }
        for name, labels in unmapped.items():
            told = ", ".join(f"{label} ({n})" for label, n in labels.items())
            yield f"{name} also predicted labels that its label map leaves out: {told}.\n"
        for name in names:
            yield _published(name)


def _measured(lines: Sequence[_Line]) -> str:
    others = [
        name for name in SCALES if name != "strict" and any(name in line.scales for line in lines)
    ]
    header = ["system", "type", "gold", "P", "R", "F1", "95 %", *(f"F1 {name}" for name in others)]
    rows = []
    for line in sorted(lines, key=lambda line: (line.corpus, line.type, -(line.strict_f or 0))):
        strict = line.scales["strict"]
        interval = strict["f_interval"]
        rows.append(
            [
                line.system + (_SEEN if line.is_seen else ""),
                line.type,
                str(line.gold),
                *(_percent(strict[key]) for key in ("p", "r", "f")),
                UNDEFINED if interval is None else "–".join(f"{100 * x:.1f}" for x in interval),
                *(_percent(line.f(name)) for name in others),
            ]
        )
    told = "; ".join(f"{name}: {SCALES[name].description}" for name in others)
    return _table(header, rows) + (f"\nOther scales: {told}.\n" if told else "")


def _published(corpus: str) -> str:
    data = json.loads((files("spacy_vaner.evaluation") / "published.json").read_text("utf8"))
    rows = []
    for table in data["tables"]:
        for figure in table["figures"]:
            if figure["corpus"] == corpus:
                notes = [table.get("note"), figure.get("note")]
                rows.append(
                    [
                        figure["system"],
                        figure["type"],
                        *(_plain(figure.get(key)) for key in ("p", "r", "f")),
                        table["scale"],
                        "; ".join([table["source"], *filter(None, notes)]),
                    ]
                )
    if not rows:
        return ""
    header = ["published, not measured here", "type", "P", "R", "F1", "scale", "source"]
    used = {row[5] for row in rows}
    told = "; ".join(f"{name}: {what}" for name, what in data["scales"].items() if name in used)
    return _table(header, rows) + f"\nScales of the published figures: {told}.\n"


def _across(lines: Sequence[_Line]) -> str:
    """Trained on one corpus, tested on all: a matrix per type."""
    parts = []
    trained = [
        line
        for line in lines
        if len(line.result["system"]["trained_on"]) == 1 and line.type != _ALL
    ]
    for type in sorted({line.type for line in trained}):
        own = [line for line in trained if line.type == type]
        columns = list(dict.fromkeys(line.corpus for line in own))
        if len(columns) < 2:
            continue
        table: dict[tuple[str, str], dict[str, str]] = {}
        for line in own:
            source = line.result["system"]["trained_on"][0]
            table.setdefault((line.system, source), {})[line.corpus] = _percent(line.strict_f)
        rows = [
            [name, source, *(cells.get(column, UNDEFINED) for column in columns)]
            for (name, source), cells in table.items()
        ]
        parts.append(_table([f"{type}: system", "trained on", *columns], rows))
    return "## Across corpora\n\nStrict F1.\n\n" + "\n".join(parts) if parts else ""


@dataclass(frozen=True)
class Speed:
    """Medians over the rounds of a system. ratio: of words/s to the baseline's, round by round."""

    name: str
    ratio: float | None
    figures: Mapping[str, float | None]
    reason: str | None
    facts: Mapping[str, Any]


_SPEED_KEYS = (
    "words_per_s",
    "documents_per_s",
    "single_words_per_s",
    "single_documents_per_s",
    "start_up_s",
    "peak_memory_bytes",
    "size_bytes",
)


def read_speeds(folder: Path) -> list[Speed]:
    """The speeds of a benchmark, fastest first, those that could not be measured last."""
    found = [read_json(path) for path in sorted((folder / "speed").glob("*.json"))]
    found = [one for one in found if one.get("rounds")]
    baseline: list[dict[str, Any]] = next(
        (one["rounds"] for one in found if one["system"]["kind"] == "cnn"), []
    )
    speeds = []
    for one in found:
        good = [each for each in one["rounds"] if each["status"] == OK]
        ratios = [
            own["words_per_s"] / base["words_per_s"]
            for own, base in zip(one["rounds"], baseline, strict=False)
            if own["status"] == base["status"] == OK
        ]
        speeds.append(
            Speed(
                one["system"]["name"],
                median(ratios) if ratios else None,
                {key: _median(each[key] for each in good) for key in _SPEED_KEYS},
                None if good else one["rounds"][-1]["reason"],
                {**(good[0] if good else {}), "rounds": len(good)},
            )
        )
    return sorted(speeds, key=lambda speed: -(speed.figures["words_per_s"] or 0))


def _speed(folder: Path) -> str:
    speeds = read_speeds(folder)
    if not speeds:
        return ""
    rows = []
    for speed in speeds:
        f = speed.figures
        if speed.reason is not None:
            rows.append([speed.name, *[UNDEFINED] * 7, _cell(speed.reason)])
            continue
        rows.append(
            [
                speed.name,
                _rounded(f["words_per_s"]),
                UNDEFINED if speed.ratio is None else f"{speed.ratio:.3f}",
                _rounded(f["documents_per_s"], 1),
                _rounded(f["single_documents_per_s"], 1),
                _rounded(f["start_up_s"], 1),
                _megabytes(f["peak_memory_bytes"]),
                _megabytes(f["size_bytes"]),
                "",
            ]
        )
    header = ["system", "words/s", "× spaCy's CNN", "documents/s", "documents/s, one by one"]
    header += ["start-up, s", "peak memory, MB", "on disk, MB", ""]
    facts = next((speed.facts for speed in speeds if speed.reason is None), None)
    told = ""
    if facts is not None:
        told = (
            f"Each system in a process of its own with {facts['threads']} thread(s), after a "
            f"warm-up; {facts['documents']} documents ({facts['words']:,} words); medians of "
            f"{facts['rounds']} round(s) in which the systems take turns; "
            f"{facts['versions']['machine']}. A vaner_ner that asks per type reads the text once "
            "for each of its types.\n\n"
        )
    return "## Speed and memory\n\n" + told + _table(header, rows)


def _made_with(results: Sequence[Mapping[str, Any]]) -> str:
    commands = dict.fromkeys(result["command"] for result in results if result["command"])
    told = "".join(f"\n```\n{command}\n```\n" for command in commands)
    versions: Mapping[str, str | None] = next(
        (result["versions"] for result in results if "versions" in result), {}
    )
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    seeds = sorted({str(result["seed"]) for result in results})
    return f"## Made with\n{told}\n{packages}; seed of the intervals: {', '.join(seeds)}.\n"


def draw(folder: Path) -> None:
    """Draw F1 and speed as PNG. RAISES VanerError: VE462, matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        install = "spacy_vaner[benchmark]"
        message = Messages.VE462.format(package="matplotlib", install=install, reason=error)
        raise VanerError(message) from error

    def save(figure: Figure, name: str) -> None:
        FigureCanvasAgg(figure)
        # Without the date and version of the drawing library, the same figures give the same file.
        figure.savefig(folder / name, dpi=100, metadata={"Software": None})

    lines = [line for line in _lines(read_folder(folder)) if line.strict_f is not None]
    panels = list(dict.fromkeys((_file(line), line.corpus, line.type) for line in lines))
    if panels:
        n_rows = math.ceil(len(panels) / 3)
        figure = Figure(figsize=(12, 1 + 2.4 * n_rows), layout="constrained")
        for number, panel in enumerate(panels, start=1):
            own = [line for line in lines if (_file(line), line.corpus, line.type) == panel]
            own.sort(key=_f)
            axes = figure.add_subplot(n_rows, 3, number)
            axes.set_title(f"{panel[1]} {panel[2]}", fontsize=9)
            axes.barh(
                [line.system for line in own],
                [100 * _f(line) for line in own],
                xerr=_errors(own),
                color=["tab:blue" if line.is_ours else "tab:gray" for line in own],
            )
            axes.set_xlim(0, 100)
            axes.tick_params(labelsize=7)
        save(figure, F1_PLOT)
    speeds = [speed for speed in reversed(read_speeds(folder)) if speed.reason is None]
    if speeds:
        figure = Figure(figsize=(8, 1 + 0.35 * len(speeds)), layout="constrained")
        axes = figure.add_subplot()
        values = [speed.figures["words_per_s"] or 0.0 for speed in speeds]
        axes.barh([speed.name for speed in speeds], values, color="tab:gray")
        axes.set_xscale("log")
        axes.set_xlabel("words/s")
        axes.tick_params(labelsize=7)
        save(figure, SPEED_PLOT)


def _errors(lines: Sequence[_Line]) -> list[list[float]]:
    """Distances from F1 down and up to the bounds of its interval."""
    bounds = [line.scales["strict"]["f_interval"] or (_f(line), _f(line)) for line in lines]
    down = [max(0.0, 100 * (_f(line) - low)) for line, (low, _) in zip(lines, bounds, strict=True)]
    up = [max(0.0, 100 * (high - _f(line))) for line, (_, high) in zip(lines, bounds, strict=True)]
    return [down, up]


def _plot(folder: Path, name: str, text: str) -> str:
    return f"![{text}]({name})\n" if (folder / name).is_file() else ""


def _f(line: _Line) -> float:
    return line.strict_f or 0.0


def _file(line: _Line) -> str:
    return str(line.result["file"])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _percent(figure: float | None) -> str:
    return UNDEFINED if figure is None else f"{100 * figure:.2f}"


def _plain(figure: float | None) -> str:
    return UNDEFINED if figure is None else f"{figure:.2f}"


def _rounded(figure: float | None, digits: int = 0) -> str:
    return UNDEFINED if figure is None else f"{figure:,.{digits}f}"


def _megabytes(n_bytes: float | None) -> str:
    return UNDEFINED if n_bytes is None else f"{n_bytes / 1e6:,.1f}"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
