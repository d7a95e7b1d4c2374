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
    "text": InputFormat(text.read, (".txt",), is_single=True),
    "jsonl": InputFormat(jsonl.read, (".jsonl",)),
    "pubtator": InputFormat(pubtator.read, (".pubtator",)),
    "bioc_xml": InputFormat(bioc.read_xml, (".xml",), roots=("collection",)),
    "bioc_json": InputFormat(bioc.read_json, (".json",)),
    "pubmed_xml": InputFormat(pubmed.read, (".xml",), roots=pubmed.ROOTS),
    "jats": InputFormat(jats.read, (".nxml", ".xml"), roots=jats.ROOTS, is_single=True),
    "spacy": InputFormat(spacy_docs.read, (".spacy",)),
}
OUTPUTS: dict[str, OutputFormat] = {
    "pubtator": OutputFormat(pubtator.write, ".pubtator"),
    "bioc_xml": OutputFormat(bioc.write_xml, ".bioc.xml"),
    "bioc_json": OutputFormat(bioc.write_json, ".bioc.json"),
    "brat": OutputFormat(brat.write, ""),
    "jsonl": OutputFormat(jsonl.write, ".jsonl"),
    "parquet": OutputFormat(parquet.write, ".parquet", needs="pyarrow"),
    "spacy": OutputFormat(spacy_docs.write, ".spacy"),
    "html": OutputFormat(page.write, ".html"),
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
