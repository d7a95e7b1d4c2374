"""What is written on a document (docs/formats.md, section 2), and what keeps it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import spacy
from spacy import displacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span, SpanGroup

from spacy_vaner.component import VanerNER
from spacy_vaner.predictions import Prediction, project, split_tokens, write_predictions
from spacy_vaner.types import ScoredSpan
from tests.support.tiny_tagger import found, predictions

TEXT = "BRCA1-deficient cells with folic acid"
OFFSETS = {"BRCA1": (0, 5), "folic acid": (27, 37)}


def cells_doc(nlp: Language) -> Doc:
    """TEXT with a token that is longer than the gene in it."""
    return Doc(nlp.vocab, TEXT.split(), [True, True, True, True, False])


def entities(doc: Doc) -> list[tuple[str, str]]:
    return [(ent.label_, ent.text) for ent in doc.ents]


def scores(doc: Doc, key: str = "vaner") -> list[float]:
    return [float(score) for score in doc.spans[key].attrs["scores"]]


def test_the_contract(shared_nlp: Language) -> None:
    doc = shared_nlp(cells_doc(shared_nlp))
    assert [values[:3] for values in predictions(doc)] == [
        ("Gene", *OFFSETS["BRCA1"]),
        ("Chemical", *OFFSETS["folic acid"]),
    ]
    assert all(type(value) is float for *_, value in predictions(doc))
    # Spans and entities are whole tokens.
    assert [(span.label_, span.text) for span in doc.spans["vaner"]] == entities(doc)
    assert entities(doc) == [("Gene", "BRCA1-deficient"), ("Chemical", "folic acid")]
    assert scores(doc) == [value for *_, value in predictions(doc)]
    assert [ent._.vaner_probability for ent in doc.ents] == scores(doc)
    assert doc[1:2]._.vaner_probability is None
    assert doc[0:0]._.vaner_probability is None
    assert Span(doc, 0, 1, "Disease")._.vaner_probability is None


@pytest.mark.parametrize("text", ["", "\n", "the patients were treated"])
def test_everything_is_there_when_nothing_is_found(text: str, shared_nlp: Language) -> None:
    doc = shared_nlp(text)
    assert predictions(doc) == []
    assert list(doc.spans["vaner"]) == [] and scores(doc) == []
    assert doc.ents == ()
    if text:
        assert doc.has_annotation("ENT_IOB")


def test_no_spans_key(nlp: Language, ner: VanerNER) -> None:
    ner.spans_key = None
    doc = nlp(cells_doc(nlp))
    assert not doc.spans
    assert [ent._.vaner_probability for ent in doc.ents] == [v for *_, v in predictions(doc)]


def test_no_entities(nlp: Language, ner: VanerNER) -> None:
    ner.annotate_ents = False
    doc = nlp(cells_doc(nlp))
    assert not doc.has_annotation("ENT_IOB")
    assert len(doc.spans["vaner"]) == 2
    ner.spans_key = "other"
    assert list(nlp(cells_doc(nlp)).spans) == ["other"]


@pytest.mark.parametrize(
    "overwrite, expected",
    [
        (True, [("Gene", "BRCA1-deficient"), ("X", "cells"), ("Chemical", "folic acid")]),
        (False, [("Gene", "BRCA1-deficient"), ("X", "cells"), ("X", "acid")]),
    ],
)
def test_entities_of_an_earlier_component(
    overwrite: bool, expected: list[tuple[str, str]], nlp: Language, ner: VanerNER
) -> None:
    ruler: Any = nlp.add_pipe("entity_ruler", before="vaner_ner")
    ruler.add_patterns(
        [{"label": "X", "pattern": "cells", "id": "kept"}, {"label": "X", "pattern": "acid"}]
    )
    ner.overwrite_ents = overwrite
    doc = nlp(cells_doc(nlp))
    assert entities(doc) == expected
    assert [ent.ent_id_ for ent in doc.ents if ent.text == "cells"] == ["kept"]
    assert found(doc) == [("Gene", "BRCA1"), ("Chemical", "folic acid")]


def test_labels(nlp: Language, ner: VanerNER) -> None:
    ner.label_map = {"Gene": "GENE"}
    doc = nlp(cells_doc(nlp))
    assert [name for name, *_ in predictions(doc)] == ["Gene", "Chemical"]
    assert [label for label, _ in entities(doc)] == ["GENE", "Chemical"]
    assert [span.label_ for span in doc.spans["vaner"]] == ["GENE", "Chemical"]
    assert [ent._.vaner_probability for ent in doc.ents] == scores(doc)
    assert ner.labels == ("Chemical", "GENE")
    # Back again: nothing is left of the map.
    ner.label_map = {}
    doc = nlp(doc)
    assert [span.label_ for span in doc.spans["vaner"]] == ["Gene", "Chemical"]
    assert all(span._.vaner_probability for span in doc.spans["vaner"])


def test_threshold(nlp: Language, ner: VanerNER) -> None:
    gene, chemical = (value for *_, value in predictions(nlp(cells_doc(nlp))))
    ner.threshold = 1.0
    assert found(nlp(cells_doc(nlp))) == []
    ner.threshold = {"Gene": 1.0}
    assert found(nlp(cells_doc(nlp))) == [("Chemical", "folic acid")]
    ner.threshold = min(gene, chemical)
    assert len(found(nlp(cells_doc(nlp)))) == 2


def test_predicting_again_gives_the_same_document(shared_nlp: Language) -> None:
    doc = shared_nlp(cells_doc(shared_nlp))
    before = (predictions(doc), entities(doc), scores(doc))
    assert (predictions(shared_nlp(doc)), entities(doc), scores(doc)) == before


# Projection


def write(doc: Doc, spans: list[ScoredSpan], **settings: Any) -> Doc:
    defaults: dict[str, Any] = {
        "spans_key": "vaner",
        "annotate_ents": True,
        "overwrite_ents": True,
        "label_map": {},
        "priority": ["A", "B"],
        "retokenize": False,
    }
    write_predictions(doc, Prediction(("A", "B"), spans), **{**defaults, **settings})
    return doc


def test_spans_that_become_equal_are_one_and_overlapping_ones_stay() -> None:
    doc = spacy.blank("en").make_doc("BRCA1_BRCA2 gene")
    spans = [
        ScoredSpan("A", 0, 5, 0.6),
        ScoredSpan("B", 0, 16, 0.7),
        ScoredSpan("A", 6, 11, 0.8),
    ]
    write(doc, spans)
    assert len(doc) == 2
    assert [(s.label_, s.start, s.end) for s in doc.spans["vaner"]] == [("A", 0, 1), ("B", 0, 2)]
    assert scores(doc) == [0.8, 0.7]
    assert entities(doc) == [("A", "BRCA1_BRCA2")]
    assert doc.ents[0]._.vaner_probability == 0.8
    assert doc.spans["vaner"][1]._.vaner_probability == 0.7
    assert predictions(doc) == [tuple(span) for span in spans]


def test_spans_are_in_the_order_of_start_end_and_label() -> None:
    doc = spacy.blank("en").make_doc("a b c d")
    places = [("B", 0, 1), ("A", 0, 3), ("B", 0, 3), ("A", 4, 7)]
    spans = [ScoredSpan(name, start, end, 0.5) for name, start, end in places]
    expected = [("B", 0, 1), ("B", 0, 2), ("Z", 0, 2), ("Z", 2, 4)]
    assert [values[:3] for values in project(doc, spans[::-1], {"A": "Z"})] == expected


def test_probabilities_are_quick_to_find_in_a_long_document() -> None:
    doc = Doc(spacy.blank("en").vocab, words=["w"] * 20_000)
    spans = [ScoredSpan("A", 2 * i, 2 * i + 1, i / 20_000) for i in range(20_000)]
    write(doc, spans)
    assert [ent._.vaner_probability for ent in doc.ents] == [span.probability for span in spans]


# Splitting tokens


def test_retokenize_splits_tokens_at_the_boundaries(nlp: Language, ner: VanerNER) -> None:
    ner.retokenize = True
    doc = nlp(cells_doc(nlp))
    assert doc.text == TEXT
    assert entities(doc) == [("Gene", "BRCA1"), ("Chemical", "folic acid")]
    assert [span.text for span in doc.spans["vaner"]] == ["BRCA1", "folic acid"]
    assert [token.text for token in doc] == [
        "BRCA1",
        "-deficient",
        "cells",
        "with",
        "folic",
        "acid",
    ]
    assert [ent._.vaner_probability for ent in doc.ents] == scores(doc)


def test_retokenize_keeps_sentences_spans_entities_and_tags(nlp: Language, ner: VanerNER) -> None:
    ner.retokenize = True
    text = "zinc was high . (BRCA1)-deficient cells , xBRCA1x"
    doc = Doc(
        nlp.vocab,
        words=["zinc", "was", "high", ".", "(BRCA1)-deficient", "cells", ",", "xBRCA1x"],
        spaces=[True] * 7 + [False],
        sent_starts=[True, False, False, False, True, False, False, True],
        ents=["B-OLD", "O", "O", "O", "B-OLD", "I-OLD", "O", "O"],
        tags=["N"] * 8,
        pos=["NOUN"] * 8,
        lemmas=[f"lemma{i}" for i in range(8)],
    )
    doc.spans["other"] = SpanGroup(
        doc, name="other", attrs={"a": 1}, spans=[Span(doc, 4, 6, "S", span_id="7"), doc[1:3]]
    )
    doc.tensor = np.arange(16, dtype="f").reshape(8, 2)
    doc.user_data["note"] = "kept"
    spans = [ScoredSpan("A", 17, 22, 0.9), ScoredSpan("A", 43, 48, 0.8)]
    assert doc.text == text
    write(doc, spans, retokenize=True, overwrite_ents=False, annotate_ents=False)
    assert doc.text == text
    parts = ["(", "BRCA1", ")-deficient", "cells", ",", "x", "BRCA1", "x"]
    assert [token.text for token in doc][4:] == parts
    assert [sent.text for sent in doc.sents] == [text[:15], text[16:41], text[42:]]
    assert entities(doc) == [("OLD", "zinc"), ("OLD", "(BRCA1)-deficient cells")]
    group = doc.spans["other"]
    assert [(span.label_, span.text, span.id_) for span in group] == [
        ("S", "(BRCA1)-deficient cells", "7"),
        ("", "was high", ""),
    ]
    assert group.attrs == {"a": 1}
    assert [span.text for span in doc.spans["vaner"]] == ["BRCA1", "BRCA1"]
    assert {token.pos_ for token in doc} == {"NOUN"} and {token.tag_ for token in doc} == {"N"}
    assert [token.lemma_ for token in doc][3:7] == ["lemma3", "(", "BRCA1", ")-deficient"]
    assert doc.user_data["note"] == "kept"
    assert len(doc.tensor) == len(doc)


def test_retokenize_keeps_a_parse() -> None:
    doc = Doc(
        spacy.blank("en").vocab,
        words=["high", "BRCA1-levels", "fell"],
        spaces=[True, True, False],
        heads=[1, 2, 2],
        deps=["amod", "nsubj", "ROOT"],
    )
    split_tokens(doc, {5, 10, 11, 17})
    assert [token.text for token in doc] == ["high", "BRCA1", "-", "levels", "fell"]
    assert [token.head.text for token in doc] == ["BRCA1", "fell", "BRCA1", "BRCA1", "fell"]
    assert [sent.text for sent in doc.sents] == [doc.text]


def test_retokenize_without_anything_to_split_changes_nothing() -> None:
    doc = spacy.blank("en").make_doc("a b")
    assert not doc.has_annotation("SENT_START")
    split_tokens(doc, {0, 1, 2, 3})
    assert [token.text for token in doc] == ["a", "b"]
    assert not doc.has_annotation("SENT_START") and not doc.has_annotation("TAG")


def test_retokenize_does_not_invent_annotation() -> None:
    doc = spacy.blank("en").make_doc("BRCA1-deficient mice and more. And more")
    layers = ("SENT_START", "TAG", "POS", "MORPH", "LEMMA", "DEP", "ENT_IOB")
    before = {layer: doc.has_annotation(layer) for layer in layers}
    split_tokens(doc, {5})
    assert {layer: doc.has_annotation(layer) for layer in layers} == before


# What keeps it


@pytest.mark.parametrize(
    "travel",
    [
        lambda doc: doc.copy(),
        lambda doc: pickle.loads(pickle.dumps(doc)),
        lambda doc: Doc(doc.vocab).from_bytes(doc.to_bytes()),
        lambda doc: next(
            DocBin(store_user_data=True)
            .from_bytes(DocBin(docs=[doc], store_user_data=True).to_bytes())
            .get_docs(spacy.blank("en").vocab)
        ),
    ],
    ids=["copy", "pickle", "bytes", "DocBin"],
)
def test_documents_keep_their_annotation(travel: Callable[[Doc], Doc], load: Any) -> None:
    nlp = load(label_map={"Gene": "GENE"})
    before = nlp(cells_doc(nlp))
    doc = travel(before)
    assert predictions(doc) == predictions(before)
    assert entities(doc) == entities(before)
    assert [(s.label_, s.start, s.end) for s in doc.spans["vaner"]] == [
        (s.label_, s.start, s.end) for s in before.spans["vaner"]
    ]
    assert scores(doc) == scores(before)
    assert [ent._.vaner_probability for ent in doc.ents] == scores(before)
    # And it can be predicted on again.
    assert entities(nlp(doc)) == entities(before)


def test_an_empty_group_survives_a_doc_bin(shared_nlp: Language) -> None:
    doc_bin = DocBin(docs=[shared_nlp("the patients")], store_user_data=True)
    (doc,) = DocBin().from_bytes(doc_bin.to_bytes()).get_docs(shared_nlp.vocab)
    assert list(doc.spans["vaner"]) == [] and len(doc.spans["vaner"].attrs["scores"]) == 0


def test_a_memory_zone_frees_the_strings_and_keeps_the_labels(nlp: Language, ner: VanerNER) -> None:
    with nlp.memory_zone():
        doc = nlp("zinc qqqxqqq")
        assert entities(doc) == [("Chemical", "zinc")]
        assert "qqqxqqq" in nlp.vocab.strings
        ner.types = ["Chemical", "Brandnew"]
    assert "qqqxqqq" not in nlp.vocab.strings
    assert "Chemical" in nlp.vocab.strings
    assert entities(nlp("with zinc levels")) == [("Chemical", "zinc")]


def test_displacy_knows_the_colours() -> None:
    doc = {"text": "zinc", "ents": [{"start": 0, "end": 4, "label": "Chemical"}], "title": None}
    html = displacy.render(doc, style="ent", manual=True)
    assert "#a8d8b9" in html


def test_the_pipeline_knows_what_the_component_sets(shared_nlp: Language) -> None:
    analysis = shared_nlp.analyze_pipes()
    assert analysis is not None
    assert set(analysis["summary"]["vaner_ner"]["assigns"]) == {
        "doc.ents",
        "doc.spans",
        "token.ent_iob",
        "token.ent_type",
    }
    assert analysis["summary"]["vaner_ner"]["requires"] == []
    assert analysis["problems"]["vaner_ner"] == []


def test_a_second_component_keeps_what_the_first_one_found() -> None:
    doc = write(spacy.blank("en").make_doc("BRCA1 gene"), [ScoredSpan("A", 0, 5, 0.6)])
    other = Prediction(("C",), [ScoredSpan("C", 6, 10, 0.9)])
    write_predictions(
        doc,
        other,
        spans_key="other",
        annotate_ents=True,
        overwrite_ents=True,
        label_map={"C": "THIRD"},
        priority=["THIRD"],
        retokenize=False,
    )
    assert predictions(doc) == [("A", 0, 5, 0.6), ("C", 6, 10, 0.9)]
    assert [(ent.label_, ent._.vaner_probability) for ent in doc.ents] == [
        ("A", 0.6),
        ("THIRD", 0.9),
    ]
    # Asked again, a type is answered anew.
    write(doc, [])
    assert predictions(doc) == [("C", 6, 10, 0.9)]
