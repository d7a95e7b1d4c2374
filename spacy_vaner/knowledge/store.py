"""The knowledge base: names with their types, in one Parquet file.

One row per name: `name`, and the parallel lists `types`, `ids` and `sources` with one element per
type. Names that differ in case or white space only are one name; a name keeps every type that any
source gives it, so that it is never taken for a negative of a type that it may be.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole
from spacy_vaner.knowledge.dependencies import library
from spacy_vaner.knowledge.sources.base import Entry

MAX_CHARS = 100
"""Longest name that is taken; longer ones are systematic names and glosses that no text uses."""

_FORMAT = b"spacy_vaner.knowledge_base"
_VERSION = b"1"
_EXAMPLES = 3


class Hit(NamedTuple):
    """A name that was found: its position in the knowledge base and its cosine, -1 to 1."""

    position: int
    score: float


@dataclass
class BuildReport:
    """Counts of one build; nothing that was left out or joined is missing here.

    n_read: names as the sources have them. n_names: in the knowledge base.
    n_repeated: names that were there already with their type.
    types: type -> names. n_several_types: names of more than one type.
    sources: source -> pairs of name and type that it gave first.
    left_out: cause -> number, with a few places in `examples`.
    """

    n_read: int = 0
    n_names: int = 0
    n_repeated: int = 0
    n_several_types: int = 0
    types: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, cause: str, where: str) -> None:
        """Count what is left out; the first few places are kept."""
        self.left_out[cause] += 1
        examples = self.examples.setdefault(cause, [])
        if len(examples) < _EXAMPLES:
            examples.append(where)


class KnowledgeBase:
    """Names and their types; position i of all sequences is name i.

    names: unique up to case and white space, in the order of the sources.
    types: per name, one or more.
    ids, sources: per name, parallel to its types.
    """

    def __init__(
        self,
        names: Sequence[str],
        types: Sequence[tuple[str, ...]],
        ids: Sequence[tuple[str, ...]],
        sources: Sequence[tuple[str, ...]],
    ) -> None:
        self.names = names
        self.types = types
        self.ids = ids
        self.sources = sources

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names and types in their order: what an index is made from."""
        digest = hashlib.sha256()
        digest.update("\n".join(self.names).encode())
        digest.update(b"\0")
        digest.update("\n".join("\t".join(types) for types in self.types).encode())
        return digest.hexdigest()

    @cached_property
    def by_type(self) -> dict[str, list[int]]:
        """Type -> positions of the names that have it."""
        positions: dict[str, list[int]] = {}
        for position, types in enumerate(self.types):
            for type in types:
                positions.setdefault(type, []).append(position)
        return positions

    def positions(self, types: Sequence[str]) -> Sequence[int]:
        """Positions of the names that have any of the types, sorted."""
        if len(types) == 1:
            return self.by_type.get(types[0], ())
        key = tuple(types)
        if key not in self._positions_of:
            found = {position for type in types for position in self.by_type.get(type, ())}
            self._positions_of[key] = sorted(found)
        return self._positions_of[key]

    @cached_property
    def _positions_of(self) -> dict[tuple[str, ...], list[int]]:
        return {}

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name_key(name): position for position, name in enumerate(self.names)}

    def find(self, name: str) -> int | None:
        """The position of a name, whatever its case and white space; None if it is not there."""
        return self._positions.get(name_key(name))

    def to_file(self, path: Path) -> None:
        """Write the Parquet file; it appears when it is complete."""
        pa, parquet = library("pyarrow"), library("pyarrow.parquet")
        lists = pa.list_(pa.string())
        table = pa.table(
            {
                "name": pa.array(self.names, pa.string()),
                "types": pa.array(self.types, lists),
                "ids": pa.array(self.ids, lists),
                "sources": pa.array(self.sources, lists),
            }
        ).replace_schema_metadata({_FORMAT: _VERSION})
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink, compression="zstd")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, sink.getvalue())

    @classmethod
    def from_file(cls, path: Path) -> KnowledgeBase:
        """Read what to_file wrote.

        RAISES VanerError: VE608, another or a damaged file; VE609, of another version.
        """
        pa, parquet = library("pyarrow"), library("pyarrow.parquet")
        try:
            table = parquet.read_table(path)
            version = (table.schema.metadata or {}).get(_FORMAT)
            if version is None:
                raise KeyError("it does not say that it is a knowledge base")
            columns = [table.column(name) for name in ("name", "types", "ids", "sources")]
        except (OSError, KeyError, pa.ArrowException) as error:
            raise VanerError(Messages.VE608.format(path=path, reason=error)) from error
        if version != _VERSION:
            raise VanerError(Messages.VE609.format(path=path, version=version.decode()))
        names = columns[0].to_pylist()
        return cls(names, *(_shared_tuples(column) for column in columns[1:]))


def build(entries: Iterable[Entry], report: BuildReport) -> KnowledgeBase:
    """Normalise and join names.

    The first source of a name gives its spelling; of each of its types, the id and the source.

    report: filled in.
    RAISES VanerError: VE610, no name at all; VE611, a type whose name cannot be asked.
    """
    positions: dict[str, int] = {}
    names: list[str] = []
    rows: list[tuple[Entry, ...]] = []
    shared: dict[str, str] = {}
    for entry in entries:
        report.n_read += 1
        name = normalised(entry.name)
        reason = _unusable(name)
        if reason:
            report.note(reason, f"{entry.name[:60]!r}, {entry.source}")
            continue
        if not entry.type.strip() or any(mark in entry.type for mark in ":=\n\r"):
            raise VanerError(Messages.VE611.format(type=entry.type, name=entry.name))
        # The same few types and sources a million times: one object each.
        entry = Entry(
            "",
            shared.setdefault(entry.type, entry.type),
            entry.id,
            shared.setdefault(entry.source, entry.source),
        )
        key = name_key(name)
        position = positions.setdefault(key, len(names))
        if position == len(names):
            names.append(name)
            rows.append((entry,))
        elif any(known.type == entry.type for known in rows[position]):
            report.n_repeated += 1
            continue
        else:
            rows[position] = (*rows[position], entry)
        report.types[entry.type] += 1
        report.sources[entry.source] += 1
    if not names:
        raise VanerError(Messages.VE610)
    report.n_names = len(names)
    report.n_several_types = sum(len(row) > 1 for row in rows)
    shared_types: dict[tuple[str, ...], tuple[str, ...]] = {}
    types = [tuple(entry.type for entry in row) for row in rows]
    return KnowledgeBase(
        names,
        [shared_types.setdefault(row, row) for row in types],
        [tuple(entry.id for entry in row) for row in rows],
        [tuple(entry.source for entry in row) for row in rows],
    )


def normalised(name: str) -> str:
    """A name as it is stored: composed characters (NFC), single blanks, none outside."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def name_key(name: str) -> str:
    """What names are compared by: normalised and in lower case."""
    return normalised(name).casefold()


def _unusable(name: str) -> str | None:
    """Why a normalised name can't be an entity's name; None if it can."""
    if len(name) < 2:
        return "shorter than two characters"
    if len(name) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    if not any(char.isalpha() for char in name):
        return "without a letter"
    return None


def _shared_tuples(column: Any) -> list[tuple[str, ...]]:
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}

    def tuples() -> Iterator[tuple[str, ...]]:
        # Chunk by chunk: to_pylist of a million lists at once takes a gigabyte.
        for chunk in column.chunks:
            for values in chunk.to_pylist():
                row = tuple(values)
                yield shared.setdefault(row, row)

    return list(tuples())
