"""Reader spacy-vaner.Corpus.v1: `.spacy` files into Examples for `spacy train`.

spaCy's own reader forgets what a document was annotated for; this one carries it on both sides of
an Example, mixes corpora by weight, and keeps protected text out.
"""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab

from spacy_vaner.corpora.docbins import find_files, read_docs
from spacy_vaner.corpora.guard import PROTECTED_FILE, GuardCounts, ProtectedIndex
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.gold import (
    KEY,
    Ask,
    asks_jointly,
    get_gold,
    set_ask,
    types_of_pipeline,
    unannotated_copy,
)
from spacy_vaner.knowledge.candidates import SentenceCandidates, document_keys
from spacy_vaner.knowledge.examples import DbrRows

logger = logging.getLogger("spacy_vaner")


def corpus_reader(
    paths: str | list[str] | None,
    split: str = "train",
    weights: dict[str, float] | None = None,
    drop_corpus: float = 0.0,
    shuffle: bool = False,
    seed: int = 0,
    limit: int = 0,
    protect: str | list[str] | None = None,
    dbr: DbrRows | None = None,
) -> "Corpus":
    """Read converted corpora.

    paths: `.spacy` files or folders, a list or one string with commas between.
    split: of a folder, the files named `*.SPLIT.spacy` are read.
    weights: how often the documents of a file are read per epoch, by the name of the file without
        `.spacy` or of the corpus; 0.5 reads a random half, 2 reads all twice. Absent: 1.
    drop_corpus: share of the examples that are asked without the corpus name, so that the model
        also learns to answer without one. 0 to 1.
    shuffle: a new order in every epoch, the same for the same seed.
    limit: most documents per epoch; 0 = all.
    protect: files of the protected splits, or folders of them; documents of the training files
        that hold protected text are left out, protected sentences give no loss. Of a folder that
        `convert` filled, what protected the conversion (protected.msgpack).
    dbr: rows of names after each document (`spacy-vaner.dbr_rows.v1`); null = none.
    """
    return Corpus(
        _as_list(paths),
        split=split,
        weights=weights or {},
        drop_corpus=drop_corpus,
        shuffle=shuffle,
        seed=seed,
        limit=limit,
        protect=_as_list(protect),
        dbr=dbr,
    )


def _as_list(paths: str | Sequence[str] | None) -> list[str]:
    if paths is None:
        return []
    parts = paths.split(",") if isinstance(paths, str) else paths
    return [part.strip() for part in parts if part.strip()]


