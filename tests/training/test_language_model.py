"""The pretrained model: the same states as in the tagger, the loss of a plain softmax."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spacy_vaner.backbone import HFBackbone, SmallLlama, SubwordTokenizer, build_tagger
from spacy_vaner.errors import VanerError
from spacy_vaner.training import language_model
from spacy_vaner.training.checkpoints import write_folder
from spacy_vaner.training.language_model import (
    LanguageModel,
    backbone_files,
    flops_per_subword,
    linear_cross_entropy,
    make_decoder,
    set_weights,
)

SHAPE = {"hidden_size": 32, "n_layers": 2, "n_heads": 2, "intermediate_size": 64}


def decoder(tokenizer: SubwordTokenizer, attn_implementation: str = "sdpa") -> torch.nn.Module:
    settings = SmallLlama(**SHAPE, attn_implementation=attn_implementation)  # type: ignore[arg-type]
    return make_decoder(settings, tokenizer, seed=3)


def saved(model: torch.nn.Module, tokenizer: SubwordTokenizer, folder: Path) -> Path:
    write_folder(folder, backbone_files(model, tokenizer, torch.float32))
    return folder


@pytest.mark.transformers5
@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_the_saved_folder_is_a_backbone_with_the_states_of_the_loss(
    tokenizer: SubwordTokenizer, tmp_path: Path, attn_implementation: str
) -> None:
    model = decoder(tokenizer, attn_implementation)
    folder = saved(model, tokenizer, tmp_path / "backbone")
    tagger = build_tagger(HFBackbone(str(folder), attn_implementation=attn_implementation), None)
    tagger.eval()
    ids = torch.randint(0, tokenizer.n_tokens, (3, 16))
    positions, targets = torch.tensor([0, 5, 16, 40]), torch.tensor([7, 8, 9, 10])
    states = tagger.states(ids, torch.full((3,), 16)).reshape(48, -1)[positions]
    logits = states @ tagger.backbone.get_input_embeddings().weight.T
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    loss = LanguageModel(model)(ids, positions, targets, False)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.transformers5
@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_step_sees_nothing_to_the_right(
    tokenizer: SubwordTokenizer, attn_implementation: str, causal: bool
) -> None:
    model = LanguageModel(decoder(tokenizer, attn_implementation))
    ids = torch.randint(0, tokenizer.n_tokens, (2, 16))
    changed = ids.clone()
    changed[:, 9:] = 5
    positions, targets = torch.tensor([8, 24]), torch.tensor([7, 8])
    same = torch.equal(
        model(ids, positions, targets, causal), model(changed, positions, targets, causal)
    )
    assert same is causal


def test_all_linear_layers_and_the_embedding_learn(tokenizer: SubwordTokenizer) -> None:
    model = LanguageModel(decoder(tokenizer))
    ids = torch.randint(0, tokenizer.n_tokens, (2, 16))
    model(ids, torch.tensor([3]), torch.tensor([4]), False).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_weights_of_another_shape_are_refused(tokenizer: SubwordTokenizer, tmp_path: Path) -> None:
    model = decoder(tokenizer)
    folder = saved(model, tokenizer, tmp_path / "backbone")
    wider = SmallLlama(hidden_size=2 * SHAPE["hidden_size"])
    other = make_decoder(wider, tokenizer, seed=0)
    with pytest.raises(VanerError, match="VE514.*tensors differ.*embed_tokens"):
        set_weights(other, folder)
    with pytest.raises(VanerError, match="VE514"):
        set_weights(model, tmp_path)
    fresh = make_decoder(SmallLlama(**SHAPE), tokenizer, seed=9)  # type: ignore[arg-type]
    set_weights(fresh, folder)
    for a, b in zip(fresh.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_telling_replaced_subwords_is_the_loss_of_a_product_of_state_and_embedding(
    tokenizer: SubwordTokenizer,
) -> None:
    model = decoder(tokenizer)
    ids = torch.randint(0, tokenizer.n_tokens, (2, 16))
    positions, targets = torch.tensor([1, 9, 20]), torch.tensor([1, 0, 1])
    states = model(
        input_ids=ids, attention_mask=torch.zeros(2, 1, 16, 16), use_cache=False
    ).last_hidden_state.flatten(0, 1)[positions]
    scores = (states * model.get_input_embeddings().weight[ids.flatten()[positions]]).sum(-1)
    # One in five was replaced, so a score of 0 means that it was one in five.
    right = torch.sigmoid(scores + torch.tensor(4.0).log())
    expected = -(right[0] * (1 - right[1]) * right[2]).log()
    loss = LanguageModel(model, replaced_share=0.2)(ids, positions, targets, False)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_operations_are_those_that_torch_counts(tokenizer: SubwordTokenizer) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = LanguageModel(decoder(tokenizer, "eager"))
    ids = torch.randint(0, tokenizer.n_tokens, (2, 16))
    with FlopCounterMode(display=False) as counter:
        model(ids, torch.arange(8), torch.arange(8), False).backward()
    ours = 32 * flops_per_subword(model.decoder, row_subwords=16, predicted_share=0.25)
    # Norms and rotary positions are ours and not torch's; the first layer's input has a gradient.
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_in_pieces_is_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setitem(language_model._LOGITS_AT_ONCE, "cpu", 3 * 50)
    generator = torch.Generator().manual_seed(0)
    states, table = (torch.randn(n, 16, generator=generator).requires_grad_() for n in (7, 50))
    targets = torch.randint(0, 50, (7,), generator=generator)
    expected = torch.nn.functional.cross_entropy(states @ table.T, targets, reduction="sum")
    wanted = torch.autograd.grad(3 * expected, (states, table))
    with language_model.autocast(torch.device("cpu"), precision):
        loss = linear_cross_entropy(states, table, targets)
    found = torch.autograd.grad(3 * loss, (states, table))
    tolerance = {"fp32": 1e-5, "bf16": 3e-2}[precision]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    for ours, plain in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - plain).abs().max() <= tolerance * plain.abs().max()


def test_a_last_layer_that_is_computed_in_part_gives_the_same_gradients(
    tokenizer: SubwordTokenizer,
) -> None:
    whole, part = decoder(tokenizer), decoder(tokenizer)
    ids = torch.randint(0, tokenizer.n_tokens, (2, 16))
    positions, targets = torch.tensor([1, 9, 20]), torch.tensor([3, 4, 5])
    states = whole(  # as LanguageModel does, but for the choice
        input_ids=ids, attention_mask=torch.zeros(2, 1, 16, 16), use_cache=False
    ).last_hidden_state
    logits = states.flatten(0, 1)[positions] @ whole.get_input_embeddings().weight.T
    torch.nn.functional.cross_entropy(logits, targets, reduction="sum").backward()
    LanguageModel(part)(ids, positions, targets, False).backward()
    for (name, ours), plain in zip(part.named_parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours.grad, plain.grad, atol=1e-5), name
