from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save, save_file

from spacy_vaner.backbone import (
    HFBackbone,
    Lora,
    SubwordTokenizer,
    Tagger,
    build_tagger,
    tagger_files,
    tagger_from_files,
    train_bpe,
)
from spacy_vaner.backbone.pretrained import (
    config_fingerprint,
    find_backbone,
    weight_files,
    weights_fingerprint,
)
from spacy_vaner.errors import VanerError

from .conftest import KINDS, TEXTS
from .test_attention import train

pytestmark = pytest.mark.transformers5

Batch = tuple[torch.Tensor, torch.Tensor]
Files = dict[str, bytes]


def read(files: Files, **options: Any) -> Tagger:
    return tagger_from_files(files, **{"device": "cpu", "precision": "fp32", **options})


def describe(files: Files, **changes: Any) -> Files:
    """Change tagger.json; the weights' hash is made to fit."""
    description = json.loads(files["tagger.json"])
    sha256 = hashlib.sha256(files["weights.safetensors"]).hexdigest()
    description.update({"weights_sha256": sha256, **changes})
    return {**files, "tagger.json": json.dumps(description).encode()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_tagger_is_equal_to_the_bit(
    kind: str, make_tagger: Callable[..., Tagger], batch: Batch
) -> None:
    tagger = make_tagger(kind, dropout=0.25, seed=9)
    train(tagger, n_steps=2)
    files = tagger_files(tagger)
    loaded = read(files)
    with torch.no_grad():
        assert torch.equal(loaded(*batch), tagger(*batch))
    assert tagger_files(loaded) == files
    assert not loaded.training
    assert (loaded.settings, loaded.adapter, loaded.dropout.p) == (
        tagger.settings,
        tagger.adapter,
        0.25,
    )
    trainable = [
        {n for n, p in some.named_parameters() if p.requires_grad} for some in (tagger, loaded)
    ]
    assert trainable[0] == trainable[1]
    train(loaded, n_steps=1)
    assert tagger_files(loaded) != files


def test_a_coarse_backbone_is_saved_and_loaded(
    make_tagger: Callable[..., Tagger], batch: Batch
) -> None:
    for kind in ("hf", "hf-full"):
        tagger = make_tagger(kind, dtype="bfloat16")
        loaded = read(tagger_files(tagger))
        with torch.no_grad():
            assert torch.equal(loaded(*batch), tagger(*batch))


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_needed_is_saved(kind: str, make_tagger: Callable[..., Tagger]) -> None:
    tagger = make_tagger(kind)
    files = tagger_files(tagger)
    names = set(load(files["weights.safetensors"]))
    stored = kind != "hf"
    assert {name.split(".")[0] for name in names} == (
        {"head"} | ({"backbone"} if stored else set()) | (set() if "full" in kind else {"adapter"})
    )
    assert ("backbone.embed_tokens.weight" in names) == stored
    assert not [n for n in names if n.startswith("adapter.") and "embed" in n]
    assert ("tokenizer.json" in files) == stored
    assert sum(map(len, files.values())) < 1e6
    description = json.loads(files["tagger.json"])
    reference = description["backbone_reference"]
    assert (reference is None) == stored
    if reference:
        assert set(reference) == {"config", "positions", "tokenizer", "weights"}
        assert description["backbone"]["name"] == tagger.settings.name  # type: ignore[union-attr]


def test_a_backbone_that_moved_is_found_under_its_new_name(
    make_tagger: Callable[..., Tagger], llama_copy: Path, batch: Batch
) -> None:
    settings = HFBackbone(str(llama_copy), revision="main")
    tagger = build_tagger(settings, Lora(rank=2)).eval()
    files = tagger_files(tagger)
    moved = llama_copy.rename(llama_copy.with_name("elsewhere"))
    with pytest.raises(VanerError, match=r"VE120.*model\.backbone\.name"):
        read(files)
    loaded = read(files, backbone=HFBackbone(str(moved)))
    assert loaded.settings == HFBackbone(str(moved))
    with torch.no_grad():
        assert torch.equal(loaded(*batch), tagger(*batch))


def swap(name: str, make: Callable[[Files], bytes]) -> Callable[[Files], Files]:
    return lambda files: {**files, name: make(files)}


DAMAGE: dict[str, tuple[str, Callable[[Files], Files]]] = {
    "no weights": ("VE130", lambda f: {k: v for k, v in f.items() if k != "weights.safetensors"}),
    "no description": ("VE130", lambda f: {k: v for k, v in f.items() if k != "tagger.json"}),
    "cut description": ("VE131", swap("tagger.json", lambda f: f["tagger.json"][:-5])),
    "empty description": ("VE131", swap("tagger.json", lambda f: b"{}")),
    "a list": ("VE131", swap("tagger.json", lambda f: b"[]")),
    "later format": ("VE132", lambda f: describe(f, format_version=99)),
    "no head": ("VE131", lambda f: describe(f, head=None)),
    "unknown backbone": ("VE102", lambda f: describe(f, backbone={"kind": "rnn"})),
    "unknown adapter": ("VE102", lambda f: describe(f, adapter={"size": 3})),
    "cut weights": ("VE133", swap("weights.safetensors", lambda f: f["weights.safetensors"][:-9])),
    "cut weights, new hash": (
        "VE134",
        lambda f: describe({**f, "weights.safetensors": f["weights.safetensors"][:-9]}),
    ),
    "no tensors, new hash": (
        "VE135",
        lambda f: describe({**f, "weights.safetensors": save({})}),
    ),
    "another tensor, new hash": (
        "VE135",
        lambda f: describe(
            {
                **f,
                "weights.safetensors": save(
                    {**load(f["weights.safetensors"]), "more": torch.ones(1)}
                ),
            }
        ),
    ),
    "another rank": ("VE135", lambda f: describe(f, adapter=Lora(rank=3).to_dict())),
    "no adapter": ("VE135", lambda f: describe(f, adapter=None)),
}


@pytest.mark.parametrize("kind", ["hf", "small"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named(
    damage: str, kind: str, make_tagger: Callable[..., Tagger]
) -> None:
    number, harm = DAMAGE[damage]
    with pytest.raises(VanerError, match=number):
        read(harm(tagger_files(make_tagger(kind))))


def test_a_tokenizer_that_does_not_belong_is_refused(make_tagger: Callable[..., Tagger]) -> None:
    files = tagger_files(make_tagger("small-full"))
    other = train_bpe(TEXTS, vocab_size=330).to_files()
    with pytest.raises(VanerError, match="VE137"):
        read({**files, **other})
    with pytest.raises(VanerError, match="VE111"):
        read({k: v for k, v in files.items() if k != "tokenizer.json"})


def test_a_tokenizer_larger_than_the_embedding_is_refused(
    save_backbone: Callable[..., Path],
) -> None:
    folder = save_backbone("Llama", vocab_size=300)
    with pytest.raises(VanerError, match="VE125"):
        build_tagger(HFBackbone(str(folder)), Lora())


def harm_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load(path.read_bytes())
    tensors["model.layers.1.mlp.up_proj.weight"][32] += 1e-3
    save_file(tensors, path, metadata={"format": "pt"})


def harm_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 0.1}))


