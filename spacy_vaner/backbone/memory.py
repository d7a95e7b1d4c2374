"""How much memory a backbone takes, counted from its config alone: no weight is loaded or made.

Weights, gradients and the optimiser's averages are counted exactly, on torch's meta device.
Activations are estimated, as `training_memory` and `prediction_memory` say. What CUDA itself takes
(its context, fragments) is not in it: allow for one more GiB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import Messages, VanerError
from .lora import adapter_parameters, add_adapter
from .pretrained import config_from_json, fresh_decoder, hub_failure
from .settings import Lora

STORAGES = ("fp32", "bf16", "int8", "nf4")
"""How weights are held: all in 4 or 2 bytes, or linear layers quantised and the rest in bf16."""

SHAPES: dict[str, dict[str, Any]] = {
    "llama-2-7b": {"model_type": "llama"},  # which transformers takes for granted
    "llama-3-8b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
    },
    "mistral-7b": {"model_type": "mistral"},
    "qwen2.5-7b": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
}
"""Well-known backbones, by what their config.json says on sizes."""

_GIB = 2**30
_HALF, _FULL = 2, 4
# bitsandbytes: weights per scale, scales per scale of scales, and its two tables with an offset.
_NF4_BLOCK, _NF4_BLOCKS = 64, 256
_NF4_TABLES_BYTES = 4 * (16 + 256 + 1)
_LABELS = 3


@dataclass(frozen=True)
class Counts:
    """What a backbone with an adapter consists of.

    linear: (inputs, outputs) of every linear layer without its bias.
    adapted_inputs: inputs of all layers with an adapter, summed.
    n_others: parameters that are in no linear layer's matrix: embeddings, norms, biases.
    n_trained: parameters of adapter and head.
    hidden_size, n_layers, attention_size, intermediate_size: of a layer; attention_size = heads
        times their size.
    """

    linear: tuple[tuple[int, int], ...]
    adapted_inputs: int
    n_others: int
    n_trained: int
    hidden_size: int
    n_layers: int
    attention_size: int
    intermediate_size: int

    @property
    def n_parameters(self) -> int:
        """Of the backbone, without adapter and head."""
        return sum(inputs * outputs for inputs, outputs in self.linear) + self.n_others


@dataclass(frozen=True)
class Memory:
    """Bytes by what they are for; `dense` is the largest layer while its weights are fine again."""

    weights: int
    trained: int
    gradients: int
    optimizer: int
    activations: int
    dense: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())


def read_shape(backbone: str) -> dict[str, Any]:
    """Find the config of a backbone.

    backbone: a name in `SHAPES`, a config.json, a folder with one, or a name on the hub, whose
        config.json alone is fetched.
    RAISES VanerError: VE120, it is nowhere; VE122, it cannot be read.
    """
    if backbone.lower() in SHAPES:
        return dict(SHAPES[backbone.lower()])
    path = Path(backbone).expanduser()
    if path.is_dir():
        path = path / "config.json"
    elif not path.exists():
        from huggingface_hub import hf_hub_download

        try:
            path = Path(hf_hub_download(backbone, "config.json"))
        except (OSError, ValueError) as error:
            reason = f"{hub_failure(error)}; known by name are {', '.join(SHAPES)}"
            raise VanerError(Messages.VE120.format(name=backbone, error=reason)) from None
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VanerError(Messages.VE122.format(path=path, error=repr(error))) from None
    return config


def count(config: Mapping[str, Any], adapter: Lora) -> Counts:
    """Count what a backbone with an adapter and a head consists of.

    config: as in config.json.
    RAISES VanerError: VE107, transformers knows no such backbone; VE127, no layer for the adapter.
    """
    try:
        parsed: Any = config_from_json(config)
        with torch.device("meta"):
            decoder = fresh_decoder(parsed, "eager")
        n_heads, n_layers = parsed.num_attention_heads, parsed.num_hidden_layers
        intermediate_size = parsed.intermediate_size
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        name = config.get("model_type")
        raise VanerError(Messages.VE107.format(backbone=name, error=error)) from None
    layers = {name: m for name, m in decoder.named_modules() if isinstance(m, nn.Linear)}
    linear = tuple((layer.in_features, layer.out_features) for layer in layers.values())
    n_linear = sum(inputs * outputs for inputs, outputs in linear)
    n_parameters = sum(parameter.numel() for parameter in decoder.parameters())
    with torch.device("meta"):
        trained = adapter_parameters(add_adapter(decoder, adapter))
    hidden_size = parsed.hidden_size
    n_head = hidden_size * _LABELS + _LABELS
    return Counts(
        linear=linear,
        # The first matrix of an adapted layer is (rank, inputs).
        adapted_inputs=sum(p.shape[1] for name, p in trained.items() if "lora_A" in name),
        n_others=n_parameters - n_linear,
        n_trained=sum(parameter.numel() for parameter in trained.values()) + n_head,
        hidden_size=hidden_size,
        n_layers=n_layers,
        attention_size=n_heads * (getattr(parsed, "head_dim", None) or hidden_size // n_heads),
        intermediate_size=intermediate_size,
    )


def weights_bytes(counts: Counts, storage: str) -> int:
    """Of the backbone's weights: exact."""
    if storage in ("fp32", "bf16"):
        return counts.n_parameters * (_FULL if storage == "fp32" else _HALF)
    if storage == "int8":
        # A code per weight and a scale per output.
        linear = sum(n * m + _FULL * m for n, m in counts.linear)
    else:
        linear = 0
        for inputs, outputs in counts.linear:
            n_scales = -(-inputs * outputs // _NF4_BLOCK)
            linear += -(-inputs * outputs // 2) + n_scales
            linear += _FULL * -(-n_scales // _NF4_BLOCKS) + _NF4_TABLES_BYTES
    return linear + _HALF * counts.n_others


def training_memory(
    counts: Counts, storage: str, *, rows: int, subwords: int, gradient_checkpointing: bool
) -> Memory:
    """What a step of training takes, with AdamW, in bf16 (fp32 where the weights are).

    Adapter, head, their gradients and two averages are fp32. Kept for the gradients, per subword,
    with b bytes per value (2 in bf16), where attention keeps no scores (sdpa on CUDA): per layer
    16 hidden_size (norms, in fp32) + 4 b attention_size (query, key, value, result)
    + 3 b intermediate_size (the gated product), and per input of an adapted layer b + 1 (the
    input after dropout, and its mask). With gradient_checkpointing: of one layer only, and the
    inputs of all others.

    rows, subwords: of a pass, padding and instruction included.
    """
    value = _FULL if storage == "fp32" else _HALF
    layer = (
        16 * counts.hidden_size
        + 4 * value * counts.attention_size
        + 3 * value * counts.intermediate_size
        + (value + 1) * counts.adapted_inputs // counts.n_layers
    )
    if gradient_checkpointing:
        kept = layer + value * counts.hidden_size * counts.n_layers
    else:
        kept = layer * counts.n_layers
    trained = _FULL * counts.n_trained
    return Memory(
        weights=weights_bytes(counts, storage),
        trained=trained,
        gradients=trained,
        optimizer=2 * trained,
        activations=kept * rows * subwords,
        dense=_dense_bytes(counts, storage),
    )


def prediction_memory(counts: Counts, storage: str, *, rows: int, subwords: int) -> Memory:
    """What a pass of prediction takes, in bf16 (fp32 where the weights are).

    Alive at once, per subword: b (4 hidden_size + 4 attention_size + 3 intermediate_size).
    """
    value = _FULL if storage == "fp32" else _HALF
    alive = 4 * counts.hidden_size + 4 * counts.attention_size + 3 * counts.intermediate_size
    return Memory(
        weights=weights_bytes(counts, storage),
        trained=_FULL * counts.n_trained,
        gradients=0,
        optimizer=0,
        activations=value * alive * rows * subwords,
        dense=_dense_bytes(counts, storage),
    )


def _dense_bytes(counts: Counts, storage: str) -> int:
    if storage in ("fp32", "bf16"):
        return 0
    largest = max(inputs * outputs for inputs, outputs in counts.linear)
    # 8-bit codes are scaled in fp32 first.
    return largest * (_HALF + _FULL if storage == "int8" else _HALF)


def memory_table(
    counts: Counts, *, rows: int, subwords: int, gradient_checkpointing: bool
) -> list[str]:
    """Lines of a Markdown table, in GiB: a row per storage, training and prediction."""
    digits = 1 if weights_bytes(counts, STORAGES[0]) >= _GIB else 4
    lines = [
        "| weights held in | weights | adapter, gradients, AdamW | activations | **training** "
        "| **prediction** |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for storage in STORAGES:
        training = training_memory(
            counts,
            storage,
            rows=rows,
            subwords=subwords,
            gradient_checkpointing=gradient_checkpointing,
        )
        prediction = prediction_memory(counts, storage, rows=rows, subwords=subwords)
        sizes = (
            training.weights + training.dense,
            training.trained + training.gradients + training.optimizer,
            training.activations,
            training.total,
            prediction.total,
        )
        cells = " | ".join(f"{size / _GIB:.{digits}f}" for size in sizes)
        lines.append(f"| {storage} | {cells} |")
    return lines
