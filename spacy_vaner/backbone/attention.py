"""Attention to both sides in a model that was built to look to the left only.

A 4-D additive float mask is the one form that every version of transformers takes as it is, under
eager and sdpa attention. Others go wrong without a word: a boolean mask lets padding through under
eager attention, a 2-D mask or none stays causal, and the switches `is_causal` mean different things
in different versions. `self_check` proves the loaded weights instead of trusting the version.

Encoders attend to both sides by themselves. They take a 2-D mask: older versions of transformers
refuse a 4-D one for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import Messages, VanerError

States = Callable[[Tensor, Tensor], Tensor]
"""(input_ids (B, S), lengths (B,)) -> states (B, S, H)."""

# The probe: real subwords of a short row, and the size that it is padded to.
_LENGTH, _SIZE = 5, 8

# Same shape, other padding: 0 where padding is masked, so only rounding has to be allowed for.
_PADDING_TOLERANCE = 1e-5
# A causal first state does not move at all (0); a bidirectional one moves by 1e-3 and more.
_LEAST_MOVE = 1e-6
# Other shape, other kernels: rounding accumulates over the layers.
_SHAPE_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}


class Encoder(NamedTuple):
    """What differs between kinds of encoders.

    has_pooler: there is a layer over the first state. It is left out: nothing here uses it, and
        the files of masked language models lack it.
    counts_from_padding: positions begin behind the id of padding, so some of them are not usable.
    """

    has_pooler: bool = False
    counts_from_padding: bool = False


_ROBERTA = Encoder(has_pooler=True, counts_from_padding=True)
ENCODERS = {
    "bert": Encoder(has_pooler=True),
    "camembert": _ROBERTA,
    "deberta": Encoder(),
    "deberta-v2": Encoder(),
    "distilbert": Encoder(),
    "electra": Encoder(),
    "megatron-bert": Encoder(has_pooler=True),
    "modernbert": Encoder(),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "xlm-roberta-xl": _ROBERTA,
}
"""model_type in config.json → how such an encoder is called; other types are taken for decoders."""


def first_position(config: Any) -> int:
    """Give the number of the first position of a backbone; 0 for nearly all."""
    encoder = ENCODERS.get(config.model_type)
    return config.pad_token_id + 1 if encoder and encoder.counts_from_padding else 0


def forward_arguments(
    config: Any, input_ids: Tensor, lengths: Tensor, *, dtype: torch.dtype, separator: int | None
) -> dict[str, Any]:
    """What a backbone is given beside the ids, so that each subword sees all real ones.

    config: the backbone's.
    input_ids: (B, S), padded on the right.
    lengths: (B,), 1 or more.
    dtype: of the backbone's parameters.
    separator: id behind the instruction; where an encoder knows segments, what comes after it is
        the second one.
    """
    size = input_ids.shape[1]
    positions = torch.arange(size, device=input_ids.device)[None, :]
    encoder = ENCODERS.get(config.model_type)
    if encoder is None:
        mask = bidirectional_mask(lengths, size, dtype)
        return {"attention_mask": mask, "position_ids": positions, "use_cache": False}
    arguments: dict[str, Any] = {"attention_mask": (positions < lengths[:, None]).long()}
    if encoder.counts_from_padding:
        # By itself, the class would count the ids that are not padding.
        arguments["position_ids"] = positions + first_position(config)
    if (getattr(config, "type_vocab_size", None) or 0) > 1:
        separates = (input_ids == separator).long() if separator is not None else 0 * input_ids
        arguments["token_type_ids"] = (separates.cumsum(1) > separates).long()
    return arguments


def bidirectional_mask(lengths: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Make the additive attention mask of right-padded rows: each subword sees all real ones.

    lengths: (B,), 1 or more: a row without a real subword would have nothing to attend to.
    size: S, padding included.
    dtype: of the model's parameters.
    RETURNS: (B, 1, 1, S), 0 where a position is real and the dtype's lowest value in padding.
    SOURCE: VANER, section 3.3; differs from the authors' code, whose zeros let padding through.
    """
    positions = torch.arange(size, device=lengths.device)
    padding = positions[None, :] >= lengths[:, None]
    mask = torch.zeros(padding.shape, dtype=dtype, device=lengths.device)
    return mask.masked_fill_(padding, torch.finfo(dtype).min)[:, None, None, :]


