"""The training loop: steps, measures on dev, log, checkpoints, and where to stop.

What is trained is a `Task`: subwords of packed text (pretraining.py) or labels of documents
(tagging.py). Nothing that happens depends on the past but through the checkpoint: on a CPU, with
the same number of threads, a run that was killed and resumed gives the same losses to the bit. On
CUDA some sums are added up in varying order, so they agree within rounding only.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from spacy_vaner.errors import Messages, VanerError, VanerWarning
from spacy_vaner.training.averages import Averages
from spacy_vaner.training.checkpoints import Best, Checkpoints, RunState, write_folder
from spacy_vaner.training.config import RunSettings, config_from_dict
from spacy_vaner.training.log import LOG_FILE, Log
from spacy_vaner.training.optimizers import Optimizers, rate_at
from spacy_vaner.training.processes import Processes

CHECKPOINTS_FOLDER = "checkpoints"

# Steps between two looks at the loss: each one waits for the device.
_LOOK_STEPS = 10
# Odd, so that steps of runs with neighbouring seeds draw different numbers.
_SEEDS = 0x9E3779B97F4A7C15

Reason = Literal["finished", "time", "signal"]
_REASONS: tuple[Reason | None, ...] = (None, "finished", "time", "signal")

OnStep = Callable[[dict[str, Any]], None]
"""Called with every line of the log."""


class Pass(Protocol):
    """What is computed at once.

    n_subwords: that are read, without padding.
    n_targets: that are predicted; the loss of a step is their mean.
    """

    @property
    def n_subwords(self) -> int: ...

    @property
    def n_targets(self) -> int: ...


AnyPass = TypeVar("AnyPass", bound=Pass)


class Task(Protocol[AnyPass]):
    """What a run trains.

    parameters: that are moved, by name.
    rates: of the learning rate, by name; a name that is missing has all of it.
    data_sha256: of what is read.
    result_folder: where the result is written to in the run's folder.
    weights_file: name of the file among `files` that holds the weights.
    """

    @property
    def device(self) -> torch.device: ...

    @property
    def precision(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]: ...

    @property
    def rates(self) -> Mapping[str, float]: ...

    @property
    def data_sha256(self) -> str: ...

    @property
    def result_folder(self) -> str: ...

    @property
    def weights_file(self) -> str: ...

    def passes(self, step: int) -> list[AnyPass]:
        """The passes of a step, by its number alone; called from a thread of its own."""

    def facts(self, passes: list[AnyPass]) -> dict[str, Any]:
        """What the log says of a step beside its loss."""

    def measured(self, record: dict[str, Any], subwords_per_s: float) -> dict[str, float]:
        """What the log says of its speed, given its line so far."""

    def loss_sum(self, batch: AnyPass) -> Tensor:
        """() the sum of the losses of a pass."""

    def dev_figures(self) -> dict[str, Any]:
        """Measure on dev; a figure by the name "best_by" chooses what is kept as the best."""

    def files(self) -> dict[str, bytes]:
        """The weights as files, by name: a folder that can be used as it is."""

    def set_weights(self, path: Path) -> None:
        """Undo `files`, from a folder. RAISES VanerError: VE514."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    reason: "finished", "time" (max_minutes) or "signal".
    checkpoint: the newest one.
    result: folder with what was trained; None while the run is not finished.
    signal: number of the signal, 0 for none.
    """

    reason: Reason
    step: int
    checkpoint: Path
    result: Path | None
    signal: int = 0


def run(
    make_task: Callable[[], Task[Any]],
    config: RunSettings,
    output: Path,
    *,
    resume: bool,
    on_step: OnStep | None,
    init_weights: Path | None = None,
    averaging: float = 0.0,
    processes: Processes | None = None,
) -> Outcome:
    """Train to the end, to the time limit, or to the first SIGINT or SIGTERM.

    output: folder of the run: log.jsonl, checkpoints/, best/ where the task measures what is best,
        and the result's folder when it is finished.
    resume: go on from the newest checkpoint there; where there is none, start.
    init_weights: what a run that starts takes its weights from.
    averaging: decay of averages of the weights, which are measured, and kept as best and as result,
        in the weights' place; 0 = none.
    processes: that train together; None = this one alone.
    RAISES VanerError: VE509, VE511, VE512, VE514, the run's files; VE513, a loss that is no number;
        and what the task raises.
    """
    if config.n_threads is not None:
        torch.set_num_threads(config.n_threads)
    processes = processes or Processes()
    checkpoints = Checkpoints(output / CHECKPOINTS_FOLDER)
    if checkpoints.paths() and not resume:
        raise VanerError(Messages.VE509.format(path=output))
    task = make_task()
    optimizers = Optimizers(
        task.parameters, config.optimizer, precision=task.precision, rates=task.rates
    )
    log = Log(output / LOG_FILE)
    best = Best(output)
    averages = Averages(task.parameters, averaging)
    if checkpoints.paths():
        state = checkpoints.load(_Weights(task, averages), optimizers)
        _compare(state, config, task.data_sha256, checkpoints.last())
    else:
        if init_weights is not None:
            task.set_weights(init_weights)
            averages.restart()
        output.mkdir(parents=True, exist_ok=True)
        if processes.is_first:
            best.forget()
        state = RunState(0, 0, 0.0, config.to_dict(), task.data_sha256)
    if processes.is_first:
        log.cut_to(state.step)
    loop = _Loop(
        task, config, optimizers, averages, state, checkpoints, log, best, on_step, processes
    )
    with _Signals() as signals:
        reason = loop.train(signals)
    processes.wait()
    last = checkpoints.last()
    assert last is not None
    result = None
    if reason == "finished":
        result = output / task.result_folder
        if processes.is_first:
            with averages.in_use():
                write_folder(result, task.files())
    return Outcome(reason, loop.step, last, result, signals.received)


@dataclass(frozen=True)
class _Weights:
    """The weights of a checkpoint and their averages."""

    task: Task[Any]
    averages: Averages

    @property
    def weights_file(self) -> str:
        return self.task.weights_file

    def set_weights(self, path: Path) -> None:
        self.task.set_weights(path)
        self.averages.set_from(path)


class _Loop:
    """The steps of one start of a run, from a state on."""

    def __init__(
        self,
        task: Task[Any],
        config: RunSettings,
        optimizers: Optimizers,
        averages: Averages,
        state: RunState,
        checkpoints: Checkpoints,
        log: Log,
        best: Best,
        on_step: OnStep | None,
        processes: Processes,
    ) -> None:
        self._processes = processes
        self._task = task
        self._config = config
        self._optimizers = optimizers
        self._averages = averages
        self._checkpoints = checkpoints
        self._log = log
        self._best = best
        self._on_step = on_step
        self._n_subwords = state.n_subwords
        self._before_s = state.elapsed_s
        self._first_step = self.step = state.step
        self._started = self._saved = self._looked = time.monotonic()
        self._looked_at = self._n_subwords
        self._unseen: list[tuple[dict[str, Any], Tensor, Tensor]] = []

    def train(self, signals: _Signals) -> Reason:
        """Make steps until one of the three holds; the last checkpoint is written at the end."""
        config = self._config
        with ThreadPoolExecutor(max_workers=1) as ahead:
            next_passes = ahead.submit(self._task.passes, self.step)
            reason, progress = self._stop(signals)
            while reason is None:
                passes = next_passes.result()
                next_passes = ahead.submit(self._task.passes, self.step + 1)
                self._make_step(passes, progress)
                if len(self._unseen) >= _LOOK_STEPS:
                    self._look()
                if self.step % config.dev_steps == 0:
                    self._measure_dev()
                if time.monotonic() - self._saved >= 60 * config.checkpoint_minutes:
                    self._save()
                reason, progress = self._stop(signals)
        if self.step != self._first_step:
            if reason == "finished" and self.step % config.dev_steps:
                self._measure_dev()
            self._save()
        elif self._checkpoints.last() is None:
            self._save()
        return reason

    def _stop(self, signals: _Signals) -> tuple[Reason | None, float]:
        """Why to stop, and the progress, as the first process sees them."""
        limit, progress = self._config.max_minutes, self._progress()
        reason: Reason | None = None
        if progress >= 1:
            reason = "finished"
        elif signals.received:
            reason = "signal"
        elif limit is not None and time.monotonic() - self._started >= 60 * limit:
            reason = "time"
        told, progress = self._processes.as_first(
            [_REASONS.index(reason), progress], self._task.device
        )
        return _REASONS[int(told)], progress

    def _progress(self) -> float:
        """Share of the whole run that is done."""
        if self._config.n_steps is not None:
            return self.step / self._config.n_steps
        assert self._config.n_minutes is not None
        return self._elapsed_s() / (60 * self._config.n_minutes)

    def _elapsed_s(self) -> float:
        return self._before_s + time.monotonic() - self._started

    def _make_step(self, passes: list[Any], progress: float) -> None:
        rate = rate_at(self._config.schedule, step=self.step, progress=progress)
        loss, norm = self._update(passes, rate)
        self._averages.add()
        self._n_subwords += sum(one.n_subwords for one in passes)
        record = {
            "step": self.step,
            "n_subwords": self._n_subwords,
            **self._task.facts(passes),
            "lr": self._config.optimizer.lr * rate,
        }
        self._unseen.append((record, loss, norm))
        self.step += 1

    def _update(self, passes: list[Any], rate: float) -> tuple[Tensor, Tensor]:
        """One step; the loss per prediction and the gradient's length, both () on the device."""
        # Windows without any annotation make no pass.
        n_targets = max(1, sum(one.n_targets for one in passes))
        losses = [torch.zeros((), device=self._task.device)]
        # Dropout draws by the step's number, not by what was drawn before.
        with torch.random.fork_rng(devices=self._cuda_devices()):
            torch.manual_seed((self._config.seed * _SEEDS + self.step) % 2**63)
            for one in self._processes.share(passes):
                loss = self._task.loss_sum(one) / n_targets
                loss.backward()
                losses.append(loss.detach())
        total = self._processes.add_gradients(
            self._task.parameters.values(), torch.stack(losses).sum()
        )
        return total, self._optimizers.step(rate)

    def _cuda_devices(self) -> list[torch.device]:
        return [self._task.device] if self._task.device.type == "cuda" else []

    def _look(self) -> None:
        """Fetch the losses of the last steps from the device and log them.

        RAISES VanerError: VE513; nothing of these steps is saved then.
        """
        if not self._unseen:
            return
        values = torch.stack([torch.stack(pair) for _, *pair in self._unseen]).tolist()
        now = time.monotonic()
        speed = (self._n_subwords - self._looked_at) / max(now - self._looked, 1e-9)
        self._looked, self._looked_at = now, self._n_subwords
        records = []
        for (record, *_), (loss, norm) in zip(self._unseen, values, strict=True):
            if not math.isfinite(loss) or not math.isfinite(norm):
                last = self._checkpoints.last()
                raise VanerError(Messages.VE513.format(step=record["step"], last=last))
            measured = {
                "subwords_per_s": round(speed, 1),
                "elapsed_s": round(self._elapsed_s(), 3),
                **self._task.measured(record, speed),
            }
            records.append({**record, "loss": loss, "gradient_norm": norm, **measured})
        self._unseen.clear()
        self._write(records)

    def _measure_dev(self) -> None:
        self._look()
        if not self._processes.is_first:
            return
        with self._averages.in_use():
            figures = self._task.dev_figures()
            # The step before it, so that the line is kept with that step.
            record = {"step": self.step - 1, "n_subwords": self._n_subwords, **figures}
            self._write([record])
            if "best_by" in figures:
                self._best.keep_if_better(self.step, figures["best_by"], self._task.files)
        self._looked = time.monotonic()

    def _write(self, records: list[dict[str, Any]]) -> None:
        if not self._processes.is_first:
            return
        self._log.append(records)
        if self._on_step is not None:
            for record in records:
                self._on_step(record)

    def _save(self) -> None:
        self._look()
        self._saved = time.monotonic()
        if not self._processes.is_first:
            return
        state = RunState(
            step=self.step,
            n_subwords=self._n_subwords,
            elapsed_s=self._elapsed_s(),
            config=self._config.to_dict(),
            data_sha256=self._task.data_sha256,
        )
        files = {**self._task.files(), **self._averages.files()}
        self._checkpoints.save(state, files, self._optimizers)
        self._saved = self._looked = time.monotonic()


class _Signals:
    """Takes the first SIGINT or SIGTERM as a wish to stop; the second one stops at once."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        # Only the main thread may set handlers; elsewhere whoever started us handles them.
        with contextlib.suppress(ValueError):
            for number in self._NUMBERS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()


def _compare(state: RunState, config: RunSettings, data_sha256: str, path: Path | None) -> None:
    """Refuse to go on with another run's checkpoint, and say what else has changed."""
    # Read as settings, so that one which is newer than the checkpoint had its default.
    saved = config_from_dict(state.config, type(config), source=str(path))
    before, now = _flat(saved.to_dict()), _flat(config.to_dict())
    differing = {
        key: f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key) and key not in config.FREE
    }
    wrong = [text for key, text in sorted(differing.items()) if key not in config.CHANGEABLE]
    if state.data_sha256 != data_sha256:
        wrong.append("data is another one")
    if wrong:
        raise VanerError(Messages.VE511.format(path=path, differences="; ".join(wrong)))
    if differing:
        listed = "; ".join(text for _, text in sorted(differing.items()))
        warnings.warn(Messages.VW502.format(differences=listed), VanerWarning, stacklevel=4)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
