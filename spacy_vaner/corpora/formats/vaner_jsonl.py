"""The JSONL of the VANER authors: a sentence per line, numbered tags of one type."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from spacy_vaner.corpora.formats.base import (
    Format,
    Note,
    ignore,
    malformed,
    numbered_lines,
    write_lines,
)
from spacy_vaner.corpora.formats.tagged import Sentence, Word, record_of, tagged_sentences
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Record

_PREFIXES = "OBI"
"""By the number that stands for them in "ner_tags"."""
_INSTRUCTION = "You are required to extract entity from {type}: "


def read(path: Path, *, note: Note = ignore, type_name: str | None = None) -> Iterator[Record]:
    """Read a file of `{"tokens": [instruction, word, …], "ner_tags": [0, 1, 2, …]}` lines.

    The first token is an instruction and has no tag. Candidates for retrieval ("auto_ent",
    "umls_kg") are not read: they hold names from test splits.

    type_name: the type of all mentions; the file does not say it.
    RAISES VanerError: VE201, a malformed line; VE206, no type_name.
    SOURCE: data/vaner_datacohort of the authors' repository, Eulring/VANER.
    """
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise malformed(path, number, f"JSON ({error})", line) from error
        words = _words(path, number, row, type_name)
        if words:
            yield record_of(path, [Sentence(words, number)], note)
        else:
            note("document without words", f"{path}:{number}")


def write(
    records: Iterable[Record], path: Path, *, note: Note = ignore, type_name: str | None = None
) -> None:
    """Write the mentions of one type, sentence by sentence.

    type_name: None = the only type there is.
    RAISES VanerError: VE219, several types and no type_name.
    """

    def lines() -> Iterator[str]:
        seen = {type_name} if type_name else set()
        for record in records:
            if not type_name:
                seen |= {mention.type for mention in record.mentions}
                if len(seen) > 1:
                    expected, found = (
                        "one type (option type_name)",
                        ", ".join(sorted(map(str, seen))),
                    )
                    raise VanerError(
                        Messages.VE219.format(path=path, expected=expected, found=found)
                    )
            instruction = _INSTRUCTION.format(type=type_name or next(iter(seen), "text"))
            for sentence in tagged_sentences(record, note, only=type_name):
                tokens = [instruction, *(word for word, _, _ in sentence)]
                tags = [_PREFIXES.index(prefix) for _, prefix, _ in sentence]
                yield json.dumps({"tokens": tokens, "ner_tags": tags}, ensure_ascii=False)

    write_lines(lines(), path)


def _words(path: Path, number: int, row: object, type_name: str | None) -> list[Word]:
    match row:
        case {"tokens": [_, *tokens], "ner_tags": [*tags]} if len(tokens) == len(tags):
            pass
        case _:
            expected = '"tokens" (an instruction, then words) and "ner_tags", one per word'
            raise malformed(path, number, expected, json.dumps(row))
    words = []
    for token, tag in zip(tokens, tags, strict=True):
        if not isinstance(token, str) or not token.strip():
            raise malformed(path, number, "words that are not empty", token)
        if not isinstance(tag, int) or isinstance(tag, bool) or not 0 <= tag < len(_PREFIXES):
            raise malformed(path, number, "tags 0 (O), 1 (B) and 2 (I)", tag)
        if tag and type_name is None:
            prefix = _PREFIXES[tag]
            raise VanerError(Messages.VE206.format(path=path, line=number, tag=prefix))
        words.append(Word(token, _PREFIXES[tag], type_name or "", number))
    return words


FORMAT = Format(
    read,
    "the VANER authors' JSONL: a sentence per line, numbered tags of one type",
    options=("type_name",),
    has_words=True,
    write=write,
)
