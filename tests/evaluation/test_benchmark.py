"""Runs of a benchmark: outcomes, what is not run twice, what is refused, the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import DocBin

from spacy_vaner.cli.benchmark import parse_system
from spacy_vaner.errors import VanerError
from spacy_vaner.evaluation.benchmark import (
    Benchmark,
    Settings,
    read_folder,
    read_json,
    slug,
    write_json,
)
from spacy_vaner.evaluation.documents import GoldFile
from spacy_vaner.evaluation.predictions import pair_with_gold
from spacy_vaner.evaluation.report import build_report, write_report
from spacy_vaner.evaluation.speeds import read_speeds
from spacy_vaner.evaluation.systems import load_system
from spacy_vaner.evaluation.systems.base import System, SystemSpec
from spacy_vaner.evaluation.worker import run_predictions, run_speed
from tests.support.gold_documents import gold_document

SAMPLE_REPORT = Path(__file__).parents[2] / "docs/results/benchmark-sample"
ROWS = [
    ("Aspirin eases pain in mice.", [("Chemical", "Aspirin"), ("Disease", "pain")]),
    ("Zinc is no cure of pain.", [("Chemical", "Zinc"), ("Disease", "pain")]),
]


def write_file(path: Path, corpus: str = "BC5CDR", types: Sequence[str] = ("Disease", "Chemical")):
    docs = [
        gold_document(text, mentions, types=types, corpus=corpus, id=str(number)).doc
        for number, (text, mentions) in enumerate(ROWS)
    ]
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


@pytest.fixture(scope="module")
def ruler(tmp_path_factory: pytest.TempPathFactory) -> SystemSpec:
    """Finds Aspirin and pain, not Zinc, and something of a label without a type."""
    folder = tmp_path_factory.mktemp("ruler")
    nlp = spacy.blank("en")
    patterns = [
        {"label": "CHEM", "pattern": "Aspirin"},
        {"label": "Disease", "pattern": "pain"},
        {"label": "ODD", "pattern": "cure"},
    ]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    nlp.to_disk(folder)
    label_map = {"CHEM": "Chemical", "Disease": "Disease"}
    return SystemSpec("ruler", "spacy", str(folder), label_map, note="by hand")


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch, ruler: SystemSpec) -> None:
    """The worker of this process gets the ruler without reading it each time."""
    monkeypatch.setattr(
        "spacy_vaner.evaluation.worker.load_system",
        lambda spec: _loaded(spec.where) if spec.where == ruler.where else load_system(spec),
    )


@lru_cache
def _loaded(where: str) -> System:
    return load_system(SystemSpec("", "spacy", where, {"CHEM": "Chemical", "Disease": "Disease"}))


def job(spec: SystemSpec, files: Sequence[Path], folder: Path) -> dict[str, Any]:
    paths = [
        {
            "file": str(file),
            "predictions": str(folder / f"{file.stem}.jsonl"),
            "result": str(folder / f"{file.stem}.json"),
        }
        for file in files
    ]
    shared = {"view": "text", "name_corpus": True, "seed": 0, "resamples": 50}
    return {"system": spec.to_dict(), "files": paths, **shared}


def test_a_worker_scores_what_it_predicts_and_keeps_it(tmp_path: Path, ruler: SystemSpec) -> None:
    file = write_file(tmp_path / "a.dev.spacy")
    run_predictions(job(ruler, [file], tmp_path))
    outcome = read_json(tmp_path / "a.dev.json")
    assert outcome["status"] == "ok"
    strict = outcome["corpora"]["BC5CDR"]["strict"]
    assert (strict["micro"]["tp"], strict["micro"]["fp"], strict["micro"]["fn"]) == (3, 0, 1)
    assert strict["types"]["Chemical"]["r"] == 0.5
    assert outcome["unmapped_labels"] == {"ODD": 1}
    predicted = pair_with_gold(tmp_path / "a.dev.jsonl", [GoldFile(file)])
    assert [len(each.scored()) for each in predicted] == [2, 1]


def test_types_that_a_system_does_not_know_are_no_zero(tmp_path: Path, ruler: SystemSpec) -> None:
    species = write_file(tmp_path / "s.dev.spacy", "S800", types=("Species",))
    both = write_file(tmp_path / "b.dev.spacy", types=("Species", "Disease"))
    run_predictions(job(ruler, [species, both], tmp_path))
    unknown = read_json(tmp_path / "s.dev.json")
    assert unknown["status"] == "not asked" and "VE467" in unknown["reason"]
    assert list(read_json(tmp_path / "b.dev.json")["corpora"]["BC5CDR"]["strict"]["types"]) == [
        "Disease"
    ]


@spacy.Language.component("test_breaks_on_zinc", assigns=["doc.ents"])
def breaks_on_zinc(doc):
    if "Zinc" in doc.text:
        raise RuntimeError("no zinc, please")
    return doc


def test_a_system_that_breaks_on_one_file_goes_on_with_the_next(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("test_breaks_on_zinc")
    nlp.to_disk(tmp_path / "p")
    first = write_file(tmp_path / "a.dev.spacy")
    text, mentions = ROWS[0]
    docs = [gold_document(text, mentions).doc]
    second = tmp_path / "b.dev.spacy"
    DocBin(docs=docs, store_user_data=True).to_disk(second)
    run_predictions(job(SystemSpec("p", "spacy", str(tmp_path / "p")), [first, second], tmp_path))
    broken = read_json(tmp_path / "a.dev.json")
    assert broken["status"] == "failed" and "no zinc, please" in broken["reason"]
    assert read_json(tmp_path / "b.dev.json")["status"] == "ok"


def test_speed_is_measured_with_and_without_batches(tmp_path: Path, ruler: SystemSpec) -> None:
    file = write_file(tmp_path / "a.dev.spacy")
    sizes = {"n_batch": 2, "n_single": 1, "n_warm_up": 1}
    paths = {"texts": [str(file)], "result": str(tmp_path / "speed.json")}
    run_speed({"system": ruler.to_dict(), "view": "text", "started": 0.0, **sizes, **paths})
    outcome = read_json(tmp_path / "speed.json")
    assert outcome["status"] == "ok" and outcome["documents"] == 2 and outcome["words"] == 13
    assert outcome["words_per_s"] > 0 and outcome["single_documents_per_s"] > 0
    assert outcome["peak_memory_bytes"] > 1e7 and outcome["size_bytes"] > 100


def test_test_splits_need_leave_and_names_are_distinct(tmp_path: Path, ruler: SystemSpec) -> None:
    test = write_file(tmp_path / "a.test.spacy")
    with pytest.raises(VanerError, match="VE468.*a.test.spacy"):
        Benchmark([ruler], [test], tmp_path / "out")
    Benchmark([ruler], [test], tmp_path / "out", Settings(read_tests=True))
    with pytest.raises(VanerError, match="VE469: .*ruler"):
        Benchmark([ruler, ruler], [tmp_path / "a.dev.spacy"], tmp_path / "out")
    with pytest.raises(VanerError, match="VE470"):
        Benchmark([], [test], tmp_path / "out")
    with pytest.raises(VanerError, match="VE460"):
        Benchmark([SystemSpec("a", "oracle")], [test], tmp_path, Settings(read_tests=True))
    with pytest.raises(VanerError, match="VE411"):
        Benchmark([ruler], [test], tmp_path, Settings(read_tests=True, view="pictures"))


def test_a_process_that_dies_is_a_row_and_readings_are_noted(
    tmp_path: Path, ruler: SystemSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\necho 'out of memory' >&2\nexit 9\n", encoding="utf8")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    files = [write_file(tmp_path / f"{name}.test.spacy", name) for name in ("BC5CDR", "B")]
    out = tmp_path / "out"
    Benchmark([ruler], files, out, Settings(read_tests=True, speed_rounds=1)).run()
    for file in files:
        result = read_json(out / "results/ruler" / f"{file.name.removesuffix('.spacy')}.json")
        assert result["status"] == "failed"
        assert "status 9" in result["reason"] and "out of memory" in result["reason"]
    readings = [json.loads(line) for line in (out / "readings.jsonl").read_text().splitlines()]
    assert {reading["file"] for reading in readings} == {file.name for file in files}
    (speed, baseline) = read_speeds(out)
    assert "status 9" in str(speed.reason) and baseline.ratio is None
    report = build_report(out)
    assert "out of memory" in report


def test_a_system_that_is_missing_reads_nothing_and_one_that_is_stopped_may_have(
    tmp_path: Path, ruler: SystemSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_file(tmp_path / "a.test.spacy")
    readings = tmp_path / "out/readings.jsonl"
    benchmark = Benchmark([ruler], [file], tmp_path / "out", Settings(read_tests=True))

    status = "missing"
    n_tried = 0

    def is_missing(self: Benchmark, job: dict[str, Any]) -> str:
        nonlocal n_tried
        n_tried += 1
        write_json(Path(job["files"][0]["result"]), {"status": status, "reason": "no weights"})
        return ""

    def is_stopped(self: Benchmark, job: dict[str, Any]) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Benchmark, "_work", is_missing)
    for _ in range(2):
        benchmark._predict(ruler, {file: ""}, lambda name, what: None)
    assert n_tried == 2
    status = "not asked"
    for _ in range(2):  # the answer would be the same
        benchmark._predict(ruler, {file: ""}, lambda name, what: None)
    assert n_tried == 3 and not readings.exists()
    monkeypatch.setattr(Benchmark, "_work", is_stopped)
    with pytest.raises(KeyboardInterrupt):
        benchmark._predict(ruler, {file: "changed"}, lambda name, what: None)
    assert len(readings.read_text().splitlines()) == 1


def test_what_was_found_by_another_version_of_ours_is_not_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: dict[str, str | None] = {"spacy_vaner": "1", "onnxruntime": None}
    monkeypatch.setattr("spacy_vaner.evaluation.benchmark.versions", lambda: dict(installed))
    specs = [SystemSpec(kind, kind) for kind in ("vaner", "spacy", "gliner")]
    benchmark = Benchmark(specs, [tmp_path / "a.dev.spacy"], tmp_path)

    def keys() -> list[str]:
        return [benchmark._shared(spec, "weights", "text")["fingerprint"] for spec in specs]

    found = [keys()]
    for package, version in (
        ("onnxruntime", "1.20"),
        ("onnxruntime", "1.21"),
        ("spacy_vaner", "2"),
    ):
        installed[package] = version
        found.append(keys())
    ours, *others = zip(*found, strict=True)
    assert len(set(ours)) == 4 and all(len(set(other)) == 1 for other in others)
    # Of others it is the key of results that are kept: they took hours.
    assert others[1][0].startswith("b91a75a6efadc129")


@pytest.mark.slow
def test_a_benchmark_in_processes_is_resumed_not_repeated(
    tmp_path: Path, ruler: SystemSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_file(tmp_path / "BC5CDR.dev.spacy")
    missing = SystemSpec("scispaCy", "scispacy", "en_ner_bc5cdr_md")
    out = tmp_path / "out"
    settings = Settings(speed_rounds=1, n_batch=2, n_single=1, n_warm_up=1)
    Benchmark([ruler, missing], [file], out, settings).run()
    path = out / "results/ruler/BC5CDR.dev.json"
    first = path.read_bytes()
    assert read_json(path)["status"] == "ok"
    speeds = {speed.name: speed for speed in read_speeds(out)}
    assert speeds["ruler"].ratio and speeds["ruler"].ratio > 1
    report = build_report(out)
    assert "en_ner_bc5cdr_md is not installed" in report
    # Nothing is run again: a Python that does not exist would be missed.
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    again = Benchmark([ruler], [file], out, settings)
    again.run()
    assert path.read_bytes() == first
    # A mark is no reason to predict again, another label map is.
    marked = SystemSpec(**{**ruler.to_dict(), "seen": ("BC5CDR",)})
    Benchmark([marked], [file], out, settings).run()
    assert read_json(path)["system"]["seen"] == ["BC5CDR"]
    with pytest.raises(FileNotFoundError):
        other = SystemSpec(**{**ruler.to_dict(), "label_map": {}})
        Benchmark([other], [file], out, settings).run()


def result_of(name: str, kind: str, tmp_path: Path, spec: SystemSpec, **marks: Any) -> None:
    """A result as a run leaves it, without the process."""
    file = write_file(tmp_path / "BC5CDR.dev.spacy")
    run_predictions(job(spec, [file], tmp_path))
    system = {**spec.to_dict(), "name": name, "kind": kind, **marks}
    frame = {"system": system, "file": file.name, "view": "text", "name_corpus": True, "seed": 0}
    outcome = read_json(tmp_path / "BC5CDR.dev.json")
    path = tmp_path / "out/results" / slug(name) / "BC5CDR.dev.json"
    write_json(path, {**frame, "command": "python -m spacy vaner benchmark", **outcome})


def test_the_report_tells_ours_from_others_and_measured_from_published(
    tmp_path: Path, ruler: SystemSpec
) -> None:
    empty = spacy.blank("en")
    empty.add_pipe("entity_ruler").add_patterns([{"label": "Disease", "pattern": "Zinc"}])
    empty.to_disk(tmp_path / "empty")
    poor = SystemSpec("poor", "spacy", str(tmp_path / "empty"), {"X": "Chemical"})
    result_of("ours", "vaner", tmp_path, poor, trained_on=["NCBI-disease"])
    result_of("other", "spacy", tmp_path, ruler)
    result_of("cheat", "spacy", tmp_path, ruler, seen=["BC5CDR"])
    report = build_report(tmp_path / "out")
    assert "| other | Chemical | 2 | 100.00 | 50.00 | 66.67 |" in report
    assert "| cheat‡ | Disease | 2 | 100.00 | 100.00 | 100.00 |" in report
    # No prediction: precision is undefined, recall is not.
    assert "| ours | Disease | 2 | 0.00 | 0.00 | 0.00 |" in report
    # The rival that saw the test split is not what ours is compared with.
    assert "| BC5CDR Disease | ours, 0.00 | other, 100.00 | -100.00 | – | – |" in report
    assert "| VANER | Disease | 86.70 | 88.83 | 87.76 | lenient |" in report
    assert "| SciSpacy 0.5.4 en_ner_bc5cdr_md | all | – | – | 84.28 | scispacy |" in report
    assert "labels that its label map leaves out: ODD (1)" in report


def test_systems_of_one_corpus_each_make_a_matrix(tmp_path: Path, ruler: SystemSpec) -> None:
    files = [
        write_file(tmp_path / f"{name}.dev.spacy", name) for name in ("BC5CDR", "NCBI-disease")
    ]
    for source in ("BC5CDR", "NCBI-disease"):
        spec = SystemSpec(**{**ruler.to_dict(), "name": f"of {source}", "trained_on": [source]})
        run_predictions(job(spec, files, tmp_path))
        for file in files:
            frame = {"system": spec.to_dict(), "file": file.name, "view": "text", "seed": 0}
            outcome = read_json(tmp_path / f"{file.stem}.json")
            path = tmp_path / "out/results" / slug(spec.name) / f"{file.stem}.json"
            write_json(path, {**frame, "name_corpus": True, "command": None, **outcome})
    report = build_report(tmp_path / "out")
    assert "| Disease: system | trained on | BC5CDR | NCBI-disease |" in report
    assert "| of BC5CDR | BC5CDR | **100.00** | 100.00 |" in report
    assert "| of NCBI-disease | NCBI-disease | 66.67 | **66.67** |" in report  # Chemical


def test_no_gold_mention_gives_no_figure(tmp_path: Path, ruler: SystemSpec) -> None:
    doc = gold_document("Nothing here.", types=("Disease",), corpus="Empty").doc
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "e.dev.spacy")
    run_predictions(job(ruler, [tmp_path / "e.dev.spacy"], tmp_path))
    frame = {"system": ruler.to_dict(), "file": "e.dev.spacy", "view": "text", "seed": 0}
    outcome = read_json(tmp_path / "e.dev.json")
    path = tmp_path / "out/results/ruler/e.json"
    write_json(path, {**frame, "name_corpus": True, "command": None, **outcome})
    pytest.importorskip("matplotlib")
    page = write_report(tmp_path / "out")
    assert "| ruler | Disease | 0 | – | – | – | – |" in page.read_text("utf8")


def test_a_folder_without_results_is_no_benchmark(tmp_path: Path) -> None:
    with pytest.raises(VanerError, match="VE474"):
        build_report(tmp_path)


def test_plots_are_the_same_for_the_same_results(tmp_path: Path, ruler: SystemSpec) -> None:
    pytest.importorskip("matplotlib")
    result_of("other", "spacy", tmp_path, ruler)
    first = write_report(tmp_path / "out").with_name("f1.png").read_bytes()
    assert write_report(tmp_path / "out").with_name("f1.png").read_bytes() == first
    assert "![F1 per corpus and type](f1.png)" in (tmp_path / "out/report.md").read_text("utf8")


def test_what_a_killed_worker_left_is_no_result(tmp_path: Path) -> None:
    folder = tmp_path / "results/system"
    folder.mkdir(parents=True)
    (folder / ".one.test.outcome.json").write_text('{"status": "failed", "reason": "killed"}')
    assert list(read_folder(tmp_path)) == []


@pytest.mark.parametrize(
    "page", sorted(SAMPLE_REPORT.parent.glob("benchmark*/report.md")), ids=lambda x: x.parent.name
)
def test_the_committed_report_is_that_of_the_committed_results(page: Path) -> None:
    assert build_report(page.parent) == page.read_text("utf8")


def test_a_figure_over_fewer_types_is_marked_and_not_compared() -> None:
    report = build_report(SAMPLE_REPORT)
    assert "| vaner | **5.52** | 2.56 | – | – | 4.02* |" in report
    assert "| sample.dev Disease | vaner, 2.56 |" in report
    assert "| sample.dev all | vaner" not in report


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("vaner=a/b", ("vaner", "vaner", "a/b")),
        ("scispacy=en_x", ("scispacy en_x", "scispacy", "en_x")),
        ("spacy:mine=a=b", ("mine", "spacy", "a=b")),
        ("cnn=", ("cnn", "cnn", "")),
    ],
)
def test_systems_are_read_from_options(option: str, expected: tuple[str, str, str]) -> None:
    spec = parse_system(option)
    assert (spec.name, spec.kind, spec.where) == expected


@pytest.mark.parametrize("option", ["vaner", "=x", "spacy:=x"])
def test_options_of_another_form_are_refused(option: str) -> None:
    with pytest.raises(VanerError, match="VE472"):
        parse_system(option)


def test_vectors_are_found_whatever_the_case(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from spacy_vaner.backbone.word_features import WordVectors
    from spacy_vaner.evaluation.spacy_vectors import write_spacy_vectors

    WordVectors.from_words(["aspirin", "pain"], torch.eye(2)).to_file(tmp_path / "v.safetensors")
    words = [write_file(tmp_path / "a.dev.spacy")]
    assert write_spacy_vectors(tmp_path / "v.safetensors", tmp_path / "nlp", words=words) == 2
    doc = spacy.load(tmp_path / "nlp")("Aspirin PAIN mice")
    assert [token.vector.tolist() for token in doc] == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    with pytest.raises(VanerError, match="VE476"):
        write_spacy_vectors(tmp_path / "v.safetensors", tmp_path / "nlp")
    for name in ("broken.safetensors", "broken.kv"):
        (tmp_path / name).write_text("x", encoding="utf8")
        if name.endswith(".kv"):
            pytest.importorskip("gensim")
        with pytest.raises(VanerError, match="VE475"):
            write_spacy_vectors(tmp_path / name, tmp_path / "nlp", words=words)


def test_ours_gets_a_page_to_look_at(tmp_path: Path, ruler: SystemSpec) -> None:
    file = write_file(tmp_path / "a.dev.spacy")
    ours = SystemSpec(**{**ruler.to_dict(), "name": "ours", "kind": "vaner"})
    out = tmp_path / "out"
    paths = {"file": str(file), "predictions": str(out / "predictions/ours/a.dev.jsonl")}
    files = {"files": [{**paths, "result": str(tmp_path / "a.json")}]}
    run_predictions({**job(ruler, [file], tmp_path), **files})
    Benchmark([ours, ruler], [file], out).write_pages(1)
    (page,) = (out / "pages").iterdir()
    assert page.name == "ours.text.html"
    text = page.read_text("utf8")
    assert "Found by ours" in text and "missed" in text and "1 documents are not shown" in text


def test_a_round_with_a_new_system_is_measured_again_for_all(
    tmp_path: Path, ruler: SystemSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    missing: set[str] = set()

    def measure(self: Benchmark, spec: SystemSpec) -> dict[str, Any]:
        measured.append(spec.name)
        return {"status": "missing" if spec.name in missing else "ok", "reason": "no weights"}

    monkeypatch.setattr(Benchmark, "_measure_once", measure)
    monkeypatch.setattr(Benchmark, "_predict", lambda *arguments: None)
    file = write_file(tmp_path / "a.dev.spacy")
    first, second = (SystemSpec(**{**ruler.to_dict(), "name": name}) for name in ("one", "two"))

    def run(*specs: SystemSpec) -> list[str]:
        measured.clear()
        Benchmark(specs, [file], tmp_path / "out", Settings(speed_rounds=2)).run()
        return [name for name in measured if "CNN" not in name]

    assert run(first) == ["one", "one"]
    assert run(first) == []
    missing.add("two")
    assert run(first, second) == ["two", "two"]  # asked again, but nothing to be compared with
    missing.clear()
    assert run(first, second) == ["two", "one", "two", "one"]
    assert run(first, second) == []


def test_another_tagger_in_the_package_is_another_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spacy_vaner.evaluation.benchmark.FOLDER", tmp_path)
    file = write_file(tmp_path / "a.dev.spacy")
    shipped = SystemSpec("ours", "vaner")
    n_tried = 0

    def work(self: Benchmark, job: dict[str, Any]) -> str:
        nonlocal n_tried
        n_tried += 1
        write_json(Path(job["files"][0]["result"]), {"status": "ok"})
        return ""

    monkeypatch.setattr(Benchmark, "_work", work)
    (tmp_path / "vaner-small").mkdir()
    for weights in ("old", "old", "new"):
        (tmp_path / "vaner-small/weights.safetensors").write_text(weights)
        benchmark = Benchmark([shipped], [file], tmp_path / "out")
        benchmark._predict(shipped, {file: ""}, lambda name, what: None)
    assert n_tried == 2


def test_the_files_take_turns_where_speed_is_measured(tmp_path: Path) -> None:
    from spacy_vaner.evaluation.worker import _first

    files = [str(write_file(tmp_path / f"{name}.dev.spacy", name)) for name in ("A", "B")]
    assert [each.corpus for each in _first(files, 3)] == ["A", "B", "A"]
    assert len(list(_first(files, 9))) == 4


def test_json_is_one_object_of_plain_values_a_line() -> None:
    values: dict[str, Any] = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": "f"}, {"g": None}], "h": []}
    from spacy_vaner.evaluation.benchmark import _dumps

    text = _dumps(values)
    assert json.loads(text) == values
    assert ' "a": {"b": 1, "c": [1, 2]},' in text.splitlines()
    assert '  {"e": "f"},' in text.splitlines()
