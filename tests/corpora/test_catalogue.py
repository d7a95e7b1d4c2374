"""The catalogue, its sample corpus in all forms, and the conversion of several corpora."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from spacy_vaner.corpora import catalogue as catalogue_module
from spacy_vaner.corpora.batch import convert_catalogue, protected_corpora
from spacy_vaner.corpora.catalogue import catalogue, catalogue_conversion
from spacy_vaner.corpora.docbins import read_docs
from spacy_vaner.corpora.formats import FORMATS, read_records
from spacy_vaner.corpora.guard import ProtectedIndex
from spacy_vaner.errors import VanerError

CORPORA_DIR = Path(__file__).parents[2] / "project" / "corpora"
SAMPLE = CORPORA_DIR / "sample"

ROWS = [(corpus, view) for corpus in catalogue() for view in catalogue()[corpus].views]


@pytest.mark.parametrize(("corpus", "view"), ROWS)
def test_a_row_is_consistent(corpus, view):
    row = catalogue()[corpus].views[view]
    assert row.format in FORMATS
    assert set(row.options) <= set(FORMATS[row.format].options)
    assert set(row.files) <= {"train", "dev", "test"}
    assert {*row.ids, *row.without_ids} <= set(row.files)
    assert row.types or row.partial
    assert not set(row.types) & set(row.partial)
    assert {*row.guidelines} >= {*row.types, *row.partial}
    assert {type_ for type_ in row.type_map.values() if type_} <= {*row.types, *row.partial}
    assert set(row.names) <= {*row.types, *row.partial}
    assert set(row.protects.values()) <= {"test", "dev"}
    assert "test" not in row.files or row.protects["test"] == "test"
    # Splits that share a file must be told apart.
    for place in row.files.values():
        sharing = {split for split in row.files if row.files[split] == place}
        assert len(sharing) == 1 or sharing == {*row.ids, *row.without_ids}


def contiguous(record):
    """The mentions that IOB can carry: outermost, contiguous; by non-white characters."""
    found = [m for m in record.mentions if len(m.fragments) == 1]
    spans = {(m.type, *m.fragments[0]) for m in found}
    outer = [
        (type_, start, end)
        for type_, start, end in spans
        if not any(s <= start and end <= e and (s, e) != (start, end) for _, s, e in spans)
    ]
    black = [0]
    for character in record.text:
        black.append(black[-1] + (not character.isspace()))
    return sorted((type_, black[start], black[end]) for type_, start, end in outer)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_all_forms_of_the_sample_corpus_say_the_same(split):
    jsonl = list(read_records(SAMPLE / f"sample.{split}.jsonl", "jsonl"))
    pubtator = list(read_records(SAMPLE / f"sample.{split}.pubtator", "pubtator"))
    iob = list(read_records(SAMPLE / f"sample.{split}.iob2", "iob"))
    assert len(jsonl) == len(pubtator) == len(iob) > 0
    for a, b, c in zip(jsonl, pubtator, iob, strict=True):
        assert (a.id, a.text) == (b.id, b.text)
        # PubTator has no fragments.
        assert [(m.type, m.fragments) for m in a.mentions if len(m.fragments) == 1] == [
            (m.type, m.fragments) for m in b.mentions
        ]
        assert "".join(c.text.split()) == "".join(a.text.split())
        assert contiguous(c) == contiguous(a)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("NCBI", "text", "test"), "VE211: .*'NCBI'.*NCBI-disease"),
        (("sample", "raw", "test"), "VE212: sample .*'raw'.*text, tokens"),
        (("sample", "text", "all"), "VE213: sample.*'all'.*train, dev, test"),
        (("BC5CDR", "text", "test"), "VE214: BC5CDR .*CDR_TestSet.*https://"),
    ],
)
def test_what_is_not_in_the_catalogue_or_not_there(arguments, message):
    with pytest.raises(VanerError, match=message):
        catalogue_conversion(*arguments, corpora_dir=CORPORA_DIR)


def convert_sample(output_dir, **settings):
    return list(convert_catalogue(["sample"], output_dir, corpora_dir=CORPORA_DIR, **settings))


def test_all_splits_of_the_sample_corpus(tmp_path):
    files = convert_sample(tmp_path / "out")
    assert [file.path.name for file in files] == [
        f"sample.{view}.{split}.spacy"
        for split in ("test", "dev", "train")
        for view in ("text", "tokens")
    ]
    counts = {file.path.name: file.report["documents"] for file in files}
    assert counts["sample.text.train.spacy"] == counts["sample.tokens.train.spacy"] == 36
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["files"].keys() == counts.keys()
    assert report["protected"] == ["sample test", "sample dev"]
    assert "BC5CDR text test" in report["not_protected_for_want_of_files"]
    index = ProtectedIndex.from_file(tmp_path / "out" / "protected.msgpack")
    doc = next(read_docs(tmp_path / "out" / "sample.tokens.test.spacy"))
    assert index.check(doc, within_corpus=True).dropped == "test sentence"


def test_what_is_up_to_date_is_left_alone(tmp_path):
    out = tmp_path / "out"
    convert_sample(out, views=["text"])
    stamps = {path: os.stat(path).st_mtime_ns for path in out.glob("*.spacy")}
    again = convert_sample(out, views=["text"])
    assert [file.is_new for file in again] == [False] * 3
    assert {path: os.stat(path).st_mtime_ns for path in out.glob("*.spacy")} == stamps
    # A setting that changes the training split only; a file that is gone.
    (out / "sample.text.dev.spacy").unlink()
    changed = convert_sample(out, views=["text"], guard_within_corpus=True)
    assert [(file.path.name, file.is_new) for file in changed] == [
        ("sample.text.test.spacy", False),
        ("sample.text.dev.spacy", True),
        ("sample.text.train.spacy", True),
    ]


A_SENTENCE = "Whoever reports a figure on it has to protect it."


@pytest.fixture
def two_corpora(tmp_path, monkeypatch):
    """A catalogue of two corpora: B's training split holds a document and a sentence of A's.

    A is protected, B is not.
    """
    held = "Held out sentences have eight words or more here."
    shown = "Shown to choose by is this one, eight words."
    contents = {
        "a": {"train": ["Alpha."], "dev": [f"{shown} Else."], "test": [held]},
        "b": {
            "train": [f"Beta. {held}", f"Gamma. {shown}", "Delta."],
            "dev": ["E."],
            "test": ["F."],
        },
    }
    rows = {}
    for name, splits in contents.items():
        for split, texts in splits.items():
            lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
            (tmp_path / f"{name}.{split}").write_text(lines)
        files = {split: f"{name}.{split}" for split in splits}
        rows[name] = {
            "about": "",
            "source": "",
            "licence": "",
            "protected": name == "a",
            "types": ["X"],
            "views": {"text": {"format": "jsonl", "files": files}},
        }
    made = {name: catalogue_module._corpus(name, row) for name, row in rows.items()}
    monkeypatch.setattr("spacy_vaner.corpora.catalogue.catalogue", lambda: made)
    monkeypatch.setattr("spacy_vaner.corpora.batch.catalogue", lambda: made)
    return tmp_path


def test_the_guard_protects_what_is_not_converted(two_corpora):
    """A's test and dev splits protect, though only B is asked for."""
    out = two_corpora / "out"
    files = list(convert_catalogue(["b"], out, corpora_dir=two_corpora))
    train = files[-1]
    assert train.report["documents"] == 2
    assert train.report["guard"]["dropped_by"] == {"a test": 1}
    assert train.report["guard"]["masked_by"] == {"a dev": 1}
    docs = list(read_docs(train.path))
    assert docs[0].user_data["vaner"]["masked"] == ((7, len(docs[0].text)),)


