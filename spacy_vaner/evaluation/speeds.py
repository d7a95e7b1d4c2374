"""Speed, memory and size of the systems of a benchmark: medians, ratios, the section about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from spacy_vaner.evaluation.benchmark import read_json
from spacy_vaner.evaluation.tables import UNDEFINED, cell, megabytes, rounded, table
from spacy_vaner.evaluation.worker import OK


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


def speed_section(folder: Path) -> str:
    """The section of the report; empty without measurements."""
    speeds = read_speeds(folder)
    if not speeds:
        return ""
    rows = []
    for speed in speeds:
        f = speed.figures
        if speed.reason is not None:
            rows.append([speed.name, *[UNDEFINED] * 7, cell(speed.reason)])
            continue
        rows.append(
            [
                speed.name,
                rounded(f["words_per_s"]),
                UNDEFINED if speed.ratio is None else f"{speed.ratio:.3f}",
                rounded(f["documents_per_s"], 1),
                rounded(f["single_documents_per_s"], 1),
                rounded(f["start_up_s"], 1),
                megabytes(f["peak_memory_bytes"]),
                megabytes(f["size_bytes"]),
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
    return "## Speed and memory\n\n" + told + table(header, rows)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
