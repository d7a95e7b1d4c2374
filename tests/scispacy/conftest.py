"""Pipelines as scispaCy's users have them, around the tiny tagger; a linker over a few entities."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import spacy
from spacy.language import Language

ENTITIES = [
    ("C1", "Zinc", ["zinc", "Zn"]),
    ("C2", "Aspirin", ["aspirin", "acetylsalicylic acid"]),
    ("G1", "Histone deacetylase", ["histone deacetylase"]),
]


@pytest.fixture(scope="session")
def linker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a linker over ENTITIES, which scispaCy reads from files when it is added.

    The files are those of scispaCy's `create_tfidf_ann_index`, made as it makes them, but for the
    numbers: it writes float16 and refuses to with scipy 1.11 and later.
    """
    import joblib
    import nmslib
    import scipy.sparse
    from scispacy.candidate_generation import DEFAULT_KNOWLEDGE_BASES, DEFAULT_PATHS, LinkerPaths
    from scispacy.linking_utils import KnowledgeBase
    from sklearn.feature_extraction.text import TfidfVectorizer

    folder = tmp_path_factory.mktemp("linker")
    lines = [
        {
            "concept_id": id_,
            "canonical_name": name,
            "aliases": aliases,
            "types": [],
            "definition": "An entity.",
        }
        for id_, name, aliases in ENTITIES
    ]
    (folder / "kb.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf8")

    class LocalKnowledgeBase(KnowledgeBase):
        def __init__(self) -> None:
            super().__init__(str(folder / "kb.jsonl"))

    paths = LinkerPaths.from_directory(folder)
    aliases = list(LocalKnowledgeBase().alias_to_cuis)
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), dtype=numpy.float32)
    vectors = vectorizer.fit_transform(aliases)
    index = nmslib.init(
        method="hnsw", space="cosinesimil_sparse", data_type=nmslib.DataType.SPARSE_VECTOR
    )
    index.addDataPointBatch(vectors)
    index.createIndex({"M": 16, "efConstruction": 100, "post": 0})
    index.saveIndex(paths.ann_index)
    scipy.sparse.save_npz(paths.tfidf_vectors, vectors)
    joblib.dump(vectorizer, paths.tfidf_vectorizer)
    Path(paths.concept_aliases_list).write_text(json.dumps(aliases), "utf8")
    DEFAULT_PATHS["local"], DEFAULT_KNOWLEDGE_BASES["local"] = paths, LocalKnowledgeBase
    return "local"


@pytest.fixture
def make(pipeline: Path) -> Callable[..., Language]:
    """Make a pipeline of components in an order; "vaner_ner" is the trained one."""

    def make_pipeline(*components: str | tuple[str, dict[str, object]]) -> Language:
        nlp = spacy.blank("en")
        for component in components:
            name, config = component if isinstance(component, tuple) else (component, {})
            if name == "vaner_ner":
                nlp.add_pipe(name, source=spacy.load(pipeline))
                for key, value in config.items():
                    setattr(nlp.get_pipe(name), key, value)
            else:
                nlp.add_pipe(name, config=config)
        return nlp

    return make_pipeline
