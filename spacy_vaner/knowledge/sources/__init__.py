"""Where names come from: one small file per kind of source, and the table of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.knowledge.sources.base import Entry, Note, Source
from spacy_vaner.knowledge.sources.corpus import CORPUS, LEAKY
from spacy_vaner.knowledge.sources.obo import OBO
from spacy_vaner.knowledge.sources.tsv import TSV
from spacy_vaner.knowledge.sources.umls import UMLS

SOURCES: dict[str, Source] = {
    "tsv": TSV,
    "obo": OBO,
    "umls": UMLS,
    "corpus": CORPUS,
    "leaky": LEAKY,
}


def read_entries(path: Path, kind: str, *, note: Note, **options: object) -> Iterator[Entry]:
    """The names of one source.

    kind: a key of SOURCES.
    note: called as note(cause, where) for what is left out.
    options: those of the source that are not None.
    RAISES VanerError: VE604, an unknown kind; VE605, an option that the source does not take;
        VE601 to VE603, VE606, a malformed source.
    """
    if kind not in SOURCES:
        raise VanerError(Messages.VE604.format(kind=kind, known=", ".join(SOURCES)))
    source = SOURCES[kind]
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in source.options:
            takes = ", ".join(source.options) or "none"
            raise VanerError(Messages.VE605.format(kind=kind, option=key, takes=takes))
    return source.read(path, note=note, **given)
