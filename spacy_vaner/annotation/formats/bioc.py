"""BioC, XML and JSON: documents of passages, annotations by offset into the document.

Both forms are read into the rows of BioC JSON, which are kept as they came; what is found is added.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from spacy_vaner.annotation.document import (
    Annotated,
    Annotation,
    Document,
    Native,
    Passage,
    Rejection,
    Unreadable,
    check_fragments,
    check_surface,
    place_passages,
    surface,
)
from spacy_vaner.annotation.formats.json_stream import BrokenRow, read_rows
from spacy_vaner.corpora.formats.xml_nodes import (
    BrokenXML,
    Node,
    element,
    escaped,
    recover_nodes,
)
from spacy_vaner.types import Offsets

_ID_KEYS = ("identifier", "Identifier", "MESH", "NCBI Gene", "NCBI Homologene", "NCBI GENE")
"""Infons that hold identifiers in the corpora that use them."""
_NO_IDS = {"", "-", "-1", "None"}
_HEADER = ("source", "date", "key")

Rows = dict[str, Any]
"""A document as BioC JSON has it."""


def read_json(stream: BinaryIO, name: str) -> Iterator[Document | Rejection]:
    """Read a collection, a list of documents, or one of either per line; PubTator 3's too."""
    for row in read_rows(stream, Path(name), ("documents", "PubTator3"), mark="passages"):
        if isinstance(row, BrokenRow):
            yield Rejection(name, f"line {row.line}", row.reason, row.id)
        else:
            yield from _document(row.value, row.header, f"line {row.line}", name)


def read_xml(stream: BinaryIO, name: str) -> Iterator[Document | Rejection]:
    """Read a collection, document by document."""
    header: dict[str, Any] = {}
    tags = ("document", "infon", *_HEADER)
    nodes = recover_nodes(stream, Path(name), {"collection"}, tags, starts=["document"])
    for node in nodes:
        if isinstance(node, BrokenXML):
            lost = _child_text(node.node, "id") if node.node else None
            yield Rejection(name, f"line {node.line}", str(node), lost)
        elif node.tag == "infon":
            header.setdefault("infons", {})[node.attributes.get("key", "")] = node.text
        elif node.tag in _HEADER:
            header[node.tag] = node.text
        else:
            position = f"line {node.line}"
            try:
                row = _row_of_node(node)
            except Unreadable as error:
                yield Rejection(name, position, str(error))
            else:
                yield from _document(row, header, position, name)


def _document(
    row: object, header: Mapping[str, Any], position: str, name: str
) -> Iterator[Document | Rejection]:
    id_ = None
    try:
        if not isinstance(row, dict) or not isinstance(row.get("passages"), list):
            raise Unreadable('expected a document with "id" and "passages"')
        id_ = row.get("id", row.get("_id"))
        if not isinstance(id_, (str, int)):
            raise Unreadable("a document has no id")
        id_ = str(id_)
        yield read_document(row, id_, header=header, position=position)
    except Unreadable as error:
        yield Rejection(name, position, str(error), id_ if isinstance(id_, str) else None)


def read_document(
    row: Rows, id_: str, *, header: Mapping[str, Any] | None = None, position: str = ""
) -> Document:
    """A document of BioC JSON.

    header: of the collection: source, date, key, infons.
    RAISES Unreadable: offsets that do not fit the text; a part that is not as BioC has it.
    """
    try:
        _check_form(row)
        return _read_document(row, id_, dict(header or {}), position)
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise Unreadable(f"this is not BioC: {error}") from error


def _check_form(row: Rows) -> None:
    """Whoever writes the document walks through all its parts, those too that are not read.

    RAISES TypeError: one is not a list of objects.
    """
    parts = [row, *_rows(row, "passages")]
    parts += [sentence for passage in parts[1:] for sentence in _rows(passage, "sentences")]
    for part in parts:
        for one in [*_rows(part, "annotations"), *_rows(part, "relations")]:
            _rows(one, "locations")
            _rows(one, "nodes")


def _rows(row: Rows, key: str) -> list[Rows]:
    rows = row.get(key) or []
    if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        raise TypeError(f'"{key}" must be a list of objects')
    return rows


def _read_document(row: Rows, id_: str, header: Mapping[str, Any], position: str) -> Document:
    parts: list[tuple[str, int, Mapping[str, str]]] = []
    annotated: list[tuple[int, list[Rows]]] = []
    pmid = row.get("pmid") or _infons(row).get("article-id_pmid")
    for passage in row["passages"]:
        pmid = pmid or _infons(passage).get("article-id_pmid")
        for part in _text_parts(passage):
            text, offset = part.get("text"), _number(part.get("offset"), "offset of a passage")
            if not isinstance(text, str):
                raise Unreadable("a passage has no text")
            annotated.append((len(parts), part.get("annotations") or []))
            parts.append((text, offset, _infons(passage)))
        if part is not passage:
            annotated.append((len(parts) - 1, passage.get("annotations") or []))
    text, passages = place_passages(parts)
    annotations = [
        _annotation(found, passages[index].start - passages[index].offset, text)
        for index, rows in annotated
        for found in rows
    ]
    annotations += [_annotation(found, 0, text) for found in row.get("annotations") or []]
    native = Native("bioc", {"header": header, "row": row})
    return Document(
        id_, text, passages, tuple(annotations), str(pmid) if pmid else None, native, position
    )


