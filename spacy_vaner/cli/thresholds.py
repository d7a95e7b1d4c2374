"""`python -m spacy vaner thresholds`: a threshold per type, fitted on dev splits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from wasabi import msg
from wasabi.tables import table

from spacy_vaner.cli.evaluate import load_pipeline
from spacy_vaner.cli.options import CODE, FILES, GPU_ID, NO_CORPUS_NAME, PIPELINE, SEED, VIEW
from spacy_vaner.errors import Messages, VanerError

if TYPE_CHECKING:
    from spacy_vaner.component import VanerNER
    from spacy_vaner.evaluation.calibration import FittedThreshold
    from spacy_vaner.metrics import Counts

_HEADER = ("type", "gold", "threshold", "P", "R", "F", "F fitted", "P new", "R new", "F new")


def thresholds_command(
    pipeline: PIPELINE,
    paths: FILES,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for the pipeline with the thresholds; may be its own"
        ),
    ] = None,
    component: Annotated[
        str | None, typer.Option("--component", help="Name, where there are several vaner_ner")
    ] = None,
    folds: Annotated[
        int, typer.Option("--folds", min=2, help="Parts of the cross-validation over documents")
    ] = 5,
    seed: SEED = 0,
    view: VIEW = "text",
    no_corpus_name: NO_CORPUS_NAME = False,
    gpu_id: GPU_ID = -1,
    code: CODE = None,
) -> None:
    """Fit the threshold of every type for the highest strict F1 on dev splits.

    Of several corpora for the highest mean: each counts alike, however many mentions it has.

    The table shows precision, recall and F1 without a threshold; F1 with it on the documents that
    it was fitted on, which flatters; and, as "new", what other documents have to expect: each is
    judged by the threshold that the other folds give. With --output the pipeline is saved with the
    thresholds as its setting `threshold`; without, nothing is changed.

    Example: python -m spacy vaner thresholds model-best corpora --output model-best
    """
    from spacy_vaner.corpora.docbins import find_files
    from spacy_vaner.evaluation.analysis_report import percent
    from spacy_vaner.evaluation.calibration import fit_thresholds
    from spacy_vaner.evaluation.predictions import PredictedDocument
    from spacy_vaner.evaluation.run import evaluate_pipeline
    from spacy_vaner.gold import vaner_components

    files = find_files(paths, split="dev")
    for path in files:
        if path.name.endswith("test.spacy"):
            raise VanerError(Messages.VE447.format(path=path))
    nlp = load_pipeline(pipeline, gpu_id=gpu_id, code=code)
    chosen = [pipe for name, pipe in vaner_components(nlp).items() if component in (None, name)]
    if len(chosen) != 1:
        components = ", ".join(nlp.pipe_names)
        raise VanerError(Messages.VE446.format(components=components, n=len(chosen)))
    tagger: VanerNER = chosen[0]
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
    fits = fit_thresholds(found, n_folds=folds, seed=seed)
    fitted = {type: fit for type, fit in fits.items() if type in tagger.types}
    rows = [
        (
            type,
            f"{fit.before.gold:,}",
            f"{fit.threshold:.4f}",
            *(percent(figure) for figure in (fit.before.p, fit.before.r, fit.before.f)),
            percent(fit.after.f),
            *_figures(fit.held_out),
        )
        for type, fit in fitted.items()
    ]
    print(table(rows, header=_HEADER, divider=True))
    vain = [type for type, fit in fitted.items() if fit.threshold and not gains(fit)]
    if vain:
        types = ", ".join(vain)
        msg.warn(f"On documents it was not fitted on, a threshold gains nothing for: {types}")
    if output is not None:
        tagger.threshold = {type: fit.threshold for type, fit in fitted.items()}
        nlp.to_disk(output)
        msg.good(f"Saved to {output}")


def _figures(counts: Counts | None) -> list[str]:
    from spacy_vaner.evaluation.analysis_report import UNDEFINED, percent

    if counts is None:
        return [UNDEFINED] * 3
    return [percent(figure) for figure in (counts.p, counts.r, counts.f)]


def gains(fit: FittedThreshold) -> bool:
    """Whether documents that a threshold was not fitted on are better off with one, if known."""
    return fit.held_out is None or (fit.held_out.f or 0.0) > (fit.before.f or 0.0)
