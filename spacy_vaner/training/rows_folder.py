"""A folder of rows: documents of corpora as the tagger reads them, with what they are labelled.

Per converted file one file of arrays (safetensors), which is mapped into memory and read document
by document; `rows.json` says what they are, and the tokenizer's files lie beside it. The folder is
all that a run needs. It is written where spaCy is (`python -m spacy vaner rows`) and read anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from safetensors.numpy import save

from spacy_vaner.backbone.tokenizer import SubwordTokenizer
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole
from spacy_vaner.training.dbr import DbrFacts
from spacy_vaner.training.token_file import file_sha256

FORMAT_VERSION = 1
HEADER_FILE = "rows.json"
SPLITS = ("train", "dev")
NO_LOSS = -1
"""Stands among the tags of a unit about which the annotation says nothing."""

IntArray = NDArray[Any]

_LONGEST_UINT16 = 1 << 16
_SAFETENSORS_DTYPES = {"U16": "<u2", "U32": "<u4", "I8": "i1", "I32": "<i4", "I64": "<i8"}


class Annotation(NamedTuple):
    """What a document is annotated for, for one type.

    corpus: the corpus name that an instruction gives for it; None if there is none.
    is_complete: False if mentions are missing: then only mentions give loss, and it is not scored.
    tags: (units,), O, B, I or NO_LOSS.
    mentions: (mentions, 2), character offsets of the contiguous ones.
    n_discontinuous: mentions of several fragments; they count as missed.
    """

    type: str
    corpus: str | None
    is_complete: bool
    tags: IntArray
    mentions: IntArray
    n_discontinuous: int


class Document(NamedTuple):
    """A document as the tagger reads it; see `Reading` in reading.py.

    subword_ids: (subwords,).
    units: (units, 4): its first subword, the subword after its last one, its character offsets.
    windows: (windows, 2), ranges of subwords that are read together in prediction.
    window_of_unit: (units,), in which of them the label of a unit is read.
    sentences: (sentences,), their first subwords; empty where sentences are not known.
    """

    subword_ids: IntArray
    units: IntArray
    windows: IntArray
    window_of_unit: IntArray
    sentences: IntArray
    annotations: list[Annotation]


class QuestionCounts(NamedTuple):
    """What a file holds for a type.

    n_widened: mentions that cut a unit and are widened to it.
    n_untagged: contiguous mentions that no tag stands for: inside of longer ones, or without text.
    """

    type: str
    corpus: str | None
    is_complete: bool
    n_documents: int
    n_mentions: int
    n_discontinuous: int
    n_widened: int
    n_untagged: int


@dataclass(frozen=True)
class SourceFacts:
    """One converted file.

    name: the file's, without split and suffix; corpus: what its documents say.
    file: of its arrays.
    source_sha256, sha256: of the converted file, and of `file`.
    n_unannotated: documents that were left out since they do not say what they are annotated for.
    """

    name: str
    corpus: str | None
    split: str
    file: str
    source_sha256: str
    sha256: str
    n_documents: int
    n_unannotated: int
    n_subwords: int
    n_units: int
    questions: list[QuestionCounts]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "questions": [counts._asdict() for counts in self.questions]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SourceFacts:
        """RAISES KeyError, TypeError: not what `to_dict` gives."""
        counts = [QuestionCounts(**counts) for counts in values["questions"]]
        return cls(**{**values, "questions": counts})


@dataclass(frozen=True)
class RowsHeader:
    """What a folder of rows holds.

    tokenizer: fingerprint; vocab_size: rows of an embedding that reads the ids.
    n_words, overlap, max_subwords: of the windows in prediction, as `packed_sentences` takes them.
    dbr: the names for DBR rows; None where no candidates were given.
    """

    tokenizer: str
    vocab_size: int
    n_words: int
    overlap: int
    max_subwords: int
    sources: list[SourceFacts]
    dbr: DbrFacts | None = None
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        values = {**asdict(self), "sources": [source.to_dict() for source in self.sources]}
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_folder(cls, folder: Path) -> RowsHeader:
        """RAISES VanerError: VE523, no header, or one of another version."""
        path = folder / HEADER_FILE
        try:
            values = json.loads(path.read_text("utf8"))
            if values["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format {values['format_version']}, expected {FORMAT_VERSION}")
            sources = [SourceFacts.from_dict(source) for source in values.pop("sources")]
            dbr = values.pop("dbr", None)
            return cls(sources=sources, dbr=dbr and DbrFacts(**dbr), **values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise VanerError(Messages.VE523.format(path=path, reason=error)) from None


class Source:
    """The documents of one converted file, mapped into memory.

    RAISES ValueError, OSError: the file is damaged.
    """

    def __init__(self, facts: SourceFacts, path: Path) -> None:
        self.facts = facts
        if file_sha256(path) != facts.sha256:
            raise ValueError("its hash is not the one in the header")
        self._arrays = _map_arrays(path)

    def __len__(self) -> int:
        return self.facts.n_documents

    @property
    def lengths(self) -> IntArray:
        """(documents,), in subwords."""
        return numpy.diff(self._arrays["documents"][:, 0])

    def __getitem__(self, index: int) -> Document:
        arrays = self._arrays
        begin, end = arrays["documents"][index].tolist(), arrays["documents"][index + 1].tolist()
        annotations = []
        for place in range(begin[4], end[4]):
            question, tags, mentions, n_discontinuous = arrays["annotations"][place].tolist()
            counts = self.facts.questions[question]
            until = arrays["annotations"][place + 1, 2]
            annotations.append(
                Annotation(
                    counts.type,
                    counts.corpus,
                    counts.is_complete,
                    arrays["tags"][tags : tags + end[1] - begin[1]],
                    arrays["mentions"][mentions:until],
                    n_discontinuous,
                )
            )
        return Document(
            arrays["subword_ids"][begin[0] : end[0]],
            arrays["units"][begin[1] : end[1]],
            arrays["windows"][begin[2] : end[2]],
            arrays["window_of_unit"][begin[1] : end[1]],
            arrays["sentences"][begin[3] : end[3]],
            annotations,
        )


@dataclass(frozen=True)
class PreparedRows:
    """A folder of rows, checked and open."""

    header: RowsHeader
    tokenizer: SubwordTokenizer
    sources: list[Source]

    @classmethod
    def open(cls, folder: Path) -> PreparedRows:
        """RAISES VanerError: VE523, a file is missing or not as the header says; VE110."""
        header = RowsHeader.from_folder(folder)
        tokenizer = SubwordTokenizer.from_folder(folder)
        if tokenizer.fingerprint() != header.tokenizer:
            raise VanerError(
                Messages.VE523.format(path=folder, reason="the tokenizer is another one")
            )
        sources = []
        for facts in header.sources:
            path = folder / facts.file
            try:
                sources.append(Source(facts, path))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise VanerError(Messages.VE523.format(path=path, reason=error)) from None
        return cls(header, tokenizer, sources)

    def of_split(self, split: str) -> list[Source]:
        return [source for source in self.sources if source.facts.split == split]

    def data_sha256(self, *, with_dbr: bool) -> str:
        """Hash of all that a run reads of them, which its checkpoints carry.

        with_dbr: whether it reads the rows of names too, where there are any.
        """
        hashes = sorted(source.facts.sha256 for source in self.sources)
        if with_dbr and self.header.dbr is not None:
            hashes.append(self.header.dbr.sha256)
        return hashlib.sha256("".join(hashes).encode("utf8")).hexdigest()


def write_source(
    path: Path, documents: Iterable[Document], *, vocab_size: int
) -> tuple[list[tuple[str, str | None, bool]], dict[str, int]]:
    """Write the arrays of one converted file, beside and renamed.

    RETURNS: the questions that its annotations refer to, (type, corpus name, is complete), and the
        counts n_documents, n_subwords, n_units.
    """
    questions: dict[tuple[str, str | None, bool], int] = {}
    parts: dict[str, list[Any]] = {name: [] for name in _ARRAYS}
    bounds = [[0, 0, 0, 0, 0]]
    annotations: list[list[int]] = []
    n_tags = n_mentions = 0
    for document in documents:
        for name in ("subword_ids", "units", "windows", "window_of_unit", "sentences"):
            parts[name].append(numpy.asarray(getattr(document, name)))
        for annotation in document.annotations:
            key = (annotation.type, annotation.corpus, annotation.is_complete)
            number = questions.setdefault(key, len(questions))
            annotations.append([number, n_tags, n_mentions, annotation.n_discontinuous])
            parts["tags"].append(annotation.tags)
            parts["mentions"].append(annotation.mentions)
            n_tags += len(annotation.tags)
            n_mentions += len(annotation.mentions)
        sizes = [
            len(document.subword_ids),
            len(document.units),
            len(document.windows),
            len(document.sentences),
            len(document.annotations),
        ]
        bounds.append([total + size for total, size in zip(bounds[-1], sizes, strict=True)])
    annotations.append([0, n_tags, n_mentions, 0])
    parts["documents"], parts["annotations"] = [bounds], [annotations]
    ids_dtype = numpy.uint16 if vocab_size <= _LONGEST_UINT16 else numpy.uint32
    arrays = {}
    for name, (dtype, *shape) in _ARRAYS.items():
        empty: IntArray = numpy.zeros((0, *shape), dtype or ids_dtype)
        found = [numpy.asarray(part, empty.dtype).reshape(-1, *shape) for part in parts[name]]
        arrays[name] = numpy.concatenate([empty, *found])
    write_whole(path, save(arrays))
    counts = {
        "n_documents": len(bounds) - 1,
        "n_subwords": bounds[-1][0],
        "n_units": bounds[-1][1],
    }
    return list(questions), counts


_ARRAYS: dict[str, tuple[Any, ...]] = {
    # Per document, and once at the end, where its part of the other arrays begins: subwords, units,
    # windows, sentences, annotations.
    "documents": (numpy.int64, 5),
    "subword_ids": (None,),
    "units": (numpy.int32, 4),
    "windows": (numpy.int32, 2),
    "window_of_unit": (numpy.int32,),
    "sentences": (numpy.int32,),
    # Number of the question, where its tags and its mentions begin, its discontinuous mentions.
    "annotations": (numpy.int64, 4),
    "tags": (numpy.int8,),
    "mentions": (numpy.int32, 2),
}
"""Name → dtype (None: that of the ids) and the sizes of further axes."""


def _map_arrays(path: Path) -> Mapping[str, IntArray]:
    """The tensors of a safetensors file without reading them."""
    with path.open("rb") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n_bytes))
    arrays: dict[str, IntArray] = {}
    for name in _ARRAYS:
        facts = header[name]
        dtype, shape = _SAFETENSORS_DTYPES[facts["dtype"]], tuple(facts["shape"])
        start = 8 + n_bytes + facts["data_offsets"][0]
        if 0 in shape:  # nothing can't be mapped
            arrays[name] = numpy.zeros(shape, dtype)
        else:
            mapped = numpy.memmap(path, dtype, mode="r", offset=start, shape=shape)
            # Slices of a plain array are made faster.
            arrays[name] = numpy.asarray(mapped)
    return arrays
