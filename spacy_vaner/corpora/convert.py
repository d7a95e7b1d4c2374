"""From the records of a corpus to a `.spacy` file with its report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import spacy
from spacy.tokens import Doc

from spacy_vaner.corpora.docbins import (
    docs_to_bytes,
    make_tokenizer,
    make_vocab,
    mark_record,
    words_to_doc,
)
from spacy_vaner.corpora.formats import Note, get_format, ignore, read_records
from spacy_vaner.corpora.formats.base import (
    malformed,
    numbered_lines,
    read_text,
    sorted_mentions,
)
from spacy_vaner.corpora.guard import GuardCounts, ProtectedIndex
from spacy_vaner.corpora.report import ConversionReport
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole
from spacy_vaner.gold import KEY, Gold
from spacy_vaner.settings import is_type_name
from spacy_vaner.types import Mention, Record

Progress = Callable[[Iterable[Record]], Iterable[Record]]
"""Wraps the stream of records, as tqdm does."""

_PMID = re.compile(r"(?:PMID[-:]?)?(\d+)")

VIEWS = ("tokens", "text")
TOKENIZERS = ("spacy", "scispacy")


@dataclass(frozen=True)
class Conversion:
    """What to convert and what its documents are annotated for.

    files: read one after the other.
    format, options: how they are read (corpora/formats).
    view: "tokens" (the source's own words) or "text" (spaCy's tokenizer); None = what the format
        has.
    tokenizer: "spacy" or "scispacy", for the view "text".
    corpus: its name in reports; also what the leakage guard takes for the same corpus.
    types: annotated completely; None = every type that occurs in the files.
    partial: annotated incompletely.
    type_map: the source's type -> ours; None = not used; what is missing keeps its name.
    names: type -> name of the corpus in an instruction.
    ids_are_pmids: None = as the format has it; "PMID-123" counts as 123.
    ids, without_ids: a list of the documents that are taken, or left: an identifier per line (what
        follows it is not read), or a JSON list.
    pmids: a table of identifiers and PMIDs, one pair per line.
    """

    files: tuple[Path, ...]
    format: str
    options: Mapping[str, object] = field(default_factory=dict)
    view: str | None = None
    tokenizer: str = "spacy"
    corpus: str | None = None
    types: tuple[str, ...] | None = None
    partial: tuple[str, ...] = ()
    type_map: Mapping[str, str | None] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    ids_are_pmids: bool | None = None
    ids: Path | None = None
    without_ids: Path | None = None
    pmids: Path | None = None

    def all_files(self) -> tuple[Path, ...]:
        """Everything that is read."""
        lists = (self.ids, self.without_ids, self.pmids)
        return (*self.files, *(path for path in lists if path is not None))

    def chosen_view(self) -> str:
        """The view, checked.

        RAISES VanerError: VE208, an unknown view or tokenizer; VE209, no words for "tokens".
        """
        has_words = get_format(self.format).has_words
        view = self.view or ("tokens" if has_words else "text")
        if view not in VIEWS:
            raise VanerError(Messages.VE208.format(key="view", value=view, known=", ".join(VIEWS)))
        if self.tokenizer not in TOKENIZERS:
            known = ", ".join(TOKENIZERS)
            raise VanerError(
                Messages.VE208.format(key="tokenizer", value=self.tokenizer, known=known)
            )
        if view == "tokens" and not has_words:
            raise VanerError(Messages.VE209.format(format=self.format))
        return view


def convert(
    conversion: Conversion,
    output: Path,
    *,
    guard: ProtectedIndex | None = None,
    guard_within_corpus: bool = False,
    against: ProtectedIndex | None = None,
    progress: Progress = iter,
    made_from: Mapping[str, object] | None = None,
) -> ConversionReport:
    """Write a corpus as `.spacy` file and its report beside it (NAME.report.json).

    A conversion that fails leaves what was there before.

    guard: applied to every document, as a training split needs it.
    guard_within_corpus: see ProtectedIndex.check.
    against: other splits; what is shared with them is counted, and nothing is done about it.
    made_from: put into the report as it is.
    RAISES VanerError: VE2xx, about the settings or a malformed file.
    """
    report = ConversionReport()
    guard_counts, against_counts = GuardCounts(), GuardCounts()

    def kept() -> Iterator[Doc]:
        for doc, record, n_widened in _documents(conversion, report, progress):
            who = {"corpus": conversion.corpus, "pmid": record.pmid}
            if against is not None:
                against_counts.add(against.check_text(record.text, within_corpus=True, **who))
            if guard is not None:
                verdict = guard.check_text(record.text, within_corpus=guard_within_corpus, **who)
                guard_counts.add(verdict)
                if verdict.dropped:
                    continue
                doc.user_data[KEY]["masked"] = [list(offsets) for offsets in verdict.masked]
            report.add_record(record, n_tokens=len(doc), n_widened=n_widened)
            yield doc

    content = docs_to_bytes(kept())
    if guard is not None:
        report.guard = guard_counts.to_dict()
    if against is not None:
        report.against = against_counts.to_dict()
    row = report.to_dict() if made_from is None else {**report.to_dict(), "made_from": made_from}
    text = json.dumps(row, indent=2, ensure_ascii=False) + "\n"
    output.parent.mkdir(parents=True, exist_ok=True)
    # The report last: it says what the file was made from, and must not say so too early.
    write_whole(output, content)
    write_whole(report_path(output), text.encode("utf8"))
    return report


def report_path(output: Path) -> Path:
    """Where the report of a converted file stands."""
    return output.with_suffix(".report.json")


def annotate(doc: Doc, record: Record, conversion: Conversion) -> int:
    """Write a record's mentions and sentences onto a document of the same text.

    What is written where: docs/formats.md, section 1.

    RETURNS: how many mentions cut a token and were widened to it in `doc.spans` and `doc.ents`.
    """
    gold = Gold(
        corpus=conversion.corpus,
        id=record.id,
        pmid=record.pmid,
        types=conversion.types or (),
        partial=conversion.partial,
        names=conversion.names,
        mentions=record.mentions,
        alternatives=record.alternatives,
    )
    doc.user_data[KEY] = gold.to_user_data()
    return mark_record(doc, record)


def _documents(
    conversion: Conversion, report: ConversionReport, progress: Progress
) -> Iterator[tuple[Doc, Record, int]]:
    """Annotated documents with their record and the number of mentions that were widened."""
    view = conversion.chosen_view()
    make_doc = _words_to_doc() if view == "tokens" else _tokenize(conversion.tokenizer)
    conversion = replace(conversion, types=used_types(conversion))
    for record in records(conversion, report, progress=progress):
        doc = make_doc(record)
        yield doc, record, annotate(doc, record, conversion)


def with_corpus_name(conversion: Conversion, name: str | Mapping[str, str]) -> Conversion:
    """The conversion with the name of the corpus in an instruction: of a type, or of all types."""
    if isinstance(name, str):
        name = dict.fromkeys((*used_types(conversion), *conversion.partial), name)
    return replace(conversion, names=name)


def records(
    conversion: Conversion, report: ConversionReport, *, progress: Progress = iter
) -> Iterator[Record]:
    """The records of a conversion with our types, without the mentions that are not used.

    RAISES VanerError: VE201 to VE207, VE216.
    """
    used = {*used_types(conversion), *conversion.partial}
    for type_ in used:
        if not is_type_name(type_):
            raise VanerError(Messages.VE216.format(name=type_))
    pmids = _read_pmids(conversion.pmids)
    for record in progress(_read(conversion, report.note)):
        report.add_source(record)
        yield _prepared(record, conversion, used, pmids, report)


def used_types(conversion: Conversion) -> tuple[str, ...]:
    """The complete types; without a list, those that occur (a pass of its own over the files)."""
    if conversion.types is not None:
        return conversion.types
    found = {
        conversion.type_map.get(mention.type, mention.type)
        for record in _read(conversion, ignore)
        for mention in record.mentions
    }
    return tuple(sorted(type_ for type_ in found if type_ and type_ not in conversion.partial))


def _read(conversion: Conversion, note: Note) -> Iterator[Record]:
    kept, left = _read_ids(conversion.ids), _read_ids(conversion.without_ids)

    def keep(id_: str) -> bool:
        return (kept is None or id_ in kept) and (left is None or id_ not in left)

    options = dict(conversion.options)
    if get_format(conversion.format).selects:
        options["keep"] = keep
    # A note about a document that another split has is no business of this one.
    held: list[tuple[str, str]] = []
    for path in conversion.files:
        for record in read_records(
            path, conversion.format, note=lambda *what: held.append(what), **options
        ):
            if keep(record.id):
                for cause, where in held:
                    note(cause, where)
                yield record
            held.clear()


def _read_ids(path: Path | None) -> frozenset[str] | None:
    """RAISES VanerError: VE202 and VE203, a file that cannot be read."""
    if path is None:
        return None
    if path.suffix == ".json":
        return frozenset(json.loads(read_text(path)))
    return frozenset(line.split()[0] for _, line in numbered_lines(path) if line.strip())


def _read_pmids(path: Path | None) -> dict[str, str]:
    """RAISES VanerError: VE201 to VE203, a malformed table."""
    pairs: dict[str, str] = {}
    if path is None:
        return pairs
    for number, line in numbered_lines(path):
        match line.split():
            case []:
                pass
            case [id_, pmid] if pmid.isdecimal():
                pairs[id_] = pmid
            case _:
                raise malformed(path, number, "an identifier and a PMID", line)
    return pairs


def _prepared(
    record: Record,
    conversion: Conversion,
    used: set[str],
    pmids: Mapping[str, str],
    report: ConversionReport,
) -> Record:
    """The record with our types, without the mentions that are not used, with its PMID."""

    def ours(found: Iterable[Mention]) -> tuple[Mention, ...]:
        kept = []
        for mention in found:
            type_ = conversion.type_map.get(mention.type, mention.type)
            if type_ in used:
                kept.append(replace(mention, type=type_))
            else:
                report.unused[mention.type] += 1
        return sorted_mentions(kept, report.note, record.source)

    mentions, alternatives = ours(record.mentions), ours(record.alternatives)
    pmid = record.pmid or pmids.get(record.id)
    ids_are_pmids = conversion.ids_are_pmids
    if ids_are_pmids is None:
        ids_are_pmids = get_format(conversion.format).ids_are_pmids
    if ids_are_pmids and pmid is None and (match := _PMID.fullmatch(record.id)):
        pmid = match[1]
    return replace(record, mentions=mentions, alternatives=alternatives, pmid=pmid)


def _words_to_doc() -> Callable[[Record], Doc]:
    vocab = make_vocab()
    return lambda record: words_to_doc(record, vocab)


def _tokenize(name: str) -> Callable[[Record], Doc]:
    """RAISES VanerError: VE210, scispacy is not installed."""
    if name == "scispacy":
        try:
            from scispacy.custom_tokenizer import combined_rule_tokenizer
        except ImportError as error:
            raise VanerError(Messages.VE210.format(reason=error)) from error
        tokenizer = combined_rule_tokenizer(spacy.blank("en"))
    else:
        tokenizer = make_tokenizer()
    return lambda record: tokenizer(record.text)
