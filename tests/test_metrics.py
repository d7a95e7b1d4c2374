"""Counting, P/R/F and intervals; equality with seqeval and nervaluate."""

from __future__ import annotations

import random

import numpy as np
import pytest

from spacy_vaner.errors import VanerError
from spacy_vaner.metrics import (
    ANY_TYPE,
    MATCHINGS,
    Counts,
    _most_hits,
    bootstrap_intervals,
    count,
    micro,
    paired_bootstrap,
    recall_over_precision,
)

D, C = "Disease", "Chemical"


@pytest.mark.parametrize(
    ("counts", "p", "r", "f"),
    [
        (Counts(tp=3, fp=1, fn=2), 3 / 4, 3 / 5, 2 / 3),
        (Counts(tp=0, fp=0, fn=2), None, 0.0, 0.0),
        (Counts(tp=0, fp=2, fn=0), 0.0, None, 0.0),
        (Counts(tp=0, fp=1, fn=1), 0.0, 0.0, 0.0),
        (Counts(), None, None, None),
    ],
)
def test_figures_are_undefined_only_where_nothing_is_counted(counts, p, r, f):
    assert (counts.p, counts.r) == (p, r)
    assert counts.f == (f if f is None else pytest.approx(f))


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        pytest.param([(D, [(0, 5)])], [(D, 0, 5)], Counts(tp=1), id="hit"),
        pytest.param([(D, [(0, 5)])], [(D, 0, 6)], Counts(fp=1, fn=1), id="boundary"),
        pytest.param([(D, [(0, 5)])], [(C, 0, 5)], Counts(fp=1, fn=1), id="type"),
        pytest.param([(D, [(0, 5)])] * 2, [(D, 0, 5)], Counts(tp=1), id="gold twice"),
        pytest.param([(D, [(0, 5)])], [(D, 0, 5)] * 2, Counts(tp=1), id="prediction twice"),
        pytest.param([(D, [(0, 5)]), (C, [(0, 5)])], [(D, 0, 5)], Counts(tp=1, fn=1), id="2 types"),
        pytest.param([(D, [(0, 5)]), (D, [(0, 9)])], [(D, 0, 9)], Counts(tp=1, fn=1), id="nested"),
        pytest.param(
            [(D, [(0, 5), (8, 9)])], [(D, 0, 9), (D, 0, 5)], Counts(fp=2, fn=1), id="discontinuous"
        ),
        pytest.param(
            [(D, [(0, 5), (8, 9)]), (D, [(0, 5)])], [(D, 0, 5)], Counts(tp=1, fn=1), id="both"
        ),
        pytest.param([("Gene", [(0, 5)])], [("Gene", 0, 5)], Counts(), id="type not scored"),
    ],
)
def test_strict_counting(gold, predicted, expected):
    counts = count(gold, predicted, [D, C])
    assert list(counts) == [D, C]
    assert micro(counts.values()) == expected


def test_offsets_may_be_lists_as_they_come_from_files():
    assert count([[D, [[0, 5]]]], [[D, 0, 5]], (D,)) == {D: Counts(tp=1)}


@pytest.mark.parametrize(
    ("matching", "predicted", "tp"),
    [
        ("near", [(D, 11, 19)], 1),
        ("near", [(D, 9, 21)], 1),
        ("near", [(D, 8, 20)], 0),
        ("near", [(D, 10, 22)], 0),
        ("overlap", [(D, 19, 30)], 1),
        ("overlap", [(D, 20, 30)], 0),
        ("overlap", [(D, 0, 10)], 0),
        ("overlap", [(D, 0, 30), (D, 12, 13)], 1),
    ],
)
def test_lenient_matchings_hit_each_mention_once(matching, predicted, tp):
    counts = count([(D, [(10, 20)])], predicted, [D], matching=matching)[D]
    assert counts == Counts(tp=tp, fp=len(predicted) - tp, fn=1 - tp)


