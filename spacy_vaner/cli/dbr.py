"""`python -m spacy vaner dbr` and `phrases`: candidates for sentences, and what they rest on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm
from wasabi import msg
from wasabi.tables import table

if TYPE_CHECKING:
    from spacy_vaner.knowledge.candidates import CandidateCounts
    from spacy_vaner.knowledge.phrases import FindPhrases


SEGMENTATION = Annotated[
    Path | None,
    typer.Option(help="AutoPhrase's segmentation.txt: its phrases instead of mined ones"),
]
PIPELINE = Annotated[
    str | None,
    typer.Option(help="Pipeline whose entities and noun chunks are the phrases"),
]
PHRASES_PER_WORD = Annotated[
    float | None,
    typer.Option("--phrases-per-word", help="Mined phrases of a sentence; default: 2.0"),
]


def dbr_command(
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS",
            help="Converted corpus (.spacy), a training split; or a folder with *.train.spacy",
        ),
    ],
    kb_path: Annotated[Path, typer.Argument(metavar="KB", help="Knowledge base (.parquet)")],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="File to write (.parquet); of a folder: a folder with a file for each",
        ),
    ],
    index: Annotated[
        Path | None,
        typer.Option(help="Folder of `kb index`; default: an index of n-grams is made in memory"),
    ] = None,
    segmentation: SEGMENTATION = None,
    pipeline: PIPELINE = None,
    phrases_per_word: PHRASES_PER_WORD = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Names per phrase")] = 16,
    min_score: Annotated[
        float, typer.Option("--min-score", help="Least cosine of a name with its phrase")
    ] = 0.5,
) -> None:
    """Find the names of a knowledge base that are like the phrases of every sentence.

    A run that was stopped goes on where it was; a result that is up to date is left alone.
    """
    from spacy_vaner.knowledge.candidates import make_candidates
    from spacy_vaner.knowledge.retrieval import char_ngram_retriever, load_retriever
    from spacy_vaner.knowledge.store import KnowledgeBase

    kb = KnowledgeBase.from_file(kb_path)
    named = _named(corpus, output)
    finders = [
        (*files, *_finder(files[0], segmentation, pipeline, phrases_per_word)) for files in named
    ]
    retriever = char_ngram_retriever()(kb) if index is None else load_retriever(index, kb)
    for path, result, find_phrases, phrases in finders:
        counts = make_candidates(
            path,
            kb,
            retriever,
            find_phrases,
            result,
            k=k,
            min_score=min_score,
            phrases=phrases,
            progress=_progress,
        )
        _tell(counts)
        msg.good(f"Saved to {result}")


def phrases_command(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="Converted corpora (.spacy)")
    ],
    segmentation: SEGMENTATION = None,
    pipeline: PIPELINE = None,
    phrases_per_word: PHRASES_PER_WORD = None,
) -> None:
    """Say how many of the annotated mentions are among the phrases that would be looked up."""
    from spacy_vaner.corpora.docbins import read_docs
    from spacy_vaner.knowledge.phrases import phrase_recall

    rows = []
    for path in files:
        find, _ = _finder(path, segmentation, pipeline, phrases_per_word)
        found = phrase_recall(read_docs(path), find)
        rows.append(
            (
                path.name,
                f"{found.n_mentions:,}",
                f"{found.n_found / max(1, found.n_mentions):.3f}",
                f"{found.n_phrases / max(1, found.n_sentences):.1f}",
            )
        )
    header = ("file", "mentions", "among the phrases", "phrases per sentence")
    print(table(rows, header=header, aligns=("l", "r", "r", "r")))


def _named(corpus: Path, output: Path) -> list[tuple[Path, Path]]:
    """Corpus files with the files of their candidates.

    RAISES VanerError: VE302, a folder without a training split.
    """
    from spacy_vaner.corpora.docbins import find_files
    from spacy_vaner.knowledge.candidates import SUFFIX

    if not corpus.is_dir():
        return [(corpus, output)]
    output.mkdir(parents=True, exist_ok=True)
    return [
        (path, output / (path.name.removesuffix(".spacy") + SUFFIX))
        for path in find_files([corpus], split="train")
    ]


def _progress(batches: Iterable[int], n_done: int, n_batches: int) -> Iterable[int]:
    bar: Iterable[int] = tqdm(
        batches, desc="Candidates", unit="batch", initial=n_done, total=n_batches, leave=False
    )
    return bar


def _tell(counts: CandidateCounts) -> None:
    n_sentences = max(1, counts.n_sentences)
    rows = [(type, f"{n:,}", f"{n / n_sentences:.1f}") for type, n in sorted(counts.types.items())]
    print(table(rows, header=("type", "candidates", "per sentence"), aligns=("l", "r", "r")))
    print(
        f"{counts.n_sentences:,} sentences of {counts.n_documents:,} documents, "
        f"{counts.n_empty:,} without a candidate; {counts.n_phrases / n_sentences:.1f} phrases per "
        f"sentence, {counts.n_without:,} of {counts.n_phrases:,} like no name"
    )


def _finder(
    corpus: Path,
    segmentation: Path | None,
    pipeline: str | None,
    phrases_per_word: float | None,
) -> tuple[FindPhrases, str]:
    """The finder and what describes it.

    RAISES VanerError: VE623, more than one; VE612, VE619, VE620.
    """
    import hashlib

    from spacy_vaner.corpora.docbins import read_docs
    from spacy_vaner.errors import Messages, VanerError
    from spacy_vaner.knowledge.phrases import (
        PHRASES_PER_WORD,
        AutoPhrases,
        MinedPhrases,
        PipelinePhrases,
    )

    given = {
        "--segmentation": segmentation,
        "--pipeline": pipeline,
        "--phrases-per-word": phrases_per_word,
    }
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise VanerError(Messages.VE623.format(options=" and ".join(names)))
    if segmentation is not None:
        find = AutoPhrases(segmentation)
        return find, f"segmentation {hashlib.sha256(segmentation.read_bytes()).hexdigest()}"
    if pipeline is not None:
        return PipelinePhrases(pipeline), f"pipeline {pipeline}"
    share = PHRASES_PER_WORD if phrases_per_word is None else phrases_per_word
    return MinedPhrases(phrases_per_word=share).fit(read_docs(corpus)), f"mined {share}"
