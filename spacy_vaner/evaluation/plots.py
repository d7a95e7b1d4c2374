"""The plots of a benchmark: F1 per way of asking, and speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.evaluation.benchmark import read_folder
from spacy_vaner.evaluation.lines import Line, Question, lines_of, questions
from spacy_vaner.evaluation.speeds import read_speeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEED_PLOT = "speed.png"
_COLUMNS = 3


def f1_plot(question: Question, all_questions: Sequence[Question]) -> str:
    """The name of the file for a way of asking."""
    if len(all_questions) == 1:
        return "f1.png"
    return f"f1.{question.view}.{'named' if question.named else 'unnamed'}.png"


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
        figure.savefig(folder / name, dpi=80, metadata={"Software": None})

    lines = [line for line in lines_of(read_folder(folder)) if line.strict_f is not None]
    asked = questions(lines)
    for question in asked:
        own = [line for line in lines if line.question == question]
        height = sum(_heights(own))
        figure = Figure(figsize=(14, 0.5 + height), layout="constrained")
        _draw_panels(figure, own)
        save(figure, f1_plot(question, asked))
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


def _panels(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines that are compared, those of a corpus and type each, the best last."""
    keys = sorted({line.key for line in lines})
    panels = [[line for line in lines if line.key == key] for key in keys]
    return [sorted(panel, key=lambda line: line.strict_f or 0.0) for panel in panels]


def _heights(lines: Sequence[Line]) -> list[float]:
    """Inches of each row of panels: what its longest panel needs."""
    sizes = [len(panel) for panel in _panels(lines)]
    rows = [sizes[at : at + _COLUMNS] for at in range(0, len(sizes), _COLUMNS)]
    return [0.7 + 0.22 * max(row) for row in rows]


def _draw_panels(figure: Figure, lines: Sequence[Line]) -> None:
    panels = _panels(lines)
    grid = figure.add_gridspec(
        math.ceil(len(panels) / _COLUMNS), _COLUMNS, height_ratios=_heights(lines)
    )
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(grid[number // _COLUMNS, number % _COLUMNS])
        axes.set_title(f"{panel[0].corpus} {panel[0].type}", fontsize=9)
        axes.barh(
            [line.system for line in panel],
            [100 * (line.strict_f or 0.0) for line in panel],
            xerr=_errors(panel),
            color=["tab:blue" if line.is_ours else "tab:gray" for line in panel],
        )
        axes.set_xlim(0, 100)
        axes.tick_params(labelsize=7)


def _errors(lines: Sequence[Line]) -> list[list[float]]:
    """Distances from F1 down and up to the bounds of its interval."""
    down, up = [], []
    for line in lines:
        f = line.strict_f or 0.0
        low, high = line.scales["strict"]["f_interval"] or (f, f)
        down.append(max(0.0, 100 * (f - low)))
        up.append(max(0.0, 100 * (high - f)))
    return [down, up]
