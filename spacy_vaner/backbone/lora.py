"""The adapter: LoRA layers put into a decoder through PEFT, their parameters, and merging.

Names of parameters are PEFT's without the adapter's own name, as in its files
("base_model.model.layers.0.self_attn.q_proj.lora_A.weight").
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn

from ..errors import Messages, VanerError
from .settings import Lora

_ADAPTER = "default"
_BASE_LAYER = ".base_layer."


def add_adapter(decoder: nn.Module, adapter: Lora) -> nn.Module:
    """Put a fresh adapter into a decoder and freeze everything else.

    The adapter is fp32 whatever the decoder's dtype. Embeddings are no linear layers, so none is
    adapted or copied. The decoder is changed in place.
    RAISES VanerError: VE127, no layer has the names in `targets`.
    """
    peft = _peft()
    targets = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
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


def merge(model: nn.Module) -> dict[str, Tensor]:
    """Add the adapter to the weights beneath it.

    RETURNS: copies of those weights from before, by name, for `unmerge`: subtracting the update
        again would not give them back to the bit.
    """
    originals = {
        name.replace(_BASE_LAYER, "."): parameter.detach().clone()
        for name, parameter in _base_model(model).named_parameters()
        if _BASE_LAYER in name
    }
    peft_model: Any = model
    peft_model.merge_adapter()
    return originals


def unmerge(model: nn.Module, originals: dict[str, Tensor]) -> None:
    """Undo `merge`, to the bit."""
    peft_model: Any = model
    peft_model.unmerge_adapter()
    parameters = base_parameters(model)
    for name, original in originals.items():
        parameters[name].data.copy_(original)


def _base_model(model: nn.Module) -> nn.Module:
    if not isinstance(model, _peft().PeftModel):
        return model
    peft_model: Any = model
    decoder: nn.Module = peft_model.get_base_model()
    return decoder


def _peft() -> Any:
    # Imported late, and untyped: its overloads do not take what it takes.
    import peft

    return peft
