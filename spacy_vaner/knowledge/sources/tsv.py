"""Term lists: a table with tabs and a header with the columns name, type and id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spacy_vaner.knowledge.sources.base import Entry, Note, Source, malformed, read_lines

COLUMNS = ("name", "type", "id", "source")


def read_tsv(path: Path, *, note: Note, type: str | None = None) -> Iterator[Entry]:
    """Read a term list; columns of other names are not used.

    type: of all names, where the table has no column `type`; the columns id and source may be
        absent too (then the source is the file's name).
    RAISES VanerError: VE601, a header without names or types, or a line with fewer columns.
    """
    places: dict[str, int] = {}
    n_columns = 0
    for number, line in read_lines(path):
        cells = line.split("\t")
        if number == 1:
            header = [cell.strip().lower() for cell in cells]
            places = {column: header.index(column) for column in COLUMNS if column in header}
            n_columns = len(cells)
            if "name" not in places or (type is None and "type" not in places):
                expected = "a header with the columns name and type (and id, source)"
                raise malformed(path, number, expected, line)
            continue
        if not line.strip():
            continue
        if len(cells) != n_columns:
            raise malformed(path, number, f"{n_columns} columns as in the header", line)
        row = {column: cells[place].strip() for column, place in places.items()}
        entry_type = row.get("type") or type or ""
        if not entry_type:
            note("name without a type", f"{path}, line {number}")
            continue
        yield Entry(row["name"], entry_type, row.get("id", ""), row.get("source") or path.name)


TSV = Source(
    read_tsv, "a table with tabs and a header: name, type and, if there, id, source", ("type",)
)
