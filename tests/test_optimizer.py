"""The registered AdamW: torch's own, moved by spaCy's schedules, beside thinc's other weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
from spacy.language import Language
from thinc.api import Adam, Linear, warmup_linear

from spacy_vaner.backbone import Lora, SmallLlama, Tagger, build_tagger
from spacy_vaner.model import TaggerShim, get_tagger
from spacy_vaner.optimizer import adamw
from tests.support.tiny_tagger import TINY, Writer, component_of, examples_of, merge

pytestmark = pytest.mark.transformers5

IDS, LENGTHS = torch.arange(40).view(4, 10) % 7 + 200, torch.tensor([10, 8, 5, 3])


def make_tagger(adapter: Lora | None) -> Tagger:
    settings = SmallLlama(
        hidden_size=16, n_layers=1, n_heads=2, intermediate_size=32, vocab_size=300
    )
    return build_tagger(settings, adapter, texts=["one two three"], dropout=0.0).train()


def backward(tagger: Tagger) -> None:
    tagger(IDS, LENGTHS)[:, :3].square().sum().backward()


@pytest.mark.parametrize("adapter", [None, Lora(rank=2, dropout=0.0)])
@pytest.mark.parametrize("grad_clip", [0.0, 0.1])
def test_the_series_is_that_of_torch(adapter: Lora | None, grad_clip: float) -> None:
    tagger = make_tagger(adapter)
    twin = copy.deepcopy(tagger)
    ours = adamw(
        warmup_linear(0.02, 2, 8), beta1=0.8, beta2=0.95, weight_decay=0.1, grad_clip=grad_clip
    )
    trained = [p for p in twin.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in trained if p.ndim != 2], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, betas=(0.8, 0.95))
    shim = TaggerShim()
    shim.tagger = tagger
    rates = warmup_linear(0.02, 2, 8)
    for _ in range(6):
        backward(tagger)
        shim.finish_update(ours)
        ours.step_schedules()
        backward(twin)
        rate = next(rates)
        for group in theirs.param_groups:
            group["lr"] = rate
        if grad_clip:
            torch.nn.utils.clip_grad_norm_(trained, grad_clip)
        theirs.step()
        theirs.zero_grad()
    before = dict(make_tagger(adapter).named_parameters())
    for (name, found), expected in zip(tagger.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(found, expected), name
        # The first step, at rate 0, moves nothing; the others do.
        assert torch.equal(found, before[name]) != found.requires_grad, name
        assert found.grad is None or not found.grad.any()


def test_what_is_trained_may_change() -> None:
    tagger, optimizer = make_tagger(None), adamw(0.01)
    backward(tagger)
    optimizer.step_module(tagger)
    for parameter in tagger.backbone.parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(tagger.state_dict())
    backward(tagger)
    optimizer.step_module(tagger)
    for name, value in tagger.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("head."), name


def test_weights_of_other_components_move_as_under_thincs_adam() -> None:
    found, expected = (Linear(2, 3).initialize() for _ in range(2))
    expected.set_param("W", found.get_param("W").copy())
    ours = adamw(0.01, weight_decay=0.1)
    thincs = Adam(0.01, L2=0.1, beta2=0.999, grad_clip=1.0, use_averages=False)
    for _ in range(3):
        for model, optimizer in ((found, ours), (expected, thincs)):
            output, backprop = model.begin_update(numpy.ones((2, 3), dtype="f"))
            backprop(output + 1)
            model.finish_update(optimizer)
    numpy.testing.assert_array_equal(found.get_param("W"), expected.get_param("W"))
    assert found.get_param("W").any()


@pytest.fixture
def nlp() -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner", config=merge(TINY, {}))
    writer = Writer(nlp)
    nlp.initialize(lambda: examples_of([writer.doc(20)]))
    return nlp


def test_a_config_names_it_and_a_pipeline_learns_with_it(nlp: Language, tmp_path: Path) -> None:
    schedule = {
        "@schedules": "warmup_linear.v1",
        **{"warmup_steps": 2, "total_steps": 60, "initial_rate": 0.01},
    }
    nlp.config["training"]["optimizer"] = {
        "@optimizers": "spacy-vaner.AdamW.v1",
        "learn_rate": schedule,
    }
    nlp.config.to_disk(tmp_path / "config.cfg")
    text = (tmp_path / "config.cfg").read_text("utf8")
    optimizer = spacy.util.load_model_from_config(
        spacy.util.load_config(tmp_path / "config.cfg")
    ).create_optimizer()
    assert 'optimizers = "spacy-vaner.AdamW.v1"' in text and optimizer.averages is None
    writer = Writer(nlp)
    losses = []
    for _ in range(12):
        examples = examples_of([writer.doc(16, share=0.4) for _ in range(4)])
        losses.append(nlp.update(examples, sgd=optimizer)["vaner_ner"])
        optimizer.step_schedules()
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    with nlp.use_params(optimizer.averages):
        nlp(writer.doc(5).text)


def test_training_again_starts_with_new_averages(nlp: Language) -> None:
    examples = examples_of([Writer(nlp).doc(20)])
    optimizer = adamw(0.01)
    nlp.update(examples, sgd=optimizer)
    first = get_tagger(component_of(nlp).model)
    nlp.initialize(lambda: examples, sgd=optimizer)
    nlp.update(examples, sgd=optimizer)
    second = get_tagger(component_of(nlp).model)
    assert second is not first and second is not None
    before = copy.deepcopy(second.state_dict())
    nlp.update(examples, sgd=optimizer)
    assert any(not torch.equal(v, before[name]) for name, v in second.state_dict().items())
