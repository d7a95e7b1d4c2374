"""Converted corpora as text to text: rows to tune a generating model with, and few-shot examples.

A row is a sentence. Types that are annotated incompletely are left out: what they lack would be
taught as absent. So are sentences that are masked, even in part.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spacy_vaner.corpora.docbins import read_docs, sentence_bounds
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole
from spacy_vaner.gold import Gold, get_gold

INSTRUCTION = "List every {type} that the text names, in its own words and order."
NO_NAME = "None"
"""The answer where nothing is named."""
_SEPARATOR = "; "


class Sentence(NamedTuple):
    """A sentence of a document and the names in it, per type that is annotated completely."""

    id: str | None
    corpus: str | None
    text: str
    names: dict[str, list[str]]


Form = Callable[[Sentence, str], Iterator[dict[str, Any]]]
"""From a sentence and the wording of the instruction to rows."""


def _instruction_rows(sentence: Sentence, instruction: str) -> Iterator[dict[str, Any]]:
    for type, names in sentence.names.items():
        yield {
            "id": sentence.id,
            "corpus": sentence.corpus,
            "type": type,
            "instruction": instruction.replace("{type}", type),
            "input": sentence.text,
            "output": _SEPARATOR.join(names) or NO_NAME,
        }


def _few_shot_rows(sentence: Sentence, instruction: str) -> Iterator[dict[str, Any]]:
    yield {"text": sentence.text, "entities": sentence.names}


FORMS: dict[str, Form] = {"instruction": _instruction_rows, "few-shot": _few_shot_rows}
"""instruction: a row per sentence and type, with the keys that BioInstruct and Alpaca have;
few-shot: examples as `spacy.FewShotReader.v1` gives them to `spacy.NER.v2` of spacy-llm."""


def write_instructions(
    paths: Iterable[Path],
    output: Path,
    *,
    form: str = "instruction",
    instruction: str = INSTRUCTION,
    sample: int | None = None,
    seed: int = 0,
) -> int:
    """Write JSONL rows for sentences of converted corpora.

    form: a key of FORMS.
    instruction: a text with {type} in it.
    sample: sentences drawn at random; None = all, in the order of the files.
    RETURNS: how many rows were written.
    RAISES VanerError: VE230, an unknown form or an instruction without {type}; VE231, no sentence
        is annotated completely for any type; VE202, a file; VE015, its annotation.
    """
    if form not in FORMS:
        problem = f"there is no form '{form}'; known: {', '.join(FORMS)}."
        raise VanerError(Messages.VE230.format(problem=problem))
    if "{type}" not in instruction:
        raise VanerError(Messages.VE230.format(problem="the instruction has no {type} in it."))
    sentences = [each for path in paths for each in _sentences(path)]
    if not sentences:
        raise VanerError(Messages.VE231)
    if sample is not None and sample < len(sentences):
        kept = sorted(random.Random(seed).sample(range(len(sentences)), sample))
        sentences = [sentences[number] for number in kept]
    rows = [row for sentence in sentences for row in FORMS[form](sentence, instruction)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, lines.encode("utf8", "surrogatepass"))
    return len(rows)


def _sentences(path: Path) -> Iterator[Sentence]:
    for doc in read_docs(path):
        gold = get_gold(doc) or Gold()
        if not gold.types:
            continue
        for first, end in sentence_bounds(doc):
            start, stop = doc[first].idx, doc[end - 1].idx + len(doc[end - 1])
            text = doc.text[start:stop].strip()
            if not text:
                continue
            # What crosses the end of a sentence belongs to the one that it begins in.
            mentions = [
                mention
                for mention in sorted(gold.mentions, key=lambda mention: mention.fragments)
                if mention.type in gold.types and start <= mention.fragments[0][0] < stop
            ]
            written = [(start, stop), *(pair for mention in mentions for pair in mention.fragments)]
            if any(gold.is_masked(*pair) for pair in written):
                continue
            names: dict[str, list[str]] = {type: [] for type in gold.types}
            for mention in mentions:
                parts = (doc.text[slice(*fragment)] for fragment in mention.fragments)
                names[mention.type].append(" ".join(" ".join(parts).split()))
            yield Sentence(gold.id, gold.corpus, text, names)
