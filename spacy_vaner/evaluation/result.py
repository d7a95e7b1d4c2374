"""What an evaluation found, and its JSON form."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spacy_vaner import __version__
from spacy_vaner.files import write_whole
from spacy_vaner.metrics import Counts, Intervals, bootstrap_intervals, micro

FORMAT = 1
"""Of the JSON; a reader of results refuses what it does not know."""

LEVEL = 0.95
"""Of the intervals."""

_PACKAGES = ("spacy", "torch", "transformers", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Score:
    """One line of a table.

    n_documents: documents that are annotated completely for what is scored.
    n_discontinuous: gold mentions of several fragments; they are among the missed ones.
    intervals: 95 % bootstrap intervals over these documents.
    """

    counts: Counts
    intervals: Intervals
    n_documents: int
    n_discontinuous: int

    @classmethod
    def of(
        cls, per_document: Sequence[Counts], *, n_discontinuous: int, seed: int, n_resamples: int
    ) -> Score:
        """Sum up documents and draw the intervals."""
        return cls(
            counts=micro(per_document),
            intervals=bootstrap_intervals(per_document, n=n_resamples, seed=seed, level=LEVEL),
            n_documents=len(per_document),
            n_discontinuous=n_discontinuous,
        )

    def to_dict(self) -> dict[str, Any]:
        """Counts as they are, P/R/F from 0 to 1 and null where undefined."""
        return {
            "documents": self.n_documents,
            "gold": self.counts.gold,
            "discontinuous": self.n_discontinuous,
            "tp": self.counts.tp,
            "fp": self.counts.fp,
            "fn": self.counts.fn,
            "p": self.counts.p,
            "r": self.counts.r,
            "f": self.counts.f,
            "p_interval": self.intervals.p,
            "r_interval": self.intervals.r,
            "f_interval": self.intervals.f,
        }


@dataclass(frozen=True, slots=True)
class CorpusScores:
    """The scores of a corpus: over all its types, and each type in the order of the files."""

    micro: Score
    types: Mapping[str, Score]


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """All that an evaluation found, and all that is needed to repeat it.

    corpora: in the order of the files.
    overall: micro, over all documents of all corpora.
    n_unscored_documents: read, but annotated completely for no type, so neither asked nor scored.
    unscored_labels: labels that the pipeline predicted and that are no type of any document, with
        how often.
    n_words: words of the scored documents, as the files have them.
    seconds: spent inside the pipeline, reading and scoring left out, the first batch included.
    settings: what was asked for (view, matching, seed, …), in the order of the JSON.
    """

    corpora: Mapping[str, CorpusScores]
    overall: Score
    n_unscored_documents: int
    unscored_labels: Mapping[str, int]
    n_words: int
    seconds: float
    settings: Mapping[str, Any]

    @property
    def words_per_s(self) -> float | None:
        return self.n_words / self.seconds if self.seconds > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values in a fixed order of keys."""
        return {
            "format": FORMAT,
            **self.settings,
            "documents": self.overall.n_documents,
            "unscored_documents": self.n_unscored_documents,
            "unscored_labels": dict(self.unscored_labels),
            "words": self.n_words,
            "seconds": round(self.seconds, 3),
            "words_per_s": None if self.words_per_s is None else round(self.words_per_s, 1),
            "versions": versions(),
            "overall": self.overall.to_dict(),
            "corpora": {
                name: {
                    "micro": corpus.micro.to_dict(),
                    "types": {type: score.to_dict() for type, score in corpus.types.items()},
                }
                for name, corpus in self.corpora.items()
            },
        }

    def to_disk(self, path: Path) -> None:
        """Write the JSON beside `path` and rename it, so that no half of a file is ever there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        write_whole(path, text.encode("utf8"))


def versions() -> dict[str, str | None]:
    """Of the packages that decide about figures, Python and the kind of machine; null = missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    found["machine"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    found["spacy_vaner"] = __version__
    return found
