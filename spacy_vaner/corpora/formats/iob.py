"""IOB, IOB2, IOBES and BILOU: a word and its tag per line."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from spacy_vaner.corpora.detokenise import join_words
from spacy_vaner.corpora.formats.base import Format, Note, ignore, malformed, numbered_lines
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Mention, Record

_DOCUMENT_MARK = "-DOCSTART-"
_BEGINS, _GOES_ON, _ENDS = "BSU", "IEL", "ESLU"


class _Word(NamedTuple):
    text: str
    prefix: str
    type: str
    line: int


class _Sentence(NamedTuple):
    words: list[_Word]
    line: int
    opens: bool
    """Whether a document mark stands before it."""
    document_id: str | None


def read(
    path: Path,
    *,
    note: Note = ignore,
    type_name: str | None = None,
    tag_column: int | None = None,
    document: str = "auto",
) -> Iterator[Record]:
    """Read a file of tagged words; the text is rebuilt from them (corpora/detokenise.py).

    Columns are separated by tabs, or by blanks in a line without tabs; the first is the word. A
    tag is split at its first hyphen. A mention that does not begin with B (as all do in IOB1)
    begins where it stands and is noted ("mention opened by I").

    type_name: the type of bare tags (B, I, E, S).
    tag_column: counted from 1; None = the last.
    document: what makes a document: "docstart" (from one -DOCSTART- line to the next), "sentence",
        a number (blocks of so many sentences), or "auto": "docstart" where the file begins with
        one, else "sentence".
    RAISES VanerError: VE201, a malformed line; VE206, bare tags without type_name; VE207, another
        value of `document`.
    """
    if not (document in ("auto", "docstart", "sentence") or document.isdecimal() and int(document)):
        raise VanerError(Messages.VE207.format(value=document))
    sentences = _sentences(path, type_name, tag_column, note)
    for group in _documents(sentences, document):
        yield _record(path, group, note)


def _sentences(
    path: Path, type_name: str | None, tag_column: int | None, note: Note
) -> Iterator[_Sentence]:
    words: list[_Word] = []
    opens, document_id = False, None
    for number, line in numbered_lines(path):
        is_mark = line.startswith(_DOCUMENT_MARK)
        if words and (is_mark or not line.strip()):
            yield _Sentence(words, words[0].line, opens, document_id)
            words, opens, document_id = [], False, None
        if is_mark:
            if opens:
                note("document without words", f"{path}:{number}")
            mark = line.split("\t")[0].split()
            has_id = len(mark) > 1 and mark[1] not in ("-X-", "O")
            opens, document_id = True, mark[1] if has_id else None
        elif line.strip():
            words.append(_word(path, number, line, type_name, tag_column))
    if words:
        yield _Sentence(words, words[0].line, opens, document_id)


def _word(
    path: Path, number: int, line: str, type_name: str | None, tag_column: int | None
) -> _Word:
    columns = line.split("\t") if "\t" in line else line.split()
    expected = "a word, a tab and a tag (O, B-Type, I-Type, E-Type, S-Type)"
    if len(columns) < 2 or not columns[0]:
        raise malformed(path, number, expected, line)
    index = len(columns) - 1 if tag_column is None else tag_column - 1
    if not 0 < index < len(columns):
        raise malformed(path, number, f"a tag in column {index + 1}, after the word", line)
    prefix, hyphen, type_ = columns[index].strip().partition("-")
    if prefix == "O" and not hyphen:
        return _Word(columns[0], "O", "", number)
    if prefix not in set(_BEGINS + _GOES_ON) or (hyphen and not type_):
        raise malformed(path, number, expected, line)
    if not hyphen:
        if type_name is None:
            raise VanerError(Messages.VE206.format(path=path, line=number, tag=prefix))
        type_ = type_name
    return _Word(columns[0], prefix, type_, number)


def _documents(sentences: Iterator[_Sentence], document: str) -> Iterator[list[_Sentence]]:
    first = next(sentences, None)
    if first is None:
        return
    if document == "auto":
        document = "docstart" if first.opens else "sentence"
    size = None if document == "docstart" else 1 if document == "sentence" else int(document)
    group: list[_Sentence] = []
    for sentence in chain([first], sentences):
        if group and (sentence.opens or len(group) == size):
            yield group
            group = []
        group.append(sentence)
    yield group


def _record(path: Path, sentences: list[_Sentence], note: Note) -> Record:
    text, word_offsets, sentence_offsets, mentions = "", [], [], []
    for sentence in sentences:
        if text:
            text += " "
        base = len(text)
        joined, offsets = join_words([word.text for word in sentence.words])
        offsets = [(base + start, base + end) for start, end in offsets]
        text += joined
        word_offsets += offsets
        sentence_offsets.append((base, len(text)))
        for first, last, type_ in _tagged_runs(path, sentence.words, note):
            mentions.append(Mention(type_, ((offsets[first][0], offsets[last][1]),)))
    line, document_id = sentences[0].line, sentences[0].document_id
    return Record(
        id=str(line) if document_id is None else document_id,
        text=text,
        mentions=tuple(sorted(mentions, key=lambda m: (m.fragments, m.type))),
        words=tuple(word_offsets),
        sentences=tuple(sentence_offsets),
        source=f"{path}:{line}",
    )


def _tagged_runs(path: Path, words: list[_Word], note: Note) -> Iterator[tuple[int, int, str]]:
    """The mentions of a sentence as (first word, last word, type)."""
    start: int | None = None
    for i, word in enumerate(words):
        if start is not None and (word.prefix not in _GOES_ON or word.type != words[start].type):
            yield start, i - 1, words[start].type
            start = None
        if word.prefix != "O" and start is None:
            start = i
            if word.prefix not in _BEGINS:
                note("mention opened by I", f"{path}:{word.line}")
        if start is not None and word.prefix in _ENDS:
            yield start, i, words[start].type
            start = None
    if start is not None:
        yield start, len(words) - 1, words[start].type


FORMAT = Format(
    read,
    "IOB, IOB2, IOBES: a word and its tag per line",
    options=("type_name", "tag_column", "document"),
    has_words=True,
)
