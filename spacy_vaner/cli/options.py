"""Arguments and options that several commands share: they mean the same in each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PIPELINE = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="Folder or name of a trained pipeline")
]
FILES = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILES_OR_FOLDERS",
        help="Converted .spacy files with the gold annotation; of a folder, every *.SPLIT.spacy "
        "in it",
    ),
]
SPLIT = Annotated[str, typer.Option("--split", help="Which files of a folder: train, dev or test")]
VIEW = Annotated[
    str,
    typer.Option(
        "--view",
        help="What a pipeline is given: 'text', raw text, which its own tokenizer cuts, or "
        "'tokens', the words and sentences of the files",
    ),
]
NO_CORPUS_NAME = Annotated[
    bool,
    typer.Option(
        "--no-corpus-name", help="Ask a vaner_ner without naming the corpus, as on new text"
    ),
]
LABEL_MAP = Annotated[
    list[str] | None,
    typer.Option(
        "--label-map",
        help="Types that labels of other systems stand for: DISEASE=Disease,CHEMICAL=Chemical. "
        "May be given several times",
    ),
]
SEED = Annotated[int, typer.Option("--seed", help="Seed of intervals and tests")]
RESAMPLES = Annotated[int, typer.Option("--resamples", min=1, help="Draws for intervals and tests")]
GPU_ID = Annotated[int, typer.Option("--gpu-id", "-g", help="GPU ID, or -1 for the CPU")]
CODE = Annotated[
    Path | None,
    typer.Option("--code", "-c", help="Python file with registered functions to import first"),
]
