"""What is to be annotated: files found, opened and cut into shards, the same way every time."""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import re
import sqlite3
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from spacy_vaner.annotation.document import Document, Rejection, Unreadable
from spacy_vaner.annotation.formats import INPUTS, get_input
from spacy_vaner.errors import Messages, VanerError

STDIN = "-"
_GLOB = re.compile(r"[*?\[]")
_ROOT = re.compile(rb"<([A-Za-z][\w.-]*)")
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """How documents are cut into shards.

    documents, characters: of a shard, at most; a longer document is a shard of its own.
    document_characters: of a document; a longer one is rejected.
    """

    documents: int = 500
    characters: int = 1_000_000
    document_characters: int = 10_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """Files that are read one after another and numbered as one series of shards.

    name: what results are called; folders of the input are kept in it.
    files: path and shown name, relative to the input. Several where each holds one document.
    size_bytes: of all files; None for standard input.
    """

    name: str
    format: str
    files: tuple[tuple[str, str], ...]
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Shard:
    """Documents that are annotated together, and written as one file.

    digest: of everything that was read, so that another content is noticed.
    size_bytes: of its source.
    read_bytes: of the input, since the shard before; as they are stored, for the progress bar.
    is_last: of its source.
    """

    source: str
    number: int
    documents: tuple[Document, ...]
    rejections: tuple[Rejection, ...]
    digest: str
    size_bytes: int | None
    read_bytes: int
    is_last: bool

    @property
    def name(self) -> str:
        return f"{self.source}.{self.number:05d}"


def find_sources(given: str, format_name: str | None, limits: Limits) -> list[Source]:
    """The sources of a file, a folder with those below it, a glob or "-", by name.

    format_name: of all files; None = by suffix, XML by its outermost element. In a folder and
        with a glob, files of other suffixes are passed over.
    RAISES VanerError: VE702, nothing there; VE703, a format that cannot be told; VE704, two files
        whose results would have one name.
    """
    if format_name is not None:
        get_input(format_name)
    if given == STDIN:
        if format_name is None:
            raise VanerError(Messages.VE703.format(path="standard input", known=_known()))
        return [Source("stdin", format_name, ((STDIN, STDIN),), None)]
    path = Path(given)
    if path.is_dir():
        root, found = path, sorted(file for file in path.rglob("*") if file.is_file())
    elif path.is_file():
        root, found = path.parent, [path]
    elif _GLOB.search(given):
        found = sorted(Path(name) for name in glob.glob(given, recursive=True))
        found = [file for file in found if file.is_file()]
        root = _common_folder(given)
    else:
        found = []
    files: dict[str, list[tuple[Path, str]]] = {}
    for file in found:
        shown = file.relative_to(root)
        its_format = _format_of(file, shown, format_name, is_alone=path.is_file())
        if its_format is not None:
            files.setdefault(its_format, []).append((file, shown.as_posix()))
    if not files:
        raise VanerError(Messages.VE702.format(path=given, known=_known()))
    sources = [
        source for name in sorted(files) for source in _sources_of(name, files[name], limits)
    ]
    sources.sort(key=lambda source: source.name)
    for one, other in zip(sources, sources[1:], strict=False):
        if one.name == other.name:
            raise VanerError(
                Messages.VE704.format(one=one.files[0][1], other=other.files[0][1], name=one.name)
            )
    return sources


def _known() -> str:
    return ", ".join(INPUTS)


def _common_folder(pattern: str) -> Path:
    """The folder that the fixed part of a glob names."""
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if _GLOB.search(part))
    return Path(*parts[:fixed])


def _suffixed(file: Path) -> Path:
    return file.with_suffix("") if file.suffix.lower() == ".gz" else file


def _has_suffix(file: Path, format_name: str) -> bool:
    return _suffixed(file).name.lower().endswith(get_input(format_name).suffixes)


