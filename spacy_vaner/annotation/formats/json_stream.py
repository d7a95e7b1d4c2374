"""JSON of any length: the documents of a collection, one at a time.

Behind a fault the next document is looked for: an object that can be read and has the key that
makes it one. Nothing is mended, what stands in between is told as lost.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from spacy_vaner.corpora.formats.base import malformed
from spacy_vaner.errors import VanerError

_CHUNK = 1 << 16
_SPACE = " \t\r\n"
_LITERAL = 16
"""Characters: more than the longest literal and escape of JSON. A fault that is not as near to the
end of what was read is none of what was not read yet."""
_HEAD = 1000
_ID = re.compile(r'"_?id"\s*:\s*(?:"([^"\\\n]*)"|(\d+))')


@dataclass(frozen=True, slots=True)
class Row:
    """A document: its value, the line where it begins, the other keys before it in the file."""

    value: object
    line: int
    header: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """What was lost between two documents. line: where it begins. id: of a document in it, if told.

    reason: the message of VE201, which names the line of the fault.
    """

    line: int
    reason: str
    id: str | None


def read_rows(
    stream: BinaryIO, path: Path, members: tuple[str, ...], *, mark: str
) -> Iterator[Row | BrokenRow]:
    """The documents of a stream: {"documents": [...], ...}, a list, or one value after another.

    path: for messages. members: keys whose list holds the documents.
    mark: the key of a list that every document has and no part of one: a document behind a fault
        is known by it.
    RAISES VanerError: VE201, this is not JSON, and no document can be found behind it.
    """
    text = _Window(stream, path, mark)
    is_mended = False
    while at := text.peek():
        line, start = text.line, text.head()
        try:
            if at == "[":
                yield from _list(text, {})
            elif at == "{":
                yield from _object(text, members)
            elif is_mended and at in ",]}":
                # Brackets and commas of what was lost.
                text.take(at)
            else:
                yield Row(text.value(), line)
        except VanerError as fault:
            yield text.next_document(line, start, fault)
            is_mended = True


def _list(text: _Window, header: dict[str, Any]) -> Iterator[Row | BrokenRow]:
    text.take("[")
    while text.peek() != "]":
        line, start = text.line, text.head()
        try:
            value = text.value()
        except VanerError as fault:
            yield text.next_document(line, start, fault)
            continue
        yield Row(value, line, header)
        if text.peek() != "]":
            text.take(",")
    text.take("]")


def _object(text: _Window, members: tuple[str, ...]) -> Iterator[Row | BrokenRow]:
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

    def __init__(self, stream: BinaryIO, path: Path, mark: str) -> None:
        self.stream, self.path, self.mark = stream, path, mark
        self.decoder = json.JSONDecoder()
        # A byte that is not UTF-8 becomes a half of a surrogate pair: one document is lost by it.
        self.utf8 = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
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
                    check_unicode(value, self.text[self.at : end])
                    self._go_to(end)
                    return value
            except RecursionError as error:
                raise self._fault("JSON that is not nested so deeply") from error
            except json.JSONDecodeError as error:
                # Twice as much at every turn: a value is not parsed again and again.
                if not (self._is_cut(error) and self._more(size)):
                    raise self._fault(f"JSON ({error.msg})", error.pos) from error
                size *= 2
            except ValueError as error:  # a number of thousands of digits, half of a pair
                raise self._fault(f"JSON as it should be ({error})") from error

    def head(self) -> str:
        """The next characters, for the identifier of what may be lost."""
        while len(self.text) - self.at < _HEAD and self._more(_CHUNK):
            pass
        return self.text[self.at : self.at + _HEAD]

    def next_document(self, line: int, start: str, fault: VanerError) -> BrokenRow:
        """Go on at the next document. RAISES VanerError: the fault, there is none.

        line, start: where what is lost began, and how.
        """
        search, size = self.at, _CHUNK
        while True:
            found = self.text.find("{", search)
            if found < 0:
                self._go_to(len(self.text))
                if not self._more(_CHUNK):
                    raise fault
                search = self.at
                continue
            self._go_to(found)
            try:
                value, end = self.decoder.raw_decode(self.text, found)
                check_unicode(value, self.text[found:end])
            except json.JSONDecodeError as error:
                if self._is_cut(error) and self._more(size):
                    search, size = self.at, 2 * size
                else:
                    search, size = found + 1, _CHUNK
            except (RecursionError, ValueError):
                search = found + 1
            else:
                if isinstance(value.get(self.mark), list):
                    return BrokenRow(line, str(fault), self._id_in(start))
                search = end

    def _id_in(self, start: str) -> str | None:
        known = _ID.search(start.partition(f'"{self.mark}"')[0]) if start[:1] == "{" else None
        return (known[1] or known[2]) if known else None

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether a fault may be one of what is not read yet."""
        return error.msg.startswith("Unterminated") or error.pos > len(self.text) - _LITERAL

    def _go_to(self, at: int) -> None:
        self.line += self.text.count("\n", self.at, at)
        self.at = at

    def _more(self, size: int) -> bool:
        if self.is_read:
            return False
        content = self.stream.read(size)
        self.is_read = not content
        new = self.utf8.decode(content, final=self.is_read)
        self.text = self.text[self.at :] + new
        self.at = 0
        return True

    def _fault(self, expected: str, at: int | None = None) -> VanerError:
        at = self.at if at is None else at
        line = self.line + self.text.count("\n", self.at, at)
        found = self.text[at : at + 60].encode("utf8", "replace").decode("utf8")
        return malformed(self.path, line, expected, found or "the end")


def check_unicode(value: object, text: str) -> None:
    """Check that what was read from JSON can be written again.

    text: that it was read from.
    RAISES ValueError: it holds a byte that is not UTF-8, or half of a surrogate pair.
    """
    try:
        if not text.isascii():
            text.encode("utf8")
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf8")
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        if 0xDC80 <= code <= 0xDCFF and not text.isascii():
            raise ValueError(f"this is not UTF-8: byte 0x{code - 0xDC00:02x}") from error
        raise ValueError("it holds half of a surrogate pair") from error
