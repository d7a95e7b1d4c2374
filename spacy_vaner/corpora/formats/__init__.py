"""The file formats that corpora come in. A further format is a small file and a row here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from spacy_vaner.corpora.formats import (
    bc2gm,
    bioc,
    brat,
    iob,
    jsonl,
    knowtator,
    pubtator,
    spacy_docs,
    vaner_jsonl,
)
from spacy_vaner.corpora.formats.base import Format, Note, ignore
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Record

FORMATS: dict[str, Format] = {
    "bc2gm": bc2gm.FORMAT,
    "bioc_json": bioc.JSON,
    "bioc_xml": bioc.XML,
    "brat": brat.FORMAT,
    "iob": iob.FORMAT,
    "jsonl": jsonl.FORMAT,
    "knowtator": knowtator.FORMAT,
    "pubtator": pubtator.FORMAT,
    "spacy": spacy_docs.DOCBIN,
    "spacy_json": spacy_docs.JSON,
    "vaner_jsonl": vaner_jsonl.FORMAT,
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
    """Read a corpus file, or a folder where the format takes one.

    note: told of everything odd that is kept, e.g. ("misaligned", "file.txt:12").
    options: of the format (Format.options, and `keep` where it selects); None = not given.
    RAISES VanerError: VE204 and VE205, an unknown format or option; VE201 to VE203, a malformed
        file, with its line.
    """
    row = get_format(format_name)
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in row.options and not (key == "keep" and row.selects):
            takes = ", ".join(row.options) or "none"
            raise VanerError(Messages.VE205.format(name=format_name, option=key, takes=takes))
    return row.read(path, note=note, **given)


def write_records(
    records: Iterable[Record],
    path: Path,
    format_name: str,
    *,
    note: Note = ignore,
    **options: object,
) -> None:
    """Write a corpus file, or a folder where the format has one; it appears when it is complete.

    note: told of everything that the format cannot carry (Format.carries), with the document.
    options: of the format's writer.
    RAISES VanerError: VE204, an unknown format; VE217 to VE219, what cannot be written.
    """
    row = get_format(format_name)
    if row.write is None:
        known = ", ".join(sorted(name for name, form in FORMATS.items() if form.write))
        raise VanerError(Messages.VE218.format(name=format_name, known=known))

    def told() -> Iterator[Record]:
        for record in records:
            if record.alternatives and "alternatives" not in row.carries:
                note("alternative boundaries left out", record.id)
            yield record

    row.write(told(), path, note=note, **options)


__all__ = ["FORMATS", "Format", "Note", "get_format", "ignore", "read_records", "write_records"]
