"""BioC, XML and JSON: documents of passages, with annotations by offset into the document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spacy_vaner.corpora.formats.base import (
    Format,
    Note,
    ignore,
    malformed,
    read_text,
    sorted_mentions,
    squeezed,
    written_beside,
)
from spacy_vaner.corpora.formats.xml_nodes import Node, element, escaped, read_nodes
from spacy_vaner.types import Mention, Offsets, Record

_ID_KEYS = ("identifier", "Identifier", "MESH", "NCBI Gene", "NCBI Homologene", "NCBI GENE")
"""Infons that hold a mention's identifier in the corpora that use them."""
_NO_IDS = {"", "-", "-1", "None"}
_DOCUMENTS = re.compile(r'"(?:documents|PubTator3)"\s*:\s*\[')
_SPACE = re.compile(r"\s*")


@dataclass
class _Annotation:
    """A mention as the file has it; locations: offset and length, into the document."""

    line: int
    infons: Mapping[str, str]
    text: str | None
    locations: list[tuple[int, int]]


@dataclass
class _Passage:
    """Text with its offset in the document; a sentence of a passage without text is one too."""

    line: int
    offset: int
    text: str
    annotations: list[_Annotation] = field(default_factory=list)


@dataclass
class _Document:
    line: int
    id: str
    passages: list[_Passage]
    pmid: str | None = None
    annotations: list[_Annotation] = field(default_factory=list)


def read_xml(path: Path, *, note: Note = ignore) -> Iterator[Record]:
    """Read a BioC XML file, document by document.

    The text of a passage stands at its offset, blanks between. Where offsets lie before the end of
    the passage before, the passage follows after one blank and is noted ("passage moved"); its
    mentions move with it. Relations are passed over.

    RAISES VanerError: VE201 to VE203, a malformed file.
    """
    for node in read_nodes(path, "collection", "document"):
        yield _record(path, _document_of_node(path, node), note)


def read_json(path: Path, *, note: Note = ignore) -> Iterator[Record]:
    """Read a BioC JSON file: a collection, a document, or one of either per line.

    The text is put together as in XML. What comes from PubTator 3 is read too.

    RAISES VanerError: VE201 to VE203, a malformed file.
    """
    for line, row in _json_documents(path, read_text(path)):
        yield _record(path, _document_of_json(path, line, row), note)


def _document_of_node(path: Path, node: Node) -> _Document:
    passages = []
    for passage in node.all("passage"):
        annotations = [_annotation_of_node(path, child) for child in passage.all("annotation")]
        parts = [passage]
        if passage.first("text") is None:
            parts = passage.all("sentence")
            if not parts:
                raise malformed(path, passage.line, "a passage with <text> or <sentence>", "none")
        for part in parts:
            offset = _number(path, part.line, "<offset>", _child_text(part, "offset"))
            found = _Passage(part.line, offset, _child_text(part, "text") or "")
            if part is not passage:
                found.annotations = [_annotation_of_node(path, c) for c in part.all("annotation")]
            passages.append(found)
        passages[-1].annotations += annotations
    annotations = [_annotation_of_node(path, child) for child in node.all("annotation")]
    id_, pmid = _child_text(node, "id"), _infons(node).get("article-id_pmid")
    if id_ is None:
        raise malformed(path, node.line, "a document with an <id>", "none")
    for passage in node.all("passage"):
        pmid = pmid or _infons(passage).get("article-id_pmid")
    return _Document(node.line, id_.strip(), passages, pmid, annotations)


def _annotation_of_node(path: Path, node: Node) -> _Annotation:
    locations = []
    for location in node.all("location"):
        attributes = location.attributes
        offset = _number(path, location.line, "offset of a location", attributes.get("offset"))
        length = _number(path, location.line, "length of a location", attributes.get("length"))
        locations.append((offset, length))
    return _Annotation(node.line, _infons(node), _child_text(node, "text"), locations)


def _infons(node: Node) -> dict[str, str]:
    return {child.attributes.get("key", ""): child.text for child in node.all("infon")}


def _child_text(node: Node, tag: str) -> str | None:
    child = node.first(tag)
    return None if child is None else child.text


