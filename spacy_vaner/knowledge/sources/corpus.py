"""Converted corpora: the mentions of their training splits, and of these only.

A base that holds the names of a held-out split tells the tagger, through its training rows, what
is in there; figures on that split then mean nothing. So only files that are called a training split
are read, and mentions in masked stretches (shared with a protected dev split) are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.knowledge.sources.base import Entry, Note, Source

TRAIN = "train"


def read_corpus(path: Path, *, note: Note) -> Iterator[Entry]:
    """Read the names of a training split, `train.spacy` or `NAME.train.spacy`, or of a folder's.

    RAISES VanerError: VE301, VE302, no such path, or a folder without one; VE607, a file that is
        not called so; VE202, one that cannot be read; VE015, another form of annotation.
    """
    from spacy_vaner.corpora.docbins import find_files

    for file in find_files([path], split=TRAIN):
        if TRAIN not in file.name.removesuffix(".spacy").split("."):
            raise VanerError(Messages.VE607.format(path=file))
        yield from _mentions(file, note, prefix="corpus")


def read_leaky(path: Path, *, note: Note) -> Iterator[Entry]:
    """Read any split, to measure what such a leak would add. Never for a base that is used.

    path: a file, or a folder of which all splits are read.
    """
    from spacy_vaner.corpora.docbins import find_files

    for file in find_files([path], split=(TRAIN, "dev", "test")):
        yield from _mentions(file, note, prefix="leaky")


def _mentions(path: Path, note: Note, *, prefix: str) -> Iterator[Entry]:
    # Here: the store and the retrievers work without spaCy.
    from spacy_vaner.corpora.docbins import read_docs
    from spacy_vaner.gold import get_gold

    for doc in read_docs(path):
        gold = get_gold(doc)
        if gold is None:
            note("document without annotation", str(path))
            continue
        source = f"{prefix}:{gold.corpus or path.name}"
        for mention in gold.mentions:
            if len(mention.fragments) > 1:
                note("discontinuous mention", f"{path}, document {gold.id}")
                continue
            ((start, end),) = mention.fragments
            if gold.is_masked(start, end):
                note("mention in a masked stretch", f"{path}, document {gold.id}")
                continue
            yield Entry(doc.text[start:end], mention.type, ",".join(mention.ids), source)


CORPUS = Source(read_corpus, "training splits, converted: NAME.train.spacy, or a folder")
LEAKY = Source(read_leaky, "any split, for comparison only: figures on it then mean nothing")
