"""Which backbone and which adapter: plain values, checked when they are made.

Imports nothing heavy: a config can be read and checked without torch. `to_dict` gives JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from ..errors import Messages, VanerError

DTYPES = ("float32", "bfloat16", "float16", "auto")
ATTENTION_IMPLEMENTATIONS = ("eager", "sdpa")
QUANTIZATIONS = ("nf4", "int8")
ALL_LINEAR = "all-linear"

_SPECIALS_AND_BYTES = 5 + 256


@dataclass(frozen=True)
class HFBackbone:
    """A pretrained decoder of the LLaMA family, in a folder or on the Hugging Face hub.

    name: a folder, else a name on the hub; the folder is looked for first.
    revision: branch, tag or commit on the hub; without meaning for a folder.
    dtype: of the frozen weights; "auto" takes the one of the files. With `quantization`: of what is
        not quantised, embeddings and norms.
    attn_implementation: "eager" or "sdpa"; both give the same states. In fp32 sdpa is as fast or
        a little faster (16 rows of 256, one thread); training with bf16 on a CPU, eager is faster.
    quantization: "nf4" or "int8": linear layers in 4 or 8 bits; None = all of them in `dtype`.
    gradient_checkpointing: in training, keep the input of every layer only and compute the rest
        again for the gradients: a third more time for a fraction of the memory, equal gradients.
    RAISES VanerError: VE101, a value outside its range.
    """

    name: str
    revision: str | None = None
    dtype: str = "float32"
    attn_implementation: str = "sdpa"
    quantization: str | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        _check(bool(self.name), "backbone.name", self.name, "a folder or a hub name")
        _check_choice("backbone.dtype", self.dtype, DTYPES)
        _check_choice(
            "backbone.attn_implementation", self.attn_implementation, ATTENTION_IMPLEMENTATIONS
        )
        if self.quantization is not None:
            _check_choice("backbone.quantization", self.quantization, QUANTIZATIONS)

    def to_dict(self) -> dict[str, object]:
        return {"kind": "hf", **asdict(self)}


@dataclass(frozen=True)
class SmallLlama:
    """A LLaMA that starts from random weights; all of it is saved with the component.

    hidden_size, n_layers, n_heads, intermediate_size: as in LLaMA's config; keys and values have
        as many heads as queries.
    max_positions: longest input in subwords, instruction included.
    vocab_size: of the tokenizer that is trained at initialisation where tokenizer_path is None.
    tokenizer_path: folder with a tokenizer.json, e.g. from `python -m spacy vaner tokenizer`.
    attn_implementation: as for HFBackbone.
    RAISES VanerError: VE101, a value outside its range.
    """

    hidden_size: int = 256
    n_layers: int = 6
    n_heads: int = 4
    intermediate_size: int = 688
    max_positions: int = 1024
    vocab_size: int = 8000
    tokenizer_path: str | None = None
    attn_implementation: str = "sdpa"

    def __post_init__(self) -> None:
        for key in ("hidden_size", "n_layers", "n_heads", "intermediate_size", "max_positions"):
            _check(getattr(self, key) > 0, f"backbone.{key}", getattr(self, key), "1 or more")
        # Rotary positions turn pairs of dimensions, so every head needs an even number.
        _check(
            self.hidden_size % (2 * self.n_heads) == 0,
            "backbone.hidden_size",
            self.hidden_size,
            f"a multiple of twice n_heads ({2 * self.n_heads})",
        )
        _check(
            self.vocab_size > _SPECIALS_AND_BYTES,
            "backbone.vocab_size",
            self.vocab_size,
            f"more than {_SPECIALS_AND_BYTES} (special tokens and bytes)",
        )
        _check_choice(
            "backbone.attn_implementation", self.attn_implementation, ATTENTION_IMPLEMENTATIONS
        )

    def to_dict(self) -> dict[str, object]:
        return {"kind": "small_llama", **asdict(self)}


@dataclass(frozen=True)
class Pretrained:
    """The tagger that comes with the package, or another that `python -m spacy vaner ship` wrote.

    name: of one that comes with the package, or a folder.
    attn_implementation: as for HFBackbone.
    RAISES VanerError: VE101, a value outside its range.
    """

    name: str
    attn_implementation: str = "sdpa"

    def __post_init__(self) -> None:
        _check(bool(self.name), "backbone.name", self.name, "the name of a tagger, or a folder")
        _check_choice(
            "backbone.attn_implementation", self.attn_implementation, ATTENTION_IMPLEMENTATIONS
        )

    def to_dict(self) -> dict[str, object]:
        return {"kind": "pretrained", **asdict(self)}


Backbone = HFBackbone | SmallLlama | Pretrained


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter on the backbone's linear layers.

    rank, alpha: the update is alpha / rank times the product of the two low-rank matrices.
    dropout: on the adapter's input, in training.
    targets: "all-linear", or names of layers, e.g. ("q_proj", "v_proj").
    RAISES VanerError: VE101, a value outside its range.
    SOURCE: VANER, section 4.3 (all linear layers); rank, alpha and dropout as in the authors'
        code, which adapts q_proj and v_proj only.
    """

    rank: int = 12
    alpha: float = 32
    dropout: float = 0.1
    targets: str | tuple[str, ...] = ALL_LINEAR

    def __post_init__(self) -> None:
        _check(self.rank > 0, "adapter.rank", self.rank, "1 or more")
        _check(self.alpha > 0, "adapter.alpha", self.alpha, "more than 0")
        _check(0 <= self.dropout < 1, "adapter.dropout", self.dropout, "0 or more, less than 1")
        if isinstance(self.targets, str):
            _check_choice("adapter.targets", self.targets, (ALL_LINEAR, "a list of layer names"))
        else:
            # A config gives a list, which is not hashable.
            object.__setattr__(self, "targets", tuple(self.targets))
            named = bool(self.targets) and all(self.targets)
            _check(named, "adapter.targets", self.targets, "at least one name of a layer")

    def fits(self, layer: str) -> bool:
        """Whether a linear layer is adapted, by the end of its name."""
        return self.targets == ALL_LINEAR or any(
            f".{layer}".endswith(f".{target}") for target in self.targets
        )

    def not_among(self, layers: Collection[str]) -> list[str]:
        """The targets that none of the layers is called; PEFT skips those without a word."""
        if self.targets == ALL_LINEAR:
            return [] if layers else [ALL_LINEAR]
        return [
            target
            for target in self.targets
            if not any(f".{layer}".endswith(f".{target}") for layer in layers)
        ]

    def to_dict(self) -> dict[str, object]:
        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        return {**asdict(self), "targets": targets}


