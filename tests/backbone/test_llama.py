"""Our own LLaMA: the function that transformers computes, and nothing else."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
import torch

from spacy_vaner.backbone import Lora, SmallLlama, SubwordTokenizer, build_tagger
from spacy_vaner.backbone.attention import bidirectional_mask
from spacy_vaner.backbone.llama import Llama, LlamaShape, make_llama
from spacy_vaner.backbone.pretrained import config_from_json, fresh_decoder
from spacy_vaner.backbone.saving import tagger_files, tagger_from_files, tagger_over
from spacy_vaner.backbone.settings import Pretrained

from .conftest import TEXTS

pytestmark = pytest.mark.transformers5

SHAPE = LlamaShape(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=64,
    head_dim=12,
)
CONFIG: dict[str, Any] = json.loads(SHAPE.to_json_string())


def pair_of(attn_implementation: str, **changes: Any) -> tuple[Llama, torch.nn.Module]:
    """Ours and transformers', with equal weights."""
    shape = LlamaShape.from_config({**CONFIG, **changes})
    assert shape is not None
    with torch.random.fork_rng():
        torch.manual_seed(1)
        ours = make_llama(shape, attn_implementation)
        for name, parameter in ours.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    theirs = fresh_decoder(
        config_from_json(json.loads(shape.to_json_string())), attn_implementation
    )
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def arguments(lengths: list[int], size: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    mask = bidirectional_mask(torch.tensor(lengths), size, torch.float32)
    return {
        "input_ids": torch.randint(0, 97, (len(lengths), size), generator=generator),
        "attention_mask": mask,
        "position_ids": torch.arange(size)[None],
        "use_cache": False,
    }


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 2},
        {"num_key_value_heads": 1, "head_dim": 8},
        {"rope_theta": 500.0, "rms_norm_eps": 1e-3},
    ],
    ids=["plain", "grouped", "one head of keys, narrow", "theta and epsilon"],
)
def test_states_and_gradients_are_those_of_transformers(
    attn_implementation: str, changes: dict[str, Any]
) -> None:
    ours, theirs = pair_of(attn_implementation, **changes)
    given = arguments([20, 7, 13], 20)
    real = given["attention_mask"][:, 0, 0] == 0
    found, expected = ours(**given)[0], theirs(**given)[0]
    assert (found - expected)[real].abs().max() <= 1e-5 * expected[real].abs().max()
    for states in (found, expected):
        states[real].square().sum().backward()
    for (name, parameter), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert parameter.grad is not None and other.grad is not None
        largest = other.grad.abs().max()
        assert (parameter.grad - other.grad).abs().max() <= 1e-4 * largest, name


def test_a_mask_that_hides_the_right_is_taken_as_it_is() -> None:
    ours, theirs = pair_of("sdpa")
    given = arguments([9], 9)
    given["attention_mask"] = torch.full((1, 1, 9, 9), -1e30).triu(1)
    assert torch.allclose(ours(**given)[0], theirs(**given)[0], atol=1e-5)
    changed = {**given, "input_ids": given["input_ids"].clone()}
    changed["input_ids"][0, -1] += 1
    assert torch.equal(ours(**given)[0][:, :-1], ours(**changed)[0][:, :-1])


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mistral"},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"attention_dropout": 0.1},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_shape_is_left_to_transformers(changes: dict[str, Any]) -> None:
    assert LlamaShape.from_config({**CONFIG, **changes}) is None


def test_both_generations_spell_a_plain_config() -> None:
    first = {**CONFIG, "rope_theta": 700.0, "rope_scaling": None, "torch_dtype": "float32"}
    second = {k: v for k, v in CONFIG.items() if k != "rope_theta"}
    second["rope_parameters"] = {"rope_type": "default", "rope_theta": 700.0}
    shapes = [LlamaShape.from_config(config) for config in (first, second)]
    assert shapes[0] == shapes[1] and shapes[0] is not None and shapes[0].rope_theta == 700
    assert LlamaShape.from_config(json.loads(shapes[0].to_json_string())) == shapes[0]


def test_what_a_config_leaves_out_follows_from_the_rest() -> None:
    short = {k: v for k, v in CONFIG.items() if k not in ("head_dim", "num_key_value_heads")}
    assert LlamaShape.from_config(short) == SHAPE


@pytest.mark.parametrize("adapter", [None, Lora(rank=2)], ids=["full", "lora"])
def test_a_stored_backbone_is_ours(tokenizer: SubwordTokenizer, adapter: Lora | None) -> None:
    shape = SmallLlama(hidden_size=32, n_layers=2, n_heads=2, intermediate_size=48, vocab_size=400)
    tagger = build_tagger(shape, None, tokenizer=tokenizer)
    assert type(tagger.backbone) is Llama
    files = tagger_files(tagger)
    over = tagger_over(
        files_of_pretrained(files, tokenizer),
        Pretrained("mine"),
        adapter,
        dropout=0.0,
        question_width=None,
        device="cpu",
        precision="fp32",
    )
    again = tagger_from_files(tagger_files(over), device="cpu", precision="fp32")
    ids = torch.tensor([tokenizer.encode(TEXTS[0])[0]])
    lengths = torch.tensor([ids.shape[1]])
    with torch.no_grad():
        expected = tagger.states(ids, lengths)
        for other in (over, again, pickle.loads(pickle.dumps(again))):
            assert torch.equal(other.states(ids, lengths), expected)


def files_of_pretrained(files: dict[str, bytes], tokenizer: SubwordTokenizer) -> dict[str, bytes]:
    """As `ship` leaves them: with the config of the backbone as transformers writes it."""
    description = json.loads(files["tagger.json"])
    settings = description["backbone"]
    shape = LlamaShape.of(
        SmallLlama(**{k: v for k, v in settings.items() if k != "kind"}), tokenizer.n_tokens
    )
    config = config_from_json(json.loads(shape.to_json_string()))
    description["backbone"] = Pretrained("mine").to_dict()
    description["backbone_config"] = json.loads(config.to_json_string(False))
    return {**files, "tagger.json": json.dumps(description).encode()}
