"""Reading and writing `.spacy` files (DocBin) with everything that a document carries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import spacy
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab
from srsly.msgpack import msgpack_decoders, msgpack_encoders

from spacy_vaner.errors import Messages, VanerError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_ATTRS = ("ORTH", "SPACY", "SENT_START", "ENT_IOB", "ENT_TYPE")


def find_files(paths: Iterable[str | Path], *, split: str) -> list[Path]:
    """Replace every folder by the `*.SPLIT.spacy` in it, by name; a file given twice counts once.

    RAISES VanerError: VE301, a path that does not exist; VE302, a folder without such a file.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(path.glob(f"*.{split}.spacy"))
            if not files:
                raise VanerError(Messages.VE302.format(path=path, split=split))
        elif path.is_file():
            files = [path]
        else:
            raise VanerError(Messages.VE301.format(path=path))
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_docs(path: Path, vocab: Vocab | None = None) -> Iterator[Doc]:
    """The documents of a `.spacy` file.

    Lists inside of `user_data` come back as tuples, as DocBin has it.

    vocab: theirs; None = a new one.
    RAISES VanerError: VE202, a file that cannot be read.
    """
    vocab = spacy.blank("en").vocab if vocab is None else vocab
    try:
        docs = DocBin().from_disk(path).get_docs(vocab)
    except Exception as error:  # zlib, msgpack and numpy each raise their own for a broken file
        raise VanerError(Messages.VE202.format(path=path, reason=error)) from error
    next_doc = _quick(lambda: next(docs, None))
    while (doc := next_doc()) is not None:
        yield doc


def docs_to_bytes(docs: Iterable[Doc]) -> bytes:
    """A DocBin: the same bytes for the same documents."""
    doc_bin = DocBin(attrs=_ATTRS, store_user_data=True)
    add = _quick(doc_bin.add)
    for doc in docs:
        add(doc)
    return doc_bin.to_bytes()


def _quick(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, without srsly's search for converters at every value it packs or unpacks.

    That search walks all entry points of the environment: 0.8 ms for each of the three values of a
    document, 100 times the packing itself. Here it is done once.
    """
    found = [(registry, registry.get_all()) for registry in (msgpack_encoders, msgpack_decoders)]

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        for registry, converters in found:
            registry.get_all = partial(dict, converters)
        try:
            return function(*args, **kwargs)
        finally:
            for registry, _ in found:
                vars(registry).pop("get_all", None)

    return call
