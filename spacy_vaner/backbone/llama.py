"""A LLaMA of our own: the backbone of taggers that carry theirs along.

The same function as transformers' LlamaModel computes, under the same names of weights, in plain
torch: the tagger that comes with the package loads in a moment, since neither transformers nor
peft have to be imported. It takes the mask that it is given and has no other, so that it attends to
both sides; nothing is cached, nothing else is switched. Shapes that it does not know (scaled
positions, biases, another activation) are left to transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .settings import SmallLlama
from .word_features import add_word_features, declared_features

_MODEL_TYPE = "llama"
_INIT_STD = 0.02
# What a plain LLaMA says under these keys of its config, or leaves out.
_PLAIN: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
}


@dataclass
class LlamaShape:
    """Sizes of a plain LLaMA; keys and meaning are those of transformers' config.

    word_features: what its embedding knows of words (word_features.py); None = nothing.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    word_features: dict[str, Any] | None = None
    model_type: str = _MODEL_TYPE

    @classmethod
    def of(cls, settings: SmallLlama, n_subwords: int) -> LlamaShape:
        """n_subwords: rows of the embedding."""
        return cls(
            vocab_size=n_subwords,
            hidden_size=settings.hidden_size,
            intermediate_size=settings.intermediate_size,
            num_hidden_layers=settings.n_layers,
            num_attention_heads=settings.n_heads,
            num_key_value_heads=settings.n_heads,
            max_position_embeddings=settings.max_positions,
            head_dim=settings.hidden_size // settings.n_heads,
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LlamaShape | None:
        """Read a config as `to_json_string` gives it, parsed; ours or transformers'.

        RETURNS: None if it is no plain LLaMA.
        RAISES KeyError, TypeError, ValueError: it lacks a size.
        """
        if config["model_type"] != _MODEL_TYPE:
            return None
        if any(config.get(key, plain) != plain for key, plain in _PLAIN.items()):
            return None
        # transformers 5 keeps theta among the parameters of positions.
        positions = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
        theta = config.get("rope_theta") or positions.pop("rope_theta", cls.rope_theta)
        positions.pop("rope_theta", None)
        if positions.pop("rope_type", positions.pop("type", "default")) != "default" or positions:
            return None
        n_heads = int(config["num_attention_heads"])
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in config.items() if key in known}
        values["num_key_value_heads"] = int(config.get("num_key_value_heads") or n_heads)
        values["head_dim"] = int(config.get("head_dim") or config["hidden_size"] // n_heads)
        return cls(**{**values, "rope_theta": float(theta)})

    def to_json_string(self, use_diff: bool = False) -> str:
        """As transformers' configs have it, for their readers too. use_diff: not used."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps({**values, **_PLAIN}, sort_keys=True)


class States(NamedTuple):
    """What a forward pass gives: last_hidden_state (B, S, hidden_size)."""

    last_hidden_state: Tensor


class Llama(nn.Module):
    """The layers of a LLaMA between subword ids and last states.

    Weights are random, from the global generator, and fp32.
    attn_implementation: "sdpa" or "eager"; both give the same states.
    SOURCE: Touvron et al., "LLaMA: open and efficient foundation language models" (2023), section
        2.2; equal to transformers' LlamaModel by test.
    """

    # What peft asks for.
    is_gradient_checkpointing = False

    def __init__(self, config: LlamaShape, attn_implementation: str) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens: nn.Embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Layer(config, attn_implementation) for _ in range(config.num_hidden_layers)
        )
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=_INIT_STD)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, **_: object
    ) -> States:
        """Read rows of subwords.

        input_ids: (B, S).
        attention_mask: (B, 1, 1 or S, S), float, added to the scores.
        position_ids: (1 or B, S).
        """
        states = self.embed_tokens(input_ids)
        turn = self._turns(position_ids, states.dtype)
        for layer in self.layers:
            states = layer(states, attention_mask, turn)
        return States(self.norm(states))

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed_tokens

    def set_input_embeddings(self, embedding: nn.Embedding) -> None:
        self.embed_tokens = embedding

    def _turns(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines that pairs of dimensions are turned by: (1 or B, 1, S, head_dim)."""
        angles = rotary_angles(self.config, position_ids)[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)


class Layer(nn.Module):
    """Attention and a gated feed-forward part, each behind a norm and added to what came in."""

    def __init__(self, config: LlamaShape, attn_implementation: str) -> None:
        super().__init__()
        self.self_attn = Attention(config, attn_implementation)
        self.mlp = FeedForward(config)
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, states: Tensor, mask: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """states: (B, S, hidden_size). RETURNS: the same shape."""
        states = states + self.self_attn(self.input_layernorm(states), mask, turns)
        fed: Tensor = self.mlp(self.post_attention_layernorm(states))
        return states + fed


class Attention(nn.Module):
    """Attention with turned queries and keys; several heads may share keys and values."""

    def __init__(self, config: LlamaShape, attn_implementation: str) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.n_sharing = config.num_attention_heads // config.num_key_value_heads
        self.is_eager = attn_implementation == "eager"
        width, n_keys = config.hidden_size, config.num_key_value_heads * config.head_dim
        n_queries = config.num_attention_heads * config.head_dim
        self.q_proj = nn.Linear(width, n_queries, bias=False)
        self.k_proj = nn.Linear(width, n_keys, bias=False)
        self.v_proj = nn.Linear(width, n_keys, bias=False)
        self.o_proj = nn.Linear(n_queries, width, bias=False)

    def forward(self, states: Tensor, mask: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """states: (B, S, hidden_size). RETURNS: the same shape."""
        size = states.shape[:2]
        queries, keys, values = (
            layer(states).view(*size, -1, self.head_dim).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries, keys = _turned(queries, *turns), _turned(keys, *turns)
        if self.n_sharing > 1:
            keys = keys.repeat_interleave(self.n_sharing, dim=1)
            values = values.repeat_interleave(self.n_sharing, dim=1)
        attend = _attend if self.is_eager else F.scaled_dot_product_attention
        read = attend(queries, keys, values, mask)
        given: Tensor = self.o_proj(read.transpose(1, 2).reshape(*size, -1))
        return given


class FeedForward(nn.Module):
    """down(silu(gate) * up)."""

    def __init__(self, config: LlamaShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """states: (B, S, hidden_size). RETURNS: the same shape."""
        fed: Tensor = self.down_proj(F.silu(self.gate_proj(states)) * self.up_proj(states))
        return fed


class Norm(nn.Module):
    """States by their root mean square, times a weight; computed in fp32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        """states: (…, width). RETURNS: the same shape."""
        exact = states.float()
        scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (exact * scale).to(states.dtype)


def make_llama(shape: LlamaShape, attn_implementation: str) -> Llama:
    """A LLaMA with random weights, in evaluation mode, with the word features that are declared."""
    model = Llama(shape, attn_implementation)
    features = declared_features(shape)
    if features is not None:
        add_word_features(model, features)
    return model.eval()


def rotary_angles(shape: LlamaShape, position_ids: Tensor) -> Tensor:
    """By how much a pair of dimensions is turned: (1 or B, S, head_dim); the halves are equal."""
    half = torch.arange(0, shape.head_dim, 2, device=position_ids.device).float()
    frequencies = 1.0 / shape.rope_theta ** (half / shape.head_dim)
    angles = position_ids[:, :, None].float() * frequencies
    return torch.cat([angles, angles], dim=-1)


def _turned(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-second, first], dim=-1) * sines


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    scores = queries @ keys.transpose(2, 3) * queries.shape[-1] ** -0.5 + mask
    weights: Tensor = scores.softmax(-1, dtype=torch.float32).to(queries.dtype)
    return weights @ values
