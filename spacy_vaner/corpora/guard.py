"""The leakage guard: what of a training document must not be trained on.

Test splits protect whole documents: a training document is left out if it has the PubMed identifier
of a protected one, or holds a sentence of eight words or more of one. Dev splits protect sentences:
the document stays, the sentence is masked (gives no loss). Corpora overlap far more than their
names tell, so every test and dev split protects against the training data of every corpus; only
between the splits of one corpus the official split stands, unless asked otherwise.

Sentences are compared in lower case and without any white space, so that it does not matter how a
corpus was tokenised. A protected document is cut at every possible sentence end, and the pieces are
indexed alone and joined with their neighbours; a checked document is not cut at all: the index is
asked at each of its words. So no sentence splitter has to agree with another one.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple
from zlib import crc32

import srsly
from spacy.tokens import Doc

from spacy_vaner.corpora.docbins import read_docs
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole
from spacy_vaner.types import Offsets

MIN_WORDS = 8
_ANCHOR = 16
"""Folded bytes at the start of a sentence that are looked up first."""
_JOINED = 3
"""Neighbouring pieces that are indexed as one sentence (abbreviations end in a full stop too)."""
_FILE_VERSION = 1
PROTECTED_FILE = "protected.msgpack"
"""Name of the index that stands beside converted corpora."""

_PIECE = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\S*\w\S*")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+|\n+")

Kind = Literal["test", "dev"]


class Source(NamedTuple):
    """What protects: a corpus (None: unknown) and the kind of its split."""

    corpus: str | None
    kind: Kind

    def __str__(self) -> str:
        return f"{self.corpus or 'unknown corpus'} {self.kind}"


class Hit(NamedTuple):
    """One match between a checked document and what is protected.

    cause: "PMID" or "sentence".
    source: what protects it.
    applied: False where the official split of the document's own corpus stands.
    """

    cause: Literal["PMID", "sentence"]
    source: Source
    applied: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard says of a document.

    dropped: why the document is left out: "PMID", "test sentence", "all masked"; None = it stays.
    masked: stretches that give no loss, sorted and disjoint.
    hits: every match, those not applied included.
    """

    dropped: str | None = None
    masked: tuple[Offsets, ...] = ()
    hits: tuple[Hit, ...] = ()


