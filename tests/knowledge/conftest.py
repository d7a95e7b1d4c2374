"""A small knowledge base and the small files that it is made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from spacy_vaner.knowledge.sources.base import Entry
from spacy_vaner.knowledge.store import BuildReport, KnowledgeBase, build

NAMES = {
    "Disease": ["breast cancer", "lung cancer", "Diabetes mellitus", "cystic fibrosis", "cold"],
    "Chemical": ["aspirin", "metformin", "acetic acid", "alpha-tocopherol"],
    "Gene": ["BRCA1", "insulin", "cystic fibrosis transmembrane conductance regulator", "CAT"],
    "Species": ["Homo sapiens", "cat", "Mus musculus"],
    "Anatomy": ["breast", "lung", "pancreas"],
}


def make_kb(names: dict[str, list[str]]) -> KnowledgeBase:
    entries = (
        Entry(name, type, f"{type}:{number}", "test")
        for type, own in names.items()
        for number, name in enumerate(own)
    )
    return build(entries, BuildReport())


@pytest.fixture(scope="session")
def kb() -> KnowledgeBase:
    return make_kb(NAMES)


CONSO = "{cui}|{lat}|P|L1|PF|S1|Y|A1|||D1|{sab}|MH|D1|{name}|0|{suppress}||"


@pytest.fixture
def umls(tmp_path: Path) -> Path:
    """A release with four concepts; nothing in it is from UMLS."""
    folder = tmp_path / "META"
    folder.mkdir()
    rows = [
        ("C1", "ENG", "MSH", "Mallow fever", "N"),
        ("C1", "ENG", "OTHER", "Fever, mallow", "N"),
        ("C1", "GER", "MSH", "Malvenfieber", "N"),
        ("C1", "ENG", "MSH", "Old mallow fever", "O"),
        ("C2", "ENG", "MSH", "Mallowase", "N"),
        ("C3", "ENG", "MSH", "Mallow street", "N"),
        ("C4", "ENG", "MSH", "Untyped", "N"),
    ]
    lines = [
        CONSO.format(cui=cui, lat=lat, sab=sab, name=name, suppress=suppress)
        for cui, lat, sab, name, suppress in rows
    ]
    (folder / "MRCONSO.RRF").write_text("\n".join(lines) + "\n", encoding="utf8")
    types = ["C1|T047", "C2|T116", "C2|T121", "C3|T083", "C4|T999"]
    text = "".join(f"{row}|B1|a name|AT1||\n" for row in types)
    (folder / "MRSTY.RRF").write_text(text, encoding="utf8")
    return folder
