"""Backbones by what counts: dev F1 of taggers that are tuned on them for few, equal steps.

`plan` writes a page with every run, its command and its minutes before any is started
(run_queue.py runs it); `run` makes one run, and goes on where it was stopped; `table` writes what
was found. A backbone is a folder, random weights, or pretrained here first, with settings of its
own: so objectives are compared, and {causal, bidirectional} pretraining with such tuning. spaCy's
CNN can be trained on the same files beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import spacy

from spacy_vaner.errors import VanerError
from spacy_vaner.evaluation.result import versions
from spacy_vaner.evaluation.run import evaluate_pipeline
from spacy_vaner.files import write_whole
from spacy_vaner.rows import prepare_rows
from spacy_vaner.training.config import PretrainConfig, config_from_dict
from spacy_vaner.training.log import LOG_FILE, read_log
from spacy_vaner.training.loop import Outcome
from spacy_vaner.training.pretraining import pretrain
from spacy_vaner.training.tag_config import TagConfig
from spacy_vaner.training.tagging import train_tagger

FORMAT = 1
PRETRAINED, TUNED, RIVAL = "pretrained", "tuned", "rival"
# More than a trial says: other work shares the cores.
MARGIN = 1.3
# For loading the libraries, which a trial has behind it.
START_MINUTES = 2.0


class Run(NamedTuple):
    """A run; the corpus is empty where a backbone is pretrained."""

    kind: str
    system: str
    tuning: str = ""
    corpus: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        words = [self.kind] if self.kind == PRETRAINED else []
        words += [self.system, self.tuning, self.corpus]
        words += [] if self.kind == PRETRAINED else [str(self.seed)]
        return ".".join(word for word in words if word)


class Probe:
    """The runs of a settings file and where everything lies."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.settings: dict[str, Any] = json.loads(options.settings.read_text("utf8"))
        self.output: Path = options.output
        self.converted: Path = options.converted
        self.view: str = options.view
        self.tokenizer: Path = options.tokenizer
        self.data: Path | None = options.data
        self.vectors: Path | None = options.vectors
        self.spacy_vectors: Path | None = options.spacy_vectors
        self.configs: Path = options.settings.parent
        for backbone in options.backbone:
            name, _, folder = backbone.partition("=")
            self.settings["backbones"][name] = {"folder": folder}

    def runs(self) -> list[Run]:
        """Pretraining first; then seed by seed, so that a part of the runs is a comparison."""
        backbones = self.settings["backbones"]
        found = [Run(PRETRAINED, name) for name, of in backbones.items() if "pretrain" in of]
        for seed in self.settings["seeds"]:
            for corpus in self.settings["corpora"]:
                for tuning in self.settings.get("tunings", {"": {}}):
                    found += [Run(TUNED, name, tuning, corpus, seed) for name in backbones]
                for name in self.settings.get("rivals", {}):
                    found.append(Run(RIVAL, name, "", corpus, seed))
        return found

    def folder(self, run: Run) -> Path:
        return self.output / "runs" / run.name

    def result(self, run: Run) -> Path:
        return self.output / "results" / f"{run.name}.json"

    def file(self, corpus: str, split: str) -> Path:
        return self.converted / f"{corpus}.{self.view}.{split}.spacy"

    def rows(self, corpus: str) -> Path:
        """The rows of a corpus, made where they are missing."""
        folder = self.output / "rows" / corpus
        folder.parent.mkdir(parents=True, exist_ok=True)
        files = [self.file(corpus, split) for split in ("train", "dev")]
        prepare_rows(files, folder, tokenizer_path=self.tokenizer)
        return folder

    def pretrain_config(self, run: Run, **changes: Any) -> PretrainConfig:
        own = self.settings["backbones"][run.system]["pretrain"]
        values = merged(self.settings["pretrain"], own, {"data": str(self.data)}, changes)
        self._set_vectors(values["backbone"])
        return config_from_dict(values, PretrainConfig, source=run.name)

    def tag_config(self, run: Run, rows: Path, **changes: Any) -> TagConfig:
        backbone = self.settings["backbones"][run.system]
        own: dict[str, Any] = {"seed": run.seed, "rows": str(rows)}
        own["n_steps"] = self.settings["corpora"][run.corpus]
        if "pretrain" in backbone:
            own["backbone"] = str(self.folder(Run(PRETRAINED, run.system)) / "backbone")
        elif "folder" in backbone:
            own["backbone"] = backbone["folder"]
        else:
            own["start"] = dict(backbone["start"])
            self._set_vectors(own["start"])
        tuning = self.settings.get("tunings", {"": {}})[run.tuning]
        values = merged(self.settings["tag"], own, tuning, changes)
        return config_from_dict(values, TagConfig, source=run.name)

    def _set_vectors(self, shape: dict[str, Any]) -> None:
        # With word features come vectors, where there are some.
        if self.vectors is not None and shape.get("word_rows"):
            shape["vectors"] = str(self.vectors)


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over settings, section by section."""
    values: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            old = values.get(key)
            values[key] = {**old, **value} if isinstance(old, dict) else value
    return values


def run_one(probe: Probe, run: Run) -> None:
    """Make a run and write its file, unless it is there."""
    path = probe.result(run)
    if path.is_file():
        return
    make = {PRETRAINED: run_pretraining, TUNED: run_tuning, RIVAL: run_rival}[run.kind]
    found = {"format": FORMAT, **run._asdict(), **make(probe, run), "versions": versions()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(found, indent=1) + "\n").encode("utf8"))


def run_pretraining(probe: Probe, run: Run) -> dict[str, Any]:
    config = probe.pretrain_config(run)
    stop_unless_finished(pretrain(config, probe.folder(run), resume=True))
    curve = [one for one in read_log(probe.folder(run) / LOG_FILE) if "dev_loss" in one]
    return {
        **spent(probe.folder(run)),
        "dev_losses": [[one["n_subwords"], one["dev_loss"]] for one in curve],
        "settings": config.to_dict(),
    }


def run_tuning(probe: Probe, run: Run) -> dict[str, Any]:
    config = probe.tag_config(run, probe.rows(run.corpus))
    folder = probe.folder(run)
    stop_unless_finished(train_tagger(config, folder, resume=True))
    curve = [one for one in read_log(folder / LOG_FILE) if "dev_f" in one]
    for name in ("checkpoints", "tagger", "best", "start"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return {
        **spent(folder),
        # The last one: the best of many would favour what is measured often.
        "dev_f": curve[-1]["dev_f"],
        "dev_f_per_type": curve[-1]["dev_f_per_type"],
        "dev_fs": [[one["step"] + 1, one["dev_f"]] for one in curve],
        "settings": config.to_dict(),
    }


def run_rival(probe: Probe, run: Run) -> dict[str, Any]:
    """spaCy's own component by `spacy train`, measured as ours is: strict, raw text."""
    rival = probe.settings["rivals"][run.system]
    folder = probe.folder(run)
    config = probe.configs / rival["config"]
    words = [sys.executable, "-m", "spacy", "train", str(config), "--output", str(folder)]
    words += ["--system.seed", str(run.seed)]
    for split in ("train", "dev"):
        words += [f"--paths.{split}", json.dumps([str(probe.file(run.corpus, split))])]
    if rival.get("vectors"):
        if probe.spacy_vectors is None:
            raise SystemExit(f"{run.name} needs --spacy-vectors")
        words += ["--paths.vectors", str(probe.spacy_vectors)]
    for key, value in rival.get("set", {}).items():
        words += [f"--{key}", json.dumps(value)]
    started = time.monotonic()
    status = subprocess.run(words, check=False).returncode
    if status:
        raise SystemExit(status if status > 0 else 128 - status)
    minutes = (time.monotonic() - started) / 60
    # The last one, as of the others.
    nlp = spacy.load(folder / "model-last")
    result = evaluate_pipeline(nlp, [probe.file(run.corpus, "dev")], view="text").to_dict()
    (scores,) = result["corpora"].values()
    shutil.rmtree(folder)
    return {
        "minutes": minutes,
        "dev_f": scores["micro"]["f"] or 0.0,
        "dev_f_per_type": {name: of["f"] for name, of in scores["types"].items()},
        "settings": rival,
    }


