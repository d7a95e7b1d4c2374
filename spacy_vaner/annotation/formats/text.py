"""Plain text: one document a file, named as the file is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from spacy_vaner.annotation.document import Document, Rejection, whole
from spacy_vaner.annotation.formats.base import decode, stem


def read(stream: BinaryIO, name: str) -> Iterator[Document | Rejection]:
    """Read a file as one document; line ends count as they stand, a byte order mark does not."""
    text = decode(stream.read().removeprefix(b"\xef\xbb\xbf"))
    yield Document(stem(name), text, whole(text), position="line 1")
