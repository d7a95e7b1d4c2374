"""The scales of scoring; the paper's is seqeval's default on words."""

from __future__ import annotations

import random
import warnings

import pytest

from spacy_vaner.corpora.docbins import sentence_bounds
from spacy_vaner.evaluation.predictions import FoundSpan
from spacy_vaner.evaluation.scales import (
    PAPER_WORDS,
    SCALES,
    cut_trailing_noun,
    gold_and_found,
    spans_of_tags,
    word_tags,
)
from spacy_vaner.metrics import ANY_TYPE, Counts, count, micro
from spacy_vaner.types import Mention
from tests.support.gold_documents import (
    TYPES,
    by_heart,
    gold_document,
    predicted_document,
    words_of,
)

TEXT = "The BRCA1 gene and lung cancer cells in mice."


def counts_of(scale, gold, found):
    return SCALES[scale].count(predicted_document(gold, found))


@pytest.mark.parametrize(
    ("scale", "found", "expected"),
    [
        ("strict", ("Gene", "BRCA1"), Counts(tp=1)),
        ("strict", ("Gene", "BRCA1 gene"), Counts(fp=1, fn=1)),
        ("near", ("Gene", " BRCA1 "), Counts(tp=1)),
        ("near", ("Gene", "BRCA1 ge"), Counts(fp=1, fn=1)),
        ("overlap", ("Gene", "1 gene"), Counts(tp=1)),
        ("overlap", ("Gene", " gene"), Counts(fp=1, fn=1)),
        ("cut nouns", ("Gene", "BRCA1 gene"), Counts(tp=1)),
        # A prediction that cuts a word is one of the word, as labels of words have it.
        ("paper", ("Gene", "BRCA"), Counts(tp=1)),
    ],
)
def test_what_counts_as_a_hit(scale, found, expected):
    assert counts_of(scale, gold_document(TEXT, [("Gene", "BRCA1")]), [found])["Gene"] == expected


def test_types_are_not_told_apart_where_they_do_not_count():
    gold = gold_document(TEXT, [("Gene", "BRCA1"), ("Disease", "lung cancer")])
    assert counts_of("untyped", gold, [("Chemical", "BRCA1")]) == {ANY_TYPE: Counts(tp=1, fn=1)}


def test_an_alternative_counts_for_its_mention_once():
    gold = gold_document(
        TEXT, [("Gene", "BRCA1"), ("Gene", "mice")], alternatives=[("Gene", "The BRCA1")]
    )
    assert counts_of("strict", gold, [("Gene", "The BRCA1")])["Gene"] == Counts(fp=1, fn=2)
    assert counts_of("alternatives", gold, [("Gene", "The BRCA1")])["Gene"] == Counts(tp=1, fn=1)
    both = [("Gene", "The BRCA1"), ("Gene", "BRCA1")]
    assert counts_of("alternatives", gold, both)["Gene"] == Counts(tp=1, fp=1, fn=1)
    other_type = [("Disease", "The BRCA1")]
    assert counts_of("alternatives", gold, other_type)["Gene"] == Counts(fn=2)
    assert SCALES["alternatives"].applies([predicted_document(gold, [])])
    assert not SCALES["alternatives"].applies([predicted_document(gold_document(TEXT), [])])


@pytest.mark.parametrize(
    ("surface", "left"),
    [
        ("BRCA1 gene", "BRCA1"),
        ("BRCA1 Genes", "BRCA1"),
        ("p53 protein gene", "p53"),
        ("G-protein", "G"),
        ("gene", "gene"),
        ("proteins", "proteins"),
        ("BRCA1 generic", "BRCA1 generic"),
        ("lipoprotein", "lipoprotein"),
    ],
)
def test_nouns_are_cut_at_the_end_only(surface, left):
    start, end = cut_trailing_noun(f"({surface})", 1, 1 + len(surface))
    assert f"({surface})"[start:end] == left


def test_nouns_are_cut_in_gold_too():
    gold = gold_document(TEXT, [("Gene", "BRCA1 gene")])
    assert counts_of("cut nouns", gold, [("Gene", "BRCA1")])["Gene"] == Counts(tp=1)


def test_the_paper_leaves_out_what_stands_far_back_in_a_sentence():
    near, far = (" ".join(["word"] * n + ["aspirin"]) for n in (PAPER_WORDS - 1, PAPER_WORDS))
    for text, expected in ((near, Counts(tp=1)), (far, Counts())):
        gold = gold_document(text, [("Chemical", "aspirin")])
        found = [("Chemical", "aspirin")]
        assert counts_of("paper", gold, found)["Chemical"] == expected
        assert counts_of("strict", gold, found)["Chemical"] == Counts(tp=1)
    # The count begins anew in every sentence.
    first = " ".join(["word"] * PAPER_WORDS) + " ."
    gold = gold_document(
        f"{first} Take aspirin.", [("Chemical", "aspirin")], sentences=[first, "Take aspirin."]
    )
    assert counts_of("paper", gold, [])["Chemical"] == Counts(fn=1)


def test_the_papers_gold_has_neither_nested_nor_discontinuous_mentions():
    nested = [("Disease", "lung cancer"), ("Disease", "lung cancer cells")]
    apart = Mention("Disease", ((4, 9), (19, 23)))
    gold = gold_document(TEXT, [*nested, apart])
    assert counts_of("strict", gold, [])["Disease"] == Counts(fn=3)
    assert counts_of("paper", gold, [])["Disease"] == Counts(fn=1)


