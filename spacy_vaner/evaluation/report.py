"""One page of Markdown and plots from the folder of a benchmark.

Everything on the page comes from the JSON files there and from published.json: the same files give
the same page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.evaluation.benchmark import read_folder, read_json
from spacy_vaner.evaluation.lines import (
    ALL,
    Key,
    Line,
    best,
    lines_of,
    of_most_types,
    questions,
)
from spacy_vaner.evaluation.plots import SPEED_PLOT, draw, f1_plot
from spacy_vaner.evaluation.published import beside_published, published_scales, published_section
from spacy_vaner.evaluation.scales import SCALES
from spacy_vaner.evaluation.speeds import speed_section
from spacy_vaner.evaluation.tables import UNDEFINED, cell, percent, signed, table
from spacy_vaner.evaluation.worker import OK
from spacy_vaner.files import write_whole

PAGE = "report.md"
_SEEN = "‡"
_FEWER = "*"
_SURE = 0.05

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
    results = sorted(read_folder(folder), key=_place)
    if not results:
        raise VanerError(Messages.VE474.format(folder=folder))
    lines = list(lines_of(results))
    parts = [
        _INTRODUCTION,
        _systems(results),
        *_overview(folder, lines),
        *_standing(lines, _Pairs(folder)),
        beside_published(lines),
        _across(lines),
        speed_section(folder),
        _plot(folder, SPEED_PLOT, "Words per second"),
        *_corpora(results, lines),
        _scales(lines),
        *_leakage(folder),
        _not_measured(results),
        _made_with(results),
    ]
    return "\n".join(part for part in parts if part)


def _place(result: Mapping[str, Any]) -> tuple[bool, str, str]:
    """Ours first, then by name and file."""
    system = result["system"]
    return system["kind"] != "vaner", system["name"].lower(), result["file"]


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
    return "## Systems\n\n" + table(header, rows.values())


def _overview(folder: Path, lines: Sequence[Line]) -> Iterator[str]:
    """Strict F1: a row per system, a column per corpus and type; a table per way of asking."""
    asked = questions(lines)
    yield "## Strict F1\n"
    for question in asked:
        own = [line for line in lines if line.question == question]
        columns = sorted({line.key for line in own})
        cells: dict[str, dict[Key, str]] = {}
        for column in columns:
            here = [line for line in own if line.key == column]
            full, highest = of_most_types(here), best(_fair(here))
            most = None if highest is None else highest.strict_f
            for line in here:
                marks = (_SEEN if line.is_seen else "") + ("" if line in full else _FEWER)
                figure = percent(line.strict_f) + marks
                is_best = bool(most) and line.strict_f == most and not marks
                cells.setdefault(line.system, {})[column] = f"**{figure}**" if is_best else figure
        header = ["system", *(f"{key.corpus} {key.type}" for key in columns)]
        names = dict.fromkeys(line.system for line in own)
        rows = [[name, *(cells[name].get(key, UNDEFINED) for key in columns)] for name in names]
        yield f"### {question.title}\n\n" + table(header, rows)
        yield _plot(folder, f1_plot(question, asked), "F1 per corpus and type")


def _fair(lines: Sequence[Line]) -> list[Line]:
    """The lines of a key that may be compared: over all its types, the test split not seen."""
    return [line for line in of_most_types(lines) if not line.is_seen]


class _Pairs:
    """The paired tests of a benchmark."""

    def __init__(self, folder: Path) -> None:
        self._found: dict[tuple[str, str, str, str, str], Mapping[str, Any]] = {}
        for path in sorted((folder / "paired").glob("*.json")):
            kept = read_json(path)
            for pair in kept["pairs"]:
                for corpus, types in pair["corpora"].items():
                    for type, difference in types.items():
                        key = (kept["file"], corpus, type, pair["first"], pair["second"])
                        self._found[key] = difference

    def of(self, first: Line, second: Line) -> Mapping[str, Any]:
        """`difference`, `interval`, `p_value`; empty if the two were not compared."""
        return self._found.get((*first.key, first.system, second.system), {})


def _standing(lines: Sequence[Line], pairs: _Pairs) -> Iterator[str]:
    """How far the best of ours is from the best other system that was measured here."""
    title = "## Where ours stands\n"
    for question in questions(lines):
        own = [line for line in lines if line.question == question]
        rows = []
        for key in sorted({line.key for line in own}):
            fair = _fair([line for line in own if line.key == key])
            ours = best(line for line in fair if line.is_ours)
            other = best(line for line in fair if not line.is_ours)
            if ours is not None and other is not None:
                rows.append(_standing_row(ours, other, pairs.of(ours, other)))
        if rows:
            if title:
                yield title
            header = ["corpus, type", "best of ours", "best other, measured here", "difference"]
            yield f"### {question.title}\n\n" + table([*header, "95 %", "p", ""], rows)
            title = ""


def _standing_row(ours: Line, other: Line, test: Mapping[str, Any]) -> list[str]:
    difference = (ours.strict_f or 0.0) - (other.strict_f or 0.0)
    interval, p_value = test.get("interval"), test.get("p_value")
    if p_value is None:
        verdict = "not tested"
    elif p_value >= _SURE:
        verdict = "not told apart"
    else:
        verdict = "ahead" if difference > 0 else "**behind**" if difference < 0 else "level"
    return [
        f"{ours.corpus} {ours.type}",
        f"{ours.system}, {percent(ours.strict_f)}",
        f"{other.system}, {percent(other.strict_f)}",
        signed(difference),
        UNDEFINED if interval is None else " to ".join(f"{100 * x:+.1f}" for x in interval),
        UNDEFINED if p_value is None else f"{p_value:.3f}",
        verdict,
    ]


def _corpora(results: Sequence[Mapping[str, Any]], lines: Sequence[Line]) -> Iterator[str]:
    """A section per corpus: its files as they were asked, then what others have published."""
    for corpus in sorted({line.corpus for line in lines}):
        yield f"## {corpus}\n"
        own = [line for line in lines if line.corpus == corpus]
        for question in questions(own):
            asked = [line for line in own if line.question == question]
            for file in sorted({line.key.file for line in asked}):
                yield f"### {question.short_title}: `{file}`\n"
                yield _measured([line for line in asked if line.key.file == file])
                yield from _unmapped(results, file)
        yield published_section(corpus)


def _unmapped(results: Sequence[Mapping[str, Any]], file: str) -> Iterator[str]:
    for result in results:
        if result["file"] == file and (labels := result.get("unmapped_labels")):
            told = ", ".join(f"{label} ({n})" for label, n in labels.items())
            name = result["system"]["name"]
            yield f"{name} also predicted labels that its label map leaves out: {told}.\n"


def _measured(lines: Sequence[Line]) -> str:
    others = [
        name for name in SCALES if name != "strict" and any(name in line.scales for line in lines)
    ]
    header = ["system", "type", "gold", "P", "R", "F1", "95 %", *(f"F1 {name}" for name in others)]
    rows = []
    for line in sorted(
        lines, key=lambda line: (line.type == ALL, line.type, -(line.strict_f or 0))
    ):
        strict = line.scales["strict"]
        interval = strict["f_interval"]
        rows.append(
            [
                line.system + (_SEEN if line.is_seen else ""),
                line.type,
                str(line.gold),
                *(percent(strict[key]) for key in ("p", "r", "f")),
                UNDEFINED if interval is None else "–".join(f"{100 * x:.1f}" for x in interval),
                *(percent(line.f(name)) for name in others),
            ]
        )
    return table(header, rows)


def _scales(lines: Sequence[Line]) -> str:
    """What the names of scales in the tables mean: ours, then those of published figures."""
    used = {name for line in lines for name in line.scales}
    ours = [f"- {name}: {scale.description}" for name, scale in SCALES.items() if name in used]
    published = published_scales(dict.fromkeys(line.corpus for line in lines))
    theirs = [f"- {name}: {what}" for name, what in published.items()]
    parts = ["## Scales\n\nOf what was measured here:\n", *ours]
    if theirs:
        parts += ["\nOf published figures:\n", *theirs]
    return "\n".join(parts) + "\n"


def _across(lines: Sequence[Line]) -> str:
    """Trained on one corpus, tested on all: a matrix per way of asking and type."""
    trained = [
        line for line in lines if len(line.result["system"]["trained_on"]) == 1 and line.type != ALL
    ]
    parts = []
    for question in questions(trained):
        asked = [line for line in trained if line.question == question]
        matrices = [
            _matrix(type, [line for line in asked if line.type == type])
            for type in sorted({line.type for line in asked})
        ]
        if any(matrices):
            parts.append(f"### {question.title}\n\n" + "\n".join(filter(None, matrices)))
    introduction = (
        "## Across corpora\n\nStrict F1 of systems that were trained on one corpus each; **bold**: "
        "on the corpus that the system was trained on.\n\n"
    )
    return introduction + "\n".join(parts) if parts else ""


def _matrix(type: str, lines: Sequence[Line]) -> str:
    """Empty for a type that one corpus alone has."""
    columns = sorted({line.corpus for line in lines})
    if len(columns) < 2:
        return ""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for line in lines:
        source = line.result["system"]["trained_on"][0]
        figure = percent(line.strict_f)
        own = rows.setdefault((line.system, source), {})
        own[line.corpus] = f"**{figure}**" if line.corpus == source else figure
    return table(
        [f"{type}: system", "trained on", *columns],
        [
            [name, source, *(cells.get(column, UNDEFINED) for column in columns)]
            for (name, source), cells in rows.items()
        ],
    )


def _leakage(folder: Path) -> Iterator[str]:
    """What `leakage` counted, a file of it per training set."""
    paths = sorted((folder / "leakage").glob("*.json"))
    rows = []
    for path in paths:
        for corpus, leak in read_json(path).items():
            names = leak["types"].values()
            mentions, seen = (
                sum(own[key] for own in names) for key in ("mentions", "mentions_seen")
            )
            rows.append(
                [
                    path.stem,
                    corpus,
                    f"{leak['documents_with_pmid_seen']} of {leak['documents']:,}",
                    f"{leak['sentences_seen']} of {leak['sentences']:,}",
                    f"{percent(seen / mentions if mentions else None)} % of {mentions:,}",
                ]
            )
    if rows:
        header = ["training data", "corpus", "documents, by PMID", "sentences of 8 words or more"]
        yield (
            "## What training data holds of these texts\n\nCounted by `python -m spacy vaner "
            "leakage`. A name that occurs in both is no leak; it says how much can be known by "
            "heart.\n\n" + table([*header, "mentions whose name is known"], rows)
        )


def _not_measured(results: Sequence[Mapping[str, Any]]) -> str:
    """Systems that are missing or failed, and why: a row per system and reason."""
    files_of: dict[tuple[str, str, str], list[str]] = {}
    for result in results:
        if result["status"] != OK:
            key = (result["system"]["name"], result["status"], cell(result["reason"]))
            files_of.setdefault(key, []).append(result["file"].removesuffix(".spacy"))
    n_files = len({result["file"] for result in results})
    rows = [
        [name, status, "all" if len(found) == n_files else ", ".join(found), reason]
        for (name, status, reason), found in files_of.items()
    ]
    if not rows:
        return ""
    return "## Not measured\n\n" + table(["system", "", "files", "reason"], rows)


def _made_with(results: Sequence[Mapping[str, Any]]) -> str:
    commands = dict.fromkeys(result["command"] for result in results if result["command"])
    told = "".join(f"\n```\n{command}\n```\n" for command in commands)
    versions: Mapping[str, str | None] = next(
        (result["versions"] for result in results if "versions" in result), {}
    )
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    seeds = sorted({str(result["seed"]) for result in results})
    return f"## Made with\n{told}\n{packages}; seed of the intervals: {', '.join(seeds)}.\n"


def _plot(folder: Path, name: str, text: str) -> str:
    return f"![{text}]({name})\n" if (folder / name).is_file() else ""
