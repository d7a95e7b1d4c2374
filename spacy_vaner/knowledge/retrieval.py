"""Retrievers: the names of a knowledge base that are most like a phrase.

A registered function gives a builder; the builder makes a retriever from a knowledge base. What is
saved says which knowledge base it was made from, and is loaded for no other.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.knowledge.store import Hit, KnowledgeBase

VERSION = 1
DESCRIPTION = "retriever.json"


@runtime_checkable
class Retriever(Protocol):
    """Finds names; made by a builder or by load_retriever.

    kind: its key in KINDS. fingerprint: of the knowledge base that it was made from.
    settings: plain values, as its builder takes them.
    """

    kind: str
    fingerprint: str
    settings: dict[str, Any]

    def search(self, phrases: Sequence[str], *, k: int) -> list[list[Hit]]:
        """The k names most like each phrase, best first; fewer where nothing is alike."""
        ...

    def save_index(self, folder: Path) -> None:
        """Write what `load_index` needs into a folder that is there."""
        ...


BuildRetriever = Callable[[KnowledgeBase], Retriever]


def char_ngram_retriever(n_chars: int = 4, n_threads: int = 0) -> BuildRetriever:
    """TF-IDF over the character n-grams of words, exact cosine; needs no weights.

    n_chars: length of an n-gram. 3 finds more misspellings and is four times slower.
    n_threads: 0 = as many as torch uses.
    """
    _check("n_chars", n_chars, low=2)
    _check("n_threads", n_threads, low=0)

    def make(kb: KnowledgeBase) -> Retriever:
        from spacy_vaner.knowledge.char_ngrams import CharNgramRetriever

        return CharNgramRetriever.build(kb, n_chars=n_chars, n_threads=n_threads)

    return make


def dense_retriever(
    name: str,
    revision: str | None = None,
    pooling: str = "cls",
    search: str = "exact",
    max_subwords: int = 25,
    batch_size: int = 128,
    device: str = "auto",
) -> BuildRetriever:
    """Cosine between the vectors of an encoder, with FAISS: SapBERT and its like.

    name: a folder or hub name of any encoder that transformers knows.
    revision: on the hub; set it where results are to be repeated.
    pooling: "cls" (SapBERT) or "mean" (its mean-token version, sentence encoders).
    search: "exact", or "approximate": 8 bits a dimension, and only the nearest lists of names.
    max_subwords: names and phrases are cut there; SapBERT was trained with 25.
    device: "auto", "cpu", "cuda", "cuda:1".
    """
    for key, value, known in (
        ("pooling", pooling, ("cls", "mean")),
        ("search", search, ("exact", "approximate")),
    ):
        if value not in known:
            raise VanerError(
                Messages.VE612.format(key=key, value=value, expected=" or ".join(known))
            )
    _check("max_subwords", max_subwords, low=3)
    _check("batch_size", batch_size, low=1)

    def make(kb: KnowledgeBase) -> Retriever:
        from spacy_vaner.knowledge.dense import DenseRetriever

        return DenseRetriever.build(
            kb,
            name=name,
            revision=revision,
            pooling=pooling,
            search=search,
            max_subwords=max_subwords,
            batch_size=batch_size,
            device=device,
        )

    return make


def save_retriever(retriever: Retriever, folder: Path) -> None:
    """Write a retriever as a folder; it appears when it is complete and replaces an older one.

    RAISES VanerError: VE613, a folder that is there and holds something else.
    """
    if folder.exists() and not (folder / DESCRIPTION).is_file():
        if not folder.is_dir() or any(folder.iterdir()):
            raise VanerError(Messages.VE613.format(folder=folder))
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    description = {
        "version": VERSION,
        "kind": retriever.kind,
        "settings": retriever.settings,
        "knowledge_base": retriever.fingerprint,
    }
    try:
        retriever.save_index(beside)
        text = json.dumps(description, indent=2) + "\n"
        (beside / DESCRIPTION).write_text(text, encoding="utf8")
        if folder.exists():
            shutil.rmtree(folder)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load_retriever(folder: Path, kb: KnowledgeBase) -> Retriever:
    """Read what save_retriever wrote, for the knowledge base that it was made from.

    RAISES VanerError: VE614, a missing or damaged file; VE615, another version; VE616, another
        knowledge base.
    """
    try:
        row = json.loads((folder / DESCRIPTION).read_text(encoding="utf8"))
        version, kind, settings = row["version"], row["kind"], row["settings"]
        fingerprint = row["knowledge_base"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VanerError(Messages.VE614.format(folder=folder, reason=repr(error))) from error
    if version != VERSION or kind not in KINDS:
        raise VanerError(Messages.VE615.format(folder=folder, version=f"{kind} {version}"))
    if fingerprint != kb.fingerprint:
        raise VanerError(Messages.VE616.format(folder=folder, n_names=len(kb)))
    return KINDS[kind](folder, settings, fingerprint)


def _load_char_ngrams(folder: Path, settings: dict[str, Any], fingerprint: str) -> Retriever:
    from spacy_vaner.knowledge.char_ngrams import CharNgramRetriever

    return CharNgramRetriever.load_index(folder, settings, fingerprint)


def _load_dense(folder: Path, settings: dict[str, Any], fingerprint: str) -> Retriever:
    from spacy_vaner.knowledge.dense import DenseRetriever

    return DenseRetriever.load_index(folder, settings, fingerprint)


KINDS: dict[str, Callable[[Path, dict[str, Any], str], Retriever]] = {
    "char_ngrams": _load_char_ngrams,
    "dense": _load_dense,
}


def _check(key: str, value: int, *, low: int) -> None:
    if value < low:
        raise VanerError(Messages.VE612.format(key=key, value=value, expected=f"{low} or more"))
