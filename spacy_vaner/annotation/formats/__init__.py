"""The formats that documents come in and go out in. A further one is a small file and a row."""

from __future__ import annotations

from spacy_vaner.annotation.formats import (
    bioc,
    brat,
    jats,
    jsonl,
    page,
    parquet,
    pubmed,
    pubtator,
    spacy_docs,
    text,
)
from spacy_vaner.annotation.formats.base import InputFormat, OutputFormat
from spacy_vaner.errors import Messages, VanerError

INPUTS: dict[str, InputFormat] = {
    "text": InputFormat(text.read, "plain text, one document a file", (".txt",), is_single=True),
    "jsonl": InputFormat(jsonl.read, "JSONL, a document per line", (".jsonl",)),
    "pubtator": InputFormat(pubtator.read, "PubTator", (".pubtator",)),
    "bioc_xml": InputFormat(bioc.read_xml, "BioC XML", (".xml",), roots=("collection",)),
    "bioc_json": InputFormat(bioc.read_json, "BioC JSON, PubTator 3's too", (".json",)),
    "pubmed_xml": InputFormat(
        pubmed.read, "PubMed's XML, as the baseline has it", (".xml",), roots=pubmed.ROOTS
    ),
    "jats": InputFormat(
        jats.read, "JATS, PMC's full texts", (".nxml", ".xml"), roots=jats.ROOTS, is_single=True
    ),
    "spacy": InputFormat(spacy_docs.read, "spaCy's .spacy files (DocBin)", (".spacy",)),
}
OUTPUTS: dict[str, OutputFormat] = {
    "pubtator": OutputFormat(pubtator.write, "PubTator, without scores", ".pubtator"),
    "bioc_xml": OutputFormat(bioc.write_xml, "BioC XML", ".bioc.xml"),
    "bioc_json": OutputFormat(bioc.write_json, "BioC JSON", ".bioc.json"),
    "brat": OutputFormat(brat.write, "brat standoff, folders of .txt with .ann", ""),
    "jsonl": OutputFormat(jsonl.write, "JSONL, a document per line", ".jsonl"),
    "parquet": OutputFormat(
        parquet.write, "Parquet, a row per annotation", ".parquet", needs="pyarrow"
    ),
    "spacy": OutputFormat(spacy_docs.write, "spaCy's .spacy files (DocBin)", ".spacy"),
    "html": OutputFormat(page.write, "a page to look at, by displaCy", ".html"),
}


def get_input(name: str) -> InputFormat:
    """RAISES VanerError: VE701, an unknown format."""
    if name not in INPUTS:
        raise VanerError(Messages.VE701.format(option="--from", name=name, known=_known(INPUTS)))
    return INPUTS[name]


def get_output(name: str) -> OutputFormat:
    """RAISES VanerError: VE701, an unknown format."""
    if name not in OUTPUTS:
        raise VanerError(Messages.VE701.format(option="--to", name=name, known=_known(OUTPUTS)))
    return OUTPUTS[name]


def _known(names: dict[str, InputFormat] | dict[str, OutputFormat]) -> str:
    return ", ".join(sorted(names))
