"""Converted corpora into a folder of rows, for the training loop that runs without spaCy.

A document is read here as the component reads it: the same pieces, subwords, units and windows, and
the same labels of units. A file that is done leaves its arrays in the folder under a hash of all
that they depend on, so a second start takes them as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from spacy.tokens import Doc

from spacy_vaner.backbone.tokenizer import SubwordTokenizer
from spacy_vaner.corpora.docbins import find_files, read_docs
from spacy_vaner.decoding import B
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole
from spacy_vaner.gold import Gold, get_gold
from spacy_vaner.knowledge.candidates import (
    SentenceCandidates,
    candidates_of,
    document_keys,
)
from spacy_vaner.knowledge.store import KnowledgeBase
from spacy_vaner.pieces import IntArray
from spacy_vaner.reading import Reading, encode_document
from spacy_vaner.targets import gold_tags
from spacy_vaner.training.dbr import DBR_FILE, write_names
from spacy_vaner.training.rows_folder import (
    FORMAT_VERSION,
    HEADER_FILE,
    NO_LOSS,
    SPLITS,
    Annotation,
    Document,
    QuestionCounts,
    RowsHeader,
    SourceFacts,
    write_source,
)
from spacy_vaner.training.token_file import file_sha256
from spacy_vaner.windows import SpanGetter, packed_sentences

_SUFFIX = ".safetensors"

OnFile = Callable[[SourceFacts], None]
"""Called with every file that is done."""


def prepare_rows(
    paths: Iterable[Path],
    output: Path,
    *,
    tokenizer_path: Path,
    n_words: int = 160,
    overlap: int = 32,
    max_subwords: int = 384,
    candidates: Iterable[Path] = (),
    kb_path: Path | None = None,
    on_file: OnFile | None = None,
) -> RowsHeader:
    """Write a folder of rows; files that are up to date in it are left alone.

    paths: converted corpora named *.train.spacy and *.dev.spacy, or folders with them.
    n_words, overlap, max_subwords: of the windows in prediction, as the component has them.
    candidates, kb_path: of training files, for DBR rows, and the knowledge base they come from.
    RAISES VanerError: VE301, VE302, VE528, a file; VE202, it cannot be read; VE015, its annotation;
        VE110, VE111, the tokenizer; VE519, an output that is something else; VE608, VE609, VE621,
        VE622, VE624, VE625, VE628, candidates and knowledge base.
    """
    files = find_files(paths, split=SPLITS)
    named = [(path, *_name_and_split(path)) for path in files]
    if output.exists() and any(output.iterdir()) and not _is_ours(output):
        raise VanerError(Messages.VE519.format(path=output))
    found = list(candidates)
    if bool(found) != (kb_path is not None):
        raise VanerError(Messages.VE628)
    kb = None if kb_path is None else KnowledgeBase.from_file(kb_path)
    training_files = [path for path, _, split in named if split == "train"]
    by_corpus = {} if kb is None else candidates_of(found, kb, training_files)
    tokenizer = SubwordTokenizer.from_folder(tokenizer_path)
    settings = [FORMAT_VERSION, tokenizer.fingerprint(), n_words, overlap, max_subwords]
    window = packed_sentences(n_words=n_words, overlap=overlap)
    output.mkdir(parents=True, exist_ok=True)
    sources = []
    for path, name, split in named:
        source_sha256 = file_sha256(path)
        key = hashlib.sha256(json.dumps([settings, name, split, source_sha256]).encode("utf8"))
        stem = output / key.hexdigest()[:24]
        facts = _done(stem)
        if facts is None:
            facts = _write_file(
                path,
                stem,
                SourceReader(tokenizer, window, max_subwords),
                name=name,
                split=split,
                source_sha256=source_sha256,
                vocab_size=tokenizer.n_tokens,
            )
        sources.append(facts)
        if on_file is not None:
            on_file(facts)
    sentences = {
        facts.file: list(_sentences(path, by_corpus[path]))
        for facts, (path, *_) in zip(sources, named, strict=True)
        if path in by_corpus
    }
    dbr = None if kb is None else write_names(output, kb, sentences)
    header = RowsHeader(
        tokenizer=tokenizer.fingerprint(),
        vocab_size=tokenizer.n_tokens,
        n_words=n_words,
        overlap=overlap,
        max_subwords=max_subwords,
        sources=sources,
        dbr=dbr,
    )
    for file, content in tokenizer.to_files().items():
        write_whole(output / file, content)
    write_whole(output / HEADER_FILE, header.to_json().encode("utf8"))
    kept = {facts.file for facts in sources} | ({DBR_FILE} if dbr else set())
    for path in output.glob(f"*{_SUFFIX}"):
        if path.name not in kept:
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
    return header


class SourceReader:
    """Turns documents into what the loop reads, and counts what it meets.

    n_unannotated: documents that were left out since they do not say what they hold.
    """

    def __init__(self, tokenizer: SubwordTokenizer, window: SpanGetter, max_subwords: int) -> None:
        self._tokenizer = tokenizer
        self._window = window
        self._max_subwords = max_subwords
        self.n_unannotated = 0
        self.corpora: Counter[str] = Counter()
        self._counts: dict[tuple[str, str | None, bool], Counter[str]] = {}

    def read(self, docs: Iterable[Doc]) -> Iterator[Document]:
        """RAISES VanerError: VE015."""
        for doc in docs:
            gold = _annotation_of(doc)
            if gold is None:
                self.n_unannotated += 1
                continue
            if gold.corpus is not None:
                self.corpora[gold.corpus] += 1
            yield self._document(doc, gold)

    def counts_of(self, type_name: str, corpus: str | None, is_complete: bool) -> QuestionCounts:
        """What was met of a type."""
        counts = self._counts[type_name, corpus, is_complete]
        return QuestionCounts(
            type_name,
            corpus,
            is_complete,
            n_documents=counts["documents"],
            n_mentions=counts["mentions"],
            n_discontinuous=counts["discontinuous"],
            n_widened=counts["widened"],
            n_untagged=counts["untagged"],
        )

    def _document(self, doc: Doc, gold: Gold) -> Document:
        reading = encode_document(
            doc, self._tokenizer, window=self._window, max_subwords=self._max_subwords
        )
        asked = [(name, True) for name in gold.types] + [(name, False) for name in gold.partial]
        units = np.concatenate(
            [reading.first[:, None], reading.last[:, None], reading.units], axis=1
        )
        return Document(
            reading.subword_ids,
            units,
            np.array(reading.windows.ranges, dtype=np.int64).reshape(-1, 2),
            reading.windows.owner[reading.first],
            _sentence_starts(doc, reading),
            [
                self._annotation(gold, name, reading, is_complete=is_complete)
                for name, is_complete in dict(asked).items()
            ],
        )

    def _annotation(
        self, gold: Gold, name: str, reading: Reading, *, is_complete: bool
    ) -> Annotation:
        fragments = [mention.fragments for mention in gold.mentions if mention.type == name]
        tagged = gold_tags(reading.units, fragments, gold.masked, is_complete=is_complete)
        contiguous = sorted({one[0] for one in fragments if len(one) == 1})
        n_discontinuous = len({one for one in fragments if len(one) > 1})
        corpus = gold.names.get(name)
        counts = self._counts.setdefault((name, corpus, is_complete), Counter())
        starts, ends = (set(reading.units[:, column].tolist()) for column in (0, 1))
        counts.update(
            documents=1,
            mentions=len(contiguous) + n_discontinuous,
            discontinuous=n_discontinuous,
            widened=sum(start not in starts or end not in ends for start, end in contiguous),
            untagged=len(contiguous) - int((tagged.tags == B).sum()),
        )
        return Annotation(
            name,
            corpus,
            is_complete,
            np.where(tagged.counts, tagged.tags, NO_LOSS),
            np.array(contiguous, dtype=np.int64).reshape(-1, 2),
            n_discontinuous,
        )


def _annotation_of(doc: Doc) -> Gold | None:
    """None for a document that is left out: it does not say what it is annotated for."""
    gold = get_gold(doc)
    return gold if gold is not None and (gold.types or gold.partial) else None


def _sentences(
    path: Path, by_document: Mapping[tuple[str, str], Sequence[SentenceCandidates]]
) -> Iterator[list[SentenceCandidates]]:
    """Per document of a file that is not left out, its sentences; without the masked ones."""
    for corpus, document, doc in document_keys(read_docs(path), path):
        gold = _annotation_of(doc)
        if gold is not None:
            yield [
                sentence
                for sentence in by_document.get((corpus, document), ())
                if not sentence.overlaps(gold.masked)
            ]


def _sentence_starts(doc: Doc, reading: Reading) -> IntArray:
    """First subwords of the sentences; none where the document does not know them."""
    known = doc.has_annotation("SENT_START")
    starts = [token.idx for token in doc if known and token.is_sent_start]
    units = np.searchsorted(reading.units[:, 0], starts)
    subwords: IntArray = np.unique(reading.first[units[units < len(reading.first)]])
    return subwords


def _write_file(
    path: Path,
    stem: Path,
    reader: SourceReader,
    *,
    name: str,
    split: str,
    source_sha256: str,
    vocab_size: int,
) -> SourceFacts:
    arrays = stem.with_name(stem.name + _SUFFIX)
    questions, sizes = write_source(arrays, reader.read(read_docs(path)), vocab_size=vocab_size)
    facts = SourceFacts(
        name=name,
        corpus=max(reader.corpora, key=reader.corpora.__getitem__, default=None),
        split=split,
        file=arrays.name,
        source_sha256=source_sha256,
        sha256=file_sha256(arrays),
        n_unannotated=reader.n_unannotated,
        questions=[reader.counts_of(*key) for key in questions],
        **sizes,
    )
    write_whole(stem.with_suffix(".json"), json.dumps(facts.to_dict()).encode("utf8"))
    return facts


def _done(stem: Path) -> SourceFacts | None:
    try:
        facts = SourceFacts.from_dict(json.loads(stem.with_suffix(".json").read_text("utf8")))
        arrays = stem.with_name(facts.file)
        return facts if file_sha256(arrays) == facts.sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _name_and_split(path: Path) -> tuple[str, str]:
    """RAISES VanerError: VE528."""
    for split in SPLITS:
        suffix = f".{split}.spacy"
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix), split
    raise VanerError(Messages.VE528.format(path=path))


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds rows, or files of a start that was interrupted, and nothing else."""
    ours: Sequence[str] = (HEADER_FILE, "tokenizer.json", "tokenizer_config.json")
    return all(
        path.name in ours or path.suffix in (_SUFFIX, ".json", ".part") for path in folder.iterdir()
    )
