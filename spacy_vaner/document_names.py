"""The names of a document: what was found of a name in one place counts in all of them.

The spans of a document are found place by place. Here they are made to agree, type by type, since
a text means the same by a name wherever it stands:

- all places of a name share the highest probability that it has anywhere, and so do a name and the
  short form that is defined behind it, "cyclosporin A (CsA)" (`share_probabilities`);
- a name that was found for sure is marked in the places where it was not (`repeat_names`).

A probability is from there on the name's, not the place's, and a threshold keeps a name or drops
it in all places together. Types do not see each other, so that what is found of one does not
depend on what else is asked. Nothing here knows spaCy or torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spacy_vaner.decoding import above_threshold
from spacy_vaner.types import ScoredSpan

# Names of one character mean too many things.
_SHORTEST = 2
_WORD_OR_SIGN = re.compile(r"[^\W_]+|.", re.DOTALL)
# Of 2 to 10 characters, as Schwartz and Hearst have it; corpora of words have spaces around signs.
_IN_BRACKETS = re.compile(r"\s?[(\[]\s?([^\s()\[\],;]{2,10})\s?[)\],;]")


def choose_spans(
    text: str,
    spans: Sequence[ScoredSpan],
    units: NDArray[np.integer[Any]],
    *,
    threshold: float | Mapping[str, float],
    repeat_threshold: float | None,
) -> list[ScoredSpan]:
    """Of what was found in a document the spans above the threshold, and the repeated names.

    units: as for repeat_names. threshold, repeat_threshold: settings of the component; the second
        is what `repeat_names` calls sure, None = every place is taken by itself.
    """
    if repeat_threshold is None:
        return above_threshold(spans, threshold)
    kept = above_threshold(share_probabilities(text, spans, units), threshold)
    return repeat_names(text, kept, units, repeat_threshold)


def share_probabilities(
    text: str, spans: Sequence[ScoredSpan], units: NDArray[np.integer[Any]]
) -> list[ScoredSpan]:
    """Give every place of a name the highest probability that it or its other form has.

    A short form in brackets behind its name, where no span of the type is yet, becomes one.

    text: of the document. units: as for repeat_names.
    RETURNS: the spans in the same order, then the short forms that came to them.
    """
    shared = list(spans)
    long_forms: dict[tuple[str, str], tuple[str, str]] = {}
    # Most documents define few short forms: what follows is looked up for these alone.
    defined = [(span, bounds) for span in spans if (bounds := _short_form_behind(text, span))]
    if defined:
        bounds_of = {(span.type, span.start, span.end) for span in spans}
        taken = _places(spans)
        starts, ends = set(units[:, 0].tolist()), set(units[:, 1].tolist())
    for span, (start, end) in defined:
        if start not in starts or end not in ends:
            continue
        if (span.type, start, end) not in bounds_of:
            short = ScoredSpan(span.type, start, end, span.probability)
            if not taken.isdisjoint(_places([short])):
                continue
            shared.append(short)
        long_forms.setdefault(
            (span.type, text[start:end]), (span.type, text[span.start : span.end])
        )
    forms = [(span.type, text[span.start : span.end]) for span in shared]
    best: dict[tuple[str, str], float] = {}
    for span, form in zip(shared, forms, strict=True):
        name = long_forms.get(form, form)
        best[name] = max(best.get(name, 0.0), span.probability)
    return [
        span._replace(probability=best[long_forms.get(form, form)])
        if len(form[1]) >= _SHORTEST
        else span
        for span, form in zip(shared, forms, strict=True)
    ]


def _short_form_behind(text: str, span: ScoredSpan) -> tuple[int, int] | None:
    """Where the short form of a name stands, if one is defined behind it."""
    match = _IN_BRACKETS.match(text, span.end)
    if match is None or not is_short_form(match[1], text[span.start : span.end]):
        return None
    return match.span(1)


def is_short_form(short: str, name: str) -> bool:
    """Whether the letters and digits of a short form stand in a name, in their order.

    The first of them has to begin a word of the name, which is longer than the short form.
    SOURCE: Schwartz and Hearst, "A simple algorithm for identifying abbreviation definitions in
        biomedical text" (2003); there the words before the bracket are searched, here a name.
    """
    signs = [sign for sign in short.lower() if sign.isalnum()]
    if len(short) >= len(name) or not any(sign.isalpha() for sign in signs):
        return False
    lowered = name.lower()
    place = len(lowered)
    for sign in signs[:0:-1]:
        place = lowered.rfind(sign, 0, place)
        if place < 0:
            return False
    begins = (i for i in range(place) if i == 0 or not lowered[i - 1].isalnum())
    return any(lowered[begin] == signs[0] for begin in begins)


def repeat_names(
    text: str, spans: Sequence[ScoredSpan], units: NDArray[np.integer[Any]], sure: float
) -> list[ScoredSpan]:
    """Mark a name that was found for sure in one place in every place of the document.

    A name of at least two characters whose probability is at least `sure` becomes a span of its
    type, with that probability, wherever the same characters stand as whole words and no span of
    the type is yet. Longer names come first.

    text: of the document.
    units: (units, 2), offsets of the tagged units; a span begins and ends with one of them.
    RETURNS: the spans, then by type those that came to them.
    """
    surest: dict[tuple[str, str], ScoredSpan] = {}
    for span in sorted(spans, key=lambda span: span.probability):
        if span.probability >= sure and span.end - span.start >= _SHORTEST:
            surest[span.type, text[span.start : span.end]] = span
    if not surest:
        return list(spans)
    starts_of: dict[str, list[int]] = {}
    for start in units[:, 0].tolist():
        if not text[max(start - 1, 0) : start].isalnum():
            starts_of.setdefault(_first_word(text, start), []).append(start)
    ends = {end for end in units[:, 1].tolist() if not text[end : end + 1].isalnum()}
    taken = _places(spans)
    repeated = list(spans)
    for (type_name, name), known in sorted(
        surest.items(), key=lambda item: (item[0][0], -len(item[0][1]), item[0][1])
    ):
        for start in starts_of.get(_first_word(text, known.start), ()):
            place = ScoredSpan(type_name, start, start + len(name), known.probability)
            characters = _places([place])
            if place.end in ends and text.startswith(name, start) and taken.isdisjoint(characters):
                taken |= characters
                repeated.append(place)
    return repeated


def _places(spans: Sequence[ScoredSpan]) -> set[tuple[str, int]]:
    """The characters that spans take, each with its type."""
    return {(span.type, place) for span in spans for place in range(span.start, span.end)}


def _first_word(text: str, start: int) -> str:
    """The letters and digits from a place on, or the one other sign that stands there."""
    match = _WORD_OR_SIGN.match(text, start)
    assert match is not None, "a unit is never empty"
    return match.group()