def stop_unless_finished(outcome: Outcome) -> None:
    if outcome.reason != "finished":
        raise SystemExit(128 + outcome.signal if outcome.signal else 1)


def spent(folder: Path) -> dict[str, Any]:
    last = [one for one in read_log(folder / LOG_FILE) if "loss" in one][-1]
    return {"n_subwords": last["n_subwords"], "minutes": last["elapsed_s"] / 60}


def plan(probe: Probe, n_steps: int, options: Sequence[str]) -> str:
    """The page of runs, with minutes from a trial of one run of each kind."""
    of_kind: dict[str, tuple[float, float, float]] = {}
    lines = ["| run | command | subwords | minutes |", "| --- | --- | --- | --- |"]
    total = 0.0
    for run in probe.runs():
        if run.kind == RIVAL:
            minutes, subwords = probe.settings["rivals"][run.system]["minutes"], "–"
        else:
            config = settings_of(probe, run)
            steps = config.n_steps or 0
            if run.kind not in of_kind:
                of_kind[run.kind] = trial(probe, run, n_steps)
            step_s, other_s, of_step = of_kind[run.kind]
            n_measured = steps // config.dev_steps + 1
            minutes = START_MINUTES + MARGIN * (steps * step_s + n_measured * other_s) / 60
            subwords = f"{steps * of_step:,.0f}"
        total += minutes
        words = ["python", os.path.relpath(__file__), "run", *options, "--run", run.name]
        lines.append(f"| {run.name} | `{shlex.join(words)}` | {subwords} | {minutes:.1f} |")
    lines += [
        "",
        f"Together {total:.0f} minutes; by {n_steps} steps of a run of each kind, plus 30 %.",
    ]
    return "\n".join(lines) + "\n"


