"""`python -m spacy vaner rows`, `assemble`, `ship`: into the loop without spaCy, back, and out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from wasabi import msg

from spacy_vaner.errors import Messages, VanerError

if TYPE_CHECKING:
    from spacy_vaner.training.rows_folder import SourceFacts


def rows_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES",
            help="Converted corpora named *.train.spacy and *.dev.spacy, or folders with them",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder to write")],
    tokenizer: Annotated[
        Path, typer.Option("--tokenizer", help="Folder of the backbone, or of its tokenizer")
    ],
    n_words: Annotated[
        int, typer.Option("--n-words", help="Longest window in prediction, in words")
    ] = 160,
    overlap: Annotated[
        int, typer.Option("--overlap", help="Words that neighbouring windows share")
    ] = 32,
    max_subwords: Annotated[
        int, typer.Option("--max-subwords", help="Longest window in prediction, in subwords")
    ] = 384,
    candidates: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of `dbr`, or a folder of them: names for DBR rows; may be repeated"
        ),
    ] = None,
    kb: Annotated[
        Path | None, typer.Option("--kb", help="The knowledge base that the candidates come from")
    ] = None,
) -> None:
    """Tokenise converted corpora once, into a folder of rows to train a tagger on.

    Files that are up to date in OUTPUT are left alone; others in it are removed.
    """
    from spacy_vaner.rows import prepare_rows

    header = prepare_rows(
        files,
        output,
        tokenizer_path=tokenizer,
        n_words=n_words,
        overlap=overlap,
        max_subwords=max_subwords,
        candidates=candidates or (),
        kb_path=kb,
        on_file=_tell,
    )
    if header.dbr is not None:
        msg.info(
            f"{header.dbr.n_candidates:,} candidates for {header.dbr.n_sentences:,} sentences of "
            f"{len(header.dbr.first_documents)} files; {header.dbr.n_names:,} names"
        )
    n_subwords = sum(facts.n_subwords for facts in header.sources)
    msg.good(f"{len(header.sources)} files, {n_subwords:,} subwords: {output}")


def _tell(facts: SourceFacts) -> None:
    msg.info(
        f"{facts.name} ({facts.split}): {facts.n_documents:,} documents, "
        f"{facts.n_subwords:,} subwords; left out, not annotated: {facts.n_unannotated}"
    )
    for counts in facts.questions:
        kind = "" if counts.is_complete else ", incomplete"
        msg.text(
            f"  {counts.type} [{counts.corpus}]{kind}: {counts.n_mentions:,} mentions in "
            f"{counts.n_documents:,} documents; discontinuous {counts.n_discontinuous}, widened "
            f"{counts.n_widened}, not tagged {counts.n_untagged}"
        )


def assemble_command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Folder of a run of `python -m spacy_vaner.training tag`: its best tagger is "
            "taken; or a folder in it: best, tagger, or a checkpoint",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Pipeline folder to write")],
    types: Annotated[
        str | None,
        typer.Option("--types", help="Types to ask, with commas; all that it was trained on"),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            "--corpus",
            help="TYPE=NAME, with commas: whose guideline a type follows, by its corpus name",
        ),
    ] = None,
    lang: Annotated[str, typer.Option("--lang", help="Language of the pipeline")] = "en",
    packed: Annotated[
        bool, typer.Option("--packed", help="Weights in 8 bits: a quarter of the size")
    ] = False,
) -> None:
    """Make a spaCy pipeline of a trained tagger."""
    from spacy_vaner.assembly import assemble

    named = None if corpus is None else _corpus_names(corpus)
    nlp = assemble(run, types=types, corpus=named, lang=lang, is_packed=packed)
    nlp.to_disk(output)
    msg.good(f"{', '.join(nlp.pipe_labels['vaner_ner'])}: {output}")


def _corpus_names(given: str) -> dict[str, str]:
    pairs = [one.split("=") for one in given.split(",")]
    if not all(len(pair) == 2 and all(part.strip() for part in pair) for pair in pairs):
        raise VanerError(Messages.VE536.format(given=given))
    return {type_name.strip(): name.strip() for type_name, name in pairs}


def ship_command(
    pipeline: Annotated[
        Path,
        typer.Argument(
            metavar="PIPELINE", help="Folder that `python -m spacy vaner assemble` made"
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="Folder to write; its last part is the name"),
    ],
    facts: Annotated[
        Path, typer.Option("--facts", help="JSON with what its card says: docs/shipped.md")
    ],
    rows: Annotated[Path, typer.Option("--rows", help="Folder of the rows that it was trained on")],
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            help="Folder of the run of `python -m spacy_vaner.training tag` that it was trained "
            "in: its checkpoint tells the settings; may be repeated, for the mean of several",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="JSON with the settings to take instead of those of --run"),
    ] = None,
    dev: Annotated[
        list[Path] | None,
        typer.Option("--dev", help="Result of `vaner evaluate` on dev; may be repeated"),
    ] = None,
    test: Annotated[
        list[Path] | None,
        typer.Option("--test", help="Result of `vaner evaluate` on test; may be repeated"),
    ] = None,
) -> None:
    """Write a trained tagger as a folder to use by name or path, with its card.

    spacy_vaner.shipped.shipped_component("OUTPUT") is the config for nlp.add_pipe("vaner_ner", …):
    this tagger, with the types, window and instruction that it was made with.
    """
    import spacy

    from spacy_vaner.assembly import ship

    nlp = spacy.load(pipeline)
    size = ship(
        nlp,
        output,
        facts=facts,
        rows=rows,
        runs=run or (),
        config=config,
        dev=dev or (),
        test=test or (),
    )
    msg.good(f"{size / 1e6:.1f} MB: {output}")
