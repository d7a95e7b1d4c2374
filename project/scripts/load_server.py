"""Load a server: many clients at a time, some broken, some that hang up; every answer is compared.

    python project/scripts/load_server.py OUTPUT.json --seconds 60 --clients 32

Starts `python -m spacy vaner serve` on loopback and compares every answer with what `nlp.pipe`
gives for its texts. The pipeline is served in fp32, in which results do not depend on the batch.
Without --model it is the tagger of the package.
Without --texts (a file with a document a line) texts are drawn from the sample corpus.

Exit status 1: a wrong answer, an answer that should not be there, or a server that stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import psutil
import spacy
import torch

from spacy_vaner.annotation.annotator import Settings, load_pipeline, model_name

SAMPLE = Path(__file__).parent.parent / "corpora" / "sample"
TOLERANCE = 1.1e-4
"""Of scores: they have four digits."""

MOST_GROWTH = 1.1
"""Of the server's memory, from the first half of the time to the last quarter."""

Ents = list[tuple[int, int, str, float]]


@dataclass
class Load:
    """What is sent, what should come back, and what came."""

    port: int
    texts: list[str]
    expected: list[Ents]
    ends_at: float
    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    n_documents: int = 0

    async def client(self, seed: int) -> None:
        """Send one request after the other until the time is over."""
        draw = random.Random(seed)
        kinds = [self.good] * 7 + [self.broken] * 2 + [self.gone]
        while time.monotonic() < self.ends_at:
            await draw.choice(kinds)(draw)

    async def good(self, draw: random.Random) -> None:
        chosen = draw.choices(range(len(self.texts)), k=draw.choice([1, 1, 1, 2, 5, 20]))
        documents = [{"id": str(i), "text": self.texts[i]} for i in chosen]
        started = time.monotonic()
        status, answer = await self.exchange(json.dumps({"documents": documents}).encode())
        self.counts[f"good, {status}"] += 1
        if status in (429, 503):  # refused, as it should be where there is too much
            await asyncio.sleep(draw.random())
        elif status != 200:
            self.faults.append(f"a good request is answered {status}: {answer[:200]!r}")
        else:
            self.seconds.append(time.monotonic() - started)
            self.n_documents += len(chosen)
            rows = json.loads(answer)["documents"]
            for i, row in zip(chosen, rows, strict=True):
                if row["text"] != self.texts[i] or not same(row, self.expected[i]):
                    self.faults.append(f"a wrong answer for: {self.texts[i][:80]!r}")

    async def broken(self, draw: random.Random) -> None:
        text = draw.choice(self.texts)
        body, right = draw.choice(
            [
                (b'{"text": ', 422),
                (b"\xff\xfe", 422),
                (json.dumps({"text": text, "ents": [[0, len(text) + 1, "A"]]}).encode(), 422),
                (json.dumps({"documents": [{"text": ""}] * 101}).encode(), 422),
                (json.dumps({"text": "x" * 300_000}).encode(), 413),
                (b" " * 2_000_000, 413),
            ]
        )
        status, answer = await self.exchange(body)
        self.counts[f"broken, {status}"] += 1
        if status not in (right, 429, 503):
            self.faults.append(f"a broken request is answered {status}: {answer[:200]!r}")

    async def gone(self, draw: random.Random) -> None:
        """Send all or a part of a request, and hang up before the answer."""
        texts = draw.choices(self.texts, k=draw.choice([1, 50]))
        request = self.request(json.dumps({"documents": [{"text": t} for t in texts]}).encode())
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request[: draw.choice([10, len(request) // 2, len(request)])])
        await asyncio.sleep(draw.random() / 5)
        writer.transport.abort()
        self.counts["hung up"] += 1

    def request(self, body: bytes) -> bytes:
        head = (
            f"POST /annotate HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def exchange(self, body: bytes) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(self.request(body))
            answer = await reader.read()
        finally:
            writer.close()
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), content


def same(row: dict[str, Any], expected: Ents) -> bool:
    scores = row.get("scores", [])
    found = [(s, e, t, p) for (s, e, t, *_), p in zip(row["ents"], scores, strict=True)]
    return len(found) == len(expected) and all(
        one[:3] == other[:3] and abs(one[3] - other[3]) < TOLERANCE
        for one, other in zip(found, expected, strict=True)
    )


async def sample_memory(process: psutil.Process, mib: list[float]) -> None:
    while True:
        mib.append(process.memory_info().rss / 2**20)
        await asyncio.sleep(0.5)


async def run(load: Load, n_clients: int, server: psutil.Process) -> list[float]:
    """Let the clients loose. RETURNS: memory of the server in MiB, twice a second."""
    mib: list[float] = []
    sampler = asyncio.ensure_future(sample_memory(server, mib))
    await asyncio.gather(*(load.client(seed) for seed in range(n_clients)))
    sampler.cancel()
    return mib


def read_texts(path: Path | None, n: int) -> list[str]:
    """Texts of mixed sizes: whole ones, parts, several joined, and strange ones."""
    if path is None:
        files = [SAMPLE / f"sample.{split}.jsonl" for split in ("train", "dev", "test")]
        lines = [line for file in files for line in file.read_text("utf8").splitlines()]
        texts = [json.loads(line)["text"] for line in lines]
    else:
        texts = [line for line in path.read_text("utf8").splitlines() if line.strip()]
    draw = random.Random(0)
    mixed = ["", " \n", "😀 \u200b\x00 & <b>"]
    while len(mixed) < n:
        text = draw.choice(texts)
        mixed.append(
            draw.choice([text, text[: draw.randrange(1, 200)], "\n".join(draw.choices(texts, k=3))])
        )
    return mixed


def expected_ents(nlp: spacy.language.Language, texts: list[str]) -> list[Ents]:
    return [
        [(s, e, t, p) for t, s, e, p in doc.user_data["vaner_predictions"]]
        for doc in nlp.pipe(texts)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", help="Folder or name of a pipeline with vaner_ner")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--n-texts", type=int, default=60, help="Different texts that are sent")
    arguments = parser.parse_args()
    model = arguments.model
    nlp = load_pipeline(Settings(model=model, model_name=model_name(model), to="jsonl"))
    nlp.get_pipe("vaner_ner").precision = "fp32"
    texts = read_texts(arguments.texts, arguments.n_texts)
    expected = expected_ents(nlp, texts)
    with tempfile.TemporaryDirectory() as folder:
        nlp.to_disk(folder)
        server = subprocess.Popen(
            [sys.executable, "-m", "spacy", "vaner", "serve", "--model", folder, "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            port = int(line.partition(" (")[0].rpartition(":")[2])
            load = Load(port, texts, expected, time.monotonic() + arguments.seconds)
            mib = asyncio.run(run(load, arguments.clients, psutil.Process(server.pid)))
            is_alive = server.poll() is None
        finally:
            server.terminate()
            server.wait()
    if not is_alive:
        load.faults.append("the server has stopped")
    quarter = len(mib) // 4
    grown = max(mib[-quarter - 1 :]) / max(mib[: 2 * quarter + 1])
    if arguments.seconds >= 20 and grown > MOST_GROWTH:
        load.faults.append(f"the server's memory grows: {grown:.2f} times in the second half")
    answered = sorted(load.seconds) or [float("nan")]
    result = {
        "model": model_name(model),
        "clients": arguments.clients,
        "seconds": arguments.seconds,
        "answers": dict(sorted(load.counts.items())),
        "documents": load.n_documents,
        "wrong": len(load.faults),
        "seconds_median": round(answered[len(answered) // 2], 2),
        "seconds_longest": round(answered[-1], 2),
        "mib_after_a_quarter": round(max(mib[: quarter + 1])),
        "mib_at_the_end": round(mib[-1]),
        "mib_most": round(max(mib)),
        "versions": {"spacy": spacy.__version__, "torch": torch.__version__},
    }
    print(json.dumps(result, indent=2))
    print("\n".join(load.faults[:10]), file=sys.stderr)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", "utf8")
    return 1 if load.faults else 0


if __name__ == "__main__":
    sys.exit(main())
