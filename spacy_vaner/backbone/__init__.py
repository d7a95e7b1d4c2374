"""Backbones: decoders that read to both sides, adapters, tokenizers. torch, never spaCy.

transformers and peft are imported when a tagger is made, not before.
"""

from __future__ import annotations

from .attention import bidirectional_mask, self_check
from .building import build_tagger
from .device import choose_device, choose_precision
from .saving import tagger_files, tagger_from_files
from .settings import Backbone, HFBackbone, Lora, SmallLlama
from .tagger import LABELS, Tagger
from .tokenizer import SubwordTokenizer, train_bpe

__all__ = [
    "LABELS",
    "Backbone",
    "HFBackbone",
    "Lora",
    "SmallLlama",
    "SubwordTokenizer",
    "Tagger",
    "bidirectional_mask",
    "build_tagger",
    "choose_device",
    "choose_precision",
    "self_check",
    "tagger_files",
    "tagger_from_files",
    "train_bpe",
]
