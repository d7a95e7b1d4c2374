"""brat and BioNLP standoff: a text file with a file of annotations beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from spacy_vaner.corpora.formats.base import (
    Format,
    Note,
    document_path,
    files_in,
    ignore,
    malformed,
    numbered_lines,
    read_text,
    single_line,
    sorted_mentions,
    squeezed,
    written_beside,
)
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Mention, Offsets, Record

_ANNOTATIONS = (".ann", ".a1", ".a2")
_SPAN = re.compile(r"(\S.*?) (\d+ \d+(?:;\d+ \d+)*)")
_REFERENCE = re.compile(r"Reference (T\S+) (\S.*)")
_EXPECTED = "'T1<tab>Type start end<tab>text', end exclusive; 'start end;start end' for fragments"


def read(
    path: Path, *, note: Note = ignore, keep: Callable[[str], bool] = lambda id_: True
) -> Iterator[Record]:
    """Read a folder (and those below it), or one document: its .txt, .ann, .a1 or .a2.

    A document is called by its file's name. Identifiers come from normalisation lines
    (`N1<tab>Reference T1 …`); relations, events, attributes and comments are passed over. A .txt
    without annotations beside it is passed over and noted, since its mentions are not known.

    keep: says of an identifier whether the document is wanted.
    RAISES VanerError: VE201 to VE203, a malformed or missing file.
    """
    if path.is_dir():
        texts = {file.with_suffix(".txt") for file in files_in(path, *_globs(*_ANNOTATIONS))}
        for lonely in sorted({*path.rglob("*.txt")} - texts):
            note("text without annotations", str(lonely))
    else:
        texts = {files_in(path)[0].with_suffix(".txt")}
    for text_path in sorted(path for path in texts if keep(path.stem)):
        yield _record(text_path, note)


def write(records: Iterable[Record], path: Path, *, note: Note = ignore) -> None:
    """Write a folder with ID.txt and ID.ann per document.

    RAISES VanerError: VE217, a folder that is there already; VE219, two documents of one name.
    """
    with written_beside(path) as folder:
        folder.mkdir()
        for record in records:
            text_path = document_path(folder, record.id)
            text_path.write_bytes(record.text.encode("utf8"))
            lines = "".join(line + "\n" for line in _annotation_lines(record))
            text_path.with_suffix(".ann").write_bytes(lines.encode("utf8"))


def _annotation_lines(record: Record) -> Iterator[str]:
    n_references = 0
    for number, mention in enumerate(record.mentions, start=1):
        offsets = ";".join(f"{start} {end}" for start, end in mention.fragments)
        surface = " ".join(single_line(record.text[slice(*pair)]) for pair in mention.fragments)
        yield f"T{number}\t{single_line(mention.type)} {offsets}\t{surface}"
        for identifier in mention.ids:
            n_references += 1
            yield f"N{n_references}\tReference T{number} {single_line(identifier)}\t"


def _record(text_path: Path, note: Note) -> Record:
    annotations = [text_path.with_suffix(suffix) for suffix in _ANNOTATIONS]
    found = [file for file in annotations if file.exists()]
    if not found:
        reason = f"there is no {annotations[0].name} (nor .a1) beside it"
        raise VanerError(Messages.VE202.format(path=text_path, reason=reason))
    text = read_text(text_path)
    mentions: dict[str, Mention] = {}
    for file in found:
        for number, line in numbered_lines(file):
            if line.startswith("T"):
                id_, mention = _mention(file, number, line, text, note)
                if id_ in mentions:
                    raise malformed(
                        file, number, f"an identifier other than {id_}, used before", line
                    )
                mentions[id_] = mention
            elif line.startswith("N"):
                _add_reference(file, number, line, mentions)
            elif line.strip() and line[0] not in "REAM*#":
                raise malformed(file, number, f"{_EXPECTED}, or a line R, E, A, M, N, * or #", line)
    where = str(found[0])
    return Record(
        text_path.stem, text, sorted_mentions([*mentions.values()], note, where), source=where
    )


def _mention(path: Path, number: int, line: str, text: str, note: Note) -> tuple[str, Mention]:
    columns = line.split("\t")
    span = _SPAN.fullmatch(columns[1].strip()) if len(columns) > 2 else None
    if span is None:
        raise malformed(path, number, _EXPECTED, line)
    fragments: list[Offsets] = []
    for pair in span[2].split(";"):
        start, end = map(int, pair.split())
        if not 0 <= start < end <= len(text):
            expected = f"start < end inside the {len(text)} characters of the text"
            raise malformed(path, number, expected, f"{start} {end}")
        fragments.append((start, end))
    fragments.sort()
    surface = " ".join(text[start:end] for start, end in fragments)
    if squeezed("\t".join(columns[2:])) != squeezed(surface):
        note("misaligned", f"{path}:{number}")
    return columns[0], Mention(span[1], tuple(fragments))


def _add_reference(path: Path, number: int, line: str, mentions: dict[str, Mention]) -> None:
    columns = line.split("\t")
    reference = _REFERENCE.fullmatch(columns[1].strip()) if len(columns) > 1 else None
    if reference is None or reference[1] not in mentions:
        raise malformed(path, number, "'N1<tab>Reference T1 identifier', T1 in a line before", line)
    mention = mentions[reference[1]]
    mentions[reference[1]] = replace(mention, ids=(*mention.ids, reference[2]))


def _globs(*suffixes: str) -> list[str]:
    return [f"*{suffix}" for suffix in suffixes]


FORMAT = Format(
    read,
    "brat standoff: a folder of .txt with .ann (or .a1, .a2)",
    write=write,
    selects=True,
    carries=frozenset({"text", "nested", "discontinuous", "ids"}),
)
