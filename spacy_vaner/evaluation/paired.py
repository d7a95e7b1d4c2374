"""Which of two systems of a benchmark is better, and how sure that is.

Every prediction leaves its strict counts per document beside it; from these, pairs of systems are
compared on the documents and types that both were asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spacy_vaner.evaluation.predictions import PredictedDocument
from spacy_vaner.evaluation.scales import SCALES
from spacy_vaner.files import write_whole
from spacy_vaner.metrics import Counts, micro, paired_bootstrap

ALL = "all"
"""The key of all types that both systems were asked for, where there are several."""

PerDocument = Mapping[str, Mapping[str, Mapping[str, list[int]]]]
"""Corpus → type → number of the document in its file → tp, fp, fn."""


def write_counts(path: Path, documents: Iterable[tuple[int, PredictedDocument]]) -> None:
    """Keep the strict counts of every document. documents: with their numbers in the file."""
    found: dict[str, dict[str, dict[str, list[int]]]] = {}
    for number, predicted in documents:
        of_corpus = found.setdefault(predicted.document.corpus, {})
        for type, own in SCALES["strict"].count(predicted).items():
            of_corpus.setdefault(type, {})[str(number)] = [own.tp, own.fp, own.fn]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(found, ensure_ascii=False) + "\n").encode("utf8"))


def compare(
    first: PerDocument, second: PerDocument, *, seed: int, n_resamples: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """By how much F1 of the first system lies above that of the second, on the same documents.

    first, second: what write_counts kept of the same file.
    RETURNS: corpus → type → `difference`, its 95 % `interval`, `p_value`; null where undefined.
    """
    return {
        corpus: {
            type: _rounded(paired_bootstrap(ours, theirs, n=n_resamples, seed=seed)._asdict())
            for type, ours, theirs in _shared(types, second[corpus])
        }
        for corpus, types in first.items()
        if corpus in second
    }


def _shared(
    first: Mapping[str, Mapping[str, list[int]]], second: Mapping[str, Mapping[str, list[int]]]
) -> Iterator[tuple[str, list[Counts], list[Counts]]]:
    """Counts of both, document by document, for every type and for all that both know."""
    both = [type for type in first if type in second]
    together: dict[str, tuple[list[Counts], list[Counts]]] = {}
    for type in both:
        numbers = [number for number in first[type] if number in second[type]]
        ours = [Counts(*first[type][number]) for number in numbers]
        theirs = [Counts(*second[type][number]) for number in numbers]
        yield type, ours, theirs
        for number, our, their in zip(numbers, ours, theirs, strict=True):
            mine, others = together.setdefault(number, ([], []))
            mine.append(our)
            others.append(their)
    if len(both) > 1:
        pairs = list(together.values())
        yield ALL, [micro(own) for own, _ in pairs], [micro(other) for _, other in pairs]


def _rounded(difference: dict[str, Any]) -> dict[str, Any]:
    interval = difference["interval"]
    return {
        "difference": _digits(difference["difference"]),
        "interval": None if interval is None else [_digits(bound) for bound in interval],
        "p_value": _digits(difference["p_value"]),
    }


def _digits(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 6)
