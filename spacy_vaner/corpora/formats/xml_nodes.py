"""XML as small trees with line numbers, one at a time, for files of any length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from spacy_vaner.corpora.formats.base import malformed, numbered_lines
from spacy_vaner.errors import Messages, VanerError

_CHUNK = 1 << 16


@dataclass
class Node:
    """An element. text: all character data directly inside of it."""

    tag: str
    attributes: dict[str, str]
    line: int
    text: str = ""
    children: list[Node] = field(default_factory=list)

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
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_nodes: list[Node] = []
    done: list[Node] = []
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        if not depth and tag != root:
            raise malformed(path, parser.CurrentLineNumber, f"an element <{root}>", f"<{tag}>")
        depth += 1
        if open_nodes or tag in tags:
            node = Node(tag, attributes, parser.CurrentLineNumber)
            if open_nodes:
                open_nodes[-1].children.append(node)
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
            open_nodes[-1].text += text

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    try:
        with path.open("rb") as file:
            is_empty = True
            while chunk := file.read(_CHUNK):
                is_empty = is_empty and not chunk.strip()
                if not is_empty:
                    parser.Parse(chunk, False)
                yield from done
                done.clear()
            if not is_empty:
                parser.Parse(b"", True)
                yield from done
    except OSError as error:
        reason = error.strerror or error
        raise VanerError(Messages.VE202.format(path=path, reason=reason)) from error
    except expat.ExpatError as error:
        for _ in numbered_lines(path):  # Says so if the cause is a file that is not UTF-8.
            pass
        expected = f"XML ({expat.ErrorString(error.code)})"
        found = f"column {error.offset + 1}"
        raise malformed(path, error.lineno, expected, found) from error


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
