"""`asking = "joint"`: one pass for all types, in everything else as asking per type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from thinc.api import Adam

from spacy_vaner.errors import VanerError
from spacy_vaner.gold import set_ask
from spacy_vaner.model import get_tagger
from tests.support.tiny_tagger import (
    TINY,
    Writer,
    assert_same,
    component_of,
    examples_of,
    found,
    merge,
    predictions,
    teach,
)

TEXT = "patients with p53 levels were given zinc (5-fluorouracil)"
CHEMICALS = [("Chemical", "zinc"), ("Chemical", "5-fluorouracil")]


@pytest.fixture(scope="module")
def joint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline that is asked jointly and knows MENTIONS by heart."""
    torch.manual_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner", config=merge(TINY, {"asking": "joint", "model": {"dropout": 0.1}}))
    writer = Writer(nlp)
    nlp.initialize(lambda: examples_of([writer.doc(30, share=0.4) for _ in range(20)]))
    teach(nlp)
    folder = tmp_path_factory.mktemp("joint") / "nlp"
    nlp.to_disk(folder)
    return folder


@pytest.fixture
def nlp(joint_path: Path) -> Language:
    return spacy.load(joint_path)


@pytest.mark.slow
def test_it_is_trained_saved_and_loaded(nlp: Language) -> None:
    tagger = get_tagger(component_of(nlp).model)
    assert tagger is not None and tagger.asking == component_of(nlp).asking == "joint"
    assert found(nlp(TEXT)) == [("Gene", "p53"), *CHEMICALS]
    component = component_of(nlp)
    again = spacy.blank("en").add_pipe("vaner_ner", config=merge(TINY, {"asking": "joint"}))
    again.from_bytes(component.to_bytes())  # type: ignore[attr-defined]
    assert_same(predictions(again(nlp.make_doc(TEXT))), predictions(nlp(TEXT)), tolerance=1e-12)


@pytest.mark.slow
def test_settings_hold_as_in_asking_per_type(nlp: Language) -> None:
    def asking(**settings: Any) -> list[tuple[str, str]]:
        return found(nlp(TEXT, component_cfg={"vaner_ner": settings}))

    assert asking(types=["Chemical"]) == CHEMICALS
    assert asking(types=["Gene"]) == [("Gene", "p53")]
    doc = nlp.make_doc(TEXT)
    set_ask(doc, {"types": ["Gene"], "corpus": "some"})
    assert found(nlp(doc)) == [("Gene", "p53")]
    named = nlp(TEXT, component_cfg={"vaner_ner": {"corpus": "zinc aspirin"}})
    assert predictions(named) != predictions(nlp(TEXT))
    component = component_of(nlp)
    component.label_map = {"Gene": "GENE"}
    assert [ent.label_ for ent in nlp(TEXT).ents] == ["GENE", "Chemical", "Chemical"]
    component.threshold = 1.0
    assert found(nlp(TEXT)) == []


@pytest.mark.slow
def test_any_batch_gives_the_same(nlp: Language) -> None:
    writer = Writer(nlp, seed=7)
    docs = [writer.doc(n, sentences=bool(n % 2)) for n in (1, 40, 7, 25, 60, 3, 18)]
    texts = [doc.text for doc in docs]

    def copies() -> list[Doc]:
        made = [nlp.make_doc(text) for text in texts]
        for number, doc in enumerate(made):
            if number % 3 == 0:  # other questions in the same batch
                set_ask(doc, {"types": ["Gene"], "corpus": "some"})
        return made

    alone = [predictions(nlp(doc)) for doc in copies()]
    assert sum(map(len, alone)) > 10
    for batch_subwords in (32, 400, 4096):
        component_of(nlp).batch_subwords = batch_subwords
        for one, doc in zip(alone, nlp.pipe(copies(), batch_size=5), strict=True):
            assert_same(one, predictions(doc))
    for one, doc in zip(alone, nlp.pipe(copies(), n_process=2, batch_size=3), strict=True):
        assert_same(one, predictions(doc))


