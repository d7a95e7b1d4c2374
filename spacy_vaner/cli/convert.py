"""`python -m spacy vaner convert`: corpora into `.spacy` files, with a report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm
from wasabi import msg
from wasabi.tables import table

from spacy_vaner.errors import Messages, VanerError

if TYPE_CHECKING:
    from spacy_vaner.corpora.convert import Progress
    from spacy_vaner.types import Record

ALL = "all"


def convert_command(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[INPUT] OUTPUT",
            help="A file of yours and the .spacy file to write; with --corpus only the latter, "
            "with --split all neither",
        ),
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="iob (IOB2, IOBES, CoNLL), pubtator, jsonl, bioc_xml, bioc_json, brat (a folder), "
            "knowtator (CRAFT; a folder), bc2gm, vaner_jsonl, spacy, spacy_json",
        ),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            help="tokens (the file's own words) or text (raw text, tokenised anew); default: what "
            "the format has. With --corpus: views of the catalogue, comma-separated; default: all"
        ),
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(help="For the view text: spacy (blank English) or scispacy")
    ] = "spacy",
    type_name: Annotated[
        str | None, typer.Option("--type", help="Type of bare tags (B, I, O), e.g. Disease")
    ] = None,
    types: Annotated[
        str | None,
        typer.Option(
            help="Types annotated completely, comma-separated: what is not marked is not of that "
            "type; names as --type-map gives them. Default: every type that occurs; name them if "
            "one may be absent from a split"
        ),
    ] = None,
    partial: Annotated[
        str | None,
        typer.Option(help="Types annotated incompletely, comma-separated: never scored"),
    ] = None,
    type_map: Annotated[
        str | None,
        typer.Option(
            "--type-map", help="Rename types: Modifier=Disease,protein=Gene; Cell= is not used"
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The corpus in reports and scores; default: INPUT up to the first dot"),
    ] = None,
    corpus_name: Annotated[
        str | None,
        typer.Option(
            "--corpus-name",
            help="The corpus in the instruction of the tagger: NAME for all types, or "
            "Chemical=BC5CDR-chem,Disease=BC5CDR-disease. Default: none",
        ),
    ] = None,
    document: Annotated[
        str | None,
        typer.Option(
            help="iob: what a document is: docstart, sentence, or a number of sentences; default: "
            "docstart where the file has -DOCSTART- lines, else sentence"
        ),
    ] = None,
    tag_column: Annotated[
        int | None,
        typer.Option("--tag-column", help="iob: column of the tag, from 1; default: last"),
    ] = None,
    word_column: Annotated[
        int | None,
        typer.Option("--word-column", help="iob: column of the word, from 1; default: first"),
    ] = None,
    comment: Annotated[
        str | None,
        typer.Option(help='iob: leave out lines that begin with this, e.g. "#" in CoNLL-U'),
    ] = None,
    folder_types: Annotated[
        bool | None,
        typer.Option("--folder-types", help="knowtator: the type is the name of the XML's folder"),
    ] = None,
    spans_key: Annotated[
        str | None,
        typer.Option("--spans-key", help="spacy: read the spans of this group too; default: gold"),
    ] = None,
    pmid_ids: Annotated[
        bool | None,
        typer.Option(
            "--pmid-ids/--no-pmid-ids",
            help="The documents' identifiers are PubMed's; default: yes for pubtator, knowtator",
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Corpora of the catalogue, comma-separated, instead of INPUT; all: every one "
            "whose files are there"
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="With --corpus: train, dev, test, or all")] = ALL,
    corpora_dir: Annotated[
        Path, typer.Option("--corpora-dir", help="Folder that holds the catalogue's corpora")
    ] = Path("corpora"),
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", help="With --split all: folder for CORPUS.VIEW.SPLIT.spacy files"
        ),
    ] = None,
    protect: Annotated[
        list[str] | None,
        typer.Option(
            help="For a training split: leave out documents shared with this test split (.spacy). "
            "With --split all: a corpus of the catalogue that is not protected by itself. May be "
            "repeated"
        ),
    ] = None,
    protect_dev: Annotated[
        list[Path] | None,
        typer.Option(
            "--protect-dev",
            help="For a training split: mask sentences shared with this dev split (.spacy); may be "
            "repeated",
        ),
    ] = None,
    guard_own_splits: Annotated[
        bool,
        typer.Option(
            "--guard-own-splits",
            help="Apply the guard between the splits of one corpus too; by default these are "
            "counted only, as published figures keep the official splits",
        ),
    ] = False,
    unprotected: Annotated[
        str | None,
        typer.Option(
            help="With --split all: corpora, comma-separated, whose test and dev splits are not "
            "protected, since you report no figure on them",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="With --split all: processes that convert at the same time")
    ] = 1,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Count what is shared with this .spacy file; may be repeated"),
    ] = None,
) -> None:
    """Convert corpora into .spacy files; a report (NAME.report.json) is written beside each.

    \b
    A file of yours:
      convert my.train.jsonl train.spacy --format jsonl --protect my.test.spacy

    \b
    One split of a corpus in the catalogue (python -m spacy vaner corpora):
      convert --corpus BC5CDR --split test --view text --corpora-dir corpora test.spacy

    \b
    All splits of several corpora, training splits under the leakage guard;
    what is up to date is left alone:
      convert --corpus NCBI-disease,BC5CDR --view text --corpora-dir corpora --output-dir converted
    """
    from spacy_vaner.corpora.catalogue import catalogue_conversion
    from spacy_vaner.corpora.convert import Conversion, convert, with_corpus_name
    from spacy_vaner.corpora.guard import ProtectedIndex

    for_one_file = {"--protect-dev": protect_dev, "--against": against}
    for_own_file = {
        "--format": format_name,
        "--type": type_name,
        "--types": types,
        "--partial": partial,
        "--type-map": type_map,
        "--name": name,
        "--corpus-name": corpus_name,
        "--document": document,
        "--tag-column": tag_column,
        "--word-column": word_column,
        "--comment": comment,
        "--folder-types": folder_types,
        "--spans-key": spans_key,
        "--pmid-ids": pmid_ids,
    }
    if corpus is not None:
        _refuse("is for an INPUT of yours; the catalogue says it for --corpus.", for_own_file)
    if corpus is not None and split == ALL:
        _refuse("is for one file; with --split all the catalogue protects.", for_one_file)
        if paths or output_dir is None:
            raise _usage("With --corpus and --split all give --output-dir and no other path.")
        _convert_catalogue(
            _names(corpus) or (),
            output_dir,
            corpora_dir=corpora_dir,
            views=_names(view),
            tokenizer=tokenizer,
            guard_within_corpus=guard_own_splits,
            protect=[name for value in protect or () for name in _names(value) or ()],
            unprotected=_names(unprotected) or (),
            workers=workers,
        )
        return
    if unprotected is not None or workers != 1:
        raise _usage("--unprotected and --workers go with --corpus and --split all.")
    *sources, output = paths or [Path()]
    if output_dir is not None:
        raise _usage("--output-dir goes with --corpus and --split all.")
    if corpus is None:
        if len(sources) != 1 or format_name is None:
            raise _usage("Give INPUT, OUTPUT and --format, or --corpus.")
        conversion = Conversion(
            files=(sources[0],),
            format=format_name,
            options={
                "type_name": type_name,
                "word_column": word_column,
                "tag_column": tag_column,
                "comment": comment,
                "document": document,
                "folder_types": folder_types,
                "spans_key": spans_key,
            },
            view=view,
            tokenizer=tokenizer,
            corpus=name or sources[0].name.partition(".")[0],
            types=_names(types),
            partial=_names(partial) or (),
            type_map={source: ours or None for source, ours in _pairs("--type-map", type_map)},
            ids_are_pmids=pmid_ids,
        )
        if corpus_name is not None:
            by_type = dict(_pairs("--corpus-name", corpus_name)) if "=" in corpus_name else None
            conversion = with_corpus_name(conversion, by_type or corpus_name)
    else:
        if sources or view is None or "," in corpus + view:
            raise _usage("For one split give one --corpus, one --view and OUTPUT.")
        conversion = catalogue_conversion(
            corpus, view, split, corpora_dir=corpora_dir, tokenizer=tokenizer
        )
    if output.suffix != ".spacy" or output in sources:
        raise _usage(f"{output} cannot be OUTPUT: it must be another file, named *.spacy.")
    guard = counted = None
    if protect or protect_dev:
        guard = ProtectedIndex.from_files(test=map(Path, protect or ()), dev=protect_dev or ())
    if against:
        counted = ProtectedIndex.from_files(test=against)
    report = convert(
        conversion,
        output,
        guard=guard,
        guard_within_corpus=guard_own_splits,
        against=counted,
        progress=_progress(output.name),
    )
    _print_report(output.name, report.to_dict(), conversion.types or ())
    _print_table([(output.name, report.to_dict())])
    msg.good(f"{report.documents} documents: {output}")


def _convert_catalogue(
    corpora: Sequence[str],
    output_dir: Path,
    *,
    corpora_dir: Path,
    views: Sequence[str] | None,
    tokenizer: str,
    guard_within_corpus: bool,
    protect: Sequence[str],
    unprotected: Sequence[str],
    workers: int,
) -> None:
    from spacy_vaner.corpora.batch import REPORT_FILE, convert_catalogue, corpora_there

    converted = []
    for file in convert_catalogue(
        corpora_there(corpora_dir) if corpora == (ALL,) else corpora,
        output_dir,
        corpora_dir=corpora_dir,
        views=views,
        tokenizer=tokenizer,
        guard_within_corpus=guard_within_corpus,
        protect=protect,
        unprotected=unprotected,
        workers=workers,
        progress=_progress,
    ):
        converted.append((file.path.name, file.report))
        if file.is_new:
            _print_report(file.path.name, file.report)
        else:
            msg.info(f"{file.path.name} is up to date")
    _print_table(converted)
    summary = json.loads((output_dir / REPORT_FILE).read_text(encoding="utf8"))
    for what, names in (
        ("not converted, held out as a whole", summary["held_out"]),
        ("figures on these need --protect, their test splits are not protected", summary["open"]),
    ):
        if names:
            msg.info(f"{what}: {', '.join(names)}")
    msg.good(f"{len(converted)} files: {output_dir}")


def _progress(name: str) -> Progress:
    def bar(records: Iterable[Record]) -> Iterator[Record]:
        # Not shown where the output is no terminal: a log would fill with it.
        yield from tqdm(records, desc=name, unit=" documents", leave=False, disable=None)

    return bar


def _print_report(name: str, report: Mapping[str, Any], types: Iterable[str] = ()) -> None:
    """types: those that the user says are annotated completely."""
    from spacy_vaner.corpora.report import absent_types, remarks

    msg.info(name)
    for absent in absent_types(report, types):
        msg.warn(absent)
    for count, what in remarks(report):
        print(f"    {count:>7} {what}")


def _print_table(reports: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    from spacy_vaner.corpora.report import table_rows

    header = ("file", "documents", "sentences", "tokens", "mentions")
    rows = table_rows(reports)
    print(table(rows, header=header, divider=True, aligns=("l", "r", "r", "r", "l")))


def _names(option: str | None) -> tuple[str, ...] | None:
    """The names in a comma-separated option; None if it was not given."""
    if option is None:
        return None
    return tuple(name.strip() for name in option.split(",") if name.strip())


def _pairs(option: str, value: str | None) -> Iterator[tuple[str, str]]:
    for pair in _names(value) or ():
        key, sign, name = pair.partition("=")
        if not sign:
            raise _usage(f"'{pair}' in {option} is not NAME=NAME.")
        yield key.strip(), name.strip()


def _refuse(why: str, options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise _usage(f"{', '.join(given)} {why}")


def _usage(problem: str) -> VanerError:
    return VanerError(Messages.VE215.format(problem=problem))
