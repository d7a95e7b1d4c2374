"""Whole runs: what is written, what is refused, stopping at any moment, broken input."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_vaner import shipped
from spacy_vaner.annotation import annotator, store
from spacy_vaner.annotation.annotator import Annotator, Settings, load_pipeline, model_name
from spacy_vaner.annotation.document import Document
from spacy_vaner.annotation.formats import OUTPUTS
from spacy_vaner.annotation.inputs import Limits, Source, cut, find_sources, read_source
from spacy_vaner.annotation.run import annotate, local_engine, shards_left
from spacy_vaner.annotation.store import Receipt, Store
from spacy_vaner.cli import vaner_app
from spacy_vaner.errors import VanerError

TEXTS = [f"Zinc and p53 in {n} mice\r\nwith zinc." for n in range(8)]


@pytest.fixture(scope="session")
def rules(tmp_path_factory):
    """A pipeline that is loaded at once and finds two words."""
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "Chemical", "pattern": "zinc"}, {"label": "Gene", "pattern": "p53"}]
    )
    path = tmp_path_factory.mktemp("rules") / "pipeline"
    nlp.to_disk(path)
    return path


@pytest.fixture
def by_rules(rules):
    def make(to="jsonl", **changes):
        given = {"limits": Limits(documents=3), **changes}
        return Settings(model=str(rules), model_name=model_name(str(rules)), to=to, **given)

    return make


@pytest.fixture
def given(tmp_path):
    """A folder with eight documents in two files."""
    folder = tmp_path / "given"
    (folder / "deeper").mkdir(parents=True)
    rows = [json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS)]
    (folder / "a.jsonl").write_text("".join(rows[:7]), "utf8")
    (folder / "deeper/b.jsonl.gz").write_bytes(gzip.compress(rows[7].encode("utf8")))
    return folder


def content(folder):
    """All files of a folder: name → bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(given, output, settings, **options):
    options.setdefault("engine", local_engine(1))
    return annotate(str(given), output, settings, **options)


def rows(folder):
    return [
        json.loads(line)
        for path in sorted((folder / "annotated").rglob("*.jsonl"))
        for line in path.read_text("utf8").splitlines()
    ]


def command(*arguments):
    return CliRunner().invoke(vaner_app, ["annotate", *map(str, arguments)])


def test_results_are_those_of_the_pipeline(pipeline, settings, texts, tmp_path):
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts))
    )
    asked = settings(types=("Gene", "Chemical"))
    totals = run(tmp_path / "in.jsonl", tmp_path / "out", asked)
    nlp = spacy.load(pipeline)
    found = rows(tmp_path / "out")
    assert [row["text"] for row in found] == texts
    for row, doc in zip(found, nlp.pipe(texts), strict=True):
        expected = doc.user_data["vaner_predictions"]
        assert [ent[:3] for ent in row["ents"]] == [[s, e, t] for t, s, e, _ in expected]
        assert all(ent[3] == row["text"][ent[0] : ent[1]] for ent in row["ents"])
        scores = row.get("scores", [])
        assert scores == pytest.approx([p for *_, p in expected], abs=1.1e-4)
        assert all(score == round(score, 4) for score in scores)
        assert set(row.get("models", [])) <= {asked.model_name}
    assert totals.documents == len(texts) and totals.shards == 4 and totals.found["Gene"] > 5
    only = run(tmp_path / "in.jsonl", tmp_path / "genes", settings(types=("Gene",)))
    assert set(only.found) == {"Gene"} and only.found["Gene"] == totals.found["Gene"]


def test_the_fingerprint_is_of_the_files(rules, tmp_path):
    name = model_name(str(rules))
    copy = shutil.copytree(rules, tmp_path / "copy")
    assert model_name(str(copy)) == name and name.startswith("en_pipeline-0.0.0/")
    (copy / "config.cfg").write_bytes((copy / "config.cfg").read_bytes() + b"\n")
    assert model_name(str(copy)) != name


