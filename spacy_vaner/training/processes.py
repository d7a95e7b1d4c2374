"""The processes that train one run together, one per GPU: each takes its share of every step.

All of them read the same passes and hold the same weights, so only gradients travel. What the clock
or a signal decides, the first one decides for all; it alone writes files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from spacy_vaner.errors import Messages, VanerError

AnyPass = TypeVar("AnyPass")


class Processes:
    """One process of several, or the only one.

    rank: from 0. n: how many.
    """

    def __init__(self, rank: int = 0, n: int = 1) -> None:
        self.rank = rank
        self.n = n

    @classmethod
    def joined(cls, device: str) -> Processes:
        """Join those that `accelerate launch` or `torchrun` started; alone without them.

        device: the setting; on CUDA each process takes the GPU of its number.
        RAISES VanerError: VE532, accelerate is not installed; VE533, a GPU is named.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        if device not in ("auto", "cpu", "cuda"):
            raise VanerError(Messages.VE533.format(device=device))
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise VanerError(Messages.VE532.format(reason=error)) from None
        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, passes: Sequence[AnyPass]) -> Sequence[AnyPass]:
        """This process's part of the passes of a step."""
        return passes[self.rank :: self.n]

    def add_gradients(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
        """Give every process the sum of all gradients; RETURNS: the sum of their losses, ()."""
        if self.n == 1:
            return loss
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:  # no pass of this process came by
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad.flatten() for p in parameters if p.grad is not None]
        flat = torch.cat([loss.reshape(1), *gradients])
        torch.distributed.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        parts: Sequence[Tensor] = cast(Any, flat[1:]).split(sizes)
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return flat[0]

    def as_first(self, values: Sequence[float], device: torch.device) -> list[float]:
        """What the first process says, in all of them."""
        if self.n == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.broadcast(told, 0)
        found: list[float] = told.tolist()
        return found

    def wait(self) -> None:
        """Until all are here."""
        if self.n > 1:
            torch.distributed.barrier()

    def leave(self) -> None:
        """Part; nothing may be exchanged afterwards."""
        if self.n > 1:
            torch.distributed.destroy_process_group()
