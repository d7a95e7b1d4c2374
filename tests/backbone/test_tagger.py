from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spacy_vaner.backbone import (
    HFBackbone,
    Lora,
    SmallLlama,
    SubwordTokenizer,
    Tagger,
    build_tagger,
    choose_device,
    choose_precision,
    tagger_files,
)
from spacy_vaner.backbone.lora import adapter_parameters
from spacy_vaner.errors import VanerError

from .conftest import TEXTS
from .test_attention import train

pytestmark = pytest.mark.transformers5

Batch = tuple[torch.Tensor, torch.Tensor]

LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_importing_loads_neither_transformers_nor_peft_nor_spacy() -> None:
    code = (
        "import sys, spacy_vaner.backbone, spacy_vaner.backbone.settings\n"
        "spacy_vaner.backbone.SmallLlama(); spacy_vaner.backbone.Lora()\n"
        "heavy = {'transformers', 'peft', 'spacy', 'thinc'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2"])
def test_all_linear_adapts_the_layers_and_nothing_else(
    family: str, folders: dict[str, Path]
) -> None:
    tagger = build_tagger(HFBackbone(str(folders[family])), Lora(rank=3))
    adapted = {name.split(".")[-3] for name in adapter_parameters(tagger.backbone)}
    assert adapted == LINEAR
    assert len(adapter_parameters(tagger.backbone)) == 2 * 2 * len(LINEAR)
    trainable = {name for name, p in tagger.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or name.startswith("head.") for name in trainable)
    assert len(trainable) == 2 * 2 * len(LINEAR) + 2


def test_named_targets_adapt_these_layers_only(llama_folder: Path) -> None:
    adapter = Lora(targets=["q_proj", "v_proj"])  # type: ignore[arg-type]
    tagger = build_tagger(HFBackbone(str(llama_folder)), adapter)
    assert hash(adapter) and adapter.targets == ("q_proj", "v_proj")
    names = {name.split(".")[-3] for name in adapter_parameters(tagger.backbone)}
    assert names == {"q_proj", "v_proj"}
    with pytest.raises(VanerError, match="VE127"):
        build_tagger(HFBackbone(str(llama_folder)), Lora(targets=("query",)))


@pytest.mark.parametrize("target", ["vproj", "roj", "embed_tokens"])
def test_one_target_that_fits_nothing_is_named(
    target: str, make_tagger: Callable[..., Tagger]
) -> None:
    """PEFT adapts the others and says nothing."""
    with pytest.raises(VanerError, match=f"VE127.*no linear layer is called {target}"):
        make_tagger("hf", lora=Lora(targets=("q_proj", target)))


