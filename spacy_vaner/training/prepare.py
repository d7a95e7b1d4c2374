"""Text files into a folder of token ids: streamed, tokenised once, resumable per source file.

Work goes on in OUTPUT.part, which becomes OUTPUT when everything is there. A source that is done
leaves three files there, named by a hash of all that they depend on, so a second start takes them
as they are and changed files or settings are done anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy
from tokenizers import Tokenizer

from spacy_vaner.backbone.tokenizer import TOKENIZER_FILE, SubwordTokenizer
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.training.protected import ProtectedRuns
from spacy_vaner.training.sources import Source, read_documents
from spacy_vaner.training.token_file import (
    HEADER_FILE,
    SPLITS,
    Header,
    Ids,
    SourceCounts,
    Vocabulary,
    file_sha256,
)

# Characters that are tokenised together, on all cores.
_BATCH_CHARACTERS = 2_000_000
_LONGEST_UINT16 = 1 << 16

Progress = Callable[[Source, int], None]
"""Called with the source at work and the documents just read."""


def prepare(
    sources: Iterable[Source],
    output: Path,
    *,
    tokenizer_path: Path,
    protected: ProtectedRuns | None = None,
    dev_share: float = 0.002,
    on_progress: Progress | None = None,
) -> Header:
    """Write a folder of token ids; what is up to date is left alone.

    dev_share: of the documents of text that go to `dev.ids`, chosen by a hash of their text;
        names are for training only.
    protected: documents that share a run with them are left out and counted.
    RAISES VanerError: VE503-VE505, a source; VE110, VE111, VE508, the tokenizer; VE519, an output
        that is something else. Nothing half-written is left where OUTPUT is.
    """
    sources = list(sources)
    tokenizer = SubwordTokenizer.from_folder(tokenizer_path)
    vocab_size = Vocabulary.of_tokenizer(tokenizer, path=tokenizer_path).n_subwords
    if output.exists() and not (output / HEADER_FILE).is_file():
        raise VanerError(Messages.VE519.format(path=output))
    empty = Header(
        dtype="uint16" if vocab_size <= _LONGEST_UINT16 else "uint32",
        vocab_size=vocab_size,
        tokenizer=tokenizer.fingerprint(),
        dev_share=dev_share,
        protected=protected.fingerprint() if protected is not None else None,
        n_subwords={},
        n_documents={},
        sha256={},
        sources=[],
    )
    keys = [
        _key(empty, source.path.name, source.kind, source.repeat, file_sha256(source.path))
        for source in sources
    ]
    if output.exists() and _is_current(output, keys):
        return Header.from_folder(output)
    work = output.with_name(output.name + ".part")
    work.mkdir(parents=True, exist_ok=True)
    writer = _Writer(tokenizer, empty.dtype, dev_share, protected, on_progress)
    for source, key in zip(sources, keys, strict=True):
        if not (work / f"{key}.json").is_file():
            writer.write(source, work / key)
    header = _join(work, keys, empty)
    for name, content in tokenizer.to_files().items():
        (work / name).write_bytes(content)
    (work / HEADER_FILE).write_text(header.to_json(), encoding="utf8")
    wanted = {HEADER_FILE, *tokenizer.to_files(), *(f"{split}.ids" for split in SPLITS)}
    for path in work.iterdir():
        if path.name not in wanted:
            path.unlink()
    if output.exists():
        shutil.rmtree(output)
    work.rename(output)
    return header


class _Writer:
    """Tokenises sources; see `prepare` for the arguments."""

    def __init__(
        self,
        tokenizer: SubwordTokenizer,
        dtype: str,
        dev_share: float,
        protected: ProtectedRuns | None,
        on_progress: Progress | None,
    ) -> None:
        # The library's own object: SubwordTokenizer gives offsets, which cost more than the ids.
        serialized = tokenizer.to_files()[TOKENIZER_FILE].decode("utf8")
        self._tokenizer = Tokenizer.from_str(serialized)
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._separator = tokenizer.encode_instruction("")
        self._dtype = numpy.dtype(dtype).newbyteorder("<")
        self._dev_share = dev_share
        self._protected = protected
        self._on_progress = on_progress

    def write(self, source: Source, stem: Path) -> None:
        """Write STEM.train.ids, STEM.dev.ids and, when they are complete, STEM.json."""
        n_documents = dict.fromkeys(SPLITS, 0)
        n_subwords = dict.fromkeys(SPLITS, 0)
        n_words = n_empty = n_protected = 0
        beside = {split: _beside(stem, f"{split}.ids") for split in SPLITS}
        with beside["train"].open("wb") as train, beside["dev"].open("wb") as dev:
            files = {"train": train, "dev": dev}
            for batch in _batches(read_documents(source)):
                kept = [text for text in batch if text]
                n_empty += len(batch) - len(kept)
                if self._protected is not None:
                    before = len(kept)
                    kept = [text for text in kept if not self._protected.shares_run(text)]
                    n_protected += before - len(kept)
                for text, ids in zip(kept, self._encode(kept), strict=True):
                    split = "dev" if source.kind == "text" and self._is_dev(text) else "train"
                    files[split].write(ids.tobytes())
                    n_documents[split] += 1
                    n_subwords[split] += len(ids)
                    n_words += len(text.split())
                if self._on_progress is not None:
                    self._on_progress(source, len(batch))
        for split, path in beside.items():
            path.rename(stem.with_name(f"{stem.name}.{split}.ids"))
        counts = SourceCounts(
            name=source.path.name,
            kind=source.kind,
            repeat=source.repeat,
            sha256=file_sha256(source.path),
            n_documents=sum(n_documents.values()),
            n_words=n_words,
            n_subwords=sum(n_subwords.values()),
            n_empty=n_empty,
            n_protected=n_protected,
        )
        facts = {"n_documents": n_documents, "n_subwords": n_subwords, "counts": asdict(counts)}
        _beside(stem, "json").write_text(json.dumps(facts), encoding="utf8")
        _beside(stem, "json").rename(stem.with_name(f"{stem.name}.json"))

    def _encode(self, texts: list[str]) -> Iterator[Ids]:
        for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            yield numpy.array(self._separator + encoding.ids, self._dtype)

    def _is_dev(self, text: str) -> bool:
        digest = hashlib.blake2b(text.encode("utf8"), digest_size=8).digest()
        return int.from_bytes(digest, "little") < self._dev_share * 2**64


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    n_characters = 0
    for document in documents:
        batch.append(document)
        n_characters += len(document)
        if n_characters >= _BATCH_CHARACTERS:
            yield batch
            batch, n_characters = [], 0
    if batch:
        yield batch


def _beside(stem: Path, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}.{suffix}.part")


def _key(header: Header, name: str, kind: str, repeat: int, sha256: str) -> str:
    """Hash of all that a source's ids depend on."""
    facts = [
        *(header.format_version, header.dtype, header.tokenizer, header.dev_share),
        *(header.protected, name, kind, repeat, sha256),
    ]
    return hashlib.sha256(json.dumps(facts).encode("utf8")).hexdigest()[:32]


