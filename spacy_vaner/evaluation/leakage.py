"""What of a test split occurs in training data: sentences, and names of mentions.

Sentences are compared as the leakage guard compares them (corpora/guard.py), names in lower
case and without white space.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_vaner.annotation.document import surface
from spacy_vaner.corpora.docbins import make_vocab, read_docs, sentence_bounds
from spacy_vaner.corpora.guard import MIN_WORDS, ProtectedIndex, Source, Verdict
from spacy_vaner.evaluation.documents import GoldDocument, GoldFile
from spacy_vaner.evaluation.predictions import PredictedDocument
from spacy_vaner.gold import Gold, get_gold
from spacy_vaner.types import Mention

if TYPE_CHECKING:
    from spacy.tokens import Doc


class TrainingNames:
    """The names of the mentions in training data, per type."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    @classmethod
    def from_files(cls, paths: Iterable[Path]) -> TrainingNames:
        """The names in converted `.spacy` files, partially annotated types too.

        RAISES VanerError: VE402, VE403, VE405, a file; VE404, its annotation.
        """
        names = cls()
        for path in paths:
            for document in GoldFile(path).read(make_vocab()):
                names.add(document.doc.text, document.gold.mentions)
        return names

    def add(self, text: str, mentions: Iterable[Mention]) -> None:
        """Take in the mentions of a document."""
        for mention in mentions:
            name = surface(text, mention.fragments)
            self._names.setdefault(mention.type, set()).add(_folded(name))

    def __contains__(self, name: tuple[str, str]) -> bool:
        """Whether (type, surface) was a mention."""
        type, text = name
        return _folded(text) in self._names.get(type, ())


def _folded(name: str) -> str:
    return "".join(name.lower().split())


class TrainingSentences:
    """The sentences of training data that have eight words or more."""

    def __init__(self) -> None:
        self._index = ProtectedIndex()

    @classmethod
    def from_files(cls, paths: Iterable[Path]) -> TrainingSentences:
        """RAISES VanerError: VE202, a file that is none."""
        sentences = cls()
        for path in paths:
            for doc in read_docs(path):
                sentences.add(doc, source=path.stem)
        return sentences

    def add(self, doc: Doc, *, source: str) -> None:
        """Take in a document. source: what it is called where its corpus has no name."""
        gold = get_gold(doc) or Gold()
        self._index.protect_text(
            doc.text,
            # "dev" makes the index tell where the sentences stand, whatever they are called.
            Source(gold.corpus or source, "dev"),
            sentences=[
                (doc[start].idx, doc[end - 1].idx + len(doc[end - 1]))
                for start, end in sentence_bounds(doc)
            ],
        )

    def check(self, text: str) -> Verdict:
        """What of a text is known: `masked`, the stretches, and `hits`, from where."""
        return self._index.check_text(text, corpus=None, pmid=None)

    def unseen(self, predicted: PredictedDocument) -> PredictedDocument:
        """The document without the mentions and spans that lie in sentences of training data."""
        seen = self.check(predicted.document.doc.text).masked
        if not seen:
            return predicted

        def is_new(start: int, end: int) -> bool:
            return not any(first <= start and end <= last for first, last in seen)

        gold = predicted.document.gold
        left = tuple(
            mention
            for mention in gold.mentions
            if is_new(mention.fragments[0][0], mention.fragments[-1][1])
        )
        document = replace(predicted.document, gold=replace(gold, mentions=left))
        spans = tuple(span for span in predicted.spans if is_new(span.start, span.end))
        return replace(predicted, document=document, spans=spans)


@dataclass
class NamesSeen:
    """Mentions of a type in a test split: all, those whose name was seen; and distinct names."""

    mentions: int = 0
    mentions_seen: int = 0
    names: set[str] = field(default_factory=set)
    names_seen: set[str] = field(default_factory=set)

    def to_dict(self) -> dict[str, int]:
        return {
            "mentions": self.mentions,
            "mentions_seen": self.mentions_seen,
            "names": len(self.names),
            "names_seen": len(self.names_seen),
        }


@dataclass
class CorpusLeakage:
    """What of a corpus's split occurs in training data.

    sentences: of eight words or more; shorter ones are alike by chance.
    documents_with_pmid_seen: whose PubMed identifier a training document has.
    documents_by_source: training corpus → documents that share a sentence with it.
    """

    documents: int = 0
    documents_with_pmid_seen: int = 0
    sentences: int = 0
    sentences_seen: int = 0
    documents_by_source: Counter[str] = field(default_factory=Counter)
    types: dict[str, NamesSeen] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            **{key: value for key, value in vars(self).items() if isinstance(value, int)},
            "documents_by_source": dict(sorted(self.documents_by_source.items())),
            "types": {type: seen.to_dict() for type, seen in self.types.items()},
        }


def measure_leakage(training: Iterable[Path], tests: Iterable[Path]) -> Mapping[str, CorpusLeakage]:
    """Count what of test files occurs in training files, per test corpus.

    training: what a system was trained on: converted `.spacy` files, guarded or not.
    tests: `.spacy` files with gold annotation.
    RAISES VanerError: VE202, a training file; VE402 to VE405, a test file.
    """
    sentences, names = TrainingSentences(), TrainingNames()
    pmids: set[str] = set()
    for path in training:
        for doc in read_docs(path):
            gold = get_gold(doc) or Gold()
            sentences.add(doc, source=path.stem)
            names.add(doc.text, gold.mentions)
            if gold.pmid:
                pmids.add(gold.pmid)
    found: dict[str, CorpusLeakage] = {}
    for path in tests:
        for document in GoldFile(path).read(make_vocab()):
            corpus = found.setdefault(document.corpus, CorpusLeakage())
            _count(corpus, document, sentences, names, pmids)
    return found


def _count(
    corpus: CorpusLeakage,
    document: GoldDocument,
    sentences: TrainingSentences,
    names: TrainingNames,
    pmids: set[str],
) -> None:
    doc, gold = document.doc, document.gold
    verdict = sentences.check(doc.text)
    corpus.documents += 1
    corpus.documents_with_pmid_seen += gold.pmid in pmids
    corpus.documents_by_source.update({hit.source.corpus or "" for hit in verdict.hits})
    for first, end in sentence_bounds(doc):
        words = [token for token in doc[first:end] if any(c.isalnum() for c in token.text)]
        if len(words) < MIN_WORDS:
            continue
        corpus.sentences += 1
        # A sentence is seen if training sentences cover all of its words.
        corpus.sentences_seen += all(
            any(
                start <= word.idx and word.idx + len(word) <= stop for start, stop in verdict.masked
            )
            for word in words
        )
    for mention in gold.mentions:
        if mention.type not in gold.types:
            continue
        seen = corpus.types.setdefault(mention.type, NamesSeen())
        name = surface(doc.text, mention.fragments)
        seen.mentions += 1
        seen.names.add(_folded(name))
        if (mention.type, name) in names:
            seen.mentions_seen += 1
            seen.names_seen.add(_folded(name))
