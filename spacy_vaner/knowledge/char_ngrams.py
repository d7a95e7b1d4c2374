"""The default retriever: TF-IDF over character n-grams of words, without any weights.

The search is exact. Names are kept in blocks, since what counts is that the sums of one block stay
in the processor's cache: 16 blocks answer three times as many phrases a second as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole
from spacy_vaner.knowledge.dependencies import library
from spacy_vaner.knowledge.store import Hit, KnowledgeBase

BLOCK = 65_536
"""Names per block: 256 kB of sums."""
N_FEATURES = 2**20
"""Slots that n-grams are hashed into; a million names have 300,000 different ones of four."""
QUERIES = 4096
"""Phrases that are searched at once: bounds the memory for their hits."""
MIN_SCORE = 0.1
"""Hits below share next to nothing with the phrase."""
FILE = "index.safetensors"


class CharNgramRetriever:
    """Cosine between sublinear TF-IDF vectors; letters in lower case, words padded with a blank."""

    kind = "char_ngrams"

    def __init__(self, counts: Any, settings: dict[str, Any], fingerprint: str) -> None:
        """counts: (names, N_FEATURES), CSR, how often a name has an n-gram."""
        self.settings = settings
        self.fingerprint = fingerprint
        self._counts = counts
        n_names = counts.shape[0]
        n_with = np.bincount(counts.indices, minlength=N_FEATURES)
        self._idf = (np.log((1 + n_names) / (1 + n_with)) + 1).astype(np.float32)
        weights = self._weighted(counts)
        self._blocks = [
            weights[start : start + BLOCK].T.tocsr() for start in range(0, n_names, BLOCK)
        ]

    @classmethod
    def build(
        cls, kb: KnowledgeBase, *, n_chars: int = 4, n_threads: int = 0
    ) -> CharNgramRetriever:
        """Index the names of a knowledge base."""
        settings = {"n_chars": n_chars, "n_threads": n_threads}
        return cls(_count_ngrams(kb.names, n_chars), settings, kb.fingerprint)

    def search(self, phrases: Sequence[str], *, k: int) -> list[list[Hit]]:
        """See Retriever."""
        topn = library("sparse_dot_topn")
        n_threads = self.settings["n_threads"] or _torch_threads()
        hits: list[list[Hit]] = []
        for start in range(0, len(phrases), QUERIES):
            batch = phrases[start : start + QUERIES]
            queries = self._weighted(_count_ngrams(batch, self.settings["n_chars"]))
            parts = [
                topn.sp_matmul_topn(
                    queries, block, top_n=k, threshold=MIN_SCORE, sort=True, n_threads=n_threads
                )
                for block in self._blocks
            ]
            best = topn.zip_sp_matmul_topn(top_n=k, C_mats=parts)
            hits += [_hits(best, row) for row in range(len(batch))]
        return hits

    def save_index(self, folder: Path) -> None:
        """See Retriever."""
        from safetensors.numpy import save

        counts = self._counts
        tensors = {
            "counts": counts.data.astype(np.uint8),  # a name has at most MAX_CHARS n-grams
            "indices": counts.indices,
            "indptr": counts.indptr,
        }
        write_whole(folder / FILE, save(tensors))

    @classmethod
    def load_index(
        cls, folder: Path, settings: dict[str, Any], fingerprint: str
    ) -> CharNgramRetriever:
        """RAISES VanerError: VE614, a damaged file."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        sparse = library("scipy.sparse")
        try:
            tensors = load_file(folder / FILE)
            counts = sparse.csr_matrix(
                (tensors["counts"].astype(np.float32), tensors["indices"], tensors["indptr"]),
                shape=(len(tensors["indptr"]) - 1, N_FEATURES),
            )
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise VanerError(Messages.VE614.format(folder=folder, reason=error)) from error
        return cls(counts, settings, fingerprint)

    def _weighted(self, counts: Any) -> Any:
        """TF-IDF with rows of length 1, fp32."""
        preprocessing = library("sklearn.preprocessing")
        weights = counts.copy()
        weights.data = (1 + np.log(counts.data)) * self._idf[counts.indices]
        return preprocessing.normalize(weights, copy=False)


def _count_ngrams(texts: Sequence[str], n_chars: int) -> Any:
    """(texts, N_FEATURES), CSR, fp32."""
    text = library("sklearn.feature_extraction.text")
    vectorizer = text.HashingVectorizer(
        analyzer="char_wb",
        ngram_range=(n_chars, n_chars),
        n_features=N_FEATURES,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )
    return vectorizer.transform(texts)


def _hits(matrix: Any, row: int) -> list[Hit]:
    """Best first; names that score alike in the order of the knowledge base."""
    start, end = matrix.indptr[row], matrix.indptr[row + 1]
    pairs = zip(matrix.indices[start:end].tolist(), matrix.data[start:end].tolist(), strict=True)
    return sorted((Hit(*pair) for pair in pairs), key=lambda hit: (-hit.score, hit.position))


def _torch_threads() -> int:
    import torch

    return torch.get_num_threads()
