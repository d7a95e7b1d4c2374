"""Taggers made fresh: a backbone that is found or new, an adapter, a head."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..errors import Messages, VanerError
from . import quantization
from .device import choose_device, choose_precision
from .llama import LlamaShape, make_llama
from .pretrained import (
    checkpoint_layers,
    config_fingerprint,
    find_backbone,
    load_pretrained,
    position_fingerprint,
    weights_fingerprint,
)
from .settings import Backbone, HFBackbone, Lora, SmallLlama, check_trainable
from .tagger import Tagger, embedding_of
from .tokenizer import SubwordTokenizer, train_bpe
from .word_features import word_embedding


def build_tagger(
    settings: HFBackbone | SmallLlama,
    adapter: Lora | None,
    *,
    dropout: float = 0.1,
    question_width: int | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    seed: int = 0,
    texts: Iterable[str] | None = None,
    tokenizer: SubwordTokenizer | None = None,
) -> Tagger:
    """Make a tagger with a fresh head and adapter, and fresh weights for a SmallLlama.

    question_width: of a head for joint asking; None = a head for asking per type.
    device, precision: as in the component's settings; "auto" is resolved.
    seed: of all fresh weights; the global generators are left as they are.
    texts: to train a tokenizer on, read only where a SmallLlama has no other.
    tokenizer: used instead of the settings' one.
    RAISES VanerError: VE103-VE107, VE110-VE113, VE120-VE127, VE151-VE155.
    """
    check_trainable(settings, adapter)
    reference = None
    make_decoder: Callable[[], nn.Module]
    if isinstance(settings, HFBackbone):
        folder = find_backbone(settings)
        tokenizer = tokenizer or SubwordTokenizer.from_folder(folder)
        if adapter:
            reference = fingerprints(folder, tokenizer)
        make_decoder = partial(load_pretrained, folder, settings)
    else:
        tokenizer = tokenizer or _small_llama_tokenizer(settings, texts)
        shape = LlamaShape.of(settings, tokenizer.n_tokens)
        make_decoder = partial(make_llama, shape, settings.attn_implementation)
    tagger = assemble(
        make_decoder,
        tokenizer=tokenizer,
        settings=settings,
        adapter=adapter,
        reference=reference,
        dropout=dropout,
        question_width=question_width,
        precision=precision,
        device=device,
        seed=seed,
    )
    tagger.check_attention()
    return tagger


def assemble(
    make_decoder: Callable[[], nn.Module],
    *,
    tokenizer: SubwordTokenizer,
    settings: Backbone,
    adapter: Lora | None,
    reference: dict[str, str] | None,
    dropout: float,
    question_width: int | None,
    precision: str,
    device: torch.device | str,
    seed: int,
) -> Tagger:
    """Put a tagger together, with weights that are random where `make_decoder` does not load them.

    device, precision: as in the component's settings; "auto" is resolved.
    seed: of all that is random; the global generators are left as they are.
    RAISES VanerError: VE125, the tokenizer is not the decoder's; VE103-VE105, VE127, VE155.
    """
    device = choose_device(str(device))
    precision = choose_precision(precision, device)
    # Only the CPU's generator draws here: torch.manual_seed would reseed CUDA's as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        decoder = make_decoder()
        n_rows = embedding_of(decoder).num_embeddings
        # Embeddings are padded by a few rows; half of them unused is another model's tokenizer.
        if not n_rows / 2 <= tokenizer.n_tokens <= n_rows:
            raise VanerError(Messages.VE125.format(n_tokens=tokenizer.n_tokens, n_rows=n_rows))
        words = word_embedding(decoder)
        if words is not None:
            words.bind(tokenizer)
        if isinstance(settings, HFBackbone):
            if settings.quantization is not None:
                quantization.quantize(decoder, settings.quantization, device)
        tagger = Tagger(
            decoder,
            tokenizer=tokenizer,
            settings=settings,
            adapter=adapter,
            reference=reference,
            dropout=dropout,
            question_width=question_width,
            precision=precision,
        )
        # Not before the adapter is on: peft would hook a closure to the embeddings, which cannot be
        # pickled.
        if isinstance(settings, HFBackbone) and settings.gradient_checkpointing:
            checkpoint_layers(decoder, settings.name)
    return tagger.to(device)


def _small_llama_tokenizer(settings: SmallLlama, texts: Iterable[str] | None) -> SubwordTokenizer:
    if settings.tokenizer_path is not None:
        return SubwordTokenizer.from_folder(Path(settings.tokenizer_path).expanduser())
    if texts is None:
        raise VanerError(Messages.VE126)
    return train_bpe(texts, vocab_size=settings.vocab_size)


def fingerprints(folder: Path, tokenizer: SubwordTokenizer) -> dict[str, str]:
    """What tells a backbone that is stored elsewhere from others."""
    return {
        "config": config_fingerprint(folder),
        "positions": position_fingerprint(folder),
        "tokenizer": tokenizer.fingerprint(),
        "weights": weights_fingerprint(folder),
    }
