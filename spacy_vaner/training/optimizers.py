"""AdamW and Muon, the learning rate over a run, and their state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spacy_vaner.training.config import OptimizerSettings, Schedule

_NOT_HIDDEN = ("embed_tokens", "head.")
_ADAMW_EPS = 1e-8
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")

# Quintic iteration: singular values from 0.001 on come near 1 within five rounds.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_ROUNDS = 5
# Root mean square of an AdamW step, which Muon's is scaled to.
_ADAMW_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal before it is applied.

    lr, momentum, weight_decay: as in OptimizerSettings; the step's root mean square is AdamW's, so
        both take the same rate.
    params: matrices; those of one shape are computed together.
    dtype: that the iteration computes in; bf16 is enough, since it only has to come near 1.
    SOURCE: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the
        scale of the step: Liu et al., "Muon is scalable for LLM training" (2025), section 2.2.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move the weights; a closure is not used."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for param in group["params"]:
                if param.grad is not None:
                    by_shape.setdefault(param.shape, []).append(param)
            for params in by_shape.values():
                updates = []
                for param in params:
                    state = self.state[param]
                    if not state:
                        state["momentum"] = torch.zeros_like(param)
                    gradient: Any = param.grad
                    average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
                    # Nesterov's form, as in the source.
                    updates.append(gradient.lerp(average, group["momentum"]))
                steps = orthogonal(torch.stack(updates).to(self._dtype))
                scale = _ADAMW_RMS * math.sqrt(max(params[0].shape))
                for param, step in zip(params, steps.unbind(), strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"])
                    param.add_(step.to(param.dtype), alpha=-group["lr"] * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices whose singular values are all 1, roughly (0.7 to 1.2).

    matrices: (n, rows, columns).
    RETURNS: the same shape and dtype.
    """
    a, b, c = _NEWTON_SCHULZ
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_NEWTON_SCHULZ_ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x


class Optimizers:
    """One or two optimisers that are used as one.

    named_parameters: all that are moved, by name.
    precision: "fp32" or "bf16", for Muon's own computing; states are fp32.
    rates: share of the learning rate by name; a name that is missing has all of it.
    """

    def __init__(
        self,
        named_parameters: Mapping[str, nn.Parameter],
        settings: OptimizerSettings,
        *,
        precision: str = "fp32",
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self._parameters = dict(named_parameters)
        self._lr = settings.lr
        self._clip_norm = settings.clip_norm
        groups: dict[tuple[str, float], list[nn.Parameter]] = {}
        for name, parameter in self._parameters.items():
            if parameter.ndim != 2:
                kind = "others"
            elif settings.name == "muon" and not any(part in name for part in _NOT_HIDDEN):
                kind = "hidden"
            else:
                kind = "decayed"
            groups.setdefault((kind, (rates or {}).get(name, 1.0)), []).append(parameter)

        def group(*kinds: str, **options: float) -> list[dict[str, Any]]:
            """The groups of some kinds, each with the share of the rate that it takes."""
            return [
                {"params": parameters, "share": share, **options}
                for (kind, share), parameters in groups.items()
                if kind in kinds
            ]

        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [
                    *group("decayed", weight_decay=settings.weight_decay),
                    *group("others", weight_decay=0.0),
                ],
                lr=settings.lr,
                betas=(settings.beta1, settings.beta2),
                eps=_ADAMW_EPS,
            )
        ]
        if hidden := group("hidden"):
            muon = Muon(
                hidden,
                lr=settings.lr,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
                dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
            )
            self._optimizers.append(muon)

    def step(self, rate: float) -> Tensor:
        """Clip the gradients, move the weights, clear the gradients.

        rate: of the highest learning rate.
        RETURNS: (), the gradient's length before clipping.
        """
        parameters = list(self._parameters.values())
        norm: Tensor = nn.utils.clip_grad_norm_(parameters, self._clip_norm or math.inf)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._lr * rate * group["share"]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The state, "PARAMETER:KEY" → tensor on the CPU."""
        return {
            f"{name}:{key}": value.detach().cpu()
            for name, parameter in self._parameters.items()
            for optimizer in self._optimizers
            if parameter in optimizer.state
            for key, value in optimizer.state[parameter].items()
        }

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo `tensors`.

        RAISES ValueError: tensors of other parameters, shapes or optimisers.
        """
        wanted = {}
        for optimizer in self._optimizers:
            keys = ("momentum",) if isinstance(optimizer, Muon) else _MOMENTS
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    wanted[parameter] = (optimizer, keys)
        expected = {
            f"{name}:{key}": torch.Size([]) if key == "step" else parameter.shape
            for name, parameter in self._parameters.items()
            for key in wanted[parameter][1]
        }
        found = {name: tensor.shape for name, tensor in tensors.items()}
        if found != expected:
            differing = sorted(found.items() ^ expected.items(), key=lambda item: item[0])
            raise ValueError(f"the optimiser's state differs, first at {differing[0][0]}")
        for name, parameter in self._parameters.items():
            optimizer, keys = wanted[parameter]
            # AdamW counts its steps on the CPU.
            optimizer.state[parameter] = {
                key: tensors[f"{name}:{key}"].to("cpu" if key == "step" else parameter.device)
                for key in keys
            }


def rate_at(schedule: Schedule, *, step: int, progress: float) -> float:
    """The learning rate as a share of the highest one.

    step: from 0.
    progress: share of the whole run that is done, 0 to 1, in steps or minutes.
    """
    warmup = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
    progress = min(max(progress, 0.0), 1.0)
    if schedule.name == "cosine":
        height = 0.5 * (1 + math.cos(math.pi * progress))
    elif schedule.name == "linear":
        height = 1 - progress
    else:
        height = min(1.0, (1 - progress) / schedule.decay_share) if schedule.decay_share else 1.0
    return warmup * (schedule.final_share + (1 - schedule.final_share) * height)
