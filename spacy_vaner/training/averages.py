"""Averages of the weights over the steps of a run: what is measured and kept instead of them.

The weights of single steps wander around a better place; their average is nearer to it, which
helps most where the loss on the training text is near zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from spacy_vaner.errors import Messages, VanerError

AVERAGES_FILE = "averages.safetensors"

_COUNT = "n_steps"


class Averages:
    """An exponential average per parameter, in fp32.

    parameters: by name, as they are now.
    decay: share of the old average that a step keeps; 0 = no averages: nothing is held, and the
        weights themselves are used. In the first steps it is lower, (1 + n) / (10 + n), so that
        the start is forgotten.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters = dict(parameters) if decay else {}
        self._decay = decay
        self._n_steps = 0
        self._averages: dict[str, Tensor] = {}
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Begin with the weights as they are."""
        self._n_steps = 0
        self._averages = {name: p.detach().float().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def add(self) -> None:
        """Take in the weights after a step."""
        self._n_steps += 1
        decay = min(self._decay, (1 + self._n_steps) / (10 + self._n_steps))
        for name, average in self._averages.items():
            average.lerp_(self._parameters[name].detach().float(), 1 - decay)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """The averages stand in the place of the weights meanwhile."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # Copied, not exchanged: compiled code and optimisers know the weights by their memory.
        for name, average in self._averages.items():
            weights = self._parameters[name]
            before = weights.detach().clone()
            weights.copy_(average)
            average.copy_(before)

    def files(self) -> dict[str, bytes]:
        """What a checkpoint holds of them; nothing where there are none."""
        if not self._averages:
            return {}
        tensors = {name: average.cpu() for name, average in self._averages.items()}
        tensors[_COUNT] = torch.tensor(self._n_steps)
        return {AVERAGES_FILE: save_tensors(tensors)}

    def set_from(self, path: Path) -> None:
        """Undo `files`, from a folder.

        RAISES VanerError: VE514, the file is missing, damaged or of other weights.
        """
        if not self._averages:
            return
        try:
            tensors = load_tensors((path / AVERAGES_FILE).read_bytes())
            self._n_steps = int(tensors.pop(_COUNT))
            shapes = {name: average.shape for name, average in self._averages.items()}
            if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
                raise ValueError("averages of other weights")
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise VanerError(
                Messages.VE514.format(path=path / AVERAGES_FILE, reason=error)
            ) from None
        for name, average in self._averages.items():
            average.copy_(tensors[name])
