"""Windows of documents and what they are labelled; all by (seed, step), none by the past.

Corpora are mixed in rounds: in each round every corpus has a fixed number of windows, in random
order. Within a corpus every document has its turn before one comes again. So the window with a
given number follows from the seed alone, and a resumed run sees what an uninterrupted one sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy
from numpy.random import Generator
from numpy.typing import NDArray

from spacy_vaner.backbone.batching import padded_length
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.pieces import label_subwords
from spacy_vaner.training.dbr import NameRows
from spacy_vaner.training.mixture import asked_of, corpus_shares
from spacy_vaner.training.noise import NamePool, Window, mask_units, replace_mentions
from spacy_vaner.training.rows_folder import NO_LOSS, Document, IntArray, Source
from spacy_vaner.training.tag_config import TagConfig

_ROUND, _ORDER, _WINDOW = range(3)
"""Purposes of generators."""

# Windows in a round: enough for the shares of corpora to be right within a few thousandths.
_WINDOWS_PER_ROUND = 4096


class Answer(NamedTuple):
    """What a row should be labelled, for one question.

    question: its text, where rows do not hold an instruction.
    positions: (labels,), indices into the row; tags: (labels,), O, B or I.
    """

    question: str
    positions: IntArray
    tags: IntArray


class TagRow(NamedTuple):
    """One input of the tagger with what it should be labelled.

    input_ids: (subwords,).
    weight: of the loss of its labels.
    n_names_left_out: names that did not fit into the DBR rows of a window; on the first of them.
    """

    input_ids: IntArray
    answers: list[Answer]
    weight: float = 1.0
    n_names_left_out: int = 0


class TagPass(NamedTuple):
    """Rows that are computed at once.

    input_ids: (rows, S), padded; lengths: (rows,).
    row_of: (answers,), the row that each answer is about.
    questions: texts of the questions; empty where rows hold an instruction.
    question_of: (answers,), index into `questions`.
    positions: (labels,), places in the flattened (answers, S); tags, weights: (labels,).
    n_names_left_out: of DBR rows, names that did not fit.
    """

    input_ids: NDArray[numpy.int64]
    lengths: NDArray[numpy.int64]
    row_of: NDArray[numpy.int64]
    questions: tuple[str, ...]
    question_of: NDArray[numpy.int64]
    positions: NDArray[numpy.int64]
    tags: NDArray[numpy.int64]
    weights: NDArray[numpy.float32]
    n_names_left_out: int

    @property
    def n_subwords(self) -> int:
        return int(self.lengths.sum())

    @property
    def n_targets(self) -> int:
        return len(self.tags)


class AskedAnnotation(NamedTuple):
    """What is asked of a window, and what the annotation says.

    corpus: the corpus name to ask with.
    positions, tags: (labels,), as in Answer, in the window.
    """

    type: str
    corpus: str | None
    positions: IntArray
    tags: IntArray


class Padding(NamedTuple):
    """How rows are filled up: with which id, and up to how many subwords the backbone reads."""

    id: int
    most: int


class Marks(NamedTuple):
    """What noise needs to know of the tokenizer.

    mask_id: of the mask; None where there is none.
    begins_word: (ids,), whether a subword stands behind a space.
    """

    mask_id: int | None
    begins_word: NDArray[numpy.bool_]


MakeRows = Callable[[IntArray, Sequence[AskedAnnotation]], list[TagRow]]
"""The rows of a window, given its subwords."""


class TagBatches:
    """The batches of a run.

    make_rows: puts instructions or questions to windows.
    marks: of the tokenizer.
    name_rows: draws the DBR rows of windows; None = there are none.
    pass_cost: what a pass costs beside its subwords, as so many of them.
    RAISES VanerError: VE525, no document is left; VE508, nothing can be masked.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        config: TagConfig,
        *,
        make_rows: MakeRows,
        padding: Padding,
        marks: Marks,
        path: Path,
        name_rows: NameRows | None = None,
        pass_cost: int = 0,
    ) -> None:
        if config.noise.mask_share and marks.mask_id is None:
            raise VanerError(Messages.VE508.format(path=path))
        self._config = config
        self._marks = marks
        self._pass_cost = pass_cost
        self._pools: dict[int, NamePool] = {}
        self._name_rows = name_rows
        self._make_rows = make_rows
        self._padding = padding
        shares = corpus_shares(sources, config)
        self._sources = [source for source, share in zip(sources, shares, strict=True) if share]
        if not self._sources:
            raise VanerError(Messages.VE525.format(path=path))
        self._slots = [_slots(source, config.window_subwords) for source in self._sources]
        chosen = numpy.array([share for share in shares if share])
        self._quotas = numpy.maximum(1, numpy.round(chosen * _WINDOWS_PER_ROUND)).astype(int)
        self._round = lru_cache(maxsize=2)(self._new_round)
        self._order = lru_cache(maxsize=2 * len(self._sources))(self._new_order)

    def step(self, step: int) -> list[TagPass]:
        """The passes of a training step."""
        n_windows = self._config.windows_per_step
        rows: list[TagRow] = []
        for number in range(step * n_windows, (step + 1) * n_windows):
            rows += self._rows(number)
        lengths = [len(row.input_ids) for row in rows]
        return [
            make_pass([rows[index] for index in batch], self._padding)
            for batch in plan_passes(lengths, self._config.pass_subwords, cost=self._pass_cost)
        ]

    def _rows(self, number: int) -> list[TagRow]:
        round_, place = divmod(number, int(self._quotas.sum()))
        corpora, ranks = self._round(round_)
        corpus = int(corpora[place])
        turn = round_ * int(self._quotas[corpus]) + int(ranks[place])
        slots = self._slots[corpus]
        epoch, turn = divmod(turn, len(slots))
        index, slot, n_slots = slots[self._order(corpus, epoch)[turn]].tolist()
        document = asked_of(self._sources[corpus][index], self._config)
        rng = numpy.random.default_rng([self._config.seed, _WINDOW, number])
        start, end = cut_window(
            document, slot, n_slots, longest=self._config.window_subwords, rng=rng
        )
        is_named = rng.random() >= self._config.drop_corpus
        window = self._with_noise(cut(document, start, end), document, corpus, rng)
        asked = []
        for annotation, tags in zip(document.annotations, window.tags, strict=True):
            counts = tags != NO_LOSS
            if counts.any():
                positions, labels = label_subwords(
                    window.units[counts, 0],
                    window.units[counts, 1],
                    tags[counts].astype(numpy.int64),
                    which=self._config.labelled_subwords,
                )
                name = annotation.corpus if is_named else None
                asked.append(AskedAnnotation(annotation.type, name, positions, labels))
        rows = self._make_rows(window.subword_ids, asked)
        if self._name_rows is not None and start < end:
            rows += self._rows_of_names(self._name_rows, corpus, index, (start, end), epoch, number)
        return rows

    def _rows_of_names(
        self,
        name_rows: NameRows,
        corpus: int,
        index: int,
        subwords: tuple[int, int],
        epoch: int,
        number: int,
    ) -> list[TagRow]:
        """The DBR rows of a window of a document, given its range of subwords."""
        document = asked_of(self._sources[corpus][index], self._config)
        first, last = numpy.searchsorted(document.units[:, 0], subwords).tolist()
        rows: list[TagRow] = []
        n_left_out = 0
        for drawn in name_rows.draw(
            self._sources[corpus].facts.file,
            index,
            (int(document.units[first, 2]), int(document.units[last - 1, 3])),
            [annotation.type for annotation in document.annotations],
            epoch=epoch,
            number=number,
        ):
            n_left_out += drawn.n_left_out
            # As in the paper, names are asked without a corpus name.
            asked = [AskedAnnotation(type, None, *labels) for type, *labels in drawn.answers]
            rows += self._make_rows(drawn.subword_ids, asked)
        rows = [row._replace(weight=self._config.dbr.weight) for row in rows]
        return [row._replace(n_names_left_out=n_left_out) for row in rows[:1]] + rows[1:]

    def _with_noise(
        self, window: Window, document: Document, corpus: int, rng: Generator
    ) -> Window:
        noise = self._config.noise
        if noise.replace_share:
            if corpus not in self._pools:
                source = self._sources[corpus]
                self._pools[corpus] = NamePool(source, self._marks.begins_word)
            window = replace_mentions(
                window,
                [(annotation.type, annotation.corpus) for annotation in document.annotations],
                noise.replace_share,
                pool=self._pools[corpus],
                longest=self._config.window_subwords,
                rng=rng,
            )
        if noise.mask_share and self._marks.mask_id is not None:
            mask_id = self._marks.mask_id
            window = mask_units(window, noise.mask_share, mask_id=mask_id, rng=rng)
        return window

    def _new_round(self, round_: int) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
        """Per window of a round its corpus, and which of the corpus's windows it is."""
        rng = numpy.random.default_rng([self._config.seed, _ROUND, round_])
        corpora = rng.permutation(numpy.repeat(numpy.arange(len(self._quotas)), self._quotas))
        ranks = numpy.empty_like(corpora)
        for corpus, quota in enumerate(self._quotas):
            ranks[corpora == corpus] = numpy.arange(quota)
        return corpora, ranks

    def _new_order(self, corpus: int, epoch: int) -> NDArray[numpy.int64]:
        rng = numpy.random.default_rng([self._config.seed, _ORDER, corpus, epoch])
        return rng.permutation(len(self._slots[corpus]))


