"""Weights in 8 bits: rounded once, exact from then on."""

from __future__ import annotations

import pytest
import torch

from spacy_vaner.backbone.packing import pack, unpack

NAME = "backbone.layers.0.mlp.up_proj.weight"


def rounded(matrix: torch.Tensor) -> torch.Tensor:
    """What 8 bits hold of a matrix, worked out row by row."""
    rows = []
    for row in matrix:
        scale = (row.abs().max() / 127).to(torch.bfloat16).float()
        steps = torch.round(row / scale) if scale > 0 else torch.zeros_like(row)
        rows.append(steps.clamp(-127, 127) * scale)
    return torch.stack(rows)


@pytest.fixture
def matrix() -> torch.Tensor:
    """Rows of very different size; one of zeros, one that is nearly nothing."""
    matrix = torch.randn(40, 24) * torch.logspace(-6, 3, 40)[:, None]
    matrix[7] = 0
    matrix[8] = 1e-38
    return matrix


def test_rounded_weights_pack_into_8_bits_and_come_back_to_the_bit(matrix: torch.Tensor) -> None:
    on_grid = rounded(matrix)
    stored = pack({NAME: on_grid})
    assert stored[NAME].dtype == torch.int8
    assert stored[f"{NAME}.row_scale"].shape == (40,)
    back = unpack(stored)
    assert list(back) == [NAME] and torch.equal(back[NAME], on_grid)
    again = pack(back)
    assert all(torch.equal(again[name], tensor) for name, tensor in stored.items())


def test_a_number_moves_by_half_a_step_at_most(matrix: torch.Tensor) -> None:
    step = matrix.abs().amax(1, keepdim=True) / 127
    assert ((rounded(matrix) - matrix).abs() <= 0.502 * step).all()


@pytest.mark.parametrize(
    "name, tensor",
    [
        (NAME, torch.randn(3, 5)),  # off the grid, as after training
        ("head.state.weight", torch.zeros(3, 5)),
        ("adapter.layers.0.q_proj.lora_B.weight", torch.zeros(3, 5)),
        ("backbone.norm.weight", torch.ones(5)),
        ("backbone.embed_tokens.keys", torch.arange(5)),
        ("backbone.embed_tokens.weight", torch.ones(3, 5, dtype=torch.bfloat16)),
    ],
)
def test_other_tensors_are_stored_as_they_are(name: str, tensor: torch.Tensor) -> None:
    stored = pack({name: tensor})
    assert list(stored) == [name] and stored[name] is tensor
    assert unpack(stored)[name] is tensor