def settings_of(probe: Probe, run: Run, **changes: Any) -> PretrainConfig | TagConfig:
    if run.kind == PRETRAINED:
        return probe.pretrain_config(run, **changes)
    return probe.tag_config(run, probe.output / "rows" / run.corpus, **changes)


def trial(probe: Probe, run: Run, n_steps: int) -> tuple[float, float, float]:
    """Seconds of a step, and of all else (start, one look at dev); subwords of a step."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        if run.kind == PRETRAINED:
            pretrain(probe.pretrain_config(run, n_steps=n_steps, dev_steps=n_steps), output)
        else:
            rows = probe.rows(run.corpus)
            # A backbone that is pretrained later has the shape that the trial begins with.
            own: dict[str, Any] = {"n_steps": n_steps, "dev_steps": n_steps}
            config = probe.tag_config(run, rows, **own)
            if config.backbone is not None and not Path(config.backbone).is_dir():
                start = probe.pretrain_config(Run(PRETRAINED, run.system)).to_dict()["backbone"]
                config = probe.tag_config(run, rows, **own, backbone=None, start=start)
            train_tagger(config, output)
        done = spent(output)
    step_s = done["minutes"] * 60 / n_steps
    return step_s, time.monotonic() - started - n_steps * step_s, done["n_subwords"] / n_steps


def table(probe: Probe) -> str:
    """A line per backbone and tuning, with what runs that are done have found."""
    results = [
        json.loads(p.read_text("utf8")) for p in sorted((probe.output / "results").glob("*.json"))
    ]
    corpora = list(probe.settings["corpora"])
    pretrained = {one["system"]: one for one in results if one["kind"] == PRETRAINED}
    systems: dict[tuple[str, str], dict[str, list[float]]] = {}
    for run in probe.runs():
        if run.kind != PRETRAINED:
            systems.setdefault((run.system, run.tuning), {})
    for one in results:
        if one["kind"] != PRETRAINED and (one["system"], one["tuning"]) in systems:
            of_corpus = systems[one["system"], one["tuning"]]
            of_corpus.setdefault(one["corpus"], []).append(one["dev_f"])
    header = ["backbone", "tuning", "pretrained on", *(f"{name}, dev F1" for name in corpora)]
    lines = [header, ["---"] * len(header)]
    for (system, tuning), of_corpus in systems.items():
        read = pretrained.get(system)
        lines.append(
            [
                system,
                tuning or "–",
                f"{read['n_subwords'] / 1e6:.1f} million" if read else "–",
                *(cell(of_corpus.get(corpus, [])) for corpus in corpora),
            ]
        )
    steps = ", ".join(f"{name} {n}" for name, n in probe.settings["corpora"].items())
    page = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{page}\n\nStrict F1 on complete dev documents, raw text, no corpus named, after the last "
        f"step ({steps} steps; spaCy's own components as many as their settings say). Mean ± "
        "standard deviation over seeds.\n"
    )


def cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = f"{100 * statistics.mean(values):.1f}"
    if len(values) == 1:
        return f"{mean} (1 seed)"
    return f"{mean} ± {100 * statistics.stdev(values):.1f} ({len(values)} seeds)"


def given(options: argparse.Namespace) -> Iterator[str]:
    """The options as words, for the commands of a plan."""
    yield from (str(options.settings), str(options.output))
    for name in ("converted", "view", "tokenizer", "data", "vectors", "spacy_vectors"):
        value = getattr(options, name)
        if value is not None:
            yield from (f"--{name.replace('_', '-')}", str(value))
    for backbone in options.backbone:
        yield from ("--backbone", backbone)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("plan", "run", "table"))
    parser.add_argument("settings", type=Path, help="configs/probe.json")
    parser.add_argument(
        "output", type=Path, help="folder for plan.md, rows, runs, results, table.md"
    )
    parser.add_argument("--converted", type=Path, required=True, help="NAME.VIEW.SPLIT.spacy")
    parser.add_argument("--view", default="text")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="token ids, where backbones are pretrained")
    parser.add_argument("--vectors", type=Path, help="static vectors of word features")
    parser.add_argument("--spacy-vectors", type=Path, help="the same for spaCy's components")
    parser.add_argument(
        "--backbone",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="a backbone beside those of the settings; may be repeated",
    )
    parser.add_argument("--run", help="name of the run, of `run`")
    parser.add_argument("--trial-steps", type=int, default=20, help="of `plan`")
    options = parser.parse_args(arguments)
    probe = Probe(options)
    try:
        if options.what == "run":
            by_name = {run.name: run for run in probe.runs()}
            if options.run not in by_name:
                print(f"--run is none of {', '.join(by_name)}", file=sys.stderr)
                return 1
            run_one(probe, by_name[options.run])
            return 0
        make = {"plan": lambda: plan(probe, options.trial_steps, list(given(options)))}
        page = make.get(options.what, lambda: table(probe))()
    except VanerError as error:
        print(error, file=sys.stderr)
        return 1
    probe.output.mkdir(parents=True, exist_ok=True)
    write_whole(probe.output / f"{options.what}.md", page.encode("utf8"))
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
