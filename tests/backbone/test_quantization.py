from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spacy_vaner.backbone import (
    HFBackbone,
    Lora,
    Tagger,
    build_tagger,
    tagger_files,
    tagger_from_files,
)
from spacy_vaner.backbone.quantization import dequantized, is_quantized, quantize
from spacy_vaner.errors import VanerError, VanerWarning

from .test_attention import train

pytestmark = pytest.mark.transformers5
bitsandbytes = pytest.importorskip("bitsandbytes")

Batch = tuple[Tensor, Tensor]
KINDS = ("nf4", "int8")
N_LAYERS = 2 * 7


@pytest.fixture
def make(save_backbone: Callable[..., Path]) -> Callable[..., Tagger]:
    """A tagger on a quantised backbone, with an adapter that is not zero."""
    # Odd sizes: 48 and 40 are no multiples of what some kernels compute in.
    folder = save_backbone("Qwen2", intermediate_size=40, num_attention_heads=4, hidden_size=48)

    def build(quantization: str | None, **options: Any) -> Tagger:
        precision = options.pop("precision", "fp32")
        settings = HFBackbone(str(folder), quantization=quantization, **options)
        tagger = build_tagger(
            settings, Lora(rank=2, dropout=0.0), dropout=0.0, precision=precision, seed=1
        )
        generator = torch.Generator().manual_seed(5)
        for name, parameter in tagger.named_parameters():
            if "lora_B" in name:
                parameter.data.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
        return tagger.eval()

    return build


@pytest.fixture
def reference(make: Callable[..., Tagger]) -> Callable[[Tagger], Tagger]:
    """A dense tagger with the values that a quantised one computes with."""

    def dense(tagger: Tagger) -> Tagger:
        twin = make(None)
        layers = dict(tagger.named_modules())
        for name, layer in twin.named_modules():
            if is_quantized(layers[name]):
                layer.weight.data.copy_(dequantized(layers[name]).weight)  # type: ignore[arg-type, operator, union-attr]
        return twin

    return dense


def trainable(tagger: Tagger) -> dict[str, nn.Parameter]:
    return {name: p for name, p in tagger.named_parameters() if p.requires_grad}


