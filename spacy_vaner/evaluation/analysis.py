"""Everything about one system on one set of gold documents: all scales, errors, calibration.

The result is plain values (the JSON of `analyse`), and a report is made of these alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.evaluation.calibration import Calibration, calibrate
from spacy_vaner.evaluation.judgement import (
    COMPARING_CASES,
    HIT,
    OUTCOMES,
    PAPER_CASES,
    Judged,
    JudgedDocument,
    PaperCase,
    is_short_form,
    judge,
    length_of,
    paper_cases,
)
from spacy_vaner.evaluation.leakage import TrainingNames, TrainingSentences
from spacy_vaner.evaluation.predictions import PredictedDocument
from spacy_vaner.evaluation.result import Score, versions
from spacy_vaner.evaluation.scales import SCALES, Scale
from spacy_vaner.files import write_whole
from spacy_vaner.metrics import (
    ANY_TYPE,
    Counts,
    PairedDifference,
    micro,
    paired_bootstrap,
    recall_over_precision,
)

FORMAT = 1
ALL_TYPES = "all types"
UNSEEN = "unseen sentences"
"""The scale without the sentences that are in the training data too."""

N_EXAMPLES = 5
"""Of each kind of case, with their text."""

_CONTEXT = 60
"""Characters of text on each side of an example."""


@dataclass(frozen=True, slots=True)
class CorpusAnalysis:
    """What was found about a corpus.

    scores: scale → type, or ALL_TYPES, → score.
    recall_excess: type → recall minus precision.
    outcomes: of "mentions" and "spans": type → outcome → number.
    groups: attribute → value → counts of strict scoring: what recall of the group's mentions and
        precision of its spans are made of (`fn` and `fp` do not belong to one F1).
    calibration: type → calibration; empty where the system gives no probabilities.
    differences: type → F1 minus that of the other system; empty without one.
    cases: kind of the paper's figure 6 → cases; without another system, those that need none.
    documents: judged, in the order of the files.
    """

    scores: Mapping[str, Mapping[str, Score]]
    recall_excess: Mapping[str, PairedDifference]
    outcomes: Mapping[str, Mapping[str, Counter[str]]]
    groups: Mapping[str, Mapping[str, Counts]]
    calibration: Mapping[str, Calibration]
    differences: Mapping[str, PairedDifference]
    cases: Mapping[str, Sequence[PaperCase]]
    documents: Sequence[JudgedDocument]

    def flatters(self, type: str) -> float | None:
        """By how much F1 on the paper's scale lies above strict F1."""
        paper, strict = (self.scores[scale][type].counts.f for scale in ("paper", "strict"))
        return None if paper is None or strict is None else paper - strict

    def to_dict(self, *, n_examples: int = N_EXAMPLES) -> dict[str, Any]:
        """Plain values in a fixed order of keys; of the cases numbers and a few examples."""
        return {
            "scores": {
                scale: {type: score.to_dict() for type, score in types.items()}
                for scale, types in self.scores.items()
            },
            "paper_flatters": {type: self.flatters(type) for type in self.scores["strict"]},
            "recall_minus_precision": _plain(self.recall_excess),
            "outcomes": {
                side: {type: dict(counted) for type, counted in types.items()}
                for side, types in self.outcomes.items()
            },
            "groups": {
                attribute: {
                    value: {
                        "gold": counts.gold,
                        "r": counts.r,
                        "predicted": counts.predicted,
                        "p": counts.p,
                    }
                    for value, counts in values.items()
                }
                for attribute, values in self.groups.items()
            },
            "calibration": {type: each.to_dict() for type, each in self.calibration.items()},
            "difference_to_other": _plain(self.differences),
            "cases": {
                kind: {
                    "meaning": PAPER_CASES[kind],
                    "n": len(cases),
                    "examples": [_example(case) for case in _spread(cases, n_examples)],
                }
                for kind, cases in self.cases.items()
            },
        }


def _plain(differences: Mapping[str, PairedDifference]) -> dict[str, Any]:
    return {type: difference._asdict() for type, difference in differences.items()}


