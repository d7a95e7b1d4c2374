"""Learning: what gives loss, what changes, initialize, and `spacy train` from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from spacy.cli.train import train
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from thinc.api import Adam, Config

from spacy_vaner.component import VanerNER
from spacy_vaner.errors import VanerError, VanerWarning
from spacy_vaner.gold import KEY, Ask, Gold, set_ask
from spacy_vaner.model import get_tagger
from spacy_vaner.types import Mention
from tests.support.tiny_tagger import (
    TINY,
    Writer,
    assert_same,
    component_of,
    examples_of,
    found,
    predictions,
)

TEXT = "with zinc and BRCA1 levels"
ZINC = Mention("Chemical", ((5, 9),))
BRCA1 = Mention("Gene", ((14, 19),))
SMALL, LARGE = 0.1, 0.3
"""Loss of what the trained tagger knows; loss of what contradicts it."""


def annotated(nlp: Language, text: str = TEXT, **gold: Any) -> Example:
    doc = nlp.make_doc(text)
    doc.user_data[KEY] = Gold(**gold).to_user_data()
    return Example(nlp.make_doc(text), doc)


def loss_of(nlp: Language, *examples: Example) -> float:
    """The loss as it is; nothing is learned."""
    return component_of(nlp).update(examples)["vaner_ner"]


def parameters(ner: VanerNER) -> dict[str, torch.Tensor]:
    tagger = get_tagger(ner.model)
    assert tagger is not None
    return {name: value.detach().clone() for name, value in tagger.named_parameters()}


BOTH = ("Chemical", "Gene")


@pytest.mark.parametrize(
    "gold, is_large",
    [
        ({"types": BOTH, "mentions": (ZINC, BRCA1)}, False),
        # A type that is annotated completely: what is not marked is not of it.
        ({"types": BOTH, "mentions": (BRCA1,)}, True),
        # Silence about a type is no negative.
        ({"types": ("Gene",), "mentions": (BRCA1,)}, False),
        # A partial type gives loss inside of its mentions only.
        ({"types": ("Gene",), "partial": ("Chemical",), "mentions": (BRCA1,)}, False),
        ({"partial": ("Chemical",), "mentions": (ZINC,)}, False),
        ({"partial": ("Chemical",), "mentions": (Mention("Chemical", ((0, 4),)),)}, True),
        # No loss where text is masked, also inside of mentions.
        ({"types": BOTH, "mentions": (BRCA1,), "masked": ((5, 9),)}, False),
        ({"types": BOTH, "mentions": (BRCA1,), "masked": ((0, 4),)}, True),
        # A discontinuous mention is not trained.
        ({"types": BOTH, "mentions": (BRCA1, Mention("Chemical", ((5, 9), (20, 26))))}, False),
        ({"types": BOTH, "mentions": (BRCA1, Mention("Chemical", ((5, 26),)))}, True),
        # Of mentions that overlap the longer counts.
        ({"types": ("Gene",), "mentions": (BRCA1, Mention("Gene", ((14, 18),)))}, False),
    ],
)
def test_what_gives_loss(gold: dict[str, Any], is_large: bool, nlp: Language) -> None:
    loss = loss_of(nlp, annotated(nlp, **gold))
    assert loss > LARGE if is_large else 0 < loss < SMALL


@pytest.mark.parametrize(
    "gold",
    [
        {},
        {"types": ("Species",), "mentions": (Mention("Species", ((5, 9),)),)},
        {"types": BOTH, "mentions": (BRCA1,), "masked": ((0, 26),)},
        {"partial": ("Gene",)},
        {"types": ("Gene",), "mentions": (BRCA1,), "text": " \n "},
        {"types": ("Gene",), "text": ""},
    ],
    ids=["silent", "another type", "masked", "partial without mentions", "blank", "empty"],
)
def test_what_gives_no_loss_changes_nothing(
    gold: dict[str, Any], nlp: Language, ner: VanerNER
) -> None:
    before = parameters(ner)
    losses = nlp.update([annotated(nlp, **gold)], sgd=Adam(0.1))
    assert losses == {"vaner_ner": 0.0}
    after = parameters(ner)
    assert all(torch.equal(before[name], after[name]) for name in before)


def plain(nlp: Language, *ents: tuple[int, int, str]) -> Example:
    reference = nlp.make_doc(TEXT)
    reference.set_ents([Span(reference, start, end, label) for start, end, label in ents])
    return Example(nlp.make_doc(TEXT), reference)


def test_plain_entities_are_learned_from(nlp: Language, ner: VanerNER) -> None:
    assert loss_of(nlp, plain(nlp, (1, 2, "Chemical"), (3, 4, "Gene"))) < SMALL
    assert loss_of(nlp, plain(nlp, (3, 4, "Gene"))) > LARGE
    assert loss_of(nlp, plain(nlp)) > LARGE
    ner.label_map = {"Gene": "GENE", "Chemical": "CHEM"}
    assert loss_of(nlp, plain(nlp, (1, 2, "CHEM"), (3, 4, "GENE"))) < SMALL
    # Entities that were never set, not even to none, say nothing.
    doc = nlp.make_doc(TEXT)
    assert loss_of(nlp, Example(nlp.make_doc(TEXT), doc)) == 0.0


def test_the_corpus_name_of_the_annotation_is_asked(nlp: Language, ner: VanerNER) -> None:
    gold: dict[str, Any] = {"types": ("Gene",), "mentions": (BRCA1,)}
    unnamed = loss_of(nlp, annotated(nlp, **gold))
    named = loss_of(nlp, annotated(nlp, **gold, names={"Gene": "Chemical"}))
    assert named != pytest.approx(unnamed, rel=1e-3)
    # The component's own name is used where the annotation has none …
    ner.corpus = "Chemical"
    assert loss_of(nlp, annotated(nlp, **gold)) == pytest.approx(named)
    # … and what the reader asks wins: here, no name.
    example = annotated(nlp, **gold, names={"Gene": "Chemical"})
    set_ask(example.predicted, Ask(types=["Gene"], corpus=None))
    assert loss_of(nlp, example) == pytest.approx(unnamed)


def test_sides_with_different_texts_are_refused(nlp: Language) -> None:
    reference = annotated(nlp, types=BOTH).reference
    with pytest.raises(VanerError, match="VE019.*with zinc"):
        component_of(nlp).update([Example(nlp.make_doc("with  zinc"), reference)])


def test_a_reference_with_other_tokens_is_fine(nlp: Language) -> None:
    """Gold is laid on by characters."""
    reference = Doc(
        nlp.vocab,
        words=["with", "zi", "nc", "and", "BRCA1", "levels"],
        spaces=[True, False, True, True, True, False],
    )
    assert reference.text == TEXT
    reference.user_data[KEY] = Gold(types=BOTH, mentions=(ZINC, BRCA1)).to_user_data()
    assert loss_of(nlp, Example(nlp.make_doc(TEXT), reference)) < SMALL


def test_all_subwords_of_a_unit_may_be_labelled(load: Callable[..., Language]) -> None:
    first, every = load(), load(model={"labelled_subwords": "all"})
    docs = [Writer(first, 4).doc(30)]
    one, other = loss_of(first, *examples_of(docs)), loss_of(every, *examples_of(docs))
    assert one != pytest.approx(other, rel=1e-3)
    optimizer = Adam(0.003)
    for _ in range(15):
        last = every.update(examples_of(docs), sgd=optimizer)["vaner_ner"]
    assert last < other / 2


def test_batches_do_not_matter_to_a_step(load: Callable[..., Language]) -> None:
    steps = []
    for batch_subwords in (64, 4096):
        nlp = load(batch_subwords=batch_subwords)
        losses = nlp.update(examples_of([Writer(nlp, 6).doc(60)]), sgd=Adam(0.001))
        steps.append((losses["vaner_ner"], parameters(component_of(nlp))))
    (one, after_one), (other, after_other) = steps
    assert one == pytest.approx(other, rel=1e-4)
    for name, value in after_one.items():
        torch.testing.assert_close(value, after_other[name], atol=1e-4, rtol=1e-3)


def test_no_examples_are_no_update(nlp: Language) -> None:
    assert component_of(nlp).update([], sgd=Adam(0.1)) == {"vaner_ner": 0.0}


def test_averages_stand_in_and_step_back(nlp: Language, ner: VanerNER) -> None:
    optimizer = Adam(0.01, use_averages=True)
    docs = [Writer(nlp, 4).doc(30)]
    for _ in range(3):
        nlp.update(examples_of(docs), sgd=optimizer)
    trained, text = parameters(ner), docs[0].text
    plain_doc = nlp(text)
    with nlp.use_params(optimizer.averages):
        averaged = parameters(ner)
        assert any(not torch.equal(trained[name], averaged[name]) for name in trained)
        data = ner.to_bytes()
    assert all(torch.equal(value, trained[name]) for name, value in parameters(ner).items())
    assert predictions(nlp(text)) == predictions(plain_doc)
    # What is saved under the averages are the averages.
    ner.from_bytes(data)
    assert all(torch.equal(value, averaged[name]) for name, value in parameters(ner).items())


# LoRA


def test_only_adapter_and_head_learn(lora_nlp: Callable[[], Language]) -> None:
    nlp = lora_nlp()
    ner = component_of(nlp)
    before = parameters(ner)
    nlp.update(examples_of([Writer(nlp).doc(20)]), sgd=Adam(0.01))
    changed = {
        name for name, value in parameters(ner).items() if not torch.equal(value, before[name])
    }
    assert changed and all("lora_" in name or name.startswith("head.") for name in changed)
    unchanged = before.keys() - changed
    assert not any("lora_" in name or name.startswith("head.") for name in unchanged)


def test_merging_changes_no_prediction_and_training_undoes_it(
    lora_nlp: Callable[[], Language],
) -> None:
    nlp = lora_nlp()
    ner = component_of(nlp)
    texts = [Writer(nlp, seed).doc(30).text for seed in range(5)]
    before = [predictions(doc) for doc in nlp.pipe(texts)]
    assert sum(map(len, before)) > 5
    weights = parameters(ner)
    ner.merge_adapter()
    for doc, expected in zip(nlp.pipe(texts), before, strict=True):
        assert_same(predictions(doc), expected)
    ner.update(examples_of([Writer(nlp).doc(20)]))
    after = parameters(ner)
    assert all(torch.equal(after[name], value) for name, value in weights.items())


def test_all_parameters_of_a_half_precision_backbone_are_not_trained(
    llama_folder: Path, make_nlp: Callable[..., Language]
) -> None:
    backbone = {
        "@misc": "spacy-vaner.hf_backbone.v1",
        "name": str(llama_folder),
        "dtype": "bfloat16",
    }
    with pytest.raises(VanerError, match="VE024.*bfloat16"):
        make_nlp(model={"backbone": backbone})
    make_nlp(model={"backbone": backbone, "adapter": {"@misc": "spacy-vaner.lora.v1"}})


# initialize


def test_types_that_nothing_is_annotated_for(make_nlp: Callable[..., Language]) -> None:
    nlp = make_nlp(types=["Gene", "Species"])
    with pytest.raises(VanerError, match=r"VE018.*'Gene', 'Species'.*Chemical"):
        nlp.initialize(lambda: [annotated(nlp, types=("Chemical",))])
    with pytest.raises(VanerError, match="VE018"):
        nlp.initialize(lambda: [plain(nlp, (1, 2, "PERSON"))])
    with pytest.warns(VanerWarning, match=r"VW018.*\['Species'\]"):
        nlp.initialize(lambda: [annotated(nlp, types=("Gene",))])
    # Types that are annotated incompletely are there.
    nlp.initialize(lambda: [annotated(nlp, types=("Gene",), partial=("Species",))])


def test_labels_of_plain_data_that_are_no_types_are_named(
    make_nlp: Callable[..., Language],
) -> None:
    nlp = make_nlp()
    with pytest.warns(VanerWarning, match="VW019.*PERSON"):
        nlp.initialize(lambda: [plain(nlp, (1, 2, "Chemical"), (3, 4, "PERSON"))])


def test_initialize_takes_labels(make_nlp: Callable[..., Language]) -> None:
    nlp = make_nlp()
    ner = component_of(nlp)
    ner.initialize(lambda: [annotated(nlp, types=("Species",))], nlp=nlp, labels=["Species"])
    assert ner.types == ("Species",)


def test_initialize_without_examples_makes_a_pipeline_that_runs(
    make_nlp: Callable[..., Language],
) -> None:
    nlp = make_nlp()
    nlp.initialize()
    assert isinstance(predictions(nlp(TEXT)), list)


def test_initialize_of_a_loaded_pipeline_makes_new_weights(nlp: Language, ner: VanerNER) -> None:
    known = found(nlp(TEXT))
    before = parameters(ner)
    ner.threshold = 0.25
    docs = [Writer(nlp).doc(50)]

    def initialize(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        nlp.initialize(lambda: examples_of(docs))
        return parameters(ner)

    first = initialize(1)
    assert known != found(nlp(TEXT))
    assert any(
        value.shape != before[name].shape or not torch.equal(value, before[name])
        for name, value in first.items()
    )
    again, other = initialize(1), initialize(2)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])
    # Settings are not weights.
    assert (ner.types, ner.threshold) == (("Chemical", "Gene"), 0.25)


def test_training_can_be_resumed_without_new_weights(nlp: Language, ner: VanerNER) -> None:
    before = parameters(ner)
    optimizer = nlp.resume_training()
    assert all(torch.equal(value, before[name]) for name, value in parameters(ner).items())
    assert nlp.update(examples_of([Writer(nlp).doc(20)]), sgd=optimizer)["vaner_ner"] < SMALL


def test_components_can_be_selected(nlp: Language) -> None:
    with nlp.select_pipes(disable="vaner_ner"):
        assert not nlp("zinc").spans
    assert "vaner" in nlp("zinc").spans
    (doc,) = nlp.pipe(["zinc"], disable=["vaner_ner"])
    assert not doc.spans


# spacy train


@pytest.fixture
def corpora(tmp_path: Path) -> dict[str, str]:
    """Files of a train and a dev split, as converted corpora are."""
    nlp = spacy.blank("en")
    paths = {}
    for split, seed, n_docs in (("train", 0, 30), ("dev", 99, 6)):
        writer = Writer(nlp, seed)
        docs = [writer.doc(12, share=0.4) for _ in range(n_docs)]
        path = tmp_path / f"words.{split}.spacy"
        DocBin(docs=docs, store_user_data=True).to_disk(path)
        paths[split] = str(path)
    return paths


@pytest.fixture
def training_config(corpora: dict[str, str], tmp_path: Path) -> Callable[..., Path]:
    """Write a config for `spacy train`: sentences first, then the tiny component."""

    def write(component: dict[str, Any], **training: Any) -> Path:
        nlp = spacy.blank("en")
        nlp.add_pipe("sentencizer")
        nlp.add_pipe("vaner_ner", config=TINY)
        config = nlp.config.interpolate()
        config["components"]["vaner_ner"] = {"factory": "vaner_ner", **component}
        config["corpora"] = {
            split: {
                "@readers": "spacy-vaner.Corpus.v1",
                "paths": path,
                "split": split,
                "shuffle": split == "train",
                "drop_corpus": 0.25,
            }
            for split, path in corpora.items()
        }
        optimizer = {**config["training"]["optimizer"], "learn_rate": 0.005, "use_averages": True}
        config["training"] = {
            **config["training"],
            "seed": 0,
            "max_epochs": -1,
            "eval_frequency": 10,
            "batcher": {"@batchers": "spacy.batch_by_words.v1", "size": 60, "tolerance": 0.2},
            "optimizer": optimizer,
            "score_weights": {"vaner_f": 1.0, "vaner_p": 0.0, "vaner_r": 0.0},
            "frozen_components": ["sentencizer"],
            "annotating_components": ["sentencizer", "vaner_ner"],
            **training,
        }
        path = tmp_path / "config.cfg"
        Config(config).to_disk(path, interpolate=False)
        return path

    return write


def performance(path: Path) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads((path / "meta.json").read_text("utf8"))["performance"]
    return measured


def test_spacy_train_from_scratch_and_again_from_where_it_stopped(
    training_config: Callable[..., Path], tmp_path: Path, trained_path: Path
) -> None:
    config = training_config(TINY, max_steps=20)
    train(config, tmp_path / "fresh")
    measured = performance(tmp_path / "fresh" / "model-last")
    assert {
        "vaner_f",
        "vaner_p",
        "vaner_r",
        "vaner_f_per_type",
        "vaner_ner_loss",
    } <= measured.keys()
    assert set(measured["vaner_f_per_type"]) == {"Chemical", "Gene"}
    loss = measured["vaner_ner_loss"]
    nlp = spacy.load(tmp_path / "fresh" / "model-best")
    assert nlp.pipe_names == ["sentencizer", "vaner_ner"]
    assert "vaner" in nlp(TEXT).spans

    # The trained pipeline as a source: it knows the words from the first step on.
    source = {"source": str(trained_path)}
    config = training_config({}, max_steps=10)
    text = Config().from_disk(config, interpolate=False)
    text["components"]["vaner_ner"] = source
    text.to_disk(config)
    train(config, tmp_path / "resumed")
    measured = performance(tmp_path / "resumed" / "model-last")
    assert measured["vaner_f"] > 0.9
    assert measured["vaner_ner_loss"] < loss / 2
    resumed = spacy.load(tmp_path / "resumed" / "model-best")
    assert found(resumed(TEXT)) == [("Chemical", "zinc"), ("Gene", "BRCA1")]
