"""Phrases: stretches of a sentence that are worth looking up in a knowledge base.

A finder is called with a document and gives the phrases of every sentence. MinedPhrases needs
nothing but the texts; AutoPhrases takes what AutoPhrase has found; PipelinePhrases what the other
components of a pipeline have annotated.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.knowledge.sources.base import read_lines
from spacy_vaner.types import Offsets

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span

MAX_WORDS = 6
"""Longest phrase, in words; 98 % of the mentions of NCBI-disease and BC5CDR have no more."""

PHRASES_PER_WORD = 2.0
"""Finds 9 of 10 mentions with 25 to 30 phrases a sentence (docs/knowledge.md)."""

FindPhrases = Callable[["Doc"], list["SentencePhrases"]]

# Words that no entity begins or ends with. Function words, and what papers are written with.
_EDGE_WORDS = frozenset(
    """a about above according after again against all almost along already also although always
    among an and another any are around as at away be became because become been before being
    below between both but by can cannot case cases cause caused causes causing common compared
    conclusion conclusions could data day days demonstrated despite did different do does done due
    during each either et evidence examined except few finding findings first following for found
    four from further given group groups had has have having he her here high higher him his how
    however i if important in including increase increased increases indicate indicated into is
    it its itself kg known later least less like low lower made many may mean mechanism method
    methods mg might ml more most much must near neither new no nor not observed of often on once
    one only or other others our out over patient patients per performed possible present presence
    previous previously rather received related report reported reports respectively result
    resulted results role same second several she should show showed shown shows significant
    significantly similar since small so some statistically studied studies study such suggest
    suggested suggests than that the their them then there therefore these they third this those
    three through thus to together toward towards treated treatment two type under until up upon
    us use used using usually various very via was we week weeks well were what when where whereas
    whether which while who whom whose why will with within without would year years yet you al
    p vs versus h min associated association analysis effect effects level levels effective
    days total mean age aged""".split()
)
# … and the few that may stand inside of one: "cancer of the breast".
_INNER_WORDS = frozenset("of the and to in with for on by or a type -".split())
_INNER_MARKS = frozenset("-/',+")
_LETTER = re.compile(r"[^\W\d_]")


class SentencePhrases(NamedTuple):
    """The phrases of a sentence.

    start, end: characters of the sentence in the document.
    phrases: characters in the document, sorted, each once.
    """

    start: int
    end: int
    phrases: tuple[Offsets, ...]


class MinedPhrases:
    """Runs of words between the boundaries that no entity crosses, the best of each sentence.

    The quality of a phrase is how rare its edges are (inverse document frequency of the first and
    the last word) times how much its words keep together (the least normalised pointwise mutual
    information of neighbouring content words), counted over the very texts that are searched.

    SOURCE: after AutoPhrase (Shang et al., arXiv:1702.04457), section 4: its features concordance
        and informativeness; differs: neither a classifier trained on a lexicon nor part-of-speech
        tags, and phrases may overlap, since the knowledge base decides which of them is a name.
    """

    def __init__(
        self, *, phrases_per_word: float = PHRASES_PER_WORD, max_words: int = MAX_WORDS
    ) -> None:
        """Settings; `fit` comes before the first call.

        phrases_per_word: how many phrases a sentence gives for each of its words, at most.
        max_words: longest phrase.
        RAISES VanerError: VE612.
        """
        if phrases_per_word <= 0:
            raise VanerError(
                Messages.VE612.format(
                    key="phrases_per_word", value=phrases_per_word, expected="more than 0"
                )
            )
        if max_words < 1:
            raise VanerError(
                Messages.VE612.format(key="max_words", value=max_words, expected="1 or more")
            )
        self.phrases_per_word = phrases_per_word
        self.max_words = max_words
        self._n_docs = 0
        self._n_pairs = 0
        self._docs_with: Counter[str] = Counter()
        self._firsts: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str]] = Counter()

    def fit(self, docs: Iterable[Doc]) -> MinedPhrases:
        """Count the words and the pairs of neighbouring content words of the texts."""
        for doc in docs:
            words = _forms(doc)
            self._n_docs += 1
            self._docs_with.update(set(words))
            for run in _runs(words, range(len(words))):
                content = [words[i] for i in run if words[i] not in _INNER_MARKS | _INNER_WORDS]
                pairs = list(zip(content, content[1:], strict=False))
                self._pairs.update(pairs)
                self._firsts.update(first for first, _ in pairs)
                self._seconds.update(second for _, second in pairs)
                self._n_pairs += len(pairs)
        return self

    def __call__(self, doc: Doc) -> list[SentencePhrases]:
        """The phrases of every sentence of a document."""
        assert self._n_docs, "fit comes first"
        words = _forms(doc)
        found = []
        for sentence in sentences(doc):
            scored = [
                (self.quality([words[i] for i in range(first, last)]), first, last)
                for run in _runs(words, range(sentence.start, sentence.end))
                for first, last in self._candidates(words, run)
            ]
            own = words[sentence.start : sentence.end]
            n_words = sum(bool(_LETTER.search(word)) for word in own)
            n_best = math.ceil(self.phrases_per_word * n_words)
            # Equal ones: the longer, then the first.
            scored.sort(key=lambda row: (-row[0], row[1] - row[2], row[1]))
            phrases = sorted(
                (doc[first].idx, doc[last - 1].idx + len(doc[last - 1]))
                for _, first, last in scored[:n_best]
            )
            found.append(SentencePhrases(sentence.start_char, sentence.end_char, tuple(phrases)))
        return found

    def quality(self, words: Sequence[str]) -> float:
        """How much a run of words looks like a term, 0 to 1."""
        content = [word for word in words if word not in _INNER_MARKS | _INNER_WORDS] or list(words)
        informativeness = (self._rarity(content[0]) + self._rarity(content[-1])) / 2
        concordance = min(
            (self._concordance(pair) for pair in zip(content, content[1:], strict=False)),
            default=1.0,
        )
        return informativeness * concordance

    def _rarity(self, word: str) -> float:
        """Inverse document frequency, 0 (in all documents) to 1 (in none)."""
        idf = math.log((1 + self._n_docs) / (self._docs_with[word] or 1))
        return idf / math.log(1 + self._n_docs)

    def _concordance(self, pair: tuple[str, str]) -> float:
        """Normalised pointwise mutual information, laid on 0 to 1, less where a pair is rare."""
        together = self._pairs[pair]
        if not together:
            return 0.0
        share = (together - 0.5) / self._n_pairs
        apart = self._firsts[pair[0]] * self._seconds[pair[1]] / self._n_pairs**2
        npmi = math.log(share / apart) / -math.log(share)
        # A pair that was seen once is no proof of a term; 3 was the best of 0, 1, 3 on dev splits.
        return max(0.0, (1 + npmi) / 2) * together / (together + 3)

    def _candidates(self, words: Sequence[str], run: range) -> Iterator[tuple[int, int]]:
        """Word ranges within a run whose edges may be those of an entity."""
        for first in run:
            if not _can_be_edge(words[first]):
                continue
            for last in range(first + 1, min(first + self.max_words, run.stop) + 1):
                if _can_be_edge(words[last - 1]):
                    yield first, last


class AutoPhrases:
    """The phrases that AutoPhrase marked in its `segmentation.txt`, wherever a text has them."""

    def __init__(self, path: Path, *, min_quality: float = 0.0) -> None:
        """Read the marked phrases; what stands between them is not used.

        min_quality: of a phrase, where the file gives it (`<phrase_Q=0.91>`).
        RAISES VanerError: VE602, VE603, a file that cannot be read; VE619, one without a phrase.
        """
        import spacy

        tokenizer = spacy.blank("en").tokenizer
        phrases: set[tuple[str, ...]] = set()
        for _, line in read_lines(path):
            for quality, phrase in _MARKED.findall(line):
                if not quality or float(quality) >= min_quality:
                    words = tuple(token.lower_ for token in tokenizer(phrase.strip()))
                    phrases.add(words)
        phrases.discard(())
        if not phrases:
            raise VanerError(Messages.VE619.format(path=path))
        self._phrases = frozenset(phrases)
        self._lengths = sorted({len(phrase) for phrase in phrases})

    def __call__(self, doc: Doc) -> list[SentencePhrases]:
        """The phrases of every sentence of a document."""
        words = [token.lower_ for token in doc]
        return [
            _phrases_of(
                sentence,
                (
                    sentence.doc[first : first + length]
                    for first in range(sentence.start, sentence.end)
                    for length in self._lengths
                    if first + length <= sentence.end
                    and tuple(words[first : first + length]) in self._phrases
                ),
            )
            for sentence in sentences(doc)
        ]


_MARKED = re.compile(r"<phrase(?:_Q=([\d.]+))?>(.*?)</phrase>")


class PipelinePhrases:
    """Entities and noun chunks that a pipeline finds, scispaCy's mention detector for one."""

    def __init__(self, pipeline: str) -> None:
        """pipeline: name or folder of a pipeline with a parser or a component that sets doc.ents.

        RAISES VanerError: VE620, no such pipeline, or one that finds neither.
        """
        import spacy

        try:
            self._nlp = spacy.load(pipeline)
        except (OSError, ValueError) as error:
            raise VanerError(Messages.VE620.format(pipeline=pipeline, reason=error)) from error
        if not {"ner", "parser", "entity_ruler"} & {
            self._nlp.get_pipe_meta(name).factory for name in self._nlp.pipe_names
        }:
            reason = "it has no component ner, entity_ruler or parser"
            raise VanerError(Messages.VE620.format(pipeline=pipeline, reason=reason))

    def __call__(self, doc: Doc) -> list[SentencePhrases]:
        """The phrases of every sentence of a document; its own annotation is not looked at."""
        from spacy.tokens import Doc

        # The words are the corpus's, the vocabulary (and with it the noun chunks) the pipeline's.
        own = Doc(
            self._nlp.vocab,
            words=[token.text for token in doc],
            spaces=[bool(token.whitespace_) for token in doc],
        )
        self._nlp(own)
        spans = list(own.ents)
        if own.has_annotation("DEP"):
            spans += [_without_determiner(chunk) for chunk in own.noun_chunks]
        return [
            _phrases_of(
                sentence,
                (
                    span
                    for span in spans
                    if sentence.start <= span.start and span.end <= sentence.end
                ),
            )
            for sentence in sentences(doc)
        ]