def cut_window(
    document: Document, slot: int, n_slots: int, *, longest: int, rng: Generator
) -> tuple[int, int]:
    """A window of a document: all of it if it is short, else a stretch near the slot's place.

    It begins with a sentence and ends with one, as far as the document knows them; without
    sentences it begins and ends anywhere between units.

    RETURNS: the range of its subwords, of `longest` at most; nothing of a text without units.
    """
    if not len(document.units):
        return 0, 0
    # As in prediction, a mark that the tokenizer puts before the first word is not read.
    first, last = int(document.units[0, 0]), int(document.units[-1, 1])
    if last - first <= longest:
        return first, last
    wanted = first + (slot + rng.random() - 0.5) * (last - first) / n_slots
    wanted = min(max(wanted, first), last - longest)
    units = document.units[:, 0]
    start = _first_from(document.sentences, wanted, wanted + longest // 2)
    if wanted == first or start is None:
        start = _first_from(units, wanted, last)
    assert start is not None
    end = start + longest
    if end >= last:
        return start, last
    for places, least in ((document.sentences, start + longest // 2), (units, start)):
        place = int(numpy.searchsorted(places, end, side="right")) - 1
        if place >= 0 and places[place] > least:
            return start, int(places[place])
    return start, end


def cut(document: Document, start: int, end: int) -> Window:
    """The stretch of a document between two of its subwords, with the units that begin in it."""
    first, last = numpy.searchsorted(document.units[:, 0], (start, end)).tolist()
    # A very long word may reach past its window.
    units = numpy.minimum(document.units[first:last, :2], end) - start
    tags = [annotation.tags[first:last] for annotation in document.annotations]
    return Window(document.subword_ids[start:end], units, tags)


def _first_from(places: IntArray, least: float, most: float) -> int | None:
    index = int(numpy.searchsorted(places, least))
    return int(places[index]) if index < len(places) and places[index] <= most else None


def _slots(source: Source, window_subwords: int) -> NDArray[numpy.int64]:
    """(slots, 3): document, number of the slot in it, slots of the document."""
    n_slots = -(-source.lengths // window_subwords)
    documents = numpy.repeat(numpy.arange(len(n_slots)), n_slots)
    firsts = numpy.repeat(numpy.cumsum(n_slots) - n_slots, n_slots)
    return numpy.stack([documents, numpy.arange(len(documents)) - firsts, n_slots[documents]], 1)


def plan_passes(lengths: Sequence[int], most: int, *, cost: int) -> list[list[int]]:
    """Indices of rows of like length, in the passes that cost least.

    lengths: in subwords; a pass computes as many for each of its rows as its longest has, padded.
    most: subwords of a pass with padding; a row that is longer is a pass of its own.
    cost: of a pass beside its subwords, as so many of them.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    # Per number of rows that are placed: the least cost, and where the last pass begins.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(order) + 1):
        options = []
        for start in range(end - 1, -1, -1):
            n_subwords = padded_length(lengths[order[start]]) * (end - start)
            if n_subwords > most and end - start > 1:
                break
            options.append((best[start][0] + n_subwords + cost, start))
        best.append(min(options))
    passes = []
    end = len(order)
    while end:
        start = best[end][1]
        passes.append(order[start:end])
        end = start
    return passes[::-1]


def make_pass(rows: Sequence[TagRow], padding: Padding) -> TagPass:
    """Rows as arrays."""
    lengths = numpy.array([len(row.input_ids) for row in rows], numpy.int64)
    width = min(padded_length(int(lengths.max())), padding.most)
    input_ids = numpy.full((len(rows), width), padding.id, numpy.int64)
    for line, row in enumerate(rows):
        input_ids[line, : len(row.input_ids)] = row.input_ids
    answers = [(line, answer) for line, row in enumerate(rows) for answer in row.answers]
    questions = sorted({answer.question for _, answer in answers} - {""})
    numbers = {text: number for number, text in enumerate(questions)} | {"": 0}
    positions = [answer.positions + index * width for index, (_, answer) in enumerate(answers)]
    return TagPass(
        input_ids,
        lengths,
        numpy.array([line for line, _ in answers], numpy.int64),
        tuple(questions),
        numpy.array([numbers[answer.question] for _, answer in answers], numpy.int64),
        numpy.concatenate([numpy.zeros(0, numpy.int64), *positions]),
        numpy.concatenate([numpy.zeros(0, numpy.int64), *(answer.tags for _, answer in answers)]),
        numpy.repeat(
            numpy.array([rows[line].weight for line, _ in answers], numpy.float32),
            [len(answer.tags) for _, answer in answers],
        ),
        sum(row.n_names_left_out for row in rows),
    )


def spread(source: Source, n_documents: int) -> Iterator[Document]:
    """So many documents from all over a file, the same ones each time."""
    n_documents = min(n_documents, len(source))
    for index in numpy.linspace(0, len(source) - 1, n_documents).round().astype(int):
        yield source[int(index)]
