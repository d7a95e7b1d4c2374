"""DBR rows in the loop: stored with the rows, drawn by (seed, epoch), weighed, refused if stale."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pytest
from typer.testing import CliRunner

pytest.importorskip("pyarrow")
pytest.importorskip("sparse_dot_topn")

from spacy_vaner.cli import vaner_app
from spacy_vaner.corpora.docbins import docs_to_bytes, read_docs
from spacy_vaner.decoding import B, I
from spacy_vaner.errors import VanerError
from spacy_vaner.gold import get_gold
from spacy_vaner.knowledge.candidates import make_candidates, read_candidates
from spacy_vaner.knowledge.phrases import MinedPhrases
from spacy_vaner.knowledge.retrieval import char_ngram_retriever
from spacy_vaner.knowledge.store import KnowledgeBase
from spacy_vaner.rows import prepare_rows
from spacy_vaner.training.dbr import SentenceNames
from spacy_vaner.training.rows_folder import PreparedRows
from spacy_vaner.training.tag_batches import TagPass, TagRow
from spacy_vaner.training.tagging import Tagging, train_tagger
from tests.knowledge.conftest import make_kb
from tests.support.tiny_tagger import MENTIONS
from tests.training.rows_support import WINDOW, tag_config

NAMES = {
    "Chemical": [*MENTIONS["Chemical"], "folate", "zinc oxide", "fluorouracil"],
    "Gene": [*MENTIONS["Gene"], "BRCA2", "HDAC1", "TNF-β", "zinc finger"],
    "Disease": ["zinc deficiency", "p53 loss", "aspirin asthma"],
}


@pytest.fixture(scope="module")
def kb_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kb") / "kb.parquet"
    make_kb(NAMES).to_file(path)
    return path


def make(corpus: Path, kb_path: Path, output: Path) -> Path:
    kb = KnowledgeBase.from_file(kb_path)
    find = MinedPhrases().fit(read_docs(corpus))
    make_candidates(corpus, kb, char_ngram_retriever()(kb), find, output, min_score=0.2)
    return output


@pytest.fixture(scope="module")
def candidates_path(
    corpora_path: Path, kb_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Candidates of the first corpus only."""
    folder = tmp_path_factory.mktemp("candidates")
    make(corpora_path / "one.text.train.spacy", kb_path, folder / "one.text.candidates.parquet")
    return folder