def _format_of(file: Path, shown: Path, format_name: str | None, *, is_alone: bool) -> str | None:
    """The format by suffix, XML by its outermost element; None for a file to pass over.

    RAISES VanerError: VE703, a file that was named and cannot be told.
    """
    if not is_alone and any(part.startswith(".") for part in shown.parts):
        return None
    if format_name is not None:
        return format_name if is_alone or _has_suffix(file, format_name) else None
    fits = [name for name in INPUTS if _has_suffix(file, name)]
    if any(INPUTS[name].roots for name in fits):
        root = _root_of(file)
        # One without an element (cut off, empty) is for a reader to reject, whichever it is.
        fits = [name for name in fits if root is None or root in INPUTS[name].roots]
    if not fits and is_alone:
        raise VanerError(Messages.VE703.format(path=file, known=_known()))
    return fits[0] if fits else None


def _root_of(file: Path) -> str | None:
    """The name of the outermost element; None if the file's head has none or cannot be read."""
    head = b""
    # By pieces: what stands before the place where a packed file is cut off can be read.
    with (
        suppress(OSError, EOFError, zlib.error),
        file.open("rb") as raw,
        _unpacked(raw, file.name) as stream,
    ):
        while len(head) < _HEAD_BYTES and (piece := stream.read(256)):
            head += piece
    found = _ROOT.search(re.sub(rb"<!--.*?-->", b"", head, flags=re.DOTALL))
    return found[1].decode("ascii", "replace") if found else None


def _sources_of(
    format_name: str, files: list[tuple[Path, str]], limits: Limits
) -> Iterator[Source]:
    """A source per file; files of one document each are put together, as many as a shard holds."""
    is_single = get_input(format_name).is_single
    step = limits.documents if is_single else 1
    for at in range(0, len(files), step):
        group = files[at : at + step]
        name = _name_of(group[0][1])
        yield Source(
            name=name,
            format=format_name,
            files=tuple((str(path), shown) for path, shown in group),
            size_bytes=sum(path.stat().st_size for path, _ in group),
        )


def _name_of(shown: str) -> str:
    """The name of a file without the suffixes that say its format."""
    path = Path(shown)
    if path.suffix.lower() == ".gz":
        path = path.with_suffix("")
    name = path.with_suffix("")
    if name.suffix.lower() == ".bioc":
        name = name.with_suffix("")
    return name.as_posix()


