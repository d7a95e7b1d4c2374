"""What the published corpora hold, counted: every split of every view of the catalogue.

published_counts.json: documents, sentences, mentions per type, discontinuous mentions, notes,
documents with the identifier of an earlier one. The counts are those of the released files as their
descriptions give them, with these differences:

- BC5CDR's BioC files have 4363, 4421 and 4534 disease mentions; 8, 14 and 4 of them repeat another
  one (parts of composite mentions that are annotated twice) and are left out.
- BC2GM's ALTGENE has 14499 alternatives in train and dev; 33 are given twice.
- DDI's 18442 mentions are contiguous; its 49 discontinuous ones are counted here too, as are the 14
  species mentions of S800-revised.
- Types that are not used (DomainMotif, Complex, …) are not counted.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from spacy_vaner.corpora.catalogue import catalogue, catalogue_conversion
from spacy_vaner.corpora.convert import records
from spacy_vaner.corpora.report import ConversionReport

COUNTS = json.loads(Path(__file__).with_name("published_counts.json").read_text(encoding="utf8"))
# These two are counted elsewhere, or by those who have it.
NOT_HERE = {"sample", "BC4CHEMD"}


def test_every_split_of_the_catalogue_is_counted():
    names = {
        f"{corpus}.{view}.{split}"
        for corpus, row in catalogue().items()
        for view in row.views
        for split in row.views[view].files
        if corpus not in NOT_HERE
    }
    assert names == set(COUNTS)


@pytest.mark.external
@pytest.mark.parametrize("name", COUNTS)
def test_the_counts_of_the_published_corpora(name):
    """Needs VANER_CORPORA_DIR, the folder that holds the corpora."""
    corpus, view, split = name.split(".")
    folder = Path(os.environ["VANER_CORPORA_DIR"])
    conversion = catalogue_conversion(corpus, view, split, corpora_dir=folder)
    report = ConversionReport()
    for record in records(conversion, report):
        report.add_record(record, n_tokens=len(record.words or ()), n_widened=0)
    assert [
        report.documents,
        report.sentences,
        dict(sorted(report.mentions.items())),
        report.discontinuous,
        dict(report.notes),
        report.repeated_documents,
    ] == COUNTS[name]
