"""Gold documents from `.spacy` files: what is annotated, and what a pipeline may see of it.

A file is read a document at
a time; only its compressed form is held whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_vaner.corpora.docbins import docs_of
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.gold import Gold, get_gold, unannotated_copy
from spacy_vaner.types import Mention

VIEWS = ("tokens", "text")
"""What of a file a pipeline sees: its words and, where it has them, its sentences; or the raw text,
which the pipeline's own tokenizer cuts."""


@dataclass(frozen=True, slots=True)
class GoldDocument:
    """A document of a file with its annotation.

    corpus: as reports call it; the name of the file where the document names none.
    gold: the annotation; `types` are asked and scored.
    doc: the words as the file has them, with the annotation: never shown to a pipeline.
    """

    corpus: str
    gold: Gold
    doc: Doc

    def unannotated(self) -> Doc:
        """A copy with the words and sentence starts of the file and nothing else."""
        return unannotated_copy(self.doc)

    def names(self) -> dict[str, str] | None:
        """The corpus names that instructions give for the types; None without any."""
        names = self.gold.names
        return {type: names[type] for type in self.gold.types if type in names} or None


class GoldFile:
    """A `.spacy` file, read and checked as far as that goes without building every document.

    path: the file.
    types: what documents without `user_data["vaner"]` are taken as annotated for; None = the
        labels of all entities of the file.
    label_map: label of `doc.ents` to type, for documents without `user_data["vaner"]`.
    RAISES VanerError: VE402, not a DocBin; VE403, nothing in it is annotated; VE405, no file.
    """

    def __init__(
        self,
        path: Path,
        *,
        types: Sequence[str] | None = None,
        label_map: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.label_map = dict(label_map or {})
        if not path.is_file():
            raise VanerError(Messages.VE405.format(path=path))
        try:
            self._bin = DocBin().from_disk(path)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            # Bytes that are not zlib give ValueError, zlib of anything else the others.
            raise VanerError(Messages.VE402.format(path=path, reason=_reason(error))) from error
        labels, annotated = self._scan()
        self._default_types = labels if types is None else tuple(types)
        if not annotated:
            raise VanerError(Messages.VE403.format(path=path))

    def __len__(self) -> int:
        return len(self._bin)

    def read(self, vocab: Vocab) -> Iterator[GoldDocument]:
        """Build the documents in the order of the file; those without a complete type as well.

        RAISES VanerError: VE404, an annotation that is not of the form of docs/formats.md.
        """
        for number, doc in enumerate(docs_of(self._bin, vocab), start=1):
            try:
                gold = get_gold(doc) or self._gold_of_entities(doc)
            except (VanerError, AttributeError, TypeError) as error:
                raise VanerError(
                    Messages.VE404.format(path=self.path, number=number, reason=error)
                ) from error
            yield GoldDocument(gold.corpus or self.path.stem, gold, doc)

    def _gold_of_entities(self, doc: Doc) -> Gold:
        """Entities that were never set, not even to none, say nothing about any type."""
        return Gold(
            types=self._default_types if doc.has_annotation("ENT_IOB") else (),
            mentions=tuple(
                Mention(self._type(ent.label_), ((ent.start_char, ent.end_char),))
                for ent in doc.ents
            ),
        )

    def _type(self, label: str) -> str:
        return self.label_map.get(label, label)

    def _scan(self) -> tuple[tuple[str, ...], bool]:
        """The types of the entities of documents that do not say what they are annotated for, and
        whether any document of the file is annotated at all."""
        labels: set[str] = set()
        annotated = False
        for doc in docs_of(self._bin, Vocab()):
            try:
                gold = get_gold(doc)
            except (VanerError, AttributeError, TypeError):
                annotated = True  # `read` reports it, with the number of the document
            else:
                annotated |= bool(gold and gold.types)
                if gold is None:
                    labels.update(self._type(ent.label_) for ent in doc.ents)
        return tuple(sorted(labels)), annotated or bool(labels)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
