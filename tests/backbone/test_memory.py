from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from spacy_vaner.backbone import HFBackbone, Lora, Tagger, build_tagger
from spacy_vaner.backbone.memory import (
    SHAPES,
    Counts,
    count,
    memory_table,
    read_shape,
    training_memory,
    weights_bytes,
)
from spacy_vaner.cli import vaner_app
from spacy_vaner.errors import VanerError

pytestmark = pytest.mark.transformers5

PAGE = Path(__file__).parents[2] / "docs/backbones.md"
TABLE = re.compile(r"<!-- memory of (?P<shape>\S+) -->\n\n(?P<table>(?:\|.*\n)+)")
PAPER_ROWS, PAPER_SUBWORDS = 8, 160
"""8 sentences of 128 subwords after an instruction of 25, padded to a multiple of 32."""

PUBLISHED = {
    # Parameters of the whole model as published, and those of its language-model head.
    "llama-2-7b": (6_738_415_616, 32000 * 4096),
    "llama-3-8b": (8_030_261_248, 128256 * 4096),
    "mistral-7b": (7_241_732_096, 32000 * 4096),
    "qwen2.5-7b": (7_615_616_512, 152064 * 3584),
}


@pytest.fixture(scope="module")
def llama_2() -> Counts:
    return count(read_shape("LLaMA-2-7B"), Lora())


@pytest.mark.slow
def test_known_backbones_have_the_published_number_of_parameters() -> None:
    assert set(PUBLISHED) == set(SHAPES)
    for name, (n_parameters, n_head) in PUBLISHED.items():
        assert count(read_shape(name), Lora()).n_parameters == n_parameters - n_head, name


def test_an_adapter_of_all_linear_layers_is_under_150_mb(llama_2: Counts) -> None:
    assert 100e6 < 4 * llama_2.n_trained < 150e6
    narrow = count(read_shape("llama-2-7b"), Lora(targets=("q_proj", "v_proj")))
    assert narrow.n_trained - 4096 * 3 - 3 == 32 * 2 * 12 * 2 * 4096


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2"])
def test_what_is_counted_is_what_is_built(family: str, folders: dict[str, Path]) -> None:
    counts = count(read_shape(str(folders[family])), Lora(rank=3))
    tagger = build_tagger(HFBackbone(str(folders[family])), Lora(rank=3))
    trained = [p.numel() for p in tagger.parameters() if p.requires_grad]
    frozen = [p.numel() for p in tagger.parameters() if not p.requires_grad]
    assert counts.n_trained == sum(trained)
    assert counts.n_parameters == sum(frozen)


def held_bytes(tagger: Tagger) -> int:
    """Of the frozen weights and all that belongs to them."""
    tensors = [p.data for p in tagger.parameters() if not p.requires_grad]
    for module in tagger.modules():
        tensors += [b for name, b in module.named_buffers(recurse=False) if name == "scales"]
        # PEFT's layer around it shows the same weight.
        state: Any = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None and not hasattr(module, "base_layer"):
            nested = state.state2
            tensors += [state.absmax, state.code, state.offset, nested.absmax, nested.code]
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("storage", ["fp32", "bf16", "int8", "nf4"])
def test_weights_take_the_bytes_that_were_counted(
    storage: str, save_backbone: Callable[..., Path]
) -> None:
    # Sizes that leave blocks of 64 weights and of 256 scales incomplete.
    folder = save_backbone("Qwen2", hidden_size=72, intermediate_size=300)
    quantization = storage if storage in ("int8", "nf4") else None
    if quantization:
        pytest.importorskip("bitsandbytes")
    dtype = "float32" if storage == "fp32" else "bfloat16"
    tagger = build_tagger(HFBackbone(str(folder), dtype=dtype, quantization=quantization), Lora())
    assert weights_bytes(count(read_shape(str(folder)), Lora()), storage) == held_bytes(tagger)


