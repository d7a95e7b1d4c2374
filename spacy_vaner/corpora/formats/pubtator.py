"""PubTator: title and abstract with mentions by character offset."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from spacy_vaner.corpora.formats.base import (
    Format,
    Note,
    ignore,
    malformed,
    numbered_lines,
    single_line,
    sorted_mentions,
    write_lines,
)
from spacy_vaner.types import Mention, Record

_PASSAGE = re.compile(r"([^|\t]+)\|([ta])\|(.*)", re.DOTALL)
_NO_IDS = {"", "-", "-1"}
_MENTION_LINE = "'ID<tab>start<tab>end<tab>text<tab>type'"


@dataclass
class _Document:
    """A document while its lines are read."""

    id: str
    line: int
    passages: list[str]
    mentions: list[tuple[int, str, Mention]] = field(default_factory=list)


def read(path: Path, *, note: Note = ignore) -> Iterator[Record]:
    """Read a PubTator file.

    The text is title, one space, abstract: the offsets of the format count so. A mention whose
    text differs from what stands at its offsets is kept at its offsets and noted ("misaligned").
    Relation lines (`ID<tab>CID<tab>…`) are noted and passed over.

    RAISES VanerError: VE201, a malformed line.
    """
    document: _Document | None = None
    for number, line in numbered_lines(path):
        passage = _PASSAGE.fullmatch(line)
        if document and (not line.strip() or (passage and passage[2] == "t")):
            yield _record(path, document, note)
            document = None
        if passage:
            id_, kind, text = passage.groups()
            if kind == "t":
                document = _Document(id_, number, [text])
            elif document is None or document.id != id_ or len(document.passages) != 1:
                raise malformed(path, number, f"a title line '{id_}|t|…' before it", line)
            else:
                document.passages.append(text)
        elif line.strip():
            if document is None:
                raise malformed(path, number, "a title line 'ID|t|title'", line)
            _add_mention(path, number, line, document, note)
    if document:
        yield _record(path, document, note)


def _add_mention(path: Path, number: int, line: str, document: _Document, note: Note) -> None:
    columns = line.split("\t")
    if columns[0] != document.id:
        raise malformed(path, number, f"a line of document {document.id}", line)
    if len(columns) == 4 and not columns[1].isdecimal():
        note("relation line", f"{path}:{number}")
        return
    if len(columns) < 5 or not (columns[1].isdecimal() and columns[2].isdecimal()):
        raise malformed(path, number, _MENTION_LINE, line)
    start, end, surface, type_ = int(columns[1]), int(columns[2]), columns[3], columns[4]
    if start >= end or not type_.strip():
        raise malformed(path, number, f"{_MENTION_LINE} with start < end and a type", line)
    identifier = columns[5].strip() if len(columns) > 5 else ""
    ids = () if identifier in _NO_IDS else tuple(identifier.split("|"))
    mention = Mention(type_.strip(), ((start, end),), ids)
    document.mentions.append((number, surface, mention))


def _record(path: Path, document: _Document, note: Note) -> Record:
    text = " ".join(document.passages)
    for number, surface, mention in document.mentions:
        ((start, end),) = mention.fragments
        if end > len(text):
            expected = f"offsets inside the {len(text)} characters of document {document.id}"
            raise malformed(path, number, expected, f"{start}–{end}")
        if text[start:end] != surface:
            note("misaligned", f"{path}:{number}")
    where = f"{path}:{document.line}"
    mentions = sorted_mentions([m for _, _, m in document.mentions], note, where)
    return Record(document.id, text, mentions, source=where)


def write(records: Iterable[Record], path: Path, *, note: Note = ignore) -> None:
    """Write the title (the first sentence, or up to the first blank) and the rest as abstract.

    A line end inside of the text becomes a blank.
    """

    def lines() -> Iterator[str]:
        for record in records:
            text = single_line(record.text)
            id_ = single_line(record.id).replace("|", "_")
            at = _title_end(record, text)
            yield f"{id_}|t|{text if at is None else text[:at]}"
            if at is not None:
                yield f"{id_}|a|{text[at + 1 :]}"
            for mention in record.mentions:
                if len(mention.fragments) > 1:
                    note("discontinuous mention left out", record.id)
                    continue
                ((start, end),) = mention.fragments
                columns = [id_, str(start), str(end), text[start:end], single_line(mention.type)]
                yield "\t".join([*columns, *filter(None, ["|".join(mention.ids)])])
            yield ""

    write_lines(lines(), path)


def _title_end(record: Record, text: str) -> int | None:
    """Where the blank stands that the format puts between title and abstract; None: no blank."""
    for _, end in record.sentences or ():
        if text[end : end + 1] == " ":
            return end
    match = re.search(r"(?<=[.?!]) (?=\S)", text) or re.search(" ", text)
    return match.start() if match else None


FORMAT = Format(
    read,
    "PubTator: ID|t|title, ID|a|abstract, mentions by offset",
    ids_are_pmids=True,
    write=write,
    carries=frozenset({"text", "nested", "ids"}),
)
