"""JSONL: a document per line. docs/formats.md, section 7, has the keys, docs/annotate.md ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

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
    whole,
)
from spacy_vaner.annotation.formats.base import decode, lines
from spacy_vaner.annotation.formats.json_stream import check_unicode
from spacy_vaner.types import Offsets

_OWN_KEYS = {"id", "pmid", "text", "ents", "disc", "scores", "models", "passages"}


def read(stream: BinaryIO, name: str) -> Iterator[Document | Rejection]:
    """Read a line at a time; a document without "id" is called by the number of its line."""
    for number, line in lines(stream):
        if line.strip():
            position = f"line {number}"
            try:
                yield _document(decode(line), number, position)
            except Unreadable as error:
                yield Rejection(name, position, str(error))


def _document(line: str, number: int, position: str) -> Document:
    try:
        row = json.loads(line)
        check_unicode(row, line)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"this is not JSON as it should be ({error})") from error
    return read_row(row, number, position)


def read_row(row: object, number: int, position: str) -> Document:
    """A document of JSONL.

    number: its name where it has no id.
    RAISES Unreadable: a key that is not as docs/annotate.md has it; offsets outside of the text.
    """
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise Unreadable('expected an object with a string "text"')
    text: str = row["text"]
    try:
        text.encode("utf8")
    except UnicodeEncodeError as error:
        raise Unreadable(f"the text is not Unicode ({error})") from error
    id_, pmid = row.get("id"), row.get("pmid")
    return Document(
        id=str(number if id_ is None else id_),
        text=text,
        passages=_passages(row.get("passages"), text),
        annotations=tuple(_annotations(row, text)),
        pmid=None if pmid in (None, "") else str(pmid),
        native=Native("jsonl", {key: row[key] for key in row.keys() - _OWN_KEYS}),
        position=position,
    )


def _passages(rows: object, text: str) -> tuple[Passage, ...]:
    if rows is None:
        return whole(text)
    passages = []
    try:
        for row in rows:  # type: ignore[attr-defined]  # whatever it is, it is caught
            start, end, infons = int(row["start"]), int(row["end"]), dict(row.get("infons") or {})
            if not 0 <= start <= end <= len(text):
                raise ValueError(f"from {start} to {end}")
            passages.append(Passage(start, end, int(row.get("offset", start)), infons))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Unreadable(f'"passages" is not as docs/annotate.md says: {error}') from error
    return tuple(passages)


def _annotations(row: dict[str, object], text: str) -> Iterator[Annotation]:
    ents = _list(row, "ents")
    scores = _list(row, "scores") or [None] * len(ents)
    models = _list(row, "models") or [None] * len(ents)
    if not len(ents) == len(scores) == len(models):
        raise Unreadable('"scores" and "models" must be as long as "ents"')
    for ent, score, model in zip(ents, scores, models, strict=True):
        match ent:
            case [int(start), int(end), str(type_), *rest] if type_.strip() and len(rest) < 3:
                said, identifier = (*rest, None, None)[:2]
            case _:
                raise Unreadable(f'"ents" holds {ent!r}, not [start, end, type]')
        fragments = check_fragments([(start, end)], text)
        check_surface(said if isinstance(said, str) else None, fragments, text)
        ids = () if identifier is None else tuple(str(identifier).split("|"))
        yield Annotation(
            type_,
            fragments,
            ids,
            float(score) if isinstance(score, (int, float)) else None,
            model if isinstance(model, str) else None,
        )
    for ent in _list(row, "disc"):
        match ent:
            case [[*pairs], str(type_)] if type_.strip():
                pass
            case _:
                raise Unreadable(f'"disc" holds {ent!r}, not [[[start, end], …], type]')
        yield Annotation(type_, check_fragments([_pair(pair) for pair in pairs], text))


def _pair(value: object) -> Offsets:
    match value:
        case [int(start), int(end)]:
            return start, end
    raise Unreadable(f'"disc" holds {value!r}, not [start, end]')


def _list(row: dict[str, object], key: str) -> list[object]:
    value = row.get(key) or []
    if not isinstance(value, list):
        raise Unreadable(f'"{key}" must be a list')
    return value


def to_row(annotated: Annotated) -> dict[str, object]:
    """A document as an object for JSON; of a discontinuous annotation only offsets and type."""
    document = annotated.document
    text = document.text
    contiguous = [one for one in annotated.annotations if len(one.fragments) == 1]
    row: dict[str, object] = {"id": document.id}
    if document.pmid is not None:
        row["pmid"] = document.pmid
    row["text"] = text
    row["ents"] = [
        [one.start, one.end, one.type, text[one.start : one.end], *_joined(one.ids)]
        for one in contiguous
    ]
    if any(one.score is not None for one in contiguous):
        row["scores"] = [one.score for one in contiguous]
    if any(one.model is not None for one in contiguous):
        row["models"] = [one.model for one in contiguous]
    if discontinuous := [one for one in annotated.annotations if len(one.fragments) > 1]:
        row["disc"] = [[[list(p) for p in one.fragments], one.type] for one in discontinuous]
    if document.passages != whole(text):
        row["passages"] = [
            {
                "start": passage.start,
                "end": passage.end,
                **({"offset": passage.offset} if passage.offset != passage.start else {}),
                "infons": dict(passage.infons),
            }
            for passage in document.passages
        ]
    native = document.native
    if native is not None and native.format == "jsonl":
        assert isinstance(native.data, dict)
        row.update(sorted(native.data.items()))
    return row


def _joined(ids: tuple[str, ...]) -> list[str]:
    return ["|".join(ids)] if ids else []


def write(documents: Sequence[Annotated], path: Path) -> None:
    """Write a line per document."""
    with path.open("w", encoding="utf8", newline="\n") as file:
        for annotated in documents:
            file.write(json.dumps(to_row(annotated), ensure_ascii=False) + "\n")