def kept_bytes(tagger: Tagger, rows: int, subwords: int) -> int:
    """What a training pass keeps for the gradients, weights aside; every storage once."""
    weights = {p.untyped_storage().data_ptr() for p in tagger.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tagger.train()(torch.randint(0, 260, (rows, subwords)), torch.full((rows,), subwords)).sum()
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("storage", ["fp32", "bf16"])
def test_activations_are_of_the_size_of_measured_ones(
    storage: str, save_backbone: Callable[..., Path]
) -> None:
    n_layers = 6
    folder = save_backbone(
        "Llama", hidden_size=128, intermediate_size=344, num_hidden_layers=n_layers
    )
    counts = count(read_shape(str(folder)), Lora())
    measured, estimated = {}, {}
    for again in (False, True):
        settings = HFBackbone(
            str(folder),
            dtype="float32" if storage == "fp32" else "bfloat16",
            gradient_checkpointing=again,
        )
        tagger = build_tagger(settings, Lora(), precision=storage)
        measured[again] = kept_bytes(tagger, 4, 64)
        estimated[again] = training_memory(
            counts, storage, rows=4, subwords=64, gradient_checkpointing=again
        ).activations
    # While a layer is computed again, its insides come on top.
    measured[True] += measured[False] // n_layers
    ratios = {again: estimated[again] / measured[again] for again in measured}
    assert all(0.6 < ratio < 1.5 for ratio in ratios.values()), ratios


def test_the_page_has_the_tables_that_the_command_prints() -> None:
    tables = {found["shape"]: found["table"] for found in TABLE.finditer(PAGE.read_text("utf8"))}
    assert set(tables) == {"llama-2-7b", "llama-3-8b"}
    for shape, table in tables.items():
        done = CliRunner().invoke(vaner_app, ["memory", shape])
        assert done.exit_code == 0, done.output
        headline, unit, *lines = done.output.splitlines()
        assert unit.startswith("GiB for 8 rows of 160 subwords, with gradient checkpointing")
        assert lines == table.splitlines(), shape
        assert headline.split(" parameters")[0] in PAGE.read_text("utf8")


def test_the_paper_fits_its_24_gb(llama_2: Counts) -> None:
    def total(storage: str, *, gradient_checkpointing: bool) -> int:
        return training_memory(
            llama_2,
            storage,
            rows=PAPER_ROWS,
            subwords=PAPER_SUBWORDS,
            gradient_checkpointing=gradient_checkpointing,
        ).total

    assert total("nf4", gradient_checkpointing=True) < 6e9
    assert total("nf4", gradient_checkpointing=False) < 24e9
    assert total("fp32", gradient_checkpointing=True) > 24e9
    assert len(memory_table(llama_2, rows=1, subwords=32, gradient_checkpointing=True)) == 6


def test_a_config_alone_is_enough(llama_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text((llama_folder / "config.json").read_text())
    for name in (str(tmp_path), str(config)):
        done = CliRunner().invoke(vaner_app, ["memory", name, "--rank", "2", "--rows", "4"])
        assert done.exit_code == 0 and "| nf4 |" in done.output
        # Also of a backbone that takes a few MiB the figures say something.
        assert "| 0.0 |" not in done.output and "| 0.00" in done.output
    counts = count(read_shape(str(tmp_path)), Lora(targets=("q_proj", "v_proj")))
    done = CliRunner().invoke(vaner_app, ["memory", str(tmp_path), "--targets", "q_proj, v_proj"])
    assert f"adapter and head: {counts.n_trained:,}," in done.output


def test_what_cannot_be_counted_is_named(tmp_path: Path) -> None:
    for name in ("org/nothing", "llama-2-13b", "/gone/folder"):
        with pytest.raises(VanerError, match=f"VE120.*{name}.*known by name are llama-2-7b"):
            read_shape(name)
    path = tmp_path / "config.json"
    with pytest.raises(VanerError, match=f"VE122: {path} is missing"):
        read_shape(str(tmp_path))
    for text in ("{", "{}", "[]"):
        path.write_text(text)
        with pytest.raises(VanerError, match="VE122"):
            read_shape(str(tmp_path))
    for model_type in ("own", "clip"):
        path.write_text(json.dumps({"model_type": model_type}))
        with pytest.raises(VanerError, match=f"VE107.*{model_type}"):
            count(read_shape(str(tmp_path)), Lora())
    with pytest.raises(VanerError, match="VE127"):
        count(read_shape("llama-2-7b"), Lora(targets=("query",)))
