"""GLiNER and GLiNER-BioMed: types by their names, without training on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import spacy

from spacy_vaner.errors import Messages
from spacy_vaner.evaluation.predictions import FoundSpan
from spacy_vaner.evaluation.systems.base import (
    FOUR_TYPES,
    Question,
    SystemMissing,
    SystemSpec,
    require,
    size_on_disk,
)

_MAX_WORDS = 200
"""Of a chunk of whole sentences. GLiNER drops what is beyond its own limit, mostly 384 words."""


class GlinerSystem:
    """A GLiNER model; long texts are read in chunks of whole sentences.

    label_map: what the model is asked → type, e.g. {"gene or protein": "Gene"}; a type without one
        is asked by its name in small letters.
    """

    def __init__(
        self,
        model: Any,
        *,
        label_map: Mapping[str, str],
        threshold: float,
        max_words: int,
        batch_size: int,
        size_bytes: int | None,
    ) -> None:
        self.model = model
        self.labels = {type: label for label, type in label_map.items()}
        self.threshold = threshold
        self.max_words = max_words
        self.batch_size = batch_size
        self.types: frozenset[str] | None = None
        self.size_bytes = size_bytes
        self.unmapped: Counter[str] = Counter()
        self.facts: dict[str, Any] = {"threshold": threshold, "max_words": max_words}
        self._splitter = spacy.blank("en")
        self._splitter.add_pipe("sentencizer")

    def predict(self, questions: Iterable[Question]) -> Iterator[list[FoundSpan]]:
        """See System; the view "tokens" is not known to it, it reads the text."""
        for question in questions:
            types = {
                self.labels.get(type, type.lower()): type for type in question.types or FOUR_TYPES
            }
            chunks = list(self._chunks(question.text))
            answers = self.model.inference(
                [question.text[start:end] for start, end in chunks],
                list(types),
                flat_ner=True,
                threshold=self.threshold,
                batch_size=self.batch_size,
            )
            yield [
                FoundSpan(
                    types[entity["label"]],
                    start + entity["start"],
                    start + entity["end"],
                    min(1.0, float(entity["score"])),
                )
                for (start, _), entities in zip(chunks, answers, strict=True)
                for entity in entities
            ]

    def _chunks(self, text: str) -> Iterator[tuple[int, int]]:
        """Offsets of runs of sentences; a sentence that is too long by itself is cut."""
        doc = self._splitter(text)
        first = last = 0
        for sentence in doc.sents:
            if sentence.end - first > self.max_words and last > first:
                yield doc[first].idx, doc[last - 1].idx + len(doc[last - 1])
                first = last
            last = sentence.end
            while last - first > self.max_words:
                cut = first + self.max_words
                yield doc[first].idx, doc[cut - 1].idx + len(doc[cut - 1])
                first = cut
        if last > first:
            yield doc[first].idx, len(text)


def load(spec: SystemSpec) -> GlinerSystem:
    """`settings`: threshold (0.5), max_words (200), batch_size (8).

    RAISES SystemMissing: the package or the weights.
    """
    gliner = require("gliner", "spacy_vaner[benchmark]")
    try:
        model = gliner.GLiNER.from_pretrained(spec.where)
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemMissing(Messages.VE466.format(where=spec.where, reason=error)) from error
    model.eval()
    return GlinerSystem(
        model,
        label_map=spec.label_map,
        threshold=spec.settings.get("threshold", 0.5),
        max_words=spec.settings.get("max_words", _MAX_WORDS),
        batch_size=spec.settings.get("batch_size", 8),
        size_bytes=size_on_disk(Path(spec.where)),
    )
