"""Small converted corpora, the rows made of them, and settings of a run that takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc

from spacy_vaner.corpora.docbins import docs_to_bytes
from spacy_vaner.gold import KEY
from spacy_vaner.training.config import config_from_dict
from spacy_vaner.training.tag_config import TagConfig
from tests.support.tiny_tagger import MAX_SUBWORDS, N_WORDS, OVERLAP, Writer

WINDOW = {"n_words": N_WORDS, "overlap": OVERLAP, "max_subwords": MAX_SUBWORDS}
INSTRUCTION = {"with_corpus": "{type} in {corpus}: ", "without_corpus": "{type}: "}


def annotated(doc: Doc, **changes: Any) -> Doc:
    """The document with another annotation."""
    doc.user_data[KEY] = {**doc.user_data[KEY], **changes}
    return doc


def write_corpora(folder: Path) -> Path:
    """Two corpora: "one" of both types, with sentences; "two" of genes, partial in chemicals."""
    writer = Writer(spacy.blank("en"), seed=3)
    folder.mkdir(exist_ok=True)
    for split, n_documents in (("train", 24), ("dev", 8)):
        one = [
            annotated(
                writer.doc(5 + 4 * number, share=0.4, sentences=True),
                corpus="one",
                names={"Gene": "one-gene", "Chemical": "one-chem"},
            )
            for number in range(n_documents)
        ]
        two = [
            annotated(writer.doc(30, share=0.4), corpus="two", types=["Gene"], partial=["Chemical"])
            for _ in range(n_documents // 2)
        ]
        for name, docs in (("one.text", one), ("two", two)):
            (folder / f"{name}.{split}.spacy").write_bytes(docs_to_bytes(docs))
    return folder


def tag_config(rows: Path, **changes: Any) -> TagConfig:
    """Settings of a tiny run; sections are merged with the given ones."""
    values: dict[str, Any] = {
        "rows": str(rows),
        "start": {
            **{"hidden_size": 32, "n_layers": 2, "n_heads": 4, "intermediate_size": 64},
            **{"max_positions": 96, "word_rows": 256, "word_width": 8},
        },
        **INSTRUCTION,
        "question_width": 16,
        "optimizer": {"lr": 0.01},
        "schedule": {"warmup_steps": 3},
        **{"window_subwords": 24, "windows_per_step": 8, "pass_subwords": 256},
        **{"n_steps": 20, "dev_steps": 10, "dev_documents": 6},
        **{"device": "cpu", "precision": "fp32", "checkpoint_minutes": 10},
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return config_from_dict(values, TagConfig)
