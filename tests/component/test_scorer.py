"""Scores, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_vaner.gold import KEY, Ask, Gold, set_ask
from spacy_vaner.predictions import Prediction, write_predictions
from spacy_vaner.scorer import make_ner_scorer, score_ner
from spacy_vaner.types import Mention, ScoredSpan

NLP = spacy.blank("en")
TEXT = "zinc and BRCA1-deficient cells of mice"
Offsets = tuple[str, int, int]


def example(
    predicted: list[Offsets], gold: Gold | list[tuple[int, int, str]] | None, **settings: Any
) -> Example:
    """gold: an annotation, or plain entities by tokens, or None for a text that has none."""
    reference, doc = NLP.make_doc(TEXT), NLP.make_doc(TEXT)
    if isinstance(gold, Gold):
        reference.user_data[KEY] = gold.to_user_data()
    elif gold is not None:
        reference.set_ents([Span(reference, start, end, label) for start, end, label in gold])
    spans = [ScoredSpan(name, start, end, 0.5) for name, start, end in predicted]
    defaults: dict[str, Any] = {
        "spans_key": None,
        "annotate_ents": True,
        "overwrite_ents": True,
        "label_map": {},
        "priority": [],
        "retokenize": False,
    }
    asked = ("Chemical", "Gene", "Species", "Disease")
    write_predictions(doc, Prediction(asked, spans), **{**defaults, **settings})
    return Example(doc, reference)


ZINC, BRCA1, MICE = ("Chemical", 0, 4), ("Gene", 9, 14), ("Species", 34, 38)


def gold_of(*mentions: Offsets, **values: Any) -> Gold:
    values.setdefault("types", ("Chemical", "Gene"))
    return Gold(mentions=tuple(Mention(n, ((s, e),)) for n, s, e in mentions), **values)


def prf(scores: dict[str, Any]) -> tuple[Any, Any, Any]:
    return scores["vaner_p"], scores["vaner_r"], scores["vaner_f"]


def test_exact_offsets_and_type_decide() -> None:
    predicted = [ZINC, ("Gene", 9, 15), ("Gene", 0, 4)]
    scores = score_ner([example(predicted, gold_of(ZINC, BRCA1))])
    assert prf(scores) == (1 / 3, 1 / 2, 2 / 5)
    assert scores["vaner_f_per_type"] == {
        "Chemical": {"p": 1.0, "r": 1.0, "f": 1.0},
        "Gene": {"p": 0.0, "r": 0.0, "f": 0.0},
    }


def test_counts_are_summed_over_documents() -> None:
    scores = score_ner(
        [
            example([ZINC], gold_of(ZINC)),
            example([BRCA1], gold_of()),
            example([], gold_of(BRCA1)),
        ]
    )
    assert prf(scores) == (1 / 2, 1 / 2, 1 / 2)


def test_types_that_a_document_is_not_annotated_for_are_left_out() -> None:
    # MICE is right for all we know; a partial type is never in the scores.
    gold = gold_of(ZINC, types=("Chemical",), partial=("Gene",))
    scores = score_ner([example([ZINC, BRCA1, MICE], gold)])
    assert prf(scores) == (1.0, 1.0, 1.0)
    assert set(scores["vaner_f_per_type"]) == {"Chemical"}


def test_types_that_were_not_asked_are_left_out() -> None:
    scored = example([ZINC], gold_of(ZINC, BRCA1))
    set_ask(scored.predicted, Ask(types=["Chemical"], corpus=None))
    assert prf(score_ner([scored])) == (1.0, 1.0, 1.0)
    # Nor those that the component is not set to.
    scores = score_ner([example([ZINC], gold_of(ZINC, BRCA1))], labels=["Chemical"])
    assert prf(scores) == (1.0, 1.0, 1.0)


def test_a_discontinuous_mention_and_one_inside_of_a_word_count_as_missed() -> None:
    gold = Gold(
        types=("Chemical",),
        mentions=(
            Mention("Chemical", ((0, 4), (25, 30))),
            Mention("Chemical", ((1, 3),)),
            Mention("Chemical", ((0, 4),)),
        ),
    )
    assert prf(score_ner([example([ZINC], gold)])) == (1.0, 1 / 3, 1 / 2)


def test_nothing_to_score_is_none_and_nothing_found_is_zero() -> None:
    assert prf(score_ner([])) == (None, None, None)
    assert prf(score_ner([example([], gold_of(types=()))])) == (None, None, None)
    p, r, f = prf(score_ner([example([], gold_of(ZINC))]))
    assert not p and r == 0.0 and f == 0.0


def test_scores_know_types_whatever_the_labels_are() -> None:
    label_map = {"Chemical": "CHEM", "Gene": "GENE"}
    scores = score_ner(
        [example([ZINC, BRCA1], gold_of(ZINC, BRCA1), label_map=label_map)], labels=["CHEM", "GENE"]
    )
    assert prf(scores) == (1.0, 1.0, 1.0)
    assert set(scores["vaner_f_per_type"]) == {"Chemical", "Gene"}


@pytest.mark.parametrize(
    "label_map",
    [
        {},
        {"Chemical": "CHEM", "Gene": "GENE"},
        # a name that stays, names that change places, a type that shares a label
        {"Chemical": "Chemical"},
        {"Chemical": "Gene", "Gene": "Chemical"},
        {"Protein": "Gene"},
    ],
)
def test_plain_entities_are_compared_by_their_labels(label_map: dict[str, str]) -> None:
    def label(name: str) -> str:
        return label_map.get(name, name)

    # PERSON is none of the component's labels.
    ents = [(0, 1, label("Chemical")), (2, 3, label("Gene")), (4, 5, "PERSON")]
    scored = example([ZINC, ("Gene", 25, 30)], ents, label_map=label_map)
    scores = score_ner([scored], labels=[label("Chemical"), label("Gene")])
    assert prf(scores) == (1 / 2, 1 / 2, 1 / 2)
    assert scores["vaner_f_per_type"]["Chemical"]["f"] == 1.0


def test_plain_texts_without_entities_are_not_scored() -> None:
    assert prf(score_ner([example([ZINC], None)])) == (None, None, None)
    assert prf(score_ner([example([ZINC], [])], labels=["Chemical"])) == (0.0, None, 0.0)


def test_scores_of_entities_stand_beside_ours_under_names_without_the_key() -> None:
    reference_ents = [(0, 1, "Chemical")]
    scores = score_ner([example([ZINC], reference_ents, spans_key="some_key")])
    assert scores["ents_f"] == 1.0 and scores["ents_per_type"]["Chemical"]["f"] == 1.0
    assert set(scores) == {
        "vaner_p",
        "vaner_r",
        "vaner_f",
        "vaner_f_per_type",
        "ents_p",
        "ents_r",
        "ents_f",
        "ents_per_type",
    }


def test_the_registered_scorer_is_this_one() -> None:
    assert make_ner_scorer() is score_ner


def test_a_document_without_predictions_counts_its_mentions_as_missed() -> None:
    reference: Doc = NLP.make_doc(TEXT)
    reference.user_data[KEY] = gold_of(ZINC).to_user_data()
    _, r, f = prf(score_ner([Example(NLP.make_doc(TEXT), reference)]))
    assert (r, f) == (0.0, 0.0)
