"""DBR rows in the training reader: what is asked, drawn and weighed; stale candidates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_vaner.corpora.docbins import docs_to_bytes, read_docs
from spacy_vaner.errors import VanerError
from spacy_vaner.gold import KEY, Gold, get_ask, get_gold
from spacy_vaner.knowledge.candidates import make_candidates
from spacy_vaner.knowledge.phrases import MinedPhrases
from spacy_vaner.knowledge.retrieval import char_ngram_retriever
from spacy_vaner.knowledge.store import KnowledgeBase
from spacy_vaner.types import Mention
from tests.knowledge.conftest import NAMES
from tests.support.tiny_tagger import component_of

TEXTS = (
    "Breast cancers were treated with metformins. Insulins of cats were measured in lungs.",
    "Aspirins against lung cancers. Diabetes of the pancreas. A cold of Homo.",
)


def pipeline(asking: str = "per_type") -> Language:
    nlp = spacy.blank("en")
    types = ["Disease", "Chemical", "Phase"]
    nlp.add_pipe("vaner_ner", config={"types": types, "asking": asking})
    return nlp


@pytest.fixture
def nlp() -> Language:
    return pipeline()


@pytest.fixture(scope="module")
def docs() -> list[Doc]:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    found = []
    for number, text in enumerate(TEXTS):
        gold = Gold(
            corpus="c",
            id=str(number),
            types=("Disease", "Phase"),
            partial=("Chemical",),
            names={"Disease": "c-disease"},
            mentions=(Mention("Disease", ((0, 6),)),),
        )
        doc = nlp(text)
        doc.user_data[KEY] = gold.to_user_data()
        found.append(doc)
    return found


Write = Callable[..., tuple[Path, dict[str, str]]]


@pytest.fixture
def write(tmp_path: Path, kb: KnowledgeBase) -> Write:
    """A corpus file, and the settings `candidates` and `kb`."""

    def make(docs: list[Doc]) -> tuple[Path, dict[str, str]]:
        corpus, kb_path = tmp_path / "c.train.spacy", tmp_path / "kb.parquet"
        corpus.write_bytes(docs_to_bytes(docs))
        kb.to_file(kb_path)
        find = MinedPhrases().fit(read_docs(corpus))
        candidates = tmp_path / "c.candidates.parquet"
        make_candidates(corpus, kb, char_ngram_retriever()(kb), find, candidates, min_score=0.2)
        return corpus, {"candidates": str(candidates), "kb": str(kb_path)}

    return make


def reader(corpus: Path, dbr: dict[str, Any] | None, **settings: Any) -> Any:
    """As a config makes it."""
    values = {"@readers": "spacy-vaner.Corpus.v1", "paths": str(corpus), **settings}
    values["dbr"] = None if dbr is None else {"@misc": "spacy-vaner.dbr_rows.v1", **dbr}
    return spacy.registry.resolve({"corpus": values})["corpus"]


def is_row(example: Example) -> bool:
    gold = get_gold(example.reference)
    return gold is not None and gold.corpus is None


def rows_of(examples: list[Example]) -> list[tuple[tuple[str, ...], str, list[tuple[str, str]]]]:
    """Per row of names its types, its text and its mentions."""
    found = []
    for example in filter(is_row, examples):
        gold = get_gold(example.reference)
        assert gold is not None
        text = example.reference.text
        mentions = [(m.type, text[slice(*m.fragments[0])]) for m in gold.mentions]
        found.append((gold.types, text, mentions))
    return found


@pytest.mark.parametrize("asking", ["per_type", "joint"])
def test_every_sentence_gives_rows_of_its_documents_types(
    write: Write, docs: list[Doc], asking: str
) -> None:
    corpus, dbr = write(docs)
    examples = list(reader(corpus, {**dbr, "weight": 0.5})(pipeline(asking)))
    assert [example.reference.text for example in examples if not is_row(example)] == list(TEXTS)
    assert not is_row(examples[0]) and is_row(examples[1])
    rows = rows_of(examples)
    # "Phase" is no type of the knowledge base: its names say nothing about it.
    expected = {("Disease",), ("Chemical",)} if asking == "per_type" else {("Disease", "Chemical")}
    assert {types for types, _, _ in rows} == expected
    for types, text, mentions in rows:
        names = text.split(", ")
        assert len(names) == len(set(names)) <= 15
        assert mentions == [(t, n) for n in names for t in types if n in NAMES[t]]
    assert {name for _, _, mentions in rows for _, name in mentions} >= {"metformin", "lung cancer"}
    for example in filter(is_row, examples):
        gold = get_gold(example.reference)
        assert gold is not None and gold.weight == 0.5 and not gold.partial
        assert get_ask(example.predicted) == {"types": list(gold.types), "corpus": None}
        assert KEY in example.reference.user_data and not example.predicted.ents


def test_rows_are_drawn_anew_in_every_epoch(write: Write, docs: list[Doc], nlp: Language) -> None:
    corpus, dbr = write(docs)
    small = {**dbr, "n_positive": 1, "n_negative": 1}

    def epochs(settings: dict[str, Any], **rest: Any) -> list[Any]:
        read = reader(corpus, settings, **rest)
        return [rows_of(list(read(nlp))) for _ in range(4)]

    first = epochs(small)
    assert epochs(small) == first and len({str(rows) for rows in first}) > 1
    assert epochs(small, seed=1) != first
    drawn = epochs({**small, "mode": "random"})
    assert drawn != first
    assert [[t for t, *_ in rows] for rows in drawn] == [[t for t, *_ in rows] for rows in first]
    once = epochs({**small, "every_epoch": False})
    assert len({str(rows) for rows in once}) == 1
    some = epochs({**small, "share": 0.5})
    assert 0 < sum(map(len, some)) < sum(map(len, first))


def test_documents_are_the_same_with_rows_and_without(
    write: Write, docs: list[Doc], nlp: Language
) -> None:
    corpus, dbr = write(docs)
    settings: dict[str, Any] = {"shuffle": True, "drop_corpus": 0.5, "weights": {"c": 1.5}}
    with_rows, without = (reader(corpus, rows, **settings) for rows in (dbr, None))
    for _ in range(4):
        text = [example for example in with_rows(nlp) if not is_row(example)]
        plain = list(without(nlp))
        assert [e.reference.text for e in text] == [e.reference.text for e in plain]
        assert [get_ask(e.predicted) for e in text] == [get_ask(e.predicted) for e in plain]
    off = reader(corpus, {"candidates": None, "kb": None, "mode": "off"})
    assert off.dbr is None and len(list(off(nlp))) == 2


def test_names_that_are_too_long_are_left_out_and_counted(
    write: Write, docs: list[Doc], nlp: Language
) -> None:
    corpus, dbr = write(docs)
    read = reader(corpus, {**dbr, "max_words": 1})
    assert all(
        " " not in name for _, text, _ in rows_of(list(read(nlp))) for name in text.split(", ")
    )
    assert read.dbr.n_rows > 0 and read.dbr.n_left_out > 0


def test_masked_sentences_give_no_rows(write: Write, docs: list[Doc], nlp: Language) -> None:
    masked = []
    for doc in docs:
        doc = doc.copy()
        doc.user_data = {KEY: {**doc.user_data[KEY], "masked": [[0, len(doc.text)]]}}
        masked.append(doc)
    corpus, dbr = write(masked)
    assert rows_of(list(reader(corpus, dbr)(nlp))) == []


def test_candidates_that_are_missing_stale_or_foreign_are_refused(
    write: Write, docs: list[Doc], nlp: Language, tmp_path: Path
) -> None:
    corpus, dbr = write(docs)
    for lacking in ({"candidates": None}, {"kb": None}):
        with pytest.raises(VanerError, match="VE626.*vaner dbr"):
            reader(corpus, {**dbr, **lacking})(nlp)
    other = tmp_path / "other.parquet"
    KnowledgeBase(["x1"], [("Gene",)], [("",)], [("",)]).to_file(other)
    with pytest.raises(VanerError, match="VE622"):
        reader(corpus, {**dbr, "kb": str(other)})(nlp)
    corpus.write_bytes(docs_to_bytes(docs[:1]))
    with pytest.raises(VanerError, match="VE624.*earlier state"):
        reader(corpus, dbr)(nlp)


@pytest.mark.parametrize("setting", [{"share": 1.5}, {"weight": -1.0}, {"n_positive": -1}])
def test_settings_are_checked(setting: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(VanerError, match="VE612"):
        reader(tmp_path / "c.spacy", {"candidates": "c", "kb": "k", **setting})
    with pytest.raises(Exception, match="mode"):
        reader(tmp_path / "c.spacy", {"candidates": "c", "kb": "k", "mode": "maybe"})


def test_a_weight_weighs_the_loss_in_training(write: Write, docs: list[Doc]) -> None:
    corpus, dbr = write(docs)
    backbone = {
        "@misc": "spacy-vaner.small_llama.v1",
        **{"hidden_size": 16, "n_layers": 1, "n_heads": 2, "intermediate_size": 32},
        "vocab_size": 300,
    }
    nlp = spacy.blank("en")
    model = {"backbone": backbone, "dropout": 0.0, "adapter": None}
    nlp.add_pipe("vaner_ner", config={"types": ["Disease"], "model": model})
    nlp.initialize(lambda: list(reader(corpus, dbr)(nlp)))

    def loss(weight: float) -> float:
        examples = filter(is_row, reader(corpus, {**dbr, "weight": weight})(nlp))
        return component_of(nlp).update(list(examples))["vaner_ner"]

    assert loss(0.5) == pytest.approx(loss(1.0) / 2, rel=1e-4)
    assert loss(0.0) == 0
