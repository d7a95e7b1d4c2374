"""The settings of a run: a JSON file, checked as a whole before anything is done.

Every fault is listed with its path in the file. The defaults are for two CPU cores. What is set
for tagging stands in tag_config.py.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from spacy_vaner.backbone.settings import SmallLlama
from spacy_vaner.errors import Messages, VanerError

Section = TypeVar("Section")
AnyConfig = TypeVar("AnyConfig", bound="RunSettings")

_REQUIRED: Any = MISSING


def setting(
    default: Any = _REQUIRED,
    *,
    factory: Any = MISSING,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with what its value may be; `least` and `most` are included."""
    limits = {"least": least, "most": most, "choices": choices}
    if factory is not MISSING:
        return field(default_factory=factory, metadata=limits)
    return field(default=default, metadata=limits)


@dataclass(frozen=True, kw_only=True)
class BackboneShape:
    """The LLaMA that is trained; the size of its vocabulary comes from the prepared text.

    max_positions: longest input that the saved backbone reads; rotary positions have no weights,
        so it may be more than `row_subwords`.
    word_rows: of the hashed table of words; 0 = the embedding knows subwords only.
    word_width: of that table and of those of affixes and shapes.
    vectors: file of static word vectors (`python -m spacy_vaner.training vectors`), or null.
    """

    hidden_size: int = setting(512, least=2)
    n_layers: int = setting(4, least=1)
    n_heads: int = setting(8, least=1)
    intermediate_size: int = setting(1376, least=1)
    max_positions: int = setting(1024, least=2)
    word_rows: int = setting(0, least=0)
    word_width: int = setting(64, least=1)
    vectors: str | None = setting(None)

    def contradictions(self) -> list[str]:
        """What does not go together."""
        if self.vectors is not None and not self.word_rows:
            return ["backbone.vectors is given, and backbone.word_rows = 0 switches them off"]
        return []

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
        own state; "rtd", of every subword whether it is the one that was written, or was drawn at
        random by frequency.
    masking_rate: share of the subwords that are predicted, or that others are drawn for.
    names: file of names (.tsv, .tsv.xz) that are hidden as a whole, or null.
    name_share: of the hidden subwords that are parts of names, where there are enough.
    whole_words: mask all subwords of a word (as white space separates words) or none.
    random_share, kept_share: of the predicted subwords, how many are shown as another subword or
        as they are; the rest is shown as the mask.
    causal_share: share of the steps that predict the next subword under the causal mask instead.
    causal_rate: share of the subwords that such a step predicts; less saves time in the output
        layer.
    SOURCE: BERT, section 3.1 (shares); LLM2Vec, section 2.1 (mntp); differs: the count of masked
        subwords per pass is fixed, so that shapes are. ELECTRA, section 2 (rtd); differs: no
        generator, but unigrams; Electric, section 2.2: the score of a subword is the product of
        its state and its embedding, so there is no weight that a backbone has no place for.
    """

    name: str = setting("mntp", choices=("mntp", "mlm", "rtd"))
    masking_rate: float = setting(0.2, least=0.01, most=0.9)
    whole_words: bool = setting(True)
    names: str | None = setting(None)
    name_share: float = setting(0.0, least=0, most=1)
    random_share: float = setting(0.1, least=0, most=1)
    kept_share: float = setting(0.1, least=0, most=1)
    causal_share: float = setting(0.0, least=0, most=1)
    causal_rate: float = setting(1.0, least=0.01, most=1)


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

    name: str = setting("muon", choices=("adamw", "muon"))
    lr: float = setting(2e-3, least=0)
    weight_decay: float = setting(0.05, least=0)
    beta1: float = setting(0.9, least=0, most=0.9999)
    beta2: float = setting(0.95, least=0, most=0.9999)
    momentum: float = setting(0.95, least=0, most=0.9999)
    clip_norm: float = setting(1.0, least=0)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The rate over the run.

    name: after the warm-up "cosine", "linear", or "wsd": constant, then linear over the last
        `decay_share` of the run.
    warmup_steps: steps of linear warm-up.
    final_share: of `lr`, reached at the end.
    """

    name: str = setting("cosine", choices=("cosine", "linear", "wsd"))
    warmup_steps: int = setting(100, least=0)
    decay_share: float = setting(0.2, least=0, most=1)
    final_share: float = setting(0.02, least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every run has, whatever it trains.

    n_steps, n_minutes: the length of the whole run, exactly one of them. The schedule goes by it.
        By minutes the rate depends on the clock, so two runs are not equal to the bit.
    max_minutes: a run is stopped after so long, with a checkpoint, each time it is started.
    checkpoint_minutes: minutes between checkpoints; 0 = after every step.
    dev_steps: how often it is measured on dev.
    device, precision: as in the component's settings.
    attn_implementation: "eager", "sdpa", or "auto": eager on a CPU in bf16, where sdpa's backward
        pass is slow, else sdpa.
    n_threads: of torch; null = its own choice.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"max_minutes", "checkpoint_minutes", "dev_steps"})
    """What may differ when a run goes on without changing its losses."""
    CHANGEABLE: ClassVar[frozenset[str]] = frozenset(
        {"device", "precision", "attn_implementation", "n_threads", "n_steps", "n_minutes"}
        | {"optimizer.lr", "optimizer.clip_norm", "optimizer.weight_decay", "schedule.name"}
        | {"schedule.warmup_steps", "schedule.decay_share", "schedule.final_share"}
    )
    """What may differ with a warning: what lengthens a run or moves it elsewhere."""

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: Schedule = field(default_factory=Schedule)
    n_steps: int | None = setting(None, least=1)
    n_minutes: float | None = setting(None, least=0.001)
    max_minutes: float | None = setting(None, least=0)
    checkpoint_minutes: float = setting(10.0, least=0)
    dev_steps: int = setting(500, least=1)
    seed: int = setting(0, least=0)
    device: str = setting("auto")
    precision: str = setting("auto", choices=("auto", "fp32", "bf16"))
    attn_implementation: str = setting("auto", choices=("auto", "eager", "sdpa"))
    n_threads: int | None = setting(None, least=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the file."""
        return asdict(self)

    def contradictions(self) -> list[str]:
        """What does not go together."""
        if (self.n_steps is None) == (self.n_minutes is None):
            return ["n_steps, n_minutes: give exactly one of them"]
        return []

    def attention_on(self, device_type: str, precision: str) -> str:
        """`attn_implementation` with "auto" resolved."""
        if self.attn_implementation != "auto":
            return self.attn_implementation
        return "eager" if device_type == "cpu" and precision == "bf16" else "sdpa"


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunSettings):
    """A run of pretraining.

    data: folder that `prepare` made.
    row_subwords: length of a packed row; rows_per_step, rows_per_pass: rows per update, and per
        forward and backward pass (gradients are accumulated).
    dev_rows: rows that the dev loss is computed over.
    compile: torch.compile; minutes of compilation, then faster on CUDA.
    peak_tflops: what the device can do in this precision; with it the log has `flops_share`.
    """

    FREE: ClassVar[frozenset[str]] = RunSettings.FREE | {
        *("dev_rows", "peak_tflops", "data", "backbone.vectors", "objective.names"),
    }
    CHANGEABLE: ClassVar[frozenset[str]] = RunSettings.CHANGEABLE | {"compile", "rows_per_pass"}

    data: str = setting()
    backbone: BackboneShape = field(default_factory=BackboneShape)
    objective: Objective = field(default_factory=Objective)
    row_subwords: int = setting(256, least=8)
    rows_per_step: int = setting(32, least=1)
    rows_per_pass: int = setting(32, least=1)
    dev_rows: int = setting(256, least=1)
    compile: bool = setting(False)
    peak_tflops: float | None = setting(None, least=0.001)

    def contradictions(self) -> list[str]:
        """RAISES VanerError: VE101, of the backbone library's own checks."""
        faults = super().contradictions() + self.backbone.contradictions()
        if self.rows_per_step % self.rows_per_pass:
            faults.append(
                f"rows_per_step = {self.rows_per_step} must be a multiple of rows_per_pass = "
                f"{self.rows_per_pass}"
            )
        if self.row_subwords > self.backbone.max_positions:
            faults.append(
                f"row_subwords = {self.row_subwords} is more than backbone.max_positions = "
                f"{self.backbone.max_positions}"
            )
        if self.backbone.word_rows and self.objective.causal_share:
            faults.append(
                "backbone.word_rows and objective.causal_share: a word's features tell its later "
                "subwords, so they do not go with a causal mask; set one of them to 0"
            )
        if bool(self.objective.names) != bool(self.objective.name_share):
            faults.append("objective.names, objective.name_share: give both or none of them")
        if self.objective.random_share + self.objective.kept_share > 1:
            faults.append("objective: random_share and kept_share are more than 1 together")
        if not faults:
            self.backbone.settings("sdpa")
        return faults


def read_config(path: Path, kind: type[AnyConfig], overrides: Iterable[str] = ()) -> AnyConfig:
    """Read the settings of a run.

    kind: what is run.
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
    return config_from_dict(values, kind, source=str(path))


def config_from_dict(
    values: object, kind: type[AnyConfig], *, source: str = "the config"
) -> AnyConfig:
    """Check plain values and make the settings of them; undoes `to_dict`.

    RAISES VanerError: VE502, with every fault; VE101.
    """
    faults: list[str] = []
    config = _section(kind, values, "", faults)
    if config is not None:
        faults += config.contradictions()
    if faults or config is None:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise VanerError(Messages.VE502.format(path=source, faults=listed))
    return config


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
    if typing.get_origin(hint) is dict:
        return _table(value, typing.get_args(hint)[1], limits)
    if typing.get_origin(hint) is list:
        is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return value, None if is_list else "a list of texts"
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


def _table(value: object, hint: Any, limits: Mapping[str, Any]) -> tuple[object, str | None]:
    """The same for a table from names to values of one type."""
    if not isinstance(value, Mapping):
        return value, "a table"
    checked = {str(key): _value(inner, hint, limits) for key, inner in value.items()}
    faults = [f"{fault} for {key}" for key, (_, fault) in checked.items() if fault]
    return {key: inner for key, (inner, _) in checked.items()}, faults[0] if faults else None
