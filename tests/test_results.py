"""No figure without a committed result behind it: the tables of docs/results.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
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