def test_corpora_that_no_figure_is_reported_on_do_not_protect(two_corpora):
    out = two_corpora / "out"
    list(convert_catalogue(["b"], out, corpora_dir=two_corpora))
    *_, train = convert_catalogue(["b"], out, corpora_dir=two_corpora, unprotected=["a"])
    assert train.is_new and train.report["documents"] == 3
    with pytest.raises(VanerError, match="VE211: .*'c'"):
        list(convert_catalogue(["b"], out, corpora_dir=two_corpora, unprotected=["c"]))


def test_a_corpus_protects_where_the_catalogue_says_so_or_where_it_is_asked(two_corpora):
    """B holds a document of A's training split in its test split, and is not protected."""
    (two_corpora / "b.test").write_text(json.dumps({"text": A_SENTENCE}) + "\n")
    (two_corpora / "a.train").write_text(json.dumps({"text": A_SENTENCE}) + "\n")
    out = two_corpora / "out"
    *_, train = convert_catalogue(["a", "b"], out, corpora_dir=two_corpora, protect=["b"])
    report = json.loads((out / "report.json").read_text())
    assert report["open"] == []
    assert report["files"]["a.text.train.spacy"]["guard"]["dropped_by"] == {"b test": 1}
    list(convert_catalogue(["a", "b"], out, corpora_dir=two_corpora))
    report = json.loads((out / "report.json").read_text())
    assert report["open"] == ["b"]
    assert report["files"]["a.text.train.spacy"]["documents"] == 1


