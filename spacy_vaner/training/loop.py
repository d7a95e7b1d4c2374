"""The pretraining loop: steps, dev loss, log, checkpoints, and where to stop.

Nothing that happens depends on the past but through the checkpoint: on a CPU, with the same number
of threads, a run that was killed and resumed gives the same losses to the bit. On CUDA some sums
are added up in varying order, so they agree within rounding only.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor

from spacy_vaner.backbone.device import choose_device, choose_precision
from spacy_vaner.backbone.word_features import WordVectors
from spacy_vaner.errors import Messages, VanerError, VanerWarning
from spacy_vaner.training.batches import Batch, Batches
from spacy_vaner.training.checkpoints import Checkpoints, RunState, backbone_files, write_folder
from spacy_vaner.training.config import PretrainConfig
from spacy_vaner.training.language_model import (
    LanguageModel,
    autocast,
    flops_per_subword,
    make_decoder,
    set_weights,
)
from spacy_vaner.training.log import LOG_FILE, Log
from spacy_vaner.training.optimizers import Optimizers, rate_at
from spacy_vaner.training.token_file import PreparedText

CHECKPOINTS_FOLDER = "checkpoints"
BACKBONE_FOLDER = "backbone"

# Steps between two looks at the loss: each one waits for the device.
_LOOK_STEPS = 10
# exp beyond it is no float.
_HIGHEST_EXPONENT = 700.0

# What may differ when a run goes on: what does not change its losses, and what lengthens it.
_FREE = {"max_minutes", "checkpoint_minutes", "dev_steps", "dev_rows", "peak_tflops"} | {
    *("data", "backbone.vectors"),
}
_CHANGEABLE = {"device", "precision", "attn_implementation", "n_threads", "compile"} | {
    *("n_steps", "n_minutes", "optimizer.lr", "optimizer.clip_norm", "optimizer.weight_decay"),
    *("schedule.name", "schedule.warmup_steps", "schedule.decay_share", "schedule.final_share"),
    "rows_per_pass",
}

OnStep = Callable[[dict[str, Any]], None]
"""Called with every line of the log."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    reason: "finished", "time" (max_minutes) or "signal".
    checkpoint: the newest one.
    backbone: folder with the finished backbone; None while the run is not finished.
    signal: number of the signal, 0 for none.
    """

    reason: Literal["finished", "time", "signal"]
    step: int
    checkpoint: Path
    backbone: Path | None
    signal: int = 0


def pretrain(
    config: PretrainConfig,
    output: Path,
    *,
    resume: bool = False,
    init_weights: Path | None = None,
    on_step: OnStep | None = None,
) -> Outcome:
    """Train a backbone to its end, to the time limit, or to the first SIGINT or SIGTERM.

    output: folder of the run: log.jsonl, checkpoints/, and backbone/ when it is finished.
    resume: go on from the newest checkpoint there; where there is none, start.
    init_weights: folder or file of weights to start from, with fresh optimisers.
    RAISES VanerError: VE507, VE517, the text; VE509, VE511, VE512, VE514, the run's files; VE513,
        a loss that is no number; VE101, VE103-VE105, settings.
    """
    if config.n_threads is not None:
        torch.set_num_threads(config.n_threads)
    checkpoints = Checkpoints(output / CHECKPOINTS_FOLDER)
    if checkpoints.paths() and not resume:
        raise VanerError(Messages.VE509.format(path=output))
    run = _Run(config)
    log = Log(output / LOG_FILE)
    if checkpoints.paths():
        state = checkpoints.load(run.decoder, run.optimizers)
        _compare(state, config, run.text, checkpoints.last())
    else:
        if init_weights is not None:
            set_weights(run.decoder, init_weights)
        output.mkdir(parents=True, exist_ok=True)
        state = RunState(0, 0, 0.0, config.to_dict(), run.text.header.sha256["train"])
    log.cut_to(state.step)
    loop = _Loop(run, state, checkpoints, log, on_step)
    with _Signals() as signals:
        reason = loop.train(signals)
    last = checkpoints.last()
    assert last is not None
    backbone = None
    if reason == "finished":
        backbone = output / BACKBONE_FOLDER
        write_folder(backbone, backbone_files(run.decoder, run.text.tokenizer, torch.float32))
    return Outcome(reason, loop.step, last, backbone, signals.received)


class _Run:
    """What a run computes with, made from its settings."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        data = Path(config.data)
        self.text = PreparedText.open(data)
        attention = config.attn_implementation
        if attention == "auto":
            slow_sdpa = self.device.type == "cpu" and self.precision == "bf16"
            attention = "eager" if slow_sdpa else "sdpa"
        settings = config.backbone.settings(attention)
        vocabulary = self.text.vocabulary
        shape = config.backbone
        self.decoder = make_decoder(
            settings,
            self.text.tokenizer,
            seed=config.seed,
            word_rows=shape.word_rows,
            word_width=shape.word_width,
            vectors=WordVectors.from_file(Path(shape.vectors)) if shape.vectors else None,
        )
        self.decoder.to(self.device)
        trained = {n: p for n, p in self.decoder.named_parameters() if p.requires_grad}
        self.optimizers = Optimizers(trained, config.optimizer, precision=self.precision)
        model = LanguageModel(self.decoder)
        self.model: Callable[..., Tensor] = torch.compile(model) if config.compile else model

        def batches(split: str) -> Batches:
            return Batches(
                self.text.train if split == "train" else self.text.dev,
                objective=config.objective,
                vocabulary=vocabulary,
                row_subwords=config.row_subwords,
                seed=config.seed,
                split=split,
                path=data,
            )

        self.batches = batches("train")
        self.dev = batches("dev").fixed(n_rows=config.dev_rows, rows_per_pass=config.rows_per_pass)
        objective = config.objective
        self._flops = {
            causal: flops_per_subword(
                self.decoder, row_subwords=config.row_subwords, predicted_share=share
            )
            for causal, share in ((False, objective.masking_rate), (True, objective.causal_rate))
        }

    def loss_sum(self, batch: Batch) -> Tensor:
        """() the sum of the losses of a pass."""
        input_ids, positions, targets = (
            torch.from_numpy(array).to(self.device)
            for array in (batch.input_ids, batch.positions, batch.targets)
        )
        with autocast(self.device, self.precision):
            loss: Tensor = self.model(input_ids, positions, targets, batch.causal)
        return loss

    def update(self, passes: list[Batch], rate: float) -> tuple[Tensor, Tensor]:
        """One step; the loss per prediction and the gradient's length, both () on the device."""
        n_predictions = sum(len(batch.targets) for batch in passes)
        losses = []
        for batch in passes:
            loss = self.loss_sum(batch) / n_predictions
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return torch.stack(losses).sum(), self.optimizers.step(rate)

    def dev_loss(self) -> float:
        """The loss per prediction over the dev rows, in nats."""
        with torch.no_grad():
            total = sum(float(self.loss_sum(batch)) for batch in self.dev)
        return total / sum(len(batch.targets) for batch in self.dev)

    def flops_share(self, causal: bool, subwords_per_s: float) -> dict[str, float]:
        """The share of the device's rate that the model's own operations take, if it is known."""
        if self.config.peak_tflops is None:
            return {}
        return {
            "flops_share": self._flops[causal] * subwords_per_s / self.config.peak_tflops / 1e12
        }


