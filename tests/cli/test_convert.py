"""`vaner convert` and `vaner corpora` as users call them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from spacy.cli._util import app as spacy_app
from typer.testing import CliRunner

import spacy_vaner.cli  # noqa: F401
from spacy_vaner.corpora.docbins import read_docs

CORPORA_DIR = Path(__file__).parents[2] / "project" / "corpora"
SENTENCE = "Aspirin eased the pain of all patients who took it."


@pytest.fixture
def vaner(tmp_path, monkeypatch):
    """Call `python -m spacy vaner …` in an empty folder; its status and what it printed."""
    monkeypatch.chdir(tmp_path)
    for name in ("my.train", "my.test"):
        row = {"id": "1", "text": SENTENCE, "ents": [[0, 7, "Drug"], [18, 22, "Disease"]]}
        Path(f"{name}.jsonl").write_text(json.dumps(row) + "\n")

    def vaner(line):
        result = CliRunner().invoke(spacy_app, ["vaner", *line.split()])
        return result.exit_code, re.sub(r"\s+", " ", result.output)

    return vaner


def test_a_file_of_ones_own(vaner):
    status, output = vaner(
        "convert my.train.jsonl out/train.spacy --format jsonl --type-map Drug=Chemical "
        "--types Chemical,Gene --corpus-name mine --pmid-ids"
    )
    assert status == 0, output
    assert "1 mentions of Disease: type not used" in output
    assert "train.spacy 1 – 11 Chemical 1" in output
    (doc,) = read_docs(Path("out/train.spacy"))
    annotation = doc.user_data["vaner"]
    assert (annotation["corpus"], annotation["pmid"]) == ("my", "1")
    assert annotation["types"] == ("Chemical", "Gene")
    assert annotation["names"] == {"Chemical": "mine", "Gene": "mine"}
    assert Path("out/train.report.json").exists()


def test_options_of_tagged_words(vaner):
    Path("words.tsv").write_text("x\tB-no\ta\t1\ny\tO\tb\t2\n\nIt\tB\tc\t3\n")
    status, output = vaner(
        "convert words.tsv words.spacy --format iob --type Thing --tag-column 2 --document 2 "
        "--corpus-name no=this --partial Thing --name Words"
    )
    assert status == 0, output
    (doc,) = read_docs(Path("words.spacy"))
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("x", "no"), ("It", "Thing")]
    annotation = doc.user_data["vaner"]
    assert (annotation["corpus"], annotation["names"]) == ("Words", {"no": "this"})
    assert (annotation["types"], annotation["partial"]) == (("no",), ("Thing",))


def test_columns_anywhere_and_comments(vaner):
    Path("words.conllu").write_text("# one\nB-X\tno\ty\nO\tno\tand\n")
    status, output = vaner(
        "convert words.conllu words.spacy --format iob --word-column 3 --tag-column 1 --comment #"
    )
    assert status == 0, output
    (doc,) = read_docs(Path("words.spacy"))
    assert (doc.text, [ent.text for ent in doc.ents]) == ("y and", ["y"])


def test_a_folder_of_ones_own(vaner):
    Path("mine").mkdir()
    Path("mine/1.txt").write_text(SENTENCE)
    Path("mine/1.ann").write_text("T1\tDrug 0 7\tAspirin\n")
    status, output = vaner("convert mine brat.spacy --format brat")
    assert status == 0, output
    (doc,) = read_docs(Path("brat.spacy"))
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("Aspirin", "Drug")]


def test_the_guard_of_a_training_split(vaner):
    assert vaner("convert my.test.jsonl test.spacy -f jsonl --name held")[0] == 0
    status, output = vaner("convert my.train.jsonl a.spacy -f jsonl --protect test.spacy")
    assert "1 documents left out by the guard: test sentence, shared with held test (1)" in output
    assert list(read_docs(Path("a.spacy"))) == []
    # The same corpus: counted only, unless asked.
    assert vaner("convert my.test.jsonl test.spacy -f jsonl")[0] == 0
    status, output = vaner("convert my.train.jsonl a.spacy -f jsonl --protect test.spacy")
    assert "shared with my test: sentence: kept, the official split stands" in output
    status, output = vaner(
        "convert my.train.jsonl a.spacy -f jsonl --protect-dev test.spacy --guard-own-splits"
    )
    assert "1 documents left out by the guard: all masked, shared with my dev (1)" in output
    status, output = vaner("convert my.train.jsonl a.spacy -f jsonl --against test.spacy")
    assert "1 documents shared with my test (--against): kept" in output


def test_one_split_and_all_splits_of_the_catalogue(vaner):
    corpus = f"--corpus sample --corpora-dir {CORPORA_DIR}"
    status, output = vaner(f"convert {corpus} --split dev --view tokens dev.spacy")
    assert (status, "dev.spacy 8 80" in output) == (0, True)
    status, output = vaner(f"convert {corpus} --view text --output-dir all")
    assert status == 0 and "sample.text.train.spacy 36" in output
    status, output = vaner(f"convert {corpus} --view text --output-dir all --split all")
    assert status == 0 and output.count("is up to date") == 3
    every = corpus.replace("sample", "all", 1)
    status, output = vaner(f"convert {every} --view text --output-dir all --protect DDI")
    assert status == 0 and "sample.text.dev.spacy is up to date" in output
    assert Path("all/sample.text.dev.spacy").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("my.train.jsonl out.spacy", "Give INPUT, OUTPUT and --format"),
        ("my.train.jsonl --format jsonl", "Give INPUT, OUTPUT and --format"),
        ("my.train.jsonl out.txt --format jsonl", "out.txt cannot be OUTPUT"),
        ("my.train.jsonl x.spacy --format jsonl --type-map A", "'A' in --type-map"),
        ("my.train.jsonl x.spacy --format jsonl --output-dir y", "--output-dir goes with"),
        ("my.train.jsonl x.spacy --format html", "VE204"),
        ("my.train.jsonl x.spacy --format jsonl --type X", "no option 'type_name'"),
        ("none.jsonl x.spacy --format jsonl", "VE202"),
        ("--corpus sample", "give --output-dir and no other path"),
        ("--corpus sample x --output-dir y", "give --output-dir and no other path"),
        ("--corpus sample --output-dir y --format iob", "--format is for an INPUT of yours"),
        ("--corpus sample --output-dir y --protect-dev z.spacy", "--protect-dev is for one file"),
        ("--corpus sample --split dev x.spacy", "one --view"),
        ("--corpus sample,BC5CDR --view text --split dev x.spacy", "one --corpus"),
        ("my.train.jsonl x.spacy -f jsonl --unprotected DDI", "--unprotected and --workers"),
        ("my.train.jsonl x.spacy -f jsonl --workers 2", "--workers go with"),
        ("--corpus all --corpora-dir . --output-dir y", "VE220: no corpus of the catalogue"),
        ("my.train.jsonl x.spacy -f jsonl --protect my.test.jsonl", "or no .spacy file (DocBin)"),
        ("--corpus none --view text --split dev x.spacy", "VE211"),
        ("--corpus sample --output-dir y --protect none", "VE211"),
    ],
)
def test_what_cannot_be_is_said(vaner, line, message):
    status, output = vaner(f"convert {line}")
    assert status == 1
    assert message in output
    assert "Traceback" not in output
    assert not list(Path().rglob("*.spacy"))


def test_help_teaches(vaner):
    _, output = vaner("convert --help")
    for example in ("--format jsonl --protect my.test.spacy", "--output-dir converted"):
        assert example in output


def test_the_catalogue_is_listed(vaner):
    status, output = vaner("corpora")
    assert status == 0
    for word in ("NCBI-disease", "BC5CDR", "JNLPBA", "sample", "five-types", "GENIA"):
        assert word in output
    _, output = vaner(f"corpora --corpora-dir {CORPORA_DIR}")
    assert "sample 6 of 6" in output and "BC5CDR 0 of 9" in output
    _, output = vaner(f"corpora BC5CDR --corpora-dir {CORPORA_DIR}")
    assert "doi:10.1093/database/baw068" in output
    assert "test: BC5CDR/pubtator/CDR_TestSet.PubTator.txt (missing)" in output
    assert "instruction for Chemical: BC5CDR-chem" in output
    status, output = vaner("corpora NCBI")
    assert status == 1 and "VE211" in output