def look_left_only(decoder: nn.Module) -> None:
    """Let each subword of a decoder see itself and those before it, as it was built to.

    For comparison: what is learned so is of no use where both sides are seen.
    decoder: that is given masks of `bidirectional_mask`.
    """

    def hide_the_right(
        module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = named["attention_mask"]
        size = mask.shape[-1]
        right = torch.ones(size, size, dtype=torch.bool, device=mask.device).triu_(1)
        lowest = torch.finfo(mask.dtype).min
        return positional, {**named, "attention_mask": mask.masked_fill(right, lowest)}

    decoder.register_forward_pre_hook(hide_the_right, with_kwargs=True)


def self_check(
    states: States,
    *,
    vocab_size: int,
    device: torch.device,
    dtype: torch.dtype,
    backbone: str,
    attn_implementation: str,
) -> None:
    """Prove on the weights in use that attention is bidirectional and that padding is masked.

    Alone, padded in a batch of one and padded beside another row: changing the last subword must
    move the first state, and neither the padding's content nor its presence may move a real one.
    All differences are relative to the largest state.

    states: the forward pass as it is used, dropout off.
    vocab_size: probe ids are drawn below it.
    dtype: the coarsest that the pass computes in; rounding is judged by it.
    RAISES VanerError: VE106, naming backbone, attention implementation and transformers version.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab_size, (2, _LENGTH), generator=generator)
    ids[1, :-1] = ids[0, :-1]
    ids[1, -1] = (ids[0, -1] + 1) % vocab_size
    pads = torch.randint(0, vocab_size, (1, _SIZE - _LENGTH), generator=generator)
    other_pads = (pads + 1) % vocab_size
    row, changed = ids[:1], ids[1:]

    def run(*rows: tuple[Tensor, Tensor]) -> Tensor:
        batch = torch.cat([torch.cat(parts, dim=1) for parts in rows]).to(device)
        lengths = torch.full((len(rows),), _LENGTH, device=device)
        with torch.no_grad():
            return states(batch, lengths)[:, :_LENGTH].float()

    nothing = pads[:, :0]
    alone, alone_changed = run((row, nothing)), run((changed, nothing))
    padded, padded_other = run((row, pads)), run((row, other_pads))
    pair, pair_other = run((row, pads), (row, pads)), run((row, other_pads), (changed, pads))

    def difference(a: Tensor, b: Tensor) -> float:
        return float((a - b).abs().max() / alone.abs().max())

    moves = {
        "batch of one": difference(alone[0, 0], alone_changed[0, 0]),
        "padded batch": difference(pair[1, 0], pair_other[1, 0]),
    }
    leaks = {
        "batch of one": (difference(padded, padded_other), _PADDING_TOLERANCE),
        "padded batch": (difference(pair[0], pair_other[0]), _PADDING_TOLERANCE),
        "padded against alone": (difference(padded, alone), _SHAPE_TOLERANCE[dtype]),
    }
    # Written so that a NaN counts as a fault.
    faults = [
        f"{where}: the last subword moves the first state by {moved:.1e}, so attention is causal"
        for where, moved in moves.items()
        if not moved > _LEAST_MOVE
    ] + [
        f"{where}: padding moves the states by {moved:.1e}"
        for where, (moved, tolerance) in leaks.items()
        if not moved <= tolerance
    ]
    if faults:
        import transformers

        raise VanerError(
            Messages.VE106.format(
                backbone=backbone,
                attn_implementation=attn_implementation,
                version=transformers.__version__,
                faults="; ".join(faults),
            )
        )
