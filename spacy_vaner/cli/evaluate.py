"""`python -m spacy vaner evaluate`: P/R/F per corpus and type."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from wasabi import msg
from wasabi.tables import table

from spacy_vaner.cli.options import (
    CODE,
    FILES,
    GPU_ID,
    LABEL_MAP,
    NO_CORPUS_NAME,
    PIPELINE,
    SEED,
    SPLIT,
    VIEW,
)
from spacy_vaner.errors import Messages, VanerError

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_vaner.evaluation.result import EvaluationResult, Score

HEADER = ("corpus", "type", "gold", "P", "R", "F", "±")
ALIGNS: tuple[Literal["l", "r"], ...] = ("l", "l", "r", "r", "r", "r", "r")
UNDEFINED = "–"


def evaluate_command(
    pipeline: PIPELINE,
    paths: FILES,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="JSON file for counts, scores, intervals and settings"),
    ] = None,
    split: SPLIT = "test",
    view: VIEW = "text",
    no_corpus_name: NO_CORPUS_NAME = False,
    matching: Annotated[
        str,
        typer.Option(
            "--matching",
            help="'strict': exact offsets; 'near': each boundary within one character; "
            "'overlap': one character in common",
        ),
    ] = "strict",
    label_map: LABEL_MAP = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Documents per batch")
    ] = None,
    seed: SEED = 0,
    gpu_id: GPU_ID = -1,
    code: CODE = None,
) -> None:
    """Score a pipeline on converted corpora: precision, recall and F1 per corpus and type.

    A hit has exactly the offsets and the type of a gold mention. Only the types that a document
    is annotated for completely are asked and scored. ± is half of the 95 % bootstrap interval of
    F over documents; – is a figure that is undefined (no gold mention or no prediction).

    Any pipeline can be evaluated: where there is no vaner_ner, its doc.ents count, and
    --label-map says which types their labels stand for.

    Example: python -m spacy vaner evaluate training/model-best corpora --output metrics.json
    """
    labels = parse_label_map(label_map or [])

    from tqdm import tqdm

    from spacy_vaner.corpora.docbins import find_files
    from spacy_vaner.evaluation.run import evaluate_pipeline

    files = find_files(paths, split=split)
    nlp = load_pipeline(pipeline, gpu_id=gpu_id, code=code)
    with tqdm(desc="Evaluating", unit="doc", leave=False) as bar:

        def advance(n_done: int, n_documents: int) -> None:
            bar.total = n_documents
            bar.update(n_done - bar.n)

        result = evaluate_pipeline(
            nlp,
            files,
            view=view,
            name_corpus=not no_corpus_name,
            label_map=labels,
            matching=matching,
            batch_size=batch_size,
            seed=seed,
            command=f"python -m spacy {shlex.join(sys.argv[1:])}",
            on_progress=advance,
        )
    print(format_result(result))
    # print, since wasabi breaks long lines, and a path is to be copied.
    print(f"Pipeline: {Path(pipeline).resolve() if Path(pipeline).exists() else pipeline}")
    if output is not None:
        result.to_disk(output)
        msg.good(f"Saved to {output}")


def parse_label_map(options: list[str]) -> dict[str, str]:
    """Read `LABEL=Type,LABEL=Type`; a comma belongs to a type if no LABEL= follows it.

    RAISES VanerError: VE409, a part without a label or a type.
    """
    label_map: dict[str, str] = {}
    for option in options:
        for pair in re.split(r",(?=[^,=]*=)", option):
            label, equals, type = (part.strip() for part in pair.partition("="))
            if not (label and equals and type):
                raise VanerError(Messages.VE409.format(pair=pair))
            label_map[label] = type
    return label_map


def format_result(result: EvaluationResult) -> str:
    """The table of all scores and one line with what they rest on."""
    rows = []
    for name, corpus in result.corpora.items():
        rows += [_row(name, type, score) for type, score in corpus.types.items()]
        if len(corpus.types) > 1:
            rows.append(_row(name, "all types", corpus.micro))
    if len(result.corpora) > 1:
        rows.append(_row("all corpora", "all types", result.overall))
    speed = UNDEFINED if result.words_per_s is None else f"{result.words_per_s:,.0f}"
    settings = result.settings
    notes = (
        f"{settings['matching']} matching, view {settings['view']}, corpus "
        f"{'named' if settings['name_corpus'] else 'not named'}; "
        f"{result.overall.n_documents:,} documents, {result.n_words:,} words in "
        f"{result.seconds:.1f} s ({speed} words/s)"
    )
    if result.n_unscored_documents:
        notes += (
            f"; {result.n_unscored_documents:,} more documents are annotated completely for no "
            "type and were left out"
        )
    return f"{table(rows, header=HEADER, aligns=ALIGNS, divider=True)}\n{notes}"


def _row(corpus: str, type: str, score: Score) -> tuple[str, ...]:
    counts = score.counts
    interval = score.intervals.f
    return (
        corpus,
        type,
        f"{counts.gold:,}",
        _percent(counts.p),
        _percent(counts.r),
        _percent(counts.f),
        UNDEFINED if interval is None else f"{50 * (interval[1] - interval[0]):.1f}",
    )


def _percent(figure: float | None) -> str:
    return UNDEFINED if figure is None else f"{100 * figure:.2f}"


def load_pipeline(pipeline: str, *, gpu_id: int, code: Path | None) -> Language:
    """Load a pipeline after the code that it needs.

    gpu_id: -1 for the CPU.
    RAISES VanerError: VE407, VE410, VE413.
    """
    from spacy.util import import_file, load_model
    from thinc.api import require_gpu

    if code is not None:
        try:
            import_file("python_code", code)
        except Exception as error:  # the user's own file may raise anything
            raise VanerError(Messages.VE413.format(path=code, reason=error)) from error
    if gpu_id >= 0:
        try:
            require_gpu(gpu_id)
        except ValueError as error:
            raise VanerError(Messages.VE410.format(gpu_id=gpu_id, reason=error)) from error
    try:
        return load_model(pipeline)
    except VanerError:
        raise
    except (OSError, ValueError) as error:
        raise VanerError(Messages.VE407.format(pipeline=pipeline, reason=error)) from error
