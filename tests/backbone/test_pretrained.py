"""Backbones of every family: read to both sides, trained, saved; and those that cannot be used."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load

from spacy_vaner.backbone import (
    HFBackbone,
    Lora,
    SubwordTokenizer,
    Tagger,
    build_tagger,
    tagger_files,
    tagger_from_files,
)
from spacy_vaner.backbone.pretrained import position_fingerprint, quiet_transformers
from spacy_vaner.errors import VanerError

from .conftest import SIZES
from .test_attention import train

pytestmark = pytest.mark.transformers5

Batch = tuple[torch.Tensor, torch.Tensor]


class Family(NamedTuple):
    """A tiny model that is shaped like a known one."""

    config: str
    options: dict[str, Any]
    attn_implementation: str = "sdpa"


LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "LLaMA-2": Family("Llama", {"num_key_value_heads": 4}),
    "LLaMA-3": Family(
        "Llama",
        {"rope_theta": 500000.0, "rope_scaling": LLAMA3_SCALING, "tie_word_embeddings": True},
    ),
    "Mistral": Family("Mistral", {"sliding_window": 64}),
    "Qwen2": Family("Qwen2", {"tie_word_embeddings": True}),
    "Qwen3": Family("Qwen3", {"head_dim": 16}),
    "Gemma": Family("Gemma", {"head_dim": 16}),
    "Gemma2": Family("Gemma2", {"head_dim": 16, "sliding_window": 64}, "eager"),
    "Gemma3": Family("Gemma3Text", {"head_dim": 16, "sliding_window": 64}),
}
"""The last options are those in which real models differ: shared keys and values by default."""


@pytest.fixture(scope="session")
def family_folders(
    tokenizer: SubwordTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    import transformers

    found = {}
    for name, (kind, options, _) in FAMILIES.items():
        folder = tmp_path_factory.mktemp(name)
        config = getattr(transformers, f"{kind}Config")(
            **{**SIZES, "vocab_size": tokenizer.n_tokens, **options}
        )
        with torch.random.fork_rng(devices=[]), quiet_transformers():
            torch.manual_seed(3)
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        for file, content in tokenizer.to_files().items():
            (folder / file).write_bytes(content)
        found[name] = folder
    return found


def overfit(tagger: Tagger, *, most_steps: int = 100) -> float:
    """Learn tags by heart that depend on both neighbours. RETURNS: the share that is right."""
    ids, lengths = torch.randint(0, 260, (3, 10)), torch.tensor([10, 10, 10])
    tags = (ids.roll(1, dims=1) + ids.roll(-1, dims=1)).remainder(2)
    optimizer = torch.optim.AdamW([p for p in tagger.parameters() if p.requires_grad], lr=0.01)
    right = 0.0
    for _ in range(most_steps):
        logits = tagger.train()(ids, lengths)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tags.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            right = float((tagger.eval()(ids, lengths).argmax(-1) == tags).float().mean())
        if right == 1.0:
            break
    return right


def settings_for(name: str, folders: dict[str, Path], **options: Any) -> HFBackbone:
    return HFBackbone(
        str(folders[name]), attn_implementation=FAMILIES[name].attn_implementation, **options
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_learns_from_both_sides_and_is_saved(
    name: str, family_folders: dict[str, Path], batch: Batch
) -> None:
    # Building and loading run the self-check.
    tagger = build_tagger(settings_for(name, family_folders), None, dropout=0.0)
    assert overfit(tagger) == 1.0
    loaded = tagger_from_files(tagger_files(tagger), device="cpu", precision="fp32")
    with torch.no_grad():
        assert torch.equal(loaded(*batch), tagger(*batch))


@pytest.mark.parametrize("name", FAMILIES)
def test_an_adapter_on_a_family_is_saved_and_merged(
    name: str, family_folders: dict[str, Path], batch: Batch
) -> None:
    tagger = build_tagger(settings_for(name, family_folders), Lora(rank=2), dropout=0.0)
    train(tagger, n_steps=3)
    with torch.no_grad():
        before = tagger(*batch)
        loaded = tagger_from_files(tagger_files(tagger), device="cpu", precision="fp32")
        assert torch.equal(loaded(*batch), before)
        loaded.merge_adapter()
        assert loaded.is_merged
        torch.testing.assert_close(loaded(*batch)[0], before[0], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_recomputed_layers_give_equal_gradients(
    name: str, family_folders: dict[str, Path], batch: Batch
) -> None:
    """Also beneath an adapter, where the input of the first layer has no gradient."""
    gradients, kept = [], []
    for again in (False, True):
        settings = settings_for(name, family_folders, gradient_checkpointing=again)
        tagger = build_tagger(settings, Lora(rank=2), seed=1).train()
        pickle.dumps(tagger)  # as a process that is spawned gets it
        for parameter_name, parameter in tagger.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.constant_(parameter, 0.01)
        torch.manual_seed(7)  # of the dropout, which is drawn twice
        n_bytes = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal n_bytes
            n_bytes += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            logits = tagger(*batch)
        logits[0].square().sum().backward()
        kept.append(n_bytes)
        gradients.append({n: p.grad for n, p in tagger.named_parameters() if p.requires_grad})
    assert all(gradient.abs().max() > 0 for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-7, rtol=1e-5)
    assert kept[1] < kept[0] / 5


def test_no_input_is_longer_than_what_a_layer_sees(family_folders: dict[str, Path]) -> None:
    longest = {
        name: build_tagger(settings_for(name, family_folders), None).max_positions
        for name in FAMILIES
    }
    windowed = {"Mistral", "Gemma2", "Gemma3"}
    assert longest == {name: 64 if name in windowed else 128 for name in FAMILIES}


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_another_rope_scaling_or_head_size_is_another_backbone(
    family_folders: dict[str, Path], llama_copy: Path
) -> None:
    files = tagger_files(build_tagger(HFBackbone(str(llama_copy)), Lora(rank=2)))
    change_config(llama_copy, rope_scaling={"rope_type": "linear", "factor": 2.0})
    change_config(llama_copy, rope_parameters=None)
    with pytest.raises(VanerError, match="VE136.* its .*positions differ"):
        tagger_from_files(files, device="cpu", precision="fp32")
    before = position_fingerprint(llama_copy)
    change_config(llama_copy, head_dim=16)
    assert position_fingerprint(llama_copy) != before


def test_what_was_saved_before_positions_were_hashed_is_still_read(
    family_folders: dict[str, Path], batch: Batch
) -> None:
    tagger = build_tagger(settings_for("LLaMA-3", family_folders), Lora(rank=2)).eval()
    files = tagger_files(tagger)
    description = json.loads(files["tagger.json"])
    assert description["backbone_reference"].pop("positions")
    for key in ("quantization", "gradient_checkpointing"):
        del description["backbone"][key]
    files["tagger.json"] = json.dumps(description).encode()
    loaded = tagger_from_files(files, device="cpu", precision="fp32")
    with torch.no_grad():
        assert torch.equal(loaded(*batch), tagger(*batch))


def test_both_generations_of_config_have_one_fingerprint(llama_copy: Path) -> None:
    forms: list[dict[str, Any]] = [
        {"rope_theta": 5e5, "rope_scaling": LLAMA3_SCALING, "rope_parameters": None},
        {"rope_parameters": {**LLAMA3_SCALING, "rope_theta": 5e5}, "rope_scaling": None},
        {"rope_theta": 1e4, "rope_scaling": None, "rope_parameters": None, "head_dim": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "head_dim": 8},
    ]
    found = []
    for form in forms:
        change_config(llama_copy, **form)
        found.append(position_fingerprint(llama_copy))
    assert found[0] == found[1] and found[2] == found[3] and found[0] != found[2]


def pickled(folder: Path) -> None:
    torch.save(load((folder / "model.safetensors").read_bytes()), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def quantised(folder: Path) -> None:
    change_config(
        folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}
    )


def turned_into_an_adapter(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (pickled, r"VE121.*save_pretrained\(…, safe_serialization=True\)"),
        (turned_into_an_adapter, r"VE156.*trained on \(org/base\).*import-adapter"),
        (truncated, "VE122.*Get the backbone's files again"),
        (quantised, r"VE153.*model\.backbone\.quantization"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    harm: Callable[[Path], None], message: str, llama_copy: Path
) -> None:
    harm(llama_copy)
    with pytest.raises(VanerError, match=message):
        build_tagger(HFBackbone(str(llama_copy)), Lora(rank=2))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("org/nothing", ".*"), ("/gone/folder", "it is no name that the hub takes")],
)
def test_a_backbone_that_is_nowhere_is_named(name: str, reason: str) -> None:
    message = rf"VE120.*'{name}'.*\({reason}\).*model\.backbone\.name.*hf download"
    with pytest.raises(VanerError, match=message):
        build_tagger(HFBackbone(name), Lora())


@pytest.mark.parametrize("n_rows", [300, 900])
def test_a_tokenizer_of_another_backbone_is_named(
    n_rows: int, save_backbone: Callable[..., Path]
) -> None:
    folder = save_backbone("Mistral", vocab_size=n_rows)
    message = rf"VE125.* 400 subwords.* {n_rows}.*tokenizer that came with"
    with pytest.raises(VanerError, match=message):
        build_tagger(HFBackbone(str(folder)), Lora())


def test_capped_attention_needs_eager(family_folders: dict[str, Path]) -> None:
    with pytest.raises(VanerError, match='VE154.*attn_implementation = "eager"'):
        build_tagger(HFBackbone(str(family_folders["Gemma2"])), Lora())


UNMASKABLE: dict[str, tuple[str, dict[str, Any]]] = {
    # Causal by a table of its own, and by a state that runs along.
    "GPTNeo": (
        "VE106.*attention is causal.*Try the other attn_implementation",
        {
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 64,
        },
    ),
    "Mamba": ("VE107.*LLaMA's interface work", {"state_size": 4, "num_hidden_layers": 2}),
}


@pytest.mark.parametrize("family", UNMASKABLE)
def test_attention_that_cannot_be_unmasked_is_named(
    family: str, tmp_path: Path, tokenizer: SubwordTokenizer
) -> None:
    import transformers

    message, options = UNMASKABLE[family]
    config = getattr(transformers, f"{family}Config")(vocab_size=400, hidden_size=32, **options)
    with quiet_transformers():
        transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    settings = HFBackbone(str(tmp_path), attn_implementation="eager")
    with pytest.raises(VanerError, match=message):
        build_tagger(settings, None, tokenizer=tokenizer)


def test_gradients_of_a_model_that_cannot_recompute_are_refused(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.setattr(transformers.LlamaModel, "supports_gradient_checkpointing", False)
    with pytest.raises(VanerError, match=r"VE155.*gradient_checkpointing = false"):
        build_tagger(HFBackbone(str(llama_folder), gradient_checkpointing=True), Lora())


def test_an_adapter_of_another_rank_or_base_is_named(
    make_tagger: Callable[..., Tagger], family_folders: dict[str, Path]
) -> None:
    files = tagger_files(make_tagger("hf", lora=Lora(rank=2)))
    other = tagger_files(make_tagger("hf", lora=Lora(rank=3)))
    description = json.loads(other["tagger.json"])
    description["weights_sha256"] = json.loads(files["tagger.json"])["weights_sha256"]
    mixed = {**files, "tagger.json": json.dumps(description).encode()}
    with pytest.raises(VanerError, match="VE135.*another rank"):
        tagger_from_files(mixed, device="cpu", precision="fp32")
    base = settings_for("LLaMA-2", family_folders)
    with pytest.raises(VanerError, match=r"VE136.*weights differ.*model\.backbone\.name"):
        tagger_from_files(files, device="cpu", precision="fp32", backbone=base)
