"""The engine "onnx": like states, the same ones in any batch, in any process."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from spacy_vaner.backbone import Lora, SmallLlama, SubwordTokenizer, Tagger, build_tagger
from spacy_vaner.backbone import onnx_layers as engine
from spacy_vaner.backbone.llama import LlamaShape, make_llama
from spacy_vaner.backbone.onnx_layers import OnnxLayers
from spacy_vaner.errors import VanerError, VanerWarning

pytest.importorskip("onnxruntime")

SMALL = SmallLlama(hidden_size=64, n_layers=3, n_heads=4, intermediate_size=96, vocab_size=400)


@pytest.fixture
def tagger(tokenizer: SubwordTokenizer) -> Iterator[Tagger]:
    n_threads = torch.get_num_threads()
    tagger = build_tagger(SMALL, None, tokenizer=tokenizer).eval()
    with torch.no_grad():
        for parameter in tagger.backbone.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)  # states that depend on their text
        yield tagger
    torch.set_num_threads(n_threads)


def rows(lengths: list[int], size: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of given lengths; the first numbers are the same whatever stands beside them."""
    size = size or max(lengths)
    ids = torch.full((len(lengths), size), 7)
    for line, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(length)
        ids[line, :length] = torch.randint(10, 250, (length,), generator=generator)
    return ids, torch.tensor(lengths)


def on_onnx(tagger: Tagger, lengths: list[int], size: int | None = None) -> torch.Tensor:
    tagger.engine = "onnx"
    states = tagger.states(*rows(lengths, size))
    assert tagger._onnx is not None
    return states


def mean_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().mean() / expected.abs().mean())


def test_states_are_those_of_torch_up_to_8_bits(tagger: Tagger) -> None:
    lengths = [60, 13, 1, 37]
    expected = tagger.states(*rows(lengths))
    found = on_onnx(tagger, lengths)
    assert found.dtype == torch.float32
    for line, length in enumerate(lengths):
        error = mean_error(found[line, :length], expected[line, :length])
        # Not 0, or it would not have been asked.
        assert 0 < error < 0.03


@pytest.mark.parametrize(("n_keys", "head_dim"), [(4, 16), (2, 16), (1, 8)])
def test_grouped_and_narrow_heads_are_run_too(n_keys: int, head_dim: int) -> None:
    shape = LlamaShape(
        vocab_size=50,
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=n_keys,
        max_position_embeddings=40,
        head_dim=head_dim,
        rope_theta=300.0,
    )
    model = make_llama(shape, "sdpa")
    mask = torch.zeros(1, 1, 1, 12)
    mask[..., 9:] = -1e30
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = model(ids, mask, torch.arange(12)[None]).last_hidden_state
        found = OnnxLayers(model)(model.embed_tokens(ids), torch.tensor([9]))
    assert mean_error(found[:, :9], expected[:, :9]) < 0.03


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_row_has_the_same_states_in_any_batch_to_the_bit(tagger: Tagger, n_threads: int) -> None:
    torch.set_num_threads(n_threads)
    alone = on_onnx(tagger, [37])
    for lengths, size in (([37], 64), ([90, 37, 5], None), ([37, 120], 121), ([37] * 9, 48)):
        among = on_onnx(tagger, lengths, size)
        assert torch.equal(among[lengths.index(37), :37], alone[0]), (lengths, size)


def test_another_process_and_other_threads_open_a_session_of_their_own(tagger: Tagger) -> None:
    torch.set_num_threads(1)
    expected = on_onnx(tagger, [20])
    layers = tagger._onnx
    assert layers is not None
    first = layers._session
    for other in (pickle.loads(pickle.dumps(tagger)), copy.deepcopy(tagger)):
        assert other._onnx is not None and other._onnx._session is None
        assert torch.equal(other.states(*rows([20])), expected)
    assert layers._open() is first
    torch.set_num_threads(2)
    assert layers._open() is not first
    second = layers._open()
    layers._opened_for = (-1, 2)  # as a forked process finds it
    assert layers._open() is not second


def test_changed_weights_are_seen(tagger: Tagger) -> None:
    before = on_onnx(tagger, [20])
    for parameter in tagger.backbone.parameters():
        parameter.mul_(0.8)
    tagger.forget_questions()
    found = on_onnx(tagger, [20])
    tagger.engine = "torch"
    assert mean_error(found, tagger.states(*rows([20]))) < 0.05
    assert mean_error(found, before) > 0.1


def test_training_and_further_adapters_stay_with_torch(
    tagger: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagger.engine = "onnx"
    base = tagger.states(*rows([20]))
    adapter = tagger.adapters.new(["Anatomy"], Lora(rank=2))
    tagger.adapters.put_on(adapter)
    assert torch.equal(tagger.states(*rows([20])), base)
    # It is compared with the tagger beneath, though an adapter that learns stays on.
    for part in adapter.lora_b:
        torch.nn.init.ones_(part)
    with torch.enable_grad():
        tagger.train().states(*rows([20]), adapter)
    tagger.eval().forget_questions()
    assert torch.equal(tagger.states(*rows([20])), base)

    def never(*_: Any) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(OnnxLayers, "__call__", never)
    tagger.states(*rows([20]), adapter)
    with torch.enable_grad():
        assert tagger.train().states(*rows([20])).grad_fn is None  # frozen beneath the adapter
        tagger.adapters.remove(adapter)
        assert tagger.states(*rows([20])).grad_fn is not None


def test_lora_over_all_types_stays_with_torch(tokenizer: SubwordTokenizer) -> None:
    tagger = build_tagger(SMALL, Lora(rank=2), tokenizer=tokenizer).eval()
    assert not tagger.fits_onnx
    tagger.engine = "onnx"
    with torch.no_grad():
        tagger.states(*rows([20]))
    assert tagger._onnx is None


def test_an_engine_that_computes_something_else_is_left_with_a_warning(
    tagger: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tagger.states(*rows([20]))
    # As products of bytes that are cut off, on processors without VNNI.
    run = OnnxLayers.__call__
    monkeypatch.setattr(
        OnnxLayers, "__call__", lambda self, *given: run(self, *given).clamp(-0.4, 0.4)
    )
    tagger.engine = "onnx"
    with pytest.warns(VanerWarning, match="VW108.*states differ by"):
        found = tagger.states(*rows([20]))
    assert torch.equal(found, expected)
    tagger.states(*rows([20]))  # warned of once


def test_without_the_extra_it_is_refused(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    assert not engine.is_installed()
    assert isinstance(tagger.backbone, torch.nn.Module)
    with pytest.raises(VanerError, match=r"VE108.*\[onnx\]"):
        OnnxLayers(tagger.backbone)  # type: ignore[arg-type]
