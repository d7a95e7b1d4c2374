"""spaCy pipelines: with vaner_ner, with any other component that sets entities, and spaCy's CNN."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.evaluation.predictions import FoundSpan
from spacy_vaner.evaluation.run import settings_in_use
from spacy_vaner.evaluation.systems.base import (
    FOUR_TYPES,
    Question,
    SystemMissing,
    SystemSpec,
    size_on_disk,
)
from spacy_vaner.gold import FACTORY, Ask, set_ask, types_of_pipeline, vaner_components
from spacy_vaner.predictions import PREDICTIONS_KEY

_SETTINGS_OF_OURS = {"engine", "precision", "threshold", "repeat_threshold"}


class PipelineSystem:
    """A pipeline; exact offsets where a vaner_ner wrote them, entities otherwise.

    RAISES VanerError: VE408, no component sets entities.
    """

    def __init__(
        self,
        nlp: Language,
        *,
        label_map: Mapping[str, str],
        path: Path | None = None,
        batch_size: int | None = None,
    ) -> None:
        ours = types_of_pipeline(nlp)
        setters = [name for name in nlp.pipe_names if _sets_ents(nlp, name)]
        if ours is None and not setters:
            components = ", ".join(nlp.pipe_names) or "empty"
            raise VanerError(Messages.VE408.format(components=components))
        self.nlp = nlp
        self.label_map = label_map
        self.batch_size = batch_size
        self.unmapped: Counter[str] = Counter()
        self.size_bytes = None if path is None else size_on_disk(path)
        labels = {label for name in setters for label in nlp.pipe_labels.get(name, ())}
        known = ours if ours is not None else {label_map.get(label, label) for label in labels}
        # A component that does not tell its labels, such as spacy-llm's, may find any of them.
        self.types = frozenset(known) or None

    @property
    def facts(self) -> Mapping[str, Any]:
        """See System; which engine runs is known once something was predicted."""
        return {
            "pipeline": f"{self.nlp.lang}_{self.nlp.meta['name']}-{self.nlp.meta['version']}",
            "components": list(self.nlp.pipe_names),
            "component_settings": settings_in_use(self.nlp),
            "training_seed": self.nlp.config.interpolate().get("training", {}).get("seed"),
        }

    def predict(self, questions: Iterable[Question]) -> Iterator[list[FoundSpan]]:
        """See System; `doc.user_data["vaner"]["ask"]` tells a vaner_ner what is asked."""
        docs = self.nlp.pipe(map(self._doc, questions), batch_size=self.batch_size)
        for doc in docs:
            yield list(self._found(doc))

    def _doc(self, question: Question) -> Doc:
        if question.words is None:
            doc = self.nlp.make_doc(question.text)
        else:
            doc = Doc(
                self.nlp.vocab,
                words=list(question.words),
                spaces=list(question.spaces or ()),
                sent_starts=list(question.sent_starts) if question.sent_starts else None,
            )
        if question.types:
            ask = Ask(types=list(question.types))
            if question.names is None:
                ask["corpus"] = None
            elif question.names:
                ask["corpus"] = dict(question.names)
            set_ask(doc, ask)
        return doc

    def _found(self, doc: Doc) -> Iterator[FoundSpan]:
        if PREDICTIONS_KEY in doc.user_data:
            for type, start, end, probability in doc.user_data[PREDICTIONS_KEY]:
                yield FoundSpan(type, start, end, probability)
            return
        for ent in doc.ents:
            if self.label_map and ent.label_ not in self.label_map:
                self.unmapped[ent.label_] += 1
            type = self.label_map.get(ent.label_, ent.label_)
            yield FoundSpan(type, ent.start_char, ent.end_char)


def _sets_ents(nlp: Language, name: str) -> bool:
    meta = nlp.get_pipe_meta(name)
    # What spacy-llm's component sets depends on its task, and it does not say so.
    return "doc.ents" in meta.assigns or meta.factory == "llm"


def load(spec: SystemSpec) -> PipelineSystem:
    """Kinds "vaner", "spacy" and "cnn"; `settings`: batch_size, and engine, precision, threshold
    and repeat_threshold of a vaner_ner. A "vaner" without a place is the tagger of the package.

    RAISES SystemMissing: no such pipeline. VanerError: VE408; VE026, VE027, VE042, a setting that
        cannot be.
    """
    if spec.kind == "cnn":
        return PipelineSystem(_untrained_cnn(), label_map={})
    path = Path(spec.where)
    if spec.kind == "vaner" and not spec.where:
        nlp = spacy.blank("en")
        nlp.add_pipe(FACTORY)
    elif path.exists() or spacy.util.is_package(spec.where):
        nlp = spacy.load(path if path.exists() else spec.where)
    else:
        raise SystemMissing(Messages.VE463.format(where=spec.where))
    ours = list(vaner_components(nlp).values())
    for component in ours:
        for key in _SETTINGS_OF_OURS & spec.settings.keys():
            setattr(component, key, spec.settings[key])
    own_labels = {label: type for component in ours for type, label in component.label_map.items()}
    return PipelineSystem(
        nlp,
        label_map={**own_labels, **spec.label_map},
        path=Path(nlp.path) if nlp.path else None,
        batch_size=spec.settings.get("batch_size"),
    )


def _untrained_cnn() -> Language:
    """The default `ner` of spaCy (width 96, depth 4), to measure other systems' speed against.

    Random weights open entities at random; what they cost beside the network is within the noise.
    """
    nlp = spacy.blank("en")
    ner = nlp.add_pipe("ner")
    for type in FOUR_TYPES:
        ner.add_label(type)  # type: ignore[attr-defined]
    nlp.initialize()
    return nlp
