"""What every reader of a corpus format is made of."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Mention, Record

Note = Callable[[str, str], None]
"""Called as note(cause, where) for what is odd but kept: it ends in the conversion report."""


def ignore(cause: str, where: str) -> None:
    """The note taker of a caller that wants no report."""


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: one row of FORMATS.

    read: called as read(path, note=…, **options); yields a file's records in their order.
    about: one line for `--help`.
    options: the names of the options that `read` takes.
    has_words: the source gives tokens (view `tokens`), not raw text.
    ids_are_pmids: the documents' identifiers are PubMed's, by the format's convention.
    write: called as write(records, path, note=…); what the format cannot carry is left out and
        noted. Every format can say documents, types and contiguous mentions that do not overlap.
    selects: `read` takes keep=…, which it asks of an identifier before it reads the document.
    carries: what it can say beyond that: "text" (exact, white space included), "nested"
        (overlapping mentions of one type too), "discontinuous", "sentences", "ids",
        "alternatives".
    """

    read: Callable[..., Iterator[Record]]
    about: str
    options: tuple[str, ...] = ()
    has_words: bool = False
    ids_are_pmids: bool = False
    write: Callable[..., None] | None = None
    carries: frozenset[str] = frozenset()
    selects: bool = False


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers from 1, without line ends and byte order mark.

    Only "\\n" and "\\r\\n" end a line: a word may hold U+2028 or U+0085.

    RAISES VanerError: VE202, a file that cannot be opened; VE203, a line that is not UTF-8.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        reason = error.strerror or error
        raise VanerError(Messages.VE202.format(path=path, reason=reason)) from error
    with file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = raw[error.start]
                raise VanerError(
                    Messages.VE203.format(path=path, line=number, byte=byte)
                ) from error
            yield number, line.removesuffix("\n").removesuffix("\r")


def read_text(path: Path) -> str:
    """A UTF-8 file as it stands, line ends too, without byte order mark: offsets count so.

    RAISES VanerError: VE202, a file that cannot be opened; VE203, a line that is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise VanerError(
            Messages.VE202.format(path=path, reason=error.strerror or error)
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise VanerError(Messages.VE203.format(path=path, line=line, byte=byte)) from error


def files_in(path: Path, *patterns: str) -> list[Path]:
    """The file, or the files in a folder and below it whose name fits a pattern, by name.

    RAISES VanerError: VE202, nothing there.
    """
    if path.is_dir():
        found = sorted({file for pattern in patterns for file in path.rglob(pattern)})
        if not found:
            reason = f"the folder holds no {' or '.join(patterns)}"
            raise VanerError(Messages.VE202.format(path=path, reason=reason))
        return found
    if not path.is_file():
        raise VanerError(Messages.VE202.format(path=path, reason="No such file or directory"))
    return [path]


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Another name to write to; it takes the place of `path` when all went well, else it goes.

    What is written may be a file or a folder.

    RAISES VanerError: VE217, `path` is a folder that holds something.
    """
    if path.is_dir() and any(path.iterdir()):
        raise VanerError(Messages.VE217.format(path=path))
    beside = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(beside)
    try:
        yield beside
        os.replace(beside, path)
    finally:
        _remove(beside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def document_path(folder: Path, document_id: str) -> Path:
    """Where a document's text goes in a folder that is written: named as the document is.

    RAISES VanerError: VE219, another document has that name.
    """
    path = folder / (re.sub(r"[^\w.\- ]", "_", document_id) + ".txt")
    if path.exists():
        expected = "documents of different names"
        raise VanerError(
            Messages.VE219.format(path=folder.parent, expected=expected, found=document_id)
        )
    return path


def write_lines(lines: Iterable[str], path: Path) -> None:
    """Write lines as UTF-8, each with "\\n"; the file appears when it is complete."""
    with written_beside(path) as beside:
        with beside.open("w", encoding="utf8", newline="\n") as file:
            file.writelines(line + "\n" for line in lines)


def single_line(text: str) -> str:
    """The text with a blank for every tab and every character that ends a line: same offsets."""
    return text.translate(_BLANKS)


_BLANKS = {ord(mark): " " for mark in "\t\n\r"}


def squeezed(text: str) -> str:
    """The text with single blanks for all white space, to compare what formats repeat."""
    return " ".join(text.split())


def malformed(path: Path, line: int, expected: str, found: object) -> VanerError:
    """The error for a line that does not follow its format (VE201)."""
    shown = found if isinstance(found, str) else repr(found)
    shown = shown.replace("\r", "\\r").replace("\n", "\\n")
    if len(shown) > 80:
        shown = shown[:80] + "…"
    return VanerError(Messages.VE201.format(path=path, line=line, expected=expected, found=shown))


def sorted_mentions(mentions: list[Mention], note: Note, where: str) -> tuple[Mention, ...]:
    """Mentions in the order of Record.mentions; an exact repetition is noted and left out."""
    unique: dict[tuple[object, ...], Mention] = {}
    for mention in sorted(mentions, key=lambda m: (m.fragments, m.type)):
        key = (mention.fragments, mention.type)
        if key in unique:
            note("repeated mention", where)
        else:
            unique[key] = mention
    return tuple(unique.values())
