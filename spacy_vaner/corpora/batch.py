"""Several corpora of the catalogue converted in one go, training splits under the leakage guard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from spacy.about import __version__ as spacy_version

from spacy_vaner.corpora.catalogue import Corpus, catalogue, catalogue_conversion, get_corpus
from spacy_vaner.corpora.convert import Conversion, Progress, convert, records, report_path
from spacy_vaner.corpora.guard import PROTECTED_FILE, Kind, ProtectedIndex, Source
from spacy_vaner.corpora.report import ConversionReport
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole

SPLITS = ("test", "dev", "train")
"""In the order of conversion: what protects comes first."""
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


@dataclass(frozen=True)
class Protection:
    """What the guard of a batch protects.

    splits: those whose files are there.
    lacking: those whose files are not, as "corpus view split".
    """

    splits: tuple[tuple[Kind, Conversion], ...]
    lacking: tuple[str, ...]

    def index(self, *, progress: Progress = iter) -> ProtectedIndex:
        """The index of all splits, read from their source files."""
        index = ProtectedIndex()
        for kind, conversion in self.splits:
            protect_conversion(index, conversion, kind, progress=progress)
        return index


def protection(
    corpora_dir: Path, *, protect: Sequence[str] = (), unprotected: Sequence[str] = ()
) -> Protection:
    """The protected splits of the catalogue, also of corpora that nobody converts, in all views:
    they differ (JNLPBA's view `paper` cuts long words).

    protect, unprotected: corpora that are protected, or not, against what the catalogue says.
    RAISES VanerError: VE211, an unknown name.
    """
    there: list[tuple[Kind, Conversion]] = []
    lacking = []
    for corpus in protected_corpora(protect, unprotected):
        for view, form in corpus.views.items():
            for split, kind in form.protects.items():
                if split not in form.files:
                    continue
                try:
                    conversion = catalogue_conversion(
                        corpus.name, view, split, corpora_dir=corpora_dir
                    )
                except VanerError:
                    lacking.append(f"{corpus.name} {view} {split}")
                else:
                    there.append((kind, conversion))
    return Protection(tuple(there), tuple(lacking))


def protected_corpora(
    protect: Sequence[str] = (), unprotected: Sequence[str] = ()
) -> tuple[Corpus, ...]:
    """The corpora that the guard protects.

    RAISES VanerError: VE211, an unknown name.
    """
    asked = {name: get_corpus(name) for name in (*protect, *unprotected)}
    return tuple(
        corpus
        for name, corpus in catalogue().items()
        if name not in unprotected and (corpus.protected or name in asked)
    )


def protect_conversion(
    index: ProtectedIndex, conversion: Conversion, kind: Kind, *, progress: Progress = iter
) -> None:
    """Add the documents of a protected split to an index, without converting them."""
    source = Source(conversion.corpus, kind)
    for record in records(conversion, ConversionReport(), progress=progress):
        index.protect_text(record.text, source, pmid=record.pmid, sentences=record.sentences or ())


def corpora_there(corpora_dir: Path) -> list[str]:
    """The corpora of the catalogue whose files are all below a folder.

    RAISES VanerError: VE220, not one.
    """
    found = [
        name
        for name, corpus in catalogue().items()
        if all((corpora_dir / place).exists() for place in corpus.places())
    ]
    if not found:
        raise VanerError(Messages.VE220.format(folder=corpora_dir))
    return found


def convert_catalogue(
    corpora: Sequence[str],
    output_dir: Path,
    *,
    corpora_dir: Path,
    views: Sequence[str] | None = None,
    tokenizer: str = "spacy",
    guard_within_corpus: bool = False,
    protect: Sequence[str] = (),
    unprotected: Sequence[str] = (),
    workers: int = 1,
    progress: Callable[[str], Progress] = lambda name: iter,
) -> Iterator[Converted]:
    """Convert all splits of several corpora into `CORPUS.VIEW.SPLIT.spacy`, test and dev first.

    Training splits are converted under the guard of the whole catalogue (protection), which is
    saved beside them as protected.msgpack; what dev splits share with the test split of their own
    corpus is counted. report.json holds all reports. A file whose source, settings and guard are
    what they were is left alone. The training split of a corpus that is protected as a whole
    (CRAFT) is not converted: a folder of training files must not hold it.

    views: of each corpus those of the list that it has; None = all.
    protect, unprotected: corpora that the guard protects, or lets pass, against what the catalogue
        says: those are to be protected that a figure is reported on.
    workers: processes; 1 = this one.
    progress: given the name of the file that is made; with one worker only.
    RAISES VanerError: VE2xx; an unknown name or a missing file before anything is written.
    """
    digest = cache(_digest)  # splits share folders
    code = digest(Path(__file__).parent)
    guarded = protection(corpora_dir, protect=protect, unprotected=unprotected)
    files = sorted({path for _, conversion in guarded.splits for path in conversion.all_files()})
    key = hashlib.sha256(" ".join([code, *map(digest, files)]).encode()).hexdigest()
    protected = {corpus.name for corpus in protected_corpora(protect, unprotected)}
    jobs: dict[str, list[_Job]] = {split: [] for split in SPLITS}
    left_out = []
    for split in SPLITS:
        for corpus in corpora:
            for view in _chosen_views(corpus, views):
                form = get_corpus(corpus).views[view]
                if split not in form.files:
                    continue
                if corpus in protected and form.is_held_out(split):
                    left_out.append(f"{corpus} {view} {split}")
                    continue
                conversion = catalogue_conversion(
                    corpus, view, split, corpora_dir=corpora_dir, tokenizer=tokenizer
                )
                against = None
                if split == "dev" and "test" in form.files:
                    against = catalogue_conversion(corpus, view, "test", corpora_dir=corpora_dir)
                output = output_dir / f"{corpus}.{view}.{split}.spacy"
                made_from = {
                    **asdict(conversion),
                    "files": {_shown(p, corpora_dir): digest(p) for p in conversion.all_files()},
                    **dict.fromkeys(("ids", "without_ids", "pmids")),
                    "guard": key if split == "train" else None,
                    "guard_within_corpus": guard_within_corpus if split == "train" else None,
                    "spacy": spacy_version,
                    "code": code,
                }
                # As JSON gives them back, to compare with a report that was read.
                made_from = json.loads(json.dumps(made_from))
                is_current = _is_current(output, made_from)
                jobs[split].append(_Job(conversion, output, made_from, is_current, against))
    output_dir.mkdir(parents=True, exist_ok=True)
    index_path, report_file = output_dir / PROTECTED_FILE, output_dir / REPORT_FILE
    reports = {}
    with _processes(workers) as run:
        make_index: list[Callable[[], None]] = []
        if not index_path.exists() or (_read_json(report_file) or {}).get("protected_key") != key:
            make_index.append(partial(_make_index, guarded, index_path))
        # The index first: while one process makes it, the others convert what needs none.
        for stage in ([*jobs["test"], *jobs["dev"]], jobs["train"]):
            tasks = [
                partial(
                    _convert,
                    job,
                    index_path=index_path if stage is jobs["train"] else None,
                    guard_within_corpus=guard_within_corpus,
                    progress=progress(job.output.name) if workers == 1 else iter,
                )
                for job in stage
            ]
            done = run(_call, [*make_index, *tasks])
            for _ in make_index:
                next(done)
            make_index = []
            for job, _ in zip(stage, done, strict=True):
                report = json.loads(report_path(job.output).read_text(encoding="utf8"))
                reports[job.output.name] = {k: v for k, v in report.items() if k != "made_from"}
                yield Converted(job.output, report, not job.is_current)
    summary = {
        "files": reports,
        "protected_key": key,
        "protected": [str(source) for source in ProtectedIndex.from_file(index_path).sources],
        "not_protected_for_want_of_files": list(guarded.lacking),
        "held_out": left_out,
        "open": [name for name in corpora if name not in protected and _protects(name)],
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_whole(report_file, text.encode("utf8"))


@dataclass(frozen=True)
class _Job:
    """A file to convert.

    is_current: it is there already, made from the same.
    against: the test split of its own corpus, for a dev split.
    """

    conversion: Conversion
    output: Path
    made_from: Mapping[str, Any]
    is_current: bool
    against: Conversion | None


_Task = Callable[[], None]


@contextmanager
def _processes(workers: int) -> Iterator[Callable[..., Iterator[None]]]:
    """A `map` in so many processes; with one, in this one, each task when its turn comes."""
    if workers == 1:
        yield map
        return
    # Not forked: a copy of a process whose libraries run threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        yield executor.map


def _call(task: _Task) -> None:
    task()


def _make_index(guarded: Protection, path: Path) -> None:
    guarded.index().to_file(path)


def _convert(
    job: _Job, *, index_path: Path | None, guard_within_corpus: bool, progress: Progress
) -> None:
    if job.is_current:
        return
    against = None
    if job.against is not None:
        against = ProtectedIndex()
        protect_conversion(against, job.against, "test")
    convert(
        job.conversion,
        job.output,
        guard=None if index_path is None else _index(index_path, index_path.stat().st_mtime_ns),
        guard_within_corpus=guard_within_corpus,
        against=against,
        progress=progress,
        made_from=job.made_from,
    )


@lru_cache(maxsize=1)
def _index(path: Path, changed_ns: int) -> ProtectedIndex:
    """The index of a file, read once per process as long as the file stays the same."""
    return ProtectedIndex.from_file(path)


def _protects(corpus: str) -> bool:
    return any(view.protects for view in get_corpus(corpus).views.values())


def _chosen_views(corpus: str, views: Sequence[str] | None) -> list[str]:
    known = get_corpus(corpus).views
    chosen = [view for view in known if views is None or view in views]
    if not chosen:
        asked = ", ".join(views or ())
        raise VanerError(Messages.VE212.format(corpus=corpus, view=asked, known=", ".join(known)))
    return chosen


def _shown(path: Path, corpora_dir: Path) -> str:
    is_ours = Path(__file__).parent in path.parents
    return path.name if is_ours else str(path.relative_to(corpora_dir))


def _is_current(output: Path, made_from: Mapping[str, Any]) -> bool:
    report = _read_json(report_path(output)) if output.exists() else None
    return report is not None and report.get("made_from") == made_from


def _read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none or it is broken."""
    try:
        row = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None


def _digest(path: Path) -> str:
    """Hash of a file, or of all files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        # What Python makes of the package's own code changes without it.
        if file.is_file() and file.suffix != ".pyc":
            digest.update(f"{file.name} {file.stat().st_size} ".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
