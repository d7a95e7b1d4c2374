"""Parquet: a row per annotation, for tables and databases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spacy_vaner.annotation.document import Annotated, surface

COLUMNS = {
    "document": "string",
    "pmid": "string",
    "start": "int64",
    "end": "int64",
    "type": "string",
    "text": "string",
    "ids": "string",
    "score": "float64",
    "model": "string",
    "fragments": "string",
    "passage": "string",
    "section": "string",
}
"""Column → type. start and end: of the whole; fragments: "0-5;9-12" where there are several."""


def to_rows(annotated: Annotated) -> Iterator[dict[str, Any]]:
    """A row per annotation, with the passage that it starts in."""
    document = annotated.document
    for one in annotated.annotations:
        infons = next((p.infons for p in reversed(document.passages) if p.start <= one.start), {})
        several = len(one.fragments) > 1
        yield {
            "document": document.id,
            "pmid": document.pmid,
            "start": one.start,
            "end": one.end,
            "type": one.type,
            "text": surface(document.text, one.fragments),
            "ids": "|".join(one.ids) or None,
            "score": one.score,
            "model": one.model,
            "fragments": ";".join(f"{s}-{e}" for s, e in one.fragments) if several else None,
            "passage": infons.get("type"),
            "section": infons.get("section"),
        }


def write(documents: Sequence[Annotated], path: Path) -> None:
    """Write a table; a document without annotations has no row."""
    import pyarrow
    from pyarrow import parquet

    rows = [row for annotated in documents for row in to_rows(annotated)]
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path, compression="zstd")
