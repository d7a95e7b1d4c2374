"""What is saved, what comes back, what wins, and what is said about damaged files."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from spacy.language import Language

from spacy_vaner.component import VanerNER
from spacy_vaner.errors import VanerError
from spacy_vaner.model import get_tagger
from tests.support.tiny_tagger import Writer, component_of, found, predictions

TEXT = "with zinc and BRCA1 levels"


def assert_predict_alike(one: Language, other: Language) -> None:
    texts = [Writer(one, seed).doc(30).text for seed in range(4)]
    for left, right in zip(one.pipe(texts), other.pipe(texts), strict=True):
        assert predictions(left) == predictions(right)


@pytest.fixture
def copy(trained_path: Path, tmp_path: Path) -> Path:
    """A saved pipeline that a test may damage."""
    return Path(shutil.copytree(trained_path, tmp_path / "copy"))


def test_a_pipeline_comes_back_from_disk(nlp: Language, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "again")
    assert_predict_alike(nlp, spacy.load(tmp_path / "again"))
    names = {path.name for path in (tmp_path / "again" / "vaner_ner").iterdir()}
    assert names == {
        "cfg.json",
        "tagger.json",
        "weights.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_saving_over_an_older_pipeline_replaces_it(
    nlp: Language, copy: Path, make_nlp: Callable[..., Language]
) -> None:
    fresh = make_nlp()
    fresh.initialize()
    fresh.to_disk(copy)
    assert_predict_alike(fresh, spacy.load(copy))


def test_a_pipeline_comes_back_from_bytes(nlp: Language, make_nlp: Callable[..., Language]) -> None:
    other = make_nlp().from_bytes(nlp.to_bytes())
    assert_predict_alike(nlp, other)


def test_a_component_comes_back_without_its_vocabulary(nlp: Language, ner: VanerNER) -> None:
    data = ner.to_bytes(exclude=["vocab"])
    assert len(data) < len(ner.to_bytes())
    before = predictions(nlp(TEXT))
    ner.from_bytes(data, exclude=["vocab"])
    assert predictions(nlp(TEXT)) == before


def test_a_pipeline_can_be_pickled(nlp: Language) -> None:
    """As another process gets it that is not forked from this one."""
    ner = pickle.loads(pickle.dumps(component_of(nlp)))
    assert isinstance(ner, VanerNER)
    assert predictions(ner(nlp.make_doc(TEXT))) == predictions(nlp(TEXT))


def test_an_adapter_comes_back_on_its_backbone(lora_path: Path, tmp_path: Path) -> None:
    nlp = spacy.load(lora_path)
    component_of(nlp).merge_adapter()
    nlp.to_disk(tmp_path / "again")
    assert_predict_alike(spacy.load(lora_path), spacy.load(tmp_path / "again"))
    assert_predict_alike(
        spacy.load(lora_path), spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    )
    folder = tmp_path / "again" / "vaner_ner"
    # The backbone is referred to, not stored, and so is its tokenizer.
    assert {path.name for path in folder.iterdir()} == {
        "cfg.json",
        "tagger.json",
        "weights.safetensors",
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000


# Settings

CHANGES: dict[str, Any] = {
    "types": ["Gene", "Cell line"],
    "corpus": {"Gene": "BC2GM"},
    "spans_key": "other",
    "annotate_ents": False,
    "overwrite_ents": False,
    "threshold": {"Gene": 0.25},
    "repeat_threshold": 0.5,
    "batch_subwords": 100,
    "precision": "bf16",
    "label_map": {"Gene": "GENE"},
    "retokenize": True,
}


def settings_of(nlp: Language) -> dict[str, Any]:
    component = component_of(nlp)
    return {key: getattr(component, key) for key in CHANGES}


def test_settings_changed_on_the_component_survive(
    nlp: Language, ner: VanerNER, tmp_path: Path
) -> None:
    for key, value in CHANGES.items():
        setattr(ner, key, value)
    expected = settings_of(nlp)
    assert expected == {**CHANGES, "types": tuple(CHANGES["types"])}
    # Saved twice, since a loaded pipeline must not forget what its config does not say.
    for name in ("once", "twice"):
        nlp.to_disk(tmp_path / name)
        nlp = spacy.load(tmp_path / name)
        assert settings_of(nlp) == expected


def test_overrides_at_loading_win_and_stay(nlp: Language, ner: VanerNER, tmp_path: Path) -> None:
    # Even over settings that were changed on the component before saving.
    ner.threshold, ner.types = 0.75, ["Chemical"]
    nlp.to_disk(tmp_path / "saved")
    # A table over a value is nothing that spaCy can override.
    overrides = {**CHANGES, "threshold": 0.5, "corpus": "BC2GM"}
    del overrides["label_map"]
    config = {f"components.vaner_ner.{key}": value for key, value in overrides.items()}
    for key, value in overrides.items():
        setattr(ner, key, value)
    loaded = spacy.load(tmp_path / "saved", config=config)
    assert settings_of(loaded) == settings_of(nlp)
    loaded.to_disk(tmp_path / "again")
    assert settings_of(spacy.load(tmp_path / "again")) == settings_of(nlp)


def test_loading_into_a_live_component_brings_back_what_was_saved(
    nlp: Language, ner: VanerNER
) -> None:
    ner.threshold = 0.5
    data = nlp.to_bytes()
    ner.threshold = 0.9
    nlp.from_bytes(data)
    assert ner.threshold == 0.5


def test_a_pipeline_saved_before_names_were_repeated_predicts_what_it_did(
    nlp: Language, tmp_path: Path
) -> None:
    nlp.to_disk(tmp_path / "old")
    config = tmp_path / "old" / "config.cfg"
    lines = config.read_text("utf8").splitlines(keepends=True)
    config.write_text("".join(x for x in lines if not x.startswith("repeat_threshold")), "utf8")
    cfg = tmp_path / "old" / "vaner_ner" / "cfg.json"
    settings = json.loads(cfg.read_text("utf8"))
    for part in ("configured", "now"):
        del settings[part]["repeat_threshold"]
    cfg.write_text(json.dumps(settings), "utf8")

    loaded = spacy.load(tmp_path / "old")
    assert component_of(loaded).repeat_threshold is None
    loaded.to_disk(tmp_path / "again")
    assert component_of(spacy.load(tmp_path / "again")).repeat_threshold is None


def test_the_device_belongs_to_the_machine(trained_path: Path) -> None:
    saved = json.loads((trained_path / "vaner_ner" / "cfg.json").read_text("utf8"))
    assert "threshold" in saved["now"] and "device" not in saved["now"]


def test_settings_of_the_model_can_be_overridden(trained_path: Path) -> None:
    config = {
        "components": {"vaner_ner": {"model": {"max_subwords": 30, "window": {"n_words": 9}}}}
    }
    nlp = spacy.load(trained_path, config=config)
    assert component_of(nlp).model.attrs["max_subwords"] == 30
    assert found(nlp(TEXT)) == [("Chemical", "zinc"), ("Gene", "BRCA1")]


def test_another_attention_implementation_can_be_asked_for(trained_path: Path) -> None:
    backbone = {"attn_implementation": "eager"}
    config = {"components": {"vaner_ner": {"model": {"backbone": backbone}}}}
    nlp = spacy.load(trained_path, config=config)
    tagger = get_tagger(component_of(nlp).model)
    assert tagger is not None and tagger.settings.attn_implementation == "eager"
    assert found(nlp(TEXT)) == [("Chemical", "zinc"), ("Gene", "BRCA1")]


def test_a_component_without_weights_is_saved_as_it_is(
    make_nlp: Callable[..., Language], tmp_path: Path
) -> None:
    nlp = make_nlp()
    component_of(nlp).threshold = 0.5
    nlp.to_disk(tmp_path / "empty")
    # Files that somebody else put there do not matter.
    (tmp_path / "empty" / "vaner_ner" / ".DS_Store").write_bytes(b"\x00")
    loaded = spacy.load(tmp_path / "empty")
    assert component_of(loaded).threshold == 0.5
    with pytest.raises(VanerError, match="E109"):
        loaded(TEXT)


# Damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garble(path: Path) -> None:
    path.write_bytes(b"{not json")


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("cfg.json", Path.unlink, "VE020.*cfg.json"),
        ("cfg.json", garble, "VE023.*cfg.json"),
        ("cfg.json", lambda path: path.write_text("[]"), "VE023.*cfg.json"),
        ("cfg.json", lambda path: path.write_text('{"now": {}}'), "VE023.*cfg.json"),
        ("tagger.json", Path.unlink, "VE130.*tagger.json"),
        ("tagger.json", garble, "VE131.*tagger.json"),
        ("weights.safetensors", Path.unlink, "VE130.*weights.safetensors"),
        ("weights.safetensors", cut, "VE133.*weights.safetensors"),
        ("weights.safetensors", change, "VE133.*weights.safetensors"),
        ("tokenizer.json", Path.unlink, "VE111.*tokenizer.json"),
        ("tokenizer.json", cut, "VE110.*tokenizer.json"),
    ],
)
def test_damaged_files_are_named(
    name: str, damage: Callable[[Path], object], message: str, copy: Path
) -> None:
    damage(copy / "vaner_ner" / name)
    with pytest.raises(VanerError, match=message):
        spacy.load(copy)


def test_a_folder_that_is_no_component_is_refused(ner: VanerNER, tmp_path: Path) -> None:
    with pytest.raises(VanerError, match="VE020"):
        ner.from_disk(tmp_path)


# A backbone that lives elsewhere


@pytest.fixture
def moved(lora_path: Path, llama_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A saved pipeline whose backbone is not where it was. RETURNS: pipeline, backbone."""
    here = tmp_path / "moved backbone"
    shutil.copytree(llama_folder, here)
    pipeline = Path(shutil.copytree(lora_path, tmp_path / "pipeline"))
    for name in ("config.cfg", "vaner_ner/tagger.json"):
        text = (pipeline / name).read_text("utf8")
        assert str(llama_folder) in text
        (pipeline / name).write_text(text.replace(str(llama_folder), "/gone/backbone"), "utf8")
    return pipeline, here


NAME = "components.vaner_ner.model.backbone.name"


def test_a_backbone_that_has_moved(
    moved: tuple[Path, Path], lora_path: Path, tmp_path: Path
) -> None:
    pipeline, backbone = moved
    with pytest.raises(VanerError, match=r"VE120.*/gone/backbone.*`model\.backbone\.name`"):
        spacy.load(pipeline)
    nlp = spacy.load(pipeline, config={NAME: str(backbone)})
    assert_predict_alike(nlp, spacy.load(lora_path))
    # The new place is what is saved.
    nlp.to_disk(tmp_path / "again")
    assert_predict_alike(spacy.load(tmp_path / "again"), nlp)


def test_another_backbone_is_refused(moved: tuple[Path, Path]) -> None:
    import transformers

    pipeline, backbone = moved
    model = transformers.LlamaModel.from_pretrained(backbone)
    with torch.no_grad():
        model.layers[0].mlp.up_proj.weight.add_(0.5)
    model.save_pretrained(backbone)
    with pytest.raises(VanerError, match="VE136.*weights"):
        spacy.load(pipeline, config={NAME: str(backbone)})
