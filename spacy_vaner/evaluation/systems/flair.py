"""HunFlair, HunFlair2 and other taggers of flair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spacy_vaner.errors import Messages
from spacy_vaner.evaluation.predictions import FoundSpan
from spacy_vaner.evaluation.systems.base import (
    Question,
    SystemMissing,
    SystemSpec,
    require,
    size_on_disk,
)

_INSTALL = "flair==0.15.1 (docs/benchmark.md says how)"


class FlairSystem:
    """A tagger; texts are cut into sentences and words by flair's own splitter."""

    def __init__(
        self,
        tagger: Any,
        splitter: Any,
        *,
        label_map: Mapping[str, str],
        batch_size: int,
        size_bytes: int | None,
    ) -> None:
        self.tagger = tagger
        self.splitter = splitter
        self.label_map = label_map
        self.batch_size = batch_size
        self.size_bytes = size_bytes
        self.unmapped: Counter[str] = Counter()
        self.facts: dict[str, Any] = {}
        labels = {tag[2:] for tag in tagger.label_dictionary.get_items() if tag[1:2] == "-"}
        # The dictionary of a tagger holds tags (S-Gene), that of others the bare labels.
        labels |= {tag for tag in tagger.label_dictionary.get_items() if tag[1:2] != "-"}
        labels -= {"O", "<unk>", "<START>", "<STOP>"}
        self.types: frozenset[str] | None = frozenset(map(self._type, labels))

    def _type(self, label: str) -> str:
        return self.label_map.get(label, label)

    def predict(self, questions: Iterable[Question]) -> Iterator[list[FoundSpan]]:
        """See System; the view "tokens" is not used, it reads the text."""
        for question in questions:
            sentences = self.splitter.split(question.text)
            self.tagger.predict(sentences, mini_batch_size=self.batch_size, label_name="found")
            yield [
                FoundSpan(
                    self._type(span.tag),
                    sentence.start_position + span.start_position,
                    sentence.start_position + span.end_position,
                    min(1.0, float(span.score)),
                )
                for sentence in sentences
                for span in sentence.get_spans("found")
            ]


def load(spec: SystemSpec) -> FlairSystem:
    """`settings`: batch_size (32).

    RAISES SystemMissing: the package or the weights.
    """
    require("flair", _INSTALL)
    from flair.models import SequenceTagger
    from flair.nn import Classifier
    from flair.splitter import SegtokSentenceSplitter

    path = Path(spec.where)
    try:
        # HunFlair2 is a class of its own; the general loader finds it by name.
        tagger = SequenceTagger.load(path) if path.exists() else Classifier.load(spec.where)
    except Exception as error:  # requests, botocore and the hub each raise their own
        raise SystemMissing(Messages.VE466.format(where=spec.where, reason=error)) from error
    return FlairSystem(
        tagger,
        SegtokSentenceSplitter(),
        label_map=spec.label_map,
        batch_size=spec.settings.get("batch_size", 32),
        size_bytes=size_on_disk(path),
    )
