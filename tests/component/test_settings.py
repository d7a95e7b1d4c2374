"""Registered names refuse what they can't use; spaCy's commands know the component."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from confection import ConfigValidationError
from spacy.cli.debug_data import debug_data
from spacy.cli.init_config import init_config
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.util import registry
from thinc.api import Config

from spacy_vaner.component import VanerNER
from spacy_vaner.errors import VanerError, VanerWarning
from tests.support.tiny_tagger import TINY, Writer, component_of

NAMES = json.loads((Path(__file__).parents[1] / "data/registered_names.json").read_text("utf8"))
RESOLVABLE = [
    (catalogue, name)
    for catalogue, names in NAMES.items()
    if catalogue not in ("cli", "displacy_colors", "factories")
    for name in names
]

MODEL = TINY["model"]
VALID: dict[str, dict[str, Any]] = {
    "spacy-vaner.VanerTagger.v1": {key: v for key, v in MODEL.items() if not key.startswith("@")},
    "spacy-vaner.hf_backbone.v1": {"name": "a/b"},
    "spacy-vaner.small_llama.v1": {},
    "spacy-vaner.lora.v1": {},
    "spacy-vaner.paper_instruction.v1": {},
    "spacy-vaner.template_instruction.v1": {
        "with_corpus": "{type} {corpus}",
        "without_corpus": "{type}",
    },
    "spacy-vaner.packed_sentences.v1": {},
    "spacy-vaner.Corpus.v1": {"paths": "a.spacy"},
    "spacy-vaner.ner_scorer.v1": {},
    "spacy-vaner.add_adapter.v1": {"types": ["Anatomy"]},
    "spacy-vaner.no_instruction.v1": {},
    "spacy-vaner.char_ngram_retriever.v1": {},
    "spacy-vaner.dense_retriever.v1": {"name": "a/b"},
    "spacy-vaner.AdamW.v1": {},
    "spacy-vaner.dbr_rows.v1": {"candidates": None, "kb": None, "mode": "off"},
    "spacy-vaner.pretrained.v1": {"name": "vaner-small"},
}
WRONG: dict[str, dict[str, Any]] = {
    "spacy-vaner.VanerTagger.v1": {
        "labelled_subwords": "last",
        "max_subwords": "3x",
        "dropout": "much",
        "window": "sentences",
        "instruction": "find {type}",
        "backbone": "llama",
        "adapter": 12,
    },
    "spacy-vaner.hf_backbone.v1": {
        "name": 3,
        "revision": 5,
        "dtype": "int3",
        "attn_implementation": "flash",
        "quantization": "nf3",
        "gradient_checkpointing": "maybe",
    },
    "spacy-vaner.small_llama.v1": {
        "hidden_size": "3x",
        "n_layers": "3x",
        "n_heads": 2.5,
        "intermediate_size": [1],
        "max_positions": None,
        "vocab_size": "many",
        "tokenizer_path": 3,
        "attn_implementation": "flash",
    },
    "spacy-vaner.lora.v1": {"rank": "3x", "alpha": "big", "dropout": "3x", "targets": 3},
    "spacy-vaner.paper_instruction.v1": {"type": "Gene"},
    "spacy-vaner.template_instruction.v1": {"with_corpus": 3, "without_corpus": None},
    "spacy-vaner.packed_sentences.v1": {"n_words": "3x", "overlap": 0.5, "pack": "maybe"},
    "spacy-vaner.Corpus.v1": {
        "paths": 3,
        "split": 3,
        "weights": 2.0,
        "drop_corpus": "some",
        "shuffle": "maybe",
        "seed": "3x",
        "limit": "3x",
        "protect": 3,
    },
    "spacy-vaner.ner_scorer.v1": {"key": "x"},
    "spacy-vaner.add_adapter.v1": {"types": 3, "component": 3, "lora": 12},
    "spacy-vaner.no_instruction.v1": {"type": "Gene"},
    "spacy-vaner.char_ngram_retriever.v1": {"n_chars": "3x", "n_threads": 0.5},
    "spacy-vaner.dense_retriever.v1": {"name": 3, "max_subwords": "3x", "device": 3},
    "spacy-vaner.AdamW.v1": {"beta1": "3x", "weight_decay": "3x", "grad_clip": "3x"},
    "spacy-vaner.dbr_rows.v1": {
        "candidates": 3,
        "kb": 3,
        "mode": "leaky",
        "share": "3x",
        "weight": "3x",
        "n_positive": 0.5,
        "n_negative": "3x",
        "separator": 3,
        "max_words": "3x",
        "every_epoch": "maybe",
    },
    "spacy-vaner.pretrained.v1": {"name": 3, "attn_implementation": "flash"},
}


def resolve(catalogue: str, name: str, /, **arguments: Any) -> Any:
    config = {"it": {f"@{catalogue}": name, **arguments}}
    return registry.resolve(config)["it"]


def test_every_registered_name_is_in_the_tables() -> None:
    assert VALID.keys() == WRONG.keys() == {name for _, name in RESOLVABLE}


@pytest.mark.parametrize("catalogue, name", RESOLVABLE)
def test_arguments_of_a_wrong_type_are_refused(catalogue: str, name: str) -> None:
    resolve(catalogue, name, **VALID[name])
    accepted = []
    for argument, value in WRONG[name].items():
        try:
            resolve(catalogue, name, **{**VALID[name], argument: value})
        except ConfigValidationError as error:
            assert argument in str(error)
        else:
            accepted.append(argument)
    assert not accepted


@pytest.mark.parametrize("catalogue, name", RESOLVABLE)
def test_unknown_arguments_are_refused(catalogue: str, name: str) -> None:
    with pytest.raises(ConfigValidationError):
        resolve(catalogue, name, **VALID[name], n_word=3)


@pytest.mark.parametrize(
    "argument, value",
    [
        ("types", 3),
        ("corpus", 3),
        ("spans_key", 3),
        ("annotate_ents", "maybe"),
        ("overwrite_ents", "maybe"),
        ("threshold", "3x"),
        ("threshold", {"Gene": "high"}),
        ("repeat_threshold", "3x"),
        ("batch_subwords", "3x"),
        ("asking", "politely"),
        ("precision", "fp8"),
        ("engine", "steam"),
        ("label_map", ["a"]),
        ("retokenize", "maybe"),
        ("adapters", "anatomy"),
        ("adapters", [3]),
        ("model", "llama"),
        ("device", 3),
        ("scorer", 3),
        ("unknown", 3),
    ],
)
def test_settings_of_a_wrong_type_are_refused(argument: str, value: Any) -> None:
    with pytest.raises(ConfigValidationError, match=argument):
        spacy.blank("en").add_pipe("vaner_ner", config={argument: value})


@pytest.mark.parametrize(
    "argument, value, number",
    [
        ("batch_subwords", 0, "VE016"),
        ("threshold", 1.5, "VE027"),
        ("threshold", {"Gene": -0.1}, "VE027"),
        ("repeat_threshold", 1.5, "VE042"),
        ("types", [], "VE021"),
        ("types", ["a:b"], "VE022"),
        ("types", "a:b", "VE022"),
    ],
)
def test_settings_out_of_range_are_refused_in_a_config_and_live(
    argument: str, value: Any, number: str, make_nlp: Callable[..., Language]
) -> None:
    with pytest.raises(VanerError, match=number):
        make_nlp(**{argument: value})
    ner = component_of(make_nlp())
    before = getattr(ner, argument)
    with pytest.raises(VanerError, match=number):
        setattr(ner, argument, value)
    assert getattr(ner, argument) == before


@pytest.mark.parametrize(
    "setting, value", [("precision", "fp8"), ("engine", "steam"), ("asking", "x")]
)
def test_settings_with_few_values_are_checked_live(
    setting: str, value: str, make_nlp: Callable[..., Language]
) -> None:
    with pytest.raises(VanerError, match=f"VE026.*{setting}.*{value}"):
        setattr(component_of(make_nlp()), setting, value)


@pytest.mark.parametrize(
    "setting, table",
    [
        ("label_map", {"Gene": "GENE", "Chemicals": "CHEMICAL"}),
        ("label_map", {"CHEMICAL": "Chemical", "GENE": "Gene"}),
        ("threshold", {"gene": 0.5}),
        ("corpus", {"Chem": "BC5CDR-chem"}),
    ],
)
def test_types_that_look_misspelled_in_a_table_are_named_once(
    setting: str, table: dict[str, Any], nlp: Language, make_nlp: Callable[..., Language]
) -> None:
    setattr(component_of(nlp), setting, table)
    with pytest.warns(VanerWarning, match=f"VW030: {setting}.*(Chem|gene|GENE)") as warned:
        nlp("zinc")
        nlp("zinc")
    assert len(warned) == 1
    with pytest.warns(VanerWarning, match=f"VW030: {setting}"):
        make_nlp(**{setting: table}).initialize()


def test_tables_may_name_more_types_than_are_asked_or_fewer(nlp: Language) -> None:
    ner = component_of(nlp)
    ner.label_map = {"Gene": "GENE", "Chemical": "CHEMICAL", "Species": "SPECIES"}
    ner.threshold = {"Gene": 0.5}
    ner.corpus = {"Species": "S800"}
    nlp("zinc", component_cfg={"vaner_ner": {"types": ["Gene", "Species"]}})


def test_a_window_of_subwords_needs_room(make_nlp: Callable[..., Language]) -> None:
    with pytest.raises(VanerError, match="VE012"):
        make_nlp(model={"max_subwords": 8})


def test_types_may_be_one_string(make_nlp: Callable[..., Language]) -> None:
    """As an override on a command line gives them."""
    assert component_of(make_nlp(types="Gene, Cell line")).types == ("Gene", "Cell line")


def test_defaults_can_be_written_and_read_back() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner")
    text = nlp.config.to_str()
    again = spacy.util.load_model_from_config(Config().from_str(text, interpolate=False))
    assert again.config.to_str() == text
    written = Language.get_factory_meta("vaner_ner").default_config
    settings = again.config["components"]["vaner_ner"]
    assert {key: settings[key] for key in written} == written
    assert isinstance(component_of(again), VanerNER)


def test_score_weights_name_scores_that_are_computed(shared_nlp: Language) -> None:
    weights = shared_nlp.config["training"]["score_weights"]
    assert weights["vaner_f"] == 1.0
    from spacy_vaner.scorer import score_ner

    assert {name for name, weight in weights.items() if weight} <= score_ner([]).keys()


# spaCy's commands


def test_init_config_knows_the_component() -> None:
    config = init_config(lang="en", pipeline=["vaner_ner"], optimize="efficiency", gpu=False)
    assert config["nlp"]["pipeline"] == ["vaner_ner"]
    settings = config["components"]["vaner_ner"]
    assert settings["types"] == ["Disease", "Chemical", "Gene", "Species"]
    assert settings["model"]["@architectures"] == "spacy-vaner.VanerTagger.v1"
    assert config["training"]["score_weights"]["vaner_f"] == 1.0


def test_debug_data_reads_our_corpora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner", config=TINY)
    config = nlp.config.interpolate()
    for split in ("train", "dev"):
        path = tmp_path / f"{split}.spacy"
        docs = [Writer(nlp, seed).doc(15) for seed in range(5)]
        DocBin(docs=docs, store_user_data=True).to_disk(path)
        reader = {"@readers": "spacy-vaner.Corpus.v1", "paths": str(path)}
        config["corpora"][split] = reader
    config_path = tmp_path / "config.cfg"
    Config(config).to_disk(config_path)
    try:
        debug_data(config_path, silent=False)
    except SystemExit as ended:
        # It ends so where data is sparse, as here.
        assert ended.code in (0, 1)
    printed = capsys.readouterr().out
    assert "Pipeline can be initialized with data" in printed
    assert "Corpus is loadable" in printed