def harm_tokenizer(folder: Path) -> None:
    for name, content in train_bpe(TEXTS, vocab_size=330).to_files().items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("part", "harm"),
    [("weights", harm_weights), ("config", harm_config), ("tokenizer", harm_tokenizer)],
)
def test_another_backbone_under_the_same_name_is_refused(
    part: str, harm: Callable[[Path], None], llama_copy: Path
) -> None:
    files = tagger_files(build_tagger(HFBackbone(str(llama_copy)), Lora(rank=2)))
    harm(llama_copy)
    with pytest.raises(VanerError, match=f"VE136.* its {part} differ"):
        read(files)


def test_the_fingerprint_survives_another_version_of_the_config(llama_copy: Path) -> None:
    before = config_fingerprint(llama_copy)
    path = llama_copy / "config.json"
    config = json.loads(path.read_text())
    theta = config.pop("rope_theta", None) or config.pop("rope_parameters")["rope_theta"]
    for spelling in ({"rope_theta": theta}, {"rope_parameters": {"rope_theta": theta}}):
        changed = {**config, **spelling, "transformers_version": "9", "dtype": "float16"}
        path.write_text(json.dumps(changed))
        assert config_fingerprint(llama_copy) == before


def shard(folder: Path) -> None:
    """Cut the weights into two shards with an index, as large models come."""
    tensors = load((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_are_loaded_and_all_fingerprinted(llama_folder: Path, llama_copy: Path) -> None:
    shard(llama_copy)
    whole, parts = (
        build_tagger(HFBackbone(str(f)), None).eval() for f in (llama_folder, llama_copy)
    )
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)
    before = weights_fingerprint(llama_copy)
    last = weight_files(llama_copy)[-1]
    save_file(
        {n: t + 1 for n, t in load(last.read_bytes()).items()}, last, metadata={"format": "pt"}
    )
    assert weights_fingerprint(llama_copy) != before
    last.unlink()
    for adapter in (Lora(), None):
        with pytest.raises(VanerError, match="VE122"):
            build_tagger(HFBackbone(str(llama_copy)), adapter)


def lose_weights(folder: Path) -> None:
    tensors = load((folder / "model.safetensors").read_bytes())
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickle_weights(folder: Path) -> None:
    torch.save(load((folder / "model.safetensors").read_bytes()), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def remote_code(folder: Path) -> None:
    (folder / "modeling_own.py").write_text("raise SystemExit('this code was run')")
    config = {
        "model_type": "own",
        "auto_map": {"AutoConfig": "modeling_own.C", "AutoModel": "modeling_own.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("number", "harm"),
    [
        ("VE124", lose_weights),
        ("VE122", cut_weights),
        ("VE121", pickle_weights),
        ("VE123", remote_code),
        ("VE122", lambda folder: (folder / "config.json").unlink()),
        ("VE122", lambda folder: (folder / "config.json").write_text("{}")),
        ("VE111", lambda folder: (folder / "tokenizer.json").unlink()),
        ("VE122", lambda folder: (folder / "model.safetensors.index.json").write_text("{}")),
    ],
)
def test_damaged_backbones_are_named(
    number: str, harm: Callable[[Path], None], llama_copy: Path
) -> None:
    harm(llama_copy)
    with pytest.raises(VanerError, match=number):
        build_tagger(HFBackbone(str(llama_copy)), None)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache; the hub itself cannot be reached."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cache(hub: Path, folder: Path, name: str) -> Path:
    """Put a folder into the cache as the hub's client does."""
    repository = hub / f"models--{name.replace('/', '--')}"
    commit = "0123456789012345678901234567890123456789"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return Path(shutil.copytree(folder, repository / "snapshots" / commit))


def test_a_hub_name_is_read_from_the_cache(
    hub: Path, llama_copy: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shard(llama_copy)
    snapshot = cache(hub, llama_copy, "org/tiny-llama")
    settings = HFBackbone("org/tiny-llama")
    tagger = build_tagger(settings, Lora(rank=2)).eval()
    loaded = read(tagger_files(tagger))
    with torch.no_grad():
        assert torch.equal(loaded(*batch), tagger(*batch))
    assert find_backbone(settings) == snapshot
    assert find_backbone(replace(settings, revision="main")) == snapshot
    # A folder of that name comes first.
    (tmp_path / "org").mkdir()
    llama_copy.rename(tmp_path / "org" / "tiny-llama")
    monkeypatch.chdir(tmp_path)
    assert find_backbone(settings) == Path("org/tiny-llama")


def test_what_the_hub_cannot_give_is_named(hub: Path, llama_copy: Path) -> None:
    for name in ("org/nothing", "no such folder", "../x"):
        with pytest.raises(VanerError, match=r"VE120.*model\.backbone\.name"):
            build_tagger(HFBackbone(name), None)
    shard(llama_copy)
    weight_files(llama_copy)[0].unlink()
    snapshot = cache(hub, llama_copy, "org/half")
    with pytest.raises(VanerError, match=r"VE120.* lacks model-00001-of-00002\.safetensors"):
        build_tagger(HFBackbone("org/half"), None)
    for path in weight_files(snapshot):
        path.write_bytes(b"")
    (snapshot / "tokenizer.json").unlink()
    with pytest.raises(VanerError, match=r"VE120.* lacks tokenizer\.json"):
        find_backbone(HFBackbone("org/half"))


def test_the_hub_is_asked_only_for_what_the_cache_lacks(
    hub: Path, llama_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    shard(llama_copy)
    asked: list[tuple[bool, list[str]]] = []

    def download(name: str, **options: Any) -> str:
        asked.append((options["local_files_only"], options["allow_patterns"]))
        return str(llama_copy)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    settings = HFBackbone("org/tiny-llama")
    find_backbone(settings)
    assert {local for local, _ in asked} == {True}
    asked.clear()
    weight_files(llama_copy)[0].unlink()
    with pytest.raises(VanerError, match="VE120"):
        find_backbone(settings)
    assert [local for local, _ in asked] == [True, True, False, False]
    assert asked[-1][1] == [path.name for path in weight_files(llama_copy)]


def test_a_tokenizer_from_elsewhere_is_used_instead(
    llama_folder: Path, tokenizer: SubwordTokenizer
) -> None:
    tagger = build_tagger(HFBackbone(str(llama_folder)), None, tokenizer=tokenizer)
    assert tagger.tokenizer is tokenizer
