"""Muon by hand, the rate over a run, and a state that survives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from spacy_vaner.training.config import OptimizerSettings, Schedule
from spacy_vaner.training.optimizers import Muon, Optimizers, orthogonal, rate_at


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_orthogonal_makes_singular_values_near_one(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape).to(dtype)).float())
    assert 0.6 < values.min() and values.max() < 1.3


def test_orthogonal_keeps_the_singular_vectors() -> None:
    matrix = torch.randn(6, 4)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    product = u.T @ orthogonal(matrix[None])[0] @ v.T
    assert torch.allclose(product, torch.diag(product.diag()), atol=1e-4)
    assert (product.diag() > 0.5).all()


def test_a_step_of_muon_has_the_size_of_adamws_and_decays_the_weights() -> None:
    weight = nn.Parameter(torch.ones(64, 32))
    weight.grad = torch.randn(64, 32) * 1e-3
    Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.5).step()
    move = weight.detach() - (1 - 0.1 * 0.5)
    assert move.square().mean().sqrt() == pytest.approx(0.1 * 0.2, rel=0.2)


def test_muon_averages_gradients() -> None:
    weight = nn.Parameter(torch.zeros(4, 4))
    muon = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.0)
    first, second = torch.randn(2, 4, 4)
    for gradient in (first, second):
        weight.grad = gradient
        muon.step()
    average = 0.9 * 0.1 * first + 0.1 * second
    assert torch.allclose(muon.state[weight]["momentum"], average)


def test_matrices_of_one_shape_do_not_mix() -> None:
    gradients = [torch.randn(8, 8), torch.randn(8, 8)]

    def moved(chosen: list[torch.Tensor]) -> list[torch.Tensor]:
        weights = [nn.Parameter(torch.zeros(8, 8)) for _ in chosen]
        for weight, gradient in zip(weights, chosen, strict=True):
            weight.grad = gradient
        Muon(weights, lr=0.1, momentum=0.9, weight_decay=0.0).step()
        return [weight.detach() for weight in weights]

    together = moved(gradients)
    for alone, both in zip(gradients, together, strict=True):
        assert torch.allclose(moved([alone])[0], both, atol=1e-6)


def model_and_optimizers(name: str) -> tuple[nn.Module, Optimizers]:
    model = nn.ModuleDict(
        {
            "embed_tokens": nn.Embedding(10, 8),
            "q_proj": nn.Linear(8, 8, bias=False),
            "norm": nn.RMSNorm(8),
        }
    )
    settings = OptimizerSettings(name=name, lr=0.1, weight_decay=0.5, clip_norm=1e9)
    return model, Optimizers(dict(model.named_parameters()), settings)


def set_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_state_that_was_saved_goes_on_to_the_bit(name: str) -> None:
    torch.manual_seed(0)
    model, optimizers = model_and_optimizers(name)
    other, others = model_and_optimizers(name)
    set_gradients(model, 1)
    optimizers.step(1.0)
    other.load_state_dict(model.state_dict())
    others.set_tensors({key: tensor.clone() for key, tensor in optimizers.tensors().items()})
    for seed in (2, 3):
        for each, its in ((model, optimizers), (other, others)):
            set_gradients(each, seed)
            its.step(0.5)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(key.endswith("q_proj.weight:momentum") for key in optimizers.tensors()) is (
        name == "muon"
    )


def test_a_state_of_another_optimiser_is_refused() -> None:
    model, optimizers = model_and_optimizers("adamw")
    set_gradients(model, 1)
    optimizers.step(1.0)
    with pytest.raises(ValueError, match="q_proj"):
        model_and_optimizers("muon")[1].set_tensors(optimizers.tensors())


def test_norms_are_not_decayed_and_gradients_are_cleared() -> None:
    model, optimizers = model_and_optimizers("muon")
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step(1.0)
    values: dict[str, Any] = {name: p.mean().item() for name, p in model.named_parameters()}
    assert values["norm.weight"] == 1.0
    assert values["embed_tokens.weight"] == pytest.approx(0.95)
    assert values["q_proj.weight"] == pytest.approx(0.95)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_long_gradients_are_clipped_and_their_length_is_told() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    settings = OptimizerSettings(name="adamw", clip_norm=1.0)
    optimizers = Optimizers({"a": parameter}, settings)
    parameter.grad = torch.full((4,), 10.0)
    assert float(optimizers.step(1.0)) == pytest.approx(20.0)
    assert optimizers.tensors()["a:exp_avg"].norm() == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "progress", "rate"),
    [
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.55),
        ("cosine", 1.0, 0.1),
        ("linear", 0.5, 0.55),
        ("linear", 2.0, 0.1),
        ("wsd", 0.75, 1.0),
        ("wsd", 0.9, 0.55),
        ("wsd", 1.0, 0.1),
    ],
)
def test_the_rate_after_the_warm_up(name: str, progress: float, rate: float) -> None:
    schedule = Schedule(name=name, warmup_steps=10, decay_share=0.2, final_share=0.1)
    assert rate_at(schedule, step=10, progress=progress) == pytest.approx(rate)


def test_the_warm_up_is_linear() -> None:
    schedule = Schedule(warmup_steps=3)
    rates = [rate_at(schedule, step=step, progress=0.0) for step in range(5)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert math.isclose(rate_at(Schedule(warmup_steps=0), step=0, progress=0.0), 1.0)
