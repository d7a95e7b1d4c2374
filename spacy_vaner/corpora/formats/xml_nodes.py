"""XML as small trees with line numbers, one at a time, for files of any length."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from spacy_vaner.corpora.formats.base import malformed, numbered_lines
from spacy_vaner.errors import Messages, VanerError

_CHUNK = 1 << 16


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
    """The XML ends, or breaks off, here. told: the message for users."""

    def __init__(self, told: VanerError) -> None:
        super().__init__(str(told))
        self.told = told


def stream_nodes(
    stream: BinaryIO, path: Path, roots: Collection[str], tags: Collection[str]
) -> Iterator[Node]:
    """The elements of these names out of a stream, each when it is complete.

    Nothing is fetched, and a document that declares entities of its own is refused: they are not
    needed here, and can be made to expand without end.

    path: for messages. roots: what the outermost element may be called.
    RAISES VanerError: VE201, another outermost element, or an entity.
    RAISES BrokenXML: it is not well-formed.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_nodes: list[Node] = []
    done: list[Node] = []
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        if not depth and tag not in roots:
            expected = " or ".join(f"<{root}>" for root in roots)
            raise malformed(path, parser.CurrentLineNumber, f"an element {expected}", f"<{tag}>")
        depth += 1
        if open_nodes or tag in tags:
            node = Node(tag, attributes, parser.CurrentLineNumber)
            if open_nodes:
                open_nodes[-1].content.append(node)
            open_nodes.append(node)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        if open_nodes:
            node = open_nodes.pop()
            if not open_nodes:
                done.append(node)

    def characters(text: str) -> None:
        if open_nodes:
            open_nodes[-1].content.append(text)

    def entity(name: str, *_: object) -> None:
        raise malformed(path, parser.CurrentLineNumber, "XML without entities of its own", name)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.EntityDeclHandler = entity
    # With a DTD that is not read, an entity nobody knows would be left out of the text.
    parser.SkippedEntityHandler = entity
    try:
        is_empty = True
        while chunk := stream.read(_CHUNK):
            is_empty = is_empty and not chunk.strip()
            if not is_empty:
                parser.Parse(chunk, False)
            yield from done
            done.clear()
        if not is_empty:
            parser.Parse(b"", True)
            yield from done
    except expat.ExpatError as error:
        # What was complete before the fault is good.
        yield from done
        expected = f"XML ({expat.ErrorString(error.code)})"
        found = f"column {error.offset + 1}"
        raise BrokenXML(malformed(path, error.lineno, expected, found)) from error


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
