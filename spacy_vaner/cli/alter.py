"""`python -m spacy vaner alter`: altered copies of converted corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from wasabi import msg

_SPLITS = ("train", "dev", "test")


def alter_command(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES", help="Converted corpora, NAME.SPLIT.spacy, or folders"),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder to write")],
    how: Annotated[
        str,
        typer.Option(
            "--how",
            help="With commas: lower, upper, title, british, greek-names, greek-letters, cells",
        ),
    ] = "lower,upper,title,british,greek-names,greek-letters,cells",
    split: Annotated[
        str | None,
        typer.Option("--split", help="Of folders only this split: train, dev or test"),
    ] = None,
) -> None:
    """Write copies whose texts look different, with the annotation moved along.

    NAME.SPLIT.spacy becomes NAME.HOW.SPLIT.spacy. For figures on such texts, and to train on.

    Example: python -m spacy vaner alter converted/BC5CDR/text/BC5CDR.text.dev.spacy altered
    """
    from spacy_vaner.corpora.alter import ALTERATIONS, alter
    from spacy_vaner.corpora.docbins import docs_to_bytes, find_files, read_docs
    from spacy_vaner.errors import Messages, VanerError
    from spacy_vaner.files import write_whole

    chosen = [name.strip() for name in how.split(",")]
    if unknown := [name for name in chosen if name not in ALTERATIONS]:
        known = ", ".join(ALTERATIONS)
        raise VanerError(Messages.VE240.format(names=", ".join(unknown), known=known))
    for path in files:
        if not path.is_dir() and (path.suffix != ".spacy" or len(path.suffixes) < 2):
            raise VanerError(Messages.VE241.format(path=path))
    for path in find_files(files, split=_SPLITS if split is None else split):
        name, _, split_of_file = path.name.removesuffix(".spacy").rpartition(".")
        for one in chosen:
            target = output / f"{name}.{one}.{split_of_file}.spacy"
            docs = list(alter(read_docs(path), one))
            output.mkdir(parents=True, exist_ok=True)
            write_whole(target, docs_to_bytes(docs))
            msg.info(f"{target}: {len(docs):,} documents")
