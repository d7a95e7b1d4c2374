"""The adapter: LoRA layers put into a decoder through PEFT, their parameters, and merging.

Names of parameters are PEFT's without the adapter's own name, as in its files
("base_model.model.layers.0.self_attn.q_proj.lora_A.weight").
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..errors import Messages, VanerError
from .quantization import dequantized, is_quantized
from .settings import Lora

_ADAPTER = "default"
_BASE_LAYER = ".base_layer."


class Originals(NamedTuple):
    """What `merge` replaced, for `unmerge`: subtracting again would not give it back to the bit.

    weights: copies of dense weights from before, by name.
    layers: per adapted layer its quantised layer, by the name of the adapted one.
    """

    weights: dict[str, Tensor]
    layers: dict[str, nn.Module]


def add_adapter(decoder: nn.Module, adapter: Lora) -> nn.Module:
    """Put a fresh adapter into a decoder and freeze everything else.

    The adapter is fp32 whatever the decoder's dtype. Embeddings are no linear layers, so none is
    adapted or copied. The decoder is changed in place.
    RAISES VanerError: VE127, a name in `targets` that no layer has.
    """
    peft = _peft()
    targets = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
    layers = [n for n, m in decoder.named_modules() if not isinstance(m, nn.Embedding)]
    if missing := adapter.not_among(layers):
        reason = f"no linear layer is called {', '.join(missing)}"
        raise VanerError(Messages.VE127.format(targets=targets, error=reason))
    config = peft.LoraConfig(
        task_type=peft.TaskType.FEATURE_EXTRACTION,
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
    )
    try:
        with warnings.catch_warnings():
            # peft asks transformers 5 for a property under its old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            model: nn.Module = peft.get_peft_model(decoder, config, adapter_name=_ADAPTER)
    except ValueError as error:
        raise VanerError(Messages.VE127.format(targets=targets, error=error)) from None
    return model


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name the adapter's parameters."""
    return {
        name.replace(f".{_ADAPTER}.", "."): parameter
        for name, parameter in model.named_parameters()
        if ".lora_" in name
    }


def base_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name the decoder's own parameters as they are named without an adapter."""
    return {
        name.replace(_BASE_LAYER, "."): parameter
        for name, parameter in _base_model(model).named_parameters()
        if ".lora_" not in name
    }


def merge(model: nn.Module) -> Originals:
    """Add the adapter to the weights beneath it.

    A quantised layer gives way to a dense one: the sum would not survive another rounding.
    """
    layers = {
        name: layer.base_layer
        for name, layer in _adapted_layers(model)
        if is_quantized(layer.base_layer)
    }
    weights = {
        name.replace(_BASE_LAYER, "."): parameter.detach().clone()
        for name, parameter in _base_model(model).named_parameters()
        if _BASE_LAYER in name and parameter.dtype.is_floating_point
    }
    for name, layer in _adapted_layers(model):
        if name in layers:
            layer.base_layer = dequantized(layer.base_layer)
    peft_model: Any = model
    peft_model.merge_adapter()
    return Originals(weights, layers)


def unmerge(model: nn.Module, originals: Originals) -> None:
    """Undo `merge`, to the bit."""
    peft_model: Any = model
    peft_model.unmerge_adapter()
    for name, layer in _adapted_layers(model):
        if name in originals.layers:
            layer.base_layer = originals.layers[name]
    parameters = base_parameters(model)
    for name, original in originals.weights.items():
        parameters[name].data.copy_(original)


def _adapted_layers(model: nn.Module) -> list[tuple[str, Any]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "base_layer", None), nn.Linear)
    ]


def _base_model(model: nn.Module) -> nn.Module:
    # An adapter has loaded peft. Where there is none, training runs without peft.
    if sys.modules.get("peft") is None or not isinstance(model, _peft().PeftModel):
        return model
    peft_model: Any = model
    decoder: nn.Module = peft_model.get_base_model()
    return decoder


def _peft() -> Any:
    # Imported late, and untyped: its overloads do not take what it takes.
    import peft

    return peft
