"""JSONL: a document per line, text and offsets. docs/formats.md, section 7, has the keys."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from spacy_vaner.corpora.formats.base import (
    Format,
    Note,
    ignore,
    malformed,
    numbered_lines,
    sorted_mentions,
    write_lines,
)
from spacy_vaner.types import Mention, Offsets, Record

_OTHER_KEYS = {"entities", "spans", "annotations", "mentions", "label", "labels"}
"""What other tools call the mentions."""
_ENT = '"ents" of [start, end, type], start < end inside the text'
_DISC = '"disc" of [[[start, end], …], type], fragments inside the text'


def read(path: Path, *, note: Note = ignore) -> Iterator[Record]:
    """Read a JSONL file.

    A document without "id" is called by its line number. A mention whose text (fourth element)
    differs from what stands at its offsets is kept at its offsets and noted ("misaligned").

    RAISES VanerError: VE201, a malformed line.
    """
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise malformed(path, number, f"JSON ({error})", line) from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise malformed(path, number, 'an object with a string "text"', line)
        if "ents" not in row and (other := row.keys() & _OTHER_KEYS):
            # Read as "no mention", it would make a corpus of negatives.
            raise malformed(path, number, 'the mentions under "ents"', ", ".join(sorted(other)))
        yield _record(path, number, row, note)


def _record(path: Path, number: int, row: dict[str, object], note: Note) -> Record:
    text = str(row["text"])
    where = f"{path}:{number}"
    mentions: list[Mention] = []
    for ent in _list(path, number, row, "ents", _ENT):
        match ent:
            case [start, end, str(type_), *rest] if type_.strip() and len(rest) < 3:
                fragment = _fragment([start, end], text)
                surface, identifier = (*rest, None, None)[:2]
            case _:
                fragment = None
        if fragment is None:
            raise malformed(path, number, _ENT, ent)
        if surface is not None and surface != text[slice(*fragment)]:
            note("misaligned", where)
        ids = () if identifier is None else (str(identifier),)
        mentions.append(Mention(type_, (fragment,), ids))
    for ent in _list(path, number, row, "disc", _DISC):
        match ent:
            case [[_, *_] as pairs, str(type_)] if type_.strip():
                fragments = sorted(f for f in (_fragment(pair, text) for pair in pairs) if f)
            case _:
                pairs, fragments = [], []
        if not fragments or len(fragments) < len(pairs):
            raise malformed(path, number, _DISC, ent)
        mentions.append(Mention(type_, tuple(fragments)))
    id_, pmid = row.get("id"), row.get("pmid")
    return Record(
        id=str(number if id_ is None else id_),
        text=text,
        mentions=sorted_mentions(mentions, note, where),
        pmid=None if pmid in (None, "") else str(pmid),
        source=where,
    )


def _list(path: Path, number: int, row: dict[str, object], key: str, expected: str) -> list[object]:
    value = row.get(key, [])
    if not isinstance(value, list):
        raise malformed(path, number, expected, value)
    return value


def _fragment(pair: object, text: str) -> Offsets | None:
    match pair:
        case [int(start), int(end)] if 0 <= start < end <= len(text):
            return start, end
    return None


def write(records: Iterable[Record], path: Path, *, note: Note = ignore) -> None:
    """Write all but words and sentences; of several identifiers of a mention the first."""

    def lines() -> Iterator[str]:
        for record in records:
            row: dict[str, object] = {"id": record.id, "text": record.text}
            if record.pmid:
                row["pmid"] = record.pmid
            ents, discontinuous = [], []
            for mention in record.mentions:
                if len(mention.fragments) > 1:
                    discontinuous.append([[list(pair) for pair in mention.fragments], mention.type])
                    continue
                ((start, end),) = mention.fragments
                ents.append([start, end, mention.type, record.text[start:end], *mention.ids[:1]])
                if len(mention.ids) > 1:
                    note("further identifiers left out", record.id)
            row["ents"] = ents
            if discontinuous:
                row["disc"] = discontinuous
            yield json.dumps(row, ensure_ascii=False)

    write_lines(lines(), path)


FORMAT = Format(
    read,
    "JSONL: a document per line, text and offsets",
    write=write,
    carries=frozenset({"text", "nested", "discontinuous"}),
)