def most_hits_by_trying(mentions, spans, hits):
    """The largest one-to-one assignment: the first mention hit by each of its spans, or by none."""
    if not mentions:
        return 0
    first, *others = mentions
    best = most_hits_by_trying(others, spans, hits)
    for span in spans:
        if hits(first, span):
            rest = [other for other in spans if other != span]
            best = max(best, 1 + most_hits_by_trying(others, rest, hits))
    return best


@pytest.mark.parametrize("matching", ["near", "overlap"])
def test_lenient_matchings_find_the_assignment_with_most_hits(matching):
    rng = random.Random(3)
    possible = [(start, end) for start in range(12) for end in range(start + 1, start + 4)]
    for _ in range(400):
        mentions = rng.sample(possible, rng.randint(0, 7))
        spans = rng.sample(possible, rng.randint(0, 7))
        counts = count(
            [(D, [mention]) for mention in mentions],
            [(D, *span) for span in spans],
            [D],
            matching=matching,
        )[D]
        assert counts.tp == most_hits_by_trying(mentions, spans, MATCHINGS[matching])


def test_a_hit_may_move_on_twice_to_make_room():
    a, x, b, d = [(i, i) for i in range(4)]
    hit_by = {(0, 0): {a, b}, (1, 1): {x, d}, (2, 2): {a, x}, (3, 3): {a}}
    assert _most_hits(list(hit_by), [a, x, b, d], lambda m, s: s in hit_by[m]) == 4


def test_a_long_chain_of_overlaps_is_counted():
    n = 600
    gold = [(D, [(10 * i, 10 * i + 6)]) for i in range(n)]
    predicted = [(D, 10 * i + 5, 10 * i + 11) for i in range(n)]
    assert count(gold, predicted, [D], matching="overlap")[D] == Counts(tp=n)


def test_types_may_be_taken_together():
    gold = [(D, [(0, 5)]), (C, [(8, 9)]), (C, [(0, 5)])]
    predicted = [(C, 0, 5), (D, 8, 9), ("Gene", 20, 22)]
    assert count(gold, predicted, [D, C], typed=False) == {ANY_TYPE: Counts(tp=2)}


def test_an_unknown_matching_is_refused():
    with pytest.raises(VanerError, match="VE401.*'fuzzy'.*strict, near, overlap"):
        count([], [], [D], matching="fuzzy")


def random_corpus(rng, types, n_sentences):
    """Random flat spans per sentence, [(type, first word, end word)], and predictions close by."""

    def spans(n_words):
        found, word = [], 0
        while word < n_words:
            if rng.random() < 0.3:
                end = min(n_words, word + rng.randint(1, 3))
                found.append((rng.choice(types), word, end))
                word = end
            else:
                word += 1
        return found

    gold, predicted, lengths = [], [], []
    for _ in range(n_sentences):
        n_words = rng.randint(1, 15)
        lengths.append(n_words)
        gold.append(spans(n_words))
        kept = [span for span in gold[-1] if rng.random() < 0.6]
        taken = {word for _, start, end in kept for word in range(start, end)}
        added = [s for s in spans(n_words) if not taken.intersection(range(s[1], s[2]))]
        predicted.append(sorted(kept + added, key=lambda span: span[1]))
    return gold, predicted, lengths


def iob2(spans, n_words):
    tags = ["O"] * n_words
    for type, start, end in spans:
        tags[start:end] = [f"B-{type}"] + [f"I-{type}"] * (end - start - 1)
    return tags


def our_counts(gold, predicted, types):
    per_sentence = [
        count([(type, [(start, end)]) for type, start, end in mentions], spans, types)
        for mentions, spans in zip(gold, predicted, strict=True)
    ]
    return {type: micro(counts[type] for counts in per_sentence) for type in types}


TYPES = ["Chemical", "Disease", "Gene"]


