"""The dictionary system: the longest known names in a text.

The names are those of a knowledge base, or the mentions of training documents. It learns nothing
else: how far a system is above it is what it knows beyond its names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spacy_vaner.corpora.docbins import find_files, make_vocab
from spacy_vaner.errors import Messages
from spacy_vaner.evaluation.documents import GoldFile
from spacy_vaner.evaluation.predictions import FoundSpan
from spacy_vaner.evaluation.systems.base import (
    Question,
    SystemMissing,
    SystemSpec,
    size_on_disk,
)
from spacy_vaner.types import Offsets

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_CASE_COUNTS = 3  # letters: "CAT" the gene and "cat" the animal

Key = tuple[str, ...]


class NameList:
    """Names of one type; finds the longest ones in a text, from left to right."""

    def __init__(self, names: Iterable[str]) -> None:
        self._keys = {key for name in names if (key := _key(_words(name)))}
        # By first word: most words of a text begin no name, or a short one.
        self._longest: dict[str, int] = {}
        for key in self._keys:
            self._longest[key[0]] = max(len(key), self._longest.get(key[0], 0))

    def find(self, words: Sequence[tuple[str, int, int]]) -> Iterator[tuple[Key, Offsets]]:
        """The names among words with their offsets; none overlaps another."""
        keys = _key(words)
        at = 0
        while at < len(words):
            most = min(self._longest.get(keys[at], 0), len(words) - at)
            for length in range(most, 0, -1):
                if keys[at : at + length] in self._keys:
                    yield keys[at : at + length], (words[at][1], words[at + length - 1][2])
                    at += length
                    break
            else:
                at += 1

    def without(self, keys: Iterable[Key]) -> NameList:
        """The same list but for some of its keys."""
        rest = NameList(())
        rest._keys = self._keys.difference(keys)
        rest._longest = self._longest
        return rest


def _words(text: str) -> list[tuple[str, int, int]]:
    return [(match.group(), match.start(), match.end()) for match in _WORD.finditer(text)]


def _key(words: Sequence[tuple[str, int, int]]) -> Key:
    """Case counts in short words alone."""
    return tuple(word if len(word) <= _CASE_COUNTS else word.lower() for word, _, _ in words)


class DictionarySystem:
    """Name lists per type."""

    def __init__(self, lists: Mapping[str, NameList], size_bytes: int | None) -> None:
        self.lists = lists
        self.types: frozenset[str] | None = frozenset(lists)
        self.size_bytes = size_bytes
        self.unmapped: Counter[str] = Counter()
        self.facts: dict[str, Any] = {}

    def predict(self, questions: Iterable[Question]) -> Iterator[list[FoundSpan]]:
        """See System; types are looked up each for itself, so that they may overlap."""
        for question in questions:
            words = _words(question.text)
            yield [
                FoundSpan(type, start, end)
                for type, names in self.lists.items()
                if not question.types or type in question.types
                for _, (start, end) in names.find(words)
            ]


def load(spec: SystemSpec) -> DictionarySystem:
    """`settings`: min_share (0.5), of the places of a name in training files the share that is
    annotated; train, for a knowledge base: the training files or folder that judge its names.

    RAISES SystemMissing: neither a knowledge base nor training files are there.
    """
    path = Path(spec.where)
    if not path.exists():
        raise SystemMissing(Messages.VE465.format(where=spec.where))
    min_share = spec.settings.get("min_share", 0.5)
    if path.suffix == ".parquet":
        from spacy_vaner.knowledge.store import KnowledgeBase

        kb = KnowledgeBase.from_file(path)
        lists = {
            type: NameList(kb.names[position] for position in positions)
            for type, positions in kb.by_type.items()
        }
        if train := spec.settings.get("train"):
            texts = list(_read(find_files([train], split="train")))
            lists = _believed(lists, texts, min_share=min_share)
    else:
        lists = lists_of_mentions(find_files([path], split="train"), min_share=min_share)
    return DictionarySystem(lists, size_on_disk(path))


class _Text(NamedTuple):
    """A training document: the types that it annotates completely, its words, its mentions."""

    types: frozenset[str]
    text: str
    words: list[tuple[str, int, int]]
    mentions: list[tuple[str, Offsets]]


def _read(paths: Sequence[Path]) -> Iterator[_Text]:
    for path in paths:
        for document in GoldFile(path).read(make_vocab()):
            gold, text = document.gold, document.doc.text
            mentions = [
                (mention.type, mention.fragments[0])
                for mention in gold.mentions
                if len(mention.fragments) == 1 and mention.type in gold.types
            ]
            yield _Text(frozenset(gold.types), text, _words(text), mentions)


def lists_of_mentions(paths: Sequence[Path], *, min_share: float) -> dict[str, NameList]:
    """Name lists of the mentions in `.spacy` files.

    A name that stands unannotated in more than 1 - min_share of its places is left out: such words
    ("protein", "cell") would cost more than they find.
    """
    texts = list(_read(paths))
    names: dict[str, set[str]] = {}
    for each in texts:
        for type, (start, end) in each.mentions:
            names.setdefault(type, set()).add(each.text[start:end])
    lists = {type: NameList(own) for type, own in names.items()}
    return _believed(lists, texts, min_share=min_share)


def _believed(
    lists: Mapping[str, NameList], texts: Sequence[_Text], *, min_share: float
) -> dict[str, NameList]:
    """The lists without the names that are annotated in too few of their places.

    A name that does not occur in the texts stays.
    """
    found = {}
    for type, all_names in lists.items():
        places: Counter[Key] = Counter()
        annotated: Counter[Key] = Counter()
        for each in texts:
            if type in each.types:
                right = {span for name, span in each.mentions if name == type}
                for key, span in all_names.find(each.words):
                    places[key] += 1
                    annotated[key] += span in right
        found[type] = all_names.without(
            key for key, n in places.items() if annotated[key] < min_share * n
        )
    return found
