"""IOB, IOB2, IOBES, BILOU and CoNLL: a word and its tag per line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from spacy_vaner.corpora.formats.base import (
    Format,
    Note,
    ignore,
    malformed,
    numbered_lines,
    single_line,
    write_lines,
)
from spacy_vaner.corpora.formats.tagged import (
    BEGINS,
    GOES_ON,
    Sentence,
    Word,
    record_of,
    tagged_sentences,
)
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Record

_DOCUMENT_MARK = "-DOCSTART-"


def read(
    path: Path,
    *,
    note: Note = ignore,
    type_name: str | None = None,
    word_column: int = 1,
    tag_column: int | None = None,
    comment: str | None = None,
    document: str = "auto",
) -> Iterator[Record]:
    """Read a file of tagged words; the text is rebuilt from them (corpora/detokenise.py).

    Columns are separated by tabs, or by blanks in a line without tabs. A tag is split at its first
    hyphen. A mention that does not begin with B (as all do in IOB1) begins where it stands and is
    noted ("mention opened by I").

    type_name: the type of bare tags (B, I, E, S).
    word_column: counted from 1.
    tag_column: counted from 1; None = the last.
    comment: what a line begins with that is passed over, e.g. "#" in CoNLL-U; None = nothing.
    document: what makes a document: "docstart" (from one -DOCSTART- line to the next), "sentence",
        a number (blocks of so many sentences), or "auto": "docstart" where the file begins with
        one, else "sentence".
    RAISES VanerError: VE201, a malformed line; VE206, bare tags without type_name; VE207, another
        value of `document`.
    """
    if not (document in ("auto", "docstart", "sentence") or document.isdecimal() and int(document)):
        raise VanerError(Messages.VE207.format(value=document))
    columns = _Columns(path, type_name, word_column, tag_column)
    for group in _documents(_sentences(path, columns, comment, note), document):
        yield record_of(path, group, note)


def write(records: Iterable[Record], path: Path, *, note: Note = ignore) -> None:
    """Write IOB2 with a -DOCSTART- line before each document; blanks inside a word are lost."""

    def lines() -> Iterator[str]:
        for record in records:
            yield f"{_DOCUMENT_MARK} {'_'.join(record.id.split())}\tO"
            yield ""
            for sentence in tagged_sentences(record, note):
                for word, prefix, type_ in sentence:
                    tag = prefix if prefix == "O" else f"{prefix}-{single_line(type_)}"
                    yield f"{single_line(word).strip()}\t{tag}"
                yield ""

    write_lines(lines(), path)


class _Columns:
    """Takes the word and its tag out of a line."""

    def __init__(
        self, path: Path, type_name: str | None, word_column: int, tag_column: int | None
    ) -> None:
        self.path, self.type_name = path, type_name
        self.word_column, self.tag_column = word_column, tag_column

    def word(self, number: int, line: str) -> Word:
        columns = line.split("\t") if "\t" in line else line.split()
        expected = "a word, a tab and a tag (O, B-Type, I-Type, E-Type, S-Type)"
        at = self.word_column - 1
        if len(columns) < 2 or not 0 <= at < len(columns) or not columns[at]:
            raise malformed(self.path, number, expected, line)
        index = len(columns) - 1 if self.tag_column is None else self.tag_column - 1
        if not 0 <= index < len(columns) or index == at:
            where = f"a tag in column {index + 1}, the word in column {at + 1}"
            raise malformed(self.path, number, where, line)
        prefix, hyphen, type_ = columns[index].strip().partition("-")
        if prefix == "O" and not hyphen:
            return Word(columns[at], "O", "", number)
        if prefix not in set(BEGINS + GOES_ON) or (hyphen and not type_):
            where = f"in column {index + 1} a tag (O, B-Type, I-Type, E-Type, S-Type)"
            raise malformed(self.path, number, where, line)
        if not hyphen:
            if self.type_name is None:
                raise VanerError(Messages.VE206.format(path=self.path, line=number, tag=prefix))
            type_ = self.type_name
        return Word(columns[at], prefix, type_, number)


def _sentences(
    path: Path, columns: _Columns, comment: str | None, note: Note
) -> Iterator[Sentence]:
    words: list[Word] = []
    opens, document_id = False, None
    for number, line in numbered_lines(path):
        if comment and line.startswith(comment):
            continue
        is_mark = line.startswith(_DOCUMENT_MARK)
        if words and (is_mark or not line.strip()):
            yield Sentence(words, words[0].line, opens, document_id)
            words, opens, document_id = [], False, None
        if is_mark:
            if opens:
                note("document without words", f"{path}:{number}")
            mark = line.split("\t")[0].split()
            has_id = len(mark) > 1 and mark[1] not in ("-X-", "O")
            opens, document_id = True, mark[1] if has_id else None
        elif line.strip():
            words.append(columns.word(number, line))
    if words:
        yield Sentence(words, words[0].line, opens, document_id)


def _documents(sentences: Iterator[Sentence], document: str) -> Iterator[list[Sentence]]:
    first = next(sentences, None)
    if first is None:
        return
    if document == "auto":
        document = "docstart" if first.opens else "sentence"
    size = None if document == "docstart" else 1 if document == "sentence" else int(document)
    group: list[Sentence] = []
    for sentence in chain([first], sentences):
        if group and (sentence.opens or len(group) == size):
            yield group
            group = []
        group.append(sentence)
    yield group


FORMAT = Format(
    read,
    "IOB, IOB2, IOBES, CoNLL: a word and its tag per line",
    options=("type_name", "word_column", "tag_column", "comment", "document"),
    has_words=True,
    write=write,
    carries=frozenset({"sentences"}),
)
