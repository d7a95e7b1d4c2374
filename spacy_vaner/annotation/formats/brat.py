"""brat standoff: a folder with a text file and a file of annotations per document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from spacy_vaner.annotation.document import Annotated, surface
from spacy_vaner.corpora.formats.base import single_line


def write(documents: Sequence[Annotated], path: Path) -> None:
    """Write ID.txt and ID.ann per document; a second document of one name gets a number.

    Identifiers are N lines; score and model stand in a note, which brat shows with the annotation.
    """
    path.mkdir()
    for annotated in documents:
        name = re.sub(r"[^\w.\- ]", "_", annotated.document.id).strip(". ")[:100] or "document"
        text_path = path / f"{name}.txt"
        number = 1
        while text_path.exists():
            number += 1
            text_path = path / f"{name}.{number}.txt"
        text_path.write_bytes(annotated.document.text.encode("utf8"))
        content = "".join(line + "\n" for line in to_lines(annotated))
        text_path.with_name(text_path.name[: -len(".txt")] + ".ann").write_bytes(
            content.encode("utf8")
        )


def to_lines(annotated: Annotated) -> Iterator[str]:
    """The lines of the file of annotations. A type is written as one word, as brat needs it."""
    n_references = 0
    for number, one in enumerate(annotated.annotations, start=1):
        offsets = ";".join(f"{start} {end}" for start, end in one.fragments)
        said = single_line(surface(annotated.document.text, one.fragments))
        type_ = re.sub(r"\s", "_", one.type)
        yield f"T{number}\t{type_} {offsets}\t{said}"
        for identifier in one.ids:
            n_references += 1
            yield f"N{n_references}\tReference T{number} {single_line(identifier)}\t{said}"
        if one.score is not None or one.model is not None:
            score = "" if one.score is None else f"score {one.score:.4f}"
            model = "" if one.model is None else f"model {one.model}"
            yield f"#{number}\tAnnotatorNotes T{number}\t{' '.join(filter(None, [score, model]))}"
