"""scispaCy's four NER models, as released: their labels as our types."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import spacy

from spacy_vaner.errors import Messages
from spacy_vaner.evaluation.systems.base import SystemMissing, SystemSpec
from spacy_vaner.evaluation.systems.pipelines import PipelineSystem
from spacy_vaner.evaluation.systems.pipelines import load as load_pipeline

LABEL_MAPS: dict[str, dict[str, str]] = {
    "en_ner_bc5cdr_md": {"DISEASE": "Disease", "CHEMICAL": "Chemical"},
    "en_ner_jnlpba_md": {
        # A gene here is any protein, DNA region or RNA, as our JNLPBA has it.
        "PROTEIN": "Gene",
        "DNA": "Gene",
        "RNA": "Gene",
        "CELL_TYPE": "CellType",
        "CELL_LINE": "CellLine",
    },
    "en_ner_craft_md": {
        "GGP": "Gene",
        "TAXON": "Species",
        "CHEBI": "Chemical",
        "CL": "CellType",
        "SO": "SequenceFeature",
        "GO": "BiologicalProcess",
    },
    "en_ner_bionlp13cg_md": {
        "GENE_OR_GENE_PRODUCT": "Gene",
        "SIMPLE_CHEMICAL": "Chemical",
        "AMINO_ACID": "Chemical",
        "ORGANISM": "Species",
        # Of diseases it knows cancers alone.
        "CANCER": "Disease",
        "CELL": "CellType",
        "ANATOMICAL_SYSTEM": "Anatomy",
        "DEVELOPING_ANATOMICAL_STRUCTURE": "Anatomy",
        "IMMATERIAL_ANATOMICAL_ENTITY": "Anatomy",
        "MULTI_TISSUE_STRUCTURE": "Anatomy",
        "MULTI-TISSUE_STRUCTURE": "Anatomy",
        "ORGAN": "Anatomy",
        "ORGANISM_SUBDIVISION": "Anatomy",
        "ORGANISM_SUBSTANCE": "Anatomy",
        "PATHOLOGICAL_FORMATION": "Anatomy",
        "TISSUE": "Anatomy",
        "CELLULAR_COMPONENT": "CellComponent",
    },
}
"""Model → label → type. A folder is known by its name, or takes `label_map`."""


def load(spec: SystemSpec) -> PipelineSystem:
    """RAISES SystemMissing: the model is not installed."""
    model = next((name for name in LABEL_MAPS if name in spec.where), spec.where)
    if not Path(spec.where).exists() and not spacy.util.is_package(spec.where):
        raise SystemMissing(Messages.VE464.format(model=spec.where, known=", ".join(LABEL_MAPS)))
    return load_pipeline(replace(spec, label_map={**LABEL_MAPS.get(model, {}), **spec.label_map}))
