"""XML as small trees with line numbers, one at a time, for files of any length."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from spacy_vaner.corpora.formats.base import malformed, numbered_lines
from spacy_vaner.errors import Messages, VanerError

_CHUNK = 1 << 16
_LONGEST_TAG = 100
"""Bytes at the end of a chunk in which a tag may begin that ends in the next one."""


@dataclass(slots=True)
class Node:
    """An element. content: character data and elements directly inside of it, as they come."""

    tag: str
    attributes: dict[str, str]
    line: int
    content: list[str | Node] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All character data directly inside of it."""
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def children(self) -> list[Node]:
        """All elements directly inside of it."""
        return [part for part in self.content if isinstance(part, Node)]

    def all(self, tag: str) -> list[Node]:
        """The children of that name."""
        return [child for child in self.children if child.tag == tag]

    def first(self, tag: str) -> Node | None:
        """The first child of that name."""
        return next((child for child in self.children if child.tag == tag), None)


def read_nodes(path: Path, root: str, *tags: str) -> Iterator[Node]:
    """The elements of these names, each when it is complete; inside of one they do not count.

    root: what the outermost element must be called.
    RAISES VanerError: VE201, the file is no such XML; VE202 and VE203, it cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from stream_nodes(file, path, {root}, tags)
    except OSError as error:
        reason = error.strerror or error
        raise VanerError(Messages.VE202.format(path=path, reason=reason)) from error
    except BrokenXML as error:
        for _ in numbered_lines(path):  # Says so if the cause is a file that is not UTF-8.
            pass
        raise error.told from error


class BrokenXML(Exception):
    """XML that is not well-formed.

    told: the message for users. node: the element that is lost, as far as it goes; None between
    two. line: where that element starts, else of the fault.
    """

    def __init__(self, told: VanerError, line: int, node: Node | None) -> None:
        super().__init__(str(told))
        self.told, self.line, self.node = told, line, node


def stream_nodes(
    stream: BinaryIO, path: Path, roots: Collection[str], tags: Collection[str]
) -> Iterator[Node]:
    """The elements of these names out of a stream, each when it is complete.

    Nothing is fetched, and a document that declares entities of its own is refused: they are not
    needed here, and can be made to expand without end.

    path: for messages. roots: what the outermost element may be called.
    RAISES VanerError: VE201, another outermost element, or an entity that is declared.
    RAISES BrokenXML: it is not well-formed.
    """
    yield from _Trees(path, roots, tags).read(_Tape(stream))


def recover_nodes(
    stream: BinaryIO,
    path: Path,
    roots: Collection[str],
    tags: Collection[str],
    *,
    starts: Sequence[str],
) -> Iterator[Node | BrokenXML]:
    """As `stream_nodes`; behind a fault it goes on with the next of the lost element's name.

    What is lost is yielded as BrokenXML. An element in which the next of its name begins counts
    as broken there: its end is missing. Nothing is mended, since that would alter the text. In
    an encoding that does not hold ASCII (UTF-16) the rest of the file is lost.

    starts: of tags, with which it goes on where no element was open.
    RAISES VanerError: VE201, as stream_nodes.
    """
    tape = _Tape(stream)
    trees: _Trees | None = _Trees(path, roots, tags, is_flat=True)
    while trees is not None:
        try:
            yield from trees.read(tape)
            return
        except BrokenXML as fault:
            yield fault
            trees = trees.after_fault(tape, [fault.node.tag] if fault.node else starts)


class _Tape:
    """A stream that can be put back a little. at: how many bytes of it have been read."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.at = 0
        self._behind = self._ahead = b""

    def read(self) -> bytes:
        """The next chunk; nothing at the end."""
        chunk = self._ahead or self.stream.read(_CHUNK)
        self._ahead = b""
        self._behind = (self._behind + chunk)[-3 * _CHUNK :]
        self.at += len(chunk)
        return chunk

    def put_back(self, at: int) -> None:
        """Go back to a place, or as far as it is remembered."""
        n_bytes = min(self.at - at, len(self._behind))
        if n_bytes > 0:
            self._ahead = self._behind[-n_bytes:] + self._ahead
            self._behind = self._behind[:-n_bytes]
            self.at -= n_bytes

    def skip_to(self, pattern: re.Pattern[bytes], *, at_least: int) -> int | None:
        """Go to where a pattern begins, some bytes from here at least.

        RETURNS: line ends passed; None where it is not found.
        """
        n_lines, kept = 0, b""
        while chunk := self.read():
            text = kept + chunk
            found = pattern.search(text, at_least)
            at_least = 0
            end = found.start() if found else max(0, len(text) - _LONGEST_TAG)
            n_lines += text.count(b"\n", 0, end)
            if found:
                self.put_back(self.at - len(text) + end)
                return n_lines
            kept = text[end:]
        return None


