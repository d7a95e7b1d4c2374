"""Altered copies of converted corpora: the same mentions in texts that look different.

They show what a tagger makes of lower case, capitals, British spelling, Greek letters and the cells
of tables, and it can be trained on them. Every offset of the annotation is moved along.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from spacy.tokens import Doc, Span

from spacy_vaner.corpora.docbins import SPANS_KEY
from spacy_vaner.gold import KEY, Gold, get_gold
from spacy_vaner.types import Mention, Offsets


class Edit(NamedTuple):
    """Characters [start, end) of a text become others."""

    start: int
    end: int
    text: str


# American spelling as it is written, and the British one; the longest match decides.
_BRITISH = {
    **{"tumor": "tumour", "behavior": "behaviour", "fiber": "fibre"},
    **{"center": "centre", "hematolog": "haematolog", "hematoma": "haematoma", "hemato": "haemato"},
    **{
        "hemoglob": "haemoglob",
        "hemorrh": "haemorrh",
        "hemoly": "haemoly",
        "hemophil": "haemophil",
    },
    **{"hemodialys": "haemodialys", "hemodynam": "haemodynam", "hemangio": "haemangio"},
    **{
        "edema": "oedema",
        "esophag": "oesophag",
        "estrogen": "oestrogen",
        "estradiol": "oestradiol",
    },
    **{
        "fetal": "foetal",
        "fetus": "foetus",
        "pediatric": "paediatric",
        "orthopedic": "orthopaedic",
    },
    **{"gynecolog": "gynaecolog", "anesthe": "anaesthe", "anemi": "anaemi", "ischemi": "ischaemi"},
    **{"leukemi": "leukaemi", "glycemi": "glycaemi", "uremi": "uraemi", "lipidemi": "lipidaemi"},
    **{"septicemi": "septicaemi", "bacteremi": "bacteraemi", "toxemi": "toxaemi"},
    **{"diarrhea": "diarrhoea", "celiac": "coeliac", "cecum": "caecum", "feces": "faeces"},
    **{"apnea": "apnoea", "dyspnea": "dyspnoea", "sulf": "sulph", "aluminum": "aluminium"},
    **{"hypoxemi": "hypoxaemi", "viremi": "viraemi", "neutropenic": "neutropaenic"},
}
_GREEK = {
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta"},
    **{"η": "eta", "θ": "theta", "κ": "kappa", "λ": "lambda", "σ": "sigma", "ω": "omega"},
}
_WORD = re.compile(r"[^\W\d_]+")
# Behind an "o" it is British already: oedema.
_STEM = re.compile(rf"(?<!o)(?:{'|'.join(sorted(_BRITISH, key=len, reverse=True))})", re.IGNORECASE)
_GREEK_NAME = re.compile(rf"(?<![^\W\d_])({'|'.join(_GREEK.values())})(?![^\W\d_])", re.IGNORECASE)


def alter(docs: Iterable[Doc], how: str) -> Iterator[Doc]:
    """Altered copies of documents.

    how: one of ALTERATIONS. Documents that do not say what they are annotated for are left out.
    RAISES VanerError: VE015, an annotation of another form.
    """
    change = ALTERATIONS[how]
    for doc in docs:
        gold = get_gold(doc)
        if gold is None:
            continue
        name = None if gold.corpus is None else f"{gold.corpus} ({how})"
        yield from change(doc, replace(gold, corpus=name))


def _edited(doc: Doc, gold: Gold, edits: list[Edit]) -> Doc:
    """The document with its text changed inside of its tokens."""
    tokens = [(token.idx, token.idx + len(token)) for token in doc]
    starts = [start for start, _ in tokens]
    words = [token.text for token in doc]
    kept = []
    for edit in sorted(edits, reverse=True):
        place = bisect_right(starts, edit.start) - 1
        if place < 0 or edit.end > tokens[place][1]:
            continue  # reaches over a token's end
        at = edit.start - tokens[place][0]
        words[place] = words[place][:at] + edit.text + words[place][at + edit.end - edit.start :]
        kept.append(edit)
    made = Doc(
        doc.vocab,
        words=words,
        spaces=[bool(token.whitespace_) for token in doc],
        sent_starts=(
            [token.is_sent_start for token in doc] if doc.has_annotation("SENT_START") else None
        ),
    )
    move = _Moves(kept[::-1])
    gold = replace(
        gold,
        mentions=tuple(map(move.mention, gold.mentions)),
        alternatives=tuple(map(move.mention, gold.alternatives)),
        masked=tuple(map(move.pair, gold.masked)),
    )
    _annotate(made, doc, gold)
    return made


def _annotate(made: Doc, doc: Doc, gold: Gold) -> None:
    """Put an annotation on a document of as many tokens as the one that it comes from."""

    def same(spans: Iterable[Span]) -> list[Span]:
        return [Span(made, span.start, span.end, label=span.label) for span in spans]

    made.user_data[KEY] = gold.to_user_data()
    if doc.has_annotation("ENT_IOB"):
        made.set_ents(same(doc.ents))
    if SPANS_KEY in doc.spans:
        made.spans[SPANS_KEY] = same(doc.spans[SPANS_KEY])


class _Moves:
    """Where offsets are after edits, which are sorted and do not overlap."""

    def __init__(self, edits: list[Edit]) -> None:
        self._edits = edits
        self._starts = [edit.start for edit in edits]
        # Before each edit, by how much its place is moved.
        self._moved = [0]
        for edit in edits:
            self._moved.append(self._moved[-1] + len(edit.text) - (edit.end - edit.start))

    def pair(self, pair: Offsets) -> Offsets:
        """Inside of an edit a start goes to its start, and an end to its end."""
        return self._start(pair[0]), self._end(pair[1])

    def mention(self, mention: Mention) -> Mention:
        return replace(mention, fragments=tuple(map(self.pair, mention.fragments)))

    def _start(self, offset: int) -> int:
        place = bisect_right(self._starts, offset) - 1
        if place >= 0 and offset < self._edits[place].end:
            return self._edits[place].start + self._moved[place]
        return offset + self._moved[place + 1]

    def _end(self, offset: int) -> int:
        place = bisect_right(self._starts, offset - 1) - 1
        if place >= 0 and offset <= self._edits[place].end:
            edit = self._edits[place]
            return edit.start + self._moved[place] + len(edit.text)
        return offset + self._moved[place + 1]


def _by_edits(find: Callable[[str], list[Edit]]) -> Callable[[Doc, Gold], Iterator[Doc]]:
    def change(doc: Doc, gold: Gold) -> Iterator[Doc]:
        yield _edited(doc, gold, find(doc.text))

    return change


def _by_character(change: Callable[[str], str]) -> Callable[[str], list[Edit]]:
    def find(text: str) -> list[Edit]:
        made = [change(character) for character in text]
        # "ß" has two capitals, and stays.
        return [
            Edit(at, at + 1, new)
            for at, (old, new) in enumerate(zip(text, made, strict=True))
            if new != old and len(new) == 1
        ]

    return find


def _title(text: str) -> list[Edit]:
    return [
        Edit(match.start(), match.start() + 1, match[0][0].upper())
        for match in _WORD.finditer(text)
        if match[0].islower() and len(match[0]) > 3 and len(match[0][0].upper()) == 1
    ]


def _british(text: str) -> list[Edit]:
    return [
        Edit(match.start(), match.end(), _in_case(match[0], _BRITISH[match[0].lower()]))
        for match in _STEM.finditer(text)
    ]


def _in_case(old: str, new: str) -> str:
    if old.isupper():
        return new.upper()
    return new.capitalize() if old[0].isupper() else new


def _greek_names(text: str) -> list[Edit]:
    return [Edit(at, at + 1, _GREEK[sign]) for at, sign in enumerate(text) if sign in _GREEK]


def _greek_letters(text: str) -> list[Edit]:
    letters = {name: letter for letter, name in _GREEK.items()}
    return [
        Edit(match.start(), match.end(), letters[match[0].lower()])
        for match in _GREEK_NAME.finditer(text)
    ]


def _cells(doc: Doc, gold: Gold) -> Iterator[Doc]:
    """A document per mention that tokens can hold: nothing but its own text, none of it masked."""
    for mention in gold.mentions:
        (start, end), *more = mention.fragments
        span = doc.char_span(start, end)
        if span is None or more or gold.is_masked(start, end):
            continue
        made = Doc(
            doc.vocab,
            words=[token.text for token in span],
            spaces=[bool(token.whitespace_) for token in span[:-1]] + [False],
        )
        cell = replace(gold.within(start, end), alternatives=())
        made.user_data = {KEY: cell.to_user_data()}
        yield made


ALTERATIONS: Mapping[str, Callable[[Doc, Gold], Iterator[Doc]]] = {
    "lower": _by_edits(_by_character(str.lower)),
    "upper": _by_edits(_by_character(str.upper)),
    "title": _by_edits(_title),
    "british": _by_edits(_british),
    "greek-names": _by_edits(_greek_names),
    "greek-letters": _by_edits(_greek_letters),
    "cells": _cells,
}
"""Name → what makes altered documents of one."""
