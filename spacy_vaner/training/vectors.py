"""Static word vectors for a backbone's word features, by word2vec over raw text.

The vectors are gensim's; what is ours is which words they are of: the words that the features see.
SOURCE: Mikolov et al., "Efficient estimation of word representations in vector space" (2013).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spacy_vaner.backbone.word_features import WordVectors, split_words
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.training.prepare import Progress
from spacy_vaner.training.protected import ProtectedRuns
from spacy_vaner.training.sources import Source, read_documents

# gensim cuts longer lists of words itself, without a word.
_LONGEST = 10_000


def train_vectors(
    sources: Sequence[Source],
    output: Path,
    *,
    width: int = 96,
    n_words: int = 50_000,
    min_count: int = 8,
    window: int = 5,
    epochs: int = 2,
    seed: int = 0,
    n_threads: int = 1,
    protected: ProtectedRuns | None = None,
    on_progress: Progress | None = None,
) -> int:
    """Train vectors on texts and write those of the most frequent words.

    width, window, epochs, min_count: word2vec's (skip-gram is not used: the bag of words is).
    n_words: kept at most.
    n_threads: with more than one the result differs from run to run.
    protected: documents that share a run with it are left out.
    RETURNS: how many words have a vector.
    RAISES VanerError: VE521, gensim is not installed; VE522, no word occurs often enough; VE503 to
        VE505, the texts.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise VanerError(Messages.VE521) from None
    sentences = _Sentences(sources, protected, on_progress)
    model: Any = Word2Vec(
        vector_size=width,
        window=window,
        min_count=min_count,
        seed=seed,
        workers=n_threads,
        sample=1e-4,
    )
    model.build_vocab(sentences)
    # Sorted by how often they occur.
    words: list[str] = model.wv.index_to_key[:n_words]
    if not words:
        raise VanerError(Messages.VE522.format(min_count=min_count))
    model.train(sentences, total_examples=model.corpus_count, epochs=epochs)
    vectors = torch.from_numpy(model.wv.vectors[: len(words)])
    lengths = vectors.norm(dim=1, keepdim=True).clamp_min(1e-9)
    WordVectors.from_words(words, vectors / lengths).to_file(output)
    return len(words)


@dataclass(frozen=True)
class _Sentences:
    """Documents as lists of words; can be read again."""

    sources: Sequence[Source]
    protected: ProtectedRuns | None
    on_progress: Progress | None

    def __iter__(self) -> Iterator[list[str]]:
        for source in self.sources:
            for text in read_documents(source):
                if self.on_progress is not None:
                    self.on_progress(source, 1)
                if self.protected is not None and self.protected.shares_run(text):
                    continue
                words = split_words(text)
                for start in range(0, len(words), _LONGEST):
                    yield words[start : start + _LONGEST]
