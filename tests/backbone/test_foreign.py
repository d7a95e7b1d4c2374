"""Checkpoints of VANER's and LS-LLaMA's code: read exactly, and refused where they can't be."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spacy_vaner.backbone import HFBackbone, tagger_files, tagger_from_files
from spacy_vaner.backbone.foreign import read_checkpoint, tagger_from_checkpoint
from spacy_vaner.errors import VanerError
from tests.support.foreign_checkpoint import reference_logits, save_checkpoint

pytestmark = pytest.mark.transformers5

IDS = torch.tensor([[0, 17, 300, 5, 44, 44, 260]])
LENGTHS = torch.tensor([7])
ALL_LINEAR = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]


@pytest.fixture(scope="module")
def saved(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_checkpoint(llama_folder, folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "options",
    [
        {"head": "classifier"},
        {"head": "score"},
        {"target_modules": ["q_proj", "o_proj", "down_proj"], "r": 3},
        {"target_modules": ALL_LINEAR, "use_rslora": True},
        {"target_modules": r".*\.(k|v)_proj"},
    ],
    ids=str,
)
def test_logits_are_those_of_the_layers_of_transformers(
    options: dict[str, Any], attn_implementation: str, llama_folder: Path, tmp_path: Path
) -> None:
    tuned = save_checkpoint(llama_folder, tmp_path / "checkpoint", **options)
    checkpoint = read_checkpoint(tmp_path / "checkpoint")
    backbone = HFBackbone(str(llama_folder), attn_implementation=attn_implementation)
    tagger = tagger_from_checkpoint(checkpoint, backbone)
    expected = reference_logits(tuned, IDS)
    with torch.no_grad():
        found = tagger(IDS, LENGTHS)
        loaded = tagger_from_files(tagger_files(tagger), device="cpu", precision="fp32")
        assert torch.equal(loaded(IDS, LENGTHS), found)
        # The adapter and the head matter here.
        tagger.backbone.disable_adapter_layers()  # type: ignore[operator]
        assert (tagger(IDS, LENGTHS) - expected).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert checkpoint.base == str(llama_folder)
    assert checkpoint.adapter.dropout == 0.1
    if "r" not in options and "use_rslora" not in options:
        assert (checkpoint.adapter.rank, checkpoint.adapter.alpha) == (12, 32)


@pytest.mark.parametrize("said_by", ["caller", "config"])
def test_columns_are_put_into_our_order(
    said_by: str, folder: Path, llama_folder: Path, tmp_path: Path
) -> None:
    names = ["I-Disease", "O", "B-Disease"]
    if said_by == "config":
        id2label = {str(number): name for number, name in enumerate(names)}
        (folder / "config.json").write_text(json.dumps({"id2label": id2label}))
    checkpoint = read_checkpoint(folder, labels=names if said_by == "caller" else None)
    assert checkpoint.labels == ("O", "B-Disease", "I-Disease")
    assert (checkpoint.columns, checkpoint.type_name) == ((1, 2, 0), "Disease")
    tagger = tagger_from_checkpoint(checkpoint, HFBackbone(str(llama_folder)))
    expected = reference_logits(save_checkpoint(llama_folder, tmp_path / "again"), IDS)
    with torch.no_grad():
        torch.testing.assert_close(
            tagger(IDS, LENGTHS), expected[..., [1, 2, 0]], atol=1e-4, rtol=0
        )


def test_an_older_file_and_older_names_are_read(folder: Path) -> None:
    expected = read_checkpoint(folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    older = {
        name.replace("classifier.", "classifier.modules_to_save.default.").replace(
            "lora_A.", "lora_A.default."
        ): tensor
        for name, tensor in tensors.items()
    }
    older["base_model.model.classifier.original_module.weight"] = torch.zeros(3, 32)
    (folder / "adapter_model.safetensors").unlink()
    torch.save(older, folder / "adapter_model.bin")
    found = read_checkpoint(folder)
    assert found.path.name == "adapter_model.bin"
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[name], t) for name, t in expected.tensors.items())
    assert torch.equal(found.head_weight, expected.head_weight)
    assert torch.equal(found.head_bias, expected.head_bias)
    assert found.type_name is None


class _Malicious:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.touched), "w")


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_pickle_is_refused_and_not_run(how: str, folder: Path, tmp_path: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    path, touched = folder / "adapter_model.bin", tmp_path / "was run"
    content = {"base_model.model.classifier.weight": _Malicious(touched)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(VanerError, match=r"VE163.*adapter_model\.bin"):
        read_checkpoint(folder)
    assert not touched.exists()
    pickle.loads(pickle.dumps(_Malicious(touched))).close()
    assert touched.exists(), "it would have run"


def set_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def set_weights(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return save


HEAD = "base_model.model.classifier.weight"


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def hide_in_checkpoints(folder: Path) -> None:
    files = list(folder.iterdir())
    (folder / "checkpoint-500").mkdir()
    for path in files:
        path.rename(folder / "checkpoint-500" / path.name)


def cut_bin(folder: Path) -> None:
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    truncate("adapter_model.bin")(folder)


def keep_two_columns(tensors: dict[str, Any]) -> None:
    for name in (HEAD, HEAD.replace("weight", "bias")):
        tensors[name] = tensors[name][:2].clone()


FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "another rank": ("VE165.*rank 12.*r = 8", set_config(r=8)),
    "no head": ("VE166", set_weights(lambda t: t.pop(HEAD))),
    "no head at all": (
        "VE166.*classifier or score",
        set_weights(lambda t: [t.pop(name) for name in list(t) if "classifier" in name]),
    ),
    "cut weights": ("VE163.*adapter_model.safetensors", truncate("adapter_model.safetensors")),
    "cut older weights": ("VE163.*adapter_model.bin", cut_bin),
    "cut config": ("VE163.*adapter_config.json", truncate("adapter_config.json")),
    "a word for the rank": ("VE163", set_config(r="twelve")),
    "not LoRA": ("VE164.*peft_type = 'IA3'", set_config(peft_type="IA3")),
    "another task": ("VE164.*SEQ_CLS", set_config(task_type="SEQ_CLS")),
    "DoRA": ("VE164.*use_dora", set_config(use_dora=True)),
    "a setting of another time": ("VE164.*use_new", set_config(use_new={"a": 1})),
    "PiSSA": ("VE164.*pissa", set_config(init_lora_weights="pissa")),
    "biases": ("VE164.*bias", set_config(bias="lora_only")),
    "embeddings": ("VE164.*embed_tokens", set_config(modules_to_save=["embed_tokens"])),
    "saved embeddings": (
        "VE164.*embed_tokens",
        set_weights(
            lambda t: t.update({"base_model.model.model.embed_tokens.weight": t[HEAD] + 1})
        ),
    ),
    "only a head": (
        "VE164.*no weights of LoRA",
        set_weights(lambda t: [t.pop(name) for name in list(t) if "lora" in name]),
    ),
    "a longer bias": (
        "VE163.*3 rows and a bias of shape \\(4,\\)",
        set_weights(lambda t: t.update({HEAD.replace("weight", "bias"): torch.zeros(4)})),
    ),
    "two columns": ("VE167.*2 columns", set_weights(keep_two_columns)),
    "no config": ("VE162", lambda folder: (folder / "adapter_config.json").unlink()),
    "no weights": ("VE162.*bin", lambda folder: (folder / "adapter_model.safetensors").unlink()),
    "a folder of checkpoints": ("VE162.*checkpoint-500", hide_in_checkpoints),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_imported_is_named(fault: str, folder: Path) -> None:
    message, harm = FAULTS[fault]
    harm(folder)
    with pytest.raises(VanerError, match=message):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "names",
    [
        ("LABEL_0", "LABEL_1", "LABEL_2"),
        ("O", "B-PER", "I-LOC"),
        ("O", "B", "B"),
        ("O", "B"),
        ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
    ],
)
def test_labels_that_are_not_o_b_i_are_refused(names: tuple[str, ...], folder: Path) -> None:
    with pytest.raises(VanerError, match="VE167.*--labels"):
        read_checkpoint(folder, labels=names)
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(names))}))
    with pytest.raises(VanerError, match="VE167"):
        read_checkpoint(folder)


def test_more_types_than_one_are_refused(llama_folder: Path, tmp_path: Path) -> None:
    save_checkpoint(llama_folder, tmp_path / "conll", n_labels=9)
    with pytest.raises(VanerError, match="VE167.*9 columns"):
        read_checkpoint(tmp_path / "conll")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"hidden_size": 64}, "64 values, not 32"),
        ({"num_hidden_layers": 3}, r"the checkpoint has no .*layers\.2"),
        ({"num_hidden_layers": 1}, r"no place for .*layers\.1"),
        ({"num_key_value_heads": 4}, r"v_proj\.lora_B\.weight has to be"),
    ],
)
def test_another_backbone_is_refused(
    options: dict[str, int], reason: str, folder: Path, save_backbone: Callable[..., Path]
) -> None:
    other = HFBackbone(str(save_backbone("Llama", **options)))
    with pytest.raises(VanerError, match=f"VE168.*{reason}"):
        tagger_from_checkpoint(read_checkpoint(folder), other)


def test_layers_that_the_backbone_lacks_are_named(folder: Path, llama_folder: Path) -> None:
    set_weights(lambda t: [t.update({n.replace("q_proj", "query"): t.pop(n)}) for n in list(t)])(
        folder
    )
    with pytest.raises(VanerError, match="VE168"):
        tagger_from_checkpoint(read_checkpoint(folder), HFBackbone(str(llama_folder)))
