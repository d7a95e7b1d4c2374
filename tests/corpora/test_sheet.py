"""The data sheet: made anew it is what the repository has."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from spacy_vaner.corpora.batch import protection
from spacy_vaner.corpora.catalogue import catalogue
from spacy_vaner.corpora.guard import ProtectedIndex, Source
from spacy_vaner.corpora.sheet import N_EXAMPLES, make_sheet, measure

ROOT = Path(__file__).parents[2]
SHEET = ROOT / "docs" / "corpora.md"
SAMPLE_DIR = ROOT / "project" / "corpora"


def test_the_sheet_is_what_the_command_makes():
    """All that needs no other corpus than the sample."""
    text = SHEET.read_text(encoding="utf8")
    sample = measure(catalogue()["sample"], SAMPLE_DIR, ProtectedIndex())
    assert make_sheet(text, {"sample": sample}) == text


def test_every_corpus_is_counted_and_every_type_shown():
    text = SHEET.read_text(encoding="utf8")
    assert len(text.encode("utf8")) < 300_000
    for corpus in catalogue().values():
        part = text.partition(f"<!-- counted: {corpus.name} -->")[2].partition("<!-- end")[0]
        if corpus.name == "BC4CHEMD":
            assert "was not at hand" in part
            continue
        for view in corpus.views.values():
            for type_ in (*view.types, *view.partial):
                shown = part.partition(f"\n{type_}:\n\n")[2].partition("\n\n")[0].splitlines()
                assert 1 <= len(shown) <= N_EXAMPLES
                assert all(re.match(r"- .*\*\*.+\*\*", line) for line in shown)


@pytest.mark.external
@pytest.mark.timeout(3600)
def test_the_sheet_is_what_the_corpora_hold():
    """Needs VANER_CORPORA_DIR, the folder that holds the corpora."""
    folder = Path(os.environ["VANER_CORPORA_DIR"])
    guard = protection(folder).index()
    measured = {
        name: measure(corpus, folder, guard)
        for name, corpus in catalogue().items()
        if name not in ("sample", "BC4CHEMD")
    }
    text = SHEET.read_text(encoding="utf8")
    assert make_sheet(text, measured) == text


def test_what_the_guard_leaves_is_counted():
    """Of the sample's training split one document is in a test and a sentence in a dev split."""
    guard = ProtectedIndex()
    lines = (SAMPLE_DIR / "sample/sample.train.jsonl").read_text(encoding="utf8").splitlines()
    texts = [re.search(r'"text": "(.*?)(?<!\\)"', line)[1] for line in lines[:2]]
    guard.protect_text(texts[0], Source("other", "test"))
    guard.protect_text(texts[1].partition(". ")[0] + ".", Source("other", "dev"))
    sample = catalogue()["sample"]
    sample = replace(sample, views={"text": sample.views["text"]})
    block = measure(sample, SAMPLE_DIR, guard)
    (row,) = [line for line in block.splitlines() if line.startswith("| text | train ")]
    total, left = (
        sum(map(int, re.findall(r"[A-Z][a-z]+ (\d+)", cell))) for cell in row.split("|")[5:7]
    )
    assert row.startswith("| text | train | 36 | – | Chemical 293, Disease 289, Gene 283,")
    assert "| 35 documents, 1 of them masked in part: Chemical " in row
    assert 0 < left < total == 1020


def test_a_sheet_keeps_what_it_cannot_count():
    first = make_sheet("", {"DDI": "counted before\n"})
    assert "counted before" in first
    assert make_sheet(first, {}) == first
    assert "counted before" not in make_sheet(first, {"DDI": "counted now\n"})
