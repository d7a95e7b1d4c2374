"""`python -m spacy vaner protected-runs`, `prepare` and `pretrain`: a backbone of one's own.

The last two are the commands of `python -m spacy_vaner.training`, which works without spaCy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from wasabi import msg


def protected_runs_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES",
            help="Converted corpora (.spacy) that must not be trained on; of a folder, every "
            "*.test.spacy and *.dev.spacy in it",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="File to write")],
) -> None:
    """Write the runs of twelve words of protected texts, for `prepare --protected`.

    The file holds hashes, no text: it can be carried to where the text is prepared.
    """
    from spacy_vaner.corpora.docbins import find_files, read_docs
    from spacy_vaner.training.protected import ProtectedRuns

    paths = find_files(files, split=("test", "dev"))
    runs = ProtectedRuns.from_texts(doc.text for path in paths for doc in read_docs(path))
    runs.to_file(output)
    msg.good(f"{len(runs):,} runs of {len(paths)} files: {output}")


def prepare_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATHS",
            help=".txt and .txt.xz files (UTF-8, a document a line), .tsv and .tsv.xz files of "
            "names (columns name, type, id), or folders with them",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder to write")],
    tokenizer: Annotated[
        Path, typer.Option("--tokenizer", help="Folder made by `vaner tokenizer`")
    ],
    protected: Annotated[
        Path | None,
        typer.Option(
            "--protected",
            help="File of `vaner protected-runs`: documents that share twelve words in a row with "
            "it are left out and counted",
        ),
    ] = None,
    repeat: Annotated[
        list[str] | None,
        typer.Option("--repeat", help="FILE=N: write this file's documents N times; repeatable"),
    ] = None,
    dev_share: Annotated[
        float, typer.Option("--dev-share", help="Share of the documents kept for the dev loss")
    ] = 0.002,
) -> None:
    """Tokenise texts once, into a folder of token ids to pretrain on.

    Sources that are done are kept when it is interrupted; what is up to date is left alone.
    """
    from spacy_vaner.training.__main__ import run_prepare

    told = run_prepare(
        paths,
        output,
        tokenizer_path=tokenizer,
        protected_path=protected,
        repeat=repeat or [],
        dev_share=dev_share,
    )
    msg.good(str(output), told)


def pretrain_command(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Settings as JSON (docs/pretraining.md)")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder of the run")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE: override a setting, e.g. n_steps=100; repeatable"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint, if there is one")
    ] = False,
    init_weights: Annotated[
        Path | None,
        typer.Option("--init-weights", help="Folder or file of weights to start from"),
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option("--max-minutes", help="Stop then, with a checkpoint")
    ] = None,
) -> None:
    """Pretrain a small LLaMA on a folder of token ids.

    Ctrl-C stops it with a checkpoint; --resume goes on as if nothing had been. The result,
    OUTPUT/backbone, is what `spacy-vaner.hf_backbone.v1` takes as `name`.
    """
    from spacy_vaner.training.__main__ import run_pretrain

    told, status = run_pretrain(
        config,
        output,
        overrides=overrides or [],
        resume=resume,
        init_weights=init_weights,
        max_minutes=max_minutes,
    )
    msg.good(told)
    if status:
        raise typer.Exit(status)