def _spread(cases: Sequence[PaperCase], n: int) -> Sequence[PaperCase]:
    """A few from all over the corpus, not the first document's."""
    return cases[:: max(1, -(-len(cases) // n))] if n else []


def _example(case: PaperCase) -> dict[str, Any]:
    judged, text = case.judged, case.document.text
    partner = case.other.partner if case.other is not None else judged.partner
    other_type = case.other.partner_type if case.other is not None else judged.partner_type
    return {
        "document": case.document.predicted.document.gold.id,
        "type": judged.type,
        "text": text[judged.start : judged.end],
        "start": judged.start,
        "end": judged.end,
        "before": text[max(0, judged.start - _CONTEXT) : judged.start],
        "after": text[judged.end : judged.end + _CONTEXT],
        "beside": None if partner is None else text[slice(*partner)],
        "beside_type": other_type,
    }


def analyse(
    documents: Sequence[PredictedDocument],
    *,
    other: Sequence[PredictedDocument] | None = None,
    training: TrainingNames | None = None,
    sentences: TrainingSentences | None = None,
    seed: int = 0,
    n_resamples: int = 1000,
) -> dict[str, CorpusAnalysis]:
    """Analyse what a system found, per corpus.

    other: the same documents as another system has them, for a paired test; types that only one
        of the two was asked for are left out of the comparison.
    training: the names of the training data, to tell seen mentions from unseen ones.
    sentences: those of the training data; scores get a further scale, UNSEEN, without them.
    seed, n_resamples: of intervals and tests.
    RAISES VanerError: VE444, the other system's documents are not the same ones.
    """
    texts = [[each.document.doc.text for each in side] for side in (documents, other or ())]
    if other is not None and texts[0] != texts[1]:
        raise VanerError(Messages.VE444.format(first=len(documents), second=len(other)))
    numbers: dict[str, list[int]] = {}
    for number, predicted in enumerate(documents):
        numbers.setdefault(predicted.document.corpus, []).append(number)
    return {
        corpus: _analyse_corpus(
            [documents[number] for number in of_corpus],
            None if other is None else [other[number] for number in of_corpus],
            training,
            sentences,
            seed=seed,
            n_resamples=n_resamples,
        )
        for corpus, of_corpus in numbers.items()
    }


def _analyse_corpus(
    documents: Sequence[PredictedDocument],
    other: Sequence[PredictedDocument] | None,
    training: TrainingNames | None,
    sentences: TrainingSentences | None,
    *,
    seed: int,
    n_resamples: int,
) -> CorpusAnalysis:
    def scored(documents: Sequence[PredictedDocument], scale: Scale) -> dict[str, Score]:
        return {
            type: Score.of(
                counts,
                n_discontinuous=_n_discontinuous(documents, type),
                seed=seed,
                n_resamples=n_resamples,
            )
            for type, counts in per_type(documents, scale.count).items()
        }

    scores = {
        name: scored(documents, scale) for name, scale in SCALES.items() if scale.applies(documents)
    }
    if sentences is not None:
        scores[UNSEEN] = scored([sentences.unseen(each) for each in documents], SCALES["strict"])
    strict = per_type(documents, SCALES["strict"].count)
    judged = [judge(predicted) for predicted in documents]
    differences = {}
    if other is not None:
        differences = dict(_compare(documents, other, seed=seed, n_resamples=n_resamples))
    cases: dict[str, list[PaperCase]] = {
        kind: [] for kind in PAPER_CASES if other is not None or kind not in COMPARING_CASES
    }
    for case in paper_cases(judged, None if other is None else [judge(each) for each in other]):
        cases[case.kind].append(case)
    return CorpusAnalysis(
        scores=scores,
        recall_excess={
            type: recall_over_precision(counts, n=n_resamples, seed=seed)
            for type, counts in strict.items()
        },
        outcomes={
            "mentions": _outcomes(chain.from_iterable(each.mentions for each in judged)),
            "spans": _outcomes(chain.from_iterable(each.spans for each in judged)),
        },
        groups=_groups(judged, training),
        calibration=_calibrations(judged),
        differences=differences,
        cases=cases,
        documents=judged,
    )


def per_type(
    documents: Sequence[PredictedDocument],
    count: Callable[[PredictedDocument], Mapping[str, Counts]],
) -> dict[str, list[Counts]]:
    """Counts per document of each type, and of all types if there are several.

    Where types are not told apart, there are those of all types only.
    """
    found: dict[str, list[Counts]] = {}
    together: list[Counts] = []
    for predicted in documents:
        counts = count(predicted)
        for type, of_type in counts.items():
            found.setdefault(type, []).append(of_type)
        together.append(micro(counts.values()))
    if ANY_TYPE in found or len(found) > 1:
        found.pop(ANY_TYPE, None)
        found[ALL_TYPES] = together
    return found


def _n_discontinuous(documents: Sequence[PredictedDocument], type: str) -> int:
    return sum(
        len(mention.fragments) > 1 and (mention.type if type != ALL_TYPES else type) == type
        for predicted in documents
        for mention in predicted.document.gold.mentions
        if mention.type in predicted.types
    )


def _compare(
    documents: Sequence[PredictedDocument],
    other: Sequence[PredictedDocument],
    *,
    seed: int,
    n_resamples: int,
) -> Iterator[tuple[str, PairedDifference]]:
    count = SCALES["strict"].count
    both: dict[str, tuple[list[Counts], list[Counts]]] = {}
    for mine, theirs in zip(documents, other, strict=True):
        ours, others = count(mine), count(theirs)
        shared = [type for type in ours if type in others]
        for name, types in [*((type, [type]) for type in shared), (ALL_TYPES, shared)]:
            first, second = both.setdefault(name, ([], []))
            first.append(micro(ours[type] for type in types))
            second.append(micro(others[type] for type in types))
    if len(both) == 2:
        del both[ALL_TYPES]
    for name, (first, second) in both.items():
        yield name, paired_bootstrap(first, second, n=n_resamples, seed=seed)


def _outcomes(judged: Iterator[Judged]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for each in judged:
        found.setdefault(each.type, Counter())[each.outcome] += 1
    return {
        type: Counter({outcome: counted[outcome] for outcome in OUTCOMES if counted[outcome]})
        for type, counted in found.items()
    }


def _groups(
    documents: Sequence[JudgedDocument], training: TrainingNames | None
) -> dict[str, dict[str, Counts]]:
    """Strict counts of the mentions and spans that share an attribute of their text."""

    def attributes(judged: Judged, text: str) -> Iterator[tuple[str, str]]:
        surface = text[judged.start : judged.end]
        yield "length", length_of(surface)
        yield "form", "short form" if is_short_form(surface) else "other"
        if training is not None:
            seen = (judged.type, surface) in training
            yield "name in training data", "seen" if seen else "unseen"

    found: dict[str, dict[str, Counts]] = {}

    def add(name: str, value: str, counts: Counts) -> None:
        values = found.setdefault(name, {})
        values[value] = values.get(value, Counts()) + counts

    for document in documents:
        for mention in document.mentions:
            hit = mention.outcome == HIT
            for name, value in attributes(mention, document.text):
                add(name, value, Counts(tp=int(hit), fn=int(not hit)))
        for span in document.spans:
            if span.outcome != HIT:
                for name, value in attributes(span, document.text):
                    add(name, value, Counts(fp=1))
    return {name: dict(sorted(values.items())) for name, values in found.items()}


def _calibrations(documents: Sequence[JudgedDocument]) -> dict[str, Calibration]:
    scored: dict[str, list[tuple[float, bool]]] = {}
    for document in documents:
        for span in document.spans:
            if span.probability is not None:
                of_type = scored.setdefault(span.type, [])
                of_type.append((span.probability, span.outcome == HIT))
    if len(scored) > 1:
        scored[ALL_TYPES] = [pair for pairs in scored.values() for pair in pairs]
    return {type: calibrate(pairs) for type, pairs in scored.items()}


def write_analysis(
    analyses: Mapping[str, CorpusAnalysis],
    path: Path,
    *,
    settings: Mapping[str, Any],
    n_examples: int = N_EXAMPLES,
) -> dict[str, Any]:
    """Write the JSON.

    settings: what was analysed and how.
    n_examples: of each kind of case; 0 for a file that holds no text of the corpus.
    RETURNS: what was written.
    """
    written: dict[str, Any] = {
        "format": FORMAT,
        **settings,
        "versions": versions(),
        "scales": {
            **{name: scale.description for name, scale in SCALES.items()},
            UNSEEN: "strict, without the sentences of eight words or more that are in the training "
            "data too",
        },
        "corpora": {
            name: corpus.to_dict(n_examples=n_examples) for name, corpus in analyses.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(written, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, text.encode("utf8"))
    return written