class _Loop:
    """The steps of one start of a run, from a state on."""

    def __init__(
        self,
        run: _Run,
        state: RunState,
        checkpoints: Checkpoints,
        log: Log,
        on_step: OnStep | None,
    ) -> None:
        self._run = run
        self._config = run.config
        self._checkpoints = checkpoints
        self._log = log
        self._on_step = on_step
        self._subwords_per_step = run.config.rows_per_step * run.config.row_subwords
        self._before_s = state.elapsed_s
        self._first_step = self.step = state.step
        self._started = self._saved = self._looked = time.monotonic()
        self._unseen: list[tuple[dict[str, Any], Tensor, Tensor]] = []

    def train(self, signals: _Signals) -> Literal["finished", "time", "signal"]:
        """Make steps until one of the three holds; the last checkpoint is written at the end."""
        config = self._config
        with ThreadPoolExecutor(max_workers=1) as ahead:
            next_passes = ahead.submit(self._passes, self.step)
            reason = self._stop(signals)
            while reason is None:
                passes = next_passes.result()
                next_passes = ahead.submit(self._passes, self.step + 1)
                self._make_step(passes)
                if len(self._unseen) >= _LOOK_STEPS:
                    self._look()
                if self.step % config.dev_steps == 0:
                    self._log_dev_loss()
                if time.monotonic() - self._saved >= 60 * config.checkpoint_minutes:
                    self._save()
                reason = self._stop(signals)
        if self.step != self._first_step:
            if reason == "finished" and self.step % config.dev_steps:
                self._log_dev_loss()
            self._save()
        elif self._checkpoints.last() is None:
            self._save()
        return reason

    def _stop(self, signals: _Signals) -> Literal["finished", "time", "signal"] | None:
        limit = self._config.max_minutes
        if self._progress() >= 1:
            return "finished"
        if signals.received:
            return "signal"
        if limit is not None and time.monotonic() - self._started >= 60 * limit:
            return "time"
        return None

    def _progress(self) -> float:
        """Share of the whole run that is done."""
        if self._config.n_steps is not None:
            return self.step / self._config.n_steps
        assert self._config.n_minutes is not None
        return self._elapsed_s() / (60 * self._config.n_minutes)

    def _elapsed_s(self) -> float:
        return self._before_s + time.monotonic() - self._started

    def _passes(self, step: int) -> list[Batch]:
        config = self._config
        return self._run.batches.step(
            step, n_rows=config.rows_per_step, rows_per_pass=config.rows_per_pass
        )

    def _make_step(self, passes: list[Batch]) -> None:
        rate = rate_at(self._config.schedule, step=self.step, progress=self._progress())
        loss, norm = self._run.update(passes, rate)
        record = {
            "step": self.step,
            "n_subwords": (self.step + 1) * self._subwords_per_step,
            "causal": passes[0].causal,
            "lr": self._config.optimizer.lr * rate,
        }
        self._unseen.append((record, loss, norm))
        self.step += 1

    def _look(self) -> None:
        """Fetch the losses of the last steps from the device and log them.

        RAISES VanerError: VE513; nothing of these steps is saved then.
        """
        if not self._unseen:
            return
        values = torch.stack([torch.stack(pair) for _, *pair in self._unseen]).tolist()
        now = time.monotonic()
        speed = len(self._unseen) * self._subwords_per_step / max(now - self._looked, 1e-9)
        self._looked = now
        records = []
        for (record, *_), (loss, norm) in zip(self._unseen, values, strict=True):
            if not math.isfinite(loss) or not math.isfinite(norm):
                last = self._checkpoints.last()
                raise VanerError(Messages.VE513.format(step=record["step"], last=last))
            measured = {
                "subwords_per_s": round(speed, 1),
                "elapsed_s": round(self._elapsed_s(), 3),
                **self._run.flops_share(record["causal"], speed),
            }
            records.append({**record, "loss": loss, "gradient_norm": norm, **measured})
        self._unseen.clear()
        self._write(records)

    def _log_dev_loss(self) -> None:
        self._look()
        loss = self._run.dev_loss()
        record = {
            # The step before it, so that the line is kept with that step.
            "step": self.step - 1,
            "n_subwords": self.step * self._subwords_per_step,
            "dev_loss": loss,
            "dev_perplexity": math.exp(min(loss, _HIGHEST_EXPONENT)),
        }
        self._write([record])
        self._looked = time.monotonic()

    def _write(self, records: list[dict[str, Any]]) -> None:
        self._log.append(records)
        if self._on_step is not None:
            for record in records:
                self._on_step(record)

    def _save(self) -> None:
        self._look()
        run = self._run
        state = RunState(
            step=self.step,
            n_subwords=self.step * self._subwords_per_step,
            elapsed_s=self._elapsed_s(),
            config=self._config.to_dict(),
            data_sha256=run.text.header.sha256["train"],
        )
        self._checkpoints.save(state, run.decoder, run.optimizers, run.text.tokenizer)
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


def _compare(
    state: RunState, config: PretrainConfig, text: PreparedText, path: Path | None
) -> None:
    """Refuse to go on with another run's checkpoint, and say what else has changed."""
    before, now = _flat(state.config), _flat(config.to_dict())
    differing = {
        key: f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key) and key not in _FREE
    }
    wrong = [text for key, text in sorted(differing.items()) if key not in _CHANGEABLE]
    if state.data_sha256 != text.header.sha256["train"]:
        wrong.append("data is another text")
    if wrong:
        raise VanerError(Messages.VE511.format(path=path, differences="; ".join(wrong)))
    if differing:
        listed = "; ".join(text for _, text in sorted(differing.items()))
        warnings.warn(Messages.VW502.format(differences=listed), VanerWarning, stacklevel=3)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