@pytest.mark.parametrize("to", sorted(OUTPUTS))
def test_every_format_is_written_in_shards(to, given, by_rules, tmp_path):
    totals = run(given, tmp_path / "out", by_rules(to))
    names = sorted(
        path.relative_to(tmp_path / "out/annotated").as_posix()
        for path in (tmp_path / "out/annotated").rglob("*.0*")
        if "part" not in path.name
    )
    suffix = OUTPUTS[to].suffix
    assert names == [f"a.0000{n}{suffix}" for n in range(3)] + [f"deeper/b.00000{suffix}"]
    assert (totals.documents, totals.rejected) == (8, 0)
    assert totals.found == {"Chemical": 8, "Gene": 8}
    manifest = json.loads((tmp_path / "out/manifest.json").read_bytes())
    assert manifest["complete"] and manifest["totals"]["documents"] == 8
    assert manifest["settings"]["model"] == by_rules(to).model_name


def test_what_is_done_is_not_read_or_done_again(given, by_rules, tmp_path, monkeypatch):
    run(given, tmp_path / "out", by_rules())
    before = content(tmp_path / "out")

    def never(*_):
        raise AssertionError

    run(given, tmp_path / "out", by_rules(), engine=never)
    assert content(tmp_path / "out") == before
    (tmp_path / "out/annotated/a.00001.jsonl").unlink()
    (tmp_path / "out/receipts/deeper/b.00000.json").unlink()
    assert run(given, tmp_path / "out", by_rules()).documents == 8
    assert content(tmp_path / "out") == before


def test_a_changed_file_is_done_anew(given, by_rules, tmp_path):
    run(given, tmp_path / "out", by_rules())
    (given / "a.jsonl").write_text('{"text": "zinc"}\n')
    assert run(given, tmp_path / "out", by_rules()).documents == 2
    run(given, tmp_path / "fresh", by_rules())
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


class Stopped(BaseException):
    """As sudden as a signal: nothing catches it."""


@pytest.mark.parametrize("to", ["jsonl", "brat"])
def test_stopped_at_any_moment_and_started_again_it_ends_with_the_same_bytes(
    to, given, by_rules, tmp_path, monkeypatch
):
    (given / "c.jsonl").write_text("broken\n")
    settings = by_rules(to)
    annotator = Annotator(settings, tmp_path)

    def engine(sources, store, settings):
        """As the local one, with a pipeline that is loaded already."""
        annotator.store = store
        for shard, is_done in shards_left(sources, store, settings):
            yield (None if is_done else annotator(shard)), shard.read_bytes

    run(given, tmp_path / "whole", settings, engine=engine)
    expected = content(tmp_path / "whole")
    replace = Path.replace
    for stop_at in range(1, 99):
        output = tmp_path / str(stop_at)
        n_renamed = 0

        def dies(*arguments, stop_at=stop_at):
            nonlocal n_renamed
            n_renamed += 1
            if n_renamed >= stop_at:
                raise Stopped
            return replace(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dies)
            # A process that is gone does not tidy up.
            patch.setattr(store, "_remove", lambda path: None)
            try:
                run(given, output, settings, engine=engine)
            except Stopped:
                pass
            else:
                break
        for name, bytes_ in content(output).items():
            if name.startswith("annotated/") and ".part" not in name:
                assert expected[name] == bytes_
        run(given, output, settings, engine=engine)
        assert content(output) == expected
    # A manifest, two files for each of five shards but one for that without documents, and the end.
    assert stop_at == 1 + 1 + 2 * 4 + 1 + 2


def test_other_settings_into_the_same_place_are_refused(given, by_rules, tmp_path):
    run(given, tmp_path / "out", by_rules())
    before = content(tmp_path / "out")
    for changed in (by_rules("pubtator"), by_rules(limits=Limits(documents=4))):
        with pytest.raises(VanerError, match="VE705.*(jsonl|shard_documents was 3, is 4)"):
            run(given, tmp_path / "out", changed)
    assert content(tmp_path / "out") == before


def test_results_of_another_engine_are_not_mixed_in(given, by_rules, tmp_path, monkeypatch):
    run(given, tmp_path / "out", by_rules())
    versions = {"onnxruntime": "0.1"}
    monkeypatch.setattr(annotator, "version", lambda name: versions.get(name, version(name)))
    with pytest.raises(VanerError, match="VE705.*onnxruntime"):
        run(given, tmp_path / "out", by_rules())


