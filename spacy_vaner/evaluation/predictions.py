"""What a system found in gold documents, and the file that keeps it.

The file is JSONL, a document per line, in the form that `annotate --to jsonl` writes too:
`{"id": …, "text": …, "ents": [[start, end, type, text], …], "scores": [probability, …]}`.
Beside these stand `"corpus"` and `"types"`, the types that the system was asked for, where whoever
wrote the file knows them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.evaluation.documents import GoldDocument, GoldFile
from spacy_vaner.files import write_whole


class FoundSpan(NamedTuple):
    """A prediction of any system.

    start, end: characters, half-open, exact.
    probability: 0 to 1; None where the system gives none.
    """

    type: str
    start: int
    end: int
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class PredictedDocument:
    """A gold document and what a system found in it.

    types: those that are scored: annotated completely and asked of the system.
    spans: all that was found, of other types too.
    """

    document: GoldDocument
    types: tuple[str, ...]
    spans: tuple[FoundSpan, ...]

    def scored(self) -> tuple[FoundSpan, ...]:
        """The spans of the scored types, each once, in the order of the text.

        Of several with the same type and offsets the most probable one stays.
        """
        best: dict[tuple[int, int, str], FoundSpan] = {}
        for span in self.spans:
            key = (span.start, span.end, span.type)
            if span.type in self.types and (
                key not in best or (span.probability or 0.0) > (best[key].probability or 0.0)
            ):
                best[key] = span
        return tuple(best[key] for key in sorted(best))


class _Row(NamedTuple):
    corpus: str | None
    id: str | None
    types: tuple[str, ...] | None
    text: str
    spans: tuple[FoundSpan, ...]


def write_predictions(path: Path, documents: Iterable[PredictedDocument]) -> None:
    """Write what a system found; scores only where there are any, with six digits."""
    lines = []
    for predicted in documents:
        gold, text = predicted.document.gold, predicted.document.doc.text
        row: dict[str, object] = {
            "corpus": predicted.document.corpus,
            **({"id": gold.id} if gold.id is not None else {}),
            "types": list(predicted.types),
            "text": text,
            "ents": [[s.start, s.end, s.type, text[s.start : s.end]] for s in predicted.spans],
        }
        scores = [span.probability for span in predicted.spans]
        if any(score is not None for score in scores):
            row["scores"] = [None if score is None else round(score, 6) for score in scores]
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(lines).encode("utf8", "surrogatepass"))


def pair_with_gold(
    path: Path, files: Iterable[GoldFile], *, label_map: Mapping[str, str] | None = None
) -> list[PredictedDocument]:
    """Find for every gold document what a file of predictions says of it.

    A line belongs to a document of the same text, unless it names another corpus; of several, the
    one with the document's identifier. Where a line names no types, all that the document
    annotates completely are scored.
    Documents that annotate no type completely are left out.

    label_map: label of the file to type; a label that is missing is taken as the type.
    RAISES VanerError: VE441, a line that cannot be read; VE442, documents without a line; those of
        GoldFile.
    """
    from spacy_vaner.corpora.docbins import make_vocab

    rows: dict[str, list[_Row]] = {}
    for row in _read(path, label_map or {}):
        rows.setdefault(row.text, []).append(row)
    paired: list[PredictedDocument] = []
    missing: list[str] = []
    for file in files:
        vocab = make_vocab()
        for document in file.read(vocab):
            if not document.gold.types:
                continue
            found = _row_of(document, rows.get(document.doc.text, ()))
            if found is None:
                missing.append(f"{file.path}, {document.gold.id or document.doc.text[:40]!r}")
            else:
                asked = document.gold.types if found.types is None else found.types
                types = tuple(type for type in document.gold.types if type in asked)
                paired.append(PredictedDocument(document, types, found.spans))
    if missing:
        raise VanerError(Messages.VE442.format(path=path, n=len(missing), first=missing[0]))
    return paired


def _row_of(document: GoldDocument, rows: Iterable[_Row]) -> _Row | None:
    possible = [row for row in rows if row.corpus in (None, document.corpus)]
    with_its_id = [row for row in possible if row.id == document.gold.id]
    return next(iter([*with_its_id, *possible]), None)


def _read(path: Path, label_map: Mapping[str, str]) -> Iterator[_Row]:
    try:
        content = path.read_bytes().decode("utf8", "surrogatepass")
    except (OSError, UnicodeDecodeError) as error:
        raise VanerError(Messages.VE441.format(path=path, line=1, reason=error)) from error
    # Not splitlines: a text may hold a line separator of Unicode.
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _row(json.loads(line), label_map)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise VanerError(
                Messages.VE441.format(path=path, line=number, reason=reason)
            ) from error


def _row(row: Mapping[str, object], label_map: Mapping[str, str]) -> _Row:
    text, ents = row["text"], row["ents"]
    if not isinstance(text, str) or not isinstance(ents, list):
        raise ValueError('"text" must be a string and "ents" a list')
    scores = row.get("scores") or [None] * len(ents)
    types = row.get("types")
    if not isinstance(scores, list) or len(scores) != len(ents):
        raise ValueError('"scores" must be a list as long as "ents"')
    if types is not None and not isinstance(types, list):
        raise ValueError('"types" must be a list')
    return _Row(
        _string(row, "corpus"),
        _string(row, "id"),
        None if types is None else tuple(map(str, types)),
        text,
        tuple(_span(ent, score, text, label_map) for ent, score in zip(ents, scores, strict=True)),
    )


def _string(row: Mapping[str, object], key: str) -> str | None:
    value = row.get(key)
    return None if value is None else str(value)


def _span(
    ent: Sequence[object], score: object, text: str, label_map: Mapping[str, str]
) -> FoundSpan:
    match ent:
        case [int(start), int(end), str(label), *_] if 0 <= start < end <= len(text):
            pass
        case _:
            raise ValueError(f"{ent!r} is not [start, end, type] inside of the text")
    match score:
        case None:
            probability = None
        case int() | float() if 0 <= score <= 1:
            probability = float(score)
        case _:
            raise ValueError(f"{score!r} is no probability")
    return FoundSpan(label_map.get(label, label), start, end, probability)
