"""Further adapters over a frozen tagger: each has LoRA weights and a head of its own.

The low-rank updates are added to the outputs of the backbone's linear layers from outside, by
forward hooks. So the tagger beneath keeps its modules, its names and every bit of its results,
also where its own adapter is merged (PEFT's layers leave out every other adapter then).

Saved files, of one adapter: "adapter.json" describes, "adapter.safetensors" holds "head.*" and
"LAYER.lora_A", "LAYER.lora_B".
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from ..errors import Messages, VanerError
from .settings import Lora, lora_from_dict

if TYPE_CHECKING:
    from .tagger import Tagger

FORMAT_VERSION = 1
DESCRIPTION, WEIGHTS = "adapter.json", "adapter.safetensors"
"""The files of a saved adapter."""

_FOLDER = "adapters"

# Which adapter is on is a state of the whole backbone. One lock for all of them: a lock inside of
# a module could be neither pickled nor copied.
_PASS = threading.RLock()


class Adapter(nn.Module):
    """Low-rank updates of linear layers, and a head.

    types: the types that it tags, in place of the tagger beneath.
    layers: names of the layers in the backbone.
    asked_as: the instructions that it was trained under; compared on loading, not read here.
    base: fingerprint of the tagger beneath.
    """

    def __init__(
        self,
        types: Sequence[str],
        layers: Mapping[str, nn.Linear],
        *,
        lora: Lora,
        head: nn.Module,
        dropout: float,
        asked_as: Sequence[str],
        base: str,
    ) -> None:
        super().__init__()
        self.types = tuple(types)
        self.lora = lora
        self.layers = tuple(layers)
        self.asked_as = tuple(asked_as)
        self.base = base
        self.lora_a = nn.ParameterList()
        self.lora_b = nn.ParameterList()
        for layer in layers.values():
            a = torch.empty(lora.rank, layer.in_features)
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
            self.lora_a.append(a)
            # Zero, so that a fresh adapter reads text just as the tagger beneath does.
            self.lora_b.append(torch.zeros(layer.out_features, lora.rank))
        self.lora_dropout = nn.Dropout(lora.dropout)
        self.dropout = nn.Dropout(dropout)
        # The tagger's own head is a better start than noise: it knows what a mention looks like.
        self.head = copy.deepcopy(head).requires_grad_(True)
        self.to(next(head.parameters()).device)

    def __repr__(self) -> str:
        # torch would list every matrix.
        return f"Adapter(types={self.types}, lora={self.lora}, trainable={self.trainable})"

    @property
    def trainable(self) -> bool:
        """Whether training changes it."""
        return all(parameter.requires_grad for parameter in self.head.parameters())

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        for parameter in self.parameters():
            _set_trainable(parameter, trainable)

    def update_of(self, layer: int, states: Tensor) -> Tensor:
        """What is added to the output of a layer.

        layer: index into `layers`.
        states: (…, in_features), the input of the layer.
        RETURNS: (…, out_features).
        """
        states = self.lora_dropout(states.to(self.lora_a[layer].dtype))
        low = F.linear(states, self.lora_a[layer])
        return F.linear(low, self.lora_b[layer]) * (self.lora.alpha / self.lora.rank)

    def files(self) -> dict[str, bytes]:
        """Give its files, by name; equal adapters give equal bytes."""
        weights = save_tensors(
            {name: tensor.detach().cpu().contiguous() for name, tensor in self._tensors().items()}
        )
        description = {
            "format_version": FORMAT_VERSION,
            "types": list(self.types),
            "lora": self.lora.to_dict(),
            "asked_as": list(self.asked_as),
            "base": self.base,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
        text = json.dumps(description, indent=2, sort_keys=True)
        return {DESCRIPTION: text.encode("utf8"), WEIGHTS: weights}

    def load(self, tensors: Mapping[str, Tensor], *, where: str) -> None:
        """Take over saved weights. RAISES VanerError: VE184, they do not fit."""
        places = self._tensors()
        wrong = [
            name
            for name in sorted(places.keys() | tensors.keys())
            if name not in tensors
            or name not in places
            or places[name].shape != tensors[name].shape
        ]
        if wrong:
            raise VanerError(Messages.VE184.format(where=where, n_wrong=len(wrong), first=wrong[0]))
        for name, place in places.items():
            place.data.copy_(tensors[name])

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {
            f"head.{name}": parameter for name, parameter in self.head.named_parameters()
        }
        for layer, a, b in zip(self.layers, self.lora_a, self.lora_b, strict=True):
            tensors[f"{layer}.lora_A"], tensors[f"{layer}.lora_B"] = a, b
        return tensors


class AdapterList(nn.Module):
    """The adapters over one tagger. While there are any, the tagger beneath is frozen."""

    def __init__(self, tagger: Tagger) -> None:
        super().__init__()
        # In lists, since a module that is an attribute becomes a part of this one.
        self._owner = [tagger]
        self._active: list[Adapter] = []
        self._hooks: dict[str, list[RemovableHandle]] = {}
        # Names are never used twice: an optimiser keeps its state by the names of parameters.
        self._n_made = 0
        self._frozen: list[nn.Parameter] = []

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Adapter]:
        for adapter in self.children():
            assert isinstance(adapter, Adapter)
            yield adapter

    def for_type(self, name: str) -> Adapter | None:
        """The adapter that tags a type; None for the tagger beneath."""
        return next((adapter for adapter in self if name in adapter.types), None)

    def new(
        self, types: Sequence[str], lora: Lora, *, asked_as: Sequence[str] = (), seed: int = 0
    ) -> Adapter:
        """Make a fresh adapter for this tagger, which is trainable; `put_on` puts it on.

        seed: of its weights; the global generators are left as they are.
        RAISES VanerError: VE180, a name in lora.targets that no layer has.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._make(types, lora, asked_as=asked_as, base=self._fingerprint())

    def read(self, files: Mapping[str, bytes], *, where: str) -> Adapter:
        """Make an adapter for this tagger from its files; it is frozen.

        where: for messages, what the files are called.
        RAISES VanerError: VE180-VE185, the files are damaged or do not belong to this tagger.
        """
        description, tensors = _read(files, where)
        try:
            types = [str(name) for name in description["types"]]
            asked_as = [str(text) for text in description["asked_as"]]
            lora, base = lora_from_dict(description["lora"]), str(description["base"])
        except (KeyError, TypeError, AttributeError) as error:
            raise VanerError(Messages.VE182.format(where=where, error=repr(error))) from None
        if base != self._fingerprint():
            raise VanerError(
                Messages.VE183.format(where=where, base=base[:12], found=self._fingerprint()[:12])
            )
        adapter = self._make(types, lora, asked_as=asked_as, base=base)
        adapter.load(tensors, where=where)
        adapter.trainable = False
        return adapter

    def put_on(self, adapter: Adapter) -> None:
        """Let an adapter tag its types, which no other one may tag, and freeze what is beneath."""
        (tagger,) = self._owner
        if not len(self):
            self._frozen = [p for p in tagger.parameters() if p.requires_grad]
            for parameter in self._frozen:
                _set_trainable(parameter, False)
        name = str(self._n_made)
        self._n_made += 1
        self.add_module(name, adapter.train(tagger.training))
        modules = {_plain_name(path): m for path, m in tagger.backbone.named_modules()}
        # Around a layer of PEFT's, not inside: that is where merged and unmerged are alike.
        self._hooks[name] = [
            modules[layer].register_forward_hook(partial(self._add_update, adapter, index))
            for index, layer in enumerate(adapter.layers)
        ]

    def remove(self, adapter: Adapter) -> None:
        """Take an adapter off. After the last one the tagger can be trained again."""
        name = next(name for name, known in self.named_children() if known is adapter)
        delattr(self, name)
        for hook in self._hooks.pop(name):
            hook.remove()
        if not len(self):
            for parameter in self._frozen:
                _set_trainable(parameter, True)
            self._frozen = []

    @contextmanager
    def active(self, adapter: Adapter | None) -> Iterator[None]:
        """Run the backbone with an adapter on, or with none."""
        if not len(self):
            yield
            return
        with _PASS:
            self._active = [] if adapter is None else [adapter]
            try:
                yield
            finally:
                # In training it stays on: gradient checkpointing runs layers in the backward pass.
                if adapter is None or not adapter.training:
                    self._active = []

    def files(self) -> dict[str, bytes]:
        """Give the files of all adapters, each in a folder of its own."""
        return {
            f"{_FOLDER}/{number}/{name}": content
            for number, adapter in enumerate(self)
            for name, content in adapter.files().items()
        }

    def load(self, files: Mapping[str, bytes]) -> None:
        """Put on what `files` gave, in its order; other files are left alone."""
        folders: dict[str, dict[str, bytes]] = {}
        for path, content in files.items():
            folder, _, name = path.rpartition("/")
            if folder.startswith(f"{_FOLDER}/"):
                folders.setdefault(folder, {})[name] = content
        for folder in sorted(folders, key=lambda path: int(path.rpartition("/")[2])):
            self.put_on(self.read(folders[folder], where=folder))

    def _make(
        self, types: Sequence[str], lora: Lora, *, asked_as: Sequence[str], base: str
    ) -> Adapter:
        (tagger,) = self._owner
        linear = _linear_layers(tagger.backbone)
        if missing := lora.not_among(linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise VanerError(Messages.VE180.format(missing=missing, known=", ".join(known)))
        layers = {name: layer for name, layer in linear.items() if lora.fits(name)}
        return Adapter(
            types,
            layers,
            lora=lora,
            head=tagger.head,
            dropout=tagger.dropout.p,
            asked_as=asked_as,
            base=base,
        )

    def _add_update(
        self, adapter: Adapter, layer: int, module: nn.Module, inputs: Any, output: Tensor
    ) -> Tensor | None:
        if adapter not in self._active:
            return None
        return output + adapter.update_of(layer, inputs[0]).to(output.dtype)

    def _fingerprint(self) -> str:
        # It holds as long as the tagger is frozen.
        if not len(self):
            return _fingerprint(self._owner[0])
        return next(iter(self)).base


def _set_trainable(parameter: nn.Parameter, trainable: bool) -> None:
    parameter.requires_grad_(trainable)
    # A gradient that stays, be it of zeros, would let an optimiser's momentum go on.
    parameter.grad = None


def _plain_name(name: str) -> str:
    """A module's name in the backbone as it is without PEFT around it."""
    return name.removeprefix("base_model.model.")


def _linear_layers(backbone: nn.Module) -> dict[str, nn.Linear]:
    """Linear layers by name; of a layer that PEFT has wrapped the one beneath."""
    return {
        _plain_name(name).removesuffix(".base_layer"): module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    }


def _fingerprint(tagger: Tagger) -> str:
    """Hash all that the tagger's states depend on; its head is none of it."""
    parts = {
        "backbone": tagger.reference,
        "tokenizer": tagger.tokenizer.fingerprint(),
        "adapter": tagger.adapter.to_dict() if tagger.adapter else None,
    }
    found = hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf8"))
    for name, tensor in sorted(tagger.saved_weights().items()):
        if not name.startswith("head."):
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _read(files: Mapping[str, bytes], where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a saved adapter. RAISES VanerError: VE181, VE182, VE185."""
    for name in (DESCRIPTION, WEIGHTS):
        if name not in files:
            raise VanerError(Messages.VE181.format(where=where, file=name))
    try:
        description = dict(json.loads(files[DESCRIPTION]))
        version, sha256 = description["format_version"], description["weights_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise VanerError(Messages.VE182.format(where=where, error=repr(error))) from None
    if version != FORMAT_VERSION:
        error_text = f"format {version}, this version of spacy_vaner reads {FORMAT_VERSION}"
        raise VanerError(Messages.VE182.format(where=where, error=error_text))
    try:
        if hashlib.sha256(files[WEIGHTS]).hexdigest() != sha256:
            raise ValueError(f"its hash is not the one in {DESCRIPTION}")
        return description, load_tensors(files[WEIGHTS])
    except (SafetensorError, ValueError, KeyError) as error:
        raise VanerError(Messages.VE185.format(where=where, error=error)) from None
