"""A tokenizer, a folder of token ids and the settings of a run that takes a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spacy_vaner.backbone import SubwordTokenizer, train_bpe
from spacy_vaner.rows import prepare_rows
from spacy_vaner.training.config import PretrainConfig, config_from_dict
from spacy_vaner.training.prepare import prepare
from spacy_vaner.training.sources import find_sources
from spacy_vaner.training.token_file import PreparedText
from tests.training.rows_support import WINDOW, write_corpora

SAMPLE = Path(__file__).parents[2] / "project/corpora/sample"


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Documents of one line."""
    lines = (SAMPLE / "sample.train.jsonl").read_text("utf8").splitlines()
    return [" ".join(json.loads(line)["text"].split()) for line in lines]


@pytest.fixture(scope="session")
def tokenizer_path(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "bpe"
    train_bpe(texts, vocab_size=600).to_folder(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_path: Path) -> SubwordTokenizer:
    return SubwordTokenizer.from_folder(tokenizer_path)


@pytest.fixture(scope="session")
def prepared_path(
    texts: list[str], tokenizer_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "texts.txt").write_text("\n".join(texts), encoding="utf8")
    sources = find_sources([folder / "texts.txt"])
    prepare(sources, folder / "ids", tokenizer_path=tokenizer_path, dev_share=0.2)
    return folder / "ids"


@pytest.fixture(scope="session")
def prepared(prepared_path: Path) -> PreparedText:
    return PreparedText.open(prepared_path)


@pytest.fixture
def make_config(prepared_path: Path) -> Callable[..., PretrainConfig]:
    """Settings of a tiny run; sections are merged with the given ones."""

    def make(**changes: Any) -> PretrainConfig:
        values: dict[str, Any] = {
            "data": str(prepared_path),
            "backbone": {
                **{"hidden_size": 32, "n_layers": 2, "n_heads": 2},
                **{"intermediate_size": 64, "max_positions": 64},
            },
            "objective": {"causal_share": 0.25},
            "optimizer": {"lr": 0.01},
            "schedule": {"warmup_steps": 5},
            **{"row_subwords": 32, "rows_per_step": 8, "rows_per_pass": 4},
            **{"n_steps": 30, "dev_steps": 10, "dev_rows": 16},
            **{"device": "cpu", "precision": "fp32", "checkpoint_minutes": 10},
        }
        for key, value in changes.items():
            values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
        return config_from_dict(values, PretrainConfig)

    return make


@pytest.fixture(scope="session")
def corpora_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted corpora that a tiny tagger learns in seconds."""
    return write_corpora(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="session")
def rows_path(
    corpora_path: Path, tokenizer_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Their rows, with the windows of the tiny tagger."""
    folder = tmp_path_factory.mktemp("rows") / "rows"
    prepare_rows([corpora_path], folder, tokenizer_path=tokenizer_path, **WINDOW)
    return folder
