"""The conversion report: what a `.spacy` file holds and what became of everything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spacy_vaner.types import Mention, Record

_EXAMPLES = 5
_MEANING = {
    "misaligned": "mentions whose text is not what stands at their offsets (the offsets are taken)",
    "repeated mention": "mentions that the source gives twice (taken once)",
    "mention opened by I": "mentions that begin with an I tag (taken as B)",
    "document without words": "documents without words (left out)",
    "text without annotations": "texts without annotations beside them (left out)",
    "passage moved": "passages whose offset lies in the one before (put behind it)",
    "relation line": "lines of relations (not used)",
}
"""Of the notes of readers, as remarks tell it; others are told by their name."""


@dataclass
class ConversionReport:
    """Counts of one conversion; nothing that was changed or left out is missing here.

    documents, tokens: in the output. sentences: None where the source marks none.
    mentions: type -> number in the output. source_types: in the source, by its names.
    nested: contiguous mentions inside of another one; crossing: that overlap one otherwise.
    discontinuous: mentions of several fragments: kept, but in neither doc.spans nor doc.ents.
    alternatives: boundaries that are right too, beside `mentions`.
    widened: mentions whose boundaries cut a token; in doc.spans they go to the token's end.
    unused: source type -> mentions that the type map or the list of types leaves out.
    notes: cause -> number of oddities in the source that were kept (misaligned: the text given
        differs from the text at the offsets, the offsets stand), with examples.
    repeated_documents: documents whose identifier occurred before in the file; all are kept.
    guard: counts of the leakage guard; against: sentences shared with other files, counted only.
    """

    documents: int = 0
    sentences: int | None = None
    tokens: int = 0
    mentions: Counter[str] = field(default_factory=Counter)
    source_types: Counter[str] = field(default_factory=Counter)
    nested: int = 0
    crossing: int = 0
    discontinuous: int = 0
    alternatives: int = 0
    widened: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    repeated_documents: int = 0
    guard: dict[str, object] | None = None
    against: dict[str, object] | None = None
    _ids: set[str] = field(default_factory=set, repr=False)

    def note(self, cause: str, where: str) -> None:
        """Count an oddity; the first few places are kept."""
        self.notes[cause] += 1
        examples = self.examples.setdefault(cause, [])
        if len(examples) < _EXAMPLES:
            examples.append(where)

    def add_source(self, record: Record) -> None:
        """Count a document as the reader gave it, before anything was done to it."""
        self.source_types.update(mention.type for mention in record.mentions)
        self.repeated_documents += record.id in self._ids
        self._ids.add(record.id)

    def add_record(self, record: Record, *, n_tokens: int, n_widened: int) -> None:
        """Count a document of the output, its mentions already under their types."""
        self.documents += 1
        self.widened += n_widened
        self.tokens += n_tokens
        if record.sentences is not None:
            self.sentences = (self.sentences or 0) + len(record.sentences)
        self.mentions.update(mention.type for mention in record.mentions)
        self.discontinuous += sum(len(mention.fragments) > 1 for mention in record.mentions)
        self.alternatives += len(record.alternatives)
        nested, crossing = count_overlaps(record.mentions)
        self.nested += nested
        self.crossing += crossing

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            key: dict(sorted(value.items())) if isinstance(value, Counter) else value
            for key, value in vars(self).items()
            if not key.startswith("_")
        }


def count_overlaps(mentions: Sequence[Mention]) -> tuple[int, int]:
    """How many mentions lie inside of another one, and how many more cross one.

    Contiguous mentions only. Of two with the same boundaries, the second is nested.
    """
    contiguous = [mention.fragments[0] for mention in mentions if len(mention.fragments) == 1]
    nested = crossing = furthest = 0
    for start, end in sorted(contiguous, key=lambda fragment: (fragment[0], -fragment[1])):
        if end <= furthest:
            nested += 1
        elif start < furthest:
            crossing += 1
        furthest = max(furthest, end)
    return nested, crossing


def table_rows(
    reports: Iterable[tuple[str, Mapping[str, Any]]],
) -> list[tuple[str, int, int | str, int, str]]:
    """Per report, with its name: name, documents, sentences, tokens, mentions per type."""
    return [
        (
            name,
            report["documents"],
            "–" if report["sentences"] is None else report["sentences"],
            report["tokens"],
            ", ".join(f"{type_} {count}" for type_, count in report["mentions"].items()) or "–",
        )
        for name, report in reports
    ]


def absent_types(report: Mapping[str, Any], types: Iterable[str]) -> list[str]:
    """Types that are taken as annotated completely and have no mention: a wrong name, mostly."""
    found = ", ".join([*report["mentions"], *report["unused"]]) or "none"
    return [
        f"no mention of {type_}, which is taken as annotated completely; found: {found}"
        for type_ in types
        if not report["mentions"].get(type_)
    ]


def remarks(report: Mapping[str, Any]) -> list[tuple[int, str]]:
    """What a reader of a report should look at, everything that is not simply there: count, what.

    report: as to_dict gives it.
    """
    said = [
        (report["nested"], "mentions inside of another one"),
        (report["crossing"], "mentions that cross another one"),
        (report["discontinuous"], "discontinuous mentions (in neither doc.spans nor doc.ents)"),
        (report["alternatives"], "boundaries that are right too (alternatives: not trained)"),
        (report["widened"], "mentions that cut a token, widened to it in doc.spans"),
        (report["repeated_documents"], "documents with the identifier of an earlier one (kept)"),
    ]
    for cause, count in report["notes"].items():
        first = report["examples"][cause][0]
        said.append((count, f"{_MEANING.get(cause, cause)}, first in {first}"))
    for type_, count in report["unused"].items():
        said.append((count, f"mentions of {type_}: type not used"))
    if guard := report["guard"]:
        dropped_by, masked_by = _by(guard["dropped_by"]), _by(guard["masked_by"])
        for cause, count in guard["dropped"].items():
            said.append((count, f"documents left out by the guard: {cause}, {dropped_by}"))
        masked = f"documents with sentences masked by the guard, {masked_by}"
        said.append((guard["masked_documents"], masked))
        for source, count in guard["official_split_stands"].items():
            what = f"documents shared with {source}: kept, the official split stands"
            said.append((count, what))
    if against := report["against"]:
        for source, count in against["dropped_by"].items():
            said.append((count, f"documents shared with {source} (--against): kept"))
    return [(count, what) for count, what in said if count]


def _by(counts: Mapping[str, int]) -> str:
    return "shared with " + ", ".join(f"{source} ({count})" for source, count in counts.items())