@pytest.fixture(scope="module")
def dbr_rows_path(
    corpora_path: Path,
    tokenizer_path: Path,
    kb_path: Path,
    candidates_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("rows") / "rows"
    options = ["--candidates", str(candidates_path), "--kb", str(kb_path)]
    options += ["--tokenizer", str(tokenizer_path)]
    for name, value in WINDOW.items():
        options += [f"--{name.replace('_', '-')}", str(value)]
    run = CliRunner().invoke(vaner_app, ["rows", str(corpora_path), str(folder), *options])
    assert run.exit_code == 0, run.output
    assert "of 1 files; 18 names" in " ".join(run.output.split())
    return folder


def tagging(rows: Path, output: Path, **changes: Any) -> Tagging:
    return Tagging(tag_config(rows, **changes), output)


def rows_of(task: Tagging, number: int) -> list[TagRow]:
    return task._batches._rows(number)


def decoded(task: Tagging, row: TagRow) -> list[tuple[str, list[str]]]:
    """Per question of a row the names that are marked in it."""
    text_of = task.tagger.tokenizer._tokenizer.decode
    found = []
    for answer in row.answers:
        spans: list[list[int]] = []
        for position, tag in zip(answer.positions.tolist(), answer.tags.tolist(), strict=True):
            if tag == B:
                spans.append([position])
            elif tag == I:
                spans[-1].append(position)
        ends = [*answer.positions.tolist(), len(row.input_ids)]
        names = [
            text_of(row.input_ids[span[0] : ends[ends.index(span[-1]) + 1]].tolist()).strip()
            for span in spans
        ]
        found.append((answer.question, names))
    return found


def test_candidates_are_stored_with_the_documents_that_they_were_made_of(
    dbr_rows_path: Path, corpora_path: Path, candidates_path: Path, kb_path: Path
) -> None:
    rows = PreparedRows.open(dbr_rows_path)
    assert rows.header.dbr is not None
    names = SentenceNames(dbr_rows_path, rows.header.dbr)
    assert names.types == set(NAMES)
    (file,) = rows.header.dbr.first_documents
    stored = read_candidates(candidates_path / "one.text.candidates.parquet")
    docs = list(read_docs(corpora_path / "one.text.train.spacy"))
    found = [row for index in range(24) for row in names.within(file, index, 0, 10_000)]
    assert [row.names for row in found] == [row.names for row in stored.values()]
    assert [row.types for row in found] == [row.types for row in stored.values()]
    # Only sentences that begin in the stretch.
    document = max(range(24), key=lambda index: len(docs[index]))
    starts = [row.key.start for row in names.within(file, document, 0, 10_000)]
    assert len(starts) > 3
    some = names.within(file, document, starts[1], starts[3])
    assert [row.key.start for row in some] == starts[1:3]
    assert names.within("another file", 0, 0, 10_000) == []
    assert list(names.kb.names) == list(KnowledgeBase.from_file(kb_path).names)
    assert list(names.kb.types) == list(KnowledgeBase.from_file(kb_path).types)


@pytest.mark.parametrize("asking", ["joint", "per_type"])
def test_names_of_an_asked_type_are_marked_in_rows(
    dbr_rows_path: Path, tmp_path: Path, asking: str
) -> None:
    task = tagging(dbr_rows_path, tmp_path, asking=asking, dbr={"mode": "retrieved", "weight": 0.5})
    seen: Counter[str] = Counter()
    for number in range(40):
        for row in rows_of(task, number):
            if row.weight != 0.5:
                assert row.weight == 1
                continue
            text = task.tagger.tokenizer._tokenizer.decode(row.input_ids.tolist())
            assert len(row.answers) == (2 if asking == "joint" else 1)
            for question, names in decoded(task, row):
                # Asked without the name of a corpus.
                asked = question if asking == "joint" else text.split(":")[0].strip()
                assert asked in ("Chemical", "Gene")
                assert set(names) <= set(NAMES[asked]), (asked, names, text)
                seen.update(names)
                others = {n for t, own in NAMES.items() if t != asked for n in own}
                assert not others & set(names)
    assert len(seen) > 6


def test_rows_follow_from_the_window_and_change_with_the_epoch(
    dbr_rows_path: Path, tmp_path: Path
) -> None:
    def names_of(settings: dict[str, Any], numbers: range) -> list[Any]:
        task = tagging(dbr_rows_path, tmp_path / "x", seed=3, dbr=settings)
        return [
            [row.input_ids.tolist() for row in rows_of(task, number) if row.weight == 0.5]
            for number in numbers
        ]

    retrieved = {"mode": "retrieved", "weight": 0.5, "n_positive": 2, "n_negative": 1}
    first = names_of(retrieved, range(20))
    assert names_of(retrieved, range(20)) == first
    assert any(first)
    drawn = names_of({**retrieved, "mode": "random"}, range(20))
    assert [len(rows) for rows in drawn] == [len(rows) for rows in first] and drawn != first
    some = names_of({**retrieved, "share": 0.5}, range(20))
    n_all, n_some = sum(map(len, first)), sum(map(len, some))
    # Binomial: within 4 standard deviations.
    assert abs(n_some - n_all / 2) < 4 * (n_all / 4) ** 0.5


def test_rows_are_drawn_anew_in_every_epoch_unless_told_otherwise(
    dbr_rows_path: Path, tmp_path: Path
) -> None:
    def drawn(epoch: int, **settings: bool) -> list[Any]:
        dbr = {"mode": "retrieved", "n_positive": 2, "n_negative": 1, **settings}
        task = tagging(dbr_rows_path, tmp_path, dbr=dbr)
        file = task.rows.sources[0].facts.file
        found = task._batches._name_rows
        assert found is not None
        rows = found.draw(file, 23, (0, 10_000), ["Gene"], epoch=epoch, number=0)
        return [row.subword_ids.tolist() for row in rows]

    assert drawn(0) == drawn(0) != drawn(1)
    assert drawn(0, every_epoch=False) == drawn(1, every_epoch=False)


def test_the_windows_of_the_text_do_not_depend_on_rows_of_names(
    dbr_rows_path: Path, tmp_path: Path
) -> None:
    with_rows = tagging(dbr_rows_path, tmp_path / "a", dbr={"mode": "retrieved", "weight": 0.5})
    without = tagging(dbr_rows_path, tmp_path / "b")
    for number in range(20):
        text = [row for row in rows_of(with_rows, number) if row.weight == 1]
        assert [row.input_ids.tolist() for row in text] == [
            row.input_ids.tolist() for row in rows_of(without, number)
        ]


def test_rows_that_are_too_long_lose_names_which_are_counted(
    dbr_rows_path: Path, tmp_path: Path
) -> None:
    task = tagging(dbr_rows_path, tmp_path, window_subwords=16, dbr={"mode": "retrieved"})
    n_left_out = 0
    for step in range(6):
        passes = task.passes(step)
        facts = task.facts(passes)
        n_left_out += facts["n_names_left_out"]
        assert max(int(one.lengths.max()) for one in passes) <= 16 + 2
    assert n_left_out > 10
    assert "n_names_left_out" not in tagging(dbr_rows_path, tmp_path / "x").facts([])


def test_a_weight_of_rows_weighs_their_loss(dbr_rows_path: Path, tmp_path: Path) -> None:
    def losses(weight: float) -> tuple[float, list[TagPass]]:
        task = tagging(
            dbr_rows_path,
            tmp_path / str(weight),
            dropout=0.0,
            dbr={"mode": "retrieved", "weight": weight},
        )
        passes = task.passes(0)
        return sum(float(task.loss_sum(one).detach()) for one in passes), passes

    none, half, whole = (losses(weight)[0] for weight in (0.0, 0.5, 1.0))
    assert none < half < whole
    assert half == pytest.approx((none + whole) / 2, rel=1e-5)
    (_, passes) = losses(0.5)
    weights = numpy.concatenate([one.weights for one in passes])
    assert set(weights.tolist()) == {0.5, 1.0} and len(weights) == sum(p.n_targets for p in passes)


def test_a_run_with_rows_of_names_goes_on_to_the_bit(dbr_rows_path: Path, tmp_path: Path) -> None:
    from tests.training.test_tagging import series

    config = tag_config(
        dbr_rows_path, n_steps=6, dev_steps=3, windows_per_step=4, dbr={"mode": "retrieved"}
    )
    train_tagger(config, tmp_path / "whole")
    stopped = tag_config(
        dbr_rows_path,
        **{"n_steps": 6, "dev_steps": 3, "windows_per_step": 4, "dbr": {"mode": "retrieved"}},
        **{"max_minutes": 0.0, "checkpoint_minutes": 0},
    )
    for _ in range(2):
        train_tagger(stopped, tmp_path / "parts", resume=True)
    train_tagger(config, tmp_path / "parts", resume=True)
    assert series(tmp_path / "parts") == series(tmp_path / "whole")


def test_rows_without_candidates_and_stale_candidates_are_refused(
    rows_path: Path,
    corpora_path: Path,
    candidates_path: Path,
    kb_path: Path,
    tokenizer_path: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(VanerError, match="VE627.*retrieved"):
        tagging(rows_path, tmp_path / "run", dbr={"mode": "retrieved"})
    folder = Path(shutil.copytree(corpora_path, tmp_path / "corpora"))
    settings: dict[str, Any] = {"tokenizer_path": tokenizer_path, **WINDOW}

    def prepare(**changes: Any) -> None:
        prepare_rows([folder], tmp_path / "rows", **{**settings, **changes})

    given = {"candidates": [candidates_path], "kb_path": kb_path}
    prepare(**given)
    with pytest.raises(VanerError, match="VE628"):
        prepare(kb_path=kb_path)
    with pytest.raises(VanerError, match="VE628"):
        prepare(candidates=[candidates_path])
    other = tmp_path / "other.parquet"
    make_kb({"Gene": ["BRCA1"]}).to_file(other)
    with pytest.raises(VanerError, match="VE622"):
        prepare(**{**given, "kb_path": other})
    twice = shutil.copy(candidates_path / "one.text.candidates.parquet", tmp_path / "again.parquet")
    with pytest.raises(VanerError, match="VE625.*one.text.train"):
        prepare(**{**given, "candidates": [candidates_path, Path(twice)]})
    with pytest.raises(VanerError, match="VE621.*no \\*.candidates.parquet"):
        prepare(**{**given, "candidates": [tmp_path]})
    corpus = folder / "one.text.train.spacy"
    corpus.write_bytes(docs_to_bytes(list(read_docs(corpus))[:-1]))
    with pytest.raises(VanerError, match="VE624.*earlier state"):
        prepare(**given)
    # Rows that were there are as they were, without candidates too.
    assert PreparedRows.open(tmp_path / "rows").header.dbr is not None
    prepare()
    assert PreparedRows.open(tmp_path / "rows").header.dbr is None
    assert not (tmp_path / "rows/dbr.safetensors").exists()


def test_sentences_that_are_masked_give_no_rows(
    corpora_path: Path, kb_path: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    docs = list(read_docs(corpora_path / "one.text.train.spacy"))[-3:]
    for doc in docs:
        gold = get_gold(doc)
        assert gold is not None
        doc.user_data["vaner"] = {**doc.user_data["vaner"], "masked": [[0, 5]]}
    path = tmp_path / "m.train.spacy"
    path.write_bytes(docs_to_bytes(docs))
    candidates = make(path, kb_path, tmp_path / "m.candidates.parquet")
    header = prepare_rows(
        [path],
        tmp_path / "rows",
        tokenizer_path=tokenizer_path,
        candidates=[candidates],
        kb_path=kb_path,
        **WINDOW,
    )
    assert header.dbr is not None
    assert header.dbr.n_sentences == len(read_candidates(candidates)) - 3