def test_the_training_split_of_a_corpus_that_is_protected_as_a_whole_is_not_made(two_corpora):
    out = two_corpora / "out"
    form = catalogue_module.catalogue()["a"].views["text"]
    form.protects.update(train="test", dev="test")
    files = list(convert_catalogue(["a"], out, corpora_dir=two_corpora))
    assert [file.path.name for file in files] == ["a.text.test.spacy"]
    report = json.loads((out / "report.json").read_text())
    assert report["held_out"] == ["a text dev", "a text train"]
    files = list(convert_catalogue(["a"], out, corpora_dir=two_corpora, unprotected=["a"]))
    assert len(files) == 3


def test_what_is_protected_by_default():
    """The corpora that figures are reported on; CRAFT's training split is a test too."""
    protected = [corpus.name for corpus in protected_corpora()]
    assert protected == [
        *("sample", "NCBI-disease", "BC5CDR", "BC2GM", "JNLPBA", "BC4CHEMD", "Linnaeus", "S800"),
        *("CRAFT", "AnatEM", "BioRED"),
    ]
    for corpus, view in ROWS:
        form = catalogue()[corpus].views[view]
        held_out = [split for split in form.files if form.is_held_out(split)]
        splits = [split for split in ("train", "dev") if split in form.files]
        assert held_out == (splits if corpus == "CRAFT" else [])


@pytest.mark.slow
def test_several_processes_make_the_same_files(tmp_path):
    one = convert_sample(tmp_path / "one", views=["text"])
    two = convert_sample(tmp_path / "two", views=["text"], workers=2)
    assert [file.path.name for file in one] == [file.path.name for file in two]
    for file in one:
        again = tmp_path / "two" / file.path.name
        assert again.read_bytes() == file.path.read_bytes()
    # What goes wrong in a process is told by this one.
    error = pickle.loads(pickle.dumps(VanerError("VE201: a line")))
    assert isinstance(error, VanerError) and str(error) == "VE201: a line"


def test_a_changed_protected_split_makes_training_splits_anew(two_corpora):
    out = two_corpora / "out"
    list(convert_catalogue(["b"], out, corpora_dir=two_corpora))
    (two_corpora / "a.test").write_text('{"text": "Other."}\n')
    files = list(convert_catalogue(["b"], out, corpora_dir=two_corpora))
    assert [file.is_new for file in files] == [False, False, True]
    assert files[-1].report["documents"] == 3


def test_wrong_names_and_missing_files_are_found_before_anything_is_written(tmp_path):
    for corpora, views, error in [
        (["sample", "none"], None, "VE211"),
        (["sample"], ["raw"], "VE212"),
        (["sample", "BC5CDR"], None, "VE214"),
    ]:
        with pytest.raises(VanerError, match=error):
            list(convert_catalogue(corpora, tmp_path / "out", corpora_dir=CORPORA_DIR, views=views))
        assert not (tmp_path / "out").exists()
