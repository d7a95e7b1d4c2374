"""`python -m spacy vaner annotate`: entities in files of any size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from wasabi import msg

from spacy_vaner.errors import Messages, VanerError

if TYPE_CHECKING:
    from spacy_vaner.annotation.annotator import Settings
    from spacy_vaner.annotation.run import Engine, Progress

REJECTED = 3
"""Exit status when all is done, but documents were rejected."""


def annotate_command(
    given: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A file, a folder with those below it, a pattern in quotes, or - for standard "
            "input; packed with gzip or not",
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Folder for results; made if missing")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Folder or name of a trained pipeline; default: the tagger of the package",
        ),
    ] = None,
    from_format: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="text, jsonl, pubtator, bioc_xml, bioc_json, pubmed_xml, jats or spacy; "
            "without it, by the names of the files",
        ),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="pubtator, bioc_xml, bioc_json, brat, jsonl, parquet, spacy or html"
        ),
    ] = "jsonl",
    types: Annotated[
        str | None,
        typer.Option("--types", help="Types to ask, commas between; default: the pipeline's"),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            "--corpus",
            help="Corpus whose style is asked: a name, or Type=name,Type=name",
        ),
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="local, or ray for a cluster")] = "local",
    workers: Annotated[
        int,
        typer.Option(
            "--workers", "-w", min=1, help="Workers of one thread, each with the pipeline"
        ),
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Of a running Ray cluster; auto = of this machine"),
    ] = None,
    shard_documents: Annotated[
        int, typer.Option("--shard-documents", min=1, help="Documents in a file of results")
    ] = 500,
    max_characters: Annotated[
        int, typer.Option("--max-characters", min=1, help="A longer document is rejected")
    ] = 10_000_000,
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU ID, or -1 for the CPU")] = -1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and count; load no model, write nothing")
    ] = False,
) -> None:
    """Find entities in documents of any number and get the documents back with them.

    Results are files in OUTPUT/annotated; OUTPUT/manifest.json says with which model and settings,
    OUTPUT/rejected.jsonl what could not be read. Started again after a stop, it goes on.

    Exit status: 0, all is annotated; 3, all but what is in rejected.jsonl; 1, stopped by an error.

    Example: python -m spacy vaner annotate pubmed results --to bioc_xml --workers 8
    """
    from spacy_vaner.annotation.annotator import Settings, model_name, parse_corpus
    from spacy_vaner.annotation.formats import get_output
    from spacy_vaner.annotation.inputs import Limits
    from spacy_vaner.settings import check_types

    get_output(to)
    settings = Settings(
        model=model,
        model_name=model_name(model),
        to=to,
        types=None if types is None else check_types(types),
        corpus=None if corpus is None else parse_corpus(corpus),
        limits=Limits(documents=shard_documents, document_characters=max_characters),
        gpu=gpu_id,
    )
    if dry_run:
        _print_survey(given, output, settings, from_format)
    else:
        chosen = _engine(engine, workers=workers, address=address, gpu_id=gpu_id)
        _annotate(given, output, settings, from_format, chosen)


def _annotate(
    given: str, output: Path, settings: Settings, from_format: str | None, engine: Engine
) -> None:
    from tqdm import tqdm

    from spacy_vaner.annotation.run import annotate

    with tqdm(desc="Annotating", unit="B", unit_scale=True, leave=False) as bar:

        def advance(progress: Progress) -> None:
            bar.total = progress.all_bytes
            if not progress.documents:
                # What an earlier run did says nothing about the time that is left.
                bar.initial = progress.read_bytes
            elapsed = bar.format_dict["elapsed"] or 1e-9
            bar.set_postfix_str(
                f"{progress.documents:,} documents, {progress.documents / elapsed:.1f}/s",
                refresh=False,
            )
            bar.update(progress.read_bytes - bar.n)

        totals = annotate(
            given,
            output,
            settings,
            from_format=from_format,
            engine=engine,
            on_progress=advance,
        )
    found = ", ".join(f"{type_} {n:,}" for type_, n in totals.found.items()) or "none"
    print(
        f"{totals.documents:,} documents, {totals.words:,} words in {totals.shards:,} shards; "
        f"found: {found}"
    )
    if totals.across_passages:
        print(f"{totals.across_passages:,} spans ran over the end of a passage and were left out")
    # print, since wasabi breaks long lines, and a path is to be copied.
    print(f"Results: {output / 'annotated'}")
    if totals.rejected:
        msg.warn(f"{totals.rejected:,} rejected: {output / 'rejected.jsonl'}")
        raise typer.Exit(REJECTED)
    msg.good("All documents are annotated")


def _print_survey(given: str, output: Path, settings: Settings, from_format: str | None) -> None:
    from spacy_vaner.annotation.run import survey

    found = survey(given, output, settings, from_format=from_format)
    print(
        f"{found.documents:,} documents ({found.characters:,} characters, "
        f"{found.annotations:,} annotations) as {', '.join(found.formats)}; "
        f"{found.shards:,} shards, {found.shards_done:,} of them done"
    )
    print(f"Model: {settings.model_name}")
    if found.rejected:
        msg.warn(f"{found.rejected:,} would be rejected")
        raise typer.Exit(REJECTED)


def _engine(name: str, *, workers: int, address: str | None, gpu_id: int) -> Engine:
    """RAISES VanerError: VE717, an unknown engine; VE718, options that do not go together."""
    from spacy_vaner.annotation.run import local_engine

    if name == "ray":
        from spacy_vaner.annotation.ray_engine import ray_engine

        return ray_engine(workers, address=address)
    if name != "local":
        raise VanerError(Messages.VE717.format(engine=name))
    if address is not None:
        raise VanerError(Messages.VE718.format(problem="--address needs --engine ray"))
    if gpu_id >= 0 and workers > 1:
        raise VanerError(
            Messages.VE718.format(
                problem="a GPU has one worker here: leave --workers out, or take --engine ray"
            )
        )
    return local_engine(workers)
