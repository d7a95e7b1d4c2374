"""The data that the parts of the package hand to each other.

All are immutable and hold plain Python values, so they can be pickled, compared and hashed.
Offsets are characters, half-open, into the text of the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Offsets = tuple[int, int]
"""Half-open character offsets (start, end)."""


@dataclass(frozen=True, slots=True)
class Mention:
    """An annotated stretch of text.

    type: the entity type as a user names it, e.g. "Disease".
    fragments: one pair of offsets; several, in text order, for a discontinuous mention.
    ids: identifiers in a knowledge base, where the source gives them.
    """

    type: str
    fragments: tuple[Offsets, ...]
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One document of a corpus, as every reader yields it and the writer takes it.

    id: the document's identifier within its corpus; a PMID where the source has one.
    text: the document as one string.
    mentions: sorted by (fragments, type); may be nested or discontinuous.
    words: offsets of the corpus's own tokens; None where the source is raw text.
    sentences: offsets of the corpus's own sentences; None where the source has none.
    alternatives: boundaries that are as right as those of a mention that they overlap; in the order
        of `mentions`.
    pmid: PubMed identifier, None if unknown (the leakage guard compares it).
    source: file and line where the document starts, for messages.
    """

    id: str
    text: str
    mentions: tuple[Mention, ...]
    words: tuple[Offsets, ...] | None = None
    sentences: tuple[Offsets, ...] | None = None
    pmid: str | None = None
    source: str = ""
    alternatives: tuple[Mention, ...] = ()


class ScoredSpan(NamedTuple):
    """A predicted span with exact offsets.

    type: the entity type that was asked.
    start, end: characters, half-open.
    probability: of exactly these boundaries (decoding.py says how it is computed), or the highest
        that the same name has in the document, 0 to 1.
    """

    type: str
    start: int
    end: int
    probability: float
