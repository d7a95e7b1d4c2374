"""A folder of token ids: text that was tokenised once, to be read by any number of runs.

`train.ids` and `dev.ids` hold one little-endian integer per subword, document after document, each
begun by the tokenizer's BOS if it has one; `prepared.json` says what they are, and the tokenizer's
files lie beside them. The folder is all that a run needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from spacy_vaner.backbone.tokenizer import CONFIG_FILE, TOKENIZER_FILE, SubwordTokenizer
from spacy_vaner.errors import Messages, VanerError

FORMAT_VERSION = 1
HEADER_FILE = "prepared.json"
SPLITS = ("train", "dev")

_WORD_MARKS = ("\u2581", "\u0120")
_CHUNK_BYTES = 1 << 24

Ids = NDArray[Any]


@dataclass(frozen=True)
class SourceCounts:
    """What became of one source file.

    sha256: of the file as it was read, compressed or not.
    n_documents, n_subwords: written, train and dev together; n_subwords with separators.
    share: of all subwords.
    n_empty, n_protected: documents left out: without text; sharing a run with protected text.
    """

    name: str
    kind: str
    repeat: int
    sha256: str
    n_documents: int
    n_words: int
    n_subwords: int
    n_empty: int
    n_protected: int
    share: float = 0.0


@dataclass(frozen=True)
class Header:
    """What a folder of token ids holds.

    dtype: "uint16" or "uint32".
    n_subwords, n_documents, sha256: split → of its file.
    tokenizer: fingerprint.
    dev_share: of the documents of text, by hash.
    protected: fingerprint of the protected runs; None if there was no check.
    """

    dtype: str
    vocab_size: int
    tokenizer: str
    dev_share: float
    protected: str | None
    n_subwords: dict[str, int]
    n_documents: dict[str, int]
    sha256: dict[str, str]
    sources: list[SourceCounts]
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_folder(cls, folder: Path) -> Header:
        """RAISES VanerError: VE507, no header, or one of another version."""
        path = folder / HEADER_FILE
        try:
            values = json.loads(path.read_text("utf8"))
            if values["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format {values['format_version']}, expected {FORMAT_VERSION}")
            sources = [SourceCounts(**source) for source in values.pop("sources")]
            return cls(sources=sources, **values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise VanerError(Messages.VE507.format(path=path, reason=error)) from None


@dataclass(frozen=True)
class Vocabulary:
    """What masking has to know of a tokenizer.

    n_subwords: rows of the embedding.
    ordinary: ids that may replace another subword: all but the special ones.
    is_special, starts_word: per id.
    """

    n_subwords: int
    mask_id: int
    ordinary: NDArray[numpy.int64]
    is_special: NDArray[numpy.bool_]
    starts_word: NDArray[numpy.bool_]

    @classmethod
    def of_tokenizer(cls, tokenizer: SubwordTokenizer, *, path: Path) -> Vocabulary:
        """RAISES VanerError: VE508, a tokenizer without a mask."""
        files = tokenizer.to_files()
        config = json.loads(files[CONFIG_FILE])
        serialized = json.loads(files[TOKENIZER_FILE])
        vocab: dict[str, int] = dict(serialized["model"]["vocab"])
        added = {entry["content"]: entry for entry in serialized.get("added_tokens", [])}
        vocab.update({token: entry["id"] for token, entry in added.items()})
        mask = config.get("mask_token")
        mask = mask.get("content") if isinstance(mask, Mapping) else mask
        if mask not in vocab:
            raise VanerError(Messages.VE508.format(path=path))
        n_subwords = tokenizer.n_tokens
        is_special = numpy.ones(n_subwords, numpy.bool_)  # ids without a subword too
        starts_word = numpy.zeros(n_subwords, numpy.bool_)
        for token, id_ in vocab.items():
            is_special[id_] = token in added and bool(added[token]["special"])
            starts_word[id_] = is_special[id_] or token.startswith(_WORD_MARKS)
        is_special[vocab[mask]] = starts_word[vocab[mask]] = True
        ordinary = numpy.flatnonzero(~is_special)
        return cls(n_subwords, vocab[mask], ordinary, is_special, starts_word)


@dataclass(frozen=True)
class PreparedText:
    """A folder of token ids, checked and open.

    train, dev: mapped into memory, (subwords,).
    """

    header: Header
    tokenizer: SubwordTokenizer
    vocabulary: Vocabulary
    train: Ids
    dev: Ids

    @classmethod
    def open(cls, folder: Path) -> PreparedText:
        """RAISES VanerError: VE507, a file is missing or not as the header says; VE110, VE508."""
        header = Header.from_folder(folder)
        tokenizer = SubwordTokenizer.from_folder(folder)
        if tokenizer.fingerprint() != header.tokenizer:
            raise VanerError(
                Messages.VE507.format(path=folder, reason="the tokenizer is another one")
            )
        vocabulary = Vocabulary.of_tokenizer(tokenizer, path=folder)
        train, dev = (_map_ids(folder, split, header) for split in SPLITS)
        return cls(header, tokenizer, vocabulary, train, dev)


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _map_ids(folder: Path, split: str, header: Header) -> Ids:
    path = folder / f"{split}.ids"
    n_subwords = header.n_subwords[split]
    try:
        dtype = numpy.dtype(header.dtype).newbyteorder("<")
        if path.stat().st_size != n_subwords * dtype.itemsize:
            raise ValueError(
                f"{path.stat().st_size} bytes instead of {n_subwords * dtype.itemsize}"
            )
        if file_sha256(path) != header.sha256[split]:
            raise ValueError("its hash is not the one in the header")
        if not n_subwords:  # nothing can't be mapped
            return numpy.zeros(0, dtype)
        return numpy.memmap(path, dtype, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise VanerError(Messages.VE507.format(path=path, reason=error)) from None
