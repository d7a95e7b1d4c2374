"""PubTator: title and abstract with annotations by character offset."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from spacy_vaner.annotation.document import (
    Annotated,
    Annotation,
    Document,
    Native,
    Rejection,
    Unreadable,
    check_fragments,
    check_surface,
    join_passages,
)
from spacy_vaner.annotation.formats.base import decode, lines
from spacy_vaner.corpora.formats.base import single_line

_PASSAGE = re.compile(r"([^|\t]+)\|([ta])\|(.*)", re.DOTALL)
_KINDS = {"t": "title", "a": "abstract"}
_NO_IDS = {"", "-", "-1"}


def read(stream: BinaryIO, name: str) -> Iterator[Document | Rejection]:
    """Read a block at a time: blocks end at a blank line and before the next title."""
    block: list[tuple[int, bytes]] = []
    for number, line in lines(stream):
        is_title = b"|t|" in line and _is_passage(line)
        if block and (not line.strip() or is_title):
            yield _read_block(block, name)
            block = []
        if line.strip():
            block.append((number, line))
    if block:
        yield _read_block(block, name)


def _is_passage(line: bytes) -> bool:
    found = _PASSAGE.fullmatch(line.decode("utf8", "replace"))
    return found is not None and found[2] == "t"


def _read_block(block: list[tuple[int, bytes]], name: str) -> Document | Rejection:
    position = f"line {block[0][0]}"
    id_: str | None = None
    try:
        content = [decode(line) for _, line in block]
        first = _PASSAGE.fullmatch(content[0])
        if first is None or first[2] != "t":
            raise Unreadable(f"expected a title line 'ID|t|title'; found: {content[0][:80]}")
        id_ = first[1]
        return _document(id_, content, position)
    except Unreadable as error:
        return Rejection(name, position, str(error), id_)


def _document(id_: str, content: list[str], position: str) -> Document:
    parts: list[tuple[str, dict[str, str]]] = []
    rows: list[list[str]] = []
    others: list[str] = []
    for line in content:
        passage = _PASSAGE.fullmatch(line)
        columns = line.split("\t")
        if passage:
            kind = "ta"[len(parts)] if len(parts) < 2 else None
            if passage[1] != id_ or passage[2] != kind or rows:
                raise Unreadable(f"expected an abstract or annotations of {id_}: {line[:80]}")
            parts.append((passage[3], {"type": _KINDS[passage[2]]}))
        elif columns[0] != id_:
            raise Unreadable(f"expected a line of document {id_}; found: {line[:80]}")
        elif len(columns) >= 5 and columns[1].isdecimal() and columns[2].isdecimal():
            rows.append(columns)
        elif len(columns) >= 4 and not columns[1].isdecimal():
            others.append(line)  # a relation
        else:
            raise Unreadable(f"expected ID, start, end, text, type with tabs: {line[:80]}")
    text, passages = join_passages(parts)
    annotations = []
    for columns in rows:
        fragments = check_fragments([(int(columns[1]), int(columns[2]))], text)
        check_surface(columns[3], fragments, text)
        identifier = columns[5].strip() if len(columns) > 5 else ""
        ids = () if identifier in _NO_IDS else tuple(identifier.split("|"))
        annotations.append(Annotation(columns[4].strip(), fragments, ids))
    pmid = id_ if id_.isdecimal() else None
    return Document(
        id_, text, passages, tuple(annotations), pmid, Native("pubtator", others), position
    )


def to_lines(annotated: Annotated) -> Iterator[str]:
    """The lines of a document.

    The format has one line for the title and one for the rest, so that line ends inside of the
    text become blanks; offsets stay. It has no place for scores and discontinuous annotations.
    """
    document = annotated.document
    text = single_line(document.text)
    id_ = single_line(document.id).replace("|", "_")
    at = _title_end(document)
    yield f"{id_}|t|{text if at is None else text[:at]}"
    if at is not None:
        yield f"{id_}|a|{text[at + 1 :]}"
    for one in annotated.annotations:
        if len(one.fragments) == 1:
            said = text[one.start : one.end]
            ids = single_line("|".join(one.ids)) or "-"
            columns = [id_, str(one.start), str(one.end), said, single_line(one.type), ids]
            yield "\t".join(columns)
    native = document.native
    if native is not None and native.format == "pubtator":
        assert isinstance(native.data, list)
        yield from native.data
    yield ""


def _title_end(document: Document) -> int | None:
    """Where the one character stands that separates title and abstract; None: no abstract."""
    if len(document.passages) > 1:
        end = document.passages[0].end
        # Passages that touch leave no room for it: they are one line.
        return end if document.text[end : end + 1].isspace() else None
    text = document.text
    found = re.search(r"\n", text) or re.search(r"(?<=[.?!]) (?=\S)", text)
    return found.start() if found else None


def write(documents: Sequence[Annotated], path: Path) -> None:
    """Write blocks with a blank line after each."""
    with path.open("w", encoding="utf8", newline="\n") as file:
        for annotated in documents:
            file.writelines(line + "\n" for line in to_lines(annotated))
