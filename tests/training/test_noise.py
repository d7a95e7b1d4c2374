"""What keeps a run from learning its text by heart: noise in windows, averages of weights."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from spacy_vaner.assembly import assemble
from spacy_vaner.backbone import HFBackbone, SubwordTokenizer, build_tagger
from spacy_vaner.backbone.batching import padded_length
from spacy_vaner.backbone.word_features import WordEmbedding, WordFeatures, word_embedding
from spacy_vaner.decoding import B, I, O
from spacy_vaner.errors import VanerError
from spacy_vaner.training.__main__ import main
from spacy_vaner.training.averages import AVERAGES_FILE, Averages
from spacy_vaner.training.log import LOG_FILE, read_log
from spacy_vaner.training.noise import NamePool, Window, mask_units, replace_mentions
from spacy_vaner.training.rows_folder import NO_LOSS, PreparedRows
from spacy_vaner.training.tag_batches import cut, plan_passes
from spacy_vaner.training.tag_config import NoiseConfig
from spacy_vaner.training.tagging import Tagging, add_dropout, train_tagger
from tests.training.rows_support import tag_config
from tests.training.test_pretrain import stop_after

NOISE = {"mask_share": 0.2, "replace_share": 0.5, "word_dropout": 0.3, "hidden_dropout": 0.1}


@pytest.fixture
def begins_word(tokenizer: SubwordTokenizer) -> Any:
    texts = tokenizer.subword_texts()
    return numpy.array([texts.get(id_, ("", False))[1] for id_ in range(tokenizer.n_tokens)])


def mentions(window: Window, number: int) -> list[tuple[int, ...]]:
    """The subwords of the mentions that a row of tags marks."""
    found: list[tuple[int, ...]] = []
    for (start, end), tag in zip(window.units.tolist(), window.tags[number].tolist(), strict=True):
        ids = tuple(window.subword_ids[start:end].tolist())
        if tag == B:
            found.append(ids)
        elif tag == I:
            found[-1] += ids
    return found


def test_masked_units_lose_all_their_subwords_and_keep_their_labels() -> None:
    units = numpy.stack([numpy.arange(0, 2000, 2), numpy.arange(2, 2002, 2)], 1)
    window = Window(numpy.arange(10, 2010), units, [numpy.full(1000, O)])
    rng = numpy.random.default_rng(0)
    masked = mask_units(window, 0.3, mask_id=5, rng=rng)
    pairs = (masked.subword_ids == 5).reshape(-1, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all() and 0.25 < pairs.mean() < 0.35
    assert masked.tags == window.tags and (window.subword_ids >= 10).all()


def test_mentions_give_way_to_others_of_their_type_and_corpus(
    rows_path: Path, begins_word: Any
) -> None:
    for source in PreparedRows.open(rows_path).of_split("train"):
        pool = NamePool(source, begins_word)
        documents = [source[index] for index in range(len(source))]
        windows = [cut(doc, int(doc.units[0, 0]), len(doc.subword_ids)) for doc in documents]
        questions = [(one.type, one.corpus) for one in documents[0].annotations]
        known = [
            {ids for window in windows for ids in mentions(window, number)}
            for number in range(len(questions))
        ]
        n_changed = 0
        for seed, window in enumerate(windows):
            made = replace_mentions(
                window,
                questions,
                1.0,
                pool=pool,
                longest=10_000,
                rng=numpy.random.default_rng(seed),
            )
            again = replace_mentions(
                window,
                questions,
                1.0,
                pool=pool,
                longest=10_000,
                rng=numpy.random.default_rng(seed),
            )
            assert (made.subword_ids == again.subword_ids).all()
            for number, names in enumerate(known):
                before, after = mentions(window, number), mentions(made, number)
                assert len(after) == len(before) and set(after) <= names
                assert [begins_word[ids[0]] for ids in before] == [
                    begins_word[ids[0]] for ids in after
                ]
                # The same name gives way to the same other name.
                assert len(set(zip(before, after, strict=True))) == len(set(before))
                n_changed += before != after
            assert around(made) == around(window)
            assert (made.units[1:, 0] >= made.units[:-1, 1]).all()
            assert made.units[-1, 1] <= len(made.subword_ids)
        assert n_changed > len(windows) / 2


def around(window: Window) -> list[tuple[int, ...]]:
    """The units that are part of no mention, and what is said of them."""
    found = []
    for number, (start, end) in enumerate(window.units.tolist()):
        tags = [int(row[number]) for row in window.tags]
        if all(tag in (O, NO_LOSS) for tag in tags):
            found.append((*window.subword_ids[start:end].tolist(), -1, *tags))
    return found


def test_mentions_that_meet_others_and_windows_that_would_grow_stay(
    rows_path: Path, begins_word: Any
) -> None:
    source = PreparedRows.open(rows_path).of_split("train")[0]
    pool = NamePool(source, begins_word)
    document = source[9]
    questions = [(one.type, one.corpus) for one in document.annotations]
    window = cut(document, 0, len(document.subword_ids))
    nested = window._replace(tags=[window.tags[0], window.tags[0]])
    for changed, longest in ((nested, 10_000), (window, 1)):
        made = replace_mentions(
            changed,
            questions,
            1.0,
            pool=pool,
            longest=longest,
            rng=numpy.random.default_rng(0),
        )
        if longest == 1:
            assert len(made.subword_ids) <= len(changed.subword_ids)
        else:
            assert made.subword_ids.tolist() == changed.subword_ids.tolist()


def test_nothing_is_changed_by_a_share_of_none(rows_path: Path, begins_word: Any) -> None:
    source = PreparedRows.open(rows_path).of_split("train")[0]
    document = source[9]
    window = cut(document, 0, len(document.subword_ids))
    made = replace_mentions(
        window,
        [(one.type, one.corpus) for one in document.annotations],
        0.0,
        pool=NamePool(source, begins_word),
        longest=10_000,
        rng=numpy.random.default_rng(0),
    )
    assert made is window


def test_words_lose_all_their_features_or_none_in_training(tokenizer: SubwordTokenizer) -> None:
    torch.manual_seed(0)
    embedding = WordEmbedding(tokenizer.n_tokens, 16, WordFeatures(64, 8))
    embedding.bind(tokenizer)
    ids = torch.tensor([tokenizer.encode("nephrotoxicity of cisplatin, in mice " * 20)[0]])
    plain = nn.Embedding.forward(embedding, ids)
    added = embedding.eval()(ids) - plain
    embedding.word_dropout = 0.5
    assert torch.equal(embedding(ids) - plain, added)
    noisy = embedding.train()(ids) - plain
    is_kept = (noisy == added).all(-1)[0].tolist()
    is_gone = (noisy == 0).all(-1)[0].tolist()
    assert all(kept or gone for kept, gone in zip(is_kept, is_gone, strict=True))
    assert 0.3 < sum(is_gone) / len(is_gone) < 0.7
    # Subwords of one word share its fate.
    texts = tokenizer.subword_texts()
    words = itertools.groupby(
        zip(ids[0].tolist(), is_gone, strict=True),
        key=iter_words(texts),
    )
    assert all(len({gone for _, gone in group}) == 1 for _, group in words)


def iter_words(texts: dict[int, tuple[str, bool]]) -> Any:
    """Numbers the words that subwords belong to, one after the other."""
    state = {"number": 0, "was_part": False}

    def number(pair: tuple[int, bool]) -> int:
        text, begins = texts[pair[0]]
        is_part = bool(text) and text.isalnum()
        if begins or not is_part or not state["was_part"]:
            state["number"] += 1
        state["was_part"] = is_part
        return int(state["number"])

    return number


def test_hidden_dropout_acts_in_training_only_and_needs_its_places(
    rows_path: Path, tmp_path: Path
) -> None:
    tagger = Tagging(tag_config(rows_path, noise={"hidden_dropout": 0.3}, dropout=0.0), tmp_path)
    ids, lengths = torch.tensor([[7, 8, 9, 10]]), torch.tensor([4])
    one = tagger.tagger.eval()
    assert torch.equal(one.states(ids, lengths), one.states(ids, lengths))
    one.train()
    assert not torch.equal(one.states(ids, lengths), one.states(ids, lengths))
    with pytest.raises(VanerError, match="VE530"):
        add_dropout(nn.Linear(2, 2), NoiseConfig(hidden_dropout=0.1))


def test_averages_follow_the_weights_and_change_places_with_them(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.tensor([0.0]))
    averages = Averages({"weight": weight}, 0.9)
    expected = 0.0
    for step in range(1, 40):
        weight.data += 1.0
        averages.add()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with averages.in_use():
        assert weight.item() == pytest.approx(expected) and weight.item() < 36
    assert weight.item() == 39
    for name, content in averages.files().items():
        (tmp_path / name).write_bytes(content)
    other = Averages({"weight": nn.Parameter(torch.tensor([5.0]))}, 0.9)
    other.set_from(tmp_path)
    assert other.files() == averages.files()
    wrong = Averages({"weight": nn.Parameter(torch.zeros(2))}, 0.9)
    with pytest.raises(VanerError, match="VE514.*other weights"):
        wrong.set_from(tmp_path)
    with pytest.raises(VanerError, match="VE514"):
        other.set_from(tmp_path / "nowhere")
    assert not Averages({"weight": weight}, 0.0).files()


def test_a_noisy_run_with_averages_goes_on_to_the_bit(rows_path: Path, tmp_path: Path) -> None:
    config = tag_config(
        rows_path, averaging=0.9, noise=NOISE, n_steps=12, dev_steps=4, checkpoint_minutes=0
    )
    assert train_tagger(config, tmp_path / "whole").reason == "finished"
    train_tagger(config, tmp_path / "run", on_step=stop_after(6))
    assert train_tagger(config, tmp_path / "run", resume=True).reason == "finished"
    series = [
        [(one["step"], one.get("loss"), one.get("dev_f")) for one in read_log(path / LOG_FILE)]
        for path in (tmp_path / "whole", tmp_path / "run")
    ]
    assert series[0] == series[1]
    last = sorted((tmp_path / "run/checkpoints").iterdir())[-1]
    assert (last / AVERAGES_FILE).exists()
    weights = {
        path: (path / "weights.safetensors").read_bytes()
        for path in (tmp_path / "whole/tagger", tmp_path / "run/tagger", last)
    }
    whole, again, newest = weights.values()
    # The result is the averages, the checkpoint holds the weights beside them.
    assert whole == again and again != newest
    assert not (tmp_path / "run/tagger" / AVERAGES_FILE).exists()


def test_noise_changes_what_a_run_reads_but_not_what_it_is_measured_on(
    rows_path: Path, tmp_path: Path
) -> None:
    plain = Tagging(tag_config(rows_path), tmp_path / "plain")
    noisy = Tagging(tag_config(rows_path, noise=NOISE), tmp_path / "noisy")
    mask_id = plain.tagger.tokenizer.named_id("mask_token")
    assert not any((one.input_ids == mask_id).any() for one in plain.passes(0))
    assert any((one.input_ids == mask_id).any() for one in noisy.passes(0))
    n_same = sum(
        one.input_ids.shape == other.input_ids.shape and (one.input_ids == other.input_ids).all()
        for step in range(3)
        for one, other in zip(noisy.passes(step), noisy.passes(step), strict=True)
    )
    assert n_same == sum(len(noisy.passes(step)) for step in range(3))
    assert [doc.subword_ids.tolist() for _, doc in plain._dev] == [
        doc.subword_ids.tolist() for _, doc in noisy._dev
    ]


@pytest.mark.parametrize("cost", [0, 64, 10_000])
def test_passes_hold_all_rows_and_cost_the_least(cost: int) -> None:
    lengths = [250, 30, 12, 100, 31, 240, 64, 65, 9]
    most = 1024

    def total(passes: list[list[int]]) -> int:
        widths = [padded_length(max(lengths[index] for index in one)) for one in passes]
        return sum(w * len(one) + cost for w, one in zip(widths, passes, strict=True))

    passes = plan_passes(lengths, most, cost=cost)
    assert sorted(index for one in passes for index in one) == list(range(len(lengths)))
    assert all(
        len(one) == 1 or padded_length(max(lengths[index] for index in one)) * len(one) <= most
        for one in passes
    )
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    options = []
    for cuts in itertools.product([False, True], repeat=len(lengths) - 1):
        split = [[order[0]]]
        for index, is_cut in zip(order[1:], cuts, strict=True):
            split.append([index]) if is_cut else split[-1].append(index)
        fits = all(
            padded_length(lengths[one[0]]) * len(one) <= most or len(one) == 1 for one in split
        )
        if fits:
            options.append(total(split))
    assert total(passes) == min(options)


def test_a_run_with_a_lexicon_ends_in_a_tagger_that_has_it(
    rows_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.tsv"
    names.write_text(
        "name\ttype\tid\tsource\naspirin\tChemical\t1\tFree:a\nfolic acid\tChemical\t2\tFree:b\n"
        "zinc\tChemical\t3\tClosed:c\nBRCA1\tGene\t4\tFree:a\nmouse\tSpecies\t5\tFree:a\n"
    )
    table = str(tmp_path / "names.safetensors")
    command = ["lexicon", str(names), table, "--types", "Chemical,Gene", "--without", "Closed"]
    assert main(command) == 0 and "3 names" in capsys.readouterr().out
    config = tag_config(rows_path, lexicon=table, n_steps=6, dev_documents=1)
    assert train_tagger(config, tmp_path / "run").reason == "finished"
    nlp = assemble(tmp_path / "run")
    component: Any = nlp.get_pipe("vaner_ner")
    words = word_embedding(component.model.shims[0].tagger.backbone)
    assert words is not None and words.lexicon is not None
    assert words.features.lexicon_types == ("Chemical", "Gene")
    assert words.lexicon.bits.any() and words.lexicon.weight.any()
    assert words.lexicon.dropout == 0
    with pytest.raises(VanerError, match="VE143"):
        bare = tag_config(rows_path, lexicon=table, start={"word_rows": 0})
        train_tagger(bare, tmp_path / "bare")


def test_the_backbone_of_a_noisy_run_is_an_ordinary_one(rows_path: Path, tmp_path: Path) -> None:
    config = tag_config(rows_path, noise=NOISE, averaging=0.5, n_steps=1, dev_documents=1)
    train_tagger(config, tmp_path / "run")
    tagger = build_tagger(HFBackbone(str(tmp_path / "run/start")), None)
    words = word_embedding(tagger.backbone)
    assert words is not None and words.word_dropout == 0
