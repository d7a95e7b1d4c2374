"""Which subwords a step reads and predicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from spacy_vaner.backbone import SubwordTokenizer
from spacy_vaner.errors import VanerError
from spacy_vaner.training.batches import (
    Batch,
    Batches,
    Rows,
    causal_batch,
    hidden_places,
    masked_batch,
    replaced_batch,
    unigrams,
)
from spacy_vaner.training.config import Objective
from spacy_vaner.training.names import NameIndex
from spacy_vaner.training.token_file import PreparedText, Vocabulary

SIZE = 32


def batches_of(prepared: PreparedText, seed: int = 0, **objective: object) -> Batches:
    return Batches(
        prepared.train,
        objective=Objective(**objective),  # type: ignore[arg-type]
        vocabulary=prepared.vocabulary,
        row_subwords=SIZE,
        seed=seed,
        split="train",
        path=Path("ids"),
    )


def masked(
    rows: Rows, objective: Objective, vocabulary: Vocabulary, names: NameIndex | None = None
) -> Batch:
    rng = numpy.random.default_rng(0)
    hidden = hidden_places(rows, objective, vocabulary, rng, names=names)
    return masked_batch(rows, hidden, objective, vocabulary, rng)


def same(a: object, b: object) -> bool:
    return all(numpy.array_equal(x, y) for x, y in zip(a, b, strict=True))  # type: ignore[call-overload]


def test_an_epoch_reads_every_row_once_from_another_offset_each_time(
    prepared: PreparedText,
) -> None:
    batches = batches_of(prepared, causal_share=1.0)
    n = batches.rows_per_epoch
    epochs = [
        numpy.stack([batches.step(s, n_rows=1, rows_per_pass=1)[0].input_ids[0] for s in steps])
        for steps in (range(n), range(n, 2 * n))
    ]
    text = prepared.train.astype(numpy.int64)
    offsets = []
    for rows in epochs:
        cuts = {
            offset: sorted(
                text[offset + SIZE * i : offset + SIZE * (i + 1)].tolist() for i in range(n)
            )
            for offset in range(len(text) - n * SIZE + 1)
        }
        found = [offset for offset, cut in cuts.items() if sorted(rows.tolist()) == cut]
        assert len(found) == 1
        offsets += found
    assert offsets[0] != offsets[1]


def test_a_step_depends_on_seed_and_step_alone(prepared: PreparedText) -> None:
    forward = [batches_of(prepared).step(step, n_rows=4, rows_per_pass=2) for step in range(6)]
    batches = batches_of(prepared)
    backward = [batches.step(step, n_rows=4, rows_per_pass=2) for step in reversed(range(6))][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert len(a) == 2 and all(map(same, a, b))
    other = batches_of(prepared, seed=1).step(0, n_rows=4, rows_per_pass=2)
    assert not same(other[0], forward[0][0])
    assert not same(forward[0][0], forward[1][0])


@pytest.mark.parametrize("name", ["mntp", "mlm"])
@pytest.mark.parametrize("whole_words", [True, False])
def test_the_masked_count_is_exact_and_targets_are_the_original(
    prepared: PreparedText, name: str, whole_words: bool
) -> None:
    rows = prepared.train[: 8 * SIZE].astype(numpy.int64).reshape(8, SIZE)
    objective = Objective(name=name, whole_words=whole_words, masking_rate=0.3)
    batch = masked(rows, objective, prepared.vocabulary)
    hidden = batch.positions + 1 if name == "mntp" else batch.positions
    assert len(hidden) == len(set(hidden)) == round(0.3 * rows.size)
    assert (batch.targets == rows.ravel()[hidden]).all()
    assert not prepared.vocabulary.is_special[batch.targets].any()
    if name == "mntp":
        assert (hidden % SIZE != 0).all()
    unchanged = numpy.setdiff1d(numpy.arange(rows.size), hidden)
    assert (batch.input_ids.ravel()[unchanged] == rows.ravel()[unchanged]).all()
    assert not batch.causal


def test_shares_of_masks_random_and_kept_subwords(prepared: PreparedText) -> None:
    rows = numpy.tile(prepared.train[:SIZE].astype(numpy.int64), (400, 1))
    objective = Objective(name="mlm", masking_rate=0.5, random_share=0.2, kept_share=0.3)
    batch = masked(rows, objective, prepared.vocabulary)
    shown = batch.input_ids.ravel()[batch.positions]
    assert abs((shown == prepared.vocabulary.mask_id).mean() - 0.5) < 0.03
    assert abs((shown == batch.targets).mean() - 0.3) < 0.03
    assert not prepared.vocabulary.is_special[shown[shown != prepared.vocabulary.mask_id]].any()


def test_whole_words_are_hidden_whole() -> None:
    # Words of three subwords: a start, 1, and two that go on, 2 and 3.
    vocabulary = Vocabulary(
        n_subwords=5,
        mask_id=0,
        ordinary=numpy.arange(1, 5),
        is_special=numpy.array([True, False, False, False, False]),
        starts_word=numpy.array([True, True, False, False, False]),
    )
    rows = numpy.tile([1, 2, 3], 40).reshape(4, 30)
    objective = Objective(name="mlm", masking_rate=0.25, random_share=0, kept_share=0)
    batch = masked(rows, objective, vocabulary)
    counts = numpy.unique(batch.positions // 3, return_counts=True)[1]
    assert sorted(counts) == [3] * 10
    single = masked(rows, replace(objective, whole_words=False), vocabulary)
    assert min(numpy.unique(single.positions // 3, return_counts=True)[1]) == 1


NAMES = ["nephropathy", "tumor necrosis factor", "II"]


def text_rows(tokenizer: SubwordTokenizer, text: str, n_rows: int) -> Rows:
    """The same text in each row."""
    return numpy.tile(numpy.array(tokenizer.encode(text)[0], numpy.int64), (n_rows, 1))


def test_names_are_found_in_any_case_and_never_inside_of_words(
    tokenizer: SubwordTokenizer,
) -> None:
    index = NameIndex(NAMES, tokenizer)
    text = "In Nephropathy, nephropathys (tumor necrosis factor) II tumor necrosis factors"
    ids, spans = tokenizer.encode(text)
    rows = numpy.array([ids, ids], numpy.int64)
    wanted = ["Nephropathy", "tumor necrosis factor"]
    found = index.find(rows)
    assert [
        text[spans[start % len(ids)][0] : spans[(end - 1) % len(ids)][1]] for start, end in found
    ] == wanted * 2
    assert index.find(rows[:, : found[1, 1] - 1]).shape == (2, 2)  # cut in the second one
    assert index.sha256() == NameIndex(NAMES[::-1], tokenizer).sha256()
    assert index.sha256() != NameIndex(NAMES[1:], tokenizer).sha256()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_so_many_of_the_hidden_subwords_are_of_names(
    tokenizer: SubwordTokenizer, prepared: PreparedText, share: float
) -> None:
    index = NameIndex(NAMES, tokenizer)
    text = "a rare nephropathy in the mice that were given tumor necrosis factor and saline daily"
    rows = text_rows(tokenizer, text, 20)
    objective = Objective(name="mlm", masking_rate=0.2, name_share=share)
    batch = masked(rows, objective, prepared.vocabulary, index)
    n_hidden = round(0.2 * rows.size)
    in_names = numpy.zeros(rows.size, bool)
    whole = 0
    for start, end in index.find(rows):
        in_names[start:end] = True
        whole += bool(numpy.isin(numpy.arange(start, end), batch.positions).all())
    assert len(batch.positions) == n_hidden
    wanted = min(round(share * n_hidden), int(in_names.sum()))
    assert in_names[batch.positions].sum() == wanted
    assert (whole > 5) is (share > 0)


def test_replaced_subwords_are_drawn_by_frequency_and_asked_for_everywhere(
    prepared: PreparedText,
) -> None:
    vocabulary = prepared.vocabulary
    rows = prepared.train[: 64 * SIZE].astype(numpy.int64).reshape(64, SIZE)
    noise = unigrams(prepared.train, vocabulary)
    rng = numpy.random.default_rng(0)
    objective = Objective(name="rtd", masking_rate=0.3)
    hidden = hidden_places(rows, objective, vocabulary, rng)
    batch = replaced_batch(rows, hidden, vocabulary, rng, noise=noise)
    ids, shown = rows.ravel(), batch.input_ids.ravel()
    assert (batch.positions == numpy.flatnonzero(~vocabulary.is_special[ids])).all()
    assert (batch.targets == (shown == ids)[batch.positions]).all()
    changed = numpy.flatnonzero(shown != ids)
    assert set(changed) <= set(hidden) and len(changed) > 0.9 * len(hidden)
    assert not vocabulary.is_special[shown[changed]].any()
    frequent = numpy.argsort(numpy.bincount(ids, minlength=vocabulary.n_subwords))[-20:]
    assert numpy.isin(shown[hidden], frequent).mean() == pytest.approx(
        numpy.isin(ids, frequent).mean(), abs=0.1
    )


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_causal_batch_predicts_the_next_subword(prepared: PreparedText, rate: float) -> None:
    rows = prepared.train[: 8 * SIZE].astype(numpy.int64).reshape(8, SIZE)
    batch = causal_batch(
        rows, Objective(causal_rate=rate), prepared.vocabulary, numpy.random.default_rng(0)
    )
    assert batch.causal and (batch.input_ids == rows).all()
    assert (batch.targets == rows.ravel()[batch.positions + 1]).all()
    assert (batch.positions % SIZE != SIZE - 1).all()
    assert not prepared.vocabulary.is_special[batch.targets].any()
    places = 8 * (SIZE - 1)
    n_special = int(prepared.vocabulary.is_special[rows[:, 1:]].sum())
    assert len(batch.targets) == (places - n_special if rate == 1 else places // 2)


def test_the_share_of_causal_steps(prepared: PreparedText) -> None:
    batches = batches_of(prepared, causal_share=0.3)
    causal = [batches.step(s, n_rows=2, rows_per_pass=1) for s in range(300)]
    assert all(passes[0].causal == passes[1].causal for passes in causal)
    assert 0.2 < numpy.mean([passes[0].causal for passes in causal]) < 0.4


def test_dev_rows_are_the_same_each_time(prepared: PreparedText) -> None:
    first, second = (
        batches_of(prepared, seed=seed).fixed(n_rows=6, rows_per_pass=4) for seed in (0, 1)
    )
    assert [len(batch.input_ids) for batch in first] == [4, 2]
    assert all(map(same, first, second))


def test_a_text_shorter_than_a_row_is_refused(prepared: PreparedText) -> None:
    short = replace(prepared, train=prepared.train[: SIZE - 1])
    with pytest.raises(VanerError, match="VE517"):
        batches_of(short)
    barely = batches_of(replace(prepared, train=prepared.train[:SIZE]))
    assert barely.step(5, n_rows=2, rows_per_pass=2)[0].input_ids.shape == (2, SIZE)
