"""JATS, the XML of full texts in PubMed Central: titles, paragraphs and captions as passages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from spacy_vaner.annotation.document import Document, Rejection, join_passages
from spacy_vaner.annotation.formats.base import stem
from spacy_vaner.corpora.formats.xml_nodes import BrokenXML, Node, recover_nodes

ROOTS = ("article", "pmc-articleset", "articles", "OAI-PMH")
_BLOCKS = {
    "article-title": "title",
    "subtitle": "title",
    "title": "title",
    "p": "paragraph",
    "label": "",
}
"""Elements that are a passage, and what it is called; "" = passed over."""
_PASSED_OVER = {
    "table",
    "ref-list",
    "tex-math",
    "object-id",
    "journal-meta",
    "contrib-group",
    "aff",
    "author-notes",
    "permissions",
    "self-uri",
    "kwd-group",
    "funding-group",
    "counts",
    "custom-meta-group",
    "history",
    "pub-date",
    "related-article",
    "trans-title-group",
    "trans-abstract",
    "alt-text",
    "long-desc",
    "graphic",
    "media",
    "supplementary-material",
    "processing-meta",
    "article-categories",
    "back",
}
_OWN_BLOCK = {"fig", "fig-group", "table-wrap", "boxed-text", "list", "def-list", "disp-quote"}
"""Elements that may stand inside of a paragraph and have passages of their own."""
_ID_KINDS = ("pmc", "pmcid", "pmcaid", "pmid", "doi")
_BROKEN_LINE = re.compile(r"[ \t]*[\r\n]\s*")


def read(stream: BinaryIO, name: str) -> Iterator[Document | Rejection]:
    """Read the articles of a file: mostly one.

    A passage for each title, paragraph and caption; tables, formulas in TeX, references and what
    stands in <back> are passed over. White space with a line break in it, which is how such files
    are laid out, counts as one blank. An article is called by its PMC identifier, its PMID, its
    DOI or else its file.
    """
    number = 0
    for node in recover_nodes(stream, Path(name), ROOTS, ("article",), starts=("article",)):
        number += 1
        if isinstance(node, BrokenXML):
            yield Rejection(name, f"line {node.line}", str(node))
            continue
        ids = {kind: text for kind, text in _article_ids(node) if text}
        found = next((ids[kind] for kind in _ID_KINDS if kind in ids), None)
        text, passages = join_passages(
            (part, infons) for part, infons in _passages(node, "") if part
        )
        yield Document(
            found or (stem(name) if number == 1 else f"{stem(name)}.{number}"),
            text,
            passages,
            pmid=ids.get("pmid"),
            position=f"line {node.line}",
        )


def _article_ids(article: Node) -> Iterator[tuple[str, str]]:
    front = article.first("front") or article
    for child in (front.first("article-meta") or front).all("article-id"):
        yield child.attributes.get("pub-id-type", ""), child.text.strip()


def _passages(node: Node, section: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The passages below an element, in the order of the text."""
    for child in node.children:
        if child.tag in _BLOCKS:
            kind = _BLOCKS[child.tag]
            if kind:
                yield _text(child), _infons(kind, section)
                yield from _inner(child, section)
        elif child.tag not in _PASSED_OVER:
            inner = {"abstract": "abstract", "caption": "caption"}.get(child.tag, section)
            if child.tag == "sec":
                title = child.first("title")
                inner = (_text(title) if title is not None else "") or section
            yield from _passages(child, inner)


def _inner(node: Node, section: str) -> Iterator[tuple[str, dict[str, str]]]:
    """What stands inside of a paragraph, but is no part of its sentences."""
    for child in node.children:
        if child.tag in _OWN_BLOCK:
            yield from _passages(child, section)
        else:
            yield from _inner(child, section)


def _infons(kind: str, section: str) -> dict[str, str]:
    return {"type": kind, **({"section": section} if section else {})}


def _text(node: Node) -> str:
    return _BROKEN_LINE.sub(" ", "".join(_inline(node))).strip()


def _inline(node: Node) -> Iterator[str]:
    for part in node.content:
        if isinstance(part, str):
            yield part
        elif part.tag not in _PASSED_OVER and part.tag not in _OWN_BLOCK:
            yield from _inline(part)
