"""Static word vectors: of the words that the features see, and of no protected text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spacy_vaner.backbone.hashing import word_key
from spacy_vaner.backbone.word_features import WordVectors
from spacy_vaner.errors import VanerError
from spacy_vaner.training.__main__ import main
from spacy_vaner.training.protected import ProtectedRuns
from spacy_vaner.training.sources import find_sources
from spacy_vaner.training.vectors import train_vectors

pytest.importorskip("gensim", reason="gensim is an extra")

LINE = "Cisplatin damages kidneys of BRCA1-deficient mice, and zinc (IL-2) protects them well.\n"
SECRET = "one two three four five six seven eight nine ten eleven twelve secretword\n"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text((LINE + SECRET) * 20, "utf8")
    return path


def test_vectors_are_of_the_words_that_features_see(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "vectors.safetensors"
    assert main(["vectors", str(texts), str(output), "--width", "8", "--words", "30"]) == 0
    first = WordVectors.from_file(output)
    assert first.vectors.shape == (len(first.keys), 8)
    assert torch.all(first.keys[1:] > first.keys[:-1])
    for word in ("cisplatin", "brca1", "deficient", "il"):
        assert word_key(word) in first.keys, word
    assert word_key("brca1-deficient") not in first.keys
    main(["vectors", str(texts), str(output), "--width", "8", "--words", "30"])
    assert torch.equal(WordVectors.from_file(output).vectors, first.vectors)


def test_protected_text_is_not_read(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "vectors.safetensors"
    protected = ProtectedRuns.from_texts([SECRET])
    train_vectors(find_sources([texts]), output, width=4, protected=protected)
    keys = WordVectors.from_file(output).keys
    assert word_key("cisplatin") in keys and word_key("secretword") not in keys


def test_texts_without_frequent_words_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text(LINE, "utf8")
    with pytest.raises(VanerError, match="VE522"):
        train_vectors(find_sources([path]), tmp_path / "vectors.safetensors")
