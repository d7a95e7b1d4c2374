"""Candidates of a corpus: the names that were retrieved for every sentence, in a Parquet file.

One row per sentence, keyed by (corpus, document, start of the sentence). They are made in batches
of documents; every finished batch is a file of its own beside the output until all are there, so
that a run that is killed at any moment goes on without a duplicate or a gap.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole
from spacy_vaner.knowledge.dependencies import library
from spacy_vaner.knowledge.retrieval import Retriever
from spacy_vaner.knowledge.store import KnowledgeBase
from spacy_vaner.types import Offsets

if TYPE_CHECKING:
    from spacy.tokens import Doc

    from spacy_vaner.knowledge.phrases import FindPhrases

BATCH_DOCUMENTS = 100
SUFFIX = ".candidates.parquet"
"""How files of candidates are called in a folder of them."""

_MADE_FROM = b"spacy_vaner.candidates"
_SETTINGS = "settings.json"

Progress = Callable[[Iterable[int], int, int], Iterable[int]]
"""Wraps the batches still to do; called as progress(batches, n_done, n_batches)."""


class Key(NamedTuple):
    """A sentence of a corpus; start: its first character in the document."""

    corpus: str
    document: str
    start: int


@dataclass(frozen=True, slots=True)
class SentenceCandidates:
    """What was retrieved for a sentence.

    end: its last character in the document, exclusive.
    names: of a knowledge base; each once, best first.
    types: per name.
    scores: per name, the highest cosine over the phrases.
    """

    key: Key
    end: int
    names: tuple[str, ...]
    types: tuple[tuple[str, ...], ...]
    scores: tuple[float, ...]

    def overlaps(self, stretches: Iterable[Offsets]) -> bool:
        """Whether the sentence shares a character with any of them."""
        return any(start < self.end and self.key.start < end for start, end in stretches)


@dataclass
class CandidateCounts:
    """What one file of candidates rests on.

    n_without: phrases for which nothing is alike enough.
    n_empty: sentences without any candidate.
    types: type -> candidates that have it.
    """

    n_documents: int = 0
    n_sentences: int = 0
    n_phrases: int = 0
    n_without: int = 0
    n_empty: int = 0
    types: Counter[str] = field(default_factory=Counter)

    def add(self, other: CandidateCounts) -> None:
        """Add the counts of a batch."""
        for name in ("n_documents", "n_sentences", "n_phrases", "n_without", "n_empty"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.types.update(other.types)


def document_keys(docs: Iterable[Doc], path: Path) -> Iterator[tuple[str, str, Doc]]:
    """The documents of a file with the corpus and the document of their keys.

    A document without an identifier is called by its number; one whose identifier occurred before
    gets "#2", "#3", …. Where a document names no corpus, the name of the file does.
    """
    from spacy_vaner.gold import get_gold

    default_corpus = path.name.split(".")[0]
    seen: Counter[tuple[str, str]] = Counter()
    for number, doc in enumerate(docs):
        gold = get_gold(doc)
        corpus = (gold.corpus if gold else None) or default_corpus
        name = (gold.id if gold else None) or f"document {number}"
        seen[corpus, name] += 1
        times = seen[corpus, name]
        yield corpus, name if times == 1 else f"{name}#{times}", doc


def make_candidates(
    corpus_path: Path,
    kb: KnowledgeBase,
    retriever: Retriever,
    find_phrases: FindPhrases,
    output: Path,
    *,
    k: int = 16,
    min_score: float = 0.5,
    phrases: str = "",
    progress: Progress = lambda batches, n_done, n_batches: batches,
) -> CandidateCounts:
    """Write the candidates of a converted corpus; what is there and up to date is kept.

    k: names per phrase. The authors' rows hold at most 16 for one phrase.
    min_score: least cosine; below it names are alike by chance.
    phrases: what describes find_phrases, to know later whether a result is up to date.
    RAISES VanerError: VE202, a corpus that cannot be read; VE612; VE616, a retriever of another
        knowledge base.
    """
    if k < 1:
        raise VanerError(Messages.VE612.format(key="k", value=k, expected="1 or more"))
    if retriever.fingerprint != kb.fingerprint:
        raise VanerError(Messages.VE616.format(folder="use", n_names=len(kb)))
    from spacy_vaner.corpora.docbins import read_docs

    settings = {
        "corpus": _sha256(corpus_path),
        "knowledge_base": kb.fingerprint,
        "retriever": {"kind": retriever.kind, **retriever.settings},
        "phrases": phrases,
        "k": k,
        "min_score": min_score,
    }
    made_from = json.dumps(settings, sort_keys=True)
    if _made_from(output) == made_from:
        return _counts_in(output)
    docs = list(document_keys(read_docs(corpus_path), corpus_path))
    n_batches = -(-len(docs) // BATCH_DOCUMENTS)
    folder = output.with_name(f"{output.name}.parts")
    _open_parts(folder, made_from)
    missing = [number for number in range(n_batches) if not _part(folder, number).exists()]
    for number in progress(missing, n_batches - len(missing), n_batches):
        first = number * BATCH_DOCUMENTS
        rows, counts = _batch(
            docs[first : first + BATCH_DOCUMENTS], kb, retriever, find_phrases, k, min_score
        )
        write_whole(_part(folder, number), _to_bytes(rows, made_from, counts))
    counts = CandidateCounts()
    all_rows: list[SentenceCandidates] = []
    for number in range(n_batches):
        all_rows += read_candidates(_part(folder, number)).values()
        counts.add(_counts_in(_part(folder, number)))
    write_whole(output, _to_bytes(all_rows, made_from, counts))
    shutil.rmtree(folder)
    return counts


def read_candidates(path: Path, kb: KnowledgeBase | None = None) -> dict[Key, SentenceCandidates]:
    """The candidates of a corpus by sentence, in the order of the corpus.

    kb: if given, the knowledge base that they have to come from.
    RAISES VanerError: VE621, another or a damaged file; VE622, another knowledge base.
    """
    pa, parquet = library("pyarrow"), library("pyarrow.parquet")
    made_from = _made_from(path)
    if made_from is None:
        reason = "no such file" if not path.exists() else "it does not hold candidates"
        raise VanerError(Messages.VE621.format(path=path, reason=reason))
    if kb is not None and json.loads(made_from)["knowledge_base"] != kb.fingerprint:
        raise VanerError(Messages.VE622.format(path=path, kb=f"the given one ({len(kb):,} names)"))
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise VanerError(Messages.VE621.format(path=path, reason=error)) from error
    found: dict[Key, SentenceCandidates] = {}
    for row in rows:
        key = Key(row["corpus"], row["document"], row["start"])
        found[key] = SentenceCandidates(
            key,
            row["end"],
            tuple(row["names"]),
            tuple(map(tuple, row["types"])),
            tuple(row["scores"]),
        )
    return found


def candidates_of(
    paths: Iterable[Path], kb: KnowledgeBase, corpora: Iterable[Path]
) -> dict[Path, dict[tuple[str, str], list[SentenceCandidates]]]:
    """The candidates that were made of given corpora, by corpus file.

    paths: files of candidates, or folders with `*.candidates.parquet`.
    kb: the knowledge base that they have to come from.
    corpora: converted files; those without candidates are missing in the result.
    RETURNS: per file the sentences of each document, by corpus and document of their keys.
    RAISES VanerError: VE621, VE622; VE624, candidates of no file that is read, or of another state
        of it; VE625, a file has them twice.
    """
    by_hash = {_sha256(corpus): corpus for corpus in corpora}
    found: dict[Path, dict[tuple[str, str], list[SentenceCandidates]]] = {}
    for path in _candidate_files(paths):
        rows = read_candidates(path, kb)
        corpus = by_hash.get(json.loads(_made_from(path) or "{}").get("corpus"))
        if corpus is None:
            names = ", ".join(sorted(corpus.name for corpus in by_hash.values()))
            raise VanerError(Messages.VE624.format(path=path, corpora=names))
        if corpus in found:
            raise VanerError(Messages.VE625.format(path=path, corpus=corpus))
        found[corpus] = {}
        for key, row in rows.items():
            found[corpus].setdefault((key.corpus, key.document), []).append(row)
    return found


def _candidate_files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files = sorted(path.glob(f"*{SUFFIX}"))
        if not files:
            raise VanerError(Messages.VE621.format(path=path, reason=f"no *{SUFFIX} in it"))
        yield from files


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _batch(
    docs: Sequence[tuple[str, str, Doc]],
    kb: KnowledgeBase,
    retriever: Retriever,
    find_phrases: FindPhrases,
    k: int,
    min_score: float,
) -> tuple[list[SentenceCandidates], CandidateCounts]:
    sentences = [
        (Key(corpus, document, sentence.start), sentence.end, sentence.phrases, doc)
        for corpus, document, doc in docs
        for sentence in find_phrases(doc)
    ]
    texts = {doc.text[start:end] for _, _, phrases, doc in sentences for start, end in phrases}
    asked = sorted(texts)
    hits = dict(zip(asked, retriever.search(asked, k=k), strict=True))
    counts = CandidateCounts(n_documents=len(docs), n_sentences=len(sentences))
    rows = []
    for key, end, phrases, doc in sentences:
        best: dict[int, float] = {}
        for start, stop in phrases:
            own = [hit for hit in hits[doc.text[start:stop]] if hit.score >= min_score]
            counts.n_phrases += 1
            counts.n_without += not own
            for position, score in own:
                best[position] = max(score, best.get(position, score))
        ranked = sorted(best, key=lambda position: (-best[position], position))
        counts.n_empty += not ranked
        counts.types.update(type for position in ranked for type in kb.types[position])
        rows.append(
            SentenceCandidates(
                key,
                end,
                tuple(kb.names[position] for position in ranked),
                tuple(kb.types[position] for position in ranked),
                tuple(round(best[position], 4) for position in ranked),
            )
        )
    return rows, counts


def _open_parts(folder: Path, made_from: str) -> None:
    """Make the folder of the finished batches; those of other settings go."""
    settings = folder / _SETTINGS
    if settings.is_file() and settings.read_text(encoding="utf8") == made_from:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_whole(settings, made_from.encode("utf8"))


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.parquet"


def _to_bytes(rows: Sequence[SentenceCandidates], made_from: str, counts: CandidateCounts) -> bytes:
    pa, parquet = library("pyarrow"), library("pyarrow.parquet")
    string = pa.string()
    columns: Mapping[str, Any] = {
        "corpus": pa.array([row.key.corpus for row in rows], string),
        "document": pa.array([row.key.document for row in rows], string),
        "start": pa.array([row.key.start for row in rows], pa.int32()),
        "end": pa.array([row.end for row in rows], pa.int32()),
        "names": pa.array([row.names for row in rows], pa.list_(string)),
        "types": pa.array([row.types for row in rows], pa.list_(pa.list_(string))),
        "scores": pa.array([row.scores for row in rows], pa.list_(pa.float64())),
    }
    metadata = {_MADE_FROM: made_from, b"counts": json.dumps(vars(counts))}
    sink = pa.BufferOutputStream()
    table = pa.table(columns).replace_schema_metadata(metadata)
    parquet.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _metadata(path: Path) -> dict[bytes, bytes]:
    """Empty where there is no Parquet file."""
    pa, parquet = library("pyarrow"), library("pyarrow.parquet")
    try:
        return parquet.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return {}


def _made_from(path: Path) -> str | None:
    found = _metadata(path).get(_MADE_FROM)
    return None if found is None else found.decode()


def _counts_in(path: Path) -> CandidateCounts:
    counts = json.loads(_metadata(path)[b"counts"])
    return CandidateCounts(**{**counts, "types": Counter(counts["types"])})
