"""`python -m spacy vaner kb …`: build, describe, index and search a knowledge base."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm
from wasabi import msg
from wasabi.tables import table

from spacy_vaner.errors import Messages, VanerError, VanerWarning

if TYPE_CHECKING:
    from spacy_vaner.knowledge.retrieval import BuildRetriever
    from spacy_vaner.knowledge.sources.base import Entry
    from spacy_vaner.knowledge.store import BuildReport, KnowledgeBase

KB = Annotated[Path, typer.Argument(metavar="KB", help="Knowledge base (.parquet)")]
ENCODER = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="Folder or hub name of an encoder (SapBERT, say); default: character n-grams, which "
        "need no weights",
    ),
]


def kb_build_command(
    output: Annotated[Path, typer.Argument(metavar="KB", help="File to write (.parquet)")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES",
            help="KIND=PATH or KIND:TYPE=PATH each: tsv=names.tsv, obo:Disease=doid.obo, "
            "umls=2025AA/META, corpus=NAME.train.spacy. The first source of a name gives its "
            "spelling",
        ),
    ],
    scopes: Annotated[
        str | None,
        typer.Option(help="obo: scopes of synonyms that are taken; default: EXACT,NARROW"),
    ] = None,
    languages: Annotated[
        str | None, typer.Option(help="umls: codes of languages; default: ENG")
    ] = None,
    vocabularies: Annotated[
        str | None, typer.Option(help="umls: vocabularies, e.g. MSH,SNOMEDCT_US; default: all")
    ] = None,
    semantic_types: Annotated[
        Path | None,
        typer.Option(
            "--semantic-types",
            help="umls: a table of your own from semantic types to types (JSON), in the form of "
            "the one that comes with the package",
        ),
    ] = None,
) -> None:
    """Build a knowledge base of names from term lists, ontologies, UMLS and training splits.

    \b
    kinds of sources (.gz and .xz are unpacked):
      tsv     a table with tabs and a header: name, type and, if there, id, source
      obo     an ontology; the type of its terms is given: obo:Disease=doid.obo
      umls    a folder with MRCONSO.RRF and MRSTY.RRF
      corpus  a converted training split: train.spacy, NAME.train.spacy, or a folder of them
      leaky   any split, to measure what such a leak adds; never for use
    """
    from spacy_vaner.knowledge.store import BuildReport, build

    options: dict[str, tuple[str, object]] = {
        "scopes": ("obo", _split(scopes)),
        "languages": ("umls", _split(languages)),
        "vocabularies": ("umls", _split(vocabularies)),
        "types": ("umls", semantic_types),
    }
    report = BuildReport()

    def entries() -> Iterator[Entry]:
        from spacy_vaner.knowledge.sources import read_entries

        for kind, type, path in map(_parse_source, sources):
            own = {key: value for key, (of, value) in options.items() if of == kind}
            if type is not None:
                own["type"] = type
            if kind == "obo" and type is None:
                raise VanerError(Messages.VE618.format(found=f"{kind}={path}, without a type"))
            yield from read_entries(path, kind, note=report.note, **own)

    kb = build(tqdm(entries(), desc="Names", unit="", leave=False, disable=None), report)
    kb.to_file(output)
    _print_report(report)
    msg.good(f"{len(kb):,} names: {output}")
    _warn(kb)


def kb_stats_command(path: KB) -> None:
    """Say how many names of which types and sources a knowledge base has."""
    from spacy_vaner.knowledge.store import KnowledgeBase

    kb = KnowledgeBase.from_file(path)
    n_several = sum(len(types) > 1 for types in kb.types)
    print(f"{len(kb):,} names, {n_several:,} of several types; hash {kb.fingerprint[:16]}")
    rows = [(type, f"{len(found):,}") for type, found in sorted(kb.by_type.items())]
    print(table(rows, header=("type", "names"), aligns=("l", "r"), divider=True))
    counts: dict[str, int] = {}
    for sources in kb.sources:
        for source in sources:
            counts[source] = counts.get(source, 0) + 1
    rows = [(source, f"{n:,}") for source, n in sorted(counts.items(), key=lambda row: -row[1])]
    print(table(rows, header=("source", "names"), aligns=("l", "r"), divider=True))
    _warn(kb)


def kb_index_command(
    path: KB,
    output: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder to write")],
    encoder: ENCODER = None,
    pooling: Annotated[str, typer.Option(help="Of the encoder: cls (SapBERT) or mean")] = "cls",
    approximate: Annotated[
        bool, typer.Option("--approximate", help="With an encoder: search faster, less exactly")
    ] = False,
) -> None:
    """Make the index that finds the names most like a phrase."""
    from spacy_vaner.knowledge.retrieval import save_retriever
    from spacy_vaner.knowledge.store import KnowledgeBase

    build = _retriever(encoder, pooling, approximate)
    save_retriever(build(KnowledgeBase.from_file(path)), output)
    msg.good(f"Saved to {output}")


def kb_search_command(
    path: KB,
    names: Annotated[list[str], typer.Argument(metavar="NAMES", help="What to look for")],
    index: Annotated[
        Path | None,
        typer.Option(help="Folder of `kb index`; default: an index of n-grams is made in memory"),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many names to show of each")] = 10,
) -> None:
    """Show the names that are most like the given ones, with types, ids and sources."""
    from spacy_vaner.knowledge.retrieval import char_ngram_retriever, load_retriever
    from spacy_vaner.knowledge.store import KnowledgeBase

    kb = KnowledgeBase.from_file(path)
    retriever = char_ngram_retriever()(kb) if index is None else load_retriever(index, kb)
    for name, hits in zip(names, retriever.search(names, k=k), strict=True):
        print(f"\n{name}" if hits else f"\n{name}: nothing alike")
        rows = [
            (
                f"{hit.score:.3f}",
                kb.names[hit.position],
                ", ".join(kb.types[hit.position]),
                ", ".join(filter(None, kb.ids[hit.position])),
                ", ".join(dict.fromkeys(kb.sources[hit.position])),
            )
            for hit in hits
        ]
        if rows:
            print(table(rows, header=("cosine", "name", "types", "ids", "sources")))


def _retriever(encoder: str | None, pooling: str, approximate: bool) -> BuildRetriever:
    from spacy_vaner.knowledge.retrieval import char_ngram_retriever, dense_retriever

    if encoder is None:
        return char_ngram_retriever()
    search = "approximate" if approximate else "exact"
    return dense_retriever(encoder, pooling=pooling, search=search)


def _parse_source(text: str) -> tuple[str, str | None, Path]:
    """RAISES VanerError: VE618."""
    head, equals, path = text.partition("=")
    kind, colon, type = head.partition(":")
    if not (kind and equals and path) or (colon and not type):
        raise VanerError(Messages.VE618.format(found=text))
    return kind, type or None, Path(path)


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _print_report(report: BuildReport) -> None:
    rows = [(type, f"{n:,}") for type, n in sorted(report.types.items())]
    print(table(rows, header=("type", "names"), aligns=("l", "r"), divider=True))
    print(
        f"{report.n_read:,} read; {report.n_repeated:,} repeat a name with its type; "
        f"{report.n_several_types:,} names have several types"
    )
    for cause, n in report.left_out.most_common():
        print(f"{n:,} noted: {cause}, e.g. {report.examples[cause][0]}")


def _warn(kb: KnowledgeBase) -> None:
    if len(kb.by_type) == 1:
        (type,) = kb.by_type
        warnings.warn(Messages.VW601.format(type=type), VanerWarning, stacklevel=2)
    leaky = sorted({s for sources in set(kb.sources) for s in sources if s.startswith("leaky:")})
    if leaky:
        warnings.warn(Messages.VW602.format(sources=", ".join(leaky)), VanerWarning, stacklevel=2)