class _Trees:
    """A parser of bytes that yields the elements of some names.

    is_flat: none of them may stand in one of its own name.
    above: elements that count as open at the start. line: number of the first one.
    """

    def __init__(
        self,
        path: Path,
        roots: Collection[str],
        tags: Collection[str],
        *,
        is_flat: bool = False,
        above: Sequence[str] = (),
        line: int = 1,
        encoding: str | None = None,
    ) -> None:
        self.path, self.roots, self.tags, self.is_flat = path, roots, tags, is_flat
        self.encoding = encoding
        self.root = ""
        self.above: list[str] = []
        self.place = [*above] if above else None
        """What was open around the last element of these names, and will be around the next."""
        self.open_nodes: list[Node] = []
        self.done: list[Node] = []
        self.lines_before = line - 1
        self.start = self.fault_at = 0
        self.fault_line = line
        self.parser = parser = expat.ParserCreate(encoding)
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.EntityDeclHandler = self._entity
        # With a DTD that is not read, an entity nobody knows would be left out of the text.
        parser.SkippedEntityHandler = self._unknown_entity
        head = "".join(f"<{tag}>" for tag in above).encode("utf8")
        self.bytes_before = len(head)
        if head:
            parser.Parse(head, False)

    def read(self, tape: _Tape) -> Iterator[Node]:
        """The elements. RAISES BrokenXML, VanerError: as `stream_nodes`."""
        self.start = tape.at
        first = tape.at - self.bytes_before
        is_empty = True
        is_end = False
        while not is_end:
            chunk = tape.read()
            is_end = not chunk
            is_empty = is_empty and not chunk.strip()
            if is_empty:
                # Blanks before the first tag are forgiven, and so is a file of nothing else.
                continue
            fault: BrokenXML | None = None
            try:
                self.parser.Parse(chunk, is_end)
            except expat.ExpatError as error:
                at = self.parser.ErrorByteIndex
                fault = self._broken(
                    f"XML ({expat.ErrorString(error.code)})",
                    _shown(chunk[max(0, first + at - tape.at + len(chunk)) :]),
                    at,
                )
            except BrokenXML as error:
                fault = error
            # What was complete before the fault is good.
            yield from self.done
            self.done.clear()
            if fault is not None:
                self.fault_at += first
                raise fault

    def after_fault(self, tape: _Tape, starts: Sequence[str]) -> _Trees | None:
        """Go to the next start tag of these names; None if there is none."""
        if not self.root:
            return None
        names = b"|".join(re.escape(tag).encode("utf8") for tag in starts)
        tape.put_back(self.fault_at)
        pattern = re.compile(rb"<(?:" + names + rb")(?=[\s/>])")
        # An element may begin at the fault; but not that with which this parser began.
        n_lines = tape.skip_to(pattern, at_least=int(self.fault_at == self.start))
        if n_lines is None:
            return None
        return _Trees(
            self.path,
            self.roots,
            self.tags,
            is_flat=self.is_flat,
            above=[self.root] if self.place is None else self.place,
            line=self.fault_line + n_lines,
            encoding=self.encoding,
        )

    def _broken(self, expected: str, found: str, at: int) -> BrokenXML:
        """at: in bytes of this parser."""
        self.fault_at, self.fault_line = at, self._line
        told = malformed(self.path, self.fault_line, expected, found)
        node = self.open_nodes[0] if self.open_nodes else None
        return BrokenXML(told, node.line if node else self.fault_line, node)

    @property
    def _line(self) -> int:
        return self.lines_before + self.parser.CurrentLineNumber

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        self.encoding = encoding

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self.root:
            if tag not in self.roots:
                expected = " or ".join(f"<{root}>" for root in self.roots)
                raise malformed(self.path, self._line, f"an element {expected}", f"<{tag}>")
            self.root = tag
        if self.is_flat and self.open_nodes and tag == self.open_nodes[0].tag:
            expected = f"</{tag}> of line {self.open_nodes[0].line}"
            raise self._broken(expected, f"<{tag}>", self.parser.CurrentByteIndex)
        if self.open_nodes or tag in self.tags:
            node = Node(tag, attributes, self._line)
            if self.open_nodes:
                self.open_nodes[-1].content.append(node)
            else:
                self.place = [*self.above]
            self.open_nodes.append(node)
        else:
            self.above.append(tag)

    def _end(self, tag: str) -> None:
        if not self.open_nodes:
            self.above.pop()
            return
        node = self.open_nodes.pop()
        if not self.open_nodes:
            self.done.append(node)

    def _characters(self, text: str) -> None:
        if self.open_nodes:
            self.open_nodes[-1].content.append(text)

    def _entity(self, name: str, *_: object) -> None:
        raise malformed(self.path, self._line, "XML without entities of its own", name)

    def _unknown_entity(self, name: str, *_: object) -> None:
        raise self._broken("XML without unknown entities", name, self.parser.CurrentByteIndex)


def _shown(content: bytes) -> str:
    return content[:60].decode("utf8", "replace") or "the end of the file"


def element(tag: str, content: str = "", **attributes: object) -> str:
    """An element as text; content is put in as it is."""
    given = "".join(
        f" {name.strip('_').replace('_', '-')}={quoteattr(_legal(str(value)))}"
        for name, value in attributes.items()
    )
    return f"<{tag}{given}>{content}</{tag}>"


def escaped(text: str) -> str:
    """Text for XML; a character that XML cannot hold becomes a blank, so that offsets stay."""
    return escape(_legal(text), {"\r": "&#13;"})


def _legal(text: str) -> str:
    return "".join(
        c if c in "\t\n\r" or " " <= c and c not in "\ufffe\uffff" else " " for c in text
    )
