"""Checkpoints of other programs: LoRA with a head for tokens, as PEFT saves them.

What the training scripts of VANER and LS-LLaMA leave: "adapter_config.json" and
"adapter_model.safetensors" (or ".bin", from older versions of PEFT), which hold

    base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight    LoRA
    base_model.model.classifier.weight (or score), .bias              the head

The labels' names are not in there: they are those of a config.json beside it, the caller's, or
O, B, I in this order, as both scripts number them. Names in PEFT's own files have one "model."
more than ours: the head's class stands around the decoder.
SOURCE: unllama_train_vaner.py of Eulring/VANER, commit 239b273; unllama_token_clf.py of
4AI/LS-LLaMA.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import Messages, VanerError
from .attention import ENCODERS
from .building import build_tagger
from .lora import adapter_parameters
from .settings import HFBackbone, Lora
from .tagger import LABELS, Tagger

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_HEADS = ("classifier", "score")
# Of the authors' classes; no file says it.
_HEAD_DROPOUT = 0.1

# Settings of PEFT's LoRA that we read, or that change nothing in a trained adapter. Any other one
# that is switched on would make ours compute something else.
_KNOWN_SETTINGS = frozenset(
    {
        *("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules"),
        *("modules_to_save", "bias", "init_lora_weights", "use_rslora"),
        *("base_model_name_or_path", "revision", "auto_mapping", "inference_mode", "peft_version"),
        *("exclude_modules", "layers_to_transform", "layers_pattern"),
        *("megatron_core", "qalora_group_size", "loftq_config"),
    }
)


@dataclass(frozen=True)
class Checkpoint:
    """What was found in a folder.

    path: the file with the weights.
    adapter: its settings, with the names of the layers that the file has weights for.
    tensors: LoRA's weights under our names, fp32.
    head_weight, head_bias: (3, hidden_size) and (3,), fp32, in the order O, B, I.
    labels: the names of these three.
    columns: where each of them stood in the file.
    base: what the checkpoint was trained on, as its config calls it.
    """

    path: Path
    adapter: Lora
    tensors: Mapping[str, Tensor]
    head_weight: Tensor
    head_bias: Tensor
    labels: tuple[str, ...]
    columns: tuple[int, ...]
    base: str | None

    @property
    def type_name(self) -> str | None:
        """The type that the labels name: "Disease" of B-Disease; None of a bare B."""
        return self.labels[1].partition("-")[2] or None


def read_checkpoint(folder: Path, *, labels: Sequence[str] | None = None) -> Checkpoint:
    """Read an adapter with its head. A pickle is read as tensors only: none of its code runs.

    labels: names of the head's rows, in their order, where the folder does not tell them.
    RAISES VanerError: VE162, no adapter there; VE163, a file that cannot be read; VE164, settings
        or weights that we have no counterpart for; VE165, another rank than the config says;
        VE166, no head; VE167, labels that are not O, B and I.
    """
    config = _read_config(folder)
    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise VanerError(Messages.VE162.format(folder=folder, file=" or ".join(_WEIGHTS), more=""))
    tensors, head = _split(_read_weights(path), path)
    rank = config["r"]
    for name, tensor in tensors.items():
        found = tensor.shape[0 if ".lora_A." in name else -1]
        if tensor.dim() != 2 or found != rank:
            raise VanerError(
                Messages.VE165.format(path=path, name=name, found=found, config=_CONFIG, rank=rank)
            )
    # rslora divides alpha by the root of the rank.
    scale = math.sqrt(rank) if config.get("use_rslora") else 1.0
    adapter = Lora(
        rank=rank,
        alpha=config["lora_alpha"] * scale,
        dropout=config["lora_dropout"],
        targets=tuple(sorted({name.split(".")[-3] for name in tensors})),
    )
    weight = head.get("weight")
    if weight is None or weight.dim() != 2:
        raise VanerError(Messages.VE166.format(path=path, names=" or ".join(_HEADS)))
    names = tuple(labels) if labels is not None else _saved_labels(folder)
    columns = _columns(names, len(weight), path)
    bias = head.get("bias", torch.zeros(len(weight)))
    if bias.shape != weight.shape[:1]:
        error = f"its head has {len(weight)} rows and a bias of shape {tuple(bias.shape)}"
        raise VanerError(Messages.VE163.format(path=path, error=error))
    return Checkpoint(
        path=path,
        adapter=adapter,
        tensors=tensors,
        head_weight=weight[list(columns)],
        head_bias=bias[list(columns)],
        labels=tuple(names[column] for column in columns),
        columns=columns,
        base=config.get("base_model_name_or_path"),
    )


def tagger_from_checkpoint(checkpoint: Checkpoint, backbone: HFBackbone) -> Tagger:
    """Put a checkpoint on its backbone.

    backbone: what the checkpoint was trained on, or an equal copy; only the shapes are compared.
    RAISES VanerError: VE168, the checkpoint does not fit the backbone; what `build_tagger` raises.
    """
    try:
        tagger = build_tagger(backbone, checkpoint.adapter, dropout=_HEAD_DROPOUT)
    except VanerError as error:
        if "VE127" in str(error):
            _refuse(checkpoint, backbone, f"it has no layers {checkpoint.adapter.targets}")
        raise
    if tagger.config.model_type in ENCODERS:
        _refuse(checkpoint, backbone, "it is an encoder")
    if checkpoint.head_weight.shape[1] != tagger.hidden_size:
        width = checkpoint.head_weight.shape[1]
        _refuse(checkpoint, backbone, f"its states have {tagger.hidden_size} values, not {width}")
    places = adapter_parameters(tagger.backbone)
    for name in sorted(places.keys() | checkpoint.tensors.keys()):
        if name not in places:
            _refuse(checkpoint, backbone, f"it has no place for {name}")
        if name not in checkpoint.tensors:
            _refuse(checkpoint, backbone, f"the checkpoint has no {name}")
        shapes = [tuple(tensors[name].shape) for tensors in (places, checkpoint.tensors)]
        if shapes[0] != shapes[1]:
            _refuse(checkpoint, backbone, f"{name} has to be {shapes[0]}, not {shapes[1]}")
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(checkpoint.tensors[name])
    tagger.head.load_state_dict({"weight": checkpoint.head_weight, "bias": checkpoint.head_bias})
    tagger.check_attention()
    return tagger.eval()


def _refuse(checkpoint: Checkpoint, backbone: HFBackbone, reason: str) -> None:
    raise VanerError(
        Messages.VE168.format(
            path=checkpoint.path, backbone=backbone.name, reason=reason, base=checkpoint.base
        )
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        inside = sorted(found.parent.name for found in folder.glob(f"*/{_CONFIG}"))
        more = f" It holds the checkpoints {', '.join(inside)}: name one of them." if inside else ""
        raise VanerError(Messages.VE162.format(folder=folder, file=_CONFIG, more=more))
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        kinds = {"peft_type": config["peft_type"], "task_type": config["task_type"]}
        numbers = [config[key] for key in ("r", "lora_alpha", "lora_dropout")]
        if not isinstance(config["r"], int) or not all(
            isinstance(number, (int, float)) for number in numbers
        ):
            raise ValueError(f"r, lora_alpha, lora_dropout = {numbers}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VanerError(Messages.VE163.format(path=path, error=repr(error))) from None
    for key, expected in (("peft_type", "LORA"), ("task_type", "TOKEN_CLS")):
        if kinds[key] != expected:
            _unsupported(path, f"{key} = {kinds[key]!r}", f"{key} = {expected!r}")
    if config.get("bias", "none") != "none":
        _unsupported(path, f"bias = {config['bias']!r}", "bias = 'none'")
    # Others (PiSSA, LoftQ, …) change the backbone's weights as well.
    if config.get("init_lora_weights", True) not in (True, False, "gaussian"):
        value = config["init_lora_weights"]
        _unsupported(path, f"init_lora_weights = {value!r}", "weights that begin as usual")
    others = set(config.get("modules_to_save") or ()) - set(_HEADS)
    if others:
        _unsupported(path, f"modules_to_save = {sorted(others)}", "the head alone")
    for key, value in config.items():
        if value and key not in _KNOWN_SETTINGS:
            _unsupported(path, f"{key} = {value!r}", "plain LoRA")
    return config


def _unsupported(path: Path, found: str, expected: str) -> None:
    raise VanerError(Messages.VE164.format(path=path, found=found, expected=expected))


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
            raise ValueError("it holds something else than tensors")
        return dict(loaded)
    except Exception as error:  # safetensors', torch's, pickle's and zipfile's own
        first_line = str(error).partition("\n")[0]
        raise VanerError(Messages.VE163.format(path=path, error=first_line)) from error


def _split(saved: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part LoRA's weights, under our names, from the head's; fp32."""
    tensors: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    for saved_name, tensor in saved.items():
        # Older versions left the adapter's name in, and a copy of the untrained head.
        name = saved_name.replace("modules_to_save.", "").replace("default.", "")
        parent, _, kind = name.removeprefix(_PREFIX).rpartition(".")
        if ".lora_A." in name or ".lora_B." in name:
            inner = name.removeprefix(_PREFIX).removeprefix("model.")
            tensors[f"{_PREFIX}{inner}"] = tensor.float()
        elif parent in _HEADS and kind in ("weight", "bias"):
            head[kind] = tensor.float()
        elif "original_module." not in name:
            _unsupported(path, saved_name, "weights of LoRA and of a head alone")
    if not tensors:
        _unsupported(path, "no weights of LoRA", "an adapter")
    return tensors, head


def _saved_labels(folder: Path) -> tuple[str, ...]:
    path = folder / "config.json"
    if not path.is_file():
        return LABELS
    try:
        names = json.loads(path.read_bytes())["id2label"]
        return tuple(str(names[str(number)]) for number in range(len(names)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VanerError(Messages.VE163.format(path=path, error=repr(error))) from None


def _columns(names: Sequence[str], n_labels: int, path: Path) -> tuple[int, ...]:
    """Find O, B and I among the labels."""
    kinds = [name.partition("-")[0] for name in names]
    types = {name.partition("-")[2] for name in names if name != "O"}
    if n_labels != len(names) or sorted(kinds) != sorted(LABELS) or len(types) > 1:
        raise VanerError(
            Messages.VE167.format(path=path, n_labels=n_labels, names=", ".join(names))
        )
    return tuple(kinds.index(label) for label in LABELS)
