"""`python -m spacy vaner corpora`: the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
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
) -> None:
    """List the corpora that `convert --corpus` knows; the data come from their public sources.

    All of one corpus, with the places of its files: python -m spacy vaner corpora BC5CDR
    """
    from spacy_vaner.corpora.catalogue import catalogue, get_corpus

    if name is not None:
        _print_corpus(get_corpus(name), corpora_dir)
        return
    rows = []
    for corpus in catalogue().values():
        types = sorted({type_ for view in corpus.views.values() for type_ in view.types})
        row = [corpus.name, " ".join(corpus.views), ", ".join(types), corpus.licence, corpus.about]
        if corpora_dir is not None:
            found = [path.exists() for path in _paths(corpus, corpora_dir)]
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


def _paths(corpus: Corpus, corpora_dir: Path) -> set[Path]:
    return {corpora_dir / place for view in corpus.views.values() for place in view.places()}
