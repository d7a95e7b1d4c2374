"""Several processes, several threads, a long run, too little memory."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import spacy
from spacy.language import Language

from tests.support.tiny_tagger import Writer, assert_same, predictions

N_TEXTS = 24


@pytest.fixture(scope="session")
def texts() -> list[str]:
    writer = Writer(spacy.blank("en"), 41)
    return [writer.doc(3 + n).text for n in range(N_TEXTS)]


@pytest.mark.timeout(120)
# Python 3.12 and later warn of every fork of a process with threads; torch has some.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_two_processes_after_the_parent_has_predicted(nlp: Language, texts: list[str]) -> None:
    alone = [predictions(doc) for doc in nlp.pipe(texts)]
    config = {"vaner_ner": {"types": ["Gene"]}}
    for doc, expected in zip(nlp.pipe(texts, n_process=2, batch_size=5), alone, strict=True):
        assert_same(predictions(doc), expected)
    docs = nlp.pipe(texts, n_process=2, batch_size=5, component_cfg=config)
    assert {name for doc in docs for name, *_ in predictions(doc)} == {"Gene"}


SPAWN = """
import multiprocessing, sys
import spacy

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    nlp = spacy.load(sys.argv[1])
    texts = ["with zinc levels", "high BRCA1 and", "the"] * 3
    alone = [doc.user_data["vaner_predictions"] for doc in nlp.pipe(texts)]
    spawned = [doc.user_data["vaner_predictions"] for doc in nlp.pipe(texts, n_process=2)]
    assert alone[0] and [[v[:3] for v in p] for p in spawned] == [[v[:3] for v in p] for p in alone]
    print("equal")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_that_are_spawned(trained_path: Path, tmp_path: Path) -> None:
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN, "utf8")
    done = subprocess.run(
        [sys.executable, script, trained_path], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "equal", done.stderr


def test_threads_share_a_pipeline(nlp: Language, texts: list[str]) -> None:
    alone = [predictions(nlp(text)) for text in texts]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda text: predictions(nlp(text)), texts * 3))
    for index, found in enumerate(together):
        assert_same(found, alone[index % N_TEXTS])


def grown_bytes(nlp: Language, n_docs: int) -> int:
    """What the process grows by while it reads documents, after it has read as many before."""
    writer = Writer(nlp, 5)
    words = [writer.doc(20).text for _ in range(50)]
    process = psutil.Process()

    def read() -> None:
        for _ in nlp.pipe(words[number % 50] for number in range(n_docs)):
            pass

    read()
    before = process.memory_info().rss
    read()
    return int(process.memory_info().rss - before)


def test_memory_stays_flat(shared_nlp: Language) -> None:
    # A document with its annotation is 20 kB: 400 that were kept would show.
    assert grown_bytes(shared_nlp, 400) < 5_000_000


@pytest.mark.slow
def test_memory_stays_flat_over_twenty_thousand_documents(nlp: Language) -> None:
    assert grown_bytes(nlp, 10_000) < 20_000_000


@pytest.mark.slow
def test_training_memory_stays_flat(nlp: Language) -> None:
    from thinc.api import Adam

    from tests.support.tiny_tagger import examples_of

    optimizer, process = Adam(0.0001), psutil.Process()
    docs = [Writer(nlp, seed).doc(30) for seed in range(8)]

    def train(n_steps: int) -> int:
        for _ in range(n_steps):
            nlp.update(examples_of(docs), sgd=optimizer)
        return int(process.memory_info().rss)

    before = train(100)
    assert train(300) - before < 20_000_000


SMALL_MEMORY = """
import resource, sys, warnings
import spacy

nlp = spacy.load(sys.argv[1])
ner = nlp.get_pipe("vaner_ner")
text = "with zinc levels in patients and BRCA1 found " * 2000
alone = nlp(text).user_data["vaner_predictions"]
ner.batch_subwords = 10**7
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 60_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    again = nlp(text).user_data["vaner_predictions"]
assert [v[:3] for v in again] == [v[:3] for v in alone], "other predictions"
print(sum("VW011" in str(warning.message) for warning in caught))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory by Linux's means")
def test_a_batch_that_does_not_fit_is_halved(trained_path: Path, tmp_path: Path) -> None:
    """Real memory, really short: the address space of a process of its own is limited."""
    script = tmp_path / "small.py"
    script.write_text(SMALL_MEMORY, "utf8")
    done = subprocess.run(
        [sys.executable, script, trained_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1
