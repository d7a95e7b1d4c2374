"""One thread that holds the pipeline and annotates whatever waits, many requests in one batch."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_vaner.annotation.annotator import find, run_pipeline
from spacy_vaner.annotation.document import Annotated, Document
from spacy_vaner.gold import Ask, set_ask, vaner_components

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

_log = logging.getLogger("spacy_vaner")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What is served.

    name: as `annotator.model_name` gives it.
    types: those that are asked where a request names none.
    known_types: those that it was trained for; None where it does not say.
    takes_types: whether a request may name types and a corpus.
    """

    name: str
    types: tuple[str, ...]
    takes_types: bool
    known_types: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """The answer to a request: its documents, and how many spans ran over the end of a passage."""

    documents: tuple[Annotated, ...]
    across_passages: int


class Closed(Exception):
    """There is nobody left who would answer."""


class Failed(Exception):
    """The pipeline failed on a document. number: of the document in its request, from 1."""

    def __init__(self, number: int, error: Exception) -> None:
        super().__init__(number, error)
        self.number, self.error = number, error


Outcome = tuple[Annotated, int]
"""A document with what was found, and the number of spans over the end of a passage."""


class _Request:
    """Documents that are annotated with one question, and what is known of them by now."""

    def __init__(self, documents: Sequence[Document], ask: Ask) -> None:
        self.documents, self.ask = documents, ask
        self.answer: Future[Findings] = Future()
        self.n_taken = 0
        self.found: dict[int, Outcome] = {}

    @property
    def is_over(self) -> bool:
        """Answered, failed, or given up by whoever asked."""
        return self.answer.done() or self.n_taken == len(self.documents)

    def take(self) -> int:
        self.n_taken += 1
        return self.n_taken - 1

    def put(self, index: int, outcome: Outcome) -> None:
        """Note what was found in a document; with the last one the answer is there."""
        self.found[index] = outcome
        if len(self.found) == len(self.documents):
            parts = [self.found[i] for i in range(len(self.documents))]
            findings = Findings(tuple(one for one, _ in parts), sum(n for _, n in parts))
            if self._claim():
                self.answer.set_result(findings)

    def fail(self, error: Exception) -> None:
        if self._claim():
            self.answer.set_exception(error)

    def _claim(self) -> bool:
        """Whether an answer is still wanted; whoever asked can no longer give up then."""
        return not self.answer.done() and self.answer.set_running_or_notify_cancel()


class Batches:
    """Annotates the documents of requests; a thread of its own loads and holds the pipeline.

    Of all requests that wait one document is taken after the other in turn, until a batch is full:
    short requests do not wait for the end of long ones. A request that is given up (its future
    is cancelled) costs no more than the batch that is being computed.
    """

    def __init__(
        self, load: Callable[[], Language], model: str, *, batch_characters: int = 20_000
    ) -> None:
        """Load the pipeline.

        load: called in the thread, since what it sets (a GPU) is set for a thread.
        model: the name of the model, written with every annotation.
        batch_characters: after as many a batch is closed.
        RAISES: what `load` raises.
        """
        self._load, self._model, self._batch_characters = load, model, batch_characters
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        ready: Future[Pipeline] = Future()
        self._thread = threading.Thread(target=self._run, args=[ready], name="vaner-pipeline")
        self._thread.start()
        self.pipeline = ready.result()

    @property
    def is_open(self) -> bool:
        return not self._is_closed and self._thread.is_alive()

    @property
    def n_waiting(self) -> int:
        """Requests of which a document is left to begin."""
        return len(self._waiting)

    def submit(self, documents: Sequence[Document], ask: Ask) -> Future[Findings]:
        """Have documents annotated. The future raises Failed or Closed; cancel it to give up."""
        request = _Request(documents, ask)
        if not documents:
            request.answer.set_result(Findings((), 0))
            return request.answer
        with self._changed:
            if not self.is_open:
                request.answer.set_exception(Closed())
            else:
                self._waiting.append(request)
                self._changed.notify()
        return request.answer

    def close(self) -> None:
        """Refuse what waits, finish the batch that is being computed, and end the thread."""
        with self._changed:
            self._is_closed = True
            refused, self._waiting = self._waiting, deque()
            self._changed.notify()
        for request in refused:
            request.fail(Closed())
        self._thread.join()

    def _run(self, ready: Future[Pipeline]) -> None:
        try:
            nlp = self._load()
            ready.set_result(_describe(nlp, self._model))
        except BaseException as error:
            ready.set_exception(error)
            return
        while batch := self._next_batch():
            try:
                outcomes = self._annotate(nlp, batch)
            except Exception as error:  # memory that runs out, say: the next batch may fit
                outcomes = [error] * len(batch)
            for (request, index), outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    # The message of an exception may hold text, which is not for the log.
                    _log.error("The pipeline failed on a document: %s", where(outcome))
                    request.fail(Failed(index + 1, outcome))
                else:
                    request.put(index, outcome)

    def _next_batch(self) -> list[tuple[_Request, int]]:
        """Documents of those who wait, in turn; empty when the end has come."""
        with self._changed:
            while not self._is_closed:
                batch: list[tuple[_Request, int]] = []
                n_characters = 0
                while self._waiting and n_characters < self._batch_characters:
                    request = self._waiting.popleft()
                    if request.is_over:
                        continue
                    index = request.take()
                    batch.append((request, index))
                    n_characters += len(request.documents[index].text)
                    if not request.is_over:
                        self._waiting.append(request)
                if batch:
                    return batch
                self._changed.wait()
        return []

    def _annotate(
        self, nlp: Language, batch: list[tuple[_Request, int]]
    ) -> list[Outcome | Exception]:
        def make(given: tuple[_Request, int]) -> Doc:
            request, index = given
            doc = nlp.make_doc(request.documents[index].text)
            set_ask(doc, request.ask)
            return doc

        outcomes: list[Outcome | Exception] = []
        # What a batch brings into the vocabulary goes with it: memory stays flat.
        with nlp.memory_zone():
            docs = run_pipeline(nlp, batch, make)
            for (request, index), doc in zip(batch, docs, strict=True):
                if isinstance(doc, Exception):
                    outcomes.append(doc)
                else:
                    document = request.documents[index]
                    found, n_across = find(document, doc, self._model)
                    outcomes.append((Annotated(document, found), n_across))
        return outcomes


def where(error: BaseException) -> str:
    """The kind of an exception and the place that raised it, without its message."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return type(error).__name__
    file = Path(frame.tb_frame.f_code.co_filename).name
    return f"{type(error).__name__} in {file}, line {frame.tb_lineno}"


def _describe(nlp: Language, model: str) -> Pipeline:
    components = vaner_components(nlp).values()
    if not components:
        labels: dict[str, Any] = nlp.pipe_labels
        writers = [name for name in nlp.pipe_names if "doc.ents" in nlp.get_pipe_meta(name).assigns]
        found = dict.fromkeys(label for name in writers for label in labels.get(name, ()))
        return Pipeline(model, tuple(found), takes_types=False)
    known = [component.known_types for component in components]
    return Pipeline(
        model,
        _joined(component.types for component in components),
        takes_types=True,
        known_types=None if None in known else _joined(known),
    )


def _joined(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in lists for name in names))
