"""`python -m spacy vaner thresholds`: a threshold per type, fitted on dev splits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from wasabi import msg
from wasabi.tables import table

from spacy_vaner.cli.evaluate import load_pipeline
from spacy_vaner.errors import Messages, VanerError

if TYPE_CHECKING:
    from spacy_vaner.component import VanerNER

_HEADER = ("type", "gold", "threshold", "P", "R", "F", "P now", "R now", "F now")


def thresholds_command(
    pipeline: Annotated[
        str, typer.Argument(metavar="PIPELINE", help="Folder or name of a trained pipeline")
    ],
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES_OR_FOLDERS",
            help="Converted dev splits; of a folder, every *.dev.spacy in it",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for the pipeline with the thresholds; may be its own"
        ),
    ] = None,
    component: Annotated[
        str | None, typer.Option("--component", help="Name, where there are several vaner_ner")
    ] = None,
    view: Annotated[
        str, typer.Option("--view", help="What the pipeline is given: 'text' or 'tokens'")
    ] = "text",
    no_corpus_name: Annotated[
        bool, typer.Option("--no-corpus-name", help="Ask without naming the corpus, as on new text")
    ] = False,
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU ID, or -1 for the CPU")] = -1,
    code: Annotated[
        Path | None,
        typer.Option("--code", "-c", help="Python file with registered functions to import first"),
    ] = None,
) -> None:
    """Fit the threshold of every type for the highest strict F1 on dev splits.

    The table shows precision, recall and F1 without a threshold and with it, on the data that it
    was fitted on. With --output the pipeline is saved with the thresholds as its setting
    `threshold`; without, nothing is changed.

    Example: python -m spacy vaner thresholds model-best corpora --output model-best
    """
    from spacy_vaner.corpora.docbins import find_files
    from spacy_vaner.evaluation.analysis_report import percent
    from spacy_vaner.evaluation.calibration import fit_thresholds
    from spacy_vaner.evaluation.predictions import PredictedDocument
    from spacy_vaner.evaluation.run import FACTORY, evaluate_pipeline

    files = find_files(paths, split="dev")
    for path in files:
        if path.name.endswith("test.spacy"):
            raise VanerError(Messages.VE447.format(path=path))
    nlp = load_pipeline(pipeline, gpu_id=gpu_id, code=code)
    names = [name for name in nlp.pipe_names if nlp.get_pipe_meta(name).factory == FACTORY]
    chosen = [name for name in names if component in (None, name)]
    if len(chosen) != 1:
        components = ", ".join(nlp.pipe_names)
        raise VanerError(Messages.VE446.format(components=components, n=len(chosen)))
    tagger = cast("VanerNER", nlp.get_pipe(chosen[0]))
    tagger.threshold = 0.0
    found: list[PredictedDocument] = []
    evaluate_pipeline(
        nlp,
        files,
        view=view,
        name_corpus=not no_corpus_name,
        n_resamples=1,  # no interval is shown
        on_document=found.append,
    )
    fitted = {type: fit for type, fit in fit_thresholds(found).items() if type in tagger.types}
    rows = [
        (
            type,
            f"{fit.before.gold:,}",
            f"{fit.threshold:.4f}",
            *(percent(figure) for figure in (fit.before.p, fit.before.r, fit.before.f)),
            *(percent(figure) for figure in (fit.after.p, fit.after.r, fit.after.f)),
        )
        for type, fit in fitted.items()
    ]
    print(table(rows, header=_HEADER, divider=True))
    if output is not None:
        tagger.threshold = {type: fit.threshold for type, fit in fitted.items()}
        nlp.to_disk(output)
        msg.good(f"Saved to {output}")
