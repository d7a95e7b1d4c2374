"""A tagger as files, and back.

Saved files (docs/formats.md, section 7): "tagger.json" describes, "weights.safetensors" holds
"head.*", "adapter.*" and, where the backbone is stored, "backbone.*"; with a stored backbone come
the tokenizer's files. A pretrained backbone under an adapter is frozen, so it is referred to.
The tagger that comes with the package, and what stands on it, is stored in 8 bits (packing.py).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from ..errors import Messages, VanerError, VanerWarning
from . import packing
from .building import assemble, fingerprints
from .joint import JointHead
from .llama import LlamaShape, make_llama
from .pretrained import config_from_json, find_backbone, fresh_decoder, load_pretrained
from .settings import (
    Backbone,
    HFBackbone,
    Lora,
    Pretrained,
    SmallLlama,
    backbone_from_dict,
    check_trainable,
    lora_from_dict,
)
from .tagger import LABELS, Tagger
from .tokenizer import SubwordTokenizer

FORMAT_VERSION, PACKED_VERSION = 1, 2
"""Of a saved tagger; the second where weights are packed, so that older versions refuse them."""

_DESCRIPTION = "tagger.json"
_WEIGHTS = "weights.safetensors"


def tagger_files(tagger: Tagger) -> dict[str, bytes]:
    """Give the files of a tagger, by name; equal taggers give equal bytes.

    A merged adapter is saved as it was before merging.
    """
    tensors = tagger.saved_weights()
    weights = save_tensors(packing.pack(tensors) if tagger.is_packed else tensors)
    description: dict[str, Any] = {
        "format_version": PACKED_VERSION if tagger.is_packed else FORMAT_VERSION,
        "backbone": tagger.settings.to_dict(),
        "backbone_reference": tagger.reference,
        "adapter": tagger.adapter.to_dict() if tagger.adapter else None,
        "head": {"labels": list(LABELS), "dropout": tagger.dropout.p},
        "hidden_size": tagger.hidden_size,
        "tokenizer": tagger.tokenizer.fingerprint(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    if isinstance(tagger.head, JointHead):
        description["head"]["question_width"] = tagger.head.width
    if tagger.known_types is not None:
        description["known_types"] = list(tagger.known_types)
    if tagger.thresholds is not None:
        description["thresholds"] = tagger.thresholds
    files = {_WEIGHTS: weights}
    if tagger.reference is None:
        files.update(tagger.tokenizer.to_files())
        if not isinstance(tagger.settings, SmallLlama):
            config = json.loads(tagger.config.to_json_string(False))
            # Where it was when it was trained; the settings say so where that is of use.
            config.pop("_name_or_path", None)
            description["backbone_config"] = config
    files[_DESCRIPTION] = json.dumps(description, indent=2, sort_keys=True).encode("utf8")
    return {**files, **tagger.adapters.files()}


def tagger_from_files(
    files: Mapping[str, bytes],
    *,
    device: torch.device | str,
    precision: str,
    backbone: Backbone | None = None,
) -> Tagger:
    """Undo `tagger_files`; predictions are equal to the bit.

    device, precision: as in the component's settings; "auto" is resolved.
    backbone: settings to use instead of the saved ones for what may differ between machines: name,
        revision, dtype, attn_implementation and quantization of a pretrained backbone,
        attn_implementation of a small LLaMA. Of another kind than what was saved: not used.
    RAISES VanerError: VE130-VE137, the files or the backbone are not what was saved; VE120-VE124
        and VE151-VE155, the backbone cannot be found or loaded; VE103-VE107.
    WARNS VanerWarning: VW151, another quantization than that of the saved tagger.
    """
    description = _read_description(files)
    try:
        settings = backbone_from_dict(description["backbone"])
        saved_adapter = description["adapter"]
        adapter = lora_from_dict(saved_adapter) if saved_adapter is not None else None
        reference = description["backbone_reference"]
        dropout = float(description["head"]["dropout"])
        width = description["head"].get("question_width")
        sha256 = description["weights_sha256"]
    except (KeyError, TypeError, AttributeError) as error:
        raise VanerError(Messages.VE131.format(file=_DESCRIPTION, error=repr(error))) from None
    if isinstance(settings, HFBackbone) and isinstance(backbone, HFBackbone):
        saved, settings = settings, backbone
        if saved.quantization != settings.quantization:
            message = Messages.VW151.format(saved=saved.quantization, now=settings.quantization)
            warnings.warn(message, VanerWarning, stacklevel=2)
    elif isinstance(backbone, (SmallLlama, Pretrained)) and type(backbone) is type(settings):
        settings = replace(settings, attn_implementation=backbone.attn_implementation)
    check_trainable(settings, adapter)
    tensors = _read_weights(files, sha256)

    make_decoder: Callable[[], nn.Module]
    if reference is not None:
        if not isinstance(settings, HFBackbone):
            raise VanerError(Messages.VE131.format(file=_DESCRIPTION, error="backbone_reference"))
        folder = find_backbone(settings)
        tokenizer = SubwordTokenizer.from_folder(folder)
        _check_fingerprints(reference, fingerprints(folder, tokenizer), folder)
        make_decoder = partial(load_pretrained, folder, settings)
    else:
        tokenizer = _stored_tokenizer(files, description)
        make_decoder = _stored_decoder(description, settings, tokenizer)
    tagger = assemble(
        make_decoder,
        tokenizer=tokenizer,
        settings=settings,
        adapter=adapter,
        reference=reference,
        dropout=dropout,
        question_width=None if width is None else int(width),
        precision=precision,
        device=device,
        seed=0,
    )
    _set_weights(tagger, tensors, tagger.saved_parameters())
    _set_facts(tagger, description)
    tagger.check_attention()
    tagger.adapters.load(files)
    return tagger.eval()


def tagger_over(
    files: Mapping[str, bytes],
    settings: Pretrained,
    adapter: Lora | None,
    *,
    dropout: float,
    question_width: int | None,
    asking: str | None = None,
    device: torch.device | str,
    precision: str,
    seed: int = 0,
) -> Tagger:
    """Make a tagger that goes on from a saved one which stores its backbone.

    files: as `tagger_files` gives them.
    settings: what the new tagger says that it stands on.
    adapter: a fresh one over its backbone, which is then frozen; None = all of it is trainable.
    question_width: of a new head, where one is made for joint asking.
    asking: "joint" or "per_type"; None = as the saved tagger. Where that asks the other way, only
        its backbone is taken, and the head is new.
    RAISES VanerError: VE130-VE135, VE137, the files; VE127, the adapter.
    """
    description = _read_description(files)
    try:
        saved_width = description["head"].get("question_width")
        sha256 = description["weights_sha256"]
    except (KeyError, TypeError, AttributeError) as error:
        raise VanerError(Messages.VE131.format(file=_DESCRIPTION, error=repr(error))) from None
    keeps_head = asking is None or (asking == "joint") == (saved_width is not None)
    tensors = _read_weights(files, sha256)
    tokenizer = _stored_tokenizer(files, description)
    tagger = assemble(
        _stored_decoder(description, settings, tokenizer),
        tokenizer=tokenizer,
        settings=settings,
        adapter=adapter,
        reference=None,
        dropout=dropout,
        question_width=saved_width if keeps_head else question_width,
        precision=precision,
        device=device,
        seed=seed,
    )
    taken = ("backbone.", "head.") if keeps_head else ("backbone.",)
    places = {n: p for n, p in tagger.saved_parameters().items() if n.startswith(taken)}
    _set_weights(tagger, {n: t for n, t in tensors.items() if n.startswith(taken)}, places)
    _set_facts(tagger, description)
    tagger.check_attention()
    return tagger.eval()


def set_tagger_weights(tagger: Tagger, files: Mapping[str, bytes]) -> None:
    """Take over the weights of another tagger of the same shape, adapters aside.

    files: as `tagger_files` gives them.
    RAISES VanerError: VE130-VE135.
    """
    tensors = _read_weights(files, _read_description(files).get("weights_sha256"))
    _set_weights(tagger, tensors, tagger.saved_parameters())
    tagger.forget_questions()


def _stored_tokenizer(
    files: Mapping[str, bytes], description: Mapping[str, Any]
) -> SubwordTokenizer:
    tokenizer = SubwordTokenizer.from_files(files)
    if tokenizer.fingerprint() != description.get("tokenizer"):
        raise VanerError(Messages.VE137)
    return tokenizer


def _stored_decoder(
    description: Mapping[str, Any], settings: Backbone, tokenizer: SubwordTokenizer
) -> Callable[[], nn.Module]:
    """How to make the decoder of a tagger that stores its backbone.

    What has been tuned as transformers computes it goes on so; else our own LLaMA takes over.
    """
    if isinstance(settings, SmallLlama):
        shape = LlamaShape.of(settings, tokenizer.n_tokens)
        return partial(make_llama, shape, settings.attn_implementation)
    try:
        saved = description["backbone_config"]
        plain = LlamaShape.from_config(saved) if isinstance(settings, Pretrained) else None
        if plain is not None:
            return partial(make_llama, plain, settings.attn_implementation)
        return partial(fresh_decoder, config_from_json(saved), settings.attn_implementation)
    except (KeyError, TypeError, ValueError) as error:
        raise VanerError(Messages.VE131.format(file=_DESCRIPTION, error=repr(error))) from None


def _check_fingerprints(saved: object, found: dict[str, str], folder: Path) -> None:
    known = saved if isinstance(saved, dict) else {}
    # What version 0.1.0 saved has no word on positions.
    known = {"positions": found["positions"], **known}
    if known != found:
        parts = [part for part in found if known.get(part) != found[part]]
        raise VanerError(Messages.VE136.format(folder=folder, parts=", ".join(parts)))


def _read_description(files: Mapping[str, bytes]) -> dict[str, Any]:
    for name in (_DESCRIPTION, _WEIGHTS):
        if name not in files:
            raise VanerError(Messages.VE130.format(file=name))
    try:
        description = json.loads(files[_DESCRIPTION])
        version = description["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise VanerError(Messages.VE131.format(file=_DESCRIPTION, error=repr(error))) from None
    if version not in (FORMAT_VERSION, PACKED_VERSION):
        raise VanerError(Messages.VE132.format(version=version, known=PACKED_VERSION))
    checked: dict[str, Any] = description
    return checked


def _read_weights(files: Mapping[str, bytes], sha256: object) -> dict[str, Tensor]:
    weights = files[_WEIGHTS]
    if hashlib.sha256(weights).hexdigest() != sha256:
        raise VanerError(Messages.VE133.format(file=_WEIGHTS, described_in=_DESCRIPTION))
    try:
        tensors: dict[str, Tensor] = load_tensors(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise VanerError(Messages.VE134.format(file=_WEIGHTS, error=error)) from None
    return packing.unpack(tensors)


def _set_facts(tagger: Tagger, description: Mapping[str, Any]) -> None:
    tagger.is_packed = description["format_version"] == PACKED_VERSION
    known_types = description.get("known_types")
    tagger.known_types = None if known_types is None else tuple(map(str, known_types))
    thresholds = description.get("thresholds")
    tagger.thresholds = None if thresholds is None else {n: float(t) for n, t in thresholds.items()}


def _set_weights(
    tagger: Tagger, tensors: Mapping[str, Tensor], places: Mapping[str, nn.Parameter]
) -> None:
    """Put saved tensors into their places; each has to have one, of its shape."""
    wrong = [
        f"{name}: {tuple(tensors[name].shape) if name in tensors else 'missing'} instead of "
        f"{tuple(places[name].shape) if name in places else 'nothing'}"
        for name in sorted(places.keys() | tensors.keys())
        if name not in tensors or name not in places or tensors[name].shape != places[name].shape
    ]
    if wrong:
        raise VanerError(
            Messages.VE135.format(
                file=_WEIGHTS, described_in=_DESCRIPTION, n_wrong=len(wrong), first=wrong[0]
            )
        )
    for name, place in places.items():
        # Replaced, not copied: a fully trained backbone may be bf16 where a fresh one is fp32.
        place.data = tensors[name].to(place.device)
