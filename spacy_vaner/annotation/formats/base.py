"""What the formats of documents are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from spacy_vaner.annotation.document import Annotated, Document, Rejection, Unreadable

Read = Callable[[BinaryIO, str], Iterator[Document | Rejection]]
"""Called with the open file and its name; raises VanerError where no more can be read."""

Write = Callable[[Sequence[Annotated], Path], None]
"""Called with the documents of a shard and the file (or folder) to make."""


@dataclass(frozen=True, slots=True)
class InputFormat:
    """A format that is read: one row of INPUTS.

    suffixes: of files in a folder that are taken as such, in lower case.
    roots: the outermost element, for XML formats, which share a suffix.
    is_single: a file holds one document, so that files are put together into shards.
    """

    read: Read
    suffixes: tuple[str, ...]
    roots: tuple[str, ...] = ()
    is_single: bool = False


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """A format that is written: one row of OUTPUTS.

    suffix: of a file; empty where a folder is made.
    needs: the package that has to be installed, if any.
    """

    write: Write
    suffix: str
    needs: str = ""


def stem(name: str) -> str:
    """The name of a file without folders, ".gz" and its suffix."""
    path = PurePosixPath(name)
    if path.suffix.lower() == ".gz":
        path = path.with_suffix("")
    return path.stem


def lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers from 1, without line end and byte order mark.

    Only "\\n" and "\\r\\n" end a line: a text may hold U+2028 or U+0085.
    """
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield number, line.removesuffix(b"\n").removesuffix(b"\r")


def decode(content: bytes) -> str:
    """RAISES Unreadable: this is not UTF-8."""
    try:
        return content.decode("utf8")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise Unreadable(f"this is not UTF-8 (byte 0x{byte:02x} at {error.start})") from error
