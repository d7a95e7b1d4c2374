"""A document on its way through annotation: text, passages, what is annotated already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from spacy_vaner.types import Offsets

if TYPE_CHECKING:
    from spacy.tokens import Doc

MAX_GAP = 100_000
"""Characters between passages, all of a document together: they are filled with blanks, and more
is a wrong offset."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """A stretch of a document with a type.

    fragments: offsets into the document's text, in its order; several = discontinuous.
    score: probability with four digits; None where the source gives none.
    model: which model found it (`annotator.model_name`); None for what the source had.
    """

    type: str
    fragments: tuple[Offsets, ...]
    ids: tuple[str, ...] = ()
    score: float | None = None
    model: str | None = None

    @property
    def start(self) -> int:
        return self.fragments[0][0]

    @property
    def end(self) -> int:
        return self.fragments[-1][1]


@dataclass(frozen=True, slots=True)
class Passage:
    """A title, an abstract, a paragraph: text[start:end] of its document.

    offset: where the source says that it starts; differs from `start` where the offsets of the
        source overlap.
    infons: what the source says of it, e.g. {"type": "title"}.
    """

    start: int
    end: int
    offset: int
    infons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Native:
    """What a format says of a document beyond text and annotations; its own writer keeps it.

    format: the family of formats that understands it, e.g. "bioc" for XML and JSON.
    """

    format: str
    data: object


@dataclass(frozen=True, slots=True)
class Document:
    """What every reader yields.

    text: as it came; passages cover it, with blanks between them.
    annotations: those that the source has.
    position: where in its file it starts, for messages ("line 12").
    file: the name of that file; whoever opened it adds it.
    """

    id: str
    text: str
    passages: tuple[Passage, ...]
    annotations: tuple[Annotation, ...] = ()
    pmid: str | None = None
    native: Native | None = None
    position: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A document, or the rest of a file, that could not be read or annotated.

    file: its name, relative to the input. id: of the document, None where not known.
    """

    file: str
    position: str
    reason: str
    id: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        return {
            "file": self.file,
            "position": self.position,
            "id": self.id,
            "reason": self.reason,
        }


class Unreadable(Exception):
    """A reader raises it for one document; it becomes a Rejection and the next one is read."""


class Annotated(NamedTuple):
    """What every writer takes: a document, what was found in it, and the Doc it was found in.

    doc: needed where tokens are written; None where it is not kept.
    """

    document: Document
    found: tuple[Annotation, ...]
    doc: Doc | None = None

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """What was there already, then what was found, in the order of the text."""
        found = sorted(self.found, key=lambda one: (one.fragments, one.type))
        return (*self.document.annotations, *found)


def whole(text: str, **infons: str) -> tuple[Passage, ...]:
    """The passages of a text that is one passage."""
    return (Passage(0, len(text), 0, infons),)


def join_passages(
    parts: Iterable[tuple[str, Mapping[str, str]]],
) -> tuple[str, tuple[Passage, ...]]:
    """Text and passages from texts that have no offsets of their own: a blank between them."""
    text = ""
    passages: list[Passage] = []
    for part, infons in parts:
        start = len(text) + 1 if passages else 0
        text += " " * (start - len(text)) + part
        passages.append(Passage(start, len(text), start, infons))
    return text, tuple(passages)


def place_passages(
    parts: Sequence[tuple[str, int, Mapping[str, str]]],
) -> tuple[str, tuple[Passage, ...]]:
    """Text and passages from texts with the offsets that a source gives them.

    What lies before the end of the passage before follows after one blank (Passage.offset keeps
    the source's number).

    RAISES Unreadable: an offset far behind the text before.
    """
    text = ""
    passages: list[Passage] = []
    n_filled = 0
    for part, offset, infons in parts:
        start = offset
        if start < len(text) or (passages and start < passages[-1].start):
            start = len(text) + 1
        n_filled += start - len(text)
        if n_filled > MAX_GAP:
            raise Unreadable(
                f"a passage has the offset {offset}, but the text before it ends at {len(text)}"
            )
        text += " " * (start - len(text)) + part
        passages.append(Passage(start, len(text), offset, infons))
    return text, tuple(passages)


def surface(text: str, fragments: Iterable[Offsets]) -> str:
    """The text of an annotation; a blank between fragments."""
    return " ".join(text[start:end] for start, end in fragments)


def check_fragments(fragments: Sequence[Offsets], text: str) -> tuple[Offsets, ...]:
    """RAISES Unreadable: an annotation that does not lie inside of the text."""
    for start, end in fragments:
        if not 0 <= start < end <= len(text):
            raise Unreadable(
                f"an annotation from {start} to {end} does not lie inside of the {len(text)} "
                "characters of the document"
            )
    if not fragments:
        raise Unreadable("an annotation has no offsets")
    return tuple(sorted(fragments))


def check_surface(said: str | None, fragments: Sequence[Offsets], text: str) -> None:
    """RAISES Unreadable: the source says that another text stands at these offsets."""
    if said is None:
        return
    found = surface(text, fragments)
    if "".join(said.split()) != "".join(found.split()):
        raise Unreadable(
            f"the offsets do not fit the text: at {fragments[0][0]} stands {found[:60]!r}, "
            f"annotated is {said[:60]!r}"
        )
