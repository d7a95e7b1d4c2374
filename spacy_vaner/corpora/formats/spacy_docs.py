"""spaCy's own forms: `.spacy` files (DocBin) and the JSON of documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spacy.tokens import Doc, Span

from spacy_vaner.corpora.docbins import (
    SPANS_KEY,
    docs_to_bytes,
    make_tokenizer,
    mark_record,
    read_docs,
    words_to_doc,
)
from spacy_vaner.corpora.formats.base import (
    Format,
    Note,
    ignore,
    malformed,
    read_text,
    sorted_mentions,
    write_lines,
    written_beside,
)
from spacy_vaner.gold import KEY, Gold
from spacy_vaner.types import Mention, Offsets, Record

_SPAN_LISTS = ("ents", "spans", "entities", "label", "labels")
_SPAN = '{"start": …, "end": …, "label": …} or [start, end, label] inside the text'


def read_docbin(
    path: Path, *, note: Note = ignore, spans_key: str | None = None
) -> Iterator[Record]:
    """Read a `.spacy` file.

    Our own annotation (docs/formats.md, section 1) is taken where a document has it; else its
    entities, and the spans of one group.

    spans_key: the group of `doc.spans`; None = "gold" if there is one.
    RAISES VanerError: VE202, a file that cannot be read; VE201, an annotation of another form.
    """
    for number, doc in enumerate(read_docs(path), start=1):
        where = f"{path}:{number}"
        data = doc.user_data.get(KEY) or {}
        alternatives = _our_mentions(path, number, doc, data, "alternatives")
        if "mentions" in data:
            mentions = _our_mentions(path, number, doc, data, "mentions")
        else:
            spans = [*doc.ents, *doc.spans.get(spans_key or SPANS_KEY, ())]
            found = {
                (span.start_char, span.end_char, span.label_): span for span in reversed(spans)
            }
            mentions = [_mention_of_span(span) for span in found.values()]
        sentences = None
        if doc.has_annotation("SENT_START"):
            sentences = tuple((sent.start_char, sent.end_char) for sent in doc.sents)
        id_, pmid = data.get("id"), data.get("pmid")
        yield Record(
            id=str(number if id_ is None else id_),
            text=doc.text,
            mentions=sorted_mentions(mentions, note, where),
            words=tuple((t.idx, t.idx + len(t)) for t in doc if not t.is_space),
            sentences=sentences,
            pmid=pmid,
            source=where,
            alternatives=sorted_mentions(alternatives, note, where),
        )


def _our_mentions(
    path: Path, number: int, doc: Doc, data: Mapping[str, Any], key: str
) -> list[Mention]:
    mentions = []
    try:
        for type_, fragments, ids in data.get(key, ()):
            pairs = tuple((int(start), int(end)) for start, end in fragments)
            if not pairs or not all(0 <= start < end <= len(doc.text) for start, end in pairs):
                raise ValueError(f"offsets {pairs} of {type_}")
            mentions.append(Mention(type_, pairs, tuple(ids)))
    except (TypeError, ValueError) as error:
        expected = f'doc.user_data["vaner"]["{key}"] as docs/formats.md says'
        raise malformed(path, number, expected, str(error)) from error
    return mentions


def _mention_of_span(span: Span) -> Mention:
    ids = (span.kb_id_,) if span.kb_id_ else ()
    return Mention(span.label_, ((span.start_char, span.end_char),), ids)


def write_docbin(records: Iterable[Record], path: Path, *, note: Note = ignore) -> None:
    """Write documents with `doc.ents`, `doc.spans["gold"]` and the mentions in `user_data`.

    A document says nothing of complete types: that is for `python -m spacy vaner convert`.
    """
    tokenizer = make_tokenizer()

    def docs() -> Iterator[Doc]:
        for record in records:
            own_words = record.words is not None
            doc = words_to_doc(record, tokenizer.vocab) if own_words else tokenizer(record.text)
            mark_record(doc, record)
            gold = Gold(
                id=record.id,
                pmid=record.pmid,
                mentions=record.mentions,
                alternatives=record.alternatives,
            )
            known = ("id", "pmid", "mentions", "alternatives")
            data = gold.to_user_data()
            doc.user_data[KEY] = {key: data[key] for key in known if key in data}
            yield doc

    with written_beside(path) as beside:
        beside.write_bytes(docs_to_bytes(docs()))


def read_json(path: Path, *, note: Note = ignore) -> Iterator[Record]:
    """Read spaCy's JSON (`Doc.to_json()`): a list of documents, one document, or one per line.

    A document is `{"text": …, "ents": […], "tokens": […], "sents": […]}`; groups of spans count
    too. The lines of annotation tools are read as well: mentions as "spans", "entities" or
    "label", each as object or as [start, end, label].

    RAISES VanerError: VE201, malformed JSON or a span outside of its text.
    """
    for line, row in _rows(path, read_text(path)):
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise malformed(path, line, 'an object with a string "text"', json.dumps(row))
        yield _record(path, line, row, note)


def _rows(path: Path, text: str) -> Iterator[tuple[int, object]]:
    decoder = json.JSONDecoder()
    at, within = 0, False
    try:
        while at < len(text):
            mark = text[at]
            if mark.isspace() or (within and mark == ","):
                at += 1
            elif mark == "[" and not within:
                decoder.raw_decode(text, at)  # The whole list: it must be closed.
                at, within = at + 1, True
            elif mark == "]" and within:
                at, within = at + 1, False
            else:
                value, end = decoder.raw_decode(text, at)
                yield text.count("\n", 0, at) + 1, value
                at = end
    except (json.JSONDecodeError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise malformed(path, line, f"JSON ({error})", text.split("\n")[line - 1]) from error


def _record(path: Path, line: int, row: dict[str, Any], note: Note) -> Record:
    text, where = row["text"], f"{path}:{line}"
    found: dict[tuple[Offsets, str], Mention] = {}
    for key in _SPAN_LISTS:
        value = row.get(key)
        groups = value.values() if isinstance(value, dict) else [value or []]
        for group in groups:
            if not isinstance(group, list):
                raise malformed(path, line, f'"{key}" as a list of {_SPAN}', str(group))
            for span in group:
                mention = _mention_of_json(path, line, span, text)
                found.setdefault((mention.fragments[0], mention.type), mention)
    meta = row.get("meta")
    id_ = row.get("id", meta.get("id") if isinstance(meta, dict) else None)
    return Record(
        id=str(line if id_ is None else id_),
        text=text,
        mentions=sorted_mentions([*found.values()], note, where),
        sentences=_offsets(path, line, row, "sents", len(text)),
        source=where,
    )


def _mention_of_json(path: Path, line: int, span: object, text: str) -> Mention:
    match span:
        case {"start": int(start), "end": int(end), "label": str(type_)}:
            pass
        case [int(start), int(end), str(type_), *_]:
            pass
        case _:
            raise malformed(path, line, f"a mention as {_SPAN}", json.dumps(span))
    if not (0 <= start < end <= len(text) and type_.strip()):
        raise malformed(path, line, f"a mention as {_SPAN}", json.dumps(span))
    identifier = span.get("kb_id") if isinstance(span, dict) else None
    return Mention(type_, ((start, end),), (identifier,) if identifier else ())


def _offsets(
    path: Path, line: int, row: dict[str, Any], key: str, length: int
) -> tuple[Offsets, ...] | None:
    if not row.get(key):
        return None
    found = []
    for pair in row[key] if isinstance(row[key], list) else [row[key]]:
        match pair:
            case {"start": int(start), "end": int(end)} if 0 <= start < end <= length:
                found.append((start, end))
            case _:
                expected = f'"{key}" as a list of {{"start": …, "end": …}} inside the text'
                raise malformed(path, line, expected, json.dumps(pair))
    return tuple(found)


def write_json(records: Iterable[Record], path: Path, *, note: Note = ignore) -> None:
    """Write a document per line: entities that do not overlap, and all mentions as spans."""

    def lines() -> Iterator[str]:
        for record in records:
            spans: list[dict[str, Any]] = []
            ents: list[dict[str, Any]] = []
            for mention in record.mentions:
                if len(mention.fragments) > 1:
                    note("discontinuous mention left out", record.id)
                    continue
                ((start, end),) = mention.fragments
                ids = {"kb_id": mention.ids[0]} if mention.ids else {}
                spans.append({"start": start, "end": end, "label": mention.type, **ids})
            for span in sorted(spans, key=lambda span: (span["start"], -span["end"])):
                if not ents or span["start"] >= ents[-1]["end"]:
                    ents.append(span)
            row: dict[str, object] = {"id": record.id, "text": record.text, "ents": ents}
            if record.sentences:
                row["sents"] = [{"start": start, "end": end} for start, end in record.sentences]
            row["spans"] = {SPANS_KEY: spans}
            yield json.dumps(row, ensure_ascii=False)

    write_lines(lines(), path)


DOCBIN = Format(
    read_docbin,
    "spaCy's .spacy files: entities and spans",
    options=("spans_key",),
    has_words=True,
    write=write_docbin,
    carries=frozenset({"text", "nested", "discontinuous", "sentences", "ids"}),
)
JSON = Format(
    read_json,
    "spaCy's JSON (Doc.to_json) and the JSONL of annotation tools: ents, spans",
    write=write_json,
    carries=frozenset({"text", "nested", "sentences"}),
)
