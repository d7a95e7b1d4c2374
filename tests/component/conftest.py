"""The tiny tagger, trained once per session on real torch; loaded fresh where a test changes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from spacy.language import Language

from spacy_vaner.component import VanerNER
from spacy_vaner.model import get_tagger
from tests.support.tiny_tagger import TINY, component_of, merge, save_taught


@pytest.fixture
def make_nlp() -> Callable[..., Language]:
    """A pipeline with an untrained tiny component; changes go over its settings."""

    def make(**changes: Any) -> Language:
        # English takes longer to make, by its special cases.
        nlp = spacy.blank("xx")
        nlp.add_pipe("vaner_ner", config=merge(TINY, changes))
        return nlp

    return make


def quick_to_load() -> Language:
    """English without its 1,347 special cases, which are half the time of loading a pipeline."""
    nlp = spacy.blank("en")
    nlp.tokenizer.rules = {}  # type: ignore[assignment]
    return nlp


@pytest.fixture(scope="session")
def trained_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline that knows MENTIONS by heart (about 10 s)."""
    return save_taught(quick_to_load(), tmp_path_factory.mktemp("trained") / "pipeline")


@pytest.fixture
def load(trained_path: Path) -> Callable[..., Language]:
    """Load the trained pipeline with other settings of the component."""

    def load_with(**changes: Any) -> Language:
        return spacy.load(trained_path, config={"components": {"vaner_ner": changes}})

    return load_with


@pytest.fixture(scope="session")
def shared_nlp(trained_path: Path) -> Language:
    """The trained pipeline, for tests that change nothing of it."""
    return spacy.load(trained_path)


@pytest.fixture
def nlp(trained_path: Path) -> Language:
    """The trained pipeline, fresh from disk."""
    return spacy.load(trained_path)


@pytest.fixture
def ner(nlp: Language) -> VanerNER:
    component = component_of(nlp)
    assert isinstance(component, VanerNER)
    return component


@pytest.fixture(scope="session")
def llama_folder(trained_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained backbone as the hub has them; pretrained on nothing."""
    import transformers

    folder = tmp_path_factory.mktemp("llama") / "backbone"
    folder.mkdir()
    component = trained_path / "vaner_ner"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(component / name, folder)
    vocab = json.loads((folder / "tokenizer.json").read_text("utf8"))["model"]["vocab"]
    config = transformers.LlamaConfig(  # type: ignore[no-untyped-call]
        vocab_size=max(vocab.values()) + 1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        transformers.LlamaModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lora_path(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline with an adapter on that backbone: at random, so that it finds a lot."""
    nlp = quick_to_load()
    backbone = {"@misc": "spacy-vaner.hf_backbone.v1", "name": str(llama_folder)}
    adapter = {"@misc": "spacy-vaner.lora.v1", "rank": 4, "dropout": 0.0}
    model = {"backbone": backbone, "adapter": adapter}
    nlp.add_pipe("vaner_ner", config=merge(TINY, {"model": model}))
    nlp.initialize()
    tagger = get_tagger(component_of(nlp).model)
    assert tagger is not None
    generator = torch.Generator().manual_seed(5)
    for name, parameter in tagger.named_parameters():
        # A fresh adapter adds nothing, since its B is zero.
        if "lora_B" in name or name == "head.weight":
            parameter.data.normal_(std=0.3, generator=generator)
    path = tmp_path_factory.mktemp("lora") / "pipeline"
    nlp.to_disk(path)
    return path


@pytest.fixture
def lora_nlp(lora_path: Path) -> Callable[[], Language]:
    """Load that pipeline."""
    return lambda: spacy.load(lora_path)
