"""The file formats that corpora come in. A further format is a small file and a row here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spacy_vaner.corpora.formats import iob, jsonl, pubtator
from spacy_vaner.corpora.formats.base import Format, Note, ignore
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Record

FORMATS: dict[str, Format] = {
    "iob": iob.FORMAT,
    "jsonl": jsonl.FORMAT,
    "pubtator": pubtator.FORMAT,
}


def get_format(name: str) -> Format:
    """The row of FORMATS.

    RAISES VanerError: VE204, an unknown format.
    """
    if name not in FORMATS:
        raise VanerError(Messages.VE204.format(name=name, known=", ".join(sorted(FORMATS))))
    return FORMATS[name]


def read_records(
    path: Path, format_name: str, *, note: Note = ignore, **options: object
) -> Iterator[Record]:
    """Read a corpus file.

    note: told of everything odd that is kept, e.g. ("misaligned", "file.txt:12").
    options: of the format (Format.options); None = not given.
    RAISES VanerError: VE204 and VE205, an unknown format or option; VE201 to VE203, a malformed
        file, with its line.
    """
    row = get_format(format_name)
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in row.options:
            takes = ", ".join(row.options) or "none"
            raise VanerError(Messages.VE205.format(name=format_name, option=key, takes=takes))
    return row.read(path, note=note, **given)


__all__ = ["FORMATS", "Format", "Note", "get_format", "ignore", "read_records"]
