"""A run: find the input, cut it, hand the shards to workers, sum up."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from spacy_vaner.annotation.annotator import Annotator, Settings, load_pipeline
from spacy_vaner.annotation.document import Document
from spacy_vaner.annotation.formats import get_output
from spacy_vaner.annotation.inputs import Shard, Source, cut, find_sources
from spacy_vaner.annotation.store import Receipt, Store, Totals
from spacy_vaner.errors import Messages, VanerError

_WAITING = 2
"""Shards per worker that are read before one is done: enough to keep it busy, little memory."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: at the start, then after each shard.

    documents: annotated in this run. read_bytes of all_bytes: of the input, as it is stored, with
    what was done before; all_bytes is None for standard input.
    """

    documents: int
    words: int
    read_bytes: int
    all_bytes: int | None


Engine = Callable[[list[Source], Store, Settings], Iterator[tuple[Receipt | None, int]]]
"""Called with what is not done yet; yields receipts (None where a shard was done before) with the
bytes of input that stand behind each."""


def annotate(
    given: str,
    output: Path,
    settings: Settings,
    *,
    from_format: str | None = None,
    engine: Engine,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Totals:
    """Annotate files into a folder; what is done there already is not done again.

    given: a file, a folder, a glob or "-".
    engine: `local_engine(n)`, or `ray_engine` of spacy_vaner.annotation.ray_engine.
    RETURNS: what the folder holds at the end, of earlier runs too.
    RAISES VanerError: VE701 to VE715; the folder stays as it is and the run can be started again.
    """
    _check_package(settings.to)
    sources = find_sources(given, from_format, settings.limits)
    store = Store(output, settings.to_dict(), suffix=get_output(settings.to).suffix)
    store.open()
    sizes = [source.size_bytes for source in sources]
    all_bytes = None if None in sizes else sum(size for size in sizes if size is not None)
    left = [source for source in sources if not store.is_complete(source)]
    n_documents = n_words = 0
    read_bytes = sum(source.size_bytes or 0 for source in sources if source not in left)
    is_complete = False
    on_progress(Progress(0, 0, read_bytes, all_bytes))
    try:
        for receipt, n_bytes in engine(left, store, settings) if left else ():
            read_bytes += n_bytes
            if receipt is not None:
                n_documents += receipt.documents
                n_words += receipt.words
            on_progress(Progress(n_documents, n_words, read_bytes, all_bytes))
        is_complete = True
    finally:
        if not is_complete:
            store.finish(is_complete=False)
    return store.finish(is_complete=True)


def _check_package(to: str) -> None:
    """RAISES VanerError: VE713, the format needs a package that is not installed."""
    needs = get_output(to).needs
    if needs and find_spec(needs) is None:
        raise VanerError(Messages.VE713.format(what=f"--to {to}", package=needs, extra="annotate"))


@dataclass(frozen=True, slots=True)
class Survey:
    """What a run would do: counts of the input, and of it what is done already."""

    sources: int
    shards: int
    documents: int
    characters: int
    annotations: int
    rejected: int
    shards_done: int
    formats: tuple[str, ...]


def survey(given: str, output: Path, settings: Settings, *, from_format: str | None) -> Survey:
    """Read the input and cut it, and write nothing.

    RAISES VanerError: as `annotate`, short of what only shows when writing.
    """
    _check_package(settings.to)
    sources = find_sources(given, from_format, settings.limits)
    store = Store(output, settings.to_dict(), suffix=get_output(settings.to).suffix)
    store.open(is_dry=True)
    n_shards = n_done = n_rejected = 0
    documents: list[int] = []
    n_annotations = 0
    for source in sources:
        for shard in cut(source, settings.limits):
            n_shards += 1
            n_done += store.is_done(shard)
            n_rejected += len(shard.rejections)
            documents += [len(document.text) for document in shard.documents]
            n_annotations += _n_annotations(shard.documents)
    return Survey(
        sources=len(sources),
        shards=n_shards,
        documents=len(documents),
        characters=sum(documents),
        annotations=n_annotations,
        rejected=n_rejected,
        shards_done=n_done,
        formats=tuple(sorted({source.format for source in sources})),
    )


def _n_annotations(documents: Iterable[Document]) -> int:
    return sum(len(document.annotations) for document in documents)


def local_engine(n_workers: int) -> Engine:
    """Workers on this machine: processes, or this one where it is a single worker."""

    def run(
        sources: list[Source], store: Store, settings: Settings
    ) -> Iterator[tuple[Receipt | None, int]]:
        if n_workers == 1:
            yield from _alone(sources, store, settings)
        else:
            yield from _in_processes(sources, store, settings, n_workers)

    return run


def shards_left(
    sources: Iterable[Source], store: Store, settings: Settings
) -> Iterator[tuple[Shard, bool]]:
    """The shards of the sources, and whether each is done."""
    for source in sources:
        for shard in cut(source, settings.limits):
            yield shard, store.is_done(shard)


def _alone(
    sources: list[Source], store: Store, settings: Settings
) -> Iterator[tuple[Receipt | None, int]]:
    import torch

    n_threads = torch.get_num_threads()
    try:
        annotator = Annotator(settings, store.folder)
        for shard, is_done in shards_left(sources, store, settings):
            yield (None if is_done else annotator(shard)), shard.read_bytes
    finally:
        torch.set_num_threads(n_threads)


_worker: Annotator | None = None
"""Of this process, where it is a worker."""


def _start_worker(settings: Settings, folder: Path) -> None:
    global _worker
    # Ctrl-C is for the process that gives out the work; it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = Annotator(settings, folder)


def _work(shard: Shard) -> tuple[Receipt, int]:
    assert _worker is not None
    return _worker(shard), shard.read_bytes


def _in_processes(
    sources: list[Source], store: Store, settings: Settings, n_workers: int
) -> Iterator[tuple[Receipt | None, int]]:
    # Loaded here first: a model that cannot be loaded is told in a sentence, not as a dead worker.
    load_pipeline(settings)
    # A forked process with threads of torch hangs; a new one reads this at its start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    pool = ProcessPoolExecutor(
        n_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(settings, store.folder),
    )
    waiting: set[Future[tuple[Receipt, int]]] = set()
    try:
        for shard, is_done in shards_left(sources, store, settings):
            if is_done:
                yield None, shard.read_bytes
                continue
            waiting.add(pool.submit(_work, shard))
            if len(waiting) >= _WAITING * n_workers:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise VanerError(Messages.VE714.format(n_workers=n_workers)) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
