"""Measure annotation: documents per second of `nlp.pipe` and of each engine, and peak memory.

    python project/scripts/measure_annotation.py TEXTS OUTPUT.json --documents 5000 --ray
    python project/scripts/measure_annotation.py --table OUTPUT.json GPU_OUTPUT.json

TEXTS: a file with a document a line, packed with xz or not. Every engine gets the same documents,
cut into shards of --shard. What is given are the documents after each worker's first shard, so that
loading the pipeline and starting Ray do not count; `seconds` is of all, with that. Without --model
it is the tagger of the package.

--table prints, from files that were written before, how long the literature takes. Of a GPU that
was not measured it tells a bound: what one process would read if the network took no time.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
# Ray on loopback: it takes the address that others see, unless it takes clusters for impossible.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
# With the priority of local workers: Ray's are 15 steps below, which shows beside other work.
os.environ["RAY_worker_niceness"] = "0"

import psutil
import spacy
import torch

from spacy_vaner.annotation.annotator import Settings, load_pipeline, model_name
from spacy_vaner.annotation.inputs import Limits
from spacy_vaner.annotation.ray_engine import ray_engine
from spacy_vaner.annotation.run import Engine, Progress, annotate, local_engine
from spacy_vaner.gold import vaner_components
from spacy_vaner.model import get_tagger

RAY = {"include_dashboard": False, "log_to_driver": False}
ABSTRACTS = 36_000_000
FULL_TEXTS, FULL_TEXT_WORDS = 3_400_000, 5_000
"""Articles of PMC's Open Access Subset ("more than 3.4 million": National Library of Medicine,
2022), and words in one without tables and references: 4,200 between blanks, the mean of 9,300 open
articles, and a fifth more as spaCy counts."""
WEEK_H = 168
GOALS = {"local": 10, "ray": 25}
"""Percent that an engine may cost, per worker, beside bare `nlp.pipe`."""


class Memory(threading.Thread):
    """The most memory that this process and its children had together, in MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stopped = threading.Event()
        self.peak_mib = 0.0

    def run(self) -> None:
        me = psutil.Process()
        while not self.stopped.wait(0.5):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_mib = max(self.peak_mib, total / 2**20)

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.join()


