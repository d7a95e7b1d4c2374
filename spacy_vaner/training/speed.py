"""How fast backbones of several shapes train and read, by the clock and by the device's rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from spacy_vaner.backbone.attention import bidirectional_mask
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.training.config import PretrainConfig
from spacy_vaner.training.language_model import autocast, flops_per_subword
from spacy_vaner.training.optimizers import Optimizers
from spacy_vaner.training.pretraining import Pretraining

# Rows and columns of the matrices whose product is the device's rate: large enough to reach it,
# small enough for the cache.
_PROBE = 1536
_PROBE_ROUNDS = 5


@dataclass(frozen=True)
class ShapeSpeed:
    """What was measured of a shape.

    shape: "hidden x layers x heads x intermediate".
    n_parameters: without embeddings and tables of words; n_embeddings: these.
    training, reading: subwords per second, a whole step and a forward pass.
    training_share, reading_share: of the device's rate, by the model's own operations.
    """

    shape: str
    n_parameters: int
    n_embeddings: int
    training: float
    training_share: float
    reading: float
    reading_share: float


def parse_shape(text: str) -> dict[str, int]:
    """ "384x4x6x1024" → settings of `backbone`. RAISES VanerError: VE520."""
    names = ("hidden_size", "n_layers", "n_heads", "intermediate_size")
    parts = text.lower().split("x")
    if len(parts) != len(names) or not all(part.isdigit() for part in parts):
        problem = f"--shape {text}: expected HIDDENxLAYERSxHEADSxINTERMEDIATE."
        raise VanerError(Messages.VE520.format(problem=problem))
    return dict(zip(names, map(int, parts), strict=True))


def matrix_rate(device: torch.device, precision: str) -> float:
    """Floating-point operations per second of a large product of matrices."""
    a = torch.randn(_PROBE, _PROBE, device=device)
    with autocast(device, precision):
        seconds = _seconds(lambda: a @ a, _PROBE_ROUNDS, device)
    return 2 * _PROBE**3 / seconds


def measure_speed(
    config: PretrainConfig, shapes: Iterable[dict[str, int]], *, n_steps: int
) -> tuple[float, list[ShapeSpeed]]:
    """Make steps with each shape, after one that is not counted.

    config: of the runs; `backbone` is what the shapes change.
    RETURNS: the device's rate, as `matrix_rate`, and a line per shape.
    RAISES VanerError: VE507, VE517, the text; VE101, a shape that is none.
    """
    if config.n_threads is not None:
        torch.set_num_threads(config.n_threads)
    rate, found = 0.0, []
    for shape in shapes:
        backbone = replace(config.backbone, **cast(dict[str, Any], shape))
        task = Pretraining(replace(config, backbone=backbone))
        rate = rate or matrix_rate(task.device, task.precision)
        found.append(_measure(task, n_steps, rate))
    return rate, found


def _measure(task: Pretraining, n_steps: int, rate: float) -> ShapeSpeed:
    config, shape = task.config, task.config.backbone
    optimizers = Optimizers(task.parameters, config.optimizer, precision=task.precision)
    numbers = iter(range(n_steps + 1))

    def step() -> None:
        passes = task.passes(next(numbers))
        for batch in passes:
            loss: Any = task.loss_sum(batch) / batch.n_targets
            loss.backward()
        # A rate of 0: the time of a step without what it learns.
        optimizers.step(0.0)

    n_subwords = config.rows_per_step * config.row_subwords
    training = n_subwords / _seconds(step, n_steps, task.device)
    decoder: Any = task.decoder.eval()
    rows = torch.from_numpy(task.dev[0].input_ids).to(task.device)
    size = rows.shape[1]
    mask = bidirectional_mask(torch.full((len(rows),), size, device=rows.device), size, torch.float)

    def read() -> None:
        with torch.inference_mode(), autocast(task.device, task.precision):
            decoder(input_ids=rows, attention_mask=mask, use_cache=False)

    reading = rows.numel() / _seconds(read, n_steps, task.device)
    sizes = {name: p.numel() for name, p in decoder.named_parameters()}
    n_embeddings = sum(n for name, n in sizes.items() if "embed_tokens" in name)
    # Reading takes a third of a training step that predicts subwords nowhere.
    of_reading = flops_per_subword(
        decoder, row_subwords=size, predicted_share=1.0, predicts_subwords=False
    )
    return ShapeSpeed(
        shape="x".join(
            str(n)
            for n in (shape.hidden_size, shape.n_layers, shape.n_heads, shape.intermediate_size)
        ),
        n_parameters=sum(sizes.values()) - n_embeddings,
        n_embeddings=n_embeddings,
        training=training,
        training_share=training * task.flops_per_subword(causal=False) / rate,
        reading=reading,
        reading_share=reading * of_reading / 3 / rate,
    )


def speed_table(config: PretrainConfig, rate: float, found: Iterable[ShapeSpeed]) -> str:
    """The figures in Markdown."""
    lines = [
        ("shape", "parameters", "embeddings", "training", "share", "reading", "share"),
        ("---",) * 7,
        *(
            (
                one.shape,
                f"{one.n_parameters / 1e6:.1f} million",
                f"{one.n_embeddings / 1e6:.1f} million",
                f"{one.training:,.0f}",
                f"{one.training_share:.0%}",
                f"{one.reading:,.0f}",
                f"{one.reading_share:.0%}",
            )
            for one in found
        ),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{table}\n\nSubwords per second; {config.rows_per_step} rows of {config.row_subwords} a "
        f"step, {config.objective.name} at {config.objective.masking_rate:.0%}, "
        f"{config.optimizer.name}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"share of {rate / 1e9:,.0f} GFLOP/s, a product of matrices of {_PROBE} squared.\n"
    )


def _seconds(compute: Callable[[], object], rounds: int, device: torch.device) -> float:
    """The time of a round, after one that is not counted."""

    def now() -> float:
        if device.type == "cuda":
            cast(Any, torch.cuda).synchronize(device)
        return time.perf_counter()

    compute()
    started = now()
    for _ in range(rounds):
        compute()
    return (now() - started) / rounds