def _is_current(output: Path, keys: list[str]) -> bool:
    """Whether the output was made of the same sources with the same settings."""
    try:
        made = Header.from_folder(output)
    except VanerError:
        return False
    return keys == [_key(made, s.name, s.kind, s.repeat, s.sha256) for s in made.sources]


def _join(work: Path, keys: list[str], empty: Header) -> Header:
    """Put the sources' files one after the other; twice the same source is there twice."""
    facts = [json.loads((work / f"{key}.json").read_text("utf8")) for key in keys]
    for split in SPLITS:
        beside = work / f"{split}.ids.part"
        with beside.open("wb") as joined:
            for key in keys:
                with (work / f"{key}.{split}.ids").open("rb") as part:
                    shutil.copyfileobj(part, joined)
            joined.flush()
            os.fsync(joined.fileno())
        beside.rename(work / f"{split}.ids")
    n_subwords: dict[str, int] = {
        split: sum(fact["n_subwords"][split] for fact in facts) for split in SPLITS
    }
    total = sum(n_subwords.values()) or 1
    counts = [SourceCounts(**fact["counts"]) for fact in facts]
    return replace(
        empty,
        n_subwords=n_subwords,
        n_documents={s: sum(fact["n_documents"][s] for fact in facts) for s in SPLITS},
        sha256={split: file_sha256(work / f"{split}.ids") for split in SPLITS},
        sources=[replace(count, share=count.n_subwords / total) for count in counts],
    )
