"""`python -m spacy vaner instructions`: converted corpora as rows for generating models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from wasabi import msg


def instructions_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES_OR_FOLDERS",
            help="Converted .spacy files; of a folder, every *.SPLIT.spacy in it",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="JSONL file to write")],
    form: Annotated[
        str,
        typer.Option(
            "--form",
            help="'instruction': instruction, input and output per sentence and type; "
            "'few-shot': examples for spacy-llm's spacy.FewShotReader.v1",
        ),
    ] = "instruction",
    instruction: Annotated[
        str | None,
        typer.Option("--instruction", help="Wording, with {type} where the type is to stand"),
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="Sentences to draw; all by default")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw")] = 0,
    split: Annotated[
        str, typer.Option("--split", help="Which files of a folder: train, dev or test")
    ] = "train",
) -> None:
    """Write converted corpora as JSONL to tune or prompt a generating language model with.

    A row is a sentence with the names in it, None where there is none. Only types that a corpus
    annotates completely are asked.

    Example: python -m spacy vaner instructions corpora rows.jsonl
    """
    from spacy_vaner.corpora.docbins import find_files
    from spacy_vaner.corpora.instructions import INSTRUCTION, write_instructions

    n_rows = write_instructions(
        find_files(paths, split=split),
        output,
        form=form,
        instruction=INSTRUCTION if instruction is None else instruction,
        sample=sample,
        seed=seed,
    )
    msg.good(f"Saved {n_rows:,} rows to {output}")
