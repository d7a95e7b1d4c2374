"""A page to look at: documents drawn by displaCy, with a table under each; no outside resources."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from spacy import displacy

from spacy_vaner.annotation.document import Annotated, Annotation, surface

_TABLE_ROW = "<tr><td>{type}</td><td>{text}</td><td>{start}–{end}</td><td>{score}</td></tr>"
_TABLE = (
    '<details style="margin: 0 0 4rem"><summary>{n} annotations, overlapping ones too</summary>'
    '<table cellpadding="4"><tr><th>type</th><th>text</th><th>characters</th><th>score</th></tr>'
    "{rows}</table></details>"
)


def write(documents: Sequence[Annotated], path: Path) -> None:
    """Write one page. Of annotations that overlap the text shows the longer one, the table all."""
    drawn = []
    for annotated in documents:
        figure = displacy.render(
            {
                "text": annotated.document.text,
                "title": escape(annotated.document.id),
                "ents": _drawn(annotated.annotations),
            },
            style="ent",
            manual=True,
            jupyter=False,
        )
        drawn.append(str(figure) + _table(annotated))
    page = displacy.render(
        {"text": "", "ents": []}, style="ent", manual=True, page=True, jupyter=False
    )
    head, body = str(page).split("<body", 1)
    head = head.replace("<head>", '<head><meta charset="utf-8">', 1)
    opening, closing = body[: body.index(">") + 1], "</body>\n</html>\n"
    path.write_text(f"{head}<body{opening}{''.join(drawn)}{closing}", "utf8", newline="\n")


def _drawn(annotations: Sequence[Annotation]) -> list[dict[str, Any]]:
    """Contiguous annotations that do not overlap; their scores are shown beside the type."""
    kept: list[Annotation] = []
    for one in sorted(annotations, key=lambda one: (one.start - one.end, one.start, one.type)):
        if len(one.fragments) == 1 and all(
            one.end <= other.start or other.end <= one.start for other in kept
        ):
            kept.append(one)
    return [
        {
            "start": one.start,
            "end": one.end,
            "label": escape(one.type),
            "kb_id": "" if one.score is None else f"{one.score:.2f}",
        }
        for one in sorted(kept, key=lambda one: one.start)
    ]


def _table(annotated: Annotated) -> str:
    rows = "".join(
        _TABLE_ROW.format(
            type=escape(one.type),
            text=escape(surface(annotated.document.text, one.fragments)),
            start=one.start,
            end=one.end,
            score="" if one.score is None else f"{one.score:.4f}",
        )
        for one in annotated.annotations
    )
    return _TABLE.format(n=len(annotated.annotations), rows=rows)