def test_a_folder_of_something_else_is_refused(given, by_rules, tmp_path):
    with pytest.raises(VanerError, match="VE706"):
        run(given, given, by_rules())
    (tmp_path / "file").write_text("x")
    with pytest.raises(VanerError, match="VE706"):
        run(given, tmp_path / "file", by_rules())
    with pytest.raises(VanerError, match="VE707"):
        run(given, tmp_path / "file/out", by_rules())


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of another kind")
def test_a_folder_without_permission_is_refused(by_rules):
    with TemporaryDirectory() as folder:
        # Below it, so that it can be removed again.
        closed = Path(folder) / "closed"
        closed.mkdir()
        for path in (closed, Path(folder)):
            path.chmod(0o555)
        kept = Store(closed / "out", by_rules().to_dict(), suffix="")
        user = os.geteuid()
        try:
            if user == 0:  # who may do everything
                os.seteuid(65534)
            with pytest.raises(VanerError, match="VE707.*Permission denied"):
                kept.open()
        finally:
            os.seteuid(user)
            Path(folder).chmod(0o755)
        assert not list(closed.iterdir())


def test_a_full_disk_leaves_nothing_half_written(given, by_rules, tmp_path):
    output = tmp_path / "out"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    long = json.dumps({"text": "zinc " * 9_000})
    (given / "long.jsonl").write_text(long + "\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(VanerError, match="VE707.*too large"):
            run(given, output, by_rules())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    names = set(content(output))
    assert not any(name.endswith(".part") or "long" in name for name in names)
    assert not json.loads((output / "manifest.json").read_bytes())["complete"]
    assert run(given, output, by_rules()).documents == 9


BROKEN = {
    "truncated gzip": (
        "t.jsonl.gz",
        gzip.compress(
            b"".join(
                json.dumps({"text": f"zinc {n} " + os.urandom(99).hex()}).encode() + b"\n"
                for n in range(200)
            )
        )[:9000],
        "cut off",
    ),
    "XML in the middle": (
        "x.xml",
        b"<collection>"
        + b"".join(
            b"<document><id>%d</id><passage><offset>0</offset><text>zinc</text></passage></document>\n"
            % n
            for n in range(5)
        )
        + b"<document><id>5</id></oops></document>\n"
        + b"<document><id>6</id><passage><offset>0</offset><text>p53</text></passage></document>"
        + b"</collection>",
        "line 6",
    ),
    "JSON in the middle": (
        "j.json",
        b'{"documents": [{"id": "1", "passages": [{"offset": 0, "text": "zinc"}]}, {"id": ',
        "VE201",
    ),
    "not a DocBin": ("d.spacy", b"zinc", "VE202"),
    "two megabytes": ("m.txt", (b"a" * 99 + b" ") * 20_000, "2,000,000 characters"),
    "BioC offsets": (
        "b.json",
        b'{"documents": [{"id": "7", "passages": [{"offset": 0, "text": "zinc", "annotations": '
        b'[{"infons": {"type": "Gene"}, "text": "p53", "locations": [{"offset": 0, "length": 3}]}]'
        b'}]}, {"id": "8", "passages": [{"offset": 0, "text": "zinc"}]}]}',
        "the offsets do not fit the text: at 0 stands 'zin', annotated is 'p53'",
    ),
    "a cut DocBin": ("c.spacy", DocBin().to_bytes()[:-9], "cut off"),
    "text in Latin-1": ("l.txt", "Zn für".encode("latin1"), "UTF-8"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_input_is_rejected_and_the_rest_goes_on(fault, given, by_rules, tmp_path):
    name, bytes_, reason = BROKEN[fault]
    (given / name).write_bytes(bytes_)
    limits = Limits(documents=3, document_characters=1_000_000)
    totals = run(given, tmp_path / "out", by_rules(limits=limits))
    (line,) = (tmp_path / "out/rejected.jsonl").read_text("utf8").splitlines()
    told = json.loads(line)
    assert told["file"] == name and told["position"] and reason in told["reason"]
    n_good = {
        "truncated gzip": totals.documents - 8,
        "XML in the middle": 6,
        "BioC offsets": 1,
        "JSON in the middle": 1,
    }.get(fault, 0)
    assert totals.documents == 8 + n_good and totals.rejected == 1
    assert n_good > 20 or fault != "truncated gzip"
    # A document of that size is no fault where it is allowed.
    if fault == "two megabytes":
        assert run(given, tmp_path / "more", by_rules()).documents == 9


@pytest.mark.parametrize("to", ["pubtator", "brat", "spacy", "parquet"])
def test_empty_abstracts_and_texts_are_kept(to, by_rules, tmp_path):
    (tmp_path / "in.pubtator").write_text("1|t|zinc\n1|a|\n\n2|t|\n2|a|\n\n")
    totals = run(tmp_path / "in.pubtator", tmp_path / "out", by_rules(to))
    assert (totals.documents, totals.rejected) == (2, 0)


def test_an_identifier_that_comes_twice_in_a_file_is_rejected_in_whatever_shard(by_rules, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    ids = ["a", "b", "c", "d", "b", "e", "\x00", "a", "\x00b"]
    lines = [json.dumps({"id": id_, "text": f"zinc {n}"}) + "\n" for n, id_ in enumerate(ids)]
    (given / "one.jsonl").write_text("".join(lines))
    # In another file it may be a new version.
    (given / "two.jsonl").write_text(lines[0])
    totals = run(given, tmp_path / "out", by_rules())
    assert (totals.documents, totals.rejected) == (8, 2)
    assert [row["id"] for row in rows(tmp_path / "out")] == [
        *("a", "b", "c", "d", "e", "\x00", "\x00b"),
        "a",
    ]
    lines = (tmp_path / "out/rejected.jsonl").read_text("utf8").splitlines()
    told = [json.loads(line) for line in lines]
    assert [(one["file"], one["position"], one["id"]) for one in told] == [
        ("one.jsonl", "line 5", "b"),
        ("one.jsonl", "line 8", "a"),
    ]
    assert told[0]["reason"] == "the identifier 'b' comes twice in this file: first at line 2"
    # A second run that does the rest only knows what came before.
    before = content(tmp_path / "out")
    (tmp_path / "out/receipts/one.00001.json").unlink()
    run(given, tmp_path / "out", by_rules())
    assert content(tmp_path / "out") == before


def test_names_of_brat_files_that_fall_together_are_numbered(by_rules, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": "a/b", "text": "x"}\n{"id": "a:b", "text": "y"}\n')
    run(tmp_path / "in.jsonl", tmp_path / "out", by_rules("brat"))
    names = sorted(path.name for path in (tmp_path / "out/annotated/in.00000").iterdir())
    assert names == ["a_b.2.ann", "a_b.2.txt", "a_b.ann", "a_b.txt"]


def test_memory_stays_flat_however_many_identifiers_there_are(tmp_path):
    def peak(n_documents):
        path = tmp_path / f"{n_documents}.jsonl"
        lines = (f'{{"id": "{n:080d}", "text": ""}}\n' for n in range(n_documents))
        path.write_text("".join(lines))
        source = Source("in", "jsonl", ((str(path), path.name),), 1)
        tracemalloc.start()
        n_found = sum(isinstance(one, Document) for one, _ in read_source(source, Limits()))
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert n_found == n_documents
        return peak_bytes

    # In a set the 15,000 more would take 3 MB. SQLite's own memory is bounded by its cache.
    assert peak(20_000) < peak(5_000) + 200_000


def test_a_document_that_the_pipeline_fails_on_is_rejected(given, by_rules, rules, tmp_path):
    @Language.component("fails_on_d1")
    def fails(doc):
        if " 1 " in doc.text:
            raise RuntimeError("no idea")
        return doc

    nlp = spacy.load(rules)
    nlp.add_pipe("fails_on_d1")
    nlp.to_disk(tmp_path / "failing")
    failing = Settings(str(tmp_path / "failing"), "failing", "jsonl", limits=Limits(documents=3))
    totals = run(given, tmp_path / "out", failing)
    assert (totals.documents, totals.rejected) == (7, 1)
    told = json.loads((tmp_path / "out/rejected.jsonl").read_text("utf8"))
    assert told == {
        "file": "a.jsonl",
        "position": "line 2",
        "id": "d1",
        "reason": "the pipeline failed (RuntimeError: no idea)",
    }


def test_spans_over_the_end_of_a_passage_are_counted(rules, tmp_path):
    nlp = spacy.load(rules)
    nlp.get_pipe("entity_ruler").add_patterns([{"label": "Gene", "pattern": "mice it"}])
    nlp.to_disk(tmp_path / "wide")
    (tmp_path / "in.pubtator").write_text("1|t|p53 in mice\n1|a|it is\n\n")
    totals = run(
        tmp_path / "in.pubtator",
        tmp_path / "out",
        Settings(str(tmp_path / "wide"), "wide", "jsonl"),
    )
    assert (totals.across_passages, totals.found) == (1, {"Gene": 1})


def test_annotating_results_again_adds_nothing(given, by_rules, tmp_path):
    run(given, tmp_path / "one", by_rules("bioc_json"))
    again = run(tmp_path / "one/annotated", tmp_path / "two", by_rules("bioc_json"))
    assert not again.found
    before = [
        json.loads(c)["documents"]
        for n, c in content(tmp_path / "one").items()
        if n.startswith("annotated")
    ]
    after = [
        json.loads(c)["documents"]
        for n, c in content(tmp_path / "two").items()
        if n.startswith("annotated")
    ]
    assert before == after


def test_entities_of_a_docbin_stay_beside_ours(pipeline, settings, tmp_path):
    nlp = spacy.blank("en")
    doc = nlp("high zinc and BRCA1 levels")
    doc.ents = [doc.char_span(5, 9, label="Mineral")]
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "in.spacy")
    run(tmp_path / "in.spacy", tmp_path / "out", settings("spacy"))
    (back,) = DocBin().from_disk(tmp_path / "out/annotated/in.00000.spacy").get_docs(nlp.vocab)
    assert [(ent.text, ent.label_) for ent in back.ents] == [("zinc", "Mineral"), ("BRCA1", "Gene")]
    assert {span.label_ for span in back.spans["vaner"]} == {"Chemical", "Gene"}
    assert back.user_data["vaner"]["model"] == settings().model_name


def test_two_inputs_with_one_name_are_refused(by_rules, tmp_path):
    for name in ("a.jsonl", "a.pubtator"):
        (tmp_path / name).write_text("")
    with pytest.raises(VanerError, match="VE704"):
        run(tmp_path, tmp_path / "out", by_rules())


def test_inputs_are_found_by_name_glob_and_outermost_element(tmp_path):
    (tmp_path / "deep").mkdir()
    files = {
        "a.txt": "zinc",
        "b.txt": "p53",
        "deep/c.xml": "<?xml version='1.0'?><!-- <x> --><collection/>",
        "deep/d.xml": "<!DOCTYPE article><article/>",
        "deep/e.xml": "<PubmedArticleSet/>",
        "deep/f.xml": "<svg/>",
        ".hidden.txt": "x",
        "g.json": "[]",
        "h.bin": "x",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def found(given, format_name=None):
        sources = find_sources(str(given), format_name, Limits(documents=2))
        return {s.format: [shown for _, shown in s.files] for s in sources}

    assert found(tmp_path) == {
        "text": ["a.txt", "b.txt"],
        "bioc_xml": ["deep/c.xml"],
        "jats": ["deep/d.xml"],
        "pubmed_xml": ["deep/e.xml"],
        "bioc_json": ["g.json"],
    }
    assert found(tmp_path / "*/[cd].xml") == {"bioc_xml": ["deep/c.xml"], "jats": ["deep/d.xml"]}
    assert found(tmp_path / "h.bin", "text") == {"text": ["h.bin"]}
    assert found(tmp_path, "text") == {"text": ["a.txt", "b.txt"]}
    for given, code in ((tmp_path / "no", "VE702"), (tmp_path / "h.bin", "VE703"), ("-", "VE703")):
        with pytest.raises(VanerError, match=code):
            found(given)
    for name in ("pdf", "brat"):
        with pytest.raises(VanerError, match="VE701"):
            found(tmp_path, name)


PACKED = gzip.compress(
    b"<PubmedArticleSet>"
    + b"".join(
        b"<PubmedArticle><MedlineCitation><PMID>%d</PMID><Article><ArticleTitle>zinc %s"
        b"</ArticleTitle></Article></MedlineCitation></PubmedArticle>"
        % (n, sha256(b"%d" % n).hexdigest().encode())
        for n in range(20)
    )
    + b"</PubmedArticleSet>"
)


@pytest.mark.parametrize("n_bytes", [0, 12, 30, len(PACKED) // 2], ids=["0", "12", "30", "half"])
def test_xml_that_is_cut_off_is_never_passed_over(n_bytes, given, by_rules, tmp_path):
    (given / "x.xml.gz").write_bytes(PACKED[:n_bytes])
    totals = run(given, tmp_path / "out", by_rules())
    assert totals.rejected == 1 and totals.documents >= 8
    told = json.loads((tmp_path / "out/rejected.jsonl").read_text("utf8"))
    assert told["file"] == "x.xml.gz" and told["position"] and told["reason"]
    # By itself too.
    assert run(given / "x.xml.gz", tmp_path / "alone", by_rules()).rejected == 1


def test_shards_are_cut_by_documents_and_characters(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in (5, 5, 9, 1, 1, 1, 1)))
    source = Source("a", "jsonl", ((str(path), "a.jsonl"),), path.stat().st_size)
    shards = list(cut(source, Limits(documents=3, characters=10)))
    assert [[len(d.text) for d in s.documents] for s in shards] == [[5, 5], [9, 1], [1, 1, 1]]
    assert [s.is_last for s in shards] == [False, False, True]
    assert sum(s.read_bytes for s in shards) == path.stat().st_size


def test_the_command_says_what_it_did(given, rules, tmp_path):
    done = command(given, tmp_path / "dry", "--model", rules, "--dry-run", "--shard-documents", 3)
    assert done.exit_code == 0 and not (tmp_path / "dry").exists()
    assert "8 documents (272 characters, 0 annotations) as jsonl; 4 shards, 0 of" in done.output
    done = command(given, tmp_path / "out", "--model", rules)
    assert done.exit_code == 0 and "8 documents" in done.output
    assert "Chemical 8, Gene 8" in done.output and str(tmp_path / "out/annotated") in done.output
    (given / "c.jsonl").write_text("broken\n")
    done = command(given, tmp_path / "out", "--model", rules)
    assert done.exit_code == 3 and "1 rejected" in done.output
    assert command(given, tmp_path / "o", "--model", rules, "--dry-run").exit_code == 3


def test_standard_input_is_annotated(rules, tmp_path):
    done = CliRunner().invoke(
        vaner_app,
        ["annotate", "-", str(tmp_path / "out"), "--model", str(rules), "--from", "text"],
        input="p53 and zinc",
    )
    assert done.exit_code == 0, done.output
    assert [row["text"] for row in rows(tmp_path / "out")] == ["p53 and zinc"]


REFUSED = {
    "VE709": ["--model", "nothing_there"],
    "VE701": ["--to", "pdf"],
    "VE710": ["--types", "Gene"],
    "VE022": ["--types", "Gene,"],
    "VE712": ["--gpu-id", "7"],
    "VE717": ["--engine", "spark"],
    "VE718": ["--address", "auto"],
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(code, given, rules, tmp_path):
    done = command(given, tmp_path / "out", "--model", rules, *REFUSED[code])
    assert done.exit_code == 1 and code in done.output, done.output


def test_a_pipeline_without_entities_is_refused(given, tmp_path):
    spacy.blank("en").to_disk(tmp_path / "blank")
    done = command(given, tmp_path / "out", "--model", tmp_path / "blank")
    assert done.exit_code == 1 and "VE711" in done.output


carries_a_tagger = pytest.mark.skipif(
    not (shipped.FOLDER / shipped.DEFAULT_NAME).is_dir(), reason="the package carries no tagger"
)


@carries_a_tagger
def test_without_a_model_the_tagger_of_the_package_annotates(given, tmp_path):
    carried = json.loads((shipped.FOLDER / shipped.DEFAULT_NAME / "model.json").read_bytes())
    name = f"{carried['name']}/{carried['fingerprint'][:12]}"
    done = command(given, tmp_path / "dry", "--dry-run")
    assert done.exit_code == 0 and f"Model: {name}" in done.output
    done = command(given, tmp_path / "out")
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "out/manifest.json").read_bytes())
    assert manifest["settings"]["model"] == name
    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner")
    for row, doc in zip(rows(tmp_path / "out"), nlp.pipe(TEXTS), strict=True):
        expected = doc.user_data["vaner_predictions"]
        assert [ent[:3] for ent in row["ents"]] == [[s, e, t] for t, s, e, _ in expected]
        assert row["models"] == [name] * len(expected) and len(expected) >= 2
    done = command(given, tmp_path / "genes", "--types", "Gene")
    assert re.search(r"found: Gene \d+\n", done.output), done.output
    # Another tagger by then: what is in the folder is not mixed with it.
    done = command(given, tmp_path / "out", "--types", "Gene")
    assert done.exit_code == 1 and "VE705" in done.output


def test_a_package_without_a_tagger_asks_for_a_model(given, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "none")
    for options in ((), ("--dry-run",)):
        done = command(given, tmp_path / "out", *options)
        assert done.exit_code == 1 and "VE719" in done.output and "--model" in done.output
    assert not (tmp_path / "out").exists()


@carries_a_tagger
def test_a_damaged_tagger_of_the_package_is_told_and_no_document_rejected(
    given, tmp_path, monkeypatch
):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    folder = tmp_path / shipped.DEFAULT_NAME
    folder.mkdir()
    manifest = {
        "format_version": shipped.FORMAT_VERSION,
        "name": "x",
        "files": {"tagger.json": "0" * 64},
    }
    manifest["fingerprint"] = shipped._fingerprint(manifest)
    (folder / "model.json").write_text(json.dumps(manifest))
    (folder / "tagger.json").write_text("{}")
    done = command(given, tmp_path / "out")
    assert done.exit_code == 1 and "VE193" in done.output, done.output
    assert not (tmp_path / "out/rejected.jsonl").read_bytes()
    (folder / "model.json").write_text("{")
    done = command(given, tmp_path / "other")
    assert done.exit_code == 1 and "VE191" in done.output, done.output


@carries_a_tagger
def test_a_machine_with_another_tagger_takes_no_part():
    with pytest.raises(VanerError, match="VE720.*vaner-tiny/0123456789ab"):
        load_pipeline(Settings(None, "vaner-tiny/0123456789ab", "jsonl"))


def test_a_damaged_receipt_is_told(given, by_rules, tmp_path):
    run(given, tmp_path / "out", by_rules())
    (tmp_path / "out/receipts/a.00000.json").write_text("{")
    with pytest.raises(VanerError, match="VE708.*a.00000.json"):
        run(given, tmp_path / "out", by_rules())


def start(given, output, rules, *more):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "spacy",
            "vaner",
            "annotate",
            given,
            output,
            "--model",
            rules,
            "--shard-documents",
            "5",
            *more,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_bytes(pipeline, texts, tmp_path):
    given = tmp_path / "in.jsonl"
    given.write_text("".join(json.dumps({"text": " ".join(texts)}) + "\n" for _ in range(150)))
    first = start(given, tmp_path / "out", pipeline, "--workers", "2")
    receipts = tmp_path / "out/receipts"
    while first.poll() is None and len(list(receipts.glob("*.json"))) < 3:
        time.sleep(0.01)
    # The whole group: the workers die with it.
    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert 3 <= len(list(receipts.glob("*.json"))) < 30
    settings = Settings(
        str(pipeline), model_name(str(pipeline)), "jsonl", limits=Limits(documents=5)
    )
    run(given, tmp_path / "out", settings)
    run(given, tmp_path / "whole", settings)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.slow
def test_two_workers_write_the_bytes_of_one_and_a_killed_worker_is_told(
    pipeline, settings, texts, tmp_path
):
    import psutil

    given = tmp_path / "in.jsonl"
    given.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts * 4))
    killed = []

    def kill_one(progress):
        if not killed and progress.documents:
            worker = next(
                child
                for child in psutil.Process().children()
                if "spawn_main" in " ".join(child.cmdline())
            )
            worker.kill()
            killed.append(worker.pid)

    with pytest.raises(VanerError, match="VE714"):
        run(given, tmp_path / "two", settings(), engine=local_engine(2), on_progress=kill_one)
    run(given, tmp_path / "two", settings(), engine=local_engine(2))
    run(given, tmp_path / "one", settings())
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_what_a_killed_worker_left_is_gone_at_the_end(by_rules, given, tmp_path):
    def engine(sources, store, settings):
        yield from local_engine(1)(sources, store, settings)
        # A worker that was killed between writing and renaming, its shard done by another.
        (result,) = sorted((store.folder / "annotated").iterdir())[:1]
        result.with_name(f".{result.name}.0123.part").write_text("half")

    annotate(str(given), tmp_path / "out", by_rules(), engine=engine)
    assert not list((tmp_path / "out").rglob(".*.part"))


def test_an_annotator_can_be_used_by_itself(by_rules, given, tmp_path):
    (source, _) = find_sources(str(given), None, Limits())
    shard = next(cut(source, Limits()))
    receipt = Annotator(by_rules(), tmp_path / "out")(shard)
    assert isinstance(receipt, Receipt) and receipt.documents == 7
    kept = Store(tmp_path / "out", by_rules().to_dict(), suffix=".jsonl")
    assert next(kept.receipts()) == receipt


DOCS = Path(__file__).parents[2] / "docs"


def commands_of(page):
    """The lines of the shell blocks of a page, as lists of words."""
    text = (DOCS / f"{page}.md").read_text("utf8")
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        yield from map(shlex.split, block.splitlines())


COMMANDS = [
    words
    for page in ("annotate", "pubmed")
    for words in commands_of(page)
    if words[3:5] == ["vaner", "annotate"]
]
MEASUREMENTS = [words for words in commands_of("pubmed") if "measure" in words[1]]


def test_every_command_of_the_pages_is_tried():
    pages = [*commands_of("annotate"), *commands_of("pubmed")]
    assert sorted(COMMANDS + MEASUREMENTS) == sorted(pages) and len(MEASUREMENTS) == 2


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[5:]))
def test_the_commands_of_the_page_run(words, pipeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("trained").symlink_to(pipeline)
    for folder in ("papers", "pubmed"):
        Path(folder).mkdir()
    Path("papers/one.txt").write_text("BRCA1 and zinc")
    Path("pubmed/pubmed.xml.gz").write_bytes(
        gzip.compress(
            b"<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID><Article>"
            b"<ArticleTitle>zinc</ArticleTitle></Article></MedlineCitation></PubmedArticle>"
            b"</PubmedArticleSet>"
        )
    )
    # Two processes are tried elsewhere; they take long to start.
    words = [{"2": "1"}.get(word, word) for word in words]
    done = command(*words[5:])
    assert done.exit_code == 0 and "1 documents" in done.output, done.output


@pytest.mark.slow
def test_the_measurements_of_the_page_run(pipeline, texts, tmp_path):
    lines = [" ".join(texts).replace("\n", " ").replace("\r", " ")[:2_000] for _ in range(6)]
    (tmp_path / "abstracts.txt").write_text("\n".join(lines) + "\n", "utf8")
    for words in MEASUREMENTS:
        script = DOCS.parent / words[1]
        few = [{"200": "6", "20": "2"}.get(word, word) for word in words[2:]]
        few += [] if "--table" in few else ["--model", str(pipeline)]
        done = subprocess.run(
            [sys.executable, script, *few],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "speed.json").read_text("utf8"))
    assert measured["documents"] == 6 and measured["words_per_document"] > 50
    engines = [(one["engine"], one["workers"]) for one in measured["results"]]
    assert engines == [("nlp.pipe", 1), ("local", 1), ("local", 2)]
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| cpu")]
    for row, result in zip(rows, measured["results"], strict=True):
        hours = 36e6 * measured["words_per_document"] / result["words_per_s"] / 3600
        assert row[5] == f"{hours:,.0f} h"
    assert 0 < measured["network_share"] < 1
    (bound,) = [line for line in done.stdout.splitlines() if "not measured" in line]
    words_per_s = measured["results"][0]["words_per_s"] / (1 - measured["network_share"])
    assert bound.split(" | ")[2] == f"{words_per_s:,.0f}"


def test_the_function_for_spark_annotates_pandas_tables(pipeline, texts):
    pandas = pytest.importorskip("pandas")  # the extra [ray] brings it
    (block,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "cluster.md").read_text("utf8"), re.DOTALL
    )
    code, last = block.rsplit("spark.read", 1)
    assert last.startswith('.parquet("abstracts").mapInPandas(annotate, schema)')
    names = {}
    exec(code.replace("/shared/trained", str(pipeline)), names)
    tables = [pandas.DataFrame({"id": ["a", "b"], "text": texts[5:7]})]
    tables.append(pandas.DataFrame({"id": ["c"], "text": [""]}))
    found, none = names["annotate"](iter(tables))
    columns = [column.split() for column in names["schema"].split(", ")]
    assert [*found.columns] == [*none.columns] == [name for name, _ in columns]
    kinds = {"string": str, "long": int, "double": float}
    assert len(found) > 2 and not len(none)
    for row in found.to_dict("records"):
        assert all(isinstance(row[name], kinds[kind]) for name, kind in columns)
        text = dict(zip("ab", texts[5:7], strict=True))[row["id"]]
        assert text[row["start"] : row["end"]] == row["text"]
