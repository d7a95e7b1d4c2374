"""What a benchmark asks of a system, and what an adaptor has to give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.evaluation.predictions import FoundSpan

FOUR_TYPES = ("Disease", "Chemical", "Gene", "Species")
"""Asked of a system that takes any type, where a text comes without a question."""


@dataclass(frozen=True)
class SystemSpec:
    """A row of the table of systems.

    name: as the report calls it. kind: a key of KINDS. where: its weights, files or name.
    label_map: label of the system to type.
    trained_on: names of the corpora that it was trained on; one = a row of the cross-corpus matrix.
    seen: corpora whose test split it saw in training; its figures there are marked.
    note: what a reader of its figures has to know.
    settings: of its kind, e.g. {"threshold": 0.5} of gliner.
    """

    name: str
    kind: str
    where: str = ""
    label_map: Mapping[str, str] = field(default_factory=dict)
    trained_on: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    note: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> SystemSpec:
        """RAISES VanerError: VE461, a row of another form."""
        try:
            lists = {key: tuple(row[key]) for key in ("trained_on", "seen") if key in row}
            return cls(**{**row, **lists})
        except TypeError as error:
            raise VanerError(Messages.VE461.format(row=row, reason=error)) from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back."""
        lists = {"trained_on": list(self.trained_on), "seen": list(self.seen)}
        return {**asdict(self), **lists}


@dataclass(frozen=True, slots=True)
class Question:
    """A text and what is asked about it.

    types: what is asked; empty = all that the system knows, or FOUR_TYPES.
    names: corpus name per type for an instruction; None = none is named, empty = the corpus has no
        names, and the system's own setting counts.
    words, spaces, sent_starts: the words of the corpus, for systems that take words; None in the
        view "text".
    """

    text: str
    types: tuple[str, ...] = ()
    names: Mapping[str, str] | None = None
    words: tuple[str, ...] | None = None
    spaces: tuple[bool, ...] | None = None
    sent_starts: tuple[bool, ...] | None = None


class System(Protocol):
    """What an adaptor's `load` returns.

    types: those that it can find; None = any that it is asked for.
    size_bytes: of its files on the disk; None where they are not known.
    unmapped: labels that it predicted and that are no type, with how often.
    facts: what else tells which system it is, e.g. its version, settings and training seed; read
        after predicting.
    """

    types: frozenset[str] | None
    size_bytes: int | None
    unmapped: Counter[str]
    facts: Mapping[str, Any]

    def predict(self, questions: Iterable[Question]) -> Iterator[list[FoundSpan]]:
        """Find entities; an answer per question, in their order, with exact offsets."""


class SystemMissing(Exception):
    """A package or the weights of a system are not there; the text says what to install."""


def require(package: str, install: str) -> ModuleType:
    """Import a package of a rival. RAISES SystemMissing: it cannot be imported."""
    try:
        return import_module(package)
    except ImportError as error:
        message = Messages.VE462.format(package=package, install=install, reason=error)
        raise SystemMissing(message) from error


def size_on_disk(path: Path) -> int | None:
    """Bytes of a file or of all files in a folder; None if there is neither."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None
