"""The retriever of the paper: vectors of an encoder such as SapBERT, searched with FAISS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.knowledge.dependencies import library
from spacy_vaner.knowledge.store import Hit, KnowledgeBase

FILE = "index.faiss"
NAMES_PER_LIST = 256
"""An approximate index looks into lists of about so many names …"""
LISTS_SEARCHED = 32
"""… and into so many of them."""
TRAINING_NAMES_PER_LIST = 64


class Encoder:
    """Vectors of texts, of length 1."""

    def __init__(
        self,
        name: str,
        *,
        revision: str | None,
        pooling: str,
        max_subwords: int,
        batch_size: int,
        device: str,
    ) -> None:
        """RAISES VanerError: VE617, no encoder of that name."""
        from transformers import AutoModel, AutoTokenizer

        from spacy_vaner.backbone import choose_device

        try:
            load_tokenizer: Any = AutoTokenizer.from_pretrained  # untyped in transformers 4
            self._tokenizer = load_tokenizer(name, revision=revision)
            model = AutoModel.from_pretrained(name, revision=revision, torch_dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise VanerError(Messages.VE617.format(name=name, reason=error)) from error
        self._device = choose_device(device)
        self._model = model.eval().to(self._device)
        self._pooling = pooling
        self._max_subwords = max_subwords
        self._batch_size = batch_size

    def __call__(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(texts, width), fp32, in the order of the texts."""
        # By length: a batch is padded to its longest text.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors: np.ndarray[Any, np.dtype[np.float32]] | None = None
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            batch = self._encode([texts[i] for i in places])
            if vectors is None:
                vectors = np.empty((len(texts), batch.shape[1]), np.float32)
            vectors[places] = batch
        if vectors is None:
            return np.empty((0, self._model.config.hidden_size), np.float32)
        return vectors

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        inputs = self._tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self._max_subwords,
            return_tensors="pt",
        ).to(self._device)
        states: Tensor = self._model(**inputs).last_hidden_state
        if self._pooling == "cls":
            pooled = states[:, 0]
        else:
            mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
            pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        vectors: np.ndarray[Any, np.dtype[np.float32]] = (
            torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        )
        return vectors


class DenseRetriever:
    """Cosine between vectors of names and phrases."""

    kind = "dense"

    def __init__(
        self, index: Any, encoder: Encoder, settings: dict[str, Any], fingerprint: str
    ) -> None:
        self.settings = settings
        self.fingerprint = fingerprint
        self._index = index
        self._encoder = encoder

    @classmethod
    def build(cls, kb: KnowledgeBase, *, search: str, **encoding: Any) -> DenseRetriever:
        """Encode and index the names of a knowledge base; the arguments are dense_retriever's."""
        encoder = Encoder(**encoding)
        # Read by nobody but load_index; lower case, as SapBERT's names were.
        vectors = encoder([name.lower() for name in kb.names])
        settings = {"search": search, **encoding}
        return cls(make_index(vectors, search=search), encoder, settings, kb.fingerprint)

    def search(self, phrases: Sequence[str], *, k: int) -> list[list[Hit]]:
        """See Retriever."""
        if not phrases:
            return []
        vectors = self._encoder([phrase.lower() for phrase in phrases])
        scores, positions = self._index.search(vectors, min(k, self._index.ntotal))
        return [
            [
                Hit(position, score)
                for position, score in zip(row_positions, row_scores, strict=True)
                if position >= 0  # FAISS fills up with -1
            ]
            for row_positions, row_scores in zip(positions.tolist(), scores.tolist(), strict=True)
        ]

    def save_index(self, folder: Path) -> None:
        """See Retriever. The encoder is named, not stored."""
        library("faiss").write_index(self._index, str(folder / FILE))

    @classmethod
    def load_index(cls, folder: Path, settings: dict[str, Any], fingerprint: str) -> DenseRetriever:
        """RAISES VanerError: VE614, a damaged file; VE617, no such encoder."""
        try:
            index = library("faiss").read_index(str(folder / FILE))
        except RuntimeError as error:
            raise VanerError(Messages.VE614.format(folder=folder, reason=error)) from error
        encoding = {key: value for key, value in settings.items() if key != "search"}
        return cls(index, Encoder(**encoding), settings, fingerprint)


def make_index(vectors: np.ndarray[Any, np.dtype[np.float32]], *, search: str) -> Any:
    """A FAISS index by inner product.

    vectors: (names, width), of length 1.
    search: "exact": all vectors, fp32. "approximate": lists around centroids, 8 bits a dimension;
        too few names for lists are searched exactly.
    """
    faiss = library("faiss")
    n_names, width = vectors.shape
    n_lists = n_names // NAMES_PER_LIST
    if search == "exact" or n_lists < 2:
        index = faiss.IndexFlatIP(width)
    else:
        index = faiss.index_factory(width, f"IVF{n_lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1
        draw = np.random.default_rng(0)
        n_training = min(n_names, n_lists * TRAINING_NAMES_PER_LIST)
        index.train(vectors[np.sort(draw.choice(n_names, n_training, replace=False))])
        index.nprobe = LISTS_SEARCHED
    index.add(vectors)
    return index
