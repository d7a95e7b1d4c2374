"""JSON of any length: the documents of a collection, one at a time."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from spacy_vaner.corpora.formats.base import malformed
from spacy_vaner.errors import VanerError

_CHUNK = 1 << 16
_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Row:
    """A document: its value, the line where it begins, the other keys before it in the file."""

    value: object
    line: int
    header: dict[str, Any] = field(default_factory=dict)


def read_rows(stream: BinaryIO, path: Path, members: tuple[str, ...]) -> Iterator[Row]:
    """The documents of a stream: {"documents": [...], ...}, a list, or one value after another.

    path: for messages. members: keys whose list holds the documents.
    RAISES VanerError: VE201, this is not JSON; nothing can be read behind it.
    """
    text = _Window(stream, path)
    while mark := text.peek():
        if mark == "[":
            yield from _list(text, {})
        elif mark == "{":
            yield from _object(text, members)
        else:
            line = text.line
            yield Row(text.value(), line)


def _list(text: _Window, header: dict[str, Any]) -> Iterator[Row]:
    text.take("[")
    while text.peek() != "]":
        line = text.line
        yield Row(text.value(), line, header)
        if text.peek() != "]":
            text.take(",")
    text.take("]")


def _object(text: _Window, members: tuple[str, ...]) -> Iterator[Row]:
    """An object with documents, or one that is a document itself."""
    line = text.line
    header: dict[str, Any] = {}
    found = False
    text.take("{")
    while text.peek() != "}":
        key = text.value()
        text.take(":")
        if key in members and text.peek() == "[":
            found = True
            yield from _list(text, header)
        else:
            header[str(key)] = text.value()
        if text.peek() != "}":
            text.take(",")
    text.take("}")
    if not found:
        yield Row(header, line)


class _Window:
    """The part of the text that has been read and not yet used up."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self.stream, self.path = stream, path
        self.decoder = json.JSONDecoder()
        self.utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.line, self.is_read = "", 0, 1, False

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            start = self.at
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            self.line += self.text.count("\n", start, self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more(_CHUNK):
                return ""

    def take(self, mark: str) -> None:
        """RAISES VanerError: VE201, another character stands there."""
        if self.peek() != mark:
            raise self._fault(f"JSON with {mark!r} here")
        self.at += 1

    def value(self) -> Any:
        """The next value, whole. RAISES VanerError: VE201, it is none."""
        if not self.peek():
            raise self._fault("JSON, but the file ends here")
        size = _CHUNK
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
                # A number or a literal at the very end may go on in the next chunk.
                if end < len(self.text) or self.is_read or not self._more(_CHUNK):
                    self.line += self.text.count("\n", self.at, end)
                    self.at = end
                    return value
            except RecursionError as error:
                raise self._fault("JSON that is not nested so deeply") from error
            except json.JSONDecodeError as error:
                # Twice as much at every turn: a value is not parsed again and again.
                if not self._more(size):
                    raise self._fault(f"JSON ({error.msg})", error.pos) from error
                size *= 2

    def _more(self, size: int) -> bool:
        if self.is_read:
            return False
        content = self.stream.read(size)
        self.is_read = not content
        try:
            new = self.utf8.decode(content, final=self.is_read)
        except UnicodeDecodeError as error:
            raise self._fault("UTF-8") from error
        self.text = self.text[self.at :] + new
        self.at = 0
        return True

    def _fault(self, expected: str, at: int | None = None) -> VanerError:
        at = self.at if at is None else at
        line = self.line + self.text.count("\n", self.at, at)
        return malformed(self.path, line, expected, self.text[at : at + 60] or "the end")
