"""The model that is pretrained: a decoder with its embedding as output layer.

The decoder is an ordinary LlamaModel; attention is made as the backbone library makes it, so what
is learned here is what the tagger computes with.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from spacy_vaner.backbone.attention import bidirectional_mask
from spacy_vaner.backbone.pretrained import fresh_decoder, quiet_transformers, small_llama_config
from spacy_vaner.backbone.settings import SmallLlama
from spacy_vaner.backbone.tokenizer import SubwordTokenizer
from spacy_vaner.backbone.word_features import (
    WordFeatures,
    WordVectors,
    add_word_features,
    word_embedding,
)
from spacy_vaner.errors import Messages, VanerError

WEIGHTS_FILE = "model.safetensors"
BACKBONE_CONFIG_FILE = "config.json"

# Logits computed at once. On a CPU a piece is as large as it can be and still be found in the
# cache; elsewhere it is large enough to keep the device busy.
_LOGITS_AT_ONCE = {"cpu": 1 << 24, "other": 1 << 27}


class LanguageModel(nn.Module):
    """Predicts subwords from states, with the input embedding as output layer.

    The last layer is computed where its states predict something, and nowhere else: a quarter of
    the subwords at a masking rate of 25 %, and a tenth less to compute in four layers.

    decoder: a LlamaModel; its parameters are all that there are.
    replaced_share: of the subwords that others are shown for; then steps without the causal mask
        tell these from the others. None = they predict subwords.
    compile: the pass to the states by torch.compile.
    """

    def __init__(
        self,
        decoder: nn.Module,
        *,
        replaced_share: float | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self._log_odds = (
            None
            if replaced_share is None
            else math.log(replaced_share) - math.log1p(-replaced_share)
        )
        last: Any = cast(Any, decoder).layers[-1]
        self._selective = [
            _AtPositions(module)
            for module in (last.self_attn.q_proj, last.self_attn.o_proj, last.mlp)
        ]
        self._states: Callable[..., Tensor] = (
            torch.compile(self._chosen_states) if compile else self._chosen_states
        )

    def forward(
        self, input_ids: Tensor, positions: Tensor, targets: Tensor, causal: bool
    ) -> Tensor:
        """Sum the losses of the predictions.

        input_ids: (rows, S), without padding.
        positions, targets: (predictions,), as in Batch.
        RETURNS: (), fp32, the sum of the cross entropies in nats.
        """
        states = self._states(input_ids, positions, causal)
        if self._log_odds is not None and not causal:
            shown = nn.functional.embedding(input_ids.flatten()[positions], self._embedding())
            # At odds of 1 the score is how much more probable the subword is here than at random.
            scores = (states.float() * shown).sum(-1) - self._log_odds
            return nn.functional.binary_cross_entropy_with_logits(
                scores, targets.float(), reduction="sum"
            )
        return linear_cross_entropy(states, self._embedding(), targets)

    def _embedding(self) -> Tensor:
        weight: Tensor = cast(Any, self.decoder).get_input_embeddings().weight
        return weight

    def _chosen_states(self, input_ids: Tensor, positions: Tensor, causal: bool) -> Tensor:
        """(predictions, H) the states at the positions."""
        rows, size = input_ids.shape
        like = self._embedding()
        mask = _causal_mask(size, like) if causal else _full_mask(size, like)
        for module in self._selective:
            module.positions = positions
        states: Tensor = cast(Any, self.decoder)(
            input_ids=input_ids,
            attention_mask=mask.expand(rows, 1, size, size),
            position_ids=torch.arange(size, device=input_ids.device)[None, :],
            use_cache=False,
        ).last_hidden_state
        return states.reshape(rows * size, -1).index_select(0, positions)


class _AtPositions:
    """Lets a module compute at some places of flattened rows only; elsewhere it gives 0.

    positions: (n,), the places.
    """

    def __init__(self, module: nn.Module) -> None:
        self.positions: Tensor | None = None
        self._shape = torch.Size()
        module.register_forward_pre_hook(self._select)
        module.register_forward_hook(self._spread)

    def _select(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert self.positions is not None
        states = inputs[0]
        self._shape = states.shape
        return (states.flatten(0, -2).index_select(0, self.positions), *inputs[1:])

    def _spread(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert self.positions is not None
        places = output.new_zeros(self._shape[:-1].numel(), output.shape[-1])
        return places.index_copy(0, self.positions, output).view(*self._shape[:-1], -1)


def linear_cross_entropy(states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """The cross entropy of a linear output layer, computed in pieces together with its gradients.

    Only one piece of the logits is there at a time: in causal steps all of them would be half a
    gigabyte, and the system's clearing of fresh memory takes longer than the arithmetic on it.

    states: (predictions, H). table: (subwords, H), fp32. targets: (predictions,).
    RETURNS: (), fp32, the sum in nats.
    """
    dtype = states.dtype
    if torch.is_autocast_enabled(states.device.type):
        dtype = torch.get_autocast_dtype(states.device.type)
    loss: Tensor = cast(Any, _LinearCrossEntropy).apply(states, table, targets, dtype)
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients are made in the forward pass, when the logits are at hand."""

    @staticmethod
    def forward(
        context: Any, states: Tensor, table: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> Tensor:
        n_logits = _LOGITS_AT_ONCE["cpu" if states.device.type == "cpu" else "other"]
        step = max(1, n_logits // len(table))
        needs_gradients = any(context.needs_input_grad[:2])
        output = table.to(dtype)
        of_states = torch.zeros_like(states) if needs_gradients else states
        of_table = torch.zeros_like(table) if needs_gradients else table
        total = torch.zeros((), device=states.device)
        for start in range(0, len(targets), step):
            part = states[start : start + step].to(dtype)
            wanted = targets[start : start + step, None]
            values = (part @ output.T).float()
            highest = values.amax(1, keepdim=True)
            chosen = values.gather(1, wanted) - highest
            sums = values.sub_(highest).exp_().sum(1, keepdim=True)
            total += (sums.log() - chosen).sum()
            if needs_gradients:
                errors = values.div_(sums)
                errors.scatter_add_(1, wanted, -torch.ones_like(chosen))
                errors = errors.to(dtype)
                of_states[start : start + step] = errors @ output
                of_table += errors.T @ part
        context.save_for_backward(of_states, of_table)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_states, of_table = context.saved_tensors
        return of_states * gradient.to(of_states.dtype), of_table * gradient, None, None


def make_decoder(
    settings: SmallLlama,
    tokenizer: SubwordTokenizer,
    *,
    seed: int,
    word_rows: int = 0,
    word_width: int = 64,
    vectors: WordVectors | None = None,
) -> nn.Module:
    """A LLaMA with random fp32 weights that depend on the seed alone, ready to train.

    word_rows, word_width, vectors: of its word features; 0 rows = none.
    """
    config = small_llama_config(settings, tokenizer.n_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        decoder = fresh_decoder(config, settings.attn_implementation).train()
        if word_rows:
            shape = vectors.vectors.shape if vectors is not None else (0, 0)
            add_word_features(decoder, WordFeatures(word_rows, word_width, shape[0], shape[1]))
    words = word_embedding(decoder)
    if words is not None:
        words.bind(tokenizer)
        if vectors is not None:
            words.set_vectors(vectors)
    return decoder


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Compute in bf16 where `precision` says so; weights stay fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def decoder_weights(decoder: nn.Module) -> dict[str, Tensor]:
    """The weights by the names that transformers reads, on the CPU."""
    return {name: t.detach().cpu().contiguous() for name, t in decoder.state_dict().items()}


def decoder_config(decoder: nn.Module, dtype: torch.dtype) -> bytes:
    """The config.json of a folder that transformers reads."""
    config: Any = decoder.config
    with quiet_transformers():
        values = json.loads(config.to_json_string(use_diff=True))
    values["architectures"] = [type(decoder).__name__]
    values["torch_dtype"] = str(dtype).removeprefix("torch.")
    values.pop("_attn_implementation", None)
    return json.dumps(values, indent=2, sort_keys=True).encode("utf8")


def set_weights(decoder: nn.Module, path: Path) -> None:
    """Copy weights into the decoder; every tensor needs its place and its shape.

    path: a model.safetensors, of any dtype, or a folder with one.
    RAISES VanerError: VE514.
    """
    file = path / WEIGHTS_FILE if path.is_dir() else path
    places = decoder.state_dict()
    try:
        tensors = load_tensors(file.read_bytes())
        differing = {
            name
            for name in tensors.keys() | places.keys()
            if name not in tensors
            or name not in places
            or tensors[name].shape != places[name].shape
        }
        if differing:
            first = min(differing)
            found = [
                list(side[first].shape) if first in side else None for side in (tensors, places)
            ]
            raise ValueError(
                f"{len(differing)} tensors differ, the first is {first} with shape {found[0]} "
                f"instead of {found[1]}"
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise VanerError(Messages.VE514.format(path=file, reason=error)) from None
    for name, place in places.items():
        place.copy_(tensors[name])


def backbone_files(
    decoder: nn.Module, tokenizer: SubwordTokenizer, dtype: torch.dtype
) -> dict[str, bytes]:
    """The files of an ordinary Hugging Face folder, by name."""
    weights = as_dtype(decoder_weights(decoder), dtype)
    return {
        BACKBONE_CONFIG_FILE: decoder_config(decoder, dtype),
        WEIGHTS_FILE: save_tensors(weights, metadata={"format": "pt"}),
        **tokenizer.to_files(),
    }


def as_dtype(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights in another precision; whole numbers (keys of word vectors) stay."""
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }


def flops_per_subword(
    decoder: nn.Module,
    *,
    row_subwords: int,
    predicted_share: float,
    predicts_subwords: bool = True,
) -> float:
    """Floating-point operations of a training step, forward and backward, per subword read.

    Two per multiplication and addition; the backward pass costs twice the forward one.
    predicted_share: of the subwords whose states predict.
    predicts_subwords: out of all; else whether one is right, which costs next to nothing.
    """
    config: Any = decoder.config
    n_hidden = sum(
        p.numel() for name, p in decoder.named_parameters() if "embed_tokens" not in name
    )
    # Queries, attention's output and the feed-forward part of the last layer; see LanguageModel.
    selective = 2 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    n_hidden -= (1 - predicted_share) * selective
    attention = 2 * row_subwords * config.hidden_size * config.num_hidden_layers
    output = predicts_subwords * predicted_share * config.vocab_size * config.hidden_size
    return float(6 * (n_hidden + attention + output))


def _full_mask(size: int, like: Tensor) -> Tensor:
    lengths = torch.full((1,), size, device=like.device)
    return bidirectional_mask(lengths, size, like.dtype)


def _causal_mask(size: int, like: Tensor) -> Tensor:
    lowest = torch.full((size, size), torch.finfo(like.dtype).min, device=like.device)
    return torch.triu(lowest.to(like.dtype), diagonal=1)[None, None]
