"""`python -m spacy vaner analyse`: everything about one system on converted corpora."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from wasabi import msg
from wasabi.tables import table

from spacy_vaner.cli.evaluate import load_pipeline, parse_label_map
from spacy_vaner.cli.options import (
    CODE,
    FILES,
    GPU_ID,
    LABEL_MAP,
    NO_CORPUS_NAME,
    RESAMPLES,
    SEED,
    SPLIT,
    VIEW,
)
from spacy_vaner.errors import Messages, VanerError

if TYPE_CHECKING:
    from spacy_vaner.evaluation.analysis import CorpusAnalysis
    from spacy_vaner.evaluation.predictions import PredictedDocument


def analyse_command(
    paths: FILES,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the analysis, the page and the plot")
    ],
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", help="Folder or name of a pipeline to run")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions", help="JSONL of what a system found, instead of running a pipeline"
        ),
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option("--other", help="JSONL of another system, to compare with on the same texts"),
    ] = None,
    train: Annotated[
        list[Path] | None,
        typer.Option(
            "--train",
            help="Converted training files (or folders of them): mentions are told apart by "
            "whether their name occurs there, and a further scale leaves out the sentences that "
            "do. May be given several times",
        ),
    ] = None,
    split: SPLIT = "test",
    label_map: LABEL_MAP = None,
    view: VIEW = "text",
    no_corpus_name: NO_CORPUS_NAME = False,
    max_documents: Annotated[
        int, typer.Option("--max-documents", min=1, help="Shown in the page, per corpus")
    ] = 200,
    examples: Annotated[
        int,
        typer.Option(
            "--examples",
            min=0,
            help="Of each kind of case in the report, with their text; 0 for a report without text "
            "of the corpus",
        ),
    ] = 5,
    seed: SEED = 0,
    resamples: RESAMPLES = 1000,
    gpu_id: GPU_ID = -1,
    code: CODE = None,
) -> None:
    """Analyse what a system found: all scales of scoring, errors, calibration, cases.

    The system is a pipeline that is run here (--pipeline), or a file of predictions
    (--predictions). OUTPUT then holds analysis.json, analysis.md, page.html to look at, and
    reliability.png if there are probabilities; of a pipeline also predictions.jsonl.

    Example: python -m spacy vaner analyse corpora --pipeline model-best --output analysis
    """
    if (pipeline is None) == (predictions is None):
        problem = "give either --pipeline or --predictions."
        raise VanerError(Messages.VE445.format(problem=problem, command="analyse"))
    labels = parse_label_map(label_map or [])

    from spacy_vaner.corpora.docbins import find_files
    from spacy_vaner.evaluation.analysis import analyse, write_analysis
    from spacy_vaner.evaluation.analysis_report import report_analysis
    from spacy_vaner.evaluation.documents import GoldFile
    from spacy_vaner.evaluation.leakage import TrainingNames, TrainingSentences
    from spacy_vaner.evaluation.page import write_page
    from spacy_vaner.evaluation.predictions import pair_with_gold, write_predictions
    from spacy_vaner.files import write_whole

    files = find_files(paths, split=split)
    names = sentences = None
    if train:
        training_files = find_files(train, split="train")
        names = TrainingNames.from_files(training_files)
        sentences = TrainingSentences.from_files(training_files)
    if predictions is not None:
        found = pair_with_gold(predictions, map(GoldFile, files), label_map=labels)
    else:
        assert pipeline is not None
        found = _predict(
            pipeline, files, labels, view=view, named=not no_corpus_name, gpu_id=gpu_id, code=code
        )
        write_predictions(output / "predictions.jsonl", found)
    others = None if other is None else pair_with_gold(other, map(GoldFile, files))
    analyses = analyse(
        found,
        other=others,
        training=names,
        sentences=sentences,
        seed=seed,
        n_resamples=resamples,
    )
    system = pipeline or str(predictions)
    settings = {
        "command": f"python -m spacy {shlex.join(sys.argv[1:])}",
        "system": system,
        "other": None if other is None else str(other),
        "files": [str(path) for path in files],
        "train": [str(path) for path in train or ()],
        "seed": seed,
        "resamples": resamples,
    }
    written = write_analysis(
        analyses, output / "analysis.json", settings=settings, n_examples=examples
    )
    write_whole(output / "analysis.md", report_analysis(written).encode("utf8", "replace"))
    write_page(
        {corpus: analysis.documents for corpus, analysis in analyses.items()},
        output / "page.html",
        title=f"Found by {system}",
        max_documents=max_documents,
    )
    print(format_analyses(analyses))
    _draw(analyses, output / "reliability.png")
    msg.good(f"Saved to {output}: analysis.md, page.html and the figures behind them")


def _predict(
    pipeline: str,
    files: Sequence[Path],
    labels: Mapping[str, str],
    *,
    view: str,
    named: bool,
    gpu_id: int,
    code: Path | None,
) -> list[PredictedDocument]:
    from tqdm import tqdm

    from spacy_vaner.evaluation.run import evaluate_pipeline

    found: list[PredictedDocument] = []
    nlp = load_pipeline(pipeline, gpu_id=gpu_id, code=code)
    with tqdm(desc="Predicting", unit="doc", leave=False) as bar:

        def advance(n_done: int, n_documents: int) -> None:
            bar.total = n_documents
            bar.update(n_done - bar.n)

        evaluate_pipeline(
            nlp,
            files,
            view=view,
            name_corpus=named,
            label_map=labels,
            n_resamples=1,  # the analysis draws its own
            on_progress=advance,
            on_document=found.append,
        )
    return found


def format_analyses(analyses: Mapping[str, CorpusAnalysis]) -> str:
    """A table of F1 on every scale, and by how much the paper's lies above strict."""
    from spacy_vaner.evaluation.analysis_report import UNDEFINED, percent

    scales = list(dict.fromkeys(name for each in analyses.values() for name in each.scores))
    rows = []
    for corpus, analysis in analyses.items():
        for type in analysis.scores["strict"]:
            figures = [analysis.scores.get(scale, {}).get(type) for scale in scales]
            flatters = analysis.flatters(type)
            rows.append(
                (
                    corpus,
                    type,
                    *(UNDEFINED if f is None else percent(f.counts.f) for f in figures),
                    UNDEFINED if flatters is None else f"{100 * flatters:+.2f}",
                )
            )
    header = ("corpus", "F of", *scales, "paper − strict")
    return str(table(rows, header=header, divider=True))


def _draw(analyses: Mapping[str, CorpusAnalysis], path: Path) -> None:
    from spacy_vaner.evaluation.calibration import draw_reliability

    drawn = {
        f"{corpus}, {type}" if len(analyses) > 1 else type: calibration
        for corpus, analysis in analyses.items()
        for type, calibration in analysis.calibration.items()
    }
    if drawn:
        try:
            draw_reliability(drawn, path)
        except VanerError as error:
            # Without the library for one picture, the rest is still of use.
            msg.warn(str(error))
