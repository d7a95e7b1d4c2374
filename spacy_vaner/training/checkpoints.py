"""Checkpoints: everything that a run needs to go on, written beside and renamed.

A checkpoint is a folder `step-NNNNNNNN`: the files of what is trained (for a backbone an ordinary
folder of a Hugging Face model in fp32, for a tagger a saved tagger), with optimizer.safetensors and
state.json added, so every checkpoint can be used as it is. No file is unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from spacy_vaner.errors import Messages, VanerError, VanerWarning
from spacy_vaner.training.optimizers import Optimizers

FORMAT_VERSION = 1
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
BEST_FOLDER = "best"
N_KEPT = 2

_PREFIX = "step-"
_BEST_FILE = "best.json"


class HasWeights(Protocol):
    """What a checkpoint is loaded into; see `Task` in loop.py."""

    @property
    def weights_file(self) -> str: ...

    def set_weights(self, path: Path) -> None: ...


@dataclass(frozen=True)
class RunState:
    """Where a run stands.

    step: steps that are done.
    n_subwords: read so far.
    elapsed_s: of training, over all starts.
    config: the settings as plain values.
    data_sha256: of what is read.
    """

    step: int
    n_subwords: int
    elapsed_s: float
    config: dict[str, Any]
    data_sha256: str
    format_version: int = FORMAT_VERSION


class Checkpoints:
    """The checkpoints of a run, in one folder; the last two are kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def paths(self) -> list[Path]:
        """The complete ones, the newest last."""
        return sorted(path for path in self._folder.glob(f"{_PREFIX}*") if path.suffix != ".part")

    def save(self, state: RunState, weights: Mapping[str, bytes], optimizers: Optimizers) -> Path:
        """Write a checkpoint, then remove those that are too old.

        weights: the files of what is trained, by name.
        RAISES VanerError: VE512, e.g. a full disk; the earlier ones are still there.
        """
        path = self._folder / f"{_PREFIX}{state.step:08d}"
        files = {
            **weights,
            OPTIMIZER_FILE: save_tensors(optimizers.tensors()),
            STATE_FILE: json.dumps(asdict(state), indent=2).encode("utf8"),
        }
        write_folder(path, files, last=self.last())
        for old in self.paths()[:-N_KEPT]:
            shutil.rmtree(old)
        return path

    def last(self) -> Path | None:
        """The newest one."""
        paths = self.paths()
        return paths[-1] if paths else None

    def load(self, task: HasWeights, optimizers: Optimizers) -> RunState:
        """Set weights and optimisers to the newest checkpoint that can be read.

        RAISES VanerError: VE510, there is none; VE511, VE514, it is of another shape.
        """
        damaged: VanerError | None = None
        for path in reversed(self.paths()):
            try:
                state, tensors = _read(path, task.weights_file)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                damaged = damaged or VanerError(Messages.VE514.format(path=path, reason=error))
                warnings.warn(
                    Messages.VW501.format(path=path, reason=error), VanerWarning, stacklevel=2
                )
                continue
            task.set_weights(path)
            try:
                if state.step:
                    optimizers.set_tensors(tensors)
            except ValueError as error:
                raise VanerError(Messages.VE511.format(path=path, differences=error)) from None
            return state
        raise damaged or VanerError(Messages.VE510.format(path=self._folder))


class Best:
    """The weights that did best on dev so far, in the folder `best` of a run.

    The folder says itself how good they are, so a run that goes on from a checkpoint before them
    does not lose them.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / BEST_FOLDER

    def keep_if_better(
        self, step: int, figure: float, files: Callable[[], Mapping[str, bytes]]
    ) -> bool:
        """Write the weights if their figure is higher than that of those that are there.

        RAISES VanerError: VE512.
        """
        known = self._figure()
        if known is not None and figure <= known:
            return False
        facts = json.dumps({"step": step, "figure": figure}).encode("utf8")
        write_folder(self.path, {**files(), _BEST_FILE: facts})
        return True

    def forget(self) -> None:
        """Remove what another run left."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _figure(self) -> float | None:
        try:
            return float(json.loads((self.path / _BEST_FILE).read_text("utf8"))["figure"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def write_folder(path: Path, files: Mapping[str, bytes], *, last: Path | None = None) -> None:
    """Write a folder beside, to the disk, and rename it; one that is there is replaced.

    last: named in the message as what is still there.
    RAISES VanerError: VE512.
    """
    beside = path.with_name(path.name + ".part")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, content in files.items():
            with (beside / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            shutil.rmtree(path)
        beside.rename(path)
        _sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise VanerError(Messages.VE512.format(path=path, error=error, last=last)) from error


def _read(path: Path, weights_file: str) -> tuple[RunState, dict[str, torch.Tensor]]:
    values = json.loads((path / STATE_FILE).read_text("utf8"))
    if values["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format {values['format_version']}, expected {FORMAT_VERSION}")
    # Both are opened before anything is set, so that a damaged one changes nothing.
    load_tensors((path / weights_file).read_bytes())
    return RunState(**values), load_tensors((path / OPTIMIZER_FILE).read_bytes())


def _sync_folder(folder: Path) -> None:
    # Without it a power cut can undo the rename.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