class Network:
    """Seconds that the taggers of a pipeline compute, on a CPU, apart from all that is around."""

    def __init__(self, nlp: spacy.language.Language) -> None:
        self.seconds = self.since = 0.0
        for component in vaner_components(nlp).values():
            tagger = get_tagger(component.model)
            if tagger is not None:
                tagger.register_forward_pre_hook(self._start)
                tagger.register_forward_hook(self._stop)

    def _start(self, *_: object) -> None:
        self.since = time.perf_counter()

    def _stop(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self.since


def read_texts(path: Path, n: int) -> list[str]:
    """The first n lines that are no longer than an abstract."""
    with (
        lzma.open(path, "rt", encoding="utf8")
        if path.suffix == ".xz"
        else path.open(encoding="utf8") as file
    ):
        lines: Iterator[str] = (line.rstrip("\n") for line in file)
        return list(islice((line for line in lines if 200 < len(line) < 5000), n))


def measure(name: str, n_workers: int, run: Callable[[Callable[[int, int], None]], None]) -> Any:
    """run is told how to say how many documents and words are done, after each shard."""
    moments: list[tuple[float, int, int]] = []
    started = time.perf_counter()
    with Memory() as memory:
        run(lambda n, words: moments.append((time.perf_counter(), n, words)))
    seconds = time.perf_counter() - started
    # By then every worker has loaded the pipeline and done a shard.
    first = moments[min(n_workers, len(moments) - 1) - 1]
    last = moments[-1]
    steady_s = (last[0] - first[0]) or float("nan")
    result = {
        "engine": name,
        "workers": n_workers,
        "documents_per_s": round((last[1] - first[1]) / steady_s, 2),
        "words_per_s": round((last[2] - first[2]) / steady_s, 1),
        "seconds": round(seconds, 1),
        "peak_mib": round(memory.peak_mib),
    }
    print(json.dumps(result), flush=True)
    return result


def table(contents: Sequence[dict[str, Any]]) -> str:
    """Hours for the literature at the measured words per second, and machines for a week."""
    lines = [
        "| device | engine, workers | words/s | overhead | peak memory "
        f"| {ABSTRACTS / 1e6:.0f} M abstracts | PMC's open full texts "
        "| machines for both in a week |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for content in contents:
        for result in content["results"]:
            overhead = result.get("overhead_per_worker_percent")
            lines.append(
                row(
                    content,
                    content["device"],
                    f"{result['engine']}, {result['workers']}",
                    result["words_per_s"],
                    "" if overhead is None else f"{overhead} %",
                    f"{result['peak_mib']:,} MiB",
                )
            )
        share = content.get("network_share", 0)
        if content["device"] == "cpu" and 0 < share < 1:
            bound = content["results"][0]["words_per_s"] / (1 - share)
            lines.append(row(content, "a GPU, not measured", "at most, 1", bound, "", ""))
    words = ", ".join(f"{content['words_per_document']:g}" for content in contents)
    lines += [
        "",
        f"Words are spaCy's tokens: {words} an abstract here, {FULL_TEXT_WORDS:,} a full text of "
        f"{FULL_TEXTS / 1e6:g} million. A machine runs the workers of its row.",
    ]
    return "\n".join(lines)


def row(content: dict[str, Any], device: str, engine: str, words_per_s: float, *more: str) -> str:
    per_hour = 3600 * words_per_s
    abstracts = ABSTRACTS * content["words_per_document"] / per_hour
    full_texts = FULL_TEXTS * FULL_TEXT_WORDS / per_hour
    hours = (f"{abstracts:,.0f} h", f"{full_texts:,.0f} h")
    machines = f"{math.ceil((abstracts + full_texts) / WEEK_H):,}"
    return f"| {' | '.join((device, engine, f'{words_per_s:,.0f}', *more, *hours, machines))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", type=Path, nargs="+", help="Print the table of these files")
    parser.add_argument("texts", type=Path, nargs="?")
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--model", help="Folder or name of a pipeline")
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--shard", type=int, default=100, help="Documents in a shard")
    parser.add_argument("--ray", action="store_true", help="Ray with 1 and 2 actors too")
    parser.add_argument("--gpu-id", type=int, default=-1, help="A GPU, with one worker each")
    arguments = parser.parse_args()
    if arguments.table:
        print(table([json.loads(path.read_text("utf8")) for path in arguments.table]))
        return
    if arguments.output is None:
        parser.error("TEXTS and OUTPUT, or --table FILES")
    torch.set_num_threads(1)
    texts = read_texts(arguments.texts, arguments.documents)
    workers = (1, 2) if arguments.gpu_id < 0 else (1,)
    if arguments.gpu_id >= 0:
        spacy.require_gpu(arguments.gpu_id)

    settings = Settings(
        model=arguments.model,
        model_name=model_name(arguments.model),
        to="jsonl",
        limits=Limits(documents=arguments.shard),
        gpu=arguments.gpu_id,
    )

    def bare(tell: Callable[[int, int], None]) -> None:
        nlp = load_pipeline(settings)
        network = Network(nlp)
        n = words = 0
        started = time.perf_counter()
        for at in range(0, len(texts), arguments.shard):
            for doc in nlp.pipe(texts[at : at + arguments.shard]):
                n, words = n + 1, words + len(doc)
            tell(n, words)
        counted["words"] = words
        counted["network_share"] = network.seconds / (time.perf_counter() - started)

    counted: dict[str, float] = {}

    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "texts.jsonl"
        given.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf8")

        def by(engine: Engine, name: str) -> Callable[[Callable[[int, int], None]], None]:
            def run(tell: Callable[[int, int], None]) -> None:
                def advance(progress: Progress) -> None:
                    if progress.documents:
                        tell(progress.documents, progress.words)

                output = Path(folder) / name
                annotate(str(given), output, settings, engine=engine, on_progress=advance)

            return run

        results = [measure("nlp.pipe", 1, bare)]
        for n in workers:
            results.append(measure("local", n, by(local_engine(n), f"local{n}")))
        for n in workers if arguments.ray else ():
            engine = ray_engine(n, init={**RAY, "num_cpus": n + 1})
            results.append(measure("ray", n, by(engine, f"ray{n}")))
    pure = results[0]["documents_per_s"]
    for result in results[1:]:
        share = result["documents_per_s"] / result["workers"] / pure
        overhead = round(100 * (1 - share), 1)
        result["overhead_per_worker_percent"] = overhead
        result["is_goal_met"] = overhead < GOALS[result["engine"]]
    content = {
        "command": " ".join(sys.argv),
        "model": settings.model_name,
        "device": torch.cuda.get_device_name() if arguments.gpu_id >= 0 else "cpu",
        "cores": os.cpu_count(),
        "documents": len(texts),
        "words_per_document": round(counted["words"] / len(texts), 1),
        "network_share": round(counted["network_share"], 3),
        "versions": {
            "python": platform.python_version(),
            "spacy": spacy.__version__,
            "torch": torch.__version__,
            **({"ray": version("ray")} if arguments.ray else {}),
        },
        "results": results,
    }
    arguments.output.write_text(json.dumps(content, indent=2) + "\n", "utf8")
    print(table([content]))


if __name__ == "__main__":
    main()