@pytest.mark.parametrize("seed", range(5))
def test_strict_counts_equal_those_of_seqeval(seed):
    pytest.importorskip("seqeval")
    from seqeval.metrics.v1 import precision_recall_fscore_support
    from seqeval.scheme import IOB2

    gold, predicted, lengths = random_corpus(random.Random(seed), TYPES, 200)
    gold_tags = [iob2(*pair) for pair in zip(gold, lengths, strict=True)]
    tags = [iob2(*pair) for pair in zip(predicted, lengths, strict=True)]
    ours = our_counts(gold, predicted, TYPES)
    p, r, f, support = precision_recall_fscore_support(gold_tags, tags, average=None, scheme=IOB2)
    assert [ours[type].p for type in TYPES] == p.tolist()
    assert [ours[type].r for type in TYPES] == r.tolist()
    assert [ours[type].f for type in TYPES] == pytest.approx(f.tolist(), abs=1e-12)
    assert [ours[type].gold for type in TYPES] == support.tolist()
    p, r, f, _ = precision_recall_fscore_support(gold_tags, tags, average="micro", scheme=IOB2)
    total = micro(ours.values())
    assert (total.p, total.r) == (p, r)
    assert total.f == pytest.approx(f, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_strict_counts_equal_those_of_nervaluate(seed):
    pytest.importorskip("nervaluate")
    from nervaluate import Evaluator

    gold, predicted, lengths = random_corpus(random.Random(seed), TYPES, 100)
    evaluator = Evaluator(
        [iob2(*pair) for pair in zip(gold, lengths, strict=True)],
        [iob2(*pair) for pair in zip(predicted, lengths, strict=True)],
        tags=TYPES,
        loader="list",
    )
    results = evaluator.evaluate()
    ours = our_counts(gold, predicted, TYPES)
    total, theirs = micro(ours.values()), results["overall"]["strict"]
    assert (total.tp, total.predicted, total.gold) == (
        theirs.correct,
        theirs.actual,
        theirs.possible,
    )
    assert (total.p, total.r) == (theirs.precision, theirs.recall)


def test_intervals_hold_the_figure_and_shrink_with_more_documents():
    rng = np.random.default_rng(0)

    def documents(n):
        tp = rng.binomial(10, 0.8, size=n)
        return [Counts(int(t), int(10 - t), int(10 - t)) for t in tp]

    few, many = documents(30), documents(3000)
    for counts in (few, many):
        intervals = bootstrap_intervals(counts, seed=1)
        total = micro(counts)
        for (lower, upper), figure in zip(intervals, (total.p, total.r, total.f), strict=True):
            assert lower < figure < upper
    width_few, width_many = (
        upper - lower for lower, upper in (bootstrap_intervals(few).f, bootstrap_intervals(many).f)
    )
    assert 7 < width_few / width_many < 14  # about the square root of 100


def test_intervals_cover_the_true_value_as_often_as_they_say():
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        tp = rng.binomial(5, 0.7, size=60)
        counts = [Counts(int(t), 0, int(5 - t)) for t in tp]
        lower, upper = bootstrap_intervals(counts, n=400, seed=trial).r
        covered += lower <= 0.7 <= upper
    assert 180 <= covered <= 198  # 95 % of 200, give or take three standard deviations


def test_intervals_are_the_same_for_a_seed():
    counts = [Counts(i % 3, i % 2, i % 5) for i in range(50)]
    assert bootstrap_intervals(counts, seed=4) == bootstrap_intervals(counts, seed=4)
    assert bootstrap_intervals(counts, seed=4) != bootstrap_intervals(counts, seed=5)
    one = bootstrap_intervals(counts, n=1, seed=4)
    assert one.f[0] == one.f[1]


def test_a_document_is_drawn_as_a_whole():
    # All hits in one document: a draw without it scores 0.
    lower, upper = bootstrap_intervals([Counts(tp=100), *[Counts(fn=100)] * 9]).r
    assert lower == 0.0
    assert upper >= 0.3


@pytest.mark.parametrize(
    ("counts", "undefined"),
    [
        ([], "prf"),
        ([Counts(), Counts()], "prf"),
        ([Counts(fn=2), Counts(fn=1)], "p"),
        ([Counts(fp=2), Counts(fp=1)], "r"),
    ],
)
def test_intervals_are_undefined_where_the_figure_is(counts, undefined):
    intervals = bootstrap_intervals(counts)
    assert "".join(name for name in "prf" if getattr(intervals, name) is None) == undefined


def test_the_same_system_twice_does_not_differ():
    counts = [Counts(i % 4, i % 2, i % 3) for i in range(30)]
    assert paired_bootstrap(counts, counts, n=200) == (0.0, (0.0, 0.0), 1.0)


def test_a_clear_difference_is_significant_in_both_directions():
    better, worse = [Counts(9, 1, 1)] * 40, [Counts(5, 5, 5)] * 40
    ahead, behind = (paired_bootstrap(*pair, n=500) for pair in ((better, worse), (worse, better)))
    assert ahead.difference == pytest.approx(0.4)
    assert ahead.p_value == behind.p_value == pytest.approx(1 / 501)
    assert ahead.interval[0] == pytest.approx(-behind.interval[1])


def test_both_systems_are_drawn_on_the_same_documents():
    rng = np.random.default_rng(0)
    # Documents differ widely; on each the second system has one hit less.
    hits = rng.integers(1, 40, size=80)
    first = [Counts(int(n), 0, int(40 - n)) for n in hits]
    second = [Counts(int(n) - 1, 0, int(41 - n)) for n in hits]
    paired = paired_bootstrap(first, second, n=400)
    alone = bootstrap_intervals(first).f
    assert paired.interval[1] - paired.interval[0] < 0.2 * (alone[1] - alone[0])
    assert paired.p_value < 0.01


def test_equally_good_systems_are_called_different_as_rarely_as_they_should():
    rng = np.random.default_rng(3)
    n_significant = 0
    for trial in range(200):
        draws = rng.binomial(5, 0.7, size=(2, 60))
        systems = [[Counts(int(tp), 0, int(5 - tp)) for tp in side] for side in draws]
        n_significant += paired_bootstrap(*systems, n=200, seed=trial).p_value < 0.05
    assert 2 <= n_significant <= 20  # 5 % of 200, give or take


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([Counts()], [Counts()]), ([Counts(tp=1)], [Counts()])]
)
def test_a_difference_is_undefined_where_a_figure_is(first, second):
    assert paired_bootstrap(first, second, n=10) == (None, None, None)


