"""Few-shot prompting through spacy-llm, with the model and the examples of its config."""

from __future__ import annotations

from pathlib import Path

from spacy.util import load_config, load_model_from_config

from spacy_vaner.errors import Messages
from spacy_vaner.evaluation.systems.base import SystemMissing, SystemSpec, require
from spacy_vaner.evaluation.systems.pipelines import PipelineSystem


def load(spec: SystemSpec) -> PipelineSystem:
    """RAISES SystemMissing: spacy-llm, the config or the model that it names."""
    require("spacy_llm", "spacy-llm")
    path = Path(spec.where)
    if not path.is_file():
        raise SystemMissing(Messages.VE463.format(where=spec.where))
    nlp = load_model_from_config(load_config(path), auto_fill=True)
    return PipelineSystem(nlp, label_map=spec.label_map, batch_size=spec.settings.get("batch_size"))
