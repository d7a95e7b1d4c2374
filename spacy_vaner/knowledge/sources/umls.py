"""UMLS in its release form (RRF): MRCONSO has the names, MRSTY the semantic types.

Which type a semantic type stands for is the table umls_types.json, or a user's own. UMLS needs a
licence of its own; nothing of it is in this package.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from importlib.resources import files
from pathlib import Path

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.knowledge.sources.base import Entry, Note, Source, malformed, read_lines

CONSO_COLUMNS = 18
STY_COLUMNS = 6


def read_umls(
    path: Path,
    *,
    note: Note,
    languages: Collection[str] = ("ENG",),
    vocabularies: Collection[str] | None = None,
    types: Path | None = None,
) -> Iterator[Entry]:
    """Read a folder with MRCONSO.RRF and MRSTY.RRF (or both with .gz).

    A concept with semantic types of several of our types gives its names under each. Suppressed
    names are left out.

    languages: codes of column LAT.
    vocabularies: codes of column SAB, e.g. MSH, SNOMEDCT_US; None = all.
    types: a table as umls_types.json; None = that.
    RAISES VanerError: VE601, a line with a missing column; VE602, a missing file; VE606, a table of
        another form.
    """
    table = umls_types(types)
    types_of: dict[str, tuple[str, ...]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    for number, cells in _rows(_find(path, "MRSTY.RRF"), STY_COLUMNS, note):
        cui, tui = cells[0], cells[1]
        if tui not in table:
            note(f"semantic type {tui} that is not in the table", f"MRSTY.RRF, line {number}")
            continue
        joined = tuple(dict.fromkeys((*types_of.get(cui, ()), *table[tui])))
        types_of[cui] = shared.setdefault(joined, joined)
    for number, cells in _rows(_find(path, "MRCONSO.RRF"), CONSO_COLUMNS, note):
        cui, language, vocabulary, name, suppressed = (cells[i] for i in (0, 1, 11, 14, 16))
        if language not in languages or (vocabularies and vocabulary not in vocabularies):
            continue
        if suppressed != "N":
            note("suppressed name", f"MRCONSO.RRF, line {number}")
        elif cui not in types_of:
            note("name of a concept without a type", f"MRCONSO.RRF, line {number}")
        else:
            for type in types_of[cui]:
                yield Entry(name, type, cui, f"UMLS:{vocabulary}")


def umls_types(path: Path | None = None) -> dict[str, tuple[str, ...]]:
    """The table from the identifier of a semantic type (TUI) to our types.

    RAISES VanerError: VE606, a file of another form.
    """
    place = files("spacy_vaner.knowledge.sources").joinpath("umls_types.json")
    try:
        text = (place if path is None else path).read_text(encoding="utf8")
        rows = json.loads(text)
        table = {tui: tuple(row["types"]) for tui, row in rows.items()}
        if not all(isinstance(row["types"], list) for row in rows.values()):
            raise TypeError('"types" must be a list')
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VanerError(Messages.VE606.format(path=path or place, reason=repr(error))) from error
    return table


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise VanerError(Messages.VE602.format(path=folder / name, line=0, reason="no such file"))


def _rows(path: Path, n_columns: int, note: Note) -> Iterator[tuple[int, list[str]]]:
    """The lines, cut at "|"; every field ends with one, also the last."""
    for number, line in read_lines(path):
        cells = line.split("|")
        if len(cells) != n_columns + 1 or cells[-1]:
            raise malformed(path, number, f"{n_columns} columns, each ended by |", line)
        yield number, cells


UMLS = Source(
    read_umls,
    "a folder with UMLS's MRCONSO.RRF and MRSTY.RRF",
    ("languages", "vocabularies", "types"),
)