def test_a_fresh_adapter_changes_nothing(llama_folder: Path, batch: Batch) -> None:
    settings = HFBackbone(str(llama_folder))
    plain, adapted = (build_tagger(settings, a).eval() for a in (None, Lora()))
    with torch.no_grad():
        torch.testing.assert_close(
            plain.states(*batch)[0], adapted.states(*batch)[0], atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("kind", ["hf", "small"])
def test_training_moves_adapter_and_head_and_leaves_the_backbone(
    kind: str, make_tagger: Callable[..., Tagger], batch: Batch
) -> None:
    tagger = make_tagger(kind, lora=Lora(rank=4, dropout=0.0), dropout=0.0)
    before = {name: p.detach().clone() for name, p in tagger.named_parameters()}
    train(tagger, n_steps=3)
    for name, parameter in tagger.named_parameters():
        trained = ".lora_" in name or name.startswith("head.")
        assert torch.equal(parameter, before[name]) != trained, name


def test_the_adapter_learns(make_tagger: Callable[..., Tagger]) -> None:
    tagger = make_tagger("hf", lora=Lora(rank=8, dropout=0.0), dropout=0.0)
    train(tagger, n_steps=60)
    torch.manual_seed(0)
    lengths = torch.tensor([10, 10])
    with torch.no_grad():
        tags = tagger(torch.randint(0, 260, (2, 10)), lengths).argmax(-1)
    expected = torch.arange(10).remainder(2).expand(2, 10)
    assert (tags == expected).float().mean() > 0.8


def test_without_an_adapter_everything_is_trained(make_tagger: Callable[..., Tagger]) -> None:
    tagger = make_tagger("small-full")
    before = {name: p.detach().clone() for name, p in tagger.named_parameters()}
    train(tagger, n_steps=2)
    assert not [n for n, p in tagger.named_parameters() if torch.equal(p, before[n])]


@pytest.mark.parametrize("kind", ["hf", "small"])
def test_merging_keeps_predictions_and_is_undone_to_the_bit(
    kind: str, make_tagger: Callable[..., Tagger], batch: Batch
) -> None:
    tagger = make_tagger(kind)
    with torch.no_grad():
        before, files = tagger(*batch), tagger_files(tagger)
        tagger.backbone.disable_adapter_layers()  # type: ignore[operator]
        assert (tagger(*batch) - before).abs().max() > 1e-3, "the adapter must matter here"
        tagger.backbone.enable_adapter_layers()  # type: ignore[operator]
        tagger.merge_adapter()
        tagger.merge_adapter()
        assert tagger.is_merged
        torch.testing.assert_close(tagger(*batch), before, atol=1e-5, rtol=0)
        assert tagger_files(tagger) == files, "what is saved does not depend on merging"
        tagger.train().eval()
        assert not tagger.is_merged
        assert torch.equal(tagger(*batch), before)
        assert tagger_files(tagger) == files


def test_merging_without_an_adapter_does_nothing(make_tagger: Callable[..., Tagger]) -> None:
    tagger = make_tagger("small-full")
    tagger.merge_adapter()
    assert not tagger.is_merged


def test_adapter_and_head_stay_fp32_on_a_coarse_backbone(
    make_tagger: Callable[..., Tagger], batch: Batch
) -> None:
    tagger = make_tagger("hf", dtype="bfloat16")
    dtypes = {name: p.dtype for name, p in tagger.named_parameters()}
    for name, dtype in dtypes.items():
        fine = ".lora_" in name or name.startswith("head.")
        assert dtype == (torch.float32 if fine else torch.bfloat16), name
    assert tagger(*batch).dtype == torch.float32
    tagger.merge_adapter()
    assert tagger(*batch).dtype == torch.float32


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_precision_can_be_switched(
    attn_implementation: str, make_tagger: Callable[..., Tagger], batch: Batch
) -> None:
    tagger = make_tagger("small-full", attn_implementation=attn_implementation)
    with torch.no_grad():
        fine = tagger(*batch)
        tagger.precision = "bf16"
        coarse = tagger(*batch)
    assert coarse.dtype == torch.float32
    assert not torch.equal(fine, coarse)
    torch.testing.assert_close(fine[0], coarse[0], atol=0.05, rtol=0)
    train(tagger, n_steps=1)
    assert all(torch.isfinite(p).all() for p in tagger.parameters())


def test_fresh_weights_depend_on_the_seed_alone(make_tagger: Callable[..., Tagger]) -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = tagger_files(make_tagger("small", seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    second, other = (tagger_files(make_tagger("small", seed=seed)) for seed in (1, 2))
    assert first == second
    assert first["weights.safetensors"] != other["weights.safetensors"]


def test_a_small_llama_trains_its_tokenizer_when_it_has_none(
    tmp_path: Path, tokenizer: SubwordTokenizer
) -> None:
    sizes = {"hidden_size": 32, "n_layers": 1, "n_heads": 2, "intermediate_size": 64}
    trained = build_tagger(SmallLlama(**sizes, vocab_size=400), None, texts=iter(TEXTS))
    assert trained.tokenizer.fingerprint() == tokenizer.fingerprint()
    assert (trained.hidden_size, trained.max_positions) == (32, 1024)
    tokenizer.to_folder(tmp_path / "t")
    read = build_tagger(SmallLlama(**sizes, tokenizer_path=str(tmp_path / "t")), None)
    assert read.tokenizer.fingerprint() == tokenizer.fingerprint()
    with pytest.raises(VanerError, match="VE126"):
        build_tagger(SmallLlama(**sizes), None)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: HFBackbone(""), "backbone.name"),
        (lambda: HFBackbone("x", dtype="int8"), "backbone.dtype"),
        (lambda: HFBackbone("x", attn_implementation="flash"), "backbone.attn_implementation"),
        (lambda: SmallLlama(n_layers=0), "backbone.n_layers"),
        (lambda: SmallLlama(hidden_size=36, n_heads=4), "backbone.hidden_size"),
        (lambda: SmallLlama(vocab_size=261), "backbone.vocab_size"),
        (lambda: SmallLlama(attn_implementation=""), "backbone.attn_implementation"),
        (lambda: Lora(rank=0), "adapter.rank"),
        (lambda: Lora(alpha=0), "adapter.alpha"),
        (lambda: Lora(dropout=1), "adapter.dropout"),
        (lambda: Lora(targets="q_proj"), "adapter.targets"),
        (lambda: Lora(targets=()), "adapter.targets"),
    ],
)
def test_impossible_settings_are_named(make: Callable[[], Any], key: str) -> None:
    with pytest.raises(VanerError, match=f"VE101: {key} ="):
        make()


def test_devices_and_precisions_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for setting, number in (("gpu", "VE103"), ("mps", "VE103"), ("cuda:1", "VE104")):
        with pytest.raises(VanerError, match=number):
            choose_device(setting)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"
    with pytest.raises(VanerError, match="VE104.*1 CUDA device"):
        choose_device("cuda:1")

    cpu = torch.device("cpu")
    assert [choose_precision(p, cpu) for p in ("fp32", "bf16")] == ["fp32", "bf16"]
    with pytest.raises(VanerError, match="VE105"):
        choose_precision("fp16", cpu)
    for has_bf16 in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)  # noqa: B023
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert choose_precision("auto", cpu) == ("bf16" if has_bf16 else "fp32")
    for capability, expected in (((7, 5), "fp32"), ((8, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert choose_precision("auto", torch.device("cuda")) == expected


@pytest.mark.gpu
def test_on_cuda_predictions_agree_with_the_cpu(
    make_tagger: Callable[..., Tagger], batch: Batch
) -> None:
    on_cpu, on_cuda = (make_tagger("hf", device=device) for device in ("cpu", "cuda"))
    ids, lengths = batch
    with torch.no_grad():
        expected = on_cpu(ids, lengths)
        found = on_cuda(ids.cuda(), lengths.cuda()).cpu()
        on_cuda.merge_adapter()
        merged = on_cuda(ids.cuda(), lengths.cuda()).cpu()
    torch.testing.assert_close(found[0], expected[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(merged[0], expected[0], atol=1e-3, rtol=0)
