"""Several corpora of the catalogue converted in one go, training splits under the leakage guard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spacy.about import __version__ as spacy_version

from spacy_vaner.corpora.catalogue import catalogue, catalogue_conversion, get_corpus
from spacy_vaner.corpora.convert import (
    Conversion,
    Progress,
    convert,
    records,
    report_path,
    write_beside,
)
from spacy_vaner.corpora.guard import Kind, ProtectedIndex, Source
from spacy_vaner.corpora.report import ConversionReport
from spacy_vaner.errors import Messages, VanerError

SPLITS = ("test", "dev", "train")
"""In the order of conversion: what protects comes first."""
PROTECTED_FILE = "protected.msgpack"
REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Converted:
    """One file of convert_catalogue.

    report: as NAME.report.json has it.
    is_new: False where it was up to date.
    """

    path: Path
    report: Mapping[str, Any]
    is_new: bool


def protected_conversions(
    corpora_dir: Path, *, unprotected: Sequence[str] = ()
) -> tuple[list[tuple[Kind, Conversion]], list[str]]:
    """The protected splits of the whole catalogue, as far as the files are there.

    All corpora, also those that nobody trains on, and all views, since they differ (JNLPBA's view
    `paper` cuts long words).

    unprotected: corpora that no figure is reported on.
    RETURNS: what to protect, and the splits that are lacking, as "corpus view split".
    """
    there, lacking = [], []
    for corpus, row in catalogue().items():
        for view, form in row.views.items() if corpus not in unprotected else ():
            for split, kind in form.protects.items():
                if split not in form.files:
                    continue
                try:
                    conversion = catalogue_conversion(corpus, view, split, corpora_dir=corpora_dir)
                except VanerError:
                    lacking.append(f"{corpus} {view} {split}")
                else:
                    there.append((kind, conversion))
    return there, lacking


def protect_conversion(index: ProtectedIndex, conversion: Conversion, kind: Kind) -> None:
    """Add the documents of a protected split to an index, without converting them."""
    source = Source(conversion.corpus, kind)
    for record in records(conversion, ConversionReport()):
        index.protect_text(record.text, source, pmid=record.pmid, sentences=record.sentences or ())


def convert_catalogue(
    corpora: Sequence[str],
    output_dir: Path,
    *,
    corpora_dir: Path,
    views: Sequence[str] | None = None,
    tokenizer: str = "spacy",
    guard_within_corpus: bool = False,
    unprotected: Sequence[str] = (),
    progress: Callable[[str], Progress] = lambda name: iter,
) -> Iterator[Converted]:
    """Convert all splits of several corpora into `CORPUS.VIEW.SPLIT.spacy`, test and dev first.

    Training splits are converted under the guard of the whole catalogue (protected_conversions),
    which is saved beside them as protected.msgpack; what dev splits share with the test split of
    their own corpus is counted. report.json holds all reports. A file whose source, settings
    and guard are what they were is left alone.

    views: of each corpus those of the list that it has; None = all.
    unprotected: corpora whose test and dev splits the guard lets pass, since no figure is reported
        on them.
    progress: given the name of the file that is made.
    RAISES VanerError: VE2xx; an unknown name or a missing file before anything is written.
    """
    jobs = [
        (
            view,
            split,
            catalogue_conversion(corpus, view, split, corpora_dir=corpora_dir, tokenizer=tokenizer),
        )
        for split in SPLITS
        for corpus in corpora
        for view in _chosen_views(corpus, views)
        if split in get_corpus(corpus).views[view].files
    ]
    output_dir.mkdir(parents=True, exist_ok=True)
    package = Path(__file__).parent
    code = _digest(*sorted(package.rglob("*.py")))
    for name in unprotected:
        get_corpus(name)
    guard, lacking, guard_key = _saved_guard(output_dir, corpora_dir, code, unprotected)
    reports = {}
    for view, split, conversion in jobs:
        output = output_dir / f"{conversion.corpus}.{view}.{split}.spacy"
        is_train = split == "train"
        settings: dict[str, Any] = {
            **asdict(conversion),
            "files": {
                path.name if package in path.parents else str(path.relative_to(corpora_dir)): (
                    _digest(path)
                )
                for path in conversion.all_files()
            },
            **dict.fromkeys(("ids", "without_ids", "pmids")),
            "guard": guard_key if is_train else None,
            "guard_within_corpus": guard_within_corpus if is_train else None,
            "spacy": spacy_version,
            "code": code,
        }
        # As JSON gives them back, to compare with a report that was read.
        settings = json.loads(json.dumps(settings))
        report = _report_if_current(output, settings)
        is_new = report is None
        if report is None:
            convert(
                conversion,
                output,
                guard=guard if is_train else None,
                guard_within_corpus=guard_within_corpus,
                against=_own_test(conversion, view, corpora_dir) if split == "dev" else None,
                progress=progress(output.name),
                made_from=settings,
            )
            report = json.loads(report_path(output).read_text(encoding="utf8"))
        reports[output.name] = {key: report[key] for key in report if key != "made_from"}
        yield Converted(output, report, is_new)
    summary = {
        "files": reports,
        "protected_key": guard_key,
        "protected": [str(source) for source in guard.sources],
        "not_protected_for_want_of_files": lacking,
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_beside({output_dir / REPORT_FILE: text.encode("utf8")})


def _saved_guard(
    output_dir: Path, corpora_dir: Path, code: str, unprotected: Sequence[str]
) -> tuple[ProtectedIndex, list[str], str]:
    """The guard, from its file where that was made from the same; what it lacks; its key."""
    conversions, lacking = protected_conversions(corpora_dir, unprotected=unprotected)
    paths = [path for _, conversion in conversions for path in conversion.all_files()]
    key = f"{code} {_digest(*paths)}"
    path, report = output_dir / PROTECTED_FILE, output_dir / REPORT_FILE
    if path.exists() and (_read_json(report) or {}).get("protected_key") == key:
        return ProtectedIndex.from_file(path), lacking, key
    guard = ProtectedIndex()
    for kind, conversion in conversions:
        protect_conversion(guard, conversion, kind)
    guard.to_file(path)
    return guard, lacking, key


def _chosen_views(corpus: str, views: Sequence[str] | None) -> list[str]:
    known = get_corpus(corpus).views
    chosen = [view for view in known if views is None or view in views]
    if not chosen:
        asked = ", ".join(views or ())
        raise VanerError(Messages.VE212.format(corpus=corpus, view=asked, known=", ".join(known)))
    return chosen


def _own_test(conversion: Conversion, view: str, corpora_dir: Path) -> ProtectedIndex | None:
    corpus = conversion.corpus or ""
    if "test" not in get_corpus(corpus).views[view].files:
        return None
    index = ProtectedIndex()
    test = catalogue_conversion(corpus, view, "test", corpora_dir=corpora_dir)
    protect_conversion(index, test, "test")
    return index


def _report_if_current(output: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The report of a converted file that was made from the same, else None."""
    report = _read_json(report_path(output)) if output.exists() else None
    return report if report and report.get("made_from") == settings else None


def _read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none or it is broken."""
    try:
        row = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(f"{file.name} {file.stat().st_size} ".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()
