"""Ontologies in OBO: names and synonyms of terms (Disease Ontology, ChEBI, Cell Ontology, …)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from spacy_vaner.knowledge.sources.base import Entry, Note, Source, malformed, read_lines

SCOPES = ("EXACT", "NARROW", "BROAD", "RELATED")
DEFAULT_SCOPES = ("EXACT", "NARROW")
"""A broad or related synonym often names something else ("tumour suppressor" for a gene)."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(.*)')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": " ", "t": " ", "W": " "}


def read_obo(
    path: Path, *, note: Note, type: str, scopes: Sequence[str] = DEFAULT_SCOPES
) -> Iterator[Entry]:
    """Read the terms of an ontology; obsolete ones are left out.

    type: of all terms.
    scopes: of the synonyms that are taken.
    RAISES VanerError: VE601, a synonym without quotes; VE602, a file without any stanza.
    """
    seen: set[str] = set()
    n_stanzas = 0
    for line, stanza in _stanzas(path):
        n_stanzas += 1
        if stanza[0][1] != "[Term]":
            continue
        where = f"{path}, line {line}"
        tags = [(number, *_tag(text)) for number, text in stanza[1:]]
        ids = [value for _, key, value in tags if key == "id"]
        names = [value for _, key, value in tags if key == "name"]
        if any(key == "is_obsolete" and value == "true" for _, key, value in tags):
            note("obsolete term", where)
            continue
        if not names or not ids:
            note("term without a name or an id", where)
            continue
        if ids[0] in seen:
            note("identifier that occurs twice", where)
        seen.add(ids[0])
        yield Entry(_unescaped(names[0]), type, ids[0], path.name)
        for number, key, value in tags:
            if key == "synonym":
                match = _QUOTED.match(value)
                if match is None:
                    raise malformed(path, number, 'synonym: "text" SCOPE […]', value)
                scope = (match[2].split() or ["RELATED"])[0]  # OBO 1.2's default
                if (scope if scope in SCOPES else "RELATED") in scopes:
                    yield Entry(_unescaped(match[1]), type, ids[0], path.name)
    if not n_stanzas:
        raise malformed(path, 1, "an ontology with [Term] stanzas", "none")


def _stanzas(path: Path) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Every stanza with the line of its head; lines with their numbers."""
    stanza: list[tuple[int, str]] = []
    for number, line in read_lines(path):
        if line.startswith("["):
            if stanza:
                yield stanza[0][0], stanza
            stanza = [(number, line.strip())]
        elif stanza and line.strip():
            stanza.append((number, line))
    if stanza:
        yield stanza[0][0], stanza


def _tag(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    value = value.strip()
    # "! …" after a value is a comment, but not in a quoted text.
    return key.strip(), value if value.startswith('"') else value.split(" ! ")[0].strip()


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), text)


OBO = Source(read_obo, "an ontology in OBO; its type is given", ("type", "scopes"))
