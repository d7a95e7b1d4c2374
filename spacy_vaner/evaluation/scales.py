"""The scales on which the same predictions are scored: strict, and those of figures elsewhere.

Figures of two scales must not stand in one column: a system moves by many points from one to the
other. Each scale is a row of SCALES: what it says about itself, and a function from a document to
counts per type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from spacy_vaner.corpora.docbins import sentence_bounds
from spacy_vaner.evaluation.predictions import PredictedDocument
from spacy_vaner.metrics import Counts, count
from spacy_vaner.types import Offsets

PAPER_WORDS = 126
"""Words of a sentence that the paper's scale counts; what follows is in neither gold nor found."""

_TRAILING_NOUN = re.compile(r"(?<=\S)[\s-]+(?:genes?|proteins?)\Z", re.IGNORECASE)

Gold = list[tuple[str, Sequence[Offsets]]]
Found = list[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Scale:
    """A way of scoring.

    description: what tells it from strict scoring, for reports.
    count: counts per scored type of a document; under ANY_TYPE where types are not told apart.
    applies: whether it says anything of a corpus that strict scoring does not.
    """

    description: str
    count: Callable[[PredictedDocument], dict[str, Counts]]
    applies: Callable[[Sequence[PredictedDocument]], bool] = lambda documents: True


def gold_and_found(predicted: PredictedDocument) -> tuple[Gold, Found]:
    """Mentions and spans of a document in the form that metrics.count takes."""
    mentions = predicted.document.gold.mentions
    return (
        [(mention.type, mention.fragments) for mention in mentions],
        [(span.type, span.start, span.end) for span in predicted.spans],
    )


def _matching(name: str, *, typed: bool = True) -> Callable[[PredictedDocument], dict[str, Counts]]:
    def counts(predicted: PredictedDocument) -> dict[str, Counts]:
        gold, found = gold_and_found(predicted)
        return count(gold, found, predicted.types, matching=name, typed=typed)

    return counts


def _alternatives(predicted: PredictedDocument) -> dict[str, Counts]:
    gold, found = gold_and_found(predicted)
    also_right = predicted.document.gold.alternatives
    return count(
        gold,
        found,
        predicted.types,
        alternatives=[(mention.type, mention.fragments) for mention in also_right],
    )


def _without_trailing_nouns(predicted: PredictedDocument) -> dict[str, Counts]:
    text = predicted.document.doc.text
    gold, found = gold_and_found(predicted)
    return count(
        [
            (type, [*fragments[:-1], cut_trailing_noun(text, *fragments[-1])])
            for type, fragments in gold
        ],
        [(type, *cut_trailing_noun(text, start, end)) for type, start, end in found],
        predicted.types,
    )


def cut_trailing_noun(text: str, start: int, end: int) -> Offsets:
    """Offsets without "gene" or "protein" at the end, unless nothing else would be left."""
    while (match := _TRAILING_NOUN.search(text[start:end])) is not None:
        end = start + match.start()
    return start, end


def _paper(predicted: PredictedDocument) -> dict[str, Counts]:
    gold, found = gold_and_found(predicted)
    doc = predicted.document.doc
    counts = {type: Counts() for type in predicted.types}
    for start, end in sentence_bounds(doc):
        words = [
            (token.idx, token.idx + len(token)) for token in doc[start:end] if not token.is_space
        ]
        words = words[:PAPER_WORDS]
        if not words:
            continue
        # A document may be a whole article: look at what lies in this sentence only.
        begin, stop = words[0][0], words[-1][1]
        here = [(name, f[0]) for name, f in gold if len(f) == 1 and f[0][0] < stop]
        here = [(name, span) for name, span in here if begin < span[1]]
        near = [(name, (s, e)) for name, s, e in found if s < stop and begin < e]
        for type in counts:
            right, taken = (
                spans_of_tags(word_tags(words, [span for name, span in side if name == type]))
                for side in (here, near)
            )
            tp = len(right & taken)
            counts[type] += Counts(tp, len(taken) - tp, len(right) - tp)
    return counts


def word_tags(words: Sequence[Offsets], spans: Iterable[Offsets]) -> str:
    """O, B or I for every word; of spans that share a word the longest is tagged.

    A span is widened to the words that it cuts, as labels of words cannot say less.
    """
    tags = ["O"] * len(words)
    for start, end in sorted(set(spans), key=lambda span: (span[0] - span[1], span)):
        covered = [i for i, word in enumerate(words) if word[0] < end and start < word[1]]
        if covered and all(tags[i] == "O" for i in covered):
            tags[covered[0]] = "B"
            for i in covered[1:]:
                tags[i] = "I"
    return "".join(tags)


def spans_of_tags(tags: str) -> set[Offsets]:
    """Spans of words by the lenient reading: an I that follows an O opens a span too.

    SOURCE: seqeval 1.2.2 in its default mode, with which the authors of VANER score.
    """
    return {match.span() for match in re.finditer("[BI]I*", tags)}


SCALES: dict[str, Scale] = {
    "strict": Scale("exact characters and type, complete documents", _matching("strict")),
    "near": Scale("each boundary within one character, as HunFlair scores", _matching("near")),
    "overlap": Scale("one character in common", _matching("overlap")),
    "untyped": Scale(
        "exact characters, whatever the type",
        _matching("strict", typed=False),
        applies=lambda documents: len({type for each in documents for type in each.types}) > 1,
    ),
    "alternatives": Scale(
        "a boundary that the corpus calls as right counts too, as BC2GM's official score has it",
        _alternatives,
        applies=lambda documents: any(each.document.gold.alternatives for each in documents),
    ),
    "cut nouns": Scale(
        'without "gene" and "protein" at the end of mentions and spans', _without_trailing_nouns
    ),
    "paper": Scale(
        f"as VANER's code scores: lenient seqeval on whole words, the first {PAPER_WORDS} of a "
        "sentence; nested and discontinuous mentions are not in the gold",
        _paper,
    ),
}
