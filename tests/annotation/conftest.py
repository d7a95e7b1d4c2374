"""Settings to annotate with the tiny tagger, and texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy

from spacy_vaner.annotation.annotator import Settings, model_name
from spacy_vaner.annotation.inputs import Limits
from tests.support.tiny_tagger import Writer


@pytest.fixture
def settings(pipeline: Path) -> Callable[..., Settings]:
    """Settings of a run with that pipeline; shards of three documents."""

    def make(to: str = "jsonl", **changes: Any) -> Settings:
        given = {"limits": Limits(documents=3), **changes}
        return Settings(model=str(pipeline), model_name=model_name(str(pipeline)), to=to, **given)

    return make


@pytest.fixture
def texts() -> list[str]:
    """Texts with the words that the tagger knows, of several lengths."""
    writer = Writer(spacy.blank("en"), 41)
    return [writer.doc(5 + 2 * n, share=0.4).text for n in range(10)]
