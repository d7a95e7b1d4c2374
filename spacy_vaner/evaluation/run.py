"""Run a pipeline over gold documents and score what it predicts."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from spacy.language import Language
from spacy.tokens import Doc

from spacy_vaner.errors import Messages, VanerError, VanerWarning
from spacy_vaner.evaluation.documents import VIEWS, GoldDocument, GoldFile
from spacy_vaner.evaluation.predictions import FoundSpan, PredictedDocument
from spacy_vaner.evaluation.result import LEVEL, CorpusScores, EvaluationResult, Score
from spacy_vaner.gold import Ask, set_ask, types_of_pipeline, vaner_components
from spacy_vaner.metrics import MATCHINGS, Counts, count, micro
from spacy_vaner.model import get_tagger
from spacy_vaner.predictions import PREDICTIONS_KEY

if TYPE_CHECKING:
    from spacy_vaner.component import VanerNER

Progress = Callable[[int, int], None]
"""Called after each document with the number done and the number in all files."""

OnDocument = Callable[[PredictedDocument], None]
"""Called with every document that is scored."""


def evaluate_pipeline(
    nlp: Language,
    paths: Sequence[Path],
    *,
    view: str = "tokens",
    name_corpus: bool = True,
    label_map: Mapping[str, str] | None = None,
    matching: str = "strict",
    batch_size: int | None = None,
    seed: int = 0,
    n_resamples: int = 1000,
    command: str | None = None,
    on_progress: Progress | None = None,
    on_document: OnDocument | None = None,
) -> EvaluationResult:
    """Score a pipeline on complete documents, per corpus and type.

    The pipeline is given unannotated copies and told which types each document is annotated for
    completely; only these are asked and scored. What counts as predicted are the exact offsets in
    `doc.user_data["vaner_predictions"]`, or `doc.ents` where no vaner_ner wrote any.

    nlp: any pipeline that predicts entities.
    paths: `.spacy` files, read one after another. Documents without `user_data["vaner"]` are taken
        as annotated for the types of the vaner_ner component, without one for the labels found.
    view: "tokens", the words and sentences of the files; "text", their raw text.
    name_corpus: whether instructions give the name of the corpus; without, it is what users get.
    label_map: label of `doc.ents` to type, on top of what a vaner_ner calls its types; a label that
        is missing is taken as the type.
    matching: "strict" (exact offsets), "near" (each boundary within one character) or "overlap".
    batch_size: documents per batch; None = as the pipeline sets it.
    seed, n_resamples: of the bootstrap intervals.
    command: what is written into the result as the command that was run.
    on_document: given what was predicted, document by document; nothing of it is kept here.
    RETURNS: scores, seconds, settings.
    RAISES VanerError: VE401 to VE405, VE408, VE411, VE412.
    WARNS VanerWarning: VW401, labels that are no type; VW402, documents scored twice.
    """
    _check(view, matching, paths)
    components: list[VanerNER] = list(vaner_components(nlp).values())
    own_labels = {
        label: type
        for component in reversed(components)
        for type, label in reversed(component.label_map.items())
    }
    label_map = {**own_labels, **(label_map or {})}
    types = list(dict.fromkeys(type for component in components for type in component.types))
    files = [GoldFile(path, types=types or None, label_map=label_map) for path in paths]
    run = _Run(
        nlp,
        label_map=label_map,
        matching=matching,
        view=view,
        name_corpus=name_corpus,
        on_document=on_document,
    )
    n_documents = sum(len(file) for file in files)
    for file in files:
        for _ in run.score(file, batch_size=batch_size):
            if on_progress is not None:
                on_progress(run.n_done, n_documents)
    run.check()
    settings = {
        "command": command,
        "pipeline": f"{nlp.lang}_{nlp.meta['name']}-{nlp.meta['version']}",
        "components": list(nlp.pipe_names),
        "component_settings": settings_in_use(nlp),
        "training_seed": nlp.config.interpolate().get("training", {}).get("seed"),
        "files": [str(path) for path in paths],
        "view": view,
        "name_corpus": name_corpus,
        "label_map": label_map,
        "matching": matching,
        "seed": seed,
        "resamples": n_resamples,
        "level": LEVEL,
    }
    return run.result(settings, seed=seed, n_resamples=n_resamples)


def settings_in_use(nlp: Language) -> dict[str, dict[str, Any]]:
    """What decides about predictions beside the weights and the question; ask after predicting.

    RETURNS: per vaner_ner its thresholds, way of asking, and the engine and precision that were in
        use; null before its weights are loaded.
    """
    found = {}
    for name, component in vaner_components(nlp).items():
        tagger = get_tagger(component.model)
        found[name] = {
            "threshold": component.threshold if tagger is None else component.threshold_in_use,
            "repeat_threshold": component.repeat_threshold,
            "asking": component.asking,
            "engine": None if tagger is None else tagger.engine_in_use,
            "precision": None if tagger is None else tagger.precision,
        }
    return found


def _check(view: str, matching: str, paths: Sequence[Path]) -> None:
    if view not in VIEWS:
        raise VanerError(Messages.VE411.format(view=view, known=", ".join(VIEWS)))
    if matching not in MATCHINGS:
        raise VanerError(Messages.VE401.format(matching=matching, known=", ".join(MATCHINGS)))
    if not paths:
        raise VanerError(Messages.VE412)


@dataclass
class _Tally:
    """What is kept of a corpus: counts per document, not the documents."""

    per_type: dict[str, list[Counts]] = field(default_factory=dict)
    per_document: list[Counts] = field(default_factory=list)
    n_discontinuous: Counter[str] = field(default_factory=Counter)


class _Run:
    """The state of one evaluation: what has been counted so far."""

    def __init__(
        self,
        nlp: Language,
        *,
        label_map: Mapping[str, str],
        matching: str,
        view: str,
        name_corpus: bool,
        on_document: OnDocument | None,
    ) -> None:
        self.nlp = nlp
        self.label_map = label_map
        self.matching = matching
        self.view = view
        self.name_corpus = name_corpus
        self.on_document = on_document
        self.asked = types_of_pipeline(nlp)
        self.not_asked: set[str] = set()
        self.tallies: dict[str, _Tally] = {}
        self.labels: Counter[str] = Counter()
        self.wrote_predictions = False
        self.seen: set[tuple[str, str, str]] = set()
        self.repeated: list[tuple[Path, str, str]] = []
        self.n_done = self.n_unscored = self.n_words = 0
        self.seconds = self.reading_seconds = 0.0

    def score(self, file: GoldFile, *, batch_size: int | None) -> Iterator[None]:
        """Predict and count a file; yields after each document."""
        self.reading_seconds = 0.0
        started = perf_counter()
        for doc, document in self.nlp.pipe(self._read(file), as_tuples=True, batch_size=batch_size):
            self.seconds += perf_counter() - started
            self._count(doc, document, path=file.path)
            self.n_done += 1
            yield
            started = perf_counter()
        self.seconds += perf_counter() - started - self.reading_seconds

    def _read(self, file: GoldFile) -> Iterator[tuple[Doc, GoldDocument]]:
        """The documents to predict on; decoding the file is no time of the pipeline."""
        started = perf_counter()
        for document in file.read(self.nlp.vocab):
            self.reading_seconds += perf_counter() - started
            if self._types(document):
                if self.view == "text":
                    doc = self.nlp.make_doc(document.doc.text)
                else:
                    doc = document.unannotated()
                set_ask(doc, self._ask(document))
                yield doc, document
            else:
                self.n_unscored += 1
                self.n_done += 1
            started = perf_counter()

    def _types(self, document: GoldDocument) -> list[str]:
        """What is asked and scored: annotated completely, and a type of the pipeline."""
        return [name for name in document.gold.types if self.asked is None or name in self.asked]

    def _ask(self, document: GoldDocument) -> Ask:
        types = self._types(document)
        self.not_asked.update(set(document.gold.types).difference(types))
        if not self.name_corpus:
            return Ask(types=types, corpus=None)
        names = document.names()
        return Ask(types=types, corpus=names) if names else Ask(types=types)

    def _count(self, doc: Doc, document: GoldDocument, *, path: Path) -> None:
        corpus, gold = document.corpus, document.gold
        tally = self.tallies.setdefault(corpus, _Tally())
        types, spans = self._types(document), self._predicted(doc)
        if self.on_document is not None:
            self.on_document(PredictedDocument(document, tuple(types), tuple(spans)))
        counts = count(
            [(mention.type, mention.fragments) for mention in gold.mentions],
            [(span.type, span.start, span.end) for span in spans],
            types,
            matching=self.matching,
        )
        for type, type_counts in counts.items():
            tally.per_type.setdefault(type, []).append(type_counts)
        tally.per_document.append(micro(counts.values()))
        tally.n_discontinuous.update(
            mention.type
            for mention in gold.mentions
            if mention.type in counts and len(mention.fragments) > 1
        )
        self.n_words += len(document.doc)
        if gold.id is not None:
            keys = {(corpus, gold.id, type) for type in counts}
            if keys & self.seen:
                self.repeated.append((path, corpus, gold.id))
            self.seen |= keys

    def _predicted(self, doc: Doc) -> list[FoundSpan]:
        if PREDICTIONS_KEY in doc.user_data:
            self.wrote_predictions = True
            return [FoundSpan(*row) for row in doc.user_data[PREDICTIONS_KEY]]
        self.labels.update(ent.label_ for ent in doc.ents)
        return [
            FoundSpan(self.label_map.get(ent.label_, ent.label_), ent.start_char, ent.end_char)
            for ent in doc.ents
        ]

    def _types_scored(self) -> list[str]:
        return list(
            dict.fromkeys(chain.from_iterable(tally.per_type for tally in self.tallies.values()))
        )

    def _unscored_labels(self) -> dict[str, int]:
        types = self._types_scored()
        return {
            label: n
            for label, n in sorted(self.labels.items())
            if self.label_map.get(label, label) not in types
        }

    def check(self) -> None:
        """Say what makes the figures mean something else than they seem to."""
        if not self.wrote_predictions and not self.labels and not _sets_ents(self.nlp):
            raise VanerError(
                Messages.VE408.format(components=", ".join(self.nlp.pipe_names) or "empty")
            )
        if unscored := self._unscored_labels():
            types = self._types_scored()
            warnings.warn(
                Messages.VW401.format(
                    labels=", ".join(f"{label} ({n})" for label, n in unscored.items()),
                    types=", ".join(types),
                    example=f"{next(iter(unscored))}={types[0]}",
                ),
                VanerWarning,
                stacklevel=3,
            )
        if self.not_asked:
            warnings.warn(
                Messages.VW403.format(types=", ".join(sorted(self.not_asked))),
                VanerWarning,
                stacklevel=3,
            )
        if self.repeated:
            path, corpus, id = self.repeated[0]
            warnings.warn(
                Messages.VW402.format(n=len(self.repeated), path=path, corpus=corpus, id=id),
                VanerWarning,
                stacklevel=3,
            )

    def result(
        self, settings: Mapping[str, Any], *, seed: int, n_resamples: int
    ) -> EvaluationResult:
        def score(per_document: Sequence[Counts], n_discontinuous: int) -> Score:
            return Score.of(
                per_document, n_discontinuous=n_discontinuous, seed=seed, n_resamples=n_resamples
            )

        tallies = self.tallies.values()
        return EvaluationResult(
            corpora={
                name: CorpusScores(
                    micro=score(tally.per_document, tally.n_discontinuous.total()),
                    types={
                        type: score(per_document, tally.n_discontinuous[type])
                        for type, per_document in tally.per_type.items()
                    },
                )
                for name, tally in self.tallies.items()
            },
            overall=score(
                [counts for tally in tallies for counts in tally.per_document],
                sum(tally.n_discontinuous.total() for tally in tallies),
            ),
            n_unscored_documents=self.n_unscored,
            unscored_labels=self._unscored_labels(),
            n_words=self.n_words,
            seconds=self.seconds,
            settings=settings,
        )


def _sets_ents(nlp: Language) -> bool:
    return any("doc.ents" in nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names)
