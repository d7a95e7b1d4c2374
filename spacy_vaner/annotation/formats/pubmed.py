"""PubMed's XML, as the baseline and the update files have it: title and abstract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from spacy_vaner.annotation.document import Document, Rejection, join_passages
from spacy_vaner.corpora.formats.xml_nodes import BrokenXML, Node, recover_nodes

ROOTS = ("PubmedArticleSet", "PubmedBookArticleSet", "MedlineCitationSet")
_ARTICLES = ("PubmedArticle", "PubmedBookArticle", "MedlineCitation")


def read(stream: BinaryIO, name: str) -> Iterator[Document | Rejection]:
    """Read the citations: a passage for the title, one for each part of the abstract.

    The text is the character data as it stands; marks such as <i> are left out, their text stays.
    Abstracts in other languages and deleted citations are passed over. The second version of a
    citation, which has the PMID of the first, is called PMID.2, as PubMed does.
    """
    for node in recover_nodes(stream, Path(name), ROOTS, _ARTICLES, starts=_ARTICLES):
        position = f"line {node.line}"
        if isinstance(node, BrokenXML):
            lost = _numbers(_citation(node.node))[0] if node.node else None
            yield Rejection(name, position, str(node), lost)
            continue
        citation = _citation(node)
        id_, pmid = _numbers(citation)
        if id_ is None:
            yield Rejection(name, position, "a citation has no <PMID>")
            continue
        text, passages = join_passages(_parts(citation))
        yield Document(id_, text, passages, pmid=pmid, position=position)


def _citation(node: Node) -> Node:
    return node.first("MedlineCitation") or node.first("BookDocument") or node


def _numbers(citation: Node) -> tuple[str | None, str | None]:
    """Identifier, with the version of a later one, and PMID; None where there is none."""
    found = citation.first("PMID")
    pmid = found.text.strip() if found is not None else ""
    if found is None or not pmid:
        return None, None
    version = found.attributes.get("Version", "1")
    return (pmid if version == "1" else f"{pmid}.{version}"), pmid


def _parts(citation: Node) -> Iterator[tuple[str, dict[str, str]]]:
    article = citation.first("Article") or citation
    title = article.first("ArticleTitle") or article.first("BookTitle")
    if title is not None:
        yield all_text(title), {"type": "title"}
    for abstract in article.all("Abstract"):
        for part in abstract.all("AbstractText"):
            label = part.attributes.get("Label")
            yield all_text(part), {"type": "abstract", **({"section": label} if label else {})}


def all_text(node: Node) -> str:
    """All character data of an element and those in it, as it stands."""
    return "".join(part if isinstance(part, str) else all_text(part) for part in node.content)
