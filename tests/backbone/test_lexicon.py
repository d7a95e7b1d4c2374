"""Names that a backbone knows of: what is found, the same everywhere, and that it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from spacy_vaner.backbone.building import build_tagger
from spacy_vaner.backbone.lexicon import MAX_WORDS, N_FACTS, LexiconTable, split_name
from spacy_vaner.backbone.pretrained import fresh_decoder, small_llama_config
from spacy_vaner.backbone.saving import tagger_files, tagger_from_files
from spacy_vaner.backbone.settings import HFBackbone, SmallLlama
from spacy_vaner.backbone.tokenizer import SubwordTokenizer, train_bpe
from spacy_vaner.backbone.word_features import (
    WordEmbedding,
    WordFeatures,
    add_lexicon,
    add_word_features,
    word_embedding,
)
from spacy_vaner.errors import VanerError
from spacy_vaner.training.checkpoints import write_folder
from spacy_vaner.training.language_model import backbone_files

TYPES = ("Disease", "Gene")
NAMES = [
    ("nephrotic syndrome", "Disease"),
    ("syndrome", "Disease"),
    ("IL-2", "Gene"),
    ("il", "Gene"),
    ("TNF-alpha", "Gene"),
    ("tumor necrosis factor alpha receptor 1", "Gene"),
    ("Alpha", "Disease"),
    ("mouse", "Species"),
    ("one two three four five six seven", "Disease"),
    ("123", "Gene"),
]
TEXTS = [
    "Nephrotic  syndrome and IL-2, the syndrome in mice with TNF-alpha.",
    "tumor necrosis factor alpha receptor 1 of mouse IL -2; il 123 (nephrotic)",
    "one two three four five six seven",
]


@pytest.fixture(scope="module")
def tokenizer() -> SubwordTokenizer:
    return train_bpe([*TEXTS, *TEXTS, "x ; , -"], vocab_size=420)


@pytest.fixture(scope="module")
def table() -> LexiconTable:
    return LexiconTable.from_names(NAMES, TYPES, bits_per_name=64)


def embedding_with(tokenizer: SubwordTokenizer, table: LexiconTable) -> WordEmbedding:
    torch.manual_seed(0)
    made = WordEmbedding(tokenizer.n_tokens, 16, WordFeatures(64, 8))
    made.bind(tokenizer)
    made.set_lexicon(table)
    return made


def facts_of(embedding: WordEmbedding, ids: Tensor) -> Tensor:
    """(B, S, types, N_FACTS)."""
    assert embedding.lexicon is not None
    hashes, _, word = embedding._hash_words(ids)
    known = embedding._of_id("is_known", ids)
    facts = embedding.lexicon.facts(hashes["norm"], word, known)
    return facts.view(*ids.shape, len(TYPES), N_FACTS)


def expected(text: str) -> list[tuple[str, list[list[bool]]]]:
    """Per word what the names say of it, worked out by comparing words."""
    words = split_name(text)
    found = [[[False] * N_FACTS for _ in TYPES] for _ in words]
    for number, type_name in enumerate(TYPES):
        names = {
            tuple(split_name(name))
            for name, of_type in NAMES
            if of_type == type_name and len(name) > 2 and not name.isdigit()
        }
        for n in range(MAX_WORDS, 0, -1):
            starts = [
                start
                for start in range(len(words) - n + 1)
                if tuple(words[start : start + n]) in names
                and not any(found[place][number][0] for place in range(start, start + n))
            ]
            for start in starts:
                for place in range(start, start + n):
                    found[place][number][0] = True
                    found[place][number][3] |= n > 1
                found[start][number][1] = True
                found[start + n - 1][number][2] = True
    return list(zip(words, found, strict=True))


def encode(tokenizer: SubwordTokenizer, text: str) -> tuple[list[int], list[int]]:
    """Ids, and the number of the word that each belongs to."""
    ids, offsets = tokenizer.encode(text)
    starts, place = [], 0
    for word in split_name(text):
        place = text.lower().index(word, place)
        starts.append(place)
        place += len(word)
    return ids, [sum(start <= first for start in starts) - 1 for first, _ in offsets]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_found_is_what_the_names_say(
    tokenizer: SubwordTokenizer, table: LexiconTable, text: str
) -> None:
    ids, words = encode(tokenizer, text)
    found = facts_of(embedding_with(tokenizer, table), torch.tensor([ids]))[0].tolist()
    said = expected(text)
    assert found == [said[word][1] for word in words]
    assert text == TEXTS[2] or any(any(map(any, facts)) for _, facts in said)


def test_the_same_is_found_in_any_batch_and_a_mask_hides_it(
    tokenizer: SubwordTokenizer, table: LexiconTable
) -> None:
    embedding = embedding_with(tokenizer, table)
    rows = [encode(tokenizer, text)[0] for text in TEXTS]
    width = max(map(len, rows)) + 3
    bos = tokenizer.encode_instruction("")
    padded = torch.tensor([bos + row + [tokenizer.pad_id] * (width - len(row)) for row in rows])
    together = facts_of(embedding, padded)
    for line, row in enumerate(rows):
        alone = facts_of(embedding, torch.tensor([row]))[0]
        start = len(bos)
        assert torch.equal(together[line, start : start + len(row)], alone)
        assert not together[line, :start].any()
        assert not together[line, start + len(row) :].any()
    ids, words = encode(tokenizer, TEXTS[0])
    mask_id = tokenizer.named_id("mask_token")
    assert mask_id is not None
    masked = [mask_id if word == 0 else id_ for id_, word in zip(ids, words, strict=True)]
    found = facts_of(embedding, torch.tensor([masked]))[0]
    # "syndrome" is left of the name of two words.
    assert found[words.index(1), 0].tolist() == [True, True, True, False]


@pytest.mark.parametrize("text", ["x", "IL", "IL-2", "the IL-2"])
def test_texts_shorter_than_names_are_looked_up(
    tokenizer: SubwordTokenizer, table: LexiconTable, text: str
) -> None:
    ids, words = encode(tokenizer, text)
    found = facts_of(embedding_with(tokenizer, table), torch.tensor([ids[:8]]))[0].tolist()
    assert found == [expected(text)[word][1] for word in words]


def test_training_and_prediction_see_the_same_but_for_rows_that_are_dropped(
    tokenizer: SubwordTokenizer, table: LexiconTable
) -> None:
    embedding = embedding_with(tokenizer, table)
    ids = torch.tensor([encode(tokenizer, TEXTS[0])[0]] * 200)
    before = embedding.eval()(ids)
    assert embedding.lexicon is not None
    embedding.lexicon.weight.data.normal_()
    with_names = embedding(ids)
    assert not torch.equal(before, with_names)
    assert torch.equal(embedding.train()(ids), with_names)
    embedding.lexicon.dropout = 0.5
    noisy = embedding(ids)
    is_whole = [torch.equal(row, whole) for row, whole in zip(noisy, with_names, strict=True)]
    is_bare = [torch.equal(row, bare) for row, bare in zip(noisy, before, strict=True)]
    assert all(a != b for a, b in zip(is_whole, is_bare, strict=True))
    assert 60 < sum(is_bare) < 140
    assert torch.equal(embedding.eval()(ids), with_names)


def test_foreign_words_are_hardly_ever_taken_for_names() -> None:
    names = [(f"gene{number} alpha", "Gene") for number in range(2_000)]
    table = LexiconTable.from_names(names, TYPES)
    assert table.n_names == 2_000 and len(table.bits) == 6_000
    tokenizer = train_bpe(["gene alpha strange 0 1 2 3 4 5 6 7 8 9"] * 9, vocab_size=420)
    embedding = embedding_with(tokenizer, table)
    known = torch.tensor([tokenizer.encode(" ".join(name for name, _ in names))[0]])
    # A foreign run of words that is taken for a name may stand in the way of one.
    assert facts_of(embedding, known)[0, :, 1, 0].float().mean() > 0.995
    assert facts_of(embedding, known)[0, :, 0].float().mean() < 0.001
    foreign = " ".join(f"strange{number} alpha" for number in range(2_000))
    found = facts_of(embedding, torch.tensor([tokenizer.encode(foreign)[0]]))
    assert found.float().mean() < 0.001


def test_a_backbone_and_a_tagger_keep_their_lexicon(
    tokenizer: SubwordTokenizer, table: LexiconTable, tmp_path: Path
) -> None:
    shape = SmallLlama(hidden_size=16, n_layers=1, n_heads=2, intermediate_size=32)
    decoder = fresh_decoder(small_llama_config(shape, tokenizer.n_tokens), "sdpa")
    with pytest.raises(VanerError, match="VE143"):
        add_lexicon(decoder, table)
    add_word_features(decoder, WordFeatures(64, 8))
    table.to_file(tmp_path / "names.safetensors")
    read = LexiconTable.from_file(tmp_path / "names.safetensors")
    assert (read.types, read.n_hashes, read.n_names) == (TYPES, table.n_hashes, table.n_names)
    add_lexicon(decoder, read)
    words = word_embedding(decoder)
    assert words is not None and words.lexicon is not None
    words.lexicon.weight.data.normal_()
    words.bind(tokenizer)
    write_folder(tmp_path / "backbone", backbone_files(decoder, tokenizer, torch.float32))
    tagger = build_tagger(HFBackbone(str(tmp_path / "backbone")), None)
    ids = torch.tensor([encode(tokenizer, TEXTS[0])[0]])
    lengths = torch.tensor([ids.shape[1]])
    loaded = word_embedding(tagger.backbone)
    assert loaded is not None and loaded.features.lexicon_types == TYPES
    assert torch.equal(loaded(ids), words(ids))
    again = tagger_from_files(tagger_files(tagger), device="cpu", precision="fp32")
    assert torch.equal(tagger.eval()(ids, lengths), again(ids, lengths))


def test_a_file_of_other_tensors_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"nothing"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(VanerError, match="VE142"):
            LexiconTable.from_file(tmp_path / "x")
