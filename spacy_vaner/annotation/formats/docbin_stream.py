"""`.spacy` files of any length: a DocBin, in parts that are DocBins of some documents each.

A DocBin is one packed MessagePack table, and holds one column after the other: the tokens of all
documents, then their user data, and so on. So it is unpacked into a temporary file, and each column
is read there from its own place. In memory are one part and the distinct strings of the file.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterator
from typing import IO, BinaryIO

from spacy.tokens import DocBin

_CHUNK = 1 << 16
_PART = 64
"""Documents in a part."""
_LISTS = ("cats", "flags", "span_groups", "user_data")
"""Columns with a value per document; older files lack some."""

_LENGTHS = {
    **dict.fromkeys((0xC4, 0xC7, 0xD9), ">B"),
    **dict.fromkeys((0xC5, 0xC8, 0xDA, 0xDC, 0xDE), ">H"),
    **dict.fromkeys((0xC6, 0xC9, 0xDB, 0xDD, 0xDF), ">I"),
}
"""First byte of a value of MessagePack → how its length is written."""
_FIXED = dict(zip(range(0xCA, 0xD9), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17), strict=True))
"""First byte → bytes that follow: numbers, then values of types of their own."""


def read_parts(stream: BinaryIO) -> Iterator[DocBin]:
    """The parts in order; the first one holds the strings of all.

    RAISES ValueError: this is no DocBin, or it is damaged. Others are possible as well: what is in
        the table is taken for what DocBin makes of it.
    """
    with tempfile.TemporaryFile() as file:
        _unpack(stream, file)
        file.seek(0)
        columns = _columns(file)
        for name in ("attrs", "tokens", "spaces", "lengths", "strings"):
            if name not in columns:
                raise ValueError(f"it has no {name!r}")
        yield from _parts(file, columns)


def _unpack(stream: BinaryIO, file: IO[bytes]) -> None:
    unpacker = zlib.decompressobj()
    try:
        while not unpacker.eof and (chunk := unpacker.unconsumed_tail or stream.read(_CHUNK)):
            file.write(unpacker.decompress(chunk, _CHUNK))
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not unpacker.eof:
        raise ValueError("it is cut off")


def _columns(file: IO[bytes]) -> dict[str, int]:
    """Name of a column → where its value begins."""
    n_items, _ = _head(file)
    columns = {}
    for _ in range(n_items // 2):
        _, n_bytes = _head(file)
        name = file.read(n_bytes).decode("utf8")
        columns[name] = file.tell()
        _skip(file, 1)
    return columns


def _parts(file: IO[bytes], columns: dict[str, int]) -> Iterator[DocBin]:
    file.seek(columns["lengths"])
    n_docs = _head(file)[1] // 4
    attrs = _value(file, columns["attrs"])
    strings = _value(file, columns["strings"])
    at: dict[str, int] = {}
    for name in ("tokens", "spaces", "lengths", *(name for name in _LISTS if name in columns)):
        file.seek(columns[name])
        _head(file)
        at[name] = file.tell()
    file.seek(columns["attrs"])
    n_attrs, _ = _head(file)
    for first in range(0, max(n_docs, 1), _PART):
        size = min(_PART, n_docs - first)
        lengths = _take(file, at, "lengths", 4 * size)
        n_tokens = sum(struct.unpack(f"={size}i", lengths))
        part = {
            "attrs": attrs,
            "strings": strings,
            "lengths": _binary(lengths),
            "spaces": _binary(_take(file, at, "spaces", n_tokens)),
            "tokens": _binary(_take(file, at, "tokens", 8 * n_attrs * n_tokens)),
        }
        for name in at.keys() & set(_LISTS):
            file.seek(at[name])
            _skip(file, size)
            n_bytes = file.tell() - at[name]
            part[name] = b"\xdd" + struct.pack(">I", size) + _take(file, at, name, n_bytes)
        table = b"".join(
            bytes([0xA0 | len(name)]) + name.encode("utf8") + value for name, value in part.items()
        )
        yield DocBin().from_bytes(zlib.compress(bytes([0x80 | len(part)]) + table, 0))
        strings = b"\x90"


def _take(file: IO[bytes], at: dict[str, int], name: str, n_bytes: int) -> bytes:
    """The next bytes of a column. RAISES ValueError: it does not have as many."""
    file.seek(at[name])
    content = file.read(n_bytes)
    at[name] += n_bytes
    if len(content) < n_bytes:
        raise ValueError(f"{name!r} ends too early")
    return content


def _value(file: IO[bytes], start: int) -> bytes:
    """A value as it is written."""
    file.seek(start)
    _skip(file, 1)
    end = file.tell()
    file.seek(start)
    return file.read(end - start)


def _binary(content: bytes) -> bytes:
    return b"\xc6" + struct.pack(">I", len(content)) + content


def _skip(file: IO[bytes], n_values: int) -> None:
    """Pass over values."""
    while n_values:
        n_items, n_bytes = _head(file)
        n_values += n_items - 1
        file.seek(n_bytes, 1)


def _head(file: IO[bytes]) -> tuple[int, int]:
    """Read the head of a value of MessagePack.

    RETURNS: how many values it is made of (a table's keys and values both count), and how many
        bytes of its own follow; one of the two is 0.
    RAISES ValueError: the file ends here.
    """
    first = file.read(1)
    if not first:
        raise ValueError("it ends too early")
    kind = first[0]
    if kind in _FIXED:
        return 0, _FIXED[kind]
    if kind in _LENGTHS:
        form = _LENGTHS[kind]
        (length,) = struct.unpack(form, file.read(struct.calcsize(form)))
        if kind >= 0xDC:
            return (length if kind < 0xDE else 2 * length), 0
        # A value of a type of its own has a byte for the type.
        return 0, length + (0xC7 <= kind <= 0xC9)
    if 0x80 <= kind < 0x90:
        return 2 * (kind & 0x0F), 0
    if 0x90 <= kind < 0xA0:
        return kind & 0x0F, 0
    return 0, (kind & 0x1F if 0xA0 <= kind < 0xC0 else 0)
