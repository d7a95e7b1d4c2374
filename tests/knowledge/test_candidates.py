"""Candidates of a corpus: what is found, keyed how, and that a stopped run loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc, DocBin

from spacy_vaner.errors import VanerError
from spacy_vaner.knowledge import candidates
from spacy_vaner.knowledge.candidates import (
    CandidateCounts,
    Key,
    document_keys,
    make_candidates,
    read_candidates,
)
from spacy_vaner.knowledge.phrases import MinedPhrases, SentencePhrases
from spacy_vaner.knowledge.retrieval import char_ngram_retriever
from spacy_vaner.knowledge.store import KnowledgeBase
from tests.knowledge.conftest import NAMES, make_kb

TEXTS = [
    "Breast cancers run in families. Nothing here.",
    "Metformin treats diabetes mellitus in mus musculus.",
    "",
    "The cat had cystic fibrosis.",
    "Insulin.",
]


def write_corpus(path: Path, texts: list[str], ids: list[str | None]) -> Path:
    nlp = spacy.blank("en")
    docs = []
    for text, id in zip(texts, ids, strict=True):
        doc = nlp.make_doc(text)
        doc.user_data["vaner"] = {"corpus": "TEST", "id": id, "types": ["Disease"], "mentions": []}
        docs.append(doc)
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "test.train.spacy", TEXTS, ["a", "b", "c", "a", None])


@cache
def fitted() -> MinedPhrases:
    nlp = spacy.blank("en")
    return MinedPhrases(phrases_per_word=9).fit([nlp(text) for text in TEXTS])


def find(doc: Doc) -> list[SentencePhrases]:
    return fitted()(doc)


def make(corpus: Path, kb: KnowledgeBase, output: Path, **settings: object) -> CandidateCounts:
    retriever = char_ngram_retriever()(kb)
    return make_candidates(corpus, kb, retriever, find, output, **settings)  # type: ignore[arg-type]


def test_names_like_the_phrases_are_found_per_sentence(
    corpus: Path, kb: KnowledgeBase, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "candidates.parquet"
    output.parent.mkdir()
    counts = make(corpus, kb, output)
    rows = read_candidates(output, kb)
    assert list(rows) == [
        Key("TEST", "a", 0),
        Key("TEST", "a", 32),
        Key("TEST", "b", 0),
        Key("TEST", "a#2", 0),
        Key("TEST", "document 4", 0),
    ]
    first = rows[Key("TEST", "a", 0)]
    assert first.names[:2] == ("breast", "breast cancer")
    assert (first.types[:2], first.end) == ((("Anatomy",), ("Disease",)), 31)
    assert list(first.scores) == sorted(first.scores, reverse=True)
    assert len(set(first.names)) == len(first.names)
    assert rows[Key("TEST", "a", 32)].names == ()
    found = rows[Key("TEST", "b", 0)]
    assert {"metformin", "Diabetes mellitus", "Mus musculus"} <= set(found.names)
    assert found.scores[:3] == (1.0, 1.0, 1.0)
    cat = rows[Key("TEST", "a#2", 0)]
    assert cat.types[cat.names.index("CAT")] == ("Gene", "Species")
    assert (counts.n_documents, counts.n_sentences, counts.n_empty) == (5, 5, 1)
    assert counts.n_without > 0
    all_types = [types for row in rows.values() for types in row.types]
    assert counts.types["Species"] == sum("Species" in types for types in all_types)
    assert [path.name for path in output.parent.iterdir()] == ["candidates.parquet"]


def test_documents_that_share_an_identifier_have_keys_of_their_own() -> None:
    nlp = spacy.blank("en")
    docs = [nlp.make_doc(text) for text in ("a", "b", "c")]
    for doc, id in zip(docs, ["1", "1", None], strict=True):
        doc.user_data["vaner"] = {"id": id, "types": []}
    keys = [(corpus, name) for corpus, name, _ in document_keys(docs, Path("mine.spacy"))]
    assert keys == [("mine", "1"), ("mine", "1#2"), ("mine", "document 2")]


class Killed(BaseException):
    """Stands for the end of the process: nothing in the package catches it."""


@pytest.mark.parametrize("n_done", [0, 1, 2])
def test_stopped_run_goes_on_without_duplicate_or_gap(
    corpus: Path, kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_done: int
) -> None:
    monkeypatch.setattr(candidates, "BATCH_DOCUMENTS", 2)
    whole = tmp_path / "whole.parquet"
    expected = make(corpus, kb, whole)

    def stop(batches: Iterable[int], done: int, n_batches: int) -> Iterator[int]:
        assert (done, n_batches) == (0, 3)
        for number, batch in enumerate(batches):
            if number == n_done:
                raise Killed
            yield batch

    output = tmp_path / "candidates.parquet"
    with pytest.raises(Killed):
        make(corpus, kb, output, progress=stop)
    assert not output.exists()
    todo: list[int] = []

    def watch(batches: Iterable[int], done: int, n_batches: int) -> Iterable[int]:
        assert done == n_done
        todo.extend(batches)
        return list(todo)

    assert make(corpus, kb, output, progress=watch) == expected
    assert todo == list(range(n_done, 3))
    assert output.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.parts"))


def test_result_that_is_up_to_date_is_left_alone_and_another_is_made_anew(
    corpus: Path, kb: KnowledgeBase, tmp_path: Path
) -> None:
    output = tmp_path / "candidates.parquet"
    counts = make(corpus, kb, output)
    before = output.stat().st_mtime_ns

    def refuse(batches: Iterable[int], done: int, n_batches: int) -> Iterable[int]:
        raise AssertionError("nothing is to be done")

    assert make(corpus, kb, output, progress=refuse) == counts
    assert output.stat().st_mtime_ns == before
    make(corpus, kb, output, min_score=0.99)
    assert all(set(row.scores) <= {1.0} for row in read_candidates(output).values())


def test_parts_of_other_settings_are_not_mixed_in(
    corpus: Path, kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "BATCH_DOCUMENTS", 2)

    def stop(batches: Iterable[int], done: int, n_batches: int) -> Iterator[int]:
        yield next(iter(batches))
        raise Killed

    output = tmp_path / "candidates.parquet"
    with pytest.raises(Killed):
        make(corpus, kb, output, min_score=0.1, progress=stop)
    make(corpus, kb, output)
    assert all(score >= 0.5 for row in read_candidates(output).values() for score in row.scores)


def test_wrong_input_is_refused(corpus: Path, kb: KnowledgeBase, tmp_path: Path) -> None:
    output = tmp_path / "candidates.parquet"
    with pytest.raises(VanerError, match="VE612.*k = 0"):
        make(corpus, kb, output, k=0)
    other = make_kb({**NAMES, "Gene": ["TP53"]})
    with pytest.raises(VanerError, match="VE616"):
        make_candidates(corpus, kb, char_ngram_retriever()(other), find, output)
    with pytest.raises(VanerError, match="VE621.*no such file"):
        read_candidates(output)
    kb.to_file(output)
    with pytest.raises(VanerError, match="VE621.*does not hold"):
        read_candidates(output)
    make(corpus, kb, output)
    with pytest.raises(VanerError, match="VE622"):
        read_candidates(output, other)
    output.write_bytes(output.read_bytes()[:-9])
    with pytest.raises(VanerError, match="VE621"):
        read_candidates(output)


@pytest.mark.slow
def test_killed_command_goes_on(kb: KnowledgeBase, tmp_path: Path) -> None:
    """kill -9 of the real command as soon as a batch is there, then the command again."""
    texts = [f"Breast cancer {number}. Metformin in the cat." for number in range(700)]
    corpus = write_corpus(tmp_path / "c.train.spacy", texts, [str(i) for i in range(700)])
    kb.to_file(tmp_path / "kb.parquet")
    command = [sys.executable, "-m", "spacy", "vaner", "dbr", str(corpus), "kb.parquet"]
    parts = tmp_path / "killed.parquet.parts"
    with subprocess.Popen(
        [*command, "killed.parquet"], cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as process:
        while not list(parts.glob("*.parquet")) and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    for output in ("killed.parquet", "whole.parquet"):
        done = subprocess.run(
            [*command, output], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert "1,400 sentences of 700 documents" in done.stdout
    assert (tmp_path / "killed.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not parts.exists()
