"""DBR rows in the loop: names that were found for the sentences of the prepared documents.

`python -m spacy vaner rows --candidates` puts the names of the knowledge base and, per sentence,
which of them are its candidates into one file of arrays beside the rows. What a row holds is drawn
while training, by knowledge/rows.py, so that one folder serves every setting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from safetensors.numpy import load, save

from spacy_vaner.backbone.tokenizer import SubwordTokenizer
from spacy_vaner.decoding import B, I
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole
from spacy_vaner.knowledge.candidates import Key, SentenceCandidates
from spacy_vaner.knowledge.rows import DbrRow, draw_row
from spacy_vaner.knowledge.store import KnowledgeBase
from spacy_vaner.pieces import IntArray, label_subwords, label_units, overlapping, split_plain
from spacy_vaner.training.tag_config import DbrConfig
from spacy_vaner.training.token_file import file_sha256

DBR_FILE = "dbr.safetensors"

_ROW = 3
"""Purpose of a generator, beside those of tag_batches.py."""


@dataclass(frozen=True)
class DbrFacts:
    """What the file holds.

    sha256: of it. knowledge_base: its fingerprint.
    types: the sets of types that names have; a name has the number of its set.
    first_documents: per file of a source, where its documents begin.
    """

    sha256: str
    knowledge_base: str
    n_names: int
    n_sentences: int
    n_candidates: int
    types: list[list[str]]
    first_documents: dict[str, int]


def write_names(
    folder: Path,
    kb: KnowledgeBase,
    sources: Mapping[str, Sequence[Sequence[SentenceCandidates]]],
) -> DbrFacts:
    """Write the names of a knowledge base and where they are candidates.

    sources: per file of a source the sentences of each of its documents.
    """
    sets: dict[tuple[str, ...], int] = {}
    set_of_name = [sets.setdefault(types, len(sets)) for types in kb.types]
    encoded = [name.encode("utf8") for name in kb.names]
    first_documents: dict[str, int] = {}
    documents, bounds = [0], [0]
    stretches: list[list[int]] = []
    positions: list[int] = []
    for file, of_documents in sources.items():
        first_documents[file] = len(documents) - 1
        for sentences in of_documents:
            for sentence in sentences:
                found = [kb.find(name) for name in sentence.names]
                positions += [position for position in found if position is not None]
                stretches.append([sentence.key.start, sentence.end])
                bounds.append(len(positions))
            documents.append(len(stretches))
    arrays: dict[str, NDArray[Any]] = {
        "names": numpy.frombuffer(b"".join(encoded), numpy.uint8),
        "name_bounds": numpy.cumsum([0, *map(len, encoded)], dtype=numpy.int64),
        "name_types": numpy.array(set_of_name, numpy.int32),
        "documents": numpy.array(documents, numpy.int64),
        "sentences": numpy.array(stretches, numpy.int32).reshape(-1, 2),
        "candidate_bounds": numpy.array(bounds, numpy.int64),
        "candidates": numpy.array(positions, numpy.int32),
    }
    write_whole(folder / DBR_FILE, save(arrays))
    return DbrFacts(
        sha256=file_sha256(folder / DBR_FILE),
        knowledge_base=kb.fingerprint,
        n_names=len(kb),
        n_sentences=len(stretches),
        n_candidates=len(positions),
        types=[list(types) for types in sets],
        first_documents=first_documents,
    )


class SentenceNames:
    """The candidates of the sentences of prepared documents, and the names to draw others from.

    types: that any name has. kb: names and types, without ids and sources.
    RAISES VanerError: VE523, the file is missing or damaged.
    """

    def __init__(self, folder: Path, facts: DbrFacts) -> None:
        path = folder / DBR_FILE
        try:
            if file_sha256(path) != facts.sha256:
                raise ValueError("its hash is not the one in the header")
            self._arrays: dict[str, IntArray] = load(path.read_bytes())
        except (OSError, ValueError) as error:
            raise VanerError(Messages.VE523.format(path=path, reason=error)) from None
        self._first_documents = facts.first_documents
        self.types = frozenset(type for types in facts.types for type in types)
        self.kb = KnowledgeBase(
            _Names(self._arrays["names"], self._arrays["name_bounds"]),
            _Types([tuple(types) for types in facts.types], self._arrays["name_types"]),
            (),
            (),
        )

    def within(self, file: str, document: int, start: int, end: int) -> list[SentenceCandidates]:
        """The sentences of a document that begin in a stretch of its characters."""
        first_document = self._first_documents.get(file)
        if first_document is None:  # no candidates were made of this corpus
            return []
        first, last = self._arrays["documents"][first_document + document :][:2].tolist()
        starts = self._arrays["sentences"][first:last, 0]
        inside = numpy.flatnonzero((starts >= start) & (starts < end))
        return [self._sentence(file, document, first + int(place)) for place in inside]

    def _sentence(self, file: str, document: int, number: int) -> SentenceCandidates:
        start, end = self._arrays["sentences"][number].tolist()
        first, last = self._arrays["candidate_bounds"][number : number + 2].tolist()
        positions = self._arrays["candidates"][first:last].tolist()
        return SentenceCandidates(
            Key(file, str(document), start),
            end,
            tuple(self.kb.names[position] for position in positions),
            tuple(self.kb.types[position] for position in positions),
            (),  # drawing does not look at scores
        )


class NameRow(NamedTuple):
    """A row of names as the tagger reads it.

    subword_ids: (subwords,), empty where no name fits.
    answers: per type its name, positions (labels,) in the row and tags (labels,), O, B or I.
    n_left_out: names that did not fit.
    """

    subword_ids: IntArray
    answers: list[tuple[str, IntArray, IntArray]]
    n_left_out: int


class NameRows:
    """Draws the rows of names that go with the windows of a run.

    longest: row, in subwords.
    RAISES VanerError: VE612, a separator that is none.
    """

    def __init__(
        self,
        names: SentenceNames,
        config: DbrConfig,
        tokenizer: SubwordTokenizer,
        *,
        seed: int,
        asking: str,
        labelled_subwords: str,
        longest: int,
    ) -> None:
        self._names = names
        self._config = config
        self._tokenizer = tokenizer
        self._seed = seed
        self._asking = asking
        self._which = labelled_subwords
        self._longest = longest
        self._settings = config.rows()

    def draw(
        self,
        file: str,
        document: int,
        stretch: tuple[int, int],
        types: Sequence[str],
        *,
        epoch: int,
        number: int,
    ) -> Iterator[NameRow]:
        """The rows of the sentences that begin in a window.

        stretch: of characters. types: that the document is annotated for; those that the knowledge
            base does not know are not asked, since all its names would be their negatives.
        epoch: rows are drawn anew in each. number: of the window; which sentences give rows follows
            from it.
        """
        known = [type for type in types if type in self._names.types]
        groups = [known] if self._asking == "joint" else [[type] for type in known]
        sentences = self._names.within(file, document, *stretch)
        draws = numpy.random.default_rng([self._seed, _ROW, number]).random(len(sentences))
        for sentence, drawn in zip(sentences, draws, strict=True):
            for group in groups if drawn < self._config.share else ():
                row = draw_row(
                    sentence, group, self._names.kb, self._settings, seed=self._seed, epoch=epoch
                )
                if group and row is not None:
                    yield self._encode(row)

    def _encode(self, row: DbrRow) -> NameRow:
        """Cut a row into subwords, as the text of a document; what is too long loses names."""
        ids, offsets = self._tokenizer.encode(row.text)
        subwords = numpy.array(offsets, numpy.int64).reshape(-1, 2)
        units, first, last = label_units(split_plain(row.text), subwords)
        begin = int(first[0]) if len(first) else 0
        n_kept = end = 0
        for place in row.places:
            inside = overlapping(units, *place)
            after = int(last[inside.stop - 1]) if inside.stop > inside.start else end
            if after - begin > self._longest:
                break
            n_kept, end = n_kept + 1, after
        kept = last <= end
        units, first, last = units[kept], first[kept], last[kept]
        answers = []
        for type in row.types:
            tags: IntArray = numpy.zeros(len(units), numpy.int64)
            for mention in row.mentions:
                inside = overlapping(units, *mention.fragments[0])
                if mention.type == type and inside.stop > inside.start:
                    tags[inside] = I
                    tags[inside.start] = B
            answers.append(
                (type, *label_subwords(first - begin, last - begin, tags, which=self._which))
            )
        return NameRow(
            numpy.array(ids[begin:end], numpy.int64),
            answers if n_kept else [],
            len(row.places) - n_kept + row.n_too_long,
        )


class _Names(Sequence[str]):
    """Names in one array of bytes: a million strings would take 80 MB."""

    def __init__(self, characters: IntArray, bounds: IntArray) -> None:
        self._characters = characters
        self._bounds = bounds

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._bounds[index : index + 2]
        return self._characters[start:end].tobytes().decode("utf8")


class _Types(Sequence[tuple[str, ...]]):
    """The types of names, each by the number of its set."""

    def __init__(self, sets: list[tuple[str, ...]], numbers: IntArray) -> None:
        self._sets = sets
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        return self._sets[self._numbers[index]]