def _number(path: Path, line: int, what: str, value: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise malformed(path, line, f"a number as {what}", value)


def _json_documents(path: Path, text: str) -> Iterator[tuple[int, object]]:
    """The documents with the line where each begins."""
    decoder = json.JSONDecoder()
    at = _skip_space(text, 0)
    try:
        while at < len(text):
            value, end = decoder.raw_decode(text, at)
            line = text.count("\n", 0, at) + 1
            frame = _DOCUMENTS.search(text, at, end)
            if isinstance(value, dict) and ("documents" in value or "PubTator3" in value) and frame:
                yield from _members(decoder, text, frame.end())
            elif isinstance(value, list):
                yield from _members(decoder, text, at + 1)
            else:
                yield line, value
            at = _skip_space(text, end)
    except (json.JSONDecodeError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise malformed(path, line, f"JSON ({error})", text.split("\n")[line - 1]) from error


def _members(decoder: json.JSONDecoder, text: str, at: int) -> Iterator[tuple[int, object]]:
    """The members of an array that is known to be whole, from behind its bracket."""
    at = _skip_space(text, at)
    while text[at] != "]":
        value, end = decoder.raw_decode(text, at)
        yield text.count("\n", 0, at) + 1, value
        at = _skip_space(text, end)
        if text[at] == ",":
            at = _skip_space(text, at + 1)


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _document_of_json(path: Path, line: int, row: object) -> _Document:
    if not isinstance(row, dict) or not isinstance(row.get("passages"), list):
        raise malformed(path, line, 'a document with "id" and "passages"', json.dumps(row))
    id_ = row.get("id", row.get("_id"))
    if not isinstance(id_, (str, int)):
        raise malformed(path, line, 'a document with an "id"', json.dumps(id_))
    passages = []
    pmid = row.get("pmid")
    for passage in row["passages"]:
        if not isinstance(passage, dict):
            raise malformed(path, line, "a passage", json.dumps(passage))
        infons = passage.get("infons")
        pmid = pmid or (infons.get("article-id_pmid") if isinstance(infons, dict) else None)
        sentences = passage.get("sentences")
        parts = [passage]
        if not isinstance(passage.get("text"), str) and isinstance(sentences, list) and sentences:
            parts = sentences
        for part in parts:
            if not isinstance(part, dict) or not isinstance(part.get("text"), str):
                raise malformed(path, line, 'a passage with "text"', json.dumps(part))
            offset = _number(path, line, "offset of a passage", part.get("offset"))
            annotations = _annotations_of_json(path, line, part)
            passages.append(_Passage(line, offset, part["text"], annotations))
        if parts is sentences:
            passages[-1].annotations += _annotations_of_json(path, line, passage)
    annotations = _annotations_of_json(path, line, row)
    return _Document(line, str(id_), passages, str(pmid) if pmid else None, annotations)


def _annotations_of_json(path: Path, line: int, row: dict[str, object]) -> list[_Annotation]:
    annotations = []
    rows = row.get("annotations") or []
    for annotation in rows if isinstance(rows, list) else [rows]:
        match annotation:
            case {"infons": dict(infons), "locations": list(locations), **others}:
                text = others.get("text")
            case _:
                expected = 'an annotation with "infons" and "locations"'
                raise malformed(path, line, expected, json.dumps(annotation))
        pairs = []
        for location in locations:
            if not isinstance(location, dict):
                raise malformed(path, line, "a location with offset and length", location)
            offset = _number(path, line, "offset of a location", location.get("offset"))
            length = _number(path, line, "length of a location", location.get("length"))
            pairs.append((offset, length))
        strings = {str(key): str(value) for key, value in infons.items() if value is not None}
        annotations.append(
            _Annotation(line, strings, text if isinstance(text, str) else None, pairs)
        )
    return annotations


def _record(path: Path, document: _Document, note: Note) -> Record:
    where = f"{path}:{document.line}"
    text = ""
    mentions: list[Mention] = []
    placed: list[tuple[_Annotation, int]] = [(one, 0) for one in document.annotations]
    for passage in document.passages:
        start = passage.offset
        if start < len(text):
            start = len(text) + 1
            note("passage moved", f"{path}:{passage.line}")
        text += " " * (start - len(text)) + passage.text
        placed += [(one, start - passage.offset) for one in passage.annotations]
    for annotation, shift in placed:
        mentions.append(_mention(path, annotation, shift, text, note))
    kept = sorted_mentions(mentions, note, where)
    return Record(document.id, text, kept, pmid=document.pmid, source=where)


def _mention(path: Path, annotation: _Annotation, shift: int, text: str, note: Note) -> Mention:
    type_ = annotation.infons.get("type", "").strip()
    if not type_ or not annotation.locations:
        expected = "an annotation with an infon 'type' and a location"
        raise malformed(path, annotation.line, expected, str(dict(annotation.infons)))
    fragments: list[Offsets] = []
    for offset, length in annotation.locations:
        start, end = offset + shift, offset + shift + length
        if not start < end <= len(text):
            expected = f"a location inside the {len(text)} characters of the document"
            raise malformed(path, annotation.line, expected, f"{offset} + {length}")
        fragments.append((start, end))
    fragments.sort()
    surface = " ".join(text[start:end] for start, end in fragments)
    if annotation.text is not None and squeezed(annotation.text) != squeezed(surface):
        note("misaligned", f"{path}:{annotation.line}")
    found = [annotation.infons[key] for key in _ID_KEYS if key in annotation.infons]
    ids = tuple(id_ for id_ in (found[0].split("|") if found else ()) if id_ not in _NO_IDS)
    return Mention(type_, tuple(fragments), ids)


def write_xml(records: Iterable[Record], path: Path, *, note: Note = ignore) -> None:
    """Write a collection with one passage per document; characters that XML lacks become blanks."""
    with written_beside(path) as beside, beside.open("w", encoding="utf8", newline="\n") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        file.write("<collection><source></source><date></date><key></key>\n")
        for record in records:
            file.write(_document_element(record) + "\n")
        file.write("</collection>\n")


def _document_element(record: Record) -> str:
    lines = [element("id", escaped(record.id))]
    if record.pmid:
        lines.append(element("infon", escaped(record.pmid), key="article-id_pmid"))
    passage = [element("offset", "0"), element("text", escaped(record.text))]
    for number, mention in enumerate(record.mentions):
        parts = [element("infon", escaped(mention.type), key="type")]
        if mention.ids:
            parts.append(element("infon", escaped("|".join(mention.ids)), key="identifier"))
        for start, end in mention.fragments:
            parts.append(element("location", offset=start, length=end - start))
        parts.append(element("text", escaped(_surface(record, mention))))
        passage.append(element("annotation", "".join(parts), id=number))
    lines.append(element("passage", "\n" + "\n".join(passage) + "\n"))
    return element("document", "\n".join(lines))


def write_json(records: Iterable[Record], path: Path, *, note: Note = ignore) -> None:
    """Write a collection with one passage per document, a document per line."""
    with written_beside(path) as beside, beside.open("w", encoding="utf8", newline="\n") as file:
        file.write('{"source": "", "date": "", "key": "", "infons": {}, "documents": [')
        between = "\n"
        for record in records:
            file.write(between + json.dumps(_document_row(record), ensure_ascii=False))
            between = ",\n"
        file.write("\n]}\n")


def _document_row(record: Record) -> dict[str, object]:
    annotations = []
    for number, mention in enumerate(record.mentions):
        infons = {"type": mention.type}
        if mention.ids:
            infons["identifier"] = "|".join(mention.ids)
        locations = [{"offset": start, "length": end - start} for start, end in mention.fragments]
        annotations.append(
            {
                "id": str(number),
                "infons": infons,
                "text": _surface(record, mention),
                "locations": locations,
            }
        )
    infons = {"article-id_pmid": record.pmid} if record.pmid else {}
    passage = {
        "offset": 0,
        "infons": infons,
        "text": record.text,
        "sentences": [],
        "annotations": annotations,
        "relations": [],
    }
    return {"id": record.id, "infons": {}, "passages": [passage], "relations": []}


def _surface(record: Record, mention: Mention) -> str:
    return " ".join(record.text[start:end] for start, end in mention.fragments)


_CARRIES = frozenset({"text", "nested", "discontinuous", "ids"})
XML = Format(
    read_xml, "BioC XML: passages, annotations by offset", write=write_xml, carries=_CARRIES
)
JSON = Format(
    read_json, "BioC JSON: passages, annotations by offset", write=write_json, carries=_CARRIES
)
