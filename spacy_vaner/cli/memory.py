"""`python -m spacy vaner memory`: what a backbone takes, before anything is downloaded."""

from __future__ import annotations

from typing import Annotated

import typer


def memory_command(
    backbone: Annotated[
        str,
        typer.Argument(
            metavar="BACKBONE_OR_SHAPE",
            help="Folder, config.json, hub name (only its config.json is fetched), or one of "
            "llama-2-7b, llama-3-8b, mistral-7b, qwen2.5-7b",
        ),
    ],
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows in a pass")] = 8,
    subwords: Annotated[
        int, typer.Option("--subwords", min=1, help="Of a row, instruction and padding included")
    ] = 160,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of the adapter")] = 12,
    targets: Annotated[
        str,
        typer.Option("--targets", help="all-linear, or names of layers with commas between"),
    ] = "all-linear",
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help="As in the config of the backbone",
        ),
    ] = True,
) -> None:
    """Count the memory of training and prediction in GiB, and the size of an adapter."""
    # Imported here so that the help stays fast.
    from spacy_vaner.backbone.memory import count, memory_table, read_shape
    from spacy_vaner.backbone.settings import ALL_LINEAR, Lora

    names = targets if targets == ALL_LINEAR else tuple(map(str.strip, targets.split(",")))
    counts = count(read_shape(backbone), Lora(rank=rank, targets=names))
    typer.echo(
        f"{counts.n_parameters:,} parameters; adapter and head: {counts.n_trained:,}, "
        f"{counts.n_trained * 4 / 1e6:.1f} MB as a file."
    )
    again = "with" if gradient_checkpointing else "without"
    typer.echo(
        f"GiB for {rows} rows of {subwords} subwords, {again} gradient checkpointing; all but fp32 "
        "compute in bf16:"
    )
    lines = memory_table(
        counts, rows=rows, subwords=subwords, gradient_checkpointing=gradient_checkpointing
    )
    typer.echo("\n".join(lines))
