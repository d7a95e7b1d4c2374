"""What every reader of names is made of."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from spacy_vaner.errors import Messages, VanerError

Note = Callable[[str, str], None]
"""Called as note(cause, where) for what is left out; it is counted under its cause."""


class Entry(NamedTuple):
    """A name as a source has it, before it is normalised.

    id: in the source; "" where it gives none.
    source: what the name came from, for the knowledge base's own record.
    """

    name: str
    type: str
    id: str
    source: str


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of source: one row of SOURCES.

    read: called as read(path, note=…, **options); yields the names in the source's order.
    about: one line for `--help`.
    options: the names of the options that `read` takes.
    """

    read: Callable[..., Iterator[Entry]]
    about: str
    options: tuple[str, ...] = ()


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers from 1; `.gz` and `.xz` are unpacked.

    Only "\\n" and "\\r\\n" end a line: a name may hold U+2028 or U+0085.

    RAISES VanerError: VE602, a file that cannot be read; VE603, a line that is not UTF-8.
    """
    number = 0
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        message = Messages.VE603.format(path=path, line=number + (number == 0), byte=byte)
        raise VanerError(message) from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise VanerError(Messages.VE602.format(path=path, line=number, reason=error)) from error


def _open(path: Path) -> IO[bytes] | gzip.GzipFile | lzma.LZMAFile:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".xz":
        return lzma.open(path, "rb")
    return path.open("rb")


def malformed(path: Path, line: int, expected: str, found: str) -> VanerError:
    """The error for a line that does not follow its format (VE601)."""
    shown = found if len(found) <= 80 else found[:80] + "…"
    return VanerError(Messages.VE601.format(path=path, line=line, expected=expected, found=shown))
