"""`python -m spacy vaner corpora`: the catalogue."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm
from wasabi import msg
from wasabi.tables import table

if TYPE_CHECKING:
    from spacy_vaner.corpora.catalogue import Corpus


def corpora_command(
    name: Annotated[
        str | None, typer.Argument(metavar="[CORPUS]", help="Show all that is known of this one")
    ] = None,
    corpora_dir: Annotated[
        Path | None,
        typer.Option("--corpora-dir", help="Say which files are there, below this folder"),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Write the data sheet of all corpora to this file; those below --corpora-dir are "
            "counted, what the file says of the others stays"
        ),
    ] = None,
) -> None:
    """List the corpora that `convert --corpus` knows; the data come from their public sources.

    All of one corpus, with the places of its files: python -m spacy vaner corpora BC5CDR
    """
    from spacy_vaner.corpora.catalogue import catalogue, get_corpus

    if sheet is not None:
        from spacy_vaner.corpora.sheet import write_sheet

        # Not shown where the output is no terminal: a log would fill with it.
        bar = partial(tqdm, unit=" documents", leave=False, disable=None)
        counted = write_sheet(sheet, corpora_dir, progress=bar)
        msg.good(f"{sheet}: {len(counted)} corpora counted")
        return
    if name is not None:
        _print_corpus(get_corpus(name), corpora_dir)
        return
    rows = []
    for corpus in catalogue().values():
        types = sorted({type_ for view in corpus.views.values() for type_ in view.types})
        row = [corpus.name, " ".join(corpus.views), ", ".join(types), corpus.licence, corpus.about]
        if corpora_dir is not None:
            found = [(corpora_dir / place).exists() for place in corpus.places()]
            row.insert(1, f"{sum(found)} of {len(found)}")
        rows.append(row)
    header = ["corpus", "views", "types", "licence", "about"]
    if corpora_dir is not None:
        header.insert(1, "files")
    print(table(rows, header=header, divider=True))


def _print_corpus(corpus: Corpus, corpora_dir: Path | None) -> None:
    msg.divider(corpus.name)
    facts = {
        "about": corpus.about,
        "source": corpus.source,
        "licence": corpus.licence,
        "cite": corpus.citation or "–",
        "protected": "yes" if corpus.protected else "no, unless asked (convert --protect)",
    }
    print(table(facts))
    for name, view in corpus.views.items():
        about = f" ({view.about})" if view.about else ""
        print(f"\nview {name}{about}: format {view.format}, types {', '.join(view.types)}")
        for type_, corpus_name in view.names.items():
            print(f"  instruction for {type_}: {corpus_name}")
        for split, place in view.files.items():
            there = ""
            if corpora_dir is not None:
                there = " (there)" if (corpora_dir / place).exists() else " (missing)"
            print(f"  {split}: {place}{there}")