def test_spans_that_share_a_word_are_tagged_as_the_longest():
    words = [(0, 3), (4, 7), (8, 11)]
    assert word_tags(words, [(0, 3), (2, 7), (8, 11)]) == "BIB"
    assert word_tags(words, [(3, 4)]) == "OOO"  # between two words


def test_lenient_reading_is_that_of_seqeval():
    pytest.importorskip("seqeval")
    from seqeval.metrics.sequence_labeling import get_entities

    rng = random.Random(1)
    for _ in range(500):
        tags = "".join(rng.choice("OBI") for _ in range(rng.randint(0, 12)))
        theirs = {(start, end + 1) for _, start, end in get_entities([*tags])}
        named = [tag if tag == "O" else f"{tag}-x" for tag in tags]
        assert theirs == {(s, e + 1) for _, s, e in get_entities(named)} == spans_of_tags(tags)


def test_the_papers_scale_is_seqevals_default_on_real_data():
    pytest.importorskip("seqeval")
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    documents = by_heart()
    ours = micro(c for each in documents for c in SCALES["paper"].count(each).values())
    rows: list[list[list[str]]] = [[], []]
    for each in documents:
        doc = each.document.doc
        gold, found = gold_and_found(each)
        sides = ([(t, f[0]) for t, f in gold if len(f) == 1], [(t, (s, e)) for t, s, e in found])
        for start, end in sentence_bounds(doc):
            words = words_of(doc)[start:end][:PAPER_WORDS]
            for type in each.types:
                for side, of_side in zip(rows, sides, strict=True):
                    tags = word_tags(words, [span for name, span in of_side if name == type])
                    side.append([tag if tag == "O" else f"{tag}-{type}" for tag in tags])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p, r, f, _ = precision_recall_fscore_support(*rows, average="micro")
    assert ours.tp > 50 and ours.fp and ours.fn
    assert (ours.p, ours.r, ours.f) == pytest.approx((p, r, f), abs=1e-12)


def test_strict_scores_are_those_of_nervaluate_and_seqeval_on_real_data():
    pytest.importorskip("seqeval")
    pytest.importorskip("nervaluate")
    from nervaluate import Evaluator
    from seqeval.metrics.v1 import precision_recall_fscore_support
    from seqeval.scheme import IOB2

    ours = Counts()
    tags: list[list[list[str]]] = [[], []]
    flat: list[list[list[dict[str, object]]]] = [[], []]
    for each in by_heart():
        words = words_of(each.document.doc)
        gold, found = gold_and_found(each)
        sides = ([(t, f[0]) for t, f in gold if len(f) == 1], [(t, (s, e)) for t, s, e in found])
        spans: list[list[tuple[str, int, int]]] = []
        for kept, of_side in zip(flat, sides, strict=True):
            # Libraries take flat annotation on whole words: a row of tags holds no more.
            row = ["O"] * len(words)
            for type in TYPES:
                of_type = [span for name, span in of_side if name == type]
                for i, tag in enumerate(word_tags(words, of_type)):
                    row[i] = f"{tag}-{type}" if tag != "O" and row[i] == "O" else row[i]
            row = _legal(row)
            tags[len(spans)].append(row)
            spans.append(_read(row))
            kept.append([{"label": t, "start": s, "end": e - 1} for t, s, e in spans[-1]])
        counts = count([(t, [(s, e)]) for t, s, e in spans[0]], spans[1], TYPES)
        ours += micro(counts.values())
    p, r, f, _ = precision_recall_fscore_support(*tags, average="micro", scheme=IOB2)
    assert ours.tp > 50 and ours.fp and ours.fn
    assert (ours.p, ours.r, ours.f) == pytest.approx((p, r, f), abs=1e-12)
    theirs = Evaluator(flat[0], flat[1], tags=list(TYPES), loader="dict").evaluate()
    strict = theirs["overall"]["strict"]
    assert (ours.tp, ours.predicted, ours.gold) == (strict.correct, strict.actual, strict.possible)


def _legal(row: list[str]) -> list[str]:
    """Where a span of another type was cut short, its rest is none."""
    legal: list[str] = []
    for tag in row:
        begins = f"B{tag[1:]}"
        legal.append("O" if tag[0] == "I" and (legal or ["O"])[-1] not in (tag, begins) else tag)
    return legal


def _read(row: list[str]) -> list[tuple[str, int, int]]:
    spans: list[tuple[str, int, int]] = []
    for i, tag in enumerate(row):
        if tag[0] == "B":
            spans.append((tag[2:], i, i + 1))
        elif tag[0] == "I":
            spans[-1] = (*spans[-1][:2], i + 1)
    return spans


def test_a_type_that_was_not_asked_is_not_scored():
    gold = gold_document(TEXT, [("Gene", "BRCA1"), ("Disease", "lung cancer")])
    predicted = predicted_document(gold, [("Disease", "mice")], types=["Gene"])
    for scale in SCALES.values():
        assert micro(scale.count(predicted).values()) == Counts(fn=1)


def test_a_long_document_is_scored_as_its_sentences_are():
    text = " ".join(f"Give aspirin to patient {n}." for n in range(300))
    places = [i for i in range(len(text)) if text.startswith("aspirin", i)]
    gold = gold_document(text, [Mention("Chemical", ((i, i + 7),)) for i in places])
    found = [FoundSpan("Chemical", i, i + 7) for i in places[::3]]
    assert counts_of("paper", gold, found)["Chemical"] == Counts(tp=100, fn=200)