@contextmanager
def _unpacked(raw: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The content of a file, whether it is packed or not: by its first bytes, not its name."""
    if raw.peek(2)[:2] == b"\x1f\x8b":  # type: ignore[attr-defined]  # opened buffered
        with gzip.open(raw) as stream:
            yield cast(BinaryIO, stream)
    else:
        yield raw


class _Known:
    """The identifiers of a file's documents, on disk, so that memory stays flat.

    SQLite's temporary database: it stays in a cache of 2 MB as long as it fits, then goes to a
    file that has no name and is gone when it is closed.
    """

    def __init__(self) -> None:
        self.database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for line in (
            "PRAGMA cache_size = -2000",
            "PRAGMA journal_mode = OFF",
            "CREATE TABLE known (id BLOB PRIMARY KEY, position TEXT) WITHOUT ROWID",
            "BEGIN",
        ):
            self.database.execute(line)

    def close(self) -> None:
        self.database.close()

    def check(self, found: Document | Rejection, name: str) -> Document | Rejection:
        """The document, or a rejection if one before it has its identifier."""
        if isinstance(found, Rejection):
            return found
        # As bytes: SQLite's text ends at a NUL, and takes no half of a surrogate pair.
        row = found.id.encode("utf8", "surrogatepass"), found.position
        try:
            is_new = self.database.execute(
                "INSERT OR IGNORE INTO known VALUES (?, ?)", row
            ).rowcount
            if is_new:
                return found
            query = "SELECT position FROM known WHERE id = ?"
            (first,) = self.database.execute(query, row[:1]).fetchone()
        except sqlite3.Error as error:
            raise OSError(
                f"no room for identifiers in the folder for temporary files: {error}"
            ) from error
        reason = f"the identifier {found.id!r} comes twice in this file: first at {first}"
        return Rejection(name, found.position, reason, found.id)


def read_source(source: Source, limits: Limits) -> Iterator[tuple[Document | Rejection, int]]:
    """The documents of a source with the bytes read up to there.

    A file that breaks off gives what stands before the fault, and a rejection of the rest. Of
    documents with one identifier in a file the first is taken, the others are rejected; in
    another file it may be a new version, as in PubMed's daily files.
    """
    read, roots = get_input(source.format).read, get_input(source.format).roots
    before = 0
    for path, name in source.files:
        at, last, n_found = 0, "", 0
        try:
            with (
                _opened(path) as raw,
                _unpacked(raw, name) as stream,
                closing(_Known()) as known,
            ):
                for found in read(stream, name):
                    last, n_found = found.position, n_found + 1
                    at = raw.tell() if path != STDIN else 0
                    yield _within(known.check(found, name), name, limits), before + at
            if roots and not n_found and path != STDIN and _root_of(Path(path)) is None:
                yield Rejection(name, "start", "there is no XML in this file"), before + at
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            reason = f"the packed file is damaged or cut off ({error})"
            yield Rejection(name, _after(last), reason), before + at
        except (VanerError, Unreadable) as error:
            yield Rejection(name, _after(last), str(error)), before + at
        except OSError as error:
            reason = f"the file cannot be read ({error.strerror or error})"
            yield Rejection(name, _after(last), reason), before + at
        if path != STDIN and Path(path).exists():
            before += Path(path).stat().st_size


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == STDIN:
        stream = io.BufferedReader(cast(io.RawIOBase, sys.stdin.buffer))
        try:
            yield stream
        finally:
            stream.detach()  # standard input is not ours to close
    else:
        with open(path, "rb") as raw:
            yield raw


def _after(position: str) -> str:
    return f"after {position}" if position else "start"


def _within(found: Document | Rejection, name: str, limits: Limits) -> Document | Rejection:
    if isinstance(found, Document) and len(found.text) > limits.document_characters:
        reason = (
            f"the document has {len(found.text):,} characters, more than "
            f"{limits.document_characters:,} (--max-characters)"
        )
        return Rejection(name, found.position, reason, found.id)
    return replace(found, file=name) if isinstance(found, Document) else found


def cut(source: Source, limits: Limits) -> Iterator[Shard]:
    """The shards of a source. There is one at least, so that an empty file is known to be done."""
    number, read_before, read = 0, 0, 0
    documents: list[Document] = []
    rejections: list[Rejection] = []
    n_characters = 0

    def shard(*, is_last: bool) -> Shard:
        return Shard(
            source.name,
            number,
            tuple(documents),
            tuple(rejections),
            _digest(documents, rejections),
            source.size_bytes,
            read - read_before,
            is_last,
        )

    for found, at in read_source(source, limits):
        if isinstance(found, Rejection):
            rejections.append(found)
            read = at
            continue
        is_full = (
            len(documents) >= limits.documents or n_characters + len(found.text) > limits.characters
        )
        if documents and is_full:
            yield shard(is_last=False)
            number, read_before = number + 1, read
            documents, rejections, n_characters = [], [], 0
        documents.append(found)
        n_characters += len(found.text)
        read = at
    if source.size_bytes is not None:
        read = source.size_bytes
    yield shard(is_last=True)


def _digest(documents: list[Document], rejections: list[Rejection]) -> str:
    content = hashlib.sha256()
    for document in documents:
        content.update(repr((document.id, document.text, document.annotations)).encode("utf8"))
    for rejection in rejections:
        content.update(repr(rejection).encode("utf8"))
    return content.hexdigest()[:16]
