"""`python -m spacy vaner tokenizer`: a byte-fallback BPE tokenizer from one's own texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from wasabi import msg

from spacy_vaner.errors import Messages, VanerError

if TYPE_CHECKING:
    from spacy_vaner.backbone.tokenizer import SubwordTokenizer

_TEXTS = (".txt", ".txt.xz")

FERTILITY_TEXTS = 2000
"""Texts that the printed subwords per word are counted over."""


def tokenizer_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES_OR_FOLDERS",
            help="Converted corpora (.spacy) or plain texts (.txt, .txt.xz); of a folder, every "
            "*.train.spacy in it, or every text where there is none",
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Folder to write; a tokenizer is replaced")
    ],
    vocab_size: Annotated[
        int,
        typer.Option("--vocab-size", help="Subwords at most, 261 special and byte ones included"),
    ] = 8000,
    min_frequency: Annotated[
        int, typer.Option("--min-frequency", help="How often a pair must occur to be merged")
    ] = 2,
) -> None:
    """Train a tokenizer for a small LLaMA; use the training files only.

    Set the folder as `tokenizer_path` of `spacy-vaner.small_llama.v1`.
    """
    # Imported here so that the help stays fast.
    from spacy_vaner.backbone.tokenizer import train_bpe

    files = [file for path in files for file in (_files_in(path) if path.is_dir() else [path])]
    for path in files:
        if not path.is_file() or not path.name.endswith((".spacy", *_TEXTS)):
            reason = "another kind of file" if path.exists() else "there is no such file"
            raise VanerError(Messages.VE115.format(path=path, error=reason))
    texts = _Texts(files)
    tokenizer = train_bpe(texts, vocab_size=vocab_size, min_frequency=min_frequency)
    tokenizer.to_folder(output)
    fertility = _fertility(tokenizer, islice(texts, FERTILITY_TEXTS))
    msg.good(f"{tokenizer.n_tokens} subwords, {fertility:.2f} per word: {output}")


def _files_in(folder: Path) -> list[Path]:
    from spacy_vaner.corpora.docbins import find_files

    texts = sorted(path for path in folder.rglob("*") if path.name.endswith(_TEXTS))
    if texts and not any(folder.glob("*.train.spacy")):
        return texts
    return find_files([folder], split="train")


@dataclass(frozen=True)
class _Texts:
    """Texts that can be read again: a document of a .spacy file, a line of a text, file by file."""

    files: list[Path]

    def __iter__(self) -> Iterator[str]:
        from spacy.tokens import DocBin
        from spacy.vocab import Vocab

        from spacy_vaner.training.sources import read_lines

        for path in self.files:
            try:
                if path.suffix == ".spacy":
                    for doc in DocBin().from_disk(path).get_docs(Vocab()):
                        yield doc.text
                else:
                    yield from (line for _, line in read_lines(path))
            except Exception as error:  # zlib, msgpack and spaCy each have their own
                raise VanerError(Messages.VE115.format(path=path, error=error)) from error


def _fertility(tokenizer: SubwordTokenizer, texts: Iterable[str]) -> float:
    """Subwords per word, where a word is what white space separates."""
    n_subwords = n_words = 0
    for text in texts:
        n_subwords += len(tokenizer.encode(text)[0])
        n_words += len(text.split())
    return n_subwords / max(1, n_words)
