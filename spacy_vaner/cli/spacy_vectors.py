"""`python -m spacy vaner spacy-vectors`: our static vectors for spaCy's own components."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from wasabi import msg


def spacy_vectors_command(
    vectors: Annotated[
        Path,
        typer.Argument(
            metavar="VECTORS",
            help=".safetensors of `python -m spacy_vaner.training vectors`, or gensim's "
            "KeyedVectors (.kv)",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder to write")],
    words: Annotated[
        list[Path] | None,
        typer.Option(
            "--words",
            help="For .safetensors, which holds hashes: .spacy files or texts that the words are "
            "in. May be given several times",
        ),
    ] = None,
) -> None:
    """Write word vectors as `spacy train --paths.vectors` takes them."""
    from spacy_vaner.evaluation.spacy_vectors import write_spacy_vectors

    n_words = write_spacy_vectors(vectors, output, words=words or [])
    msg.good(f"{n_words:,} words: {output}")
