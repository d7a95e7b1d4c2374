"""What comes in and goes out over HTTP: bodies read into documents, answers written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spacy_vaner.annotation.document import Annotated, Document, Unreadable, whole
from spacy_vaner.annotation.formats import bioc, jsonl, pubtator
from spacy_vaner.annotation.formats.base import decode
from spacy_vaner.annotation.server.batches import Findings
from spacy_vaner.errors import Messages, VanerError

TEXT, JSON = "text/plain", "application/json"
SETTINGS = ("types", "corpus", "threshold", "to")
"""What a request says in its address; in a body it would be passed over without a word."""
_MAX_DEPTH = 100
_MAX_NUMBER = 2**63
_MAX_PASSAGES = 2_000
_MAX_COVERAGE = 20
"""How often the annotations and passages that a document has may cover its text: the answer holds
the text of each."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a server takes; past it the answer is a refusal.

    body_bytes, documents, types: of a request. characters: of a document.
    waiting: requests that are read, waiting or being answered.
    seconds: from the first byte of a request to its answer.
    """

    body_bytes: int = 1_000_000
    documents: int = 100
    characters: int = 200_000
    types: int = 20
    waiting: int = 64
    seconds: float = 60.0


class Refused(VanerError):
    """A request that gets another answer than it asked for; status: of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def too_large(status: int, what: str, number: int, unit: str, limit: int, option: str) -> Refused:
    """What is told where a limit on size is passed."""
    return Refused(
        status,
        Messages.VE751.format(
            what=what, number=f"{number:,} {unit}", limit=f"{limit:,}", option=option
        ),
    )


def read_documents(body: bytes, content_type: str, limits: ServerLimits) -> list[Document]:
    """The documents of a body: a text, a document of JSONL or BioC JSON, or several of them.

    RAISES Refused: 413, 415, 422.
    """
    kind, _, parameters = content_type.partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower().removeprefix("charset=")
    kind = kind.strip().lower()
    if kind not in (TEXT, JSON) or charset not in ("", "utf-8", "utf8"):
        raise Refused(415, Messages.VE753.format(given=content_type or "(none)"))
    try:
        text = decode(body.removeprefix(b"\xef\xbb\xbf"))
        documents = [Document("1", text, whole(text))] if kind == TEXT else _of_json(text, limits)
    except Unreadable as error:
        raise _unreadable(error) from error
    for number, document in enumerate(documents, start=1):
        _check_size(document, number, limits)
    return documents


def _unreadable(reason: object) -> Refused:
    return Refused(422, Messages.VE752.format(reason=str(reason).rstrip(".")))


def _of_json(text: str, limits: ServerLimits) -> list[Document]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"this is not JSON ({error})") from error
    _check_plain(value)
    if not isinstance(value, dict):
        raise Unreadable('expected an object with "text", "passages" or "documents"')
    if said := [key for key in SETTINGS if key in value]:
        raise Unreadable(f'"{said[0]}" belongs into the address: /annotate?{said[0]}=…')
    rows = value.get("documents", [value])
    if not isinstance(rows, list):
        raise Unreadable('"documents" must be a list')
    if len(rows) > limits.documents:
        raise too_large(
            422, "the request", len(rows), "documents", limits.documents, "--max-documents"
        )
    header = {key: value[key] for key in value if key != "documents"}
    return [_document(row, number, header) for number, row in enumerate(rows, start=1)]


def _document(row: object, number: int, header: Mapping[str, Any]) -> Document:
    position = f"document {number}"
    try:
        id_ = row.get("id") if isinstance(row, dict) else None
        if isinstance(id_, bool) or not isinstance(id_, (str, int, type(None))):
            raise Unreadable(f'"id" must be a text or a number; found: {id_!r}')
        if isinstance(row, dict) and isinstance(row.get("passages"), list) and "text" not in row:
            return _bioc_document(row, number, header)
        return jsonl.read_row(row, number, position)
    except Unreadable as error:
        raise Unreadable(f"{position}: {error}") from error


