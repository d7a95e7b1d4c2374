"""Tiny backbones, built once: a LLaMA folder, a Mistral and a Qwen folder, and a tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spacy_vaner.backbone import HFBackbone, Lora, SmallLlama, SubwordTokenizer, Tagger, train_bpe
from spacy_vaner.backbone import build_tagger as build
from spacy_vaner.backbone.pretrained import quiet_transformers

TEXTS = [
    "Germline mutations of BRCA1 and BRCA2 predispose to breast and ovarian cancer.",
    "BRCA1-deficient cells (n = 37) were treated with 5-fluorouracil or TNF-α at 37 °C.",
    "The mRNA of HDACs, p53 and IL-2 was measured in 120 patients with Crohn's disease.",
    "No mutation was found in 12 of 45 families; the DNA of E. coli served as control.",
] * 4

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


@pytest.fixture(scope="session")
def tokenizer() -> SubwordTokenizer:
    return train_bpe(TEXTS, vocab_size=400)


@pytest.fixture(scope="session")
def save_backbone(
    tokenizer: SubwordTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Save a causal language model of a family, with the tokenizer, as the hub has them."""
    import transformers

    def save(family: str, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp(family)
        config = getattr(transformers, f"{family}Config")(
            **{**SIZES, "vocab_size": tokenizer.n_tokens, **options}
        )
        with torch.random.fork_rng(devices=[]), quiet_transformers():
            torch.manual_seed(3)
            model = getattr(transformers, f"{family}ForCausalLM")(config)
            model.save_pretrained(folder)
        for name, content in tokenizer.to_files().items():
            (folder / name).write_bytes(content)
        return folder

    return save


@pytest.fixture(scope="session")
def folders(save_backbone: Callable[..., Path]) -> dict[str, Path]:
    return {family: save_backbone(family) for family in ("Llama", "Mistral", "Qwen2")}


@pytest.fixture(scope="session")
def llama_folder(folders: dict[str, Path]) -> Path:
    return folders["Llama"]


@pytest.fixture
def llama_copy(llama_folder: Path, tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    return Path(shutil.copytree(llama_folder, tmp_path / "llama"))


@pytest.fixture
def make_tagger(llama_folder: Path, tokenizer: SubwordTokenizer) -> Callable[..., Tagger]:
    """Build one of the four kinds of tagger, with an adapter that is not zero."""

    def make(kind: str = "hf", *, lora: Lora | None = None, **options: Any) -> Tagger:
        attn_implementation = options.pop("attn_implementation", "sdpa")
        dtype = options.pop("dtype", "float32")
        settings: HFBackbone | SmallLlama
        if kind.startswith("hf"):
            settings = HFBackbone(
                str(llama_folder), dtype=dtype, attn_implementation=attn_implementation
            )
        else:
            settings = SmallLlama(
                hidden_size=32,
                n_layers=2,
                n_heads=2,
                intermediate_size=64,
                max_positions=128,
                attn_implementation=attn_implementation,
            )
            options.setdefault("tokenizer", tokenizer)
        adapter = None if kind.endswith("-full") else lora or Lora(rank=2)
        tagger = build(settings, adapter, **options)
        # A fresh adapter adds nothing: B is zero.
        generator = torch.Generator().manual_seed(5)
        for name, parameter in tagger.named_parameters():
            if "lora_B" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(0.05 * noise)
        return tagger.eval()

    return make


KINDS = ("hf", "hf-full", "small", "small-full")


@pytest.fixture
def batch(tokenizer: SubwordTokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Three padded rows: input_ids (3, 9), lengths (3,)."""
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randint(0, tokenizer.n_tokens, (3, 9), generator=generator),
        torch.tensor([9, 4, 1]),
    )
