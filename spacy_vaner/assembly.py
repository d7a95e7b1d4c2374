"""A pipeline from the tagger of a training run without spaCy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.model import load_model_files
from spacy_vaner.training.checkpoints import BEST_FOLDER
from spacy_vaner.training.tagging import RECIPE_FILE


def assemble(run: Path, *, types: Sequence[str] | str | None = None, lang: str = "en") -> Language:
    """Make a blank pipeline with a trained `vaner_ner`, which is asked as it was trained.

    run: the folder of a run, whose best tagger is taken, or a folder in it with a tagger.
    types: to ask; None = all that it was trained on, the more frequent first.
    RAISES VanerError: VE529, no tagger there; VE130-VE137, its files; VE021, VE022, the types.
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
    nlp = spacy.blank(lang)
    component: Any = nlp.add_pipe("vaner_ner", config=config)
    load_model_files(component.model, files, device="cpu", precision="fp32")
    # Set once more: this moves the tagger to where the settings want it.
    component.precision = component.precision
    return nlp


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
        "model": {
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
