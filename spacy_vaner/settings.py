"""The settings of the component: checked whenever they are set, saved, and restored.

A setting that was changed on the component is saved with it. On loading it comes back unless the
config now gives another value than the config at the time of saving did: that is an override of
the user's, and it wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from spacy_vaner.errors import Messages, VanerError

Value = TypeVar("Value")

SAVED = (
    "types",
    "corpus",
    "spans_key",
    "annotate_ents",
    "overwrite_ents",
    "threshold",
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


def check_threshold(name: str, value: Any) -> float | dict[str, float]:
    """RAISES VanerError: VE027, neither a probability nor a table of them."""
    numbers = list(value.values()) if isinstance(value, Mapping) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 1:
            raise VanerError(Messages.VE027.format(threshold=value))
    return dict(value) if isinstance(value, Mapping) else float(value)


def check_types(types: Sequence[str]) -> tuple[str, ...]:
    """The types without repetitions. RAISES VanerError: VE021, VE022."""
    if isinstance(types, str) or not types:
        raise VanerError(Messages.VE021.format(types=types))
    for name in types:
        if not isinstance(name, str) or not is_type_name(name):
            raise VanerError(Messages.VE022.format(name=name))
    return tuple(dict.fromkeys(types))


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
