"""Spaces restored between the words of a corpus."""

from __future__ import annotations

import pytest

from spacy_vaner.corpora.detokenise import join_words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("NF - Y binds", "NF-Y binds"),
        ("BRCA1 - deficient cells", "BRCA1-deficient cells"),
        ("adenomatous polyposis coli ( APC ) gene", "adenomatous polyposis coli (APC) gene"),
        ("p < 0 . 05 ;", "p < 0.05;"),
        ("P < . 01", "P < .01"),
        ("Parkinson ' s disease", "Parkinson's disease"),
        ("patients ' eyes", "patients' eyes"),
        ("Parkinson 's", "Parkinson's"),
        ("a 5 ' - TTA motif", "a 5'-TTA motif"),
        ("3 . 5 mg / kg", "3.5 mg/kg"),
        ("10 , 000 cells", "10,000 cells"),
        ("1 , 2 and 3", "1, 2 and 3"),
        ("1 , 25 - dihydroxyvitamin", "1,25-dihydroxyvitamin"),
        ("N , N - dimethyl", "N,N-dimethyl"),
        ("a ratio of 1 : 2", "a ratio of 1:2"),
        ("CD4 + T cells", "CD4+ T cells"),
        ("drug + placebo", "drug + placebo"),
        ("HFE + / - mice", "HFE+/- mice"),
        ("8 + / - 6 mm", "8 +/- 6 mm"),
        ("pre - and post - natal", "pre- and post-natal"),
        ("right - to - left", "right-to-left"),
        ("factor ( s ) from", "factor(s) from"),
        ("mg / m ( 2 ) daily", "mg/m(2) daily"),
        ("t ( 8 ; 21 ) fusion", "t(8;21) fusion"),
        ("25 ( OH ) D", "25(OH)D"),
        ("[ 3H ] thymidine", "[3H]thymidine"),
        ('a " true " one', 'a "true" one'),
        ("a ' true ' one", "a 'true' one"),
        ("HLA - DRB1 * 0401", "HLA-DRB1*0401"),
        ("50 % of", "50% of"),
        ("e . g . this", "e.g. this"),
        ("can not", "cannot"),
        ("NF-kappaB - mediated", "NF-kappaB - mediated"),
        ("CD28 -mediated IL-2", "CD28-mediated IL-2"),
        ("x", "x"),
        ("( ( a", "((a"),
    ],
)
def test_spaces(words, text):
    joined, offsets = join_words(words.split())
    assert joined == text
    assert [joined[start:end] for start, end in offsets] == words.split()


def test_no_words():
    assert join_words([]) == ("", [])
