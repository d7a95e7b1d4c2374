"""Run systems over gold files, each in a process of its own, and keep every outcome as JSON.

The folder of a benchmark:

    results/SYSTEM/FILE.json      scores, counts, settings and versions, or why there are none
    predictions/SYSTEM/FILE.jsonl what was found (evaluation/predictions.py)
    predictions/SYSTEM/FILE.counts.json  strict counts per document (evaluation/paired.py)
    paired/FILE.json              every vaner system against every other one, a paired test each
    pages/SYSTEM.VIEW.html        of vaner systems: the texts with what was right and wrong
    speed/SYSTEM.json             a measurement per round
    readings.jsonl                which system read which test split, and when

What is there and up to date is not run again.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.evaluation.documents import VIEWS, GoldFile
from spacy_vaner.evaluation.judgement import JudgedDocument, judge
from spacy_vaner.evaluation.page import write_page
from spacy_vaner.evaluation.paired import compare
from spacy_vaner.evaluation.predictions import pair_with_gold
from spacy_vaner.evaluation.result import LEVEL, versions
from spacy_vaner.evaluation.systems import KINDS
from spacy_vaner.evaluation.systems.base import SystemSpec
from spacy_vaner.evaluation.worker import FAILED, MISSING, NOT_ASKED, OK
from spacy_vaner.files import write_whole
from spacy_vaner.shipped import DEFAULT_NAME, FOLDER

FORMAT = 1
"""Of the JSON of a result."""

BASELINE = SystemSpec("spaCy CNN (untrained)", "cnn", note="for speed alone")
"""What speeds are ratios to, where no system of kind "cnn" is given."""

_TEST = ".test.spacy"
_MARKS = ("name", "trained_on", "seen", "note")

Progress = Callable[[str, str], None]
"""Called before a system runs: its name, and what it does."""


@dataclass(frozen=True)
class Settings:
    """What all systems of a benchmark share.

    view: "text" or "tokens", what of the words of the files a system is shown.
    name_corpus: whether instructions name the corpus; only a vaner_ner has any.
    seed, n_resamples: of the bootstrap intervals.
    speed_rounds: measurements of speed per system, systems taking turns; 0 = none.
    n_batch, n_single, n_warm_up: documents of a measurement in batches, alone, and before both.
    read_tests: test splits may be read; each reading is noted.
    command: written into the results.
    """

    view: str = "text"
    name_corpus: bool = True
    seed: int = 0
    n_resamples: int = 1000
    speed_rounds: int = 3
    n_batch: int = 200
    n_single: int = 50
    n_warm_up: int = 5
    read_tests: bool = False
    command: str | None = None


@dataclass
class Benchmark:
    """Systems, files and the folder that their outcomes are kept in.

    RAISES VanerError: VE411, an unknown view; VE460, an unknown kind; VE468, a test split and no
        leave to read it; VE469, two systems or two files of one name; VE470, no system or file.
    """

    systems: Sequence[SystemSpec]
    files: Sequence[Path]
    folder: Path
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.settings.view not in VIEWS:
            raise VanerError(Messages.VE411.format(view=self.settings.view, known=", ".join(VIEWS)))
        if not self.systems or not self.files:
            raise VanerError(Messages.VE470)
        for spec in self.systems:
            if spec.kind not in KINDS:
                raise VanerError(Messages.VE460.format(kind=spec.kind, known=", ".join(KINDS)))
        for names in ([slug(spec.name) for spec in self.systems], [_stem(f) for f in self.files]):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise VanerError(Messages.VE469.format(names=", ".join(twice)))
        tests = [path for path in self.files if path.name.endswith(_TEST)]
        if tests and not self.settings.read_tests:
            raise VanerError(Messages.VE468.format(n=len(tests), first=tests[0]))

    def run(self, on_progress: Progress | None = None) -> None:
        """Run what is not up to date. A system that fails is noted, and the others go on."""
        tell = on_progress or (lambda name, what: None)
        contents = {path: content_hash(path) for path in self.files}
        for spec in self.systems:
            if spec.kind != "cnn":
                self._predict(spec, contents, tell)
        for path in self.files:
            tell(_stem(path), "paired tests")
            self._compare(path)
        self._measure(contents, tell)

    def _predict(self, spec: SystemSpec, contents: Mapping[Path, str], tell: Progress) -> None:
        model = content_hash(_weights(spec))
        pending: dict[Path, dict[str, Any]] = {}
        for path in self.files:
            shared = self._shared(spec, model, contents[path])
            frame = {"file": path.name, **shared}
            known = read_json(self._result_path(spec, path))
            is_settled = known.get("status") in (OK, NOT_ASKED)
            if is_settled and known.get("fingerprint") == frame["fingerprint"]:
                if known["system"] != frame["system"]:  # its marks may have changed
                    write_json(self._result_path(spec, path), {**known, "system": spec.to_dict()})
            else:
                pending[path] = frame
        while pending:
            tell(spec.name, ", ".join(_stem(path) for path in pending))
            for path in pending:  # of a run that was stopped
                self._outcome_path(spec, path).unlink(missing_ok=True)
            job = {
                "task": "predict",
                "system": spec.to_dict(),
                "view": self.settings.view,
                "name_corpus": self.settings.name_corpus,
                "seed": self.settings.seed,
                "resamples": self.settings.n_resamples,
                "files": [
                    {
                        "file": str(path),
                        "predictions": str(self._predictions_path(spec, path)),
                        "counts": str(self._counts_path(slug(spec.name), path)),
                        "result": str(self._outcome_path(spec, path)),
                    }
                    for path in pending
                ],
            }
            try:
                ended: str | None = self._work(job)
            except BaseException:  # stopped: who knows what it had read
                self._note_readings(spec, pending)
                raise
            read: list[Path] = []
            for path in list(pending):
                outcome_path = self._outcome_path(spec, path)
                if outcome_path.is_file():
                    outcome = read_json(outcome_path)
                    outcome_path.unlink()
                elif ended is not None:
                    # The process died on this one; a new process goes on with those after it.
                    outcome, ended = {"status": FAILED, "reason": ended}, None
                else:
                    continue
                if outcome["status"] not in (MISSING, NOT_ASKED):
                    read.append(path)
                write_json(self._result_path(spec, path), {**pending.pop(path), **outcome})
            self._note_readings(spec, read)

    def _shared(self, spec: SystemSpec, model: str, content: str) -> dict[str, Any]:
        settings = self.settings
        asked = {
            "view": settings.view,
            "name_corpus": settings.name_corpus,
            "seed": settings.seed,
            "resamples": settings.n_resamples,
        }
        row = {key: value for key, value in spec.to_dict().items() if key not in _MARKS}
        return {
            "format": FORMAT,
            "system": spec.to_dict(),
            **asked,
            "level": LEVEL,
            "command": settings.command,
            "fingerprint": _hash_json([row, asked, model, content, *_engine_versions(spec)]),
        }

    def _note_readings(self, spec: SystemSpec, paths: Iterable[Path]) -> None:
        lines = [
            json.dumps(
                {
                    "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                    "system": spec.name,
                    "where": spec.where,
                    "file": path.name,
                    "view": self.settings.view,
                    "name_corpus": self.settings.name_corpus,
                    "command": self.settings.command,
                },
                ensure_ascii=False,
            )
            for path in paths
            if path.name.endswith(_TEST)
        ]
        if lines:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "readings.jsonl").open("a", encoding="utf8") as file:
                file.write("".join(f"{line}\n" for line in lines))

    def _compare(self, path: Path) -> None:
        """Compare each vaner system with each other system that has a result for the file."""
        results = [
            result
            for result in read_folder(self.folder)
            if result.get("status") == OK and result["file"] == path.name
        ]
        settings = [self.settings.seed, self.settings.n_resamples, LEVEL]
        fingerprint = _hash_json([settings, [[r["system"], r["fingerprint"]] for r in results]])
        paired_path = self.folder / "paired" / f"{_stem(path)}.json"
        if read_json(paired_path).get("fingerprint") == fingerprint:
            return
        counts = {
            r["system"]["name"]: read_json(self._counts_path(slug(r["system"]["name"]), path))
            for r in results
        }
        pairs = []
        for ours in results:
            for other in results:
                first, second = ours["system"], other["system"]
                if first["kind"] != "vaner" or first == second:
                    continue
                found = compare(
                    counts[first["name"]],
                    counts[second["name"]],
                    seed=self.settings.seed,
                    n_resamples=self.settings.n_resamples,
                )
                if any(found.values()):
                    pairs.append(
                        {"first": first["name"], "second": second["name"], "corpora": found}
                    )
        if pairs:
            write_json(
                paired_path,
                {
                    "format": FORMAT,
                    "file": path.name,
                    "seed": self.settings.seed,
                    "resamples": self.settings.n_resamples,
                    "fingerprint": fingerprint,
                    "pairs": pairs,
                },
            )

    def write_pages(self, max_documents: int) -> None:
        """Write a page per vaner system to look at. max_documents: shown of each corpus."""
        for spec in self.systems:
            found = {path: self._predictions_path(spec, path) for path in self.files}
            found = {path: kept for path, kept in found.items() if kept.is_file()}
            if spec.kind != "vaner" or not found:
                continue
            corpora: dict[str, list[JudgedDocument]] = {}
            for path, kept in found.items():
                for predicted in pair_with_gold(kept, [GoldFile(path)]):
                    corpora.setdefault(predicted.document.corpus, []).append(judge(predicted))
            write_page(
                corpora,
                self.folder / "pages" / f"{slug(spec.name)}.{self.settings.view}.html",
                title=f"Found by {spec.name}",
                max_documents=max_documents,
            )

    def _measure(self, contents: Mapping[Path, str], tell: Progress) -> None:
        """Rounds over all systems, so that what else the machine does meets all of them alike.

        A round in which a system is new is measured again for all of them: a ratio of figures of
        two days would say nothing.
        """
        if not self.settings.speed_rounds:
            return
        has_baseline = any(spec.kind == "cnn" for spec in self.systems)
        systems = [*self.systems, *([] if has_baseline else [BASELINE])]
        texts = "".join(contents.values())
        sizes = [self.settings.n_batch, self.settings.n_single, self.settings.n_warm_up]
        frames = {
            spec.name: self._shared(spec, content_hash(_weights(spec)), f"{texts} {sizes}")
            for spec in systems
        }
        for number in range(self.settings.speed_rounds):
            done = [spec for spec in systems if self._has_round(spec, frames[spec.name], number)]
            todo = [spec for spec in systems if spec not in done]
            found_new = False
            for spec in todo:
                found_new |= self._measure_round(spec, frames[spec.name], number, tell)
            for spec in done if found_new else ():
                self._measure_round(spec, frames[spec.name], number, tell)

    def _speed_path(self, spec: SystemSpec) -> Path:
        return self.folder / "speed" / f"{slug(spec.name)}.json"

    def _rounds(self, spec: SystemSpec, frame: Mapping[str, Any]) -> list[dict[str, Any]]:
        known = read_json(self._speed_path(spec))
        is_current = known.get("fingerprint") == frame["fingerprint"]
        return list(known.get("rounds", ())) if is_current else []

    def _has_round(self, spec: SystemSpec, frame: Mapping[str, Any], number: int) -> bool:
        rounds = self._rounds(spec, frame)
        return len(rounds) > number and rounds[number]["status"] == OK

    def _measure_round(
        self, spec: SystemSpec, frame: Mapping[str, Any], number: int, tell: Progress
    ) -> bool:
        """RETURNS: whether the system could be measured."""
        tell(spec.name, f"speed, round {number + 1}")
        rounds, outcome = self._rounds(spec, frame), self._measure_once(spec)
        rounds[number : number + 1] = [outcome]
        write_json(self._speed_path(spec), {**frame, "rounds": rounds})
        return bool(outcome["status"] == OK)

    def _measure_once(self, spec: SystemSpec) -> dict[str, Any]:
        outcome_path = self.folder / "speed" / f".{slug(spec.name)}.outcome.json"
        ended = self._work(
            {
                "task": "speed",
                "system": spec.to_dict(),
                "view": self.settings.view,
                "texts": [str(path) for path in self.files],
                "n_batch": self.settings.n_batch,
                "n_single": self.settings.n_single,
                "n_warm_up": self.settings.n_warm_up,
                "started": time.time(),
                "result": str(outcome_path),
            }
        )
        outcome = read_json(outcome_path) or {"status": FAILED, "reason": ended}
        outcome_path.unlink(missing_ok=True)
        return outcome

    def _work(self, job: Mapping[str, Any]) -> str:
        """Run a job in a new process. RETURNS: how it ended, should it have left no outcome."""
        job_path = self.folder / ".job.json"
        write_json(job_path, job)
        command = [sys.executable, "-m", "spacy_vaner.evaluation.worker", str(job_path)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        finally:
            job_path.unlink(missing_ok=True)
        said = done.stderr.decode("utf8", "replace").strip().splitlines()
        return Messages.VE471.format(code=done.returncode, last=said[-1][:300] if said else "–")

    def _result_path(self, spec: SystemSpec, path: Path) -> Path:
        return self.folder / "results" / slug(spec.name) / f"{_stem(path)}.json"

    def _outcome_path(self, spec: SystemSpec, path: Path) -> Path:
        return self._result_path(spec, path).with_name(f".{_stem(path)}.outcome.json")

    def _predictions_path(self, spec: SystemSpec, path: Path) -> Path:
        return self.folder / "predictions" / slug(spec.name) / f"{_stem(path)}.jsonl"

    def _counts_path(self, name: str, path: Path) -> Path:
        return self.folder / "predictions" / name / f"{_stem(path)}.counts.json"


def slug(name: str) -> str:
    """A name as a file or folder is called."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "system"