class PhraseRecall(NamedTuple):
    """How many mentions a finder gives as phrases, and for how many phrases.

    n_mentions: contiguous ones, each place once; n_found: with a phrase's offsets.
    """

    n_mentions: int
    n_found: int
    n_sentences: int
    n_phrases: int


def phrase_recall(docs: Iterable[Doc], find: FindPhrases) -> PhraseRecall:
    """Compare phrases with the mentions that documents are annotated for.

    RAISES VanerError: VE015.
    """
    from spacy_vaner.gold import get_gold

    n_mentions = n_found = n_sentences = n_phrases = 0
    for doc in docs:
        found = find(doc)
        phrases = {phrase for sentence in found for phrase in sentence.phrases}
        n_sentences += len(found)
        n_phrases += len(phrases)
        gold = get_gold(doc)
        for mention in {m.fragments for m in gold.mentions} if gold is not None else ():
            if len(mention) == 1:
                n_mentions += 1
                n_found += mention[0] in phrases
    return PhraseRecall(n_mentions, n_found, n_sentences, n_phrases)


def sentences(doc: Doc) -> list[Span]:
    """The sentences of a document; where it has none, they end at full stops and the like."""
    if not doc.has_annotation("SENT_START"):
        from spacy.pipeline import Sentencizer

        doc = Sentencizer()(doc.copy())
    return [sentence for sentence in doc.sents if not sentence.text.isspace()]


