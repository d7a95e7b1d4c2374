"""Frozen linear layers in 4 or 8 bits, through bitsandbytes, which is imported when one is made.

Only weights are coarse: every product is computed in the precision of the tagger, with the weights
made fine again for its duration. A result therefore does not depend on the batch. It would in
LLM.int8(), which also rounds inputs, and by a rule that looks at all rows of a batch (0.004 of
states around 2, found with 4 rows).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Messages, VanerError

_INT8_LARGEST = 127


class Int8Linear(nn.Linear):
    """A frozen linear layer with 8-bit weights and a scale per output.

    dense: the layer that it stands for.
    device: where it is made; it may be moved afterwards.
    """

    scales: Tensor
    compute_dtype: torch.dtype | None = None

    def __init__(self, dense: nn.Linear, device: torch.device) -> None:
        has_bias = dense.bias is not None
        super().__init__(dense.in_features, dense.out_features, bias=has_bias, device="meta")
        # bitsandbytes takes no other dtype here on CUDA.
        weight = dense.weight.detach().to(device, torch.float16)
        codes, largest, _ = _bitsandbytes().functional.int8_vectorwise_quant(weight)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.bias = dense.bias
        self.register_buffer("scales", largest.float() / _INT8_LARGEST)
        self.dense_dtype = dense.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, in_features). RETURNS: (…, out_features), in the dtype of x."""
        computed = x.to(self.compute_dtype or x.dtype)
        product: Tensor = _Int8Product.apply(computed, self.weight, self.scales)  # type: ignore[no-untyped-call]
        if self.bias is not None:
            product = product + self.bias.to(product.dtype)
        return product.to(x.dtype)


class _Int8Product(torch.autograd.Function):
    """Keeps the 8-bit weights for the gradient; autograd itself would keep the fine ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(codes, scales)
        return nn.functional.linear(x, _fine(codes, scales, x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        codes, scales = ctx.saved_tensors
        return gradient @ _fine(codes, scales, gradient.dtype), None, None


def quantize(decoder: nn.Module, quantization: str, device: torch.device) -> None:
    """Replace every linear layer of a decoder by a frozen one in 4 or 8 bits, in place.

    Embeddings and norms stay as they are; head and adapter are not there yet. The layers are made
    on the device one after another, so that it never holds the dense weights.

    quantization: "nf4" (16 levels of a normal distribution per 64 weights, whose scales are
        quantised again) or "int8".
    RAISES VanerError: VE151, bitsandbytes is not installed.
    """
    make = {"nf4": _nf4_linear, "int8": Int8Linear}[quantization]
    dense = [
        (parent, name, child)
        for parent in decoder.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    for parent, name, child in dense:
        setattr(parent, name, make(child, device).train(child.training))


def is_quantized(layer: nn.Module) -> bool:
    """Whether a linear layer holds codes instead of weights."""
    return isinstance(layer, nn.Linear) and not layer.weight.dtype.is_floating_point


def dequantized(layer: nn.Linear) -> nn.Linear:
    """A dense layer with the values that a quantised one computes with, in its original dtype."""
    dense = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    if isinstance(layer, Int8Linear):
        weight = _fine(layer.weight, layer.scales, layer.dense_dtype)
    else:
        packed: Any = layer.weight
        weight = _bitsandbytes().functional.dequantize_4bit(packed.data, packed.quant_state)
    dense.weight = nn.Parameter(weight, requires_grad=False)
    dense.bias = layer.bias
    return dense


def set_compute_dtype(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Say what the quantised layers of a model compute in; None = the dtype of their input.

    Autocast does not reach into bitsandbytes' own operators.
    """
    for layer in model.modules():
        if is_quantized(layer):
            layer.compute_dtype = dtype  # type: ignore[assignment]


def _nf4_linear(dense: nn.Linear, device: torch.device) -> nn.Linear:
    bitsandbytes = _bitsandbytes()
    layer: Any = bitsandbytes.nn.Linear4bit(
        dense.in_features,
        dense.out_features,
        bias=dense.bias is not None,
        quant_type="nf4",
        compress_statistics=True,
        device="meta",
    )
    layer.weight = bitsandbytes.nn.Params4bit(
        dense.weight.detach(),
        requires_grad=False,
        quant_type="nf4",
        compress_statistics=True,
        module=layer,
    ).to(device)
    layer.bias = dense.bias
    # On processors with AVX512-BF16 one prediction would repack the weights for a kernel that knows
    # no gradient: training after it goes on with gradients that are cut off, without an error,
    # and merging adds to garbage.
    layer.support_avx512bf16_for_cpu = False
    # Else the first input decides for good.
    layer.compute_type_is_set = True
    quantized: nn.Linear = layer
    return quantized


def _fine(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return (codes * scales[:, None]).to(dtype)


def _bitsandbytes() -> Any:
    # Imported late: it is an extra, and untyped.
    try:
        import bitsandbytes
    except ImportError as error:
        raise VanerError(Messages.VE151.format(error=error)) from error
    return bitsandbytes
