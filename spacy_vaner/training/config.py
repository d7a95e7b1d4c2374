"""The settings of a pretraining run: a JSON file, checked as a whole before anything is done.

Every fault is listed with its path in the file. The defaults are for two CPU cores.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from spacy_vaner.backbone.settings import SmallLlama
from spacy_vaner.errors import Messages, VanerError

Section = TypeVar("Section")

_REQUIRED: Any = MISSING


def _setting(
    default: Any = _REQUIRED,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with what its value may be; `least` and `most` are included."""
    return field(default=default, metadata={"least": least, "most": most, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class BackboneShape:
    """The LLaMA that is trained; the size of its vocabulary comes from the prepared text.

    max_positions: longest input that the saved backbone reads; rotary positions have no weights,
        so it may be more than `row_subwords`.
    word_rows: of the hashed table of words; 0 = the embedding knows subwords only.
    word_width: of that table and of those of affixes and shapes.
    vectors: file of static word vectors (`python -m spacy_vaner.training vectors`), or null.
    """

    hidden_size: int = _setting(512, least=2)
    n_layers: int = _setting(4, least=1)
    n_heads: int = _setting(8, least=1)
    intermediate_size: int = _setting(1376, least=1)
    max_positions: int = _setting(1024, least=2)
    word_rows: int = _setting(0, least=0)
    word_width: int = _setting(64, least=1)
    vectors: str | None = _setting(None)

    def settings(self, attn_implementation: str) -> SmallLlama:
        """The same as the backbone library's settings.

        RAISES VanerError: VE101, heads that do not divide the hidden size.
        """
        return SmallLlama(
            hidden_size=self.hidden_size,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            intermediate_size=self.intermediate_size,
            max_positions=self.max_positions,
            attn_implementation=attn_implementation,
        )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is predicted.

    name: "mntp", a masked subword from the state before it, as a decoder predicts; "mlm", from its
        own state.
    masking_rate: share of the subwords that are predicted.
    whole_words: mask all subwords of a word (as white space separates words) or none.
    random_share, kept_share: of the predicted subwords, how many are shown as another subword or
        as they are; the rest is shown as the mask.
    causal_share: share of the steps that predict the next subword under the causal mask instead.
    causal_rate: share of the subwords that such a step predicts; less saves time in the output
        layer.
    SOURCE: BERT, section 3.1 (shares); LLM2Vec, section 2.1 (mntp); differs: the count of masked
        subwords per pass is fixed, so that shapes are.
    """

    name: str = _setting("mntp", choices=("mntp", "mlm"))
    masking_rate: float = _setting(0.2, least=0.01, most=0.9)
    whole_words: bool = _setting(True)
    random_share: float = _setting(0.1, least=0, most=1)
    kept_share: float = _setting(0.1, least=0, most=1)
    causal_share: float = _setting(0.0, least=0, most=1)
    causal_rate: float = _setting(1.0, least=0.01, most=1)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How the weights are moved.

    name: "adamw" for everything, or "muon": the hidden matrices by Muon, embedding and norms by
        AdamW, at the same rate.
    lr: the highest rate.
    weight_decay: per step lr * weight_decay of every matrix; norms are left alone.
    beta1, beta2: AdamW's averages of gradient and squared gradient.
    momentum: Muon's.
    clip_norm: longest gradient over all parameters; 0 = not clipped.
    """

    name: str = _setting("muon", choices=("adamw", "muon"))
    lr: float = _setting(2e-3, least=0)
    weight_decay: float = _setting(0.05, least=0)
    beta1: float = _setting(0.9, least=0, most=0.9999)
    beta2: float = _setting(0.95, least=0, most=0.9999)
    momentum: float = _setting(0.95, least=0, most=0.9999)
    clip_norm: float = _setting(1.0, least=0)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The rate over the run.

    name: after the warm-up "cosine", "linear", or "wsd": constant, then linear over the last
        `decay_share` of the run.
    warmup_steps: steps of linear warm-up.
    final_share: of `lr`, reached at the end.
    """

    name: str = _setting("cosine", choices=("cosine", "linear", "wsd"))
    warmup_steps: int = _setting(100, least=0)
    decay_share: float = _setting(0.2, least=0, most=1)
    final_share: float = _setting(0.02, least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A whole run.

    data: folder that `prepare` made.
    row_subwords: length of a packed row; rows_per_step, rows_per_pass: rows per update, and per
        forward and backward pass (gradients are accumulated).
    n_steps, n_minutes: the length of the whole run, exactly one of them. The schedule goes by it.
        By minutes the rate depends on the clock, so two runs are not equal to the bit.
    max_minutes: a run is stopped after so long, with a checkpoint, each time it is started.
    checkpoint_minutes: minutes between checkpoints; 0 = after every step.
    dev_steps, dev_rows: how often the dev loss is computed, and over how many rows.
    device, precision: as in the component's settings.
    attn_implementation: "eager", "sdpa", or "auto": eager on a CPU in bf16, where sdpa's backward
        pass is slow, else sdpa.
    n_threads: of torch; null = its own choice.
    compile: torch.compile; minutes of compilation, then faster on CUDA.
    peak_tflops: what the device can do in this precision; with it the log has `flops_share`.
    """

    data: str = _setting()
    backbone: BackboneShape = field(default_factory=BackboneShape)
    objective: Objective = field(default_factory=Objective)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: Schedule = field(default_factory=Schedule)
    row_subwords: int = _setting(256, least=8)
    rows_per_step: int = _setting(32, least=1)
    rows_per_pass: int = _setting(32, least=1)
    n_steps: int | None = _setting(None, least=1)
    n_minutes: float | None = _setting(None, least=0.001)
    max_minutes: float | None = _setting(None, least=0)
    checkpoint_minutes: float = _setting(10.0, least=0)
    dev_steps: int = _setting(500, least=1)
    dev_rows: int = _setting(256, least=1)
    seed: int = _setting(0, least=0)
    device: str = _setting("auto")
    precision: str = _setting("auto", choices=("auto", "fp32", "bf16"))
    attn_implementation: str = _setting("auto", choices=("auto", "eager", "sdpa"))
    n_threads: int | None = _setting(None, least=1)
    compile: bool = _setting(False)
    peak_tflops: float | None = _setting(None, least=0.001)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the file."""
        return asdict(self)


def read_config(path: Path, overrides: Iterable[str] = ()) -> PretrainConfig:
    """Read the settings of a run.

    overrides: "optimizer.lr=0.001", as given on the command line; the value is JSON or text.
    RAISES VanerError: VE501, no JSON; VE502, with every fault; VE520, an override without "=".
    """
    try:
        values = json.loads(path.read_text("utf8"))
    except (OSError, ValueError) as error:
        raise VanerError(Messages.VE501.format(path=path, error=error)) from None
    if isinstance(values, dict):
        for override in overrides:
            _override(values, override)
    return config_from_dict(values, source=str(path))


def config_from_dict(values: object, *, source: str = "the config") -> PretrainConfig:
    """Check plain values and make the settings of them; undoes `to_dict`.

    RAISES VanerError: VE502, with every fault; VE101.
    """
    faults: list[str] = []
    config = _section(PretrainConfig, values, "", faults)
    if config is not None:
        faults += _contradictions(config)
    if faults or config is None:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise VanerError(Messages.VE502.format(path=source, faults=listed))
    config.backbone.settings("sdpa")
    return config


def _contradictions(config: PretrainConfig) -> list[str]:
    faults = []
    if (config.n_steps is None) == (config.n_minutes is None):
        faults.append("n_steps, n_minutes: give exactly one of them")
    if config.rows_per_step % config.rows_per_pass:
        faults.append(
            f"rows_per_step = {config.rows_per_step} must be a multiple of rows_per_pass = "
            f"{config.rows_per_pass}"
        )
    if config.row_subwords > config.backbone.max_positions:
        faults.append(
            f"row_subwords = {config.row_subwords} is more than backbone.max_positions = "
            f"{config.backbone.max_positions}"
        )
    if config.backbone.vectors is not None and not config.backbone.word_rows:
        faults.append("backbone.vectors is given, and backbone.word_rows = 0 switches them off")
    if config.backbone.word_rows and config.objective.causal_share:
        faults.append(
            "backbone.word_rows and objective.causal_share: a word's features tell its later "
            "subwords, so they do not go with a causal mask; set one of them to 0"
        )
    if config.objective.random_share + config.objective.kept_share > 1:
        faults.append("objective: random_share and kept_share are more than 1 together")
    return faults


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise VanerError(Messages.VE520.format(problem=f"--set {override}: expected KEY=VALUE."))
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *sections, name = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise VanerError(Messages.VE520.format(problem=f"--set {override}: no such section."))
        values = inner
    values[name] = value


def _section(
    section: type[Section], values: object, path: str, faults: list[str]
) -> Section | None:
    if not isinstance(values, Mapping):
        faults.append(f"{path.rstrip('.') or 'the file'}: expected a table, found {values!r}")
        return None
    before = len(faults)
    hints = typing.get_type_hints(section)
    known = {entry.name: entry for entry in fields(typing.cast(Any, section))}
    faults += [f"{path}{key}: there is no such setting" for key in values if key not in known]
    arguments: dict[str, Any] = {}
    for name, entry in known.items():
        if name not in values:
            if entry.default is MISSING and entry.default_factory is MISSING:
                faults.append(f"{path}{name}: is missing")
        elif is_dataclass(hints[name]):
            inner: type[Any] = hints[name]
            arguments[name] = _section(inner, values[name], f"{path}{name}.", faults)
        else:
            value, fault = _value(values[name], hints[name], entry.metadata)
            arguments[name] = value
            if fault:
                faults.append(f"{path}{name} = {values[name]!r}: expected {fault}")
    return section(**arguments) if len(faults) == before else None


def _value(value: object, hint: Any, limits: Mapping[str, Any]) -> tuple[object, str | None]:
    """The value in its type, and what was expected instead where it does not fit."""
    if isinstance(hint, types.UnionType):
        if value is None:
            return None, None
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if hint is float and type(value) is int:
        value = float(value)
    # A bool is an int in Python, and no number for a reader of JSON.
    if type(value) is not hint:
        return value, names[hint]
    choices, least, most = limits["choices"], limits["least"], limits["most"]
    if choices and value not in choices:
        return value, "one of " + ", ".join(choices)
    number = typing.cast(float, value)
    # Written so that a NaN is a fault.
    if least is not None and not number >= least:
        return value, f"{least} or more"
    if most is not None and not number <= most:
        return value, f"{most} or less"
    return value, None