def _phrases_of(sentence: Span, spans: Iterable[Span]) -> SentencePhrases:
    offsets = {(span.start_char, span.end_char) for span in spans if _LETTER.search(span.text)}
    return SentencePhrases(sentence.start_char, sentence.end_char, tuple(sorted(offsets)))


def _without_determiner(chunk: Span) -> Span:
    start = chunk.start
    while start < chunk.end - 1 and chunk.doc[start].lower_ in _EDGE_WORDS:
        start += 1
    return chunk.doc[start : chunk.end]


def _forms(doc: Doc) -> list[str]:
    """Words in lower case; an abbreviation that looks like a function word stays (AT, NO, WAS)."""
    return [
        token.text
        if len(token) > 1 and token.is_upper and token.lower_ in _EDGE_WORDS
        else token.lower_
        for token in doc
    ]


def _runs(words: Sequence[str], places: range) -> Iterator[range]:
    """Runs of words that a phrase may lie in: cut at punctuation and at words within none."""
    start = places.start
    for place in places:
        word = words[place]
        is_inner = word in _INNER_MARKS or word in _INNER_WORDS
        if not is_inner and not _can_be_edge(word):
            if start < place:
                yield range(start, place)
            start = place + 1
    if start < places.stop:
        yield range(start, places.stop)


def _can_be_edge(word: str) -> bool:
    if word in _EDGE_WORDS or word in _INNER_MARKS:
        return False
    return any(char.isalnum() for char in word)
