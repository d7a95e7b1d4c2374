"""Word features: what they hash, what they see, and that they travel with a backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from spacy_vaner.backbone.building import build_tagger
from spacy_vaner.backbone.hashing import word_key
from spacy_vaner.backbone.pretrained import fresh_decoder, small_llama_config
from spacy_vaner.backbone.saving import tagger_files, tagger_from_files
from spacy_vaner.backbone.settings import HFBackbone, SmallLlama
from spacy_vaner.backbone.tokenizer import SubwordTokenizer, train_bpe
from spacy_vaner.backbone.word_features import (
    WordEmbedding,
    WordFeatures,
    WordVectors,
    add_word_features,
    word_embedding,
)
from spacy_vaner.errors import VanerError
from spacy_vaner.training.checkpoints import write_folder
from spacy_vaner.training.language_model import backbone_files

TEXTS = [
    "Cisplatin-induced nephrotoxicity in BRCA1-deficient mice.",
    "Nephrotoxicity of cisplatin, and of IL-2 (TNF-alpha) in mice",
]
FEATURES = WordFeatures(n_rows=512, width=8, n_vectors=2, vector_width=4)
VECTORS = WordVectors.from_words(
    ["nephrotoxicity", "mice"], torch.tensor([[1.0, 0, 0, 2], [0, 3.0, 0, 0]])
)


@pytest.fixture(scope="module")
def tokenizer() -> SubwordTokenizer:
    return train_bpe([*TEXTS, "p53 5 x ; ,", *TEXTS, "p53 5 x ; ,"], vocab_size=400)


@pytest.fixture(scope="module")
def embedding(tokenizer: SubwordTokenizer) -> WordEmbedding:
    torch.manual_seed(0)
    made = WordEmbedding(tokenizer.n_tokens, 16, FEATURES)
    made.bind(tokenizer)
    made.set_vectors(VECTORS)
    return made


def ids_of(tokenizer: SubwordTokenizer, text: str) -> Tensor:
    return torch.tensor([tokenizer.encode(text)[0]])


def words_of(text: str, offsets: list[tuple[int, int]]) -> list[str]:
    """The word around each subword, found in the text itself."""
    found = []
    for start, end in offsets:
        if text[start:end].isalnum():
            while start and text[start - 1].isalnum():
                start -= 1
            while end < len(text) and text[end].isalnum():
                end += 1
        found.append(text[start:end].lower())
    return found


@pytest.mark.parametrize("text", [*TEXTS, "p53 (BRCA1), x", "5-BR;  mice,mice"])
def test_the_hash_is_the_words_whatever_its_subwords(
    tokenizer: SubwordTokenizer, embedding: WordEmbedding, text: str
) -> None:
    ids, offsets = tokenizer.encode(text)
    words = words_of(text, offsets)
    hashes, known, _ = embedding._hash_words(torch.tensor([ids]))
    assert len(set(words)) < len(words)
    assert hashes["norm"][0].tolist() == [word_key(word) for word in words]
    assert hashes["prefix"][0].tolist() == [word_key(word[:3]) for word in words]
    assert hashes["suffix"][0].tolist() == [word_key(word[-3:][::-1]) for word in words]
    assert bool(known.all())


def test_rows_do_not_touch_each_other(
    tokenizer: SubwordTokenizer, embedding: WordEmbedding
) -> None:
    row = ids_of(tokenizer, TEXTS[0])
    both = embedding(torch.cat([row, row.flip(1)]))
    assert torch.equal(both[0], embedding(row)[0])


def test_a_masked_word_is_hidden(tokenizer: SubwordTokenizer, embedding: WordEmbedding) -> None:
    ids, offsets = tokenizer.encode(TEXTS[1])
    mask = tokenizer.named_id("mask_token")
    masked = torch.tensor([ids])
    places = [i for i, word in enumerate(words_of(TEXTS[1], offsets)) if word == "nephrotoxicity"]
    masked[0, places] = mask
    shown = torch.nn.functional.embedding(masked, embedding.weight)
    assert torch.equal(embedding(masked)[0, places], shown[0, places])


def test_a_static_vector_is_found_by_its_word(
    tokenizer: SubwordTokenizer, embedding: WordEmbedding
) -> None:
    without = WordEmbedding(tokenizer.n_tokens, 16, FEATURES)
    without.bind(tokenizer)
    state = embedding.state_dict()
    without.load_state_dict({**state, "vectors": torch.zeros_like(state["vectors"])})
    ids, offsets = tokenizer.encode(TEXTS[0])
    moved = (embedding(torch.tensor([ids])) != without(torch.tensor([ids]))).any(-1)[0]
    words = words_of(TEXTS[0], offsets)
    assert moved.tolist() == [word in ("nephrotoxicity", "mice") for word in words]


@pytest.mark.transformers5
def test_a_backbone_keeps_its_features(tokenizer: SubwordTokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = SmallLlama(hidden_size=16, n_layers=2, n_heads=2, intermediate_size=24)
    decoder = fresh_decoder(small_llama_config(shape, tokenizer.n_tokens), "sdpa")
    add_word_features(decoder, FEATURES)
    made = word_embedding(decoder)
    assert made is not None
    made.set_vectors(VECTORS)
    folder = tmp_path / "backbone"
    write_folder(folder, backbone_files(decoder, tokenizer, torch.float32))
    tagger = build_tagger(HFBackbone(name=str(folder)), None).eval()
    read = word_embedding(tagger.backbone)
    assert read is not None
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, read.state_dict()[name]), name
    ids = ids_of(tokenizer, TEXTS[0])
    lengths = torch.tensor([ids.shape[1]])
    expected = tagger(ids, lengths)
    again = tagger_from_files(tagger_files(tagger), device="cpu", precision="fp32")
    assert torch.equal(again(ids, lengths), expected)


def test_a_file_of_other_tensors_is_refused(tmp_path: Path) -> None:
    VECTORS.to_file(tmp_path / "vectors.safetensors")
    assert torch.equal(WordVectors.from_file(tmp_path / "vectors.safetensors").keys, VECTORS.keys)
    (tmp_path / "other").write_bytes(b"word 0.1 0.2")
    with pytest.raises(VanerError, match="VE140.*other"):
        WordVectors.from_file(tmp_path / "other")
