"""BC2GM's official form: sentences in one file, answers by offset without blanks in others."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from spacy_vaner.corpora.formats.base import (
    Format,
    Note,
    ignore,
    malformed,
    numbered_lines,
    single_line,
    sorted_mentions,
    squeezed,
    written_beside,
)
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Mention, Record

_ANSWER = re.compile(r"([^|\s]+)\|(\d+) (\d+)\|(.*)")
_ALTERNATIVE = "ALT"


def read(path: Path, *, note: Note = ignore) -> Iterator[Record]:
    """Read `train.in` or `test.in` (`ID sentence` per line) with the answers beside it.

    Answers (`ID|first last|text`) count characters without white space, the last one included.
    Each TYPE.eval beside the sentences holds the mentions of a type: GENE.eval those of GENE, and
    ALTGENE.eval the alternatives to them, which the official score takes for a mention too.

    RAISES VanerError: VE201 to VE203, a malformed or missing file.
    """
    if path.is_dir():
        reason = "this is a folder; give the file of its sentences (train.in, test.in)"
        raise VanerError(Messages.VE202.format(path=path, reason=reason))
    answers = sorted(path.parent.glob("*.eval"))
    if not answers:
        reason = "there is no .eval file (GENE.eval) beside it"
        raise VanerError(Messages.VE202.format(path=path, reason=reason))
    found = _answers(answers)
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        id_, blank, text = line.partition(" ")
        if not id_ or not blank or not text.strip():
            raise malformed(path, number, "an identifier, a blank and a sentence", line)
        yield _record(id_, text, found.pop(id_, []), note, f"{path}:{number}")
    for rows in found.values():
        file, number, _, (id_, *_) = rows[0]
        raise malformed(file, number, f"an identifier that is in {path.name} once", id_)


_Answer = tuple[Path, int, str, tuple[str, str, str, str]]
"""File, line, type, and the parts: identifier, first, last, text."""


def _answers(files: list[Path]) -> dict[str, list[_Answer]]:
    found: dict[str, list[_Answer]] = {}
    for file in files:
        for number, line in numbered_lines(file):
            if not line.strip():
                continue
            match = _ANSWER.fullmatch(line)
            if match is None:
                raise malformed(file, number, "'ID|first last|text'", line)
            id_, first, last, surface = match.groups()
            found.setdefault(id_, []).append((file, number, file.stem, (id_, first, last, surface)))
    return found


def _record(id_: str, text: str, answers: list[_Answer], note: Note, where: str) -> Record:
    black = [i for i, character in enumerate(text) if not character.isspace()]
    found: dict[bool, list[Mention]] = {True: [], False: []}
    for file, number, name, (_, first, last, surface) in answers:
        if not int(first) <= int(last) < len(black):
            expected = f"first <= last among the {len(black)} characters that are no white space"
            raise malformed(file, number, expected, f"{first} {last}")
        start, end = black[int(first)], black[int(last)] + 1
        if squeezed(surface) != squeezed(text[start:end]):
            note("misaligned", f"{file}:{number}")
        # A type of its own may begin so too: "ALTERATION".
        main = name.removeprefix(_ALTERNATIVE)
        is_alternative = main != name and file.with_name(f"{main}.eval").exists()
        found[is_alternative].append(Mention(main if is_alternative else name, ((start, end),)))
    mentions, alternatives = (
        sorted_mentions(found[is_alt], note, where) for is_alt in (False, True)
    )
    return Record(id_, text, mentions, source=where, alternatives=alternatives)


def write(records: Iterable[Record], path: Path, *, note: Note = ignore) -> None:
    """Write the sentences, and TYPE.eval (ALTTYPE.eval) beside them for every type that occurs.

    A document is written as its sentences where it has any, else as one; line ends become blanks.
    """
    with ExitStack() as stack:
        sentences = stack.enter_context(written_beside(path)).open("w", encoding="utf8")
        files = {path.stem: stack.enter_context(sentences)}
        for record in records:
            text = single_line(record.text)
            if not text.strip():
                note("document without text left out", record.id)
                continue
            black = [i for i, character in enumerate(text) if not character.isspace()]
            id_ = re.sub(r"[|\s]", "_", record.id) or "_"
            sentences.write(f"{id_} {text}\n")
            answers = [("", mention) for mention in record.mentions]
            answers += [(_ALTERNATIVE, mention) for mention in record.alternatives]
            for prefix, mention in answers:
                if len(mention.fragments) > 1:
                    note("discontinuous mention left out", record.id)
                    continue
                ((start, end),) = mention.fragments
                name = f"{prefix}{single_line(mention.type).replace('/', '_')}.eval"
                if name not in files:
                    beside = stack.enter_context(written_beside(path.with_name(name)))
                    files[name] = stack.enter_context(beside.open("w", encoding="utf8"))
                first, last = bisect_right(black, start - 1), bisect_right(black, end - 1) - 1
                files[name].write(f"{id_}|{first} {last}|{text[start:end].strip()}\n")


FORMAT = Format(
    read,
    "BC2GM: train.in or test.in, GENE.eval beside it",
    write=write,
    carries=frozenset({"text", "nested", "alternatives"}),
)