def _bioc_document(row: dict[str, Any], number: int, header: Mapping[str, Any]) -> Document:
    n_passages = sum(
        1 + len(passage.get("sentences") or ())
        for passage in row["passages"]
        if isinstance(passage, dict)
    )
    if n_passages > _MAX_PASSAGES:
        raise Unreadable(
            f"it has {n_passages:,} passages and sentences, more than {_MAX_PASSAGES:,}"
        )
    id_ = row.get("id", row.get("_id"))
    # A document that is sent alone is its own collection.
    header = {} if header.keys() == row.keys() else header
    return bioc.read_document(row, str(number if id_ is None else id_), header=header)


def _check_plain(value: object) -> None:
    """RAISES Unreadable: JSON that Python reads and nobody could read again."""
    level, depth = [value], 0
    while level:
        depth += 1
        below: list[object] = []
        for one in level:
            if isinstance(one, dict):
                below += [*one.keys(), *one.values()]
            elif isinstance(one, list):
                below += one
            elif isinstance(one, (int, float)) and not abs(one) < _MAX_NUMBER:
                raise Unreadable("it holds a number that is too large")
            elif isinstance(one, str):
                try:
                    one.encode("utf8")
                except UnicodeEncodeError as error:
                    raise Unreadable("it holds half of a surrogate pair") from error
        if depth > _MAX_DEPTH:
            raise Unreadable(f"it is nested in more than {_MAX_DEPTH} levels")
        level = below


def _check_size(document: Document, number: int, limits: ServerLimits) -> None:
    """RAISES Refused: 413, too long a document; 422, one with too many passages or annotations."""
    n = len(document.text)
    if n > limits.characters:
        what = f"document {number} of the request"
        raise too_large(413, what, n, "characters", limits.characters, "--max-characters")
    pairs = [pair for one in document.annotations for pair in one.fragments]
    pairs += [(passage.start, passage.end) for passage in document.passages]
    if (
        len(document.passages) > _MAX_PASSAGES
        or sum(end - start for start, end in pairs) > _MAX_COVERAGE * n
    ):
        raise _unreadable(
            f"document {number}: it has more than {_MAX_PASSAGES:,} passages, or annotations that "
            f"cover its text more than {_MAX_COVERAGE} times"
        )


def write_answer(
    findings: Findings, to: str | None, *, model: str, threshold: float
) -> tuple[bytes, str]:
    """The documents with what was found at or above a probability. RETURNS: body, media type.

    to: json, jsonl, bioc_json or pubtator; None = BioC JSON for what came as such, else json.
    """
    documents = [_above(one, threshold) for one in findings.documents]
    if to is None:
        is_bioc = any(
            one.document.native is not None and one.document.native.format == "bioc"
            for one in documents
        )
        to = "bioc_json" if is_bioc else "json"
    return _WRITERS[to](documents, findings, model)


def _above(one: Annotated, threshold: float) -> Annotated:
    kept = tuple(a for a in one.found if a.score is None or a.score >= threshold)
    return Annotated(one.document, kept)


def _json(documents: Sequence[Annotated], findings: Findings, model: str) -> tuple[bytes, str]:
    rows = [jsonl.to_row(one) for one in documents]
    return _dump(
        {"model": model, "documents": rows, "across_passages": findings.across_passages}
    ), JSON


def _jsonl(documents: Sequence[Annotated], findings: Findings, model: str) -> tuple[bytes, str]:
    return b"".join(_dump(jsonl.to_row(one)) + b"\n" for one in documents), "application/x-ndjson"


def _bioc(documents: Sequence[Annotated], findings: Findings, model: str) -> tuple[bytes, str]:
    rows = [bioc.to_row(one) for one in documents]
    return _dump({**bioc.collection_header(documents), "documents": rows}), JSON


def _pubtator(documents: Sequence[Annotated], findings: Findings, model: str) -> tuple[bytes, str]:
    lines = [line + "\n" for one in documents for line in pubtator.to_lines(one)]
    return "".join(lines).encode("utf8"), "text/plain; charset=utf-8"


_WRITERS = {"json": _json, "jsonl": _jsonl, "bioc_json": _bioc, "pubtator": _pubtator}


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf8")
