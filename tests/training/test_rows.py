"""Prepared rows: what the component's own training reads, on disk, and windows drawn from it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
from spacy.tokens import Doc

from spacy_vaner.corpora.docbins import docs_to_bytes, read_docs
from spacy_vaner.errors import VanerError
from spacy_vaner.examples import training_rows
from spacy_vaner.model import set_tagger
from spacy_vaner.rows import prepare_rows
from spacy_vaner.training.__main__ import main
from spacy_vaner.training.mixture import (
    corpus_shares,
    dev_sources,
    mixture_table,
    training_sources,
)
from spacy_vaner.training.rows_folder import HEADER_FILE, NO_LOSS, PreparedRows, Source
from spacy_vaner.training.tag_batches import (
    Marks,
    Padding,
    TagBatches,
    TagRow,
    cut_window,
)
from spacy_vaner.training.tag_config import TagConfig
from spacy_vaner.training.tagging import Tagging
from tests.support.tiny_tagger import (
    FILLERS,
    MENTIONS,
    TINY,
    Writer,
    component_of,
    examples_of,
    merge,
)
from tests.training.rows_support import WINDOW, annotated, tag_config, write_corpora


def partial_in_genes(doc: Doc) -> Doc:
    return annotated(doc, types=["Chemical"], partial=["Gene"])


@pytest.fixture
def open_rows(rows_path: Path) -> PreparedRows:
    return PreparedRows.open(rows_path)


def test_the_header_counts_what_was_read(open_rows: PreparedRows) -> None:
    header = open_rows.header
    assert [(s.name, s.corpus, s.split) for s in header.sources] == [
        *[("one.text", "one", "train"), ("two", "two", "train")],
        *[("one.text", "one", "dev"), ("two", "two", "dev")],
    ]
    one, two = open_rows.of_split("train")
    assert len(one) == 24 and one.facts.n_subwords == sum(one.lengths)
    assert {(q.type, q.corpus, q.is_complete) for q in one.facts.questions} == {
        ("Gene", "one-gene", True),
        ("Chemical", "one-chem", True),
    }
    assert {(q.type, q.corpus, q.is_complete) for q in two.facts.questions} == {
        ("Gene", None, True),
        ("Chemical", None, False),
    }
    for source in (one, two):
        n_mentions: Counter[str] = Counter()
        for index in range(len(source)):
            for annotation in source[index].annotations:
                n_mentions[annotation.type] += len(annotation.mentions)
        assert n_mentions == {q.type: q.n_mentions for q in source.facts.questions}


@pytest.mark.parametrize("asking", ["per_type", "joint"])
@pytest.mark.parametrize("which", ["first", "all"])
def test_a_prepared_document_gives_the_labels_of_the_components_training(
    tokenizer_path: Path, tmp_path: Path, asking: str, which: str
) -> None:
    # Windows of the loop are drawn, those of the component are fixed: of short documents both are
    # the whole text.
    path, draw = tmp_path / "short.train.spacy", random.Random(0)
    writer = Writer(spacy.blank("en"))
    names = [name for of_type in MENTIONS.values() for name in of_type]
    texts = [" ".join(draw.choices([*names, *FILLERS[:8]], k=3 + n)) for n in range(12)]
    docs = [writer.annotated(text, sentences=True) for text in texts]
    path.write_bytes(docs_to_bytes([*docs[:6], *(partial_in_genes(doc) for doc in docs[6:])]))
    prepare_rows([path], tmp_path / "rows", tokenizer_path=tokenizer_path)
    config = tag_config(
        tmp_path / "rows",
        asking=asking,
        labelled_subwords=which,
        window_subwords=200,
        windows_per_step=12,
        start={"max_positions": 512},
    )
    task = Tagging(config, tmp_path)
    nlp = spacy.blank("en")
    window = {"@span_getters": "spacy-vaner.packed_sentences.v1"}
    model = {"max_subwords": 200, "window": window, "labelled_subwords": which}
    nlp.add_pipe("vaner_ner", config=merge(TINY, {"asking": asking, "model": model}))
    component = component_of(nlp)
    set_tagger(component.model, task.tagger)
    expected = set()
    for example in examples_of(list(read_docs(path, nlp.vocab))):
        for row, targets in training_rows(
            component.model, example, component.types, corpus=None, label_map={}
        ):
            for target in targets:
                positions = target.positions + row.text_start
                expected.add((*row.input_ids.tolist(), -1, *positions, -1, *target.tags))
    found = set()
    for one in task.passes(0):
        width = one.input_ids.shape[1]
        for number, line in enumerate(one.row_of.tolist()):
            here = one.positions // width == number
            ids = one.input_ids[line, : one.lengths[line]].tolist()
            found.add((*ids, -1, *(one.positions[here] % width), -1, *one.tags[here]))
    assert found == expected and len(found) > 15


def test_what_the_annotation_says_nothing_about_gives_no_loss(open_rows: PreparedRows) -> None:
    two = open_rows.of_split("train")[1]
    for index in range(len(two)):
        for annotation in two[index].annotations:
            assert (annotation.tags[annotation.tags != NO_LOSS] > 0).all() or annotation.is_complete
            assert annotation.is_complete == (NO_LOSS not in annotation.tags)


def test_masked_stretches_discontinuous_and_unannotated(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    nlp = spacy.blank("en")
    doc = nlp("left and right arm and zinc or BRCA1 here")
    doc.user_data["vaner"] = {
        "types": ["Part"],
        "mentions": [["Part", [[0, 4], [15, 18]], []], ["Part", [[9, 18]], []]],
        "masked": [[23, 27]],
    }
    plain: Doc = nlp("nothing is said of this one")
    path = tmp_path / "mine.train.spacy"
    path.write_bytes(docs_to_bytes([doc, plain]))
    header = prepare_rows([path], tmp_path / "rows", tokenizer_path=tokenizer_path)
    (facts,) = header.sources
    assert (facts.n_documents, facts.n_unannotated) == (1, 1)
    (counts,) = facts.questions
    assert (counts.n_mentions, counts.n_discontinuous, counts.n_untagged) == (2, 1, 0)
    (source,) = PreparedRows.open(tmp_path / "rows").sources
    document = source[0]
    (annotation,) = document.annotations
    silent = [
        doc.text[start:end]
        for (_, _, start, end), tag in zip(document.units, annotation.tags, strict=True)
        if tag == NO_LOSS
    ]
    assert silent == ["left", "zinc"] and annotation.mentions.tolist() == [[9, 18]]
    assert annotation.n_discontinuous == 1


def test_files_that_are_done_are_kept_and_others_go(
    tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpora, rows = write_corpora(tmp_path / "corpora"), tmp_path / "rows"
    one = [corpora / "one.text.train.spacy"]
    prepare_rows(one, rows, tokenizer_path=tokenizer_path, **WINDOW)
    before = {path: path.stat().st_mtime_ns for path in rows.glob("*.safetensors")}
    prepare_rows([corpora], rows, tokenizer_path=tokenizer_path, **WINDOW)
    assert len(list(rows.glob("*.safetensors"))) == 4
    for path, at in before.items():
        assert path.stat().st_mtime_ns == at
    header = (rows / HEADER_FILE).read_bytes()
    monkeypatch.setattr("spacy_vaner.rows.read_docs", lambda path: pytest.fail("read again"))
    prepare_rows([corpora], rows, tokenizer_path=tokenizer_path, **WINDOW)
    assert (rows / HEADER_FILE).read_bytes() == header
    monkeypatch.undo()
    prepare_rows(one, rows, tokenizer_path=tokenizer_path, n_words=40)
    assert len(PreparedRows.open(rows).sources) == 1
    assert len(list(rows.glob("*.safetensors"))) == 1


def test_mistakes_in_preparing(tokenizer_path: Path, corpora_path: Path, tmp_path: Path) -> None:
    odd = tmp_path / "mine.test.spacy"
    odd.write_bytes(docs_to_bytes([]))
    with pytest.raises(VanerError, match="VE528.*mine.test.spacy"):
        prepare_rows([odd], tmp_path / "rows", tokenizer_path=tokenizer_path)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis.docx").touch()
    with pytest.raises(VanerError, match="VE519"):
        prepare_rows([corpora_path], tmp_path / "work", tokenizer_path=tokenizer_path)


@pytest.mark.parametrize("damage", ["array", "header", "version", "missing", "tokenizer"])
def test_damaged_rows_are_refused(
    corpora_path: Path, tokenizer_path: Path, tmp_path: Path, damage: str
) -> None:
    rows = tmp_path / "rows"
    prepare_rows([corpora_path / "two.dev.spacy"], rows, tokenizer_path=tokenizer_path)
    (arrays,) = rows.glob("*.safetensors")
    header = rows / HEADER_FILE
    if damage == "array":
        arrays.write_bytes(arrays.read_bytes()[:-1] + b"x")
    elif damage == "missing":
        arrays.unlink()
    elif damage == "header":
        header.write_text("{")
    elif damage == "version":
        header.write_text(json.dumps({**json.loads(header.read_text()), "format_version": 9}))
    else:
        header.write_text(json.dumps({**json.loads(header.read_text()), "tokenizer": "x"}))
    with pytest.raises(VanerError, match="VE523"):
        PreparedRows.open(rows)


# Windows and the mixture


MakeBatches = Callable[..., TagBatches]


@pytest.fixture
def make_batches(open_rows: PreparedRows, rows_path: Path) -> MakeBatches:
    def make(config: TagConfig) -> TagBatches:
        return TagBatches(
            open_rows.of_split("train"),
            config,
            make_rows=lambda ids, asked: [TagRow(ids, [])],
            padding=Padding(0, 512),
            marks=Marks(None, numpy.zeros(0, bool)),
            path=rows_path,
        )

    return make


def test_windows_begin_and_end_with_sentences(open_rows: PreparedRows) -> None:
    one = open_rows.of_split("train")[0]
    rng = numpy.random.default_rng(0)
    n_windows = n_whole = 0
    for index in range(len(one)):
        document = one[index]
        size = len(document.subword_ids)
        starts = {document.units[0, 0], *document.sentences.tolist()}
        units = {document.units[-1, 1], *document.units[:, 0].tolist()}
        n_slots = -(-size // 60)
        for slot in range(n_slots):
            start, end = cut_window(document, slot, n_slots, longest=60, rng=rng)
            assert 0 <= start < end <= size and end - start <= 60
            # A single word may be longer than a window.
            assert start in units and (end in units or end - start == 60)
            n_windows += 1
            n_whole += start in starts and (end in starts or end == document.units[-1, 1])
    # A sentence that is longer than half a window may be cut.
    assert n_whole > 0.8 * n_windows > 20


def test_windows_of_a_document_without_sentences_begin_between_units(
    open_rows: PreparedRows,
) -> None:
    document = open_rows.of_split("train")[1][0]
    assert not len(document.sentences)
    units = {document.units[-1, 1], *document.units[:, 0].tolist()}
    rng = numpy.random.default_rng(0)
    found = {cut_window(document, slot, 3, longest=20, rng=rng) for slot in (0, 1, 2) * 20}
    assert len(found) > 10 and {place for pair in found for place in pair} <= units
    assert min(start for start, _ in found) == document.units[0, 0]
    assert max(end for _, end in found) == document.units[-1, 1]


def test_corpora_are_mixed_by_size_and_by_hand(
    open_rows: PreparedRows, make_batches: MakeBatches, rows_path: Path
) -> None:
    sources = open_rows.of_split("train")
    sizes = numpy.array([source.facts.n_subwords for source in sources])
    for power in (0.0, 0.5, 1.0):
        shares = corpus_shares(sources, tag_config(rows_path, size_power=power))
        assert shares == pytest.approx(sizes**power / (sizes**power).sum())
    config = tag_config(rows_path, mixture={"two": 3.0, "one.text": 1.0}, size_power=0.0)
    assert corpus_shares(sources, config) == [0.25, 0.75]
    batches = make_batches(tag_config(rows_path, mixture={"one": 0}))
    assert len(batches._sources) == 1
    with pytest.raises(VanerError, match="VE525"):
        make_batches(tag_config(rows_path, mixture={"one": 0, "two": 0}))


def names(sources: list[Source]) -> list[tuple[str, str]]:
    return [(source.facts.name, source.facts.split) for source in sources]


def test_corpora_and_types_are_left_out(open_rows: PreparedRows, rows_path: Path) -> None:
    sources = open_rows.sources
    train, dev = [("one.text", "train"), ("two", "train")], [("one.text", "dev"), ("two", "dev")]
    for changes, trained, measured in (
        ({}, train, dev),
        ({"without": ["two"]}, train[:1], dev[:1]),
        ({"leave_out": ["one"]}, train[1:], dev[:1]),
        ({"leave_out": ["two"], "dev_files": ["one"]}, train[:1], dev[1:]),
        ({"dev_files": ["two"]}, train, dev[1:]),
        ({"without": ["Gene"]}, train, dev),
    ):
        config = tag_config(rows_path, **changes)
        assert names(training_sources(sources, config)) == trained, changes
        assert names(dev_sources(sources, config)) == measured, changes
    # A corpus without dev is measured on its training documents.
    fewer = [source for source in sources if names([source]) != [("two", "dev")]]
    assert names(dev_sources(fewer, tag_config(rows_path, leave_out=["two"]))) == train[1:]
    for setting in ("mixture", "without", "leave_out", "dev_files"):
        value: Any = {"three": 1} if setting == "mixture" else ["three"]
        with pytest.raises(VanerError, match=f"VE524: {setting} .*three.*one.text, two"):
            training_sources(sources, tag_config(rows_path, **{setting: value}))


def test_a_type_that_is_left_out_is_not_asked(rows_path: Path, tmp_path: Path) -> None:
    task = Tagging(tag_config(rows_path, without=["Gene"]), tmp_path)
    asked = {
        question for step in range(3) for one in task.passes(step) for question in one.questions
    }
    assert asked == {"Chemical", "Chemical [one-chem]"}
    assert task.recipe()["types"] == ["Chemical"]
    assert set(task.dev_figures()["dev_f_per_type"]) == {"one.text: Chemical"}


def test_the_table_of_what_is_trained_on(rows_path: Path, capsys: Any, tmp_path: Path) -> None:
    config = tag_config(rows_path, without=["Gene"], size_power=0.0, mixture={"two": 3.0})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert main(["mixture", str(path), "--set", "drop_corpus=0.1"]) == 0
    told = capsys.readouterr().out
    assert told == mixture_table(PreparedRows.open(rows_path).sources, config)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines()[2:]]
    assert [(row[0], row[1], row[2], row[3], row[-1]) for row in rows] == [
        ("one.text", "Chemical", "one-chem", "completely", "25.0%"),
        ("two", "Chemical", "–", "partly", "75.0%"),
    ]
    counted = PreparedRows.open(rows_path).of_split("train")[0].facts.questions
    chemical = next(counts for counts in counted if counts.type == "Chemical")
    assert rows[0][5] == f"{chemical.n_mentions:,}"


def test_every_document_has_its_turn_before_one_comes_again(
    open_rows: PreparedRows, make_batches: MakeBatches, rows_path: Path
) -> None:
    config = tag_config(
        rows_path, mixture={"one": 0}, window_subwords=500, windows_per_step=12, start={}
    )
    batches = make_batches(config)
    two = open_rows.of_split("train")[1]
    texts = [two[index] for index in range(12)]
    wanted = Counter(
        tuple(text.subword_ids[text.units[0, 0] : text.units[-1, 1]].tolist()) for text in texts
    )
    for step in range(3):
        found = [row for one in batches.step(step) for row in one.input_ids]
        lengths = [n for one in batches.step(step) for n in one.lengths]
        rows = [tuple(row[:n].tolist()) for row, n in zip(found, lengths, strict=True)]
        assert Counter(rows) == wanted
    assert (batches._order(0, 0) != batches._order(0, 1)).any()


def test_a_step_depends_on_its_number_alone(make_batches: MakeBatches, rows_path: Path) -> None:
    def arrays(batches: TagBatches, step: int) -> list[Any]:
        return [one.input_ids.tolist() for one in batches.step(step)]

    config = tag_config(rows_path)
    fresh, used = make_batches(config), make_batches(config)
    for step in range(600):
        used.step(step)
    assert arrays(fresh, 599) == arrays(used, 599) != arrays(used, 598)
    assert arrays(make_batches(tag_config(rows_path, seed=1)), 599) != arrays(used, 599)
