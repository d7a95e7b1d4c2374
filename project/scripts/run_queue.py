"""Run what stands in a budget, one after another, and nothing above it.

A budget is a page with a table that has the columns `run`, `command` and `minutes` (others are left
alone). A run that used up its minutes is stopped by SIGTERM, which every command of training
answers with a checkpoint. What is done is left alone; started again, the queue goes on where it was
stopped, so a command has to go on from its own checkpoint. No shell reads the commands.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from spacy_vaner.files import write_whole

_COLUMNS = ("run", "command", "minutes")
# Between two looks at the clock and at a signal.
_LOOK_S = 0.05
# Between two notes of what was spent: so much is forgotten when the queue is killed.
_NOTE_S = 10.0
# Time for a last checkpoint.
_GRACE_S = 120.0


class Entry(NamedTuple):
    """A line of a budget."""

    run: str
    command: list[str]
    minutes: float


def read_budget(path: Path) -> Iterator[Entry]:
    """The runs of all tables of a page that have the three columns.

    RAISES ValueError: a line of such a table that cannot be read, or a name that is there twice.
    """
    header: list[str] = []
    names: set[str] = set()
    for number, line in enumerate(path.read_text("utf8").splitlines(), start=1):
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not header:
            header = [cell.lower() for cell in cells]
        elif set(_COLUMNS) <= set(header) and not set(line) <= set("|-: "):
            try:
                values = dict(zip(header, cells, strict=True))
                run, command, minutes = (values[name] for name in _COLUMNS)
                entry = Entry(run, shlex.split(command.strip("`")), float(minutes))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            if run in names:
                raise ValueError(f"{path}, line {number}: {run} is there twice")
            names.add(run)
            if entry.command:
                yield entry


class Queue:
    """The runs and what was spent on them; a JSON file per run in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._signal = 0

    def work(self, entries: Sequence[Entry]) -> int:
        """RETURNS: 0, all are done; 1, some are not; 128 plus a signal that stopped it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        before = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            states = [self._run(entry) for entry in entries if not self._signal]
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._signal:
            return 128 + self._signal
        return int(any(state != "done" for state in states))

    def _run(self, entry: Entry) -> str:
        state, spent_s = self._read(entry)
        limit_s = 60 * entry.minutes
        if state == "done":
            return state
        if spent_s >= limit_s:
            print(f"{entry.run}: its {entry.minutes:g} minutes are used up", flush=True)
            return "over budget"
        print(f"{entry.run}: started, {(limit_s - spent_s) / 60:.1f} minutes left", flush=True)
        words = [sys.executable if word == "python" else word for word in entry.command]
        started = time.monotonic()
        with (self._folder / f"{entry.run}.log").open("ab") as log:
            # In a group of its own: Ctrl-C reaches the queue alone, which passes it on once.
            process = subprocess.Popen(
                words, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            noted = started
            stopped = False
            while (status := process.poll()) is None:
                time.sleep(_LOOK_S)
                now = time.monotonic()
                total_s = spent_s + now - started
                if not stopped and (self._signal or total_s >= limit_s):
                    process.terminate()
                    stopped = True
                    deadline = now + _GRACE_S
                if stopped and now >= deadline:
                    process.kill()
                if now - noted >= _NOTE_S:
                    self._write(entry, "running", total_s)
                    noted = now
        total_s = spent_s + time.monotonic() - started
        if status == 0 and not stopped:
            state = "done"
        elif self._signal:
            state = "stopped"
        else:
            state = "over budget" if stopped else f"failed with status {status}"
        self._write(entry, state, total_s)
        print(f"{entry.run}: {state}, {total_s / 60:.1f} minutes", flush=True)
        return state

    def _receive(self, number: int, _: object) -> None:
        self._signal = number

    def _read(self, entry: Entry) -> tuple[str, float]:
        path = self._path(entry)
        if not path.is_file():
            return "new", 0.0
        values = json.loads(path.read_text("utf8"))
        return values["state"], values["minutes"] * 60

    def _write(self, entry: Entry, state: str, spent_s: float) -> None:
        values = {"run": entry.run, "state": state, "minutes": spent_s / 60}
        write_whole(self._path(entry), (json.dumps(values, indent=2) + "\n").encode("utf8"))

    def _path(self, entry: Entry) -> Path:
        return self._folder / f"{entry.run}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("budget", type=Path, help="page with a table of runs")
    parser.add_argument("folder", type=Path, help="for what was spent, and the logs")
    parser.add_argument("--runs", help="names with commas between; default: all")
    options = parser.parse_args(arguments)
    try:
        entries = list(read_budget(options.budget))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.runs is not None:
        wanted = options.runs.split(",")
        unknown = sorted(set(wanted) - {entry.run for entry in entries})
        if unknown:
            print(f"not in {options.budget}: {', '.join(unknown)}", file=sys.stderr)
            return 1
        entries = [entry for entry in entries if entry.run in wanted]
    return Queue(options.folder).work(entries)


if __name__ == "__main__":
    sys.exit(main())
