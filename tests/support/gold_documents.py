"""Gold documents with what a system found, from marked-up text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import spacy
from spacy.tokens import Doc, DocBin

from spacy_vaner.evaluation.documents import GoldDocument
from spacy_vaner.evaluation.predictions import FoundSpan, PredictedDocument
from spacy_vaner.gold import KEY, Gold
from spacy_vaner.types import Mention, Offsets

SAMPLE = Path(__file__).parents[2] / "project/corpora/sample"
TYPES = ("Disease", "Chemical", "Gene", "Species")
_NLP = spacy.blank("en")

Named = tuple[str, str]
"""Type and the words that are meant; the first place in the text counts."""


def place(text: str, words: str) -> Offsets:
    start = text.index(words)
    return start, start + len(words)


def gold_document(
    text: str,
    mentions: Iterable[tuple[str, str] | Mention] = (),
    *,
    types: Sequence[str] = TYPES,
    corpus: str = "Corpus",
    sentences: Sequence[str] | None = None,
    alternatives: Iterable[Named] = (),
    id: str | None = None,
) -> GoldDocument:
    """mentions: (type, words), or a Mention with its offsets."""
    gold = Gold(
        corpus=corpus,
        id=id,
        types=tuple(types),
        mentions=tuple(
            each if isinstance(each, Mention) else Mention(each[0], (place(text, each[1]),))
            for each in mentions
        ),
        alternatives=tuple(Mention(type, (place(text, words),)) for type, words in alternatives),
    )
    doc = _NLP.make_doc(text)
    if sentences is not None:
        starts = {text.index(sentence) for sentence in sentences}
        for token in doc:
            token.is_sent_start = token.idx in starts
    doc.user_data[KEY] = gold.to_user_data()
    return GoldDocument(corpus, gold, doc)


def predicted_document(
    gold: GoldDocument, found: Iterable[tuple[str, str] | FoundSpan], *, types: Sequence[str] = ()
) -> PredictedDocument:
    """found: (type, words), or a span with its offsets."""
    text = gold.doc.text
    spans = tuple(
        each if isinstance(each, FoundSpan) else FoundSpan(each[0], *place(text, each[1]))
        for each in found
    )
    return PredictedDocument(gold, tuple(types) or gold.gold.types, spans)


def save(path: Path, documents: Iterable[GoldDocument]) -> Path:
    DocBin(docs=[each.doc for each in documents], store_user_data=True).to_disk(path)
    return path


def sample_documents(split: str) -> Iterator[GoldDocument]:
    """A split of the sample corpus, annotated completely for all its types."""
    for line in (SAMPLE / f"sample.{split}.jsonl").read_text("utf8").splitlines():
        row = json.loads(line)
        mentions = [Mention(ent[2], ((ent[0], ent[1]),)) for ent in row["ents"]]
        mentions += [
            Mention(type, tuple((start, end) for start, end in fragments))
            for fragments, type in row.get("disc", ())
        ]
        yield gold_document(row["text"], mentions, corpus="sample", id=row["id"])


@lru_cache
def by_heart() -> tuple[PredictedDocument, ...]:
    """What is found in the sample's test split by who knows the names of its train split by heart.

    Real hits, real misses and real boundary errors; longer names first, without overlaps.
    """
    names: dict[str, str] = {}
    for document in sample_documents("train"):
        for mention in document.gold.mentions:
            if len(mention.fragments) == 1:
                names[document.doc.text[slice(*mention.fragments[0])]] = mention.type
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    any_name = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})")
    return tuple(
        predicted_document(
            document,
            [
                FoundSpan(names[m.group()], *m.span(), 1 - 1 / (1 + len(m.group())))
                for m in any_name.finditer(document.doc.text)
            ],
        )
        for document in sample_documents("test")
    )


def words_of(doc: Doc) -> list[Offsets]:
    return [(token.idx, token.idx + len(token)) for token in doc]
