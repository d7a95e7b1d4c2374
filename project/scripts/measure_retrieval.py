"""Measure look-ups: the default retriever over a knowledge base, and FAISS over random vectors.

    python project/scripts/measure_retrieval.py names KB CORPUS.spacy --phrases 20000
    python project/scripts/measure_retrieval.py vectors --n 100000

`names` looks up mined phrases of a converted corpus. `vectors` compares the approximate search with
the exact one, without an encoder: vectors spread evenly are the worst case, since a query is as far
from nearly all of them; those in clusters are like names, of which many are variants of one.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from spacy_vaner.corpora.docbins import read_docs
from spacy_vaner.knowledge.dense import make_index
from spacy_vaner.knowledge.dependencies import library
from spacy_vaner.knowledge.phrases import MinedPhrases
from spacy_vaner.knowledge.retrieval import char_ngram_retriever
from spacy_vaner.knowledge.store import KnowledgeBase

K = 10


@contextmanager
def timed(facts: dict[str, Any], name: str) -> Iterator[None]:
    """Add seconds by the clock, and of the processor, to the facts."""
    started, processor = time.perf_counter(), time.process_time()
    yield
    facts[f"{name}_s"] = round(time.perf_counter() - started, 3)
    facts[f"{name}_processor_s"] = round(time.process_time() - processor, 3)


def measure_names(kb_path: Path, corpus: Path, n_phrases: int, n_threads: int) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    with timed(facts, "read"):
        kb = KnowledgeBase.from_file(kb_path)
    with timed(facts, "index"):
        retriever = char_ngram_retriever(n_threads=n_threads)(kb)
    find = MinedPhrases().fit(read_docs(corpus))
    found = (
        doc.text[start:end]
        for doc in read_docs(corpus)
        for sentence in find(doc)
        for start, end in sentence.phrases
    )
    phrases = list(islice(dict.fromkeys(found), n_phrases))
    with timed(facts, "search"):
        retriever.search(phrases, k=K)
    return {
        "names": len(kb),
        "phrases": len(phrases),
        **facts,
        "phrases_per_s": round(len(phrases) / facts["search_s"]),
        "phrases_per_processor_s": round(len(phrases) / facts["search_processor_s"]),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def measure_vectors(n: int, width: int, n_queries: int) -> dict[str, Any]:
    draw = numpy.random.default_rng(0)
    facts: dict[str, Any] = {"names": n, "width": width, "queries": n_queries}
    makers: dict[str, Callable[[int], NDArray[Any]]] = {
        "even": lambda size: draw.standard_normal((size, width), numpy.float32),
        "clustered": clustered(draw, n // 100, width),
    }
    for name, make in makers.items():
        vectors, queries = unit(make(n)), unit(make(n_queries))
        of_kind: dict[str, Any] = {}
        answers = {}
        for search in ("exact", "approximate"):
            with timed(of_kind, f"{search}_index"):
                index = make_index(vectors, search=search)
            with timed(of_kind, f"{search}_search"):
                _, answers[search] = index.search(queries, K)
            n_bytes = len(library("faiss").serialize_index(index))
            of_kind[f"{search}_mb"] = round(n_bytes / 2**20, 1)
        hits = [
            len(set(exact) & set(found))
            for exact, found in zip(*(answers[s].tolist() for s in answers), strict=True)
        ]
        of_kind["recall_at_10"] = round(sum(hits) / (K * n_queries), 4)
        facts[name] = of_kind
    return facts


def clustered(
    draw: numpy.random.Generator, n_clusters: int, width: int
) -> Callable[[int], NDArray[Any]]:
    """Vectors around centres: cosine with the centre about 0.8, with each other about 0.64."""
    centres = unit(draw.standard_normal((n_clusters, width), numpy.float32))

    def make(size: int) -> NDArray[Any]:
        noise = unit(draw.standard_normal((size, width), numpy.float32))
        around: NDArray[Any] = 0.8 * centres[draw.integers(n_clusters, size=size)] + 0.6 * noise
        return around

    return make


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    scaled: NDArray[Any] = vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, dest="what")
    names = commands.add_parser("names")
    names.add_argument("kb", type=Path)
    names.add_argument("corpus", type=Path)
    names.add_argument("--phrases", type=int, default=20_000)
    names.add_argument("--threads", type=int, default=0, help="0: as many as torch uses")
    vectors = commands.add_parser("vectors")
    vectors.add_argument("--n", type=int, default=100_000)
    vectors.add_argument("--width", type=int, default=384)
    vectors.add_argument("--queries", type=int, default=500)
    options = parser.parse_args(arguments)
    if options.what == "names":
        facts = measure_names(options.kb, options.corpus, options.phrases, options.threads)
    else:
        facts = measure_vectors(options.n, options.width, options.queries)
    print(json.dumps(facts, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
