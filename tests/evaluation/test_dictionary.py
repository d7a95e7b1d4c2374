"""The dictionary over a knowledge base whose names training text has judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from spacy_vaner.evaluation.systems import load_system
from spacy_vaner.evaluation.systems.base import Question, SystemSpec
from tests.support.gold_documents import gold_document, save

TEXT = "Oh to have the pain, to feel zinc, gold and mice."


def test_training_text_judges_the_names_of_a_knowledge_base(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from spacy_vaner.knowledge.sources.base import Entry
    from spacy_vaner.knowledge.store import BuildReport, build

    names = [("to have", "Gene"), ("gold", "Chemical"), ("zinc", "Chemical"), ("mice", "Species")]
    entries = [Entry(name, type, None, "test") for name, type in names]
    build(entries, BuildReport()).to_file(tmp_path / "kb.parquet")
    # Gold never is a mention, zinc is; Species and Gene are not annotated here and not judged.
    training = gold_document("Zinc, no gold, in mice.", [("Chemical", "Zinc")], types=["Chemical"])
    save(tmp_path / "a.train.spacy", [training])

    def found(**settings: object) -> set[str]:
        spec = SystemSpec("kb", "dictionary", str(tmp_path / "kb.parquet"), settings=settings)
        (spans,) = load_system(spec).predict([Question(TEXT)])
        return {TEXT[span.start : span.end] for span in spans}

    assert found() == {"to have", "gold", "zinc", "mice"}
    assert found(train=str(tmp_path)) == {"to have", "zinc", "mice"}
    assert found(train=str(tmp_path), min_share=0.0) == found()
