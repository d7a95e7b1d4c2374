"""What every reader of a corpus format is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    """

    read: Callable[..., Iterator[Record]]
    about: str
    options: tuple[str, ...] = ()
    has_words: bool = False
    ids_are_pmids: bool = False


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


def malformed(path: Path, line: int, expected: str, found: object) -> VanerError:
    """The error for a line that does not follow its format (VE201)."""
    shown = found if isinstance(found, str) else repr(found)
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
