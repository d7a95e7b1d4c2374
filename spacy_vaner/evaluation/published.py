"""Published figures (published.json) beside those that were measured here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from spacy_vaner.evaluation.lines import Line, best, of_most_types
from spacy_vaner.evaluation.tables import UNDEFINED, percent, plain, table

NEAREST_SCALES = {
    "strict": "strict",
    "lenient": "paper",
    "near": "near",
    "alternatives": "alternatives",
    "scispacy": "strict",
}
"""Scale of a published figure to the one of ours that comes nearest; "unknown" has none."""

_PAPER = "VANER"
_OTHER_SPLITS = (".train.spacy", ".dev.spacy")


class Figure(NamedTuple):
    """p, r, f: per cent."""

    system: str
    corpus: str
    type: str
    p: float | None
    r: float | None
    f: float
    scale: str
    source: str


@lru_cache
def _data() -> Mapping[str, Any]:
    text = (files("spacy_vaner.evaluation") / "published.json").read_text("utf8")
    data: dict[str, Any] = json.loads(text)
    return data


def figures_of(corpus: str) -> Iterator[Figure]:
    """All published figures of a corpus, in the order of the file."""
    for source in _data()["tables"]:
        for row in source["figures"]:
            if row["corpus"] == corpus:
                notes = filter(None, [source.get("note"), row.get("note")])
                yield Figure(
                    row["system"],
                    corpus,
                    row["type"],
                    row.get("p"),
                    row.get("r"),
                    row["f"],
                    source["scale"],
                    "; ".join([source["source"], *notes]),
                )


def published_section(corpus: str) -> str:
    """All published figures of a corpus; empty if there are none."""
    rows = [
        [
            figure.system,
            figure.type,
            *(plain(value) for value in (figure.p, figure.r, figure.f)),
            figure.scale,
            figure.source,
        ]
        for figure in figures_of(corpus)
    ]
    if not rows:
        return ""
    header = ["published, not measured here", "type", "P", "R", "F1", "scale", "source"]
    return table(header, rows)


def published_scales(corpora: Iterable[str]) -> dict[str, str]:
    """The scales that figures of these corpora stand on, with what each means."""
    used = {figure.scale for corpus in corpora for figure in figures_of(corpus)}
    return {name: what for name, what in _data()["scales"].items() if name in used}


def beside_published(lines: Sequence[Line]) -> str:
    """The best of ours on the scale that is nearest to each published one; empty without ours.

    Published figures are of test splits, so those of other splits are not set beside them.
    """
    lines = [line for line in lines if not line.key.file.endswith(_OTHER_SPLITS)]
    rows = []
    for corpus, type in dict.fromkeys((line.corpus, line.type) for line in lines):
        own = _comparable([line for line in lines if (line.corpus, line.type) == (corpus, type)])
        ours = best(line for line in of_most_types(own) if line.is_ours)
        found = [figure for figure in figures_of(corpus) if figure.type == type]
        for scale, ours_on in NEAREST_SCALES.items():
            on_scale = [figure for figure in found if figure.scale == scale]
            if ours is None or not on_scale or (f := ours.f(ours_on)) is None:
                continue
            highest = max(on_scale, key=lambda figure: figure.f)
            paper = next((figure for figure in on_scale if figure.system == _PAPER), None)
            rows.append(
                [
                    f"{corpus} {type}",
                    scale,
                    f"{percent(f)} ({ours_on})",
                    plain(None if paper is None else paper.f),
                    UNDEFINED if paper is None else f"{100 * f - paper.f:+.2f}",
                    f"{highest.system}, {highest.f:.2f}",
                    f"{100 * f - highest.f:+.2f}",
                ]
            )
    if not rows:
        return ""
    header = ["corpus, type", "published scale", "best of ours (our nearest scale)"]
    header += [f"{_PAPER}, published", "difference", "highest published", "difference"]
    return (
        "## Beside published figures\n\nOther documents' cuts, other splits and single runs stand "
        "behind the published figures, and no scale of ours is quite theirs; what each rests on is "
        "in the tables of the corpora. Ours is asked in the way that comes nearest: the corpus's "
        "words and name where that was measured.\n\n" + table(header, rows)
    )


def _comparable(lines: Sequence[Line]) -> list[Line]:
    """Those asked with the corpus's words and name, if there are any."""
    alike = [line for line in lines if line.question.view == "tokens" and line.question.named]
    return alike or list(lines)
