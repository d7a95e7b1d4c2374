"""The settings of the component: checked whenever they are set, saved, and restored.

A setting that was changed on the component is saved with it. On loading it comes back unless the
config now gives another value than the config at the time of saving did: that is an override of
the user's, and it wins.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from spacy_vaner.errors import Messages, VanerError, VanerWarning

Value = TypeVar("Value")

SAVED = (
    "types",
    "corpus",
    "spans_key",
    "annotate_ents",
    "overwrite_ents",
    "threshold",
    "repeat_threshold",
    "batch_subwords",
    "asking",
    "precision",
    "engine",
    "label_map",
    "retokenize",
)
"""What a saved component carries; the device belongs to the machine, not to the model."""


class Setting(Generic[Value]):
    """An attribute whose value is checked when it is set.

    check: given the name and the value, returns the value to keep or raises VanerError.
    """

    def __init__(self, check: Callable[[str, Any], Value]) -> None:
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        if instance is None:
            return self  # type: ignore[return-value]
        value: Value = vars(instance)[f"_{self._name}"]
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[f"_{self._name}"] = self._check(self._name, value)


def one_of(*choices: str) -> Callable[[str, Any], str]:
    """A check that a value is one of a few."""

    def check(name: str, value: Any) -> str:
        if value not in choices:
            raise VanerError(
                Messages.VE026.format(name=name, value=value, choices=", ".join(choices))
            )
        return str(value)

    return check


def check_batch_subwords(name: str, value: Any) -> int:
    """RAISES VanerError: VE016."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise VanerError(Messages.VE016.format(batch_subwords=value))
    return value


def check_threshold(name: str, value: Any) -> float | dict[str, float] | None:
    """RAISES VanerError: VE027, neither a probability nor a table of them nor null."""
    if value is None:
        return None
    numbers = list(value.values()) if isinstance(value, Mapping) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 1:
            raise VanerError(Messages.VE027.format(threshold=value))
    return dict(value) if isinstance(value, Mapping) else float(value)


def check_repeat_threshold(name: str, value: Any) -> float | None:
    """RAISES VanerError: VE042, neither a probability nor null."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise VanerError(Messages.VE042.format(repeat_threshold=value))
    return float(value)


def check_types(types: Sequence[str] | str) -> tuple[str, ...]:
    """The types without repetitions. RAISES VanerError: VE021, VE022.

    types: a list, or one string with commas between, as it can be given on a command line.
    """
    if isinstance(types, str):
        types = [part.strip() for part in types.split(",")]
    if not types or not isinstance(types, Sequence):
        raise VanerError(Messages.VE021.format(types=types))
    for name in types:
        if not isinstance(name, str) or not is_type_name(name):
            raise VanerError(Messages.VE022.format(name=name))
    return tuple(dict.fromkeys(types))


def check_adapters(adapters: Any) -> list[dict[str, Any]]:
    """What a config says about adapters: a list of `{"types": […], "path": …}`.

    RAISES VanerError: VE035, VE021, VE022.
    """
    entries = list(adapters) if isinstance(adapters, (list, tuple)) else [adapters]
    for entry in entries:
        if (
            not isinstance(entry, Mapping)
            or entry.keys() != {"types", "path"}
            or not isinstance(entry["path"], str)
        ):
            raise VanerError(Messages.VE035.format(adapters=adapters))
    return [
        {"types": list(check_types(entry["types"])), "path": entry["path"]} for entry in entries
    ]


def warn_of_misspelled_types(component: Any, asked: Iterable[str], warned: set[str]) -> None:
    """Warn, once per setting, where a table by type looks as if it had a spelling mistake.

    A table may name more types than are asked, or fewer. It is suspicious if it has a name that
    is asked nowhere while one of the component's types is missing from it.

    asked: what is asked besides the component's types.
    warned: the settings that have been complained about; kept by the caller.
    WARNS VanerWarning: VW030.
    """
    for setting in ("label_map", "threshold", "corpus"):
        table = getattr(component, setting)
        if setting in warned or not isinstance(table, Mapping):
            continue
        unknown = sorted(set(table).difference(component.types, asked))
        missing = [name for name in component.types if name not in table]
        if unknown and missing:
            warned.add(setting)
            warnings.warn(
                Messages.VW030.format(setting=setting, unknown=unknown, missing=missing),
                VanerWarning,
                stacklevel=4,
            )


def is_type_name(name: str) -> bool:
    """Whether a config file can hold the name: text without ":", "=", line breaks, outer blanks."""
    return bool(name) and name == name.strip() and not any(c in name for c in ":=\n\r")


def read_settings(component: Any) -> dict[str, Any]:
    """The settings that are saved, as JSON gives them back."""
    return {key: _plain(getattr(component, key)) for key in SAVED}


def restore_settings(
    component: Any,
    *,
    configured: Mapping[str, Any],
    saved_configured: Mapping[str, Any],
    saved: Mapping[str, Any],
) -> None:
    """Bring back what had been changed on a component, except what the config now overrides.

    configured: what the config of the loading pipeline gives.
    saved_configured, saved: what the config gave, and what was set, at the time of saving.
    """
    for key in SAVED:
        if key in saved and configured[key] == saved_configured.get(key):
            setattr(component, key, saved[key])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, (list, tuple)) else value
