"""Workers on a Ray cluster: Ray Data reads and cuts the sources, actors hold the pipeline."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spacy_vaner.annotation.annotator import Annotator, Settings
from spacy_vaner.annotation.inputs import STDIN, Source, cut
from spacy_vaner.annotation.run import Engine
from spacy_vaner.annotation.store import Receipt, Store
from spacy_vaner.errors import Messages, VanerError

_READER_CPUS = 0.25
"""Of a task that reads: it waits for the disk and for the actors most of the time. As it is not
what an actor takes, Ray does not run both in one process, where a file would be one actor's."""

_SAID = re.compile(r"VanerError: (V[EW]\d+: .*)")


def ray_engine(
    n_workers: int, *, address: str | None = None, init: Mapping[str, Any] | None = None
) -> Engine:
    """Workers on a cluster. Input and output must be the same folders on every machine.

    n_workers: actors; each holds the pipeline and takes a CPU, or a GPU where one is asked for.
    address: of a running cluster ("auto" = of this machine); None = one on this machine alone.
    init: further arguments of ray.init, where no Ray runs in this process yet.
    RAISES VanerError: VE713, Ray is not installed; VE715, it cannot be started or found;
        VE716, standard input, which only one machine has; what an actor raises, e.g. VE707, VE709.
    """

    def run(
        sources: list[Source], store: Store, settings: Settings
    ) -> Iterator[tuple[Receipt | None, int]]:
        if any(path == STDIN for source in sources for path, _ in source.files):
            raise VanerError(Messages.VE716)
        started = _connect(address, dict(init or {}))
        import ray

        try:
            yield from _run(sources, store, settings, n_workers)
        except ray.exceptions.RayError as error:
            # What an actor says in a sentence comes inside of what happened to the actor.
            if said := _SAID.search(str(error)):
                raise VanerError(said[1]) from error
            raise
        finally:
            if started:
                ray.shutdown()

    return run


def _connect(address: str | None, init: dict[str, Any]) -> bool:
    """Connect, unless this process is connected. RETURNS: whether it had to."""
    try:
        import ray
        import ray.data  # it needs more packages than ray itself
    except ImportError as error:
        raise VanerError(
            Messages.VE713.format(what="--engine ray", package=f"ray ({error})", extra="ray")
        ) from error
    if ray.is_initialized():
        return False
    try:
        ray.init(address=address or "local", **init)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = address or "on this machine"
        raise VanerError(Messages.VE715.format(where=where, reason=error)) from error
    return True


class _Cutter:
    """Turns a row with a source into a row per shard."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        for packed in batch["source"]:
            for shard in cut(pickle.loads(packed), self.settings.limits):
                content = None if self.store.is_done(shard) else shard
                yield {"shard": [pickle.dumps(content)], "read_bytes": [shard.read_bytes]}


class _Actor:
    """Holds the pipeline and annotates shards."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.annotator = Annotator(settings, folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        receipts = []
        for packed in batch["shard"]:
            shard = pickle.loads(packed)
            receipts.append(pickle.dumps(None if shard is None else self.annotator(shard)))
        return {"receipt": receipts, "read_bytes": list(batch["read_bytes"])}


def _run(
    sources: list[Source], store: Store, settings: Settings, n_workers: int
) -> Iterator[tuple[Receipt | None, int]]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    before = context.target_max_block_size, context.enable_progress_bars
    # A block per shard: what Ray hands on, counts and limits in memory is then a shard.
    context.target_max_block_size, context.enable_progress_bars = 1, False
    try:
        rows = ray.data.from_items([{"source": pickle.dumps(source)} for source in sources])
        cutter = _Cutter(store, settings)
        shards = rows.repartition(len(sources)).map_batches(
            cutter.__call__, batch_size=1, num_cpus=_READER_CPUS
        )
        done = shards.map_batches(
            _Actor,
            fn_constructor_args=(settings, store.folder),
            batch_size=1,
            compute=ActorPoolStrategy(size=n_workers),
            num_cpus=0 if settings.gpu >= 0 else 1,
            num_gpus=1 if settings.gpu >= 0 else None,
        )
        for row in done.iter_rows():
            yield pickle.loads(row["receipt"]), int(row["read_bytes"])
    finally:
        context.target_max_block_size, context.enable_progress_bars = before