def _stem(path: Path) -> str:
    return path.name.removesuffix(".spacy")


def _weights(spec: SystemSpec) -> Path:
    """Where the files of a system lie; a vaner without a place is the tagger of the package."""
    if spec.kind == "vaner" and not spec.where:
        return FOLDER / DEFAULT_NAME
    return Path(spec.where)


def _engine_versions(spec: SystemSpec) -> list[dict[str, str | None]]:
    """What computes a vaner system: with another version it may find something else.

    Nothing of other systems, so that what they found at some cost stays.
    """
    if spec.kind != "vaner":
        return []
    found = versions()
    return [{package: found[package] for package in ("spacy_vaner", "onnxruntime")}]


def content_hash(path: Path) -> str:
    """SHA-256 over the files of a folder with their names, or of one file; "" for no path."""
    digest = hashlib.sha256()
    if path.is_file():
        files: list[Path] = [path]
    elif path.is_dir() and path != Path():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        return ""
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _hash_json(values: Any) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is none, or half of one."""
    try:
        found = json.loads(path.read_text("utf8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (_dumps(values) + "\n").encode("utf8"))


def _dumps(values: Any, indent: str = "") -> str:
    """JSON with an object of plain values on one line: eyes can read it, and it is small."""
    inner = list(values.values()) if isinstance(values, dict) else values
    if not isinstance(inner, list) or not (indent == "" or any(map(_has_object, inner))):
        return json.dumps(values, ensure_ascii=False)
    deeper = indent + " "
    if isinstance(values, dict):
        keys = [f"{json.dumps(key, ensure_ascii=False)}: " for key in values]
        opened, closed = "{}"
    else:
        keys = [""] * len(inner)
        opened, closed = "[]"
    rows = [f"{deeper}{key}{_dumps(each, deeper)}" for key, each in zip(keys, inner, strict=True)]
    return "\n".join([opened, ",\n".join(rows), indent + closed])


def _has_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_has_object, value)))


def read_folder(folder: Path) -> Iterator[dict[str, Any]]:
    """The results of a benchmark, in the order of their paths."""
    # What a worker that was killed left behind begins with a dot.
    for path in sorted((folder / "results").glob("*/[!.]*.json")):
        if result := read_json(path):
            yield result
