"""`python -m spacy vaner benchmark`: systems side by side on the same documents."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from wasabi import msg

from spacy_vaner.cli.options import NO_CORPUS_NAME, RESAMPLES, SEED, SPLIT, VIEW
from spacy_vaner.errors import Messages, VanerError

if TYPE_CHECKING:
    from spacy_vaner.evaluation.systems.base import SystemSpec


def benchmark_command(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder of the benchmark")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES_OR_FOLDERS",
            help="Converted .spacy files; of a folder, every *.SPLIT.spacy in it. None: only write "
            "the report of what is in OUTPUT",
        ),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system",
            help="KIND=WHERE or KIND:NAME=WHERE, e.g. vaner=training/model-best, "
            "dictionary:names=converted/sample. Kinds: vaner, spacy, scispacy, dictionary, flair, "
            "gliner, llm, cnn. May be given several times",
        ),
    ] = None,
    systems: Annotated[
        Path | None,
        typer.Option("--systems", help="JSON file, a list of systems (docs/benchmark.md)"),
    ] = None,
    split: SPLIT = "dev",
    read_tests: Annotated[
        bool,
        typer.Option(
            "--read-tests",
            help="Test splits may be read; each reading is noted in OUTPUT/readings.jsonl",
        ),
    ] = False,
    view: VIEW = "text",
    no_corpus_name: NO_CORPUS_NAME = False,
    speed_rounds: Annotated[
        int,
        typer.Option("--speed-rounds", min=0, help="Measurements of speed per system; 0 = none"),
    ] = 3,
    n_batch: Annotated[
        int, typer.Option("--speed-documents", min=1, help="Documents of such a measurement")
    ] = 200,
    n_single: Annotated[
        int, typer.Option("--single-documents", min=1, help="Of these, read one by one as well")
    ] = 50,
    seed: SEED = 0,
    n_resamples: RESAMPLES = 1000,
    page_documents: Annotated[
        int,
        typer.Option(
            "--page-documents",
            min=0,
            help="Documents per corpus in OUTPUT/pages, a page of coloured texts per vaner system; "
            "0 = no page",
        ),
    ] = 50,
    no_plots: Annotated[
        bool, typer.Option("--no-plots", help="Draw none (they need matplotlib)")
    ] = False,
) -> None:
    """Run several systems on the same documents: P/R/F with intervals, speed, memory and size.

    Each system runs in a process of its own; one that is missing or crashes is a row that says so.
    What was measured already is not run again. OUTPUT/report.md is the report.

    Example: python -m spacy vaner benchmark results corpora --system vaner=training/model-best
    --system dictionary=corpora --system scispacy=en_ner_bc5cdr_md
    """
    from spacy_vaner.evaluation.report import write_report

    if paths:
        from tqdm import tqdm

        from spacy_vaner.corpora.docbins import find_files
        from spacy_vaner.evaluation.benchmark import Benchmark, Settings

        specs = [*_read_systems(systems), *map(parse_system, system or [])]
        benchmark = Benchmark(
            specs,
            find_files(paths, split=split),
            output,
            Settings(
                view=view,
                name_corpus=not no_corpus_name,
                seed=seed,
                n_resamples=n_resamples,
                speed_rounds=speed_rounds,
                n_batch=n_batch,
                n_single=n_single,
                read_tests=read_tests,
                command=f"python -m spacy {shlex.join(sys.argv[1:])}",
            ),
        )
        with tqdm(desc="Systems", unit="run", leave=False) as bar:

            def tell(name: str, what: str) -> None:
                bar.set_postfix_str(f"{name}: {what}"[:70])
                bar.update()

            benchmark.run(tell)
        if page_documents:
            benchmark.write_pages(page_documents)
    page = write_report(output, plots=not no_plots)
    # print, since wasabi breaks long lines, and the tables are wide.
    print(page.read_text("utf8"))
    msg.good(f"Saved to {page}")


def parse_system(option: str) -> SystemSpec:
    """Read KIND=WHERE or KIND:NAME=WHERE; without a name, the kind and what is no path.

    RAISES VanerError: VE472.
    """
    from spacy_vaner.evaluation.systems.base import SystemSpec

    head, equals, where = option.partition("=")
    kind, colon, name = head.partition(":")
    if not (kind and equals) or (colon and not name):
        raise VanerError(Messages.VE472.format(option=option))
    shown = "" if "/" in where or "\\" in where else where
    return SystemSpec(name or f"{kind} {shown}".strip(), kind, where)


def _read_systems(path: Path | None) -> list[SystemSpec]:
    """RAISES VanerError: VE461, VE473."""
    import json

    from spacy_vaner.evaluation.systems.base import SystemSpec

    if path is None:
        return []
    try:
        rows = json.loads(path.read_text("utf8"))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("it must be a list of objects")
    except (OSError, ValueError) as error:
        raise VanerError(Messages.VE473.format(path=path, reason=error)) from error
    return [SystemSpec.from_dict(row) for row in rows]
