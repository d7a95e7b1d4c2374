"""`python -m spacy vaner corpora`: the catalogue."""

from __future__ import annotations

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
        _write_sheet(sheet, corpora_dir)
        return
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


def _write_sheet(path: Path, corpora_dir: Path | None) -> None:
    from spacy_vaner.corpora.batch import protect_conversion, protected_conversions
    from spacy_vaner.corpora.catalogue import catalogue
    from spacy_vaner.corpora.convert import write_beside
    from spacy_vaner.corpora.guard import ProtectedIndex
    from spacy_vaner.corpora.sheet import make_sheet, measure

    measured = {}
    if corpora_dir is not None:
        guard = ProtectedIndex()
        conversions, _ = protected_conversions(corpora_dir)
        for kind, conversion in tqdm(conversions, desc="protect", leave=False, disable=None):
            protect_conversion(guard, conversion, kind)
        there = [
            corpus
            for corpus in catalogue().values()
            if all(place.exists() for place in _paths(corpus, corpora_dir))
        ]
        for corpus in tqdm(there, desc="count", leave=False, disable=None):
            measured[corpus.name] = measure(corpus, corpora_dir, guard)
    previous = path.read_text(encoding="utf8") if path.exists() else ""
    write_beside({path: make_sheet(previous, measured).encode("utf8")})
    msg.good(f"{path}: {len(measured)} corpora counted")


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