@dataclass
class GuardCounts:
    """Counts over verdicts, for reports."""

    checked: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_by: Counter[str] = field(default_factory=Counter)
    masked_documents: int = 0
    masked_stretches: int = 0
    masked_by: Counter[str] = field(default_factory=Counter)
    official_split_stands: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: Verdict) -> None:
        """Count a verdict; a document counts once per cause and per protecting split."""
        self.checked += 1
        by = {str(hit.source) for hit in verdict.hits if hit.applied}
        if verdict.dropped:
            self.dropped[verdict.dropped] += 1
            self.dropped_by.update(by)
        elif verdict.masked:
            self.masked_documents += 1
            self.masked_stretches += len(verdict.masked)
            self.masked_by.update(by)
        self.official_split_stands.update(
            {f"{hit.source}: {hit.cause}" for hit in verdict.hits if not hit.applied}
        )

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, keys sorted."""
        return {
            key: dict(sorted(value.items())) if isinstance(value, Counter) else value
            for key, value in vars(self).items()
        }


class ProtectedIndex:
    """The protected sentences and PubMed identifiers of test and dev splits."""

    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._pmids: dict[str, set[int]] = {}
        # anchor -> (length, hash) of the whole folded sentence -> sources
        self._sentences: dict[int, dict[tuple[int, int], set[int]]] = {}
        self._texts: set[bytes] = set()

    @classmethod
    def from_files(cls, *, test: Iterable[Path] = (), dev: Iterable[Path] = ()) -> ProtectedIndex:
        """An index of converted `.spacy` files.

        RAISES VanerError: VE202, a file that cannot be read.
        """
        index = cls()
        kinds: tuple[tuple[Kind, Iterable[Path]], ...] = (("test", test), ("dev", dev))
        for kind, paths in kinds:
            for path in paths:
                for doc in read_docs(path):
                    index.protect(doc, kind)
        return index

    def update(self, other: ProtectedIndex) -> None:
        """Protect what another index protects too."""
        numbers = {}
        for number, source in enumerate(other._sources):
            if source not in self._sources:
                self._sources.append(source)
            numbers[number] = self._sources.index(source)
        for pmid, found in other._pmids.items():
            self._pmids.setdefault(pmid, set()).update(numbers[n] for n in found)
        for anchor, entries in other._sentences.items():
            ours = self._sentences.setdefault(anchor, {})
            for sentence, found in entries.items():
                ours.setdefault(sentence, set()).update(numbers[n] for n in found)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The protecting splits, in the order they were added."""
        return tuple(self._sources)

    def protect(self, doc: Doc, kind: Kind) -> None:
        """Add a converted document of a test or dev split."""
        annotation = doc.user_data.get("vaner", {})
        sentences: list[Offsets] = []
        if doc.has_annotation("SENT_START"):
            sentences = [(sent.start_char, sent.end_char) for sent in doc.sents]
        self.protect_text(
            doc.text,
            Source(annotation.get("corpus"), kind),
            pmid=annotation.get("pmid"),
            sentences=sentences,
        )

    def protect_text(
        self,
        text: str,
        source: Source,
        *,
        pmid: str | None = None,
        sentences: Sequence[Offsets] = (),
    ) -> None:
        """Add a text of a test or dev split.

        sentences: its own, beside those that the guard cuts itself.
        """
        if source not in self._sources:
            self._sources.append(source)
        number = self._sources.index(source)
        if pmid and source.kind == "test":
            self._pmids.setdefault(pmid, set()).add(number)
        # The views of a corpus have much of their text in common.
        message = f"{number} {sentences} {text}".encode("utf8", "surrogatepass")
        key = hashlib.blake2b(message, digest_size=16).digest()
        if key in self._texts:
            return
        self._texts.add(key)
        folded = _Folded(text)
        for start, end in {*sentences, *_possible_sentences(text)}:
            if len(_WORD.findall(text, start, end)) >= MIN_WORDS:
                sentence = folded.between(start, end)
                entries = self._sentences.setdefault(crc32(sentence[:_ANCHOR]), {})
                entries.setdefault((len(sentence), _hash(sentence)), set()).add(number)

    def check(self, doc: Doc, *, within_corpus: bool = False) -> Verdict:
        """Say whether a training document may be used.

        within_corpus: apply matches with other splits of the document's own corpus too. By default
            they are only reported, since published figures are made with the official splits.
        """
        annotation = doc.user_data.get("vaner", {})
        return self.check_text(
            doc.text,
            corpus=annotation.get("corpus"),
            pmid=annotation.get("pmid"),
            within_corpus=within_corpus,
        )

    def check_text(
        self, text: str, *, corpus: str | None, pmid: str | None, within_corpus: bool = False
    ) -> Verdict:
        """Say whether a text of a corpus may be trained on; see check."""

        def applies(source: Source) -> bool:
            return within_corpus or corpus is None or source.corpus != corpus

        hits: dict[Hit, None] = {}
        for number in sorted(self._pmids.get(pmid, ())) if pmid else ():
            source = self._sources[number]
            hits[Hit("PMID", source, applies(source))] = None
        stretches: list[Offsets] = []
        for start, end, numbers in self._matches(text):
            found = [self._sources[number] for number in sorted(numbers)]
            hits.update({Hit("sentence", source, applies(source)): None for source in found})
            if any(applies(source) and source.kind == "dev" for source in found):
                stretches.append((start, end))
        return _verdict(text, tuple(hits), _merged(stretches))

    def _matches(self, text: str) -> Iterator[tuple[int, int, set[int]]]:
        """Protected sentences in a text: offsets and sources."""
        folded = _Folded(text)
        for start, offset in folded.starts.items():
            entries = self._sentences.get(crc32(folded.bytes[start : start + _ANCHOR]))
            for (length, whole), numbers in (entries or {}).items():
                end = start + length
                if end in folded.ends and _hash(folded.bytes[start:end]) == whole:
                    yield offset, folded.ends[end], numbers

    def to_file(self, path: Path) -> None:
        """Save the index as one file."""
        message = {
            "version": _FILE_VERSION,
            "sources": [list(source) for source in self._sources],
            "pmids": {pmid: sorted(numbers) for pmid, numbers in sorted(self._pmids.items())},
            "sentences": [
                [anchor, length, whole, sorted(numbers)]
                for anchor, entries in sorted(self._sentences.items())
                for (length, whole), numbers in sorted(entries.items())
            ],
        }
        write_whole(path, srsly.msgpack_dumps(message))

    @classmethod
    def from_file(cls, path: Path) -> ProtectedIndex:
        """Load an index that to_file saved.

        RAISES VanerError: VE202, a file that cannot be read or is none of ours.
        """
        index = cls()
        try:
            message = srsly.msgpack_loads(path.read_bytes())
            if message["version"] != _FILE_VERSION:
                raise ValueError(f"version {message['version']}, expected {_FILE_VERSION}")
            index._sources = [Source(*source) for source in message["sources"]]
            index._pmids = {pmid: set(numbers) for pmid, numbers in message["pmids"].items()}
            for anchor, length, whole, numbers in message["sentences"]:
                index._sentences.setdefault(anchor, {})[length, whole] = set(numbers)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VanerError(Messages.VE202.format(path=path, reason=error)) from error
        return index


class _Folded:
    """A text in lower case without white space, as UTF-8, and the way back to its offsets.

    starts, ends: places in `bytes` where a piece begins or ends -> offset in the original.
    """

    def __init__(self, text: str) -> None:
        parts: list[bytes] = []
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        at = 0
        for match in _PIECE.finditer(text):
            part = match.group().lower().encode("utf8", "surrogatepass")
            start, end = match.span()
            self.starts[at] = start
            at += len(part)
            self.ends[at] = end
            parts.append(part)
        self.bytes = b"".join(parts)
        self._byte_starts, self._byte_ends = [*self.starts, at], [0, *self.ends]
        self._starts, self._ends = [*self.starts.values()], [*self.ends.values()]

    def between(self, start: int, end: int) -> bytes:
        """The whole pieces between two offsets of the original."""
        first = self._byte_starts[bisect_left(self._starts, start)]
        return self.bytes[first : self._byte_ends[bisect_right(self._ends, end)]]


def _hash(folded: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(folded, digest_size=8).digest(), "big")


def _possible_sentences(text: str) -> Iterator[Offsets]:
    """Every stretch that some splitter might call a sentence."""
    bounds = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    for i in range(len(bounds) - 1):
        for end in bounds[i + 1 : i + 1 + _JOINED]:
            yield bounds[i], end


def _merged(stretches: list[Offsets]) -> tuple[Offsets, ...]:
    merged: list[Offsets] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def _verdict(text: str, hits: tuple[Hit, ...], masked: tuple[Offsets, ...]) -> Verdict:
    tests = [hit for hit in hits if hit.applied and hit.source.kind == "test"]
    if tests:
        cause = "PMID" if any(hit.cause == "PMID" for hit in tests) else "test sentence"
        return Verdict(cause, (), hits)
    outside = list(text)
    for start, end in masked:
        outside[start:end] = " " * (end - start)
    if masked and not "".join(outside).strip():
        return Verdict("all masked", masked, hits)
    return Verdict(None, masked, hits)