def check_trainable(backbone: Backbone, adapter: Lora | None) -> None:
    """Refuse to train all parameters of a backbone that cannot be moved in small steps.

    RAISES VanerError: VE152, it is quantised.
    """
    if adapter is None and isinstance(backbone, HFBackbone) and backbone.quantization is not None:
        raise VanerError(Messages.VE152.format(quantization=backbone.quantization))


def backbone_from_dict(data: Mapping[str, object]) -> Backbone:
    """Undo `to_dict` of any kind of backbone.

    RAISES VanerError: VE102, an unknown kind or key; VE101.
    """
    kinds: dict[object, type[HFBackbone] | type[SmallLlama] | type[Pretrained]] = {
        "hf": HFBackbone,
        "small_llama": SmallLlama,
        "pretrained": Pretrained,
    }
    values = {key: value for key, value in data.items() if key != "kind"}
    kind = kinds.get(data.get("kind"))
    if kind is None:
        raise VanerError(Messages.VE102.format(what="backbone", error=f"kind {data.get('kind')!r}"))
    try:
        return kind(**values)  # type: ignore[arg-type]
    except TypeError as error:
        raise VanerError(Messages.VE102.format(what="backbone", error=error)) from None


def lora_from_dict(data: Mapping[str, object]) -> Lora:
    """Undo `Lora.to_dict`.

    RAISES VanerError: VE102, an unknown key; VE101.
    """
    try:
        return Lora(**data)  # type: ignore[arg-type]
    except TypeError as error:
        raise VanerError(Messages.VE102.format(what="adapter", error=error)) from None


def _check(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise VanerError(Messages.VE101.format(key=key, value=value, expected=expected))


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, key, value, "one of " + ", ".join(choices))
