"""Weights in 8 bits on disk: a quarter of the size, unpacked into ordinary fp32 ones.

A matrix is stored as int8 with a scale per row, a multiple of which every number is. What a scale
holds, and that the largest number of a row is 127 of them, makes packing exact the second time:
unpacked weights pack into the same bytes. So rounding happens once, by `round_weights`, and what is
measured after it is what is stored. A matrix that has been trained since is off its grid and is
stored as it is.

The layers above the states decide by small differences, and vectors are small: both stay fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .tagger import Tagger

_SCALE = ".row_scale"
_LARGEST = 127
_KEPT = ("head.", "adapter.")


def round_weights(tagger: Tagger) -> None:
    """Round the matrices of a tagger's backbone to what 8 bits hold, and let it be saved packed."""
    with torch.no_grad():
        for name, parameter in tagger.saved_parameters().items():
            if _is_matrix(name, parameter):
                parameter.copy_(_unpacked(*_packed(parameter)))
    tagger.is_packed = True
    tagger.forget_questions()


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Store in 8 bits what they hold to the bit; the rest as it is.

    RETURNS: for a packed matrix (rows, columns) its name, int8, and a scale per row, (rows,), bf16.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _is_matrix(name, tensor):
            numbers, scales = _packed(tensor)
            if torch.equal(_unpacked(numbers, scales), tensor):
                stored[name], stored[name + _SCALE] = numbers, scales
                continue
        stored[name] = tensor
    return stored


def unpack(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `pack`, to the bit; tensors that are not packed come back as they are."""
    return {
        name: _unpacked(tensor, stored[name + _SCALE]) if name + _SCALE in stored else tensor
        for name, tensor in stored.items()
        if not name.endswith(_SCALE)
    }


def _is_matrix(name: str, tensor: Tensor) -> bool:
    return tensor.ndim == 2 and tensor.dtype == torch.float32 and not name.startswith(_KEPT)


def _packed(matrix: Tensor) -> tuple[Tensor, Tensor]:
    matrix = matrix.detach()
    # bf16 has the exponents of fp32, so no row is too small. Its rounding moves the largest number
    # by less than half a step, and 127 times a scale is exact in fp32.
    scales = (matrix.abs().amax(1) / _LARGEST).to(torch.bfloat16)
    steps = scales.float()[:, None]
    numbers = torch.where(steps > 0, matrix / steps, 0.0).round_()
    return numbers.clamp_(-_LARGEST, _LARGEST).to(torch.int8), scales


def _unpacked(numbers: Tensor, scales: Tensor) -> Tensor:
    return numbers.float() * scales.float()[:, None]
