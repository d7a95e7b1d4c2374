"""A pipeline from the tagger of a training run without spaCy, and what ships of a pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language

from spacy_vaner.backbone.packing import round_weights
from spacy_vaner.backbone.saving import tagger_files
from spacy_vaner.backbone.settings import Pretrained
from spacy_vaner.backbone.tagger import Tagger
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.gold import FACTORY
from spacy_vaner.model import get_tagger, load_model_files
from spacy_vaner.model_card import (
    OTHER_DATA,
    card_text,
    figures,
    read_facts,
    shown_settings,
    training_data,
)
from spacy_vaner.shipped import CARD, CARD_FACTS, write_shipped
from spacy_vaner.training.checkpoints import BEST_FOLDER, STATE_FILE, Checkpoints
from spacy_vaner.training.config import config_from_dict, read_config
from spacy_vaner.training.loop import CHECKPOINTS_FOLDER
from spacy_vaner.training.rows_folder import PreparedRows
from spacy_vaner.training.tag_config import TagConfig
from spacy_vaner.training.tagging import RECIPE_FILE

_SETTINGS = ("types", "corpus", "repeat_threshold", "asking")
_MODEL_SETTINGS = ("labelled_subwords", "max_subwords", "dropout", "window", "instruction")


def assemble(
    run: Path,
    *,
    types: Sequence[str] | str | None = None,
    corpus: Mapping[str, str] | None = None,
    lang: str = "en",
    is_packed: bool = False,
) -> Language:
    """Make a blank pipeline with a trained `vaner_ner`, which is asked as it was trained.

    run: the folder of a run, whose best tagger is taken, or a folder in it with a tagger.
    types: to ask; None = all that it was trained on, the more frequent first.
    corpus: type → corpus name that it is asked with, as in training; a type without one is asked
        without. It fixes whose guideline is followed on texts of no corpus.
    is_packed: round the weights to 8 bits, in which they are then saved: a quarter of the size.
    RAISES VanerError: VE529, no tagger there; VE130-VE137, its files; VE021, VE022, the types;
        VE535, a corpus name that the type was not trained with.
    """
    folder = run / BEST_FOLDER if (run / BEST_FOLDER).is_dir() else run
    try:
        recipe = json.loads((folder / RECIPE_FILE).read_text("utf8"))
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        config = _config(recipe, json.loads(files["tagger.json"])["backbone"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VanerError(Messages.VE529.format(path=run, reason=error)) from None
    if types is not None:
        config["types"] = types
    if corpus is not None:
        _check_corpora(corpus, recipe.get("corpora", {}))
        config["corpus"] = dict(corpus)
    nlp = spacy.blank(lang)
    component: Any = nlp.add_pipe("vaner_ner", config=config)
    load_model_files(component.model, files, device="cpu", precision="fp32")
    tagger = get_tagger(component.model)
    assert tagger is not None
    tagger.known_types = tuple(recipe["types"])
    if is_packed:
        _pack(tagger)
    # Set once more: this moves the tagger to where the settings want it.
    component.precision = component.precision
    return nlp


def ship(
    nlp: Language,
    output: Path,
    *,
    facts: Path,
    rows: Path,
    runs: Sequence[Path] = (),
    config: Path | None = None,
    dev: Iterable[Path] = (),
    test: Iterable[Path] = (),
) -> int:
    """Write the tagger of a pipeline as a folder that the package can carry, with its card.

    Weights that are not in 8 bits are rounded to them, in the pipeline too.
    output: its last part is the name.
    facts: file that read_facts reads.
    rows: the folder that it was trained on.
    runs: folders of the run that it was trained in, which tells its settings; several if it is
        their mean.
    config: settings to take instead of those of the runs.
    dev, test: results of `python -m spacy vaner evaluate`.
    RETURNS: the size of the folder in bytes.
    RAISES VanerError: VE194, the output is something else; VE195, no tagger that can stand alone;
        VE196, the files, the runs; VE445, neither runs nor config; VE501, VE502, VE524, the
        settings; VE523, the rows.
    """
    component, settings = _component_to_ship(nlp)
    tagger = get_tagger(component.model)
    reason = None
    if tagger is None:
        reason = "its vaner_ner has no weights"
    elif tagger.reference is not None or tagger.adapter is not None or len(tagger.adapters):
        reason = "it has adapters, and what ships is a tagger whose own weights are all trained"
    elif tagger.known_types is None:
        reason = "it does not say what it was trained for: take one that `vaner assemble` made"
    if reason is not None:
        raise VanerError(Messages.VE195.format(pipeline=nlp.meta["name"], reason=reason))
    assert tagger is not None and tagger.known_types is not None
    prepared = PreparedRows.open(rows)
    if config is not None:
        configs = [read_config(config, TagConfig)]
    elif runs:
        configs = [_run_config(run, prepared, rows) for run in runs]
    else:
        problem = "give the folder of the run (--run), or its settings (--config)."
        raise VanerError(Messages.VE445.format(problem=problem, command="ship"))
    said = read_facts(facts)
    other_data = said.pop(OTHER_DATA, None)
    tagger.settings = Pretrained(output.name, tagger.settings.attn_implementation)
    _pack(tagger)
    # Of the weights, not of the component: another backbone must not be held to them.
    threshold = component.threshold_in_use
    tagger.thresholds = (
        threshold if isinstance(threshold, dict) else dict.fromkeys(component.types, threshold)
    )
    shipped = {key: settings[key] for key in _SETTINGS}
    shipped["model"] = {key: settings["model"][key] for key in _MODEL_SETTINGS}
    card = {
        "name": output.name,
        **said,
        "types": list(component.types),
        "known_types": list(tagger.known_types),
        "asking": component.asking,
        "n_parameters": sum(weights.numel() for weights in tagger.saved_weights().values()),
        "data": training_data(prepared, configs, other_data=other_data),
        "settings": [shown_settings(one) for one in configs],
        "dev": figures(dev),
        "test": figures(test),
    }
    files = {
        **tagger_files(tagger),
        CARD_FACTS: (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode("utf8"),
        CARD: card_text(card).encode("utf8"),
    }
    write_shipped(output, files, name=output.name, settings=shipped)
    return sum(path.stat().st_size for path in output.iterdir())


def _component_to_ship(nlp: Language) -> tuple[Any, dict[str, Any]]:
    """The component and what the config says of it. RAISES VanerError: VE195."""
    names = [n for n in nlp.component_names if nlp.get_pipe_meta(n).factory == FACTORY]
    if len(names) != 1:
        reason = f"it has {len(names)} components vaner_ner"
        raise VanerError(Messages.VE195.format(pipeline=nlp.meta["name"], reason=reason))
    component: Any = nlp.get_pipe(names[0])
    # What was changed on the component is what counts.
    changed = {key: getattr(component, key) for key in _SETTINGS}
    changed["types"] = list(component.types)
    return component, {**nlp.config["components"][names[0]], **changed}


def _run_config(run: Path, prepared: PreparedRows, rows: Path) -> TagConfig:
    """The settings that a run had, whatever its file of settings says by now.

    RAISES VanerError: VE196, there is no checkpoint, or the run read other rows; VE502.
    """
    last = Checkpoints(run / CHECKPOINTS_FOLDER).last()
    try:
        if last is None:
            raise ValueError("it has no checkpoint, which would tell the settings")
        state = json.loads((last / STATE_FILE).read_text("utf8"))
        values, data_sha256 = state["config"], state["data_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VanerError(Messages.VE196.format(path=run, reason=error)) from None
    config = config_from_dict(values, TagConfig, source=str(last / STATE_FILE))
    if data_sha256 != prepared.data_sha256(with_dbr=config.dbr.mode != "off"):
        reason = f"{run} was trained on other rows"
        raise VanerError(Messages.VE196.format(path=rows, reason=reason))
    return config


def _pack(tagger: Tagger) -> None:
    if not tagger.is_packed:
        round_weights(tagger)


def _check_corpora(corpus: Mapping[str, str], known: Mapping[str, Sequence[str]]) -> None:
    for type_name, name in corpus.items():
        if name not in known.get(type_name, ()):
            names = ", ".join(known.get(type_name, ())) or "none"
            raise VanerError(Messages.VE535.format(type=type_name, name=name, known=names))


def _config(recipe: dict[str, Any], backbone: dict[str, Any]) -> dict[str, Any]:
    instruction: dict[str, Any] = {"@misc": "spacy-vaner.paper_instruction.v1"}
    if recipe["with_corpus"] is not None:
        instruction = {
            "@misc": "spacy-vaner.template_instruction.v1",
            "with_corpus": recipe["with_corpus"],
            "without_corpus": recipe["without_corpus"],
        }
    return {
        "types": recipe["types"],
        "asking": recipe["asking"],
        # All that is not said is as the tagger that the package carries has it.
        "corpus": None,
        "threshold": 0.0,
        "model": {
            "adapter": None,
            "labelled_subwords": recipe["labelled_subwords"],
            "question_width": recipe["question_width"],
            "max_subwords": recipe["max_subwords"],
            "instruction": instruction,
            "window": {
                "@span_getters": "spacy-vaner.packed_sentences.v1",
                "n_words": recipe["n_words"],
                "overlap": recipe["overlap"],
            },
            "backbone": {
                "@misc": "spacy-vaner.hf_backbone.v1",
                "name": backbone["name"],
                "attn_implementation": backbone["attn_implementation"],
            },
        },
    }
