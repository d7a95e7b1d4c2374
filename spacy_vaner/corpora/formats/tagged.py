"""Words with tags: what the formats of tagged words (iob, vaner_jsonl) have in common."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from spacy_vaner.corpora.detokenise import join_words
from spacy_vaner.corpora.formats.base import Note
from spacy_vaner.types import Mention, Offsets, Record

BEGINS, GOES_ON, ENDS = "BSU", "IEL", "ESLU"
"""Prefixes of the tags of IOB1, IOB2, IOBES and BILOU."""

# A word of a text that has none: letters and digits with their marks, or one other character.
_PIECE = re.compile(r"(?:[^\W_][\u0300-\u036f]*)+|\S")


class Word(NamedTuple):
    """A word with its tag: prefix "O", or another one with a type."""

    text: str
    prefix: str
    type: str
    line: int


class Sentence(NamedTuple):
    """Words of a sentence; document_id where a mark before them gives one."""

    words: list[Word]
    line: int
    opens: bool = False
    """Whether a document mark stands before it."""
    document_id: str | None = None


def record_of(path: Path, sentences: Sequence[Sentence], note: Note) -> Record:
    """A document of tagged sentences; its text is rebuilt (corpora/detokenise.py).

    A mention that does not begin with B (as all do in IOB1) begins where it stands and is noted.
    """
    text, word_offsets, sentence_offsets, mentions = "", [], [], []
    for sentence in sentences:
        if text:
            text += " "
        base = len(text)
        joined, offsets = join_words([word.text for word in sentence.words])
        offsets = [(base + start, base + end) for start, end in offsets]
        text += joined
        word_offsets += offsets
        sentence_offsets.append((base, len(text)))
        for first, last, type_ in _tagged_runs(path, sentence.words, note):
            mentions.append(Mention(type_, ((offsets[first][0], offsets[last][1]),)))
    line, document_id = sentences[0].line, sentences[0].document_id
    return Record(
        id=str(line) if document_id is None else document_id,
        text=text,
        mentions=tuple(sorted(mentions, key=lambda m: (m.fragments, m.type))),
        words=tuple(word_offsets),
        sentences=tuple(sentence_offsets),
        source=f"{path}:{line}",
    )


def _tagged_runs(path: Path, words: list[Word], note: Note) -> Iterator[tuple[int, int, str]]:
    """The mentions of a sentence as (first word, last word, type)."""
    start: int | None = None
    for i, word in enumerate(words):
        if start is not None and (word.prefix not in GOES_ON or word.type != words[start].type):
            yield start, i - 1, words[start].type
            start = None
        if word.prefix != "O" and start is None:
            start = i
            if word.prefix not in BEGINS:
                note("mention opened by I", f"{path}:{word.line}")
        if start is not None and word.prefix in ENDS:
            yield start, i, words[start].type
            start = None
    if start is not None:
        yield start, len(words) - 1, words[start].type


def tagged_sentences(
    record: Record, note: Note, *, only: str | None = None
) -> Iterator[list[tuple[str, str, str]]]:
    """The sentences of a record as (word, "B", "I" or "O", type).

    Words are the record's own, or runs of letters and digits and single other characters; they
    are cut where a mention begins or ends. Of mentions that overlap, the outermost are tagged.

    only: the type to tag; None = all. What is not tagged is noted.
    """
    mentions = []
    for mention in record.mentions:
        if only is not None and mention.type != only:
            note("mention of another type left out", record.id)
        elif len(mention.fragments) > 1:
            note("discontinuous mention left out", record.id)
        else:
            mentions.append((*mention.fragments[0], mention.type))
    tagged: list[tuple[int, int, str]] = []
    for start, end, type_ in sorted(mentions, key=lambda m: (m[0], -m[1])):
        if tagged and start < tagged[-1][1]:
            note("overlapping mention left out", record.id)
        else:
            tagged.append((start, end, type_))
    words = _cut_words(record, sorted({at for start, end, _ in tagged for at in (start, end)}))
    sentences = record.sentences or ((0, len(record.text)),)
    bounds = sorted({0, len(record.text), *(start for start, _ in sentences)})
    at = 0
    for begin, beyond in zip(bounds, bounds[1:], strict=False):
        rows = []
        for start, end in words:
            if not begin <= start < beyond:
                continue
            while at < len(tagged) and tagged[at][1] <= start:
                at += 1
            inside = at < len(tagged) and tagged[at][0] < end
            prefix = "O" if not inside else "B" if start == tagged[at][0] else "I"
            rows.append((record.text[start:end], prefix, tagged[at][2] if inside else ""))
        if rows:
            yield rows


def _cut_words(record: Record, cuts: list[int]) -> list[Offsets]:
    words = record.words
    if words is None:
        words = tuple(match.span() for match in _PIECE.finditer(record.text))
    found = []
    for start, end in words:
        first, beyond = bisect_left(cuts, start + 1), bisect_left(cuts, end)
        bounds = [start, *cuts[first:beyond], end]
        found += list(zip(bounds, bounds[1:], strict=False))
    return [(s, e) for s, e in found if record.text[s:e].strip()]
