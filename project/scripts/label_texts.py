"""Label texts with a tagger, to train the next one on them: self-training.

    python project/scripts/label_texts.py TEXTS… OUTPUT.train.spacy --protected RUNS

TEXTS: files of text with a document a line, or folders of them. Documents are drawn at random over
all files; one that shares a run of twelve words with a protected text (RUNS, from `python -m spacy
vaner protected-runs`) is passed over. The output is a converted corpus for `rows`: its mentions are
what the tagger finds without a corpus name, whatever threshold is set, and a unit gives no loss if
its probability to be part of a mention lies between the two values of --unsure. Without --model it
is the tagger of the package.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from pathlib import Path

import numpy as np
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm

from spacy_vaner.corpora.docbins import docs_to_bytes
from spacy_vaner.decoding import O, decode_documents
from spacy_vaner.document_names import choose_spans
from spacy_vaner.files import write_whole
from spacy_vaner.gold import KEY, Gold, vaner_components
from spacy_vaner.model import Answers, predict_probabilities
from spacy_vaner.reading import Question
from spacy_vaner.training.protected import ProtectedRuns
from spacy_vaner.training.sources import find_sources, read_documents
from spacy_vaner.types import Mention, ScoredSpan

_DOCUMENTS_AT_ONCE = 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, label, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--documents", type=int, default=4000, help="to label (4000)")
    parser.add_argument(
        "--protected", type=Path, required=True, help="runs of words that must not be trained on"
    )
    parser.add_argument("--model", help="folder or name of a trained pipeline")
    parser.add_argument(
        "--unsure", type=float, nargs=2, default=(0.2, 0.8), metavar=("LOW", "HIGH")
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of documents (0)")
    settings = parser.parse_args(arguments)
    if not settings.output.name.endswith(".train.spacy"):
        parser.error("OUTPUT must end in .train.spacy: it is made to train on")
    if not 0 <= settings.unsure[0] <= settings.unsure[1] <= 1:
        parser.error("--unsure: LOW and HIGH must be probabilities, LOW not above HIGH")
    name = settings.output.name.removesuffix(".train.spacy")
    chosen = choose_documents(
        settings.texts, settings.documents, protected=settings.protected, seed=settings.seed
    )
    if settings.model:
        nlp = spacy.load(settings.model)
    else:
        nlp = spacy.blank("en")
        nlp.add_pipe("vaner_ner")
    if not vaner_components(nlp):
        parser.error(f"--model {settings.model} has no vaner_ner")
    progress = tqdm(total=len(chosen), unit="doc", disable=None, file=sys.stderr)
    docs = []
    for doc in label_documents(nlp, chosen, corpus=name, unsure=settings.unsure):
        docs.append(doc)
        progress.update()
    progress.close()
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(settings.output, docs_to_bytes(docs))
    n_mentions = sum(len(doc.user_data[KEY]["mentions"]) for doc in docs)
    print(f"{len(docs):,} documents with {n_mentions:,} mentions: {settings.output}")


def choose_documents(
    paths: Sequence[Path], n_documents: int, *, protected: Path, seed: int
) -> list[str]:
    """Documents at random over all files of text, none protected; all if there are fewer."""
    rng, runs = random.Random(seed), ProtectedRuns.from_file(protected)
    texts = (
        text
        for source in find_sources(paths)
        if source.kind == "text"
        for text in read_documents(source)
        if text.strip() and not runs.shares_run(text)
    )
    # Of numbered documents, so that no two texts are compared.
    drawn = nsmallest(n_documents, ((rng.random(), n, text) for n, text in enumerate(texts)))
    return [text for _, _, text in drawn]


def label_documents(
    nlp: Language, texts: Sequence[str], *, corpus: str, unsure: Sequence[float]
) -> Iterator[Doc]:
    """Documents whose gold annotation is what the pipeline's vaner_ner finds in them."""
    ner = next(iter(vaner_components(nlp).values()))
    # Loads the tagger and chooses its engine.
    ner.predict([nlp.make_doc("")])
    asked = [Question(name, None) for name in ner.types]
    for start in range(0, len(texts), _DOCUMENTS_AT_ONCE):
        docs = [nlp.make_doc(text) for text in texts[start : start + _DOCUMENTS_AT_ONCE]]
        answers = predict_probabilities(
            ner.model, docs, [asked] * len(docs), batch_subwords=ner.batch_subwords
        )
        found = decode_documents(
            [ner.types] * len(docs), [a.probabilities for a in answers], [a.units for a in answers]
        )
        for number, (doc, answer, spans) in enumerate(
            zip(docs, answers, found, strict=True), start
        ):
            spans = choose_spans(
                doc.text,
                spans,
                answer.units,
                threshold=0.0,
                repeat_threshold=ner.repeat_threshold,
            )
            mentions = [Mention(span.type, ((span.start, span.end),)) for span in spans]
            gold = Gold(
                corpus=corpus,
                id=str(number),
                types=tuple(ner.types),
                mentions=tuple(sorted(mentions, key=lambda one: (one.fragments, one.type))),
                masked=_doubtful(answer, spans, ner.types, unsure),
            )
            doc.user_data[KEY] = gold.to_user_data()
            yield doc


def _doubtful(
    answer: Answers, spans: Sequence[ScoredSpan], types: Sequence[str], unsure: Sequence[float]
) -> tuple[tuple[int, int], ...]:
    """Units of which the tagger does not know for every type whether they are part of a mention."""
    inside = 1.0 - np.stack([p[:, O] for p in answer.probabilities], axis=1)
    low, high = unsure
    doubtful = (inside > low) & (inside < high)
    starts, ends = answer.units.T
    for span in spans:
        # The name may have been surer in another place.
        if span.probability >= high:
            within = (starts >= span.start) & (ends <= span.end)
            doubtful[within, types.index(span.type)] = False
    return tuple((int(start), int(end)) for start, end in answer.units[doubtful.any(axis=1)])


if __name__ == "__main__":
    main()
