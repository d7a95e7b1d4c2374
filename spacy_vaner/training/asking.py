"""Asking: questions put to windows, prepared documents tagged as the component does, and scored.

Training and dev are asked here alike, so what is measured while a tagger learns is what the
pipeline that is made of it finds with `repeat_threshold = null`: prepared rows no longer hold the
text over which a name could be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from spacy_vaner.backbone.batching import plan_batches
from spacy_vaner.backbone.joint import Asked, question_text
from spacy_vaner.backbone.tagger import Tagger
from spacy_vaner.decoding import FloatArray, decode_documents, softmax
from spacy_vaner.instructions import Instruction, paper_instruction, template_instruction
from spacy_vaner.metrics import Counts, count
from spacy_vaner.training.rows_folder import Document, IntArray
from spacy_vaner.training.tag_batches import (
    Answer,
    AskedAnnotation,
    Padding,
    TagPass,
    TagRow,
    make_pass,
)
from spacy_vaner.types import ScoredSpan


class Asker:
    """Puts questions to windows, in the way that the tagger is asked.

    with_corpus, without_corpus: wordings of the instruction; None = the paper's.
    """

    def __init__(
        self, tagger: Tagger, with_corpus: str | None = None, without_corpus: str | None = None
    ) -> None:
        self.tagger = tagger
        self._instruction: Instruction = (
            paper_instruction()
            if with_corpus is None or without_corpus is None
            else template_instruction(with_corpus, without_corpus)
        )

    @property
    def padding(self) -> Padding:
        return Padding(self.tagger.tokenizer.pad_id, self.tagger.max_positions)

    def n_framing(self, type_name: str, corpus: str | None) -> int:
        """Subwords that stand around a window; a joint question does not."""
        if self.tagger.asking == "joint":
            return sum(map(len, self.tagger.frame_window("")))
        return sum(map(len, self.tagger.frame_window(self._instruction(type_name, corpus))))

    def rows(self, subword_ids: IntArray, asked: Sequence[AskedAnnotation]) -> list[TagRow]:
        """One row for all questions, or one per question; none where nothing is asked."""
        if self.tagger.asking == "joint":
            before, after = self.tagger.frame_window("")
            answers = [
                Answer(question_text(one.type, one.corpus), one.positions + len(before), one.tags)
                for one in asked
            ]
            return [TagRow(_joined(before, subword_ids, after), answers)] if answers else []
        rows = []
        for one in asked:
            before, after = self.tagger.frame_window(self._instruction(one.type, one.corpus))
            answer = Answer("", one.positions + len(before), one.tags)
            rows.append(TagRow(_joined(before, subword_ids, after), [answer]))
        return rows


def run_pass(tagger: Tagger, batch: TagPass) -> Tensor:
    """(answers, S, 3) logits of a pass."""
    device = tagger.device
    asked = None
    if batch.questions:
        vectors = tagger.question_vectors(batch.questions)
        numbers = torch.from_numpy(batch.question_of).to(device)
        asked = Asked(torch.from_numpy(batch.row_of).to(device), vectors.index_select(0, numbers))
    input_ids, lengths = (
        torch.from_numpy(array).to(device) for array in (batch.input_ids, batch.lengths)
    )
    logits: Tensor = tagger(input_ids, lengths, asked=asked)
    return logits


def score(
    asker: Asker,
    documents: Sequence[tuple[str, Document]],
    *,
    is_named: bool,
    batch_subwords: int,
) -> dict[str, Counts]:
    """Strict counts per "corpus: type", over the types that documents annotate completely.

    documents: with the names of their corpora.
    is_named: whether corpus names are given in asking.
    """
    questions = [
        [
            (one.type, one.corpus if is_named else None)
            for one in document.annotations
            if one.is_complete
        ]
        for _, document in documents
    ]
    found = tag_documents(
        asker, [document for _, document in documents], questions, batch_subwords=batch_subwords
    )
    totals: dict[str, Counts] = {}
    for (corpus, document), spans in zip(documents, found, strict=True):
        for annotation in document.annotations:
            if not annotation.is_complete:
                continue
            gold: list[tuple[str, list[tuple[int, int]]]] = [
                (annotation.type, [(start, end)]) for start, end in annotation.mentions.tolist()
            ]
            # Counted as missed, whatever is predicted.
            gold += [
                (annotation.type, [(-1, 0), (-1, number)])
                for number in range(annotation.n_discontinuous)
            ]
            predicted = [(span.type, span.start, span.end) for span in spans]
            counts = count(gold, predicted, [annotation.type])[annotation.type]
            key = f"{corpus}: {annotation.type}"
            totals[key] = totals.get(key, Counts()) + counts
    return totals


def tag_documents(
    asker: Asker,
    documents: Sequence[Document],
    questions: Sequence[Sequence[tuple[str, str | None]]],
    *,
    batch_subwords: int,
) -> list[list[ScoredSpan]]:
    """Predict, as the component does: each unit in the window that gives it most context.

    questions: per document, type and corpus name.
    RETURNS: per document its spans, type by type in the order of the questions.
    """
    tagger = asker.tagger.eval()
    rows: list[TagRow] = []
    # Per answer: where its probabilities go.
    places: list[list[tuple[FloatArray, IntArray]]] = []
    probabilities = [
        [numpy.zeros((len(document.units), 3)) for _ in asked]
        for document, asked in zip(documents, questions, strict=True)
    ]
    for document, asked, per_question in zip(documents, questions, probabilities, strict=True):
        for number, (start, end) in enumerate(document.windows.tolist()):
            units = numpy.flatnonzero(document.window_of_unit == number)
            positions = document.units[units, 0] - start
            made = asker.rows(
                document.subword_ids[start:end],
                [AskedAnnotation(*question, positions, positions) for question in asked],
            )
            rows += made
            targets = [(of_question, units) for of_question in per_question]
            places += [targets] if tagger.asking == "joint" else [[one] for one in targets]
    with torch.inference_mode():
        for batch in plan_batches([len(row.input_ids) for row in rows], batch_subwords):
            chosen = [rows[index] for index in batch]
            logits = run_pass(tagger, make_pass(chosen, asker.padding))
            answers = iter(logits.cpu().numpy())
            for index, row in zip(batch, chosen, strict=True):
                for answer, (of_question, units) in zip(row.answers, places[index], strict=True):
                    of_question[units] = softmax(next(answers)[answer.positions])
    return decode_documents(
        [[type_name for type_name, _ in asked] for asked in questions],
        probabilities,
        [document.units[:, 2:4] for document in documents],
    )


def _joined(before: list[int], subword_ids: IntArray, after: list[int]) -> IntArray:
    return numpy.concatenate([before, subword_ids, after]).astype(numpy.int64)