def assert_equal_training(tagger: Tagger, twin: Tagger) -> None:
    for step in range(3):
        losses = []
        for some in (tagger, twin):
            torch.manual_seed(step)
            train(some, n_steps=1)
            losses.append({n: p.detach().clone() for n, p in trainable(some).items()})
        for name, parameter in losses[0].items():
            torch.testing.assert_close(parameter, losses[1][name], atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("quantization", KINDS)
def test_predicting_training_and_merging_agree_with_the_dequantised_weights(
    quantization: str,
    make: Callable[..., Tagger],
    reference: Callable[[Tagger], Tagger],
    batch: Batch,
) -> None:
    """In this order: on some processors predicting would spoil what comes after it."""
    tagger = make(quantization)
    twin = reference(tagger)
    with torch.no_grad():
        torch.testing.assert_close(tagger(*batch), twin(*batch), atol=1e-5, rtol=0)
        one = batch[0][:1, :1], torch.tensor([1])
        torch.testing.assert_close(tagger(*one), twin(*one), atol=1e-5, rtol=0)
    gradients = []
    for some in (tagger, twin):
        some.train()
        some(*batch)[0].square().sum().backward()
        gradients.append({name: p.grad for name, p in trainable(some).items()})
        some.zero_grad()
    assert all(g.abs().max() > 1e-6 for g in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)
    assert_equal_training(tagger, twin)

    with torch.no_grad():
        before, files = tagger(*batch), tagger_files(tagger)
        assert (before - make(quantization)(*batch)).abs().max() > 1e-3, "training must matter"
        tagger.merge_adapter()
        twin.merge_adapter()
        torch.testing.assert_close(tagger(*batch), before, atol=1e-5, rtol=0)
        torch.testing.assert_close(tagger(*batch), twin(*batch), atol=1e-4, rtol=0)
        assert tagger_files(tagger) == files
        tagger.train().eval()
        assert torch.equal(tagger(*batch), before), "unmerged to the bit"
    assert_equal_training(tagger, twin)


@pytest.mark.parametrize("quantization", KINDS)
def test_linear_layers_alone_are_quantised(quantization: str, make: Callable[..., Tagger]) -> None:
    tagger = make(quantization)
    coarse = {name for name, layer in tagger.named_modules() if is_quantized(layer)}
    assert len(coarse) == N_LAYERS
    assert all(name.endswith("_proj.base_layer") for name in coarse)
    for name, parameter in tagger.named_parameters():
        is_codes = name.removesuffix(".weight") in coarse
        assert parameter.dtype.is_floating_point != is_codes, name
        assert not (is_codes and parameter.requires_grad)
    n_bytes = sum(p.numel() * p.element_size() for n, p in tagger.named_parameters() if "mlp" in n)
    dense = make(None)
    n_dense = sum(p.numel() * 4 for n, p in dense.named_parameters() if "mlp" in n)
    n_adapter = sum(
        p.numel() * 4 for n, p in dense.named_parameters() if "mlp" in n and "lora" in n
    )
    share = {"nf4": 1 / 8, "int8": 1 / 4}[quantization]
    assert n_bytes - n_adapter == share * (n_dense - n_adapter)


def test_processors_with_avx512_bf16_do_not_repack(make: Callable[..., Tagger]) -> None:
    layers = [m for m in make("nf4").modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == N_LAYERS
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


@pytest.mark.parametrize("quantization", KINDS)
def test_results_do_not_depend_on_the_batch(
    quantization: str, make: Callable[..., Tagger], batch: Batch
) -> None:
    tagger = make(quantization)
    ids, lengths = batch
    with torch.no_grad():
        # Large inputs, which LLM.int8() would treat by themselves, for the whole batch.
        tagger.backbone.get_input_embeddings().weight[ids[0, :3]] *= 300  # type: ignore[operator]
        together = tagger(ids, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = tagger(ids[row : row + 1, :length], lengths[row : row + 1])
            torch.testing.assert_close(alone[0], together[row, :length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("quantization", KINDS)
def test_codes_are_those_of_bitsandbytes_own_layers(quantization: str) -> None:
    dense = nn.Linear(40, 24)
    model = nn.Sequential(dense)
    weight = dense.weight.detach().clone()
    quantize(model, quantization, torch.device("cpu"))
    functional = bitsandbytes.functional
    if quantization == "nf4":
        codes, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        expected = functional.dequantize_4bit(codes, state)
    else:
        layer = bitsandbytes.nn.Linear8bitLt(40, 24, has_fp16_weights=False)
        layer.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False).to("cpu")
        expected = functional.int8_vectorwise_dequant(layer.weight.CB, layer.weight.SCB)
    found = dequantized(model[0])  # type: ignore[arg-type]
    torch.testing.assert_close(found.weight.data, expected, atol=1e-7, rtol=1e-6)
    assert found.bias is dense.bias
    assert 0 < (expected - weight).abs().max() < {"nf4": 0.05, "int8": 0.002}[quantization]


@pytest.mark.parametrize("quantization", KINDS)
def test_it_computes_in_the_precision_of_the_tagger(
    quantization: str, make: Callable[..., Tagger], batch: Batch
) -> None:
    tagger = make(quantization)
    with torch.no_grad():
        fine = tagger(*batch)
        tagger.precision = "bf16"
        coarse = tagger(*batch)
        tagger.precision = "fp32"
        assert torch.equal(tagger(*batch), fine)
    assert coarse.dtype == fine.dtype == torch.float32
    assert not torch.equal(coarse, fine)
    torch.testing.assert_close(coarse[0], fine[0], atol=0.05, rtol=0)
    tagger = make(quantization, dtype="bfloat16", precision="bf16")
    train(tagger, n_steps=2)
    assert all(torch.isfinite(p).all() for p in trainable(tagger).values())
    assert {p.dtype for p in trainable(tagger).values()} == {torch.float32}


@pytest.mark.parametrize("quantization", KINDS)
def test_a_quantised_tagger_is_saved_without_its_backbone(
    quantization: str, make: Callable[..., Tagger], batch: Batch
) -> None:
    tagger = make(quantization, gradient_checkpointing=True)
    train(tagger, n_steps=2)
    files = tagger_files(tagger)
    assert not [name for name in tagger.saved_weights() if name.startswith("backbone.")]
    loaded = tagger_from_files(files, device="cpu", precision="fp32")
    assert loaded.settings == tagger.settings
    with torch.no_grad():
        assert torch.equal(loaded(*batch), tagger(*batch))
        assert tagger_files(loaded) == files
        # Asked for, so done, but not in silence: the predictions are others.
        settings = HFBackbone(tagger.settings.name)  # type: ignore[union-attr]
        with pytest.warns(VanerWarning, match=f"VW151: .*{quantization}.* None"):
            dense = tagger_from_files(files, device="cpu", precision="fp32", backbone=settings)
        assert not torch.equal(dense(*batch), tagger(*batch))


def test_without_an_adapter_there_is_nothing_to_train(llama_folder: Path) -> None:
    with pytest.raises(VanerError, match=r"VE152.*model\.adapter"):
        build_tagger(HFBackbone(str(llama_folder), quantization="nf4"), None)


def test_the_missing_extra_is_named(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(VanerError, match=r"VE151.*spacy_vaner\[quantization\]"):
        build_tagger(HFBackbone(str(llama_folder), quantization="int8"), Lora())


@pytest.mark.gpu
@pytest.mark.parametrize("quantization", KINDS)
def test_on_cuda_it_agrees_with_the_cpu(
    quantization: str, make: Callable[..., Tagger], batch: Batch
) -> None:
    on_cpu, on_cuda = make(quantization), make(quantization).to("cuda")
    ids, lengths = batch
    with torch.no_grad():
        expected = on_cpu(ids, lengths)
        found = on_cuda(ids.cuda(), lengths.cuda()).cpu()
        on_cuda.merge_adapter()
        merged = on_cuda(ids.cuda(), lengths.cuda()).cpu()
    torch.testing.assert_close(found[0], expected[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(merged[0], expected[0], atol=1e-3, rtol=0)