def _text_parts(passage: Rows) -> list[Rows]:
    """The passage itself, or its sentences where only they have text."""
    sentences = passage.get("sentences")
    if not isinstance(passage.get("text"), str) and isinstance(sentences, list) and sentences:
        return sentences
    return [passage]


def _infons(row: Rows) -> dict[str, str]:
    infons = row.get("infons")
    if not isinstance(infons, dict):
        return {}
    return {str(key): str(value) for key, value in infons.items() if value is not None}


def _number(value: object, what: str) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise Unreadable(f"expected a number as {what}; found: {value!r}")


def _annotation(row: Rows, shift: int, text: str) -> Annotation:
    infons = _infons(row)
    type_ = infons.get("type", "").strip()
    if not type_:
        raise Unreadable("an annotation has no infon 'type'")
    offsets = []
    for location in row.get("locations") or []:
        start = _number(location.get("offset"), "offset of a location") + shift
        offsets.append((start, start + _number(location.get("length"), "length of a location")))
    fragments = check_fragments(offsets, text)
    said = row.get("text")
    check_surface(said if isinstance(said, str) else None, fragments, text)
    found = [infons[key] for key in _ID_KEYS if key in infons]
    ids = tuple(id_ for id_ in (found[0].split("|") if found else ()) if id_ not in _NO_IDS)
    score = infons.get("score", "")
    return Annotation(
        type_,
        fragments,
        ids,
        float(score) if re.fullmatch(r"[01](\.\d+)?", score) else None,
        infons.get("model"),
    )


def _row_of_node(node: Node) -> Rows:
    """An element <document> as BioC JSON."""
    row: Rows = {"id": _child_text(node, "id")}
    if row["id"] is None:
        raise Unreadable("a document has no <id>")
    row["id"] = row["id"].strip()
    row.update(_common(node))
    row["passages"] = [_part_of_node(child, "sentence") for child in node.all("passage")]
    return row


def _part_of_node(node: Node, inner: str | None) -> Rows:
    row: Rows = {"offset": (_child_text(node, "offset") or "").strip()}
    text = _child_text(node, "text")
    if text is not None:
        row["text"] = text
    row.update(_common(node))
    if inner is not None:
        row["sentences"] = [_part_of_node(child, None) for child in node.all(inner)]
    if text is None and not row.get("sentences"):
        raise Unreadable(f"line {node.line}: a passage without <text> or <sentence>")
    return row


def _common(node: Node) -> Rows:
    return {
        "infons": {child.attributes.get("key", ""): child.text for child in node.all("infon")},
        "annotations": [
            {
                "id": child.attributes.get("id", ""),
                "infons": {one.attributes.get("key", ""): one.text for one in child.all("infon")},
                "text": _child_text(child, "text"),
                "locations": [dict(location.attributes) for location in child.all("location")],
            }
            for child in node.all("annotation")
        ],
        "relations": [
            {
                "id": child.attributes.get("id", ""),
                "infons": {one.attributes.get("key", ""): one.text for one in child.all("infon")},
                "nodes": [dict(one.attributes) for one in child.all("node")],
            }
            for child in node.all("relation")
        ],
    }


def _child_text(node: Node, tag: str) -> str | None:
    child = node.first(tag)
    return None if child is None else child.text


def to_row(annotated: Annotated) -> Rows:
    """A document as BioC JSON: as it came where it was BioC, with what was found added."""
    document = annotated.document
    native = document.native
    if native is not None and native.format == "bioc":
        assert isinstance(native.data, dict)
        row: Rows = copy.deepcopy(native.data["row"])
        additions = annotated.found
    else:
        row = {"id": document.id, "infons": {}, "passages": [], "relations": []}
        for passage in document.passages:
            row["passages"].append(
                {
                    "offset": passage.offset,
                    "infons": dict(passage.infons),
                    "text": document.text[passage.start : passage.end],
                    "sentences": [],
                    "annotations": [],
                    "relations": [],
                }
            )
        if document.pmid is not None and document.passages:
            row["passages"][0]["infons"]["article-id_pmid"] = document.pmid
        elif document.pmid is not None:
            row["infons"]["article-id_pmid"] = document.pmid
        additions = annotated.annotations
    parts = [part for passage in row["passages"] for part in _text_parts(passage)]
    ids = _Ids(row)
    for one in sorted(additions, key=lambda one: (one.fragments, one.type)):
        index = _passage_of(document.passages, one.fragments)
        passage = document.passages[index]
        shift = passage.offset - passage.start
        part = parts[index]
        # BioC JSON from elsewhere may have null here, or nothing.
        part["annotations"] = part.get("annotations") or []
        part["annotations"].append(_row_of_annotation(one, document.text, shift, ids.next()))
    return row


