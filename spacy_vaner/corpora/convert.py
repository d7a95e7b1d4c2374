"""From the records of a corpus to a `.spacy` file with its report."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import spacy
from spacy.tokenizer import Tokenizer
from spacy.tokens import Doc, Span
from spacy.util import filter_spans

from spacy_vaner.corpora.docbins import docs_to_bytes, words_to_doc
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
from spacy_vaner.types import Record

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

    Both are written beside and renamed: a failing conversion leaves what was there before.

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
            if against is not None:
                against_counts.add(against.check(doc, within_corpus=True))
            if guard is not None:
                verdict = guard.check(doc, within_corpus=guard_within_corpus)
                guard_counts.add(verdict)
                if verdict.dropped:
                    continue
                doc.user_data["vaner"]["masked"] = [list(offsets) for offsets in verdict.masked]
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
    write_beside({output: content, report_path(output): text.encode("utf8")})
    return report


def report_path(output: Path) -> Path:
    """Where the report of a converted file stands."""
    return output.with_suffix(".report.json")


def annotate(doc: Doc, record: Record, conversion: Conversion) -> int:
    """Write a record's mentions and sentences onto a document of the same text.

    What is written where: docs/formats.md, section 1.

    RETURNS: how many mentions cut a token and were widened to it in `doc.spans` and `doc.ents`.
    """
    assert doc.text == record.text
    if record.sentences:
        sentence_starts = {start for start, _ in record.sentences}
        for token in doc:
            token.is_sent_start = token.idx in sentence_starts
    starts = [token.idx for token in doc]
    ends = [token.idx + len(token) for token in doc]
    spans = []
    n_widened = 0
    for mention in record.mentions:
        if len(mention.fragments) > 1:
            continue
        ((start, end),) = mention.fragments
        first, beyond = bisect_right(ends, start), bisect_left(starts, end)
        if first < beyond:
            spans.append(Span(doc, first, beyond, label=mention.type))
            n_widened += (starts[first], ends[beyond - 1]) != (start, end)
    doc.spans["gold"] = spans
    doc.set_ents(filter_spans(spans))
    doc.user_data["vaner"] = {
        "corpus": conversion.corpus,
        "id": record.id,
        "pmid": record.pmid,
        "types": list(conversion.types or ()),
        "partial": list(conversion.partial),
        "names": dict(conversion.names),
        "mentions": [
            [mention.type, [list(fragment) for fragment in mention.fragments], list(mention.ids)]
            for mention in record.mentions
        ],
        "masked": [],
    }
    return n_widened


def _documents(
    conversion: Conversion, report: ConversionReport, progress: Progress
) -> Iterator[tuple[Doc, Record, int]]:
    """Annotated documents with their record and the number of mentions that were widened."""
    view = conversion.chosen_view()
    tokenizer = _make_tokenizer(conversion.tokenizer)
    conversion = replace(conversion, types=used_types(conversion))
    for record in records(conversion, report, progress=progress):
        words = view == "tokens"
        doc = words_to_doc(record, tokenizer.vocab) if words else tokenizer(record.text)
        yield doc, record, annotate(doc, record, conversion)


def records(
    conversion: Conversion, report: ConversionReport, *, progress: Progress = iter
) -> Iterator[Record]:
    """The records of a conversion with our types, without the mentions that are not used.

    RAISES VanerError: VE201 to VE207, VE216.
    """
    used = {*used_types(conversion), *conversion.partial}
    for type_ in used:
        if not type_.strip() or any(mark in type_ for mark in ":=\n\r"):
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
    mentions = []
    for mention in record.mentions:
        type_ = conversion.type_map.get(mention.type, mention.type)
        if type_ in used:
            mentions.append(replace(mention, type=type_))
        else:
            report.unused[mention.type] += 1
    pmid = record.pmid or pmids.get(record.id)
    ids_are_pmids = conversion.ids_are_pmids
    if ids_are_pmids is None:
        ids_are_pmids = get_format(conversion.format).ids_are_pmids
    if ids_are_pmids and pmid is None and (match := _PMID.fullmatch(record.id)):
        pmid = match[1]
    kept = sorted_mentions(mentions, report.note, record.source)
    return replace(record, mentions=kept, pmid=pmid)


def _make_tokenizer(name: str) -> Tokenizer:
    """RAISES VanerError: VE210, scispacy is not installed."""
    nlp = spacy.blank("en")
    if name == "scispacy":
        try:
            from scispacy.custom_tokenizer import combined_rule_tokenizer
        except ImportError as error:
            raise VanerError(Messages.VE210.format(reason=error)) from error
        nlp.tokenizer = combined_rule_tokenizer(nlp)
    tokenizer: Tokenizer = nlp.tokenizer
    return tokenizer


def write_beside(files: Mapping[Path, bytes]) -> None:
    """Write all files under other names first, so that none is ever seen half-written."""
    for path, content in files.items():
        path.with_name(path.name + ".part").write_bytes(content)
    for path in files:
        path.with_name(path.name + ".part").replace(path)
