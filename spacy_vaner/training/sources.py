"""Documents out of text files and files of names, plain or xz, one at a time.

Text: UTF-8, one document a line. Names: a table with tabs and the columns `name`, `type` and `id`;
the synonyms of a concept become one phrase that states the type.
"""

from __future__ import annotations

import lzma
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from spacy_vaner.errors import Messages, VanerError

Kind = Literal["text", "names"]

_KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".txt.xz": "text",
    ".tsv": "names",
    ".tsv.xz": "names",
}
_COLUMNS = ("name", "type", "id")

# Concepts of a document of names: alone they would be rows of separators.
_CONCEPTS_PER_DOCUMENT = 16
# Names of one phrase; a concept with more gives several.
_NAMES_PER_PHRASE = 8


class Source(NamedTuple):
    """A file to read.

    kind: "text" or "names".
    repeat: how often its documents are written; names come in another order each time.
    """

    path: Path
    kind: Kind
    repeat: int = 1


def find_sources(paths: Iterable[Path], repeat: dict[str, int] | None = None) -> list[Source]:
    """The files among paths and, sorted, below the folders among them.

    repeat: file name → how often.
    RAISES VanerError: VE506, a path that is no source, or a folder without one; VE520, a file name
        in `repeat` that is none of theirs.
    """
    repeat = dict(repeat or {})
    sources = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and _kind(p))
            if not found:
                raise VanerError(Messages.VE506.format(path=path, reason="no such file in it"))
        elif not path.is_file():
            raise VanerError(Messages.VE506.format(path=path, reason="there is no such file"))
        else:
            found = [path]
        for file in found:
            kind = _kind(file)
            if kind is None:
                raise VanerError(Messages.VE506.format(path=file, reason="another kind of file"))
            sources.append(Source(file, kind, repeat.get(file.name, 1)))
    unknown = sorted(set(repeat) - {source.path.name for source in sources})
    if unknown:
        problem = f"--repeat names files that are no sources: {', '.join(unknown)}."
        raise VanerError(Messages.VE520.format(problem=problem))
    return sources


def read_documents(source: Source) -> Iterator[str]:
    """The documents of a source, `repeat` times; empty lines give empty documents.

    RAISES VanerError: VE503-VE505, with file and line.
    """
    for repetition in range(source.repeat):
        if source.kind == "text":
            yield from (line for _, line in read_lines(source.path))
        else:
            yield from _name_documents(source.path, seed=repetition)


def read_names(path: Path, *, without: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Name and type of every row of a .tsv or .tsv.xz file.

    without: beginnings of values of the column `source`; their rows are left out.
    RAISES VanerError: VE503-VE505, with file and line.
    """
    left_out = tuple(without)
    columns = (*_COLUMNS, "source") if left_out else _COLUMNS
    for name, type_, _, *source in _cells(path, columns):
        if not source or not source[0].startswith(left_out):
            yield name, type_


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of every line of a plain or xz file, white space stripped.

    RAISES VanerError: VE503, not UTF-8; VE504, a damaged or truncated file.
    """
    number = 0
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield number, line.decode("utf8").strip()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise VanerError(Messages.VE503.format(path=path, line=number, byte=byte)) from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise VanerError(Messages.VE504.format(path=path, line=number, reason=error)) from None


def _kind(path: Path) -> Kind | None:
    return _KINDS.get("".join(path.suffixes[-2:])) or _KINDS.get(path.suffix)


def _name_documents(path: Path, *, seed: int) -> Iterator[str]:
    order = random.Random(seed)
    phrases = []
    for (type_, _), names in read_concepts(path).items():
        order.shuffle(names)
        for start in range(0, len(names), _NAMES_PER_PHRASE):
            phrases.append(f"{type_}: {'; '.join(names[start : start + _NAMES_PER_PHRASE])}.")
    # Files are sorted by name as a rule: neighbours would give each other away.
    order.shuffle(phrases)
    for start in range(0, len(phrases), _CONCEPTS_PER_DOCUMENT):
        yield " ".join(phrases[start : start + _CONCEPTS_PER_DOCUMENT])


def read_concepts(path: Path) -> dict[tuple[str, str], list[str]]:
    """(type, identifier) → names; a name without an identifier is a concept of its own.

    RAISES VanerError: VE503-VE505, with file and line.
    """
    concepts: dict[tuple[str, str], list[str]] = {}
    for name, type_, id_ in _cells(path, _COLUMNS):
        concepts.setdefault((type_, id_ or f"\t{name}"), []).append(name)
    return concepts


def _cells(path: Path, wanted: Sequence[str]) -> Iterator[list[str]]:
    """The values of some columns, row by row."""
    columns: list[int] = []
    n_cells = 0
    for number, line in read_lines(path):
        cells = line.split("\t")
        if not columns:
            missing = [name for name in wanted if name not in cells]
            if missing:
                expected = f"the column {missing[0]!r} in the header"
                raise _bad_row(path, number, expected, line)
            columns, n_cells = [cells.index(name) for name in wanted], len(cells)
        elif line:
            if not max(columns) < len(cells) <= n_cells:
                raise _bad_row(path, number, f"{n_cells} columns", line)
            yield [cells[column].strip() for column in columns]


def _bad_row(path: Path, number: int, expected: str, line: str) -> VanerError:
    return VanerError(
        Messages.VE505.format(path=path, line=number, expected=expected, found=line[:80])
    )
