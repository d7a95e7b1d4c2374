"""A LLaMA of a few thousand random parameters in a folder, as the hub would give it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch


def save_tiny_llama(folder: Path, texts: Iterable[str]) -> Path:
    """Write config, safetensors and a tokenizer trained on the texts. RETURNS: the folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from spacy_vaner.backbone import train_bpe

    tokenizer = train_bpe(texts, vocab_size=600)
    config = LlamaConfig(
        vocab_size=tokenizer.n_tokens,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    for name, content in tokenizer.to_files().items():
        (folder / name).write_bytes(content)
    return folder
