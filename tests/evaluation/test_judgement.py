"""What became of mentions and spans, the groups they fall into, and the paper's kinds of case."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from spacy_vaner.evaluation.judgement import (
    HIT,
    PAPER_CASES,
    is_short_form,
    judge,
    length_of,
    paper_cases,
)
from spacy_vaner.evaluation.predictions import FoundSpan
from spacy_vaner.evaluation.scales import SCALES
from spacy_vaner.metrics import micro
from spacy_vaner.types import Mention
from tests.support.gold_documents import TYPES, by_heart, gold_document, predicted_document

TEXT = "Acute lung cancer and Yarrowia lipolytica in zebrafish with Nociceptin/orphanin FQ."


def judged(mentions, found, **settings):
    return judge(predicted_document(gold_document(TEXT, mentions, **settings), found))


def outcomes(side):
    return [each.outcome for each in side]


@pytest.mark.parametrize(
    ("found", "mention", "span"),
    [
        (("Disease", "lung cancer"), "hit", "hit"),
        (("Disease", "Acute lung cancer"), "left boundary", "left boundary"),
        (("Disease", "lung"), "right boundary", "right boundary"),
        (("Disease", "Acute lung"), "both boundaries", "both boundaries"),
        (("Gene", "lung cancer"), "type", "type"),
        (("Gene", "cancer"), "type and boundary", "type and boundary"),
        (("Disease", "zebrafish"), "missed", "spurious"),
    ],
)
def test_every_error_has_its_kind(found, mention, span):
    document = judged([("Disease", "lung cancer")], [found])
    assert (outcomes(document.mentions), outcomes(document.spans)) == ([mention], [span])
    if mention not in ("hit", "missed"):
        (of_mention,), (of_span,) = document.mentions, document.spans
        assert of_mention.partner == (of_span.start, of_span.end)
        assert (of_mention.partner_type, of_span.partner_type) == (found[0], "Disease")


def test_the_partner_is_of_the_same_type_if_there_is_one():
    found = [("Gene", "lung cancer"), ("Disease", "cancer")]
    assert outcomes(judged([("Disease", "lung cancer")], found).mentions) == ["left boundary"]


def test_a_span_that_hits_is_no_partner_of_another_mention():
    mentions = [("Disease", "lung cancer"), ("Disease", "Acute lung cancer")]
    document = judged(mentions, [("Disease", "lung cancer")])
    assert sorted(outcomes(document.mentions)) == ["hit", "missed"]


def test_a_discontinuous_mention_is_told_apart():
    document = judged([Mention("Disease", ((0, 5), (11, 17)))], [("Disease", "Acute")])
    assert outcomes(document.mentions) == ["discontinuous"]
    assert outcomes(document.spans) == ["spurious"]


def test_two_mentions_taken_for_one():
    mentions = [("Gene", "Nociceptin"), ("Gene", "orphanin FQ")]
    document = judged(mentions, [("Gene", "Nociceptin/orphanin FQ")])
    assert outcomes(document.mentions) == ["right boundary", "left boundary"]
    assert len(document.joined) == 1
    nested = [("Gene", "orphanin FQ"), ("Gene", "FQ")]
    assert not judged(nested, [("Gene", "/orphanin FQ")]).joined


def test_misses_and_spurious_spans_are_those_of_strict_scoring():
    rng = random.Random(0)
    places = [(s, e) for s in range(0, 40, 3) for e in range(s + 2, s + 14, 4)]
    text = "x" * 60
    random_documents = []
    for _ in range(200):
        mentions = [Mention(rng.choice(TYPES), (rng.choice(places),)) for _ in range(6)]
        mentions.append(Mention("Gene", ((0, 3), (5, 9))))
        found = [FoundSpan(rng.choice(TYPES), *rng.choice(places)) for _ in range(6)]
        gold = gold_document(text, mentions, types=rng.sample(TYPES, 3))
        random_documents.append(predicted_document(gold, found))
    for predicted in [*random_documents, *by_heart()]:
        counts = micro(SCALES["strict"].count(predicted).values())
        document = judge(predicted)
        hits = outcomes(document.mentions).count(HIT)
        assert hits == outcomes(document.spans).count(HIT) == counts.tp
        assert len(document.mentions) - hits == counts.fn
        assert len(document.spans) - hits == counts.fp


@pytest.mark.parametrize(
    ("surface", "expected"),
    [
        *((name, True) for name in ("ACTH", "p53", "TNF-α", "mRNA", "HIV-1", "IL2", "DMs")),
        *((name, False) for name in ("zinc", "Aspirin", "lung cancer", "A", "12", "HDAC INHIB")),
        ("ABCDEFGHIJK", False),
        ("ACTH\n", False),
    ],
)
def test_short_forms(surface, expected):
    assert is_short_form(surface) is expected


def test_lengths():
    assert [length_of("a"), length_of("a b"), length_of("a b c d e f")] == [
        "1 word",
        "2 words",
        "5 words or more",
    ]


def test_the_cases_of_the_paper():
    gold = gold_document(
        TEXT,
        [
            ("Species", "zebrafish"),
            ("Species", "Yarrowia lipolytica"),
            ("Disease", "lung cancer"),
            ("Gene", "Nociceptin"),
            ("Gene", "orphanin FQ"),
        ],
    )
    ours = predicted_document(
        gold,
        [
            ("Species", "zebrafish"),
            ("Species", "Yarrowia lipolytica"),
            ("Disease", "lung cancer"),
            ("Gene", "Nociceptin/orphanin FQ"),
            ("Disease", "with"),
        ],
    )
    theirs = predicted_document(
        gold, [("Gene", "lipolytica"), ("Disease", "Acute lung cancer"), ("Gene", "Nociceptin/")]
    )
    cases = list(paper_cases([judge(ours)], [judge(theirs)]))
    told = {case.kind: TEXT[case.judged.start : case.judged.end] for case in cases}
    assert told == {
        "found": "zebrafish",
        "type": "Yarrowia lipolytica",
        "boundary": "lung cancer",
        "joined": "Nociceptin/orphanin FQ",
        "spurious": "with",
    }
    assert next(case for case in cases if case.kind == "type").other.partner_type == "Gene"
    alone = [[case.kind for case in paper_cases([judge(each)])] for each in (ours, theirs)]
    assert alone == [["spurious", "joined"], ["wrong boundary"] * 2]
    assert {*told, *alone[1]} == set(PAPER_CASES)


def test_each_span_is_judged_once():
    document = judged([], [FoundSpan("Gene", 0, 5, 0.2), FoundSpan("Gene", 0, 5, 0.9)])
    assert Counter(outcomes(document.spans)) == {"spurious": 1}
    assert document.spans[0].probability == 0.9
