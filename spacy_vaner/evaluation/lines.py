"""The results of a benchmark as lines: a system on a corpus, over one of its types or all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

ALL = "all"
"""The type of a line over all types of a corpus that has several."""


class Question(NamedTuple):
    """How systems were asked; figures of two ways of asking never share a table."""

    view: str
    named: bool

    @property
    def short_title(self) -> str:
        shown = "Raw text" if self.view == "text" else "The corpus's own words"
        return f"{shown}, {'corpus named' if self.named else 'no corpus named'}"

    @property
    def title(self) -> str:
        """With what the figures are for."""
        use = {
            ("text", False): ": what users get",
            ("tokens", True): ": what published figures are compared with",
        }
        return f"{self.short_title}{use.get((self.view, self.named), '')}"


class Key(NamedTuple):
    """What lines must share to stand beside each other."""

    file: str
    corpus: str
    type: str


@dataclass(frozen=True)
class Line:
    """What a system reached on a corpus, over all its types (`type` is ALL) or on one.

    scales: name of a scale to its score; not every scale says something of every type.
    """

    result: Mapping[str, Any]
    corpus: str
    type: str
    scales: Mapping[str, Mapping[str, Any]]

    @property
    def system(self) -> str:
        return str(self.result["system"]["name"])

    @property
    def question(self) -> Question:
        return question_of_result(self.result)

    @property
    def key(self) -> Key:
        return Key(str(self.result["file"]), self.corpus, self.type)

    @property
    def is_ours(self) -> bool:
        return bool(self.result["system"]["kind"] == "vaner")

    @property
    def is_seen(self) -> bool:
        return self.corpus in self.result["system"]["seen"]

    @property
    def gold(self) -> int:
        return int(self.scales["strict"]["gold"])

    @property
    def strict_f(self) -> float | None:
        return self.f("strict")

    def f(self, scale: str) -> float | None:
        score = self.scales.get(scale)
        return None if score is None else score["f"]


def question_of_result(result: Mapping[str, Any]) -> Question:
    return Question(result["view"], result["name_corpus"])


def lines_of(results: Iterable[Mapping[str, Any]]) -> Iterator[Line]:
    """A line per result, corpus and type, and one over all types if there are several."""
    for result in results:
        for corpus, scales in result.get("corpora", {}).items():
            types = list(scales["strict"].get("types", {}))
            for type in types:
                own = {name: s["types"][type] for name, s in scales.items() if "types" in s}
                yield Line(result, corpus, type, own)
            if len(types) > 1:
                micro = {name: score["micro"] for name, score in scales.items()}
                yield Line(result, corpus, ALL, micro)


def questions(lines: Iterable[Line]) -> list[Question]:
    """The ways of asking, raw text first, without a corpus name first."""
    found = {line.question for line in lines}
    return sorted(found, key=lambda question: (question.view != "text", question.named))


def of_most_types(lines: Sequence[Line]) -> list[Line]:
    """Of the lines of one key those over as many gold mentions as any has."""
    most = max((line.gold for line in lines), default=0)
    return [line for line in lines if line.gold == most]


def best(lines: Iterable[Line]) -> Line | None:
    """The line with the highest strict F1 among those that have one."""
    return max(
        (line for line in lines if line.strict_f is not None),
        key=lambda line: line.strict_f or 0.0,
        default=None,
    )