def test_the_text_is_read_once_for_all_types(
    make_nlp: Callable[..., Language], monkeypatch: pytest.MonkeyPatch
) -> None:
    nlp = make_nlp(asking="joint")
    writer = Writer(nlp)
    nlp.initialize(lambda: examples_of([writer.doc(30, share=0.4)]))
    tagger = get_tagger(component_of(nlp).model)
    assert tagger is not None
    nlp(TEXT)  # the questions are read and remembered
    passes: list[int] = []
    states = type(tagger).states
    monkeypatch.setattr(
        type(tagger), "states", lambda self, *a: (passes.append(len(a[0])), states(self, *a))[1]
    )
    doc = nlp(" ".join(["zinc"] * 5))
    assert passes == [1] and len({type_ for type_, *_ in predictions(doc)}) <= 2
    passes.clear()
    nlp.update(examples_of([writer.annotated("zinc and p53")]))
    assert sorted(passes) == [1, 2], "one row, and the two questions together"
    assert all(parameter.grad is not None for parameter in tagger.head.parameters())


def test_an_update_forgets_what_questions_were(make_nlp: Callable[..., Language]) -> None:
    nlp = make_nlp(asking="joint")
    writer = Writer(nlp)
    examples = examples_of([writer.doc(30, share=0.4)])
    nlp.initialize(lambda: examples)
    optimizer = Adam(0.01, use_averages=True)
    tagger = get_tagger(component_of(nlp).model)
    assert tagger is not None

    def vector() -> torch.Tensor:
        return tagger.eval().question_vectors(["Gene"]).clone()

    before = vector()
    for _ in range(3):
        nlp.update(examples, sgd=optimizer)
    after = vector()
    assert not torch.equal(before, after)
    with nlp.use_params(optimizer.averages):
        averaged = vector()
    assert not torch.equal(averaged, after) and torch.equal(vector(), after)


def test_partial_types_and_silence_give_no_loss(make_nlp: Callable[..., Language]) -> None:
    nlp = make_nlp(asking="joint")
    nlp.initialize(lambda: examples_of([Writer(nlp).doc(30, share=0.4)]))
    doc = Writer(nlp).annotated("zinc and p53")
    silent = dict(doc.user_data["vaner"], types=[], partial=["Gene"], mentions=[])
    doc.user_data["vaner"] = silent
    assert nlp.update(examples_of([doc])) == {"vaner_ner": 0.0}


def test_weights_are_asked_as_they_were_trained(make_nlp: Callable[..., Language]) -> None:
    nlp = make_nlp(asking="joint")
    nlp.initialize(lambda: examples_of([Writer(nlp).doc(30, share=0.4)]))
    component_of(nlp).asking = "per_type"
    with pytest.raises(VanerError, match="VE039.*'per_type'.*'joint'"):
        nlp("zinc")
    with pytest.raises(VanerError, match="VE040"):
        make_nlp(asking="joint", model={"question_width": 0})


def test_an_adapter_over_a_joint_tagger_leaves_other_types_alone(
    make_nlp: Callable[..., Language],
) -> None:
    nlp = make_nlp(asking="joint")
    writer = Writer(nlp)
    examples = examples_of([writer.doc(30, share=0.4) for _ in range(3)])
    nlp.initialize(lambda: examples)
    component = component_of(nlp)
    texts = [example.reference.text for example in examples]

    def genes() -> list[Any]:
        return [[p for p in predictions(doc) if p[0] == "Gene"] for doc in nlp.pipe(texts)]

    before = genes()
    component.add_adapter(["Chemical"])
    optimizer = nlp.resume_training()
    losses = [nlp.update(examples, sgd=optimizer)["vaner_ner"] for _ in range(5)]
    assert losses[-1] < losses[0] and genes() == before
