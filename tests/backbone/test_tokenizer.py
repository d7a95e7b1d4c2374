from __future__ import annotations

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.vocab import Vocab
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from spacy_vaner.backbone import SubwordTokenizer, train_bpe
from spacy_vaner.errors import VanerError
from spacy_vaner.pieces import overlapping, split_pieces

from .conftest import TEXTS

pytestmark = pytest.mark.transformers5


def llama2_like() -> SubwordTokenizer:
    """As LLaMA-2's: no pre-tokenizer, a mark before the text, bytes for what is unknown."""
    trained = train_bpe(TEXTS, vocab_size=400)
    inner = Tokenizer.from_str(trained.to_files()["tokenizer.json"].decode("utf8"))
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.pre_tokenizer = None  # type: ignore[assignment]
    return SubwordTokenizer(inner.to_str(), {"bos_token": {"content": "<s>"}})


def llama3_like() -> SubwordTokenizer:
    """As LLaMA-3's and Qwen's: bytes as letters, no mark before the text, no BOS."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    return SubwordTokenizer(
        inner.to_str(), {"bos_token": "<|end|>", "add_bos_token": False, "eos_token": "<|end|>"}
    )


TOKENIZERS = {
    "ours": train_bpe(TEXTS, vocab_size=400),
    "llama2": llama2_like(),
    "llama3": llama3_like(),
}
ANY_TEXT = st.one_of(
    st.text(),
    st.text(st.characters()),  # lone surrogates included
    st.text(alphabet="aBR1 -(\t\n▁Ġ\u0301é\u200b中😀<s>/unk\x00\x85\xa0\ud800"),
)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None)
@given(text=ANY_TEXT)
def test_spans_lose_no_character_and_hold_no_outer_space(name: str, text: str) -> None:
    ids, spans = TOKENIZERS[name].encode(text)
    covered: set[int] = set()
    last = 0
    assert len(ids) == len(spans)
    for start, end in spans:
        assert 0 <= start <= end <= len(text)
        assert text[start:end] == text[start:end].strip()
        assert start >= last or start == end or text[start:end]
        covered.update(range(start, end))
        last = start
    assert not [i for i, c in enumerate(text) if not c.isspace() and i not in covered]


@settings(deadline=None)
@given(text=st.text(alphabet="abRNA12-.,( )é\u0301Αα\u200b中ǅ½²_\n") | st.text(max_size=30))
def test_our_subwords_never_cross_pieces(text: str) -> None:
    doc = Doc(Vocab(), words=[text], spaces=[False]) if text else Doc(Vocab())
    pieces = split_pieces(doc)
    _, spans = TOKENIZERS["ours"].encode(text)
    for start, end in spans:
        touched = overlapping(pieces, start, end)
        assert start == end or touched.stop - touched.start <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BRCA1-deficient", ["BRCA", "1", "-"]),
        (" 12  mRNA ", ["1", "2", "m", "RNA"]),
        ("HDACs", ["HDAC", "s"]),
        ("<s>", ["<", "s", ">"]),
        ("😀", ["😀"] * 4),
        ("", []),
        ("\n", []),
    ],
)
def test_our_subwords_are_these(text: str, expected: list[str]) -> None:
    _, spans = TOKENIZERS["ours"].encode(text)
    found = [text[start:end] for start, end in spans if start < end]
    assert found[: len(expected)] == expected


def test_a_prefix_mark_alone_has_an_empty_span() -> None:
    _, spans = TOKENIZERS["llama2"].encode("\u4e2d 7")
    assert spans == [(0, 0), (0, 1), (0, 1), (0, 1), (2, 2), (2, 3)]


def test_a_literal_mark_in_the_text_keeps_its_span() -> None:
    for name in ("ours", "llama2"):
        _, spans = TOKENIZERS[name].encode("a ▁ b")
        assert (2, 3) in spans, name


def test_special_tokens_in_a_text_are_text() -> None:
    for tokenizer in TOKENIZERS.values():
        ids, _ = tokenizer.encode("a <s> </s> <|end|> b")
        assert not set(ids) & set(tokenizer.encode_instruction("")), tokenizer
        assert tokenizer.n_tokens > max(ids)


def test_instruction_begins_with_the_beginning_of_sequence_where_there_is_one() -> None:
    text = "If any Disease entity is mentioned, extract it. ##input: "
    for name, bos in (("ours", [1]), ("llama2", [1]), ("llama3", [])):
        tokenizer = TOKENIZERS[name]
        expected = bos + tokenizer.encode(text)[0]
        assert tokenizer.encode_instruction(text) == expected
        tokenizer.encode_instruction(text).append(-1)
        assert tokenizer.encode_instruction(text) == expected, "the cache was changed from outside"


@pytest.mark.parametrize("word", ["a", "A", "1", ".", "😀", "ab-12", "\u0301"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_word_of_100_000_characters_is_cut_quickly(name: str, word: str) -> None:
    text = (word * 100_000)[:100_000]
    start = time.process_time()
    _, spans = TOKENIZERS[name].encode(text)
    assert time.process_time() - start < 10
    assert max(end for _, end in spans) == len(text)


def test_training_is_deterministic_and_respects_the_size() -> None:
    first, second = train_bpe(iter(TEXTS), vocab_size=350), train_bpe(TEXTS, vocab_size=350)
    assert first.to_files() == second.to_files()
    assert first.n_tokens <= 350
    assert first.fingerprint() == second.fingerprint() != TOKENIZERS["ours"].fingerprint()


def test_training_refuses_no_text_and_no_room() -> None:
    with pytest.raises(VanerError, match="VE113"):
        train_bpe(["", " \n"])
    with pytest.raises(VanerError, match="VE112"):
        train_bpe(TEXTS, vocab_size=261)


def test_transformers_reads_our_folder_and_gives_the_same_ids(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours = TOKENIZERS["ours"]
    ours.to_folder(tmp_path / "tokenizer")
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "tokenizer"), local_files_only=True)
    text = "BRCA1-deficient cells (TNF-α) in 37 patients 😀"
    assert theirs(text)["input_ids"] == [1, *ours.encode(text)[0]]
    assert theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True) == text
    assert (theirs.pad_token_id, theirs.bos_token) == (ours.pad_id, "<s>")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_round_trips_give_an_equal_tokenizer(name: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[name]
    tokenizer.to_folder(tmp_path / "t")
    for copy in (
        SubwordTokenizer.from_files(tokenizer.to_files()),
        SubwordTokenizer.from_folder(tmp_path / "t"),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert copy.fingerprint() == tokenizer.fingerprint()
        assert copy.encode("a <s> BRCA1 <|end|>") == tokenizer.encode("a <s> BRCA1 <|end|>")
        assert (copy.pad_id, copy.n_tokens) == (tokenizer.pad_id, tokenizer.n_tokens)


def test_to_folder_replaces_a_tokenizer_and_nothing_else(tmp_path: Path) -> None:
    TOKENIZERS["llama3"].to_folder(tmp_path / "t")
    TOKENIZERS["ours"].to_folder(tmp_path / "t")
    found = SubwordTokenizer.from_folder(tmp_path / "t")
    assert found.fingerprint() == TOKENIZERS["ours"].fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    (tmp_path / "t" / "thesis.doc").write_text("years of work")
    with pytest.raises(VanerError, match="VE114"):
        TOKENIZERS["ours"].to_folder(tmp_path / "t")


@pytest.mark.parametrize(
    ("files", "number"),
    [
        ({}, "VE111"),
        ({"tokenizer.json": b"{"}, "VE110"),
        ({"tokenizer.json": b"\xff"}, "VE110"),
        ({"tokenizer.json": b"{}", "tokenizer_config.json": b"{"}, "VE110"),
    ],
)
def test_unreadable_files_are_named(files: dict[str, bytes], number: str, tmp_path: Path) -> None:
    with pytest.raises(VanerError, match=number):
        SubwordTokenizer.from_files(files)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VanerError, match=number):
        SubwordTokenizer.from_folder(tmp_path)


def test_a_sentencepiece_model_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(VanerError, match=r"VE110: the tokenizer's tokenizer\.model"):
        SubwordTokenizer.from_folder(tmp_path)


def test_threads_share_one_tokenizer() -> None:
    tokenizer = train_bpe(TEXTS, vocab_size=400)
    texts = [f"{TEXTS[i % 4]} {i}" for i in range(400)]
    expected = [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tokenizer.encode, texts)) == expected
        instructions = list(pool.map(tokenizer.encode_instruction, texts))
    assert instructions == [[1, *ids] for ids, _ in expected]
