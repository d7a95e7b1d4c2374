"""What a document says about its annotation."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span

from spacy_vaner.errors import VanerError
from spacy_vaner.gold import (
    KEY,
    Ask,
    Gold,
    get_ask,
    get_gold,
    gold_from_ents,
    name_for,
    set_ask,
    types_of_pipeline,
    unannotated_copy,
    vaner_components,
)
from spacy_vaner.types import Mention

NLP = spacy.blank("en")
GOLD = Gold(
    corpus="BC5CDR",
    id="7",
    pmid="123",
    types=("Chemical",),
    partial=("Disease",),
    names={"Chemical": "BC5CDR-chem"},
    mentions=(
        Mention("Chemical", ((0, 7),), ("D001241",)),
        Mention("Disease", ((12, 17), (22, 28))),
    ),
    masked=((0, 3),),
    alternatives=(Mention("Chemical", ((0, 9),)),),
)


def make_doc(text: str = "aspirin and acute kidney injury") -> Doc:
    doc = NLP.make_doc(text)
    doc.user_data[KEY] = GOLD.to_user_data()
    return doc


@pytest.mark.parametrize(
    "travel",
    [
        lambda doc: doc,
        lambda doc: doc.copy(),
        lambda doc: pickle.loads(pickle.dumps(doc)),
        lambda doc: next(
            DocBin()
            .from_bytes(DocBin(docs=[doc], store_user_data=True).to_bytes())
            .get_docs(NLP.vocab)
        ),
    ],
    ids=["as written", "copy", "pickle", "DocBin"],
)
def test_annotation_survives(travel: Any) -> None:
    assert get_gold(travel(make_doc())) == GOLD


@pytest.mark.parametrize("data", [None, {}, {"ask": {"types": ["Gene"], "corpus": None}}])
def test_a_document_that_does_not_say_what_it_was_annotated_for(data: Any) -> None:
    doc = NLP.make_doc("aspirin")
    if data is not None:
        doc.user_data[KEY] = data
    assert get_gold(doc) is None


def test_empty_types_say_that_nothing_was_annotated() -> None:
    doc = NLP.make_doc("aspirin")
    doc.user_data[KEY] = {"types": []}
    assert get_gold(doc) == Gold()


@pytest.mark.parametrize(
    "key, value",
    [
        ("types", 3),
        ("types", "Chemical"),
        ("mentions", [["Chemical", [[0, 7]]]]),  # no identifiers
        ("mentions", [["Chemical", [0, 7], []]]),
        ("mentions", [["Chemical", [["a", "b"]], []]]),
        ("masked", [[1]]),
        ("names", ["BC5CDR"]),
    ],
)
def test_another_form_is_refused_with_the_text(key: str, value: Any) -> None:
    doc = make_doc()
    doc.user_data[KEY][key] = value
    with pytest.raises(VanerError, match="VE015.*aspirin and acute"):
        get_gold(doc)


def test_a_document_whose_dictionary_is_none_is_refused() -> None:
    doc = NLP.make_doc("aspirin")
    doc.user_data[KEY] = ["types"]
    with pytest.raises(VanerError, match="VE015"):
        get_gold(doc)


def test_what_is_asked_stands_beside_the_annotation() -> None:
    doc = make_doc()
    assert get_ask(doc) == {}
    set_ask(doc, Ask(types=["Gene", "Disease"], corpus={"Gene": "BC2GM"}))
    assert get_ask(doc) == {"types": ["Gene", "Disease"], "corpus": {"Gene": "BC2GM"}}
    assert doc.user_data[KEY]["ask"] == get_ask(doc)
    assert get_gold(doc) == GOLD
    # A corpus that is None asks without a name; one that is not there leaves it open.
    set_ask(doc, Ask(corpus=None))
    assert get_ask(doc) == {"corpus": None}


def test_asking_leaves_a_copy_of_the_document_as_it_was() -> None:
    doc = make_doc()
    set_ask(doc.copy(), Ask(types=["Gene"]))
    assert get_ask(doc) == {}
    assert get_ask(NLP.make_doc("a")) == {}


def test_a_stretch_of_the_text_keeps_what_is_said_of_it() -> None:
    halved, whole = Mention("Gene", ((0, 3), (6, 8))), Mention("Gene", ((5, 7), (9, 10)), ("1",))
    gold = Gold(
        corpus="a",
        mentions=(halved, whole),
        masked=((0, 5), (4, 6), (8, 20)),
        alternatives=(whole,),
    )
    within = Mention("Gene", ((0, 2), (4, 5)), ("1",))
    masked = ((0, 1), (3, 5))
    assert gold.within(5, 10) == Gold(
        "a", mentions=(within,), masked=masked, alternatives=(within,)
    )
    assert gold.is_masked(3, 7) and gold.is_masked(19, 30)
    assert not gold.is_masked(6, 8) and not gold.is_masked(20, 30)


def test_the_types_of_a_pipeline_are_those_of_its_components() -> None:
    nlp = spacy.blank("en")
    assert types_of_pipeline(nlp) is None
    nlp.add_pipe("entity_ruler")
    assert types_of_pipeline(nlp) is None
    nlp.add_pipe("vaner_ner", name="a", config={"types": ["Gene"], "label_map": {"Gene": "G"}})
    nlp.add_pipe("vaner_ner", name="b", config={"types": ["Gene", "Disease"]})
    assert types_of_pipeline(nlp) == {"Gene", "Disease"}


def test_the_components_of_a_pipeline_are_known_by_their_factory() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner", name="b")
    nlp.add_pipe("entity_ruler", name="vaner_ner")
    nlp.add_pipe("vaner_ner", name="a")
    assert vaner_components(nlp) == {"b": nlp.get_pipe("b"), "a": nlp.get_pipe("a")}
    assert list(vaner_components(nlp)) == ["b", "a"]
    with nlp.select_pipes(disable="b"):
        assert list(vaner_components(nlp)) == ["a"]
    nlp.remove_pipe("a")
    nlp.remove_pipe("b")
    assert vaner_components(nlp) == {}


def test_an_unannotated_copy_has_words_and_sentences_only() -> None:
    doc = make_doc(" acute\nkidney  injury .")
    for token in doc:
        token.is_sent_start = token.i == 2
    doc.set_ents([Span(doc, 1, 2, "X")])
    copy = unannotated_copy(doc)
    assert copy.text == doc.text and [t.text for t in copy] == [t.text for t in doc]
    assert [token.is_sent_start for token in copy] == [t.is_sent_start for t in doc]
    assert not copy.user_data and not copy.has_annotation("ENT_IOB")
    assert not unannotated_copy(NLP.make_doc("a b")).has_annotation("SENT_START")


@pytest.mark.parametrize(
    "corpus, expected",
    [(None, None), ("ncbi", "ncbi"), ({"Gene": "BC2GM"}, "BC2GM"), ({"Disease": "ncbi"}, None)],
)
def test_the_corpus_name_of_a_type(corpus: Any, expected: str | None) -> None:
    assert name_for(corpus, "Gene") == expected


def plain_doc(*ents: tuple[int, int, str]) -> Doc:
    doc = NLP.make_doc("aspirin and acute kidney injury")
    doc.set_ents([Span(doc, start, end, label) for start, end, label in ents])
    return doc


def test_entities_are_the_annotation_of_plain_documents() -> None:
    doc = plain_doc((0, 1, "Chemical"), (2, 5, "DISEASE"), (1, 2, "OTHER"))
    gold = gold_from_ents(doc, ["Chemical", "Disease", "Gene"], {"Disease": "DISEASE"})
    assert gold.types == ("Chemical", "Disease", "Gene")
    assert gold.mentions == (Mention("Chemical", ((0, 7),)), Mention("Disease", ((12, 31),)))


def test_a_document_without_entities_is_annotated_with_none() -> None:
    assert gold_from_ents(plain_doc(), ["Gene"], {}) == Gold(types=("Gene",))


def test_a_document_that_was_never_annotated_says_nothing() -> None:
    assert gold_from_ents(NLP.make_doc("aspirin"), ["Gene"], {}) == Gold()


def test_types_that_share_a_label_are_not_taken_as_absent() -> None:
    gold = gold_from_ents(plain_doc((0, 1, "DRUG")), ["A", "B"], {"A": "DRUG", "B": "DRUG"})
    assert gold.types == ("A",)
    assert gold.mentions == (Mention("A", ((0, 7),)),)