def _passage_of(passages: Sequence[Passage], fragments: Sequence[Offsets]) -> int:
    start = fragments[0][0]
    places = [index for index, passage in enumerate(passages) if passage.start <= start]
    return places[-1]


class _Ids:
    """Identifiers of annotations that the document does not have yet."""

    def __init__(self, row: Rows) -> None:
        self.known = {str(one.get("id")) for one in _all_annotations(row)}
        self.last = len(self.known)

    def next(self) -> str:
        self.last += 1
        while str(self.last) in self.known:
            self.last += 1
        return str(self.last)


def _all_annotations(row: Rows) -> Iterator[Rows]:
    yield from row.get("annotations") or []
    for passage in row["passages"]:
        yield from passage.get("annotations") or []
        for sentence in passage.get("sentences") or []:
            yield from sentence.get("annotations") or []


def _row_of_annotation(one: Annotation, text: str, shift: int, id_: str) -> Rows:
    infons = {"type": one.type}
    if one.ids:
        infons["identifier"] = "|".join(one.ids)
    if one.score is not None:
        infons["score"] = f"{one.score:.4f}"
    if one.model is not None:
        infons["model"] = one.model
    return {
        "id": id_,
        "infons": infons,
        "text": surface(text, one.fragments),
        "locations": [
            {"offset": start + shift, "length": end - start} for start, end in one.fragments
        ],
    }


def collection_header(documents: Iterable[Annotated]) -> dict[str, Any]:
    """Source, date, key and infons of the collection that the documents came from."""
    header = {"source": "", "date": "", "key": "", "infons": {}}
    for annotated in documents:
        native = annotated.document.native
        if native is not None and native.format == "bioc":
            assert isinstance(native.data, dict)
            return {**header, **native.data["header"]}
    return header


def write_json(documents: Sequence[Annotated], path: Path) -> None:
    """Write a collection, a document per line."""
    header = collection_header(documents)
    with path.open("w", encoding="utf8", newline="\n") as file:
        file.write(json.dumps(header, ensure_ascii=False)[:-1] + ', "documents": [\n')
        for number, annotated in enumerate(documents):
            file.write(",\n" if number else "")
            file.write(json.dumps(to_row(annotated), ensure_ascii=False))
        file.write("\n]}\n")


def write_xml(documents: Sequence[Annotated], path: Path) -> None:
    """Write a collection; characters that XML cannot hold become blanks."""
    header = collection_header(documents)
    with path.open("w", encoding="utf8", newline="\n") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n<collection>')
        for key in _HEADER:
            file.write(element(key, escaped(str(header.get(key, "")))))
        file.write(_infon_elements(header) + "\n")
        for annotated in documents:
            file.write(_document_element(to_row(annotated)) + "\n")
        file.write("</collection>\n")


def _document_element(row: Rows) -> str:
    id_ = row.get("id", row.get("_id"))
    parts = [element("id", escaped(str(id_))), _infon_elements(row)]
    for passage in row["passages"]:
        parts.append("\n" + _part_element("passage", passage))
    return element("document", "".join(parts) + "".join(_ends(row)))


def _part_element(tag: str, row: Rows) -> str:
    parts = [_infon_elements(row), element("offset", str(row["offset"]))]
    if isinstance(row.get("text"), str):
        parts.append(element("text", escaped(row["text"])))
    parts += ["\n" + _part_element("sentence", one) for one in row.get("sentences") or []]
    return element(tag, "".join(parts) + "".join(_ends(row)))


def _ends(row: Rows) -> Iterator[str]:
    """Annotations and relations, which stand at the end of whatever has them."""
    for one in row.get("annotations") or []:
        parts = [_infon_elements(one)]
        for place in one.get("locations") or []:
            parts.append(element("location", offset=place["offset"], length=place["length"]))
        if one.get("text") is not None:
            parts.append(element("text", escaped(str(one["text"]))))
        yield "\n" + element("annotation", "".join(parts), id=one.get("id", ""))
    for one in row.get("relations") or []:
        nodes = "".join(
            element("node", refid=node.get("refid", ""), role=node.get("role", ""))
            for node in one.get("nodes") or []
        )
        yield "\n" + element("relation", _infon_elements(one) + nodes, id=one.get("id", ""))


def _infon_elements(row: Mapping[str, Any]) -> str:
    return "".join(
        element("infon", escaped(value), key=key) for key, value in _infons(dict(row)).items()
    )