def test_other_documents_are_not_compared():
    with pytest.raises(VanerError, match="VE440.*first has 1 and the second 2"):
        paired_bootstrap([Counts()], [Counts()] * 2)


def test_recall_and_precision_are_compared_on_the_same_documents():
    lenient = recall_over_precision([Counts(8, 4, 2)] * 20, n=200)
    assert lenient.difference == pytest.approx(0.8 - 2 / 3)
    assert lenient.p_value < 0.01
    assert recall_over_precision([Counts(8, 3, 3)] * 20, n=200).p_value == 1.0
    assert recall_over_precision([Counts(fn=3)] * 20, n=200).difference is None


def test_an_alternative_stands_for_a_mention_that_it_overlaps():
    gold, alternatives = [(D, [(10, 20)]), (D, [(30, 40)])], [(D, [(8, 20)]), (C, [(28, 40)])]

    def counts(*predicted):
        return count(gold, predicted, [D], alternatives=alternatives)[D]

    assert counts((D, 8, 20), (D, 30, 40)) == Counts(tp=2)
    assert counts((D, 8, 20), (D, 10, 20)) == Counts(tp=1, fp=1, fn=1)  # each mention once
    assert counts((D, 28, 40)) == Counts(fp=1, fn=2)  # right for another type
    apart = [(D, [(10, 12), (18, 20)])]
    assert count(gold, [(D, 10, 20)], [D], alternatives=apart)[D] == Counts(tp=1, fn=1)


def test_a_long_alternative_may_stand_for_either_of_two_mentions():
    gold = [(D, [(0, 5)]), (D, [(6, 9)])]
    counts = count(gold, [(D, 0, 9), (D, 0, 5)], [D], alternatives=[(D, [(0, 9)])])[D]
    assert counts == Counts(tp=2)