class Corpus:
    """Calls give the examples of an epoch; each call is the next epoch.

    The documents of an epoch and their order follow from (seed, epoch) alone. `spacy train` makes
    one Corpus to initialise the pipeline and another to train it, so training starts at epoch 0.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        split: str,
        weights: Mapping[str, float],
        drop_corpus: float,
        shuffle: bool,
        seed: int,
        limit: int,
        protect: Sequence[str],
        dbr: DbrRows | None = None,
    ) -> None:
        if not 0 <= drop_corpus <= 1:
            raise VanerError(Messages.VE303.format(drop_corpus=drop_corpus))
        if any(weight < 0 for weight in weights.values()):
            raise VanerError(Messages.VE304.format(weights=dict(weights)))
        if limit < 0:
            raise VanerError(Messages.VE307.format(limit=limit))
        self.paths = list(paths)
        self.split = split
        self.weights = dict(weights)
        self.drop_corpus = drop_corpus
        self.shuffle = shuffle
        self.seed = seed
        self.limit = limit
        self.protect = list(protect)
        self.dbr = dbr
        self.guard_counts = GuardCounts()
        self._next_epoch = 0
        self._documents: list[tuple[_Document, float]] = []
        self._vocab: Vocab | None = None

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Read one epoch.

        RAISES VanerError: VE301, VE302, a path without files; VE305, no path; VE306, no document
            left; VE202, a file that is not of this form; VE608, VE609, VE621, VE622, VE624, VE625,
            VE626, of `dbr`.
        """
        if self._vocab is not nlp.vocab:
            self._documents = list(self._read(nlp.vocab))
            self._vocab = nlp.vocab
        epoch = self._next_epoch
        draw = random.Random(f"{self.seed}/{epoch}")
        self._next_epoch += 1
        chosen = [doc for doc, weight in self._documents for _ in range(_times(weight, draw))]
        if self.shuffle:
            draw.shuffle(chosen)
        # Who asks types by name; the annotation of a document may hold others.
        known = types_of_pipeline(nlp) or set()
        return self._examples(nlp, chosen[: self.limit or None], known, epoch, draw)

    def _examples(
        self,
        nlp: Language,
        documents: list["_Document"],
        known: set[str],
        epoch: int,
        draw: random.Random,
    ) -> Iterator[Example]:
        jointly = asks_jointly(nlp)
        # A generator of its own: the documents are the same ones with rows of names and without.
        draw_rows = random.Random(f"{self.seed}/{epoch}/dbr")
        for document in documents:
            name_corpus = draw.random() >= self.drop_corpus
            yield self._example(document.doc, known, name_corpus=name_corpus)
            gold = get_gold(document.doc)
            if self.dbr is None or gold is None:
                continue
            for doc in self.dbr.docs(
                nlp,
                document.sentences,
                [name for name in (*gold.types, *gold.partial) if name in known],
                jointly=jointly,
                seed=self.seed,
                epoch=epoch,
                draw=draw_rows,
            ):
                # As in the paper, names are asked without a corpus name.
                yield self._example(doc, known, name_corpus=False)
        if self.dbr is not None:
            logger.info("DBR rows: %d; names too long: %d", self.dbr.n_rows, self.dbr.n_left_out)

    def _example(self, reference: Doc, known: set[str], *, name_corpus: bool) -> Example:
        predicted = unannotated_copy(reference)
        gold = get_gold(reference)
        if gold is not None:
            ask = Ask(types=[name for name in gold.types if name in known])
            if not name_corpus:
                ask["corpus"] = None
            elif gold.names:
                ask["corpus"] = dict(gold.names)
            set_ask(predicted, ask)
        return Example(predicted, reference)

    def _read(self, vocab: Vocab) -> Iterator[tuple["_Document", float]]:
        if not self.paths:
            raise VanerError(Messages.VE305)
        index = self._protected()
        total_weight = 0.0
        unused_weights = set(self.weights)
        files = find_files(self.paths, split=self.split)
        if self.dbr is not None:
            self.dbr.open(files)
        for path in files:
            for *key, doc in document_keys(read_docs(path, vocab), path):
                gold = get_gold(doc)
                if index is not None:
                    verdict = index.check(doc)
                    self.guard_counts.add(verdict)
                    if verdict.dropped:
                        continue
                    if verdict.masked and gold is not None:
                        masked = [*gold.masked, *verdict.masked]
                        doc.user_data[KEY] = {
                            **doc.user_data[KEY],
                            "masked": [list(stretch) for stretch in sorted(set(masked))],
                        }
                corpus = gold.corpus if gold is not None else None
                stem = path.name.removesuffix(".spacy")
                unused_weights -= {stem, corpus}
                weight = self.weights.get(stem, self.weights.get(corpus or "", 1.0))
                total_weight += weight
                sentences = self._sentences(doc, path, key)
                yield _Document(doc, sentences), weight
        if unused_weights:
            raise VanerError(Messages.VE308.format(names=sorted(unused_weights)))
        if not total_weight:
            raise VanerError(Messages.VE306.format(paths=", ".join(self.paths)))
        if index is not None:
            logger.info("Leakage guard: %s", self.guard_counts.to_dict())

    def _sentences(self, doc: Doc, path: Path, key: Sequence[str]) -> list[SentenceCandidates]:
        """The sentences of a document that rows of names are drawn for."""
        gold = get_gold(doc)
        if self.dbr is None or gold is None:
            return []
        corpus, document = key
        return self.dbr.sentences(path, (corpus, document), gold.masked)

    def _protected(self) -> ProtectedIndex | None:
        if not self.protect:
            return None
        test: list[Path] = []
        dev: list[Path] = []
        indexes: list[Path] = []
        for path in map(Path, self.protect):
            if (path / PROTECTED_FILE).is_file():
                indexes.append(path / PROTECTED_FILE)
            elif path.is_dir():
                in_folder = [sorted(path.glob(f"*.{kind}.spacy")) for kind in ("test", "dev")]
                if not any(in_folder):
                    # A guard that guards against nothing must not look like one that does.
                    raise VanerError(Messages.VE309.format(path=path))
                test.extend(in_folder[0])
                dev.extend(in_folder[1])
            elif path.suffix == Path(PROTECTED_FILE).suffix and path.is_file():
                indexes.append(path)
            elif path.is_file():
                (dev if path.name.endswith(".dev.spacy") else test).append(path)
            else:
                raise VanerError(Messages.VE301.format(path=path))
        index = ProtectedIndex.from_files(test=test, dev=dev)
        for path in indexes:
            index.update(ProtectedIndex.from_file(path))
        return index


class _Document(NamedTuple):
    """A document, and its sentences with the names that are like their phrases."""

    doc: Doc
    sentences: list[SentenceCandidates]


def _times(weight: float, draw: random.Random) -> int:
    whole = int(weight)
    rest = weight - whole
    return whole + (draw.random() < rest if rest else 0)
