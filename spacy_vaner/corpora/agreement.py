"""Two views of one corpus, tagged words and raw text: where they agree, and the way back.

Words lose their spaces, and the files that the VANER paper used lose the end of every word after 20
letters. Here each sentence of words is found again in the raw texts, so that its mentions get
offsets there and cut words their ends.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from spacy_vaner.types import Mention, Record

CUT_AFTER = 20
"""Letters that the paper's files keep of a word."""
_BETWEEN = "\0"
"""Stands between documents, so that no sentence is found across two."""


@dataclass(frozen=True)
class Placed:
    """A record of words, found in a raw document.

    document: its number among the raw records; None = not found.
    mentions: with offsets into the raw text.
    restored: cut words with the whole ones.
    """

    record: Record
    document: int | None
    mentions: tuple[Mention, ...] = ()
    restored: tuple[tuple[str, str], ...] = ()


@dataclass
class Agreement:
    """How far the mentions of two views agree: exact offsets and type.

    exceptions: the first of those that only one view has, as "view: type text".
    """

    sentences: int = 0
    not_found: int = 0
    restored: int = 0
    in_both: int = 0
    only_tokens: int = 0
    only_text: int = 0
    exceptions: list[str] = field(default_factory=list)


def agreement(words: Iterable[Record], texts: Iterable[Record]) -> Agreement:
    """Compare two views of a split; discontinuous mentions have no counterpart among tags."""
    raw = list(texts)
    result = Agreement()
    tagged: Counter[tuple[int, int, int, str]] = Counter()
    for placed in place(words, raw):
        result.sentences += 1
        result.restored += len(placed.restored)
        if placed.document is None:
            result.not_found += 1
            result.only_tokens += len(placed.record.mentions)
            continue
        for mention in placed.mentions:
            start, end = mention.fragments[0]
            tagged[placed.document, start, end, mention.type] += 1
    known = Counter(
        (number, *mention.fragments[0], mention.type)
        for number, record in enumerate(raw)
        for mention in record.mentions
        if len(mention.fragments) == 1
    )
    result.in_both = (tagged & known).total()
    for view, rest in (("tokens", tagged - known), ("text", known - tagged)):
        for number, start, end, type_ in sorted(rest)[:5]:
            result.exceptions.append(f"{view}: {type_} {raw[number].text[start:end]}")
    result.only_tokens += (tagged - known).total()
    result.only_text = (known - tagged).total()
    return result


def place(words: Iterable[Record], texts: Iterable[Record]) -> Iterator[Placed]:
    """Find records of words in raw texts, sentence by sentence, each behind the one before.

    A sentence that is not found there is looked for from the start. White space does not count.
    """
    raw = _Raw(list(texts))
    at = 0
    for record in words:
        for sentence in _sentences(record):
            found, after = raw.find(sentence, at)
            at = after if found.document is not None else at
            yield found


def _sentences(record: Record) -> Iterator[Record]:
    """The sentences of a record of words, with offsets of their own."""
    for begin, end in record.sentences or ((0, len(record.text)),):
        words = [(s - begin, e - begin) for s, e in record.words or () if begin <= s < end]
        mentions = [
            Mention(m.type, tuple((s - begin, e - begin) for s, e in m.fragments), m.ids)
            for m in record.mentions
            if begin <= m.fragments[0][0] < end
        ]
        text = record.text[begin:end]
        yield Record(record.id, text, tuple(mentions), words=tuple(words), source=record.source)


class _Raw:
    """Raw texts as one string without white space, and the way back to their offsets."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.starts: list[int] = []
        parts: list[str] = []
        length = 0
        for record in records:
            self.starts.append(length)
            part = "".join(record.text.split()) + _BETWEEN
            parts.append(part)
            length += len(part)
        self.text = "".join(parts)
        self._black: tuple[int, list[int]] = (-1, [])

    def find(self, sentence: Record, at: int) -> tuple[Placed, int]:
        """The sentence, looked for from a place on and then from the start; where it ends."""
        words = [sentence.text[start:end] for start, end in sentence.words or ()]
        folded = "".join("".join(words).split())
        start = self.text.find(folded, at)
        if start < 0:
            start = self.text.find(folded)
        if start >= 0:
            ends = self._ends(start, [len("".join(word.split())) for word in words])
        else:
            ends = self._find_cut(words, at) or self._find_cut(words, 0)
            if not ends:
                return Placed(sentence, None), at
            start = ends[0][0]
        return self._placed(sentence, words, ends), ends[-1][1] if ends else start

    def _ends(self, start: int, lengths: list[int]) -> list[tuple[int, int]]:
        found = []
        for length in lengths:
            found.append((start, start + length))
            start += length
        return found

    def _find_cut(self, words: list[str], at: int) -> list[tuple[int, int]]:
        """Where the words stand if those of 20 letters may go on; empty if nowhere."""
        if not any(len(word) == CUT_AFTER for word in words):
            return []
        parts = []
        for word in words:
            # The rest of a cut word: no longer than it must be, in the same document.
            rest = r"[^\0]{0,200}?" if len(word) == CUT_AFTER else ""
            parts.append(f"({re.escape(''.join(word.split()))}{rest})")
        pattern = "".join(parts)
        match = re.compile(pattern).search(self.text, at)
        return [match.span(i + 1) for i in range(len(words))] if match else []

    def _placed(self, sentence: Record, words: list[str], ends: list[tuple[int, int]]) -> Placed:
        number = bisect_right(self.starts, ends[0][0]) - 1
        base, record = self.starts[number], self.records[number]
        if self._black[0] != number:
            places = [i for i, character in enumerate(record.text) if not character.isspace()]
            self._black = number, places
        black = self._black[1]
        spans = [(black[s - base], black[e - 1 - base] + 1) for s, e in ends]
        by_start = {start: i for i, (start, _) in enumerate(sentence.words or ())}
        by_end = {end: i for i, (_, end) in enumerate(sentence.words or ())}
        mentions = tuple(
            Mention(m.type, ((spans[by_start[start]][0], spans[by_end[end]][1]),), m.ids)
            for m in sentence.mentions
            for start, end in m.fragments
        )
        restored = tuple(
            (word, record.text[start:end])
            for word, (start, end) in zip(words, spans, strict=True)
            if "".join(record.text[start:end].split()) != "".join(word.split())
        )
        return Placed(sentence, number, mentions, restored)
