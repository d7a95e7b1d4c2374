"""The log of a run, JSON lines, one per step and per dev loss; the curve drawn from them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from spacy_vaner.errors import Messages, VanerError

LOG_FILE = "log.jsonl"

# Steps whose losses are shown as one point.
_POINTS = 200


class Log:
    """A file of JSON lines that is appended to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def cut_to(self, n_steps: int) -> None:
        """Forget what was logged after a checkpoint: it is done again.

        n_steps: steps that are done; the lines of steps from this number on are removed.
        """
        beside = self._path.with_name(self._path.name + ".part")
        kept = [record for record in read_log(self._path) if record["step"] < n_steps]
        with beside.open("w", encoding="utf8") as file:
            file.writelines(json.dumps(record) + "\n" for record in kept)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)

    def append(self, records: list[dict[str, Any]]) -> None:
        """Add lines; they are on their way to the disk when this returns."""
        with self._path.open("a", encoding="utf8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that was cut off while it was written is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text("utf8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def plot(log_path: Path, output: Path) -> None:
    """Draw training loss and dev loss, or dev F1, over the subwords read, as PNG.

    RAISES VanerError: VE518, matplotlib is not installed; VE507, an empty log.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise VanerError(Messages.VE518.format(reason=error)) from None
    records = read_log(log_path)
    steps = [record for record in records if "loss" in record]
    dev = [record for record in records if "dev_loss" in record]
    scored = [record for record in records if "best_by" in record]
    if not steps:
        raise VanerError(Messages.VE507.format(path=log_path, reason="it holds no step"))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, causal in (("train", False), ("train, causal steps", True)):
        chosen = [record for record in steps if record.get("causal", False) is causal]
        width = max(1, len(chosen) // _POINTS)
        blocks = [chosen[start : start + width] for start in range(0, len(chosen), width)]
        if blocks:
            axes.plot(
                [block[-1]["n_subwords"] / 1e6 for block in blocks],
                [sum(record["loss"] for record in block) / len(block) for block in blocks],
                label=name,
                linewidth=1,
            )
    if dev:
        read = [record["n_subwords"] / 1e6 for record in dev]
        label = f"dev (perplexity at the end {dev[-1]['dev_perplexity']:.1f})"
        axes.plot(read, [record["dev_loss"] for record in dev], "o-", markersize=3, label=label)
    if scored:
        beside = axes.twinx()
        read = [record["n_subwords"] / 1e6 for record in scored]
        figures = [record["best_by"] for record in scored]
        beside.plot(read, figures, "o-", markersize=3, color="tab:green")
        beside.set_ylabel(f"dev F1 (highest {max(figures):.3f})", color="tab:green")
    axes.set_xlabel("million subwords read")
    axes.set_ylabel("loss per predicted subword (nats)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(output, dpi=150)
