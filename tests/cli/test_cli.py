"""The command line: how it hangs on spaCy's, what users see, and `vaner evaluate`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import pytest
import spacy
import typer
from spacy.cli._util import app as spacy_app
from spacy.tokens import Doc, DocBin
from thinc.util import gpu_is_available
from typer.testing import CliRunner

from spacy_vaner.cli import VanerGroup, options, vaner_app
from spacy_vaner.cli.evaluate import format_result, parse_label_map
from spacy_vaner.errors import VanerError, VanerWarning
from spacy_vaner.evaluation.result import CorpusScores, EvaluationResult, Score
from spacy_vaner.metrics import Counts

WORDS = ["Aspirin", "eases", "pain", "."]


def run(*arguments):
    return CliRunner().invoke(spacy_app, [str(argument) for argument in arguments])


@pytest.fixture
def pipeline(tmp_path):
    """A saved pipeline that finds Aspirin as CHEM."""
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "CHEM", "pattern": "Aspirin"}])
    nlp.to_disk(tmp_path / "pipeline")
    return tmp_path / "pipeline"


@pytest.fixture
def corpora(tmp_path):
    """A folder with the test splits of two corpora and a train split."""
    folder = tmp_path / "corpora"
    folder.mkdir()
    vocab = spacy.blank("en").vocab
    for file, corpus, mentions in [
        ("pains.test.spacy", "Pains", [["Chemical", [[0, 7]], []], ["Disease", [[14, 18]], []]]),
        ("others.test.spacy", "Others", [["Chemical", [[0, 7]], []]]),
        ("pains.train.spacy", "Trained", []),
    ]:
        doc = Doc(vocab, words=WORDS, spaces=[True, True, False, False])
        doc.user_data["vaner"] = {
            "corpus": corpus,
            "types": ["Chemical", "Disease", "Gene"],
            "mentions": mentions,
        }
        DocBin(docs=[doc], store_user_data=True).to_disk(folder / file)
    return folder


@pytest.fixture
def as_installed(tmp_path):
    """The environment of a child process in which the entry point of the command line is there."""
    info = tmp_path / "installed" / "spacy_vaner_cli-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spacy_vaner_cli\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[spacy_cli]\nvaner = spacy_vaner.cli:vaner_app\n")
    paths = [str(info.parent), *sys.path, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def test_the_entry_point_adds_the_commands_to_spacy(as_installed):
    done = subprocess.run(
        [sys.executable, "-m", "spacy", "vaner", "--help"],
        env=as_installed,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "python -m spacy vaner [OPTIONS] COMMAND" in done.stdout
    assert "evaluate" in done.stdout


def test_help_loads_neither_transformers_nor_the_evaluation():
    code = (
        "import sys, spacy_vaner.cli\n"
        "print([m for m in ('transformers', 'peft', 'spacy_vaner.evaluation.run', 'tqdm.auto')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_command_and_argument_is_explained():
    commands = typer.main.get_command(vaner_app).commands
    assert list(commands) == [
        *("convert", "corpora", "alter"),
        *("tokenizer", "protected-runs", "prepare", "pretrain", "rows"),
        *("assemble", "ship", "evaluate", "benchmark", "spacy-vectors", "analyse", "thresholds"),
        *("leakage", "instructions", "memory", "import-adapter", "annotate", "serve", "dbr"),
        *("phrases", "kb"),
    ]
    for name, command in commands.items():
        result = run("vaner", name, "--help")
        assert result.exit_code == 0, name
        assert command.help, name
        unexplained = [p.name for p in command.params if p.name != "help" and not p.help]
        assert not unexplained, f"{name}: {unexplained}"


def test_a_view_is_the_same_by_default_in_every_command():
    commands = typer.main.get_command(vaner_app).commands
    help_of_view = options.VIEW.__metadata__[0].help
    defaults = {
        name: parameter.default
        for name, command in commands.items()
        for parameter in command.params
        if getattr(parameter, "help", None) == help_of_view
    }
    # Raw text: what users get.
    assert defaults == dict.fromkeys(("evaluate", "benchmark", "analyse", "thresholds"), "text")


def test_evaluate_shows_a_table_and_writes_the_json(pipeline, corpora, tmp_path):
    output = tmp_path / "metrics.json"
    result = run(
        "vaner", "evaluate", pipeline, corpora, "--output", output, "--label-map", "CHEM=Chemical"
    )
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines() if line.strip()]
    assert ["corpus", "type", "gold", "P", "R", "F", "±"] in rows
    assert ["Pains", "Chemical", "1", "100.00", "100.00", "100.00", "0.0"] in rows
    assert ["Pains", "Disease", "1", "–", "0.00", "0.00", "0.0"] in rows
    assert ["Pains", "Gene", "0", "–", "–", "–", "–"] in rows
    assert ["all", "corpora", "all", "types", "3", "100.00", "66.67", "80.00", "16.7"] in rows
    saved = json.loads(output.read_text(encoding="utf-8"))
    assert list(saved["corpora"]) == ["Others", "Pains"]
    assert saved["label_map"] == {"CHEM": "Chemical"}


def test_options_reach_the_evaluation(pipeline, corpora, tmp_path):
    output = tmp_path / "metrics.json"
    code = tmp_path / "code.py"
    code.write_text("import os\nos.environ['VANER_TEST_CODE'] = 'imported'\n")
    result = run(
        *("vaner", "evaluate", pipeline, corpora, "--output", output, "--split", "train"),
        *("--view", "tokens", "--no-corpus-name", "--matching", "near", "--seed", "5"),
        *("--batch-size", "2", "--code", code, "--label-map", "CHEM=Chemical"),
    )
    assert result.exit_code == 0, result.output
    assert os.environ.pop("VANER_TEST_CODE") == "imported"
    saved = json.loads(output.read_text(encoding="utf-8"))
    assert list(saved["corpora"]) == ["Trained"]
    assert (saved["view"], saved["name_corpus"], saved["matching"]) == ("tokens", False, "near")
    assert saved["seed"] == 5


def test_warnings_are_messages(pipeline, corpora):
    result = run("vaner", "evaluate", pipeline, corpora)
    assert result.exit_code == 0
    assert "VW401" in result.output
    assert "CHEM (2)" in result.output
    assert "VanerWarning" not in result.output


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (["{pipeline}", "{corpora}/missing.spacy"], "VE301"),
        (["{pipeline}", "{corpora}", "--split", "dev"], "VE302"),
        (["no_such_pipeline", "{corpora}"], "VE407.*no_such_pipeline"),
        (["{pipeline}", "{corpora}", "--label-map", "CHEM"], "VE409"),
        (["{pipeline}", "{corpora}", "--view", "raw"], "VE411"),
        (["{pipeline}", "{corpora}", "--code", "{corpora}/none.py"], "VE413"),
        (["{pipeline}", "{pipeline}/meta.json"], "VE402"),
    ],
)
def test_errors_are_messages_without_a_traceback(pipeline, corpora, arguments, number):
    filled = [argument.format(pipeline=pipeline, corpora=corpora) for argument in arguments]
    result = run("vaner", "evaluate", *filled)
    assert result.exit_code == 1
    assert number.split(".*")[0] in result.output
    assert number.split(".*")[-1] in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.skipif(gpu_is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said(pipeline, corpora):
    result = run("vaner", "evaluate", pipeline, corpora, "--gpu-id", "0")
    assert result.exit_code == 1
    assert "VE410" in result.output


@pytest.mark.parametrize(
    ("error", "exit_code", "shown"),
    [
        (VanerError("VE999: wrong"), 1, "VE999: wrong"),
        (KeyboardInterrupt(), 130, "Interrupted"),
    ],
)
def test_how_a_command_ends(error, exit_code, shown):
    app = typer.Typer(cls=VanerGroup)

    @app.command("fail")
    def fail() -> None:
        raise error

    @app.command("other")
    def other() -> None:
        pass

    result = CliRunner().invoke(app, ["fail"])
    assert result.exit_code == exit_code
    assert shown in result.output
    assert CliRunner().invoke(app, ["other"]).exit_code == 0


def test_other_errors_and_warnings_are_left_alone():
    app = typer.Typer(cls=VanerGroup)

    @app.command("fail")
    def fail() -> None:
        raise RuntimeError("a bug")

    @app.command("warn")
    def warn() -> None:
        warnings.warn("ours", VanerWarning, stacklevel=1)
        warnings.warn("not ours", UserWarning, stacklevel=1)

    assert isinstance(CliRunner().invoke(app, ["fail"]).exception, RuntimeError)
    with pytest.warns(UserWarning, match="not ours"):
        result = CliRunner().invoke(app, ["warn"])
    assert "ours" in result.output


@pytest.mark.parametrize(
    ("options", "label_map"),
    [
        ([], {}),
        (["A=Disease,B=Cell line"], {"A": "Disease", "B": "Cell line"}),
        (["A=Disease", "B=Gene"], {"A": "Disease", "B": "Gene"}),
        (["A=Gene, protein or RNA,B=Gene"], {"A": "Gene, protein or RNA", "B": "Gene"}),
    ],
)
def test_label_maps_are_read(options, label_map):
    assert parse_label_map(options) == label_map


@pytest.mark.parametrize("option", ["A", "=Disease", "A=", "A=B,=C", ""])
def test_malformed_label_maps_are_refused(option):
    with pytest.raises(VanerError, match="VE409"):
        parse_label_map([option])


def test_one_corpus_with_one_type_is_one_row():
    score = Score.of([Counts(tp=1234)], n_discontinuous=0, seed=0, n_resamples=10)
    result = EvaluationResult(
        corpora={"A": CorpusScores(micro=score, types={"Gene": score})},
        overall=score,
        n_unscored_documents=2,
        unscored_labels={},
        n_words=5000,
        seconds=2.0,
        settings={"matching": "strict", "view": "tokens", "name_corpus": False},
    )
    text = format_result(result)
    assert text.count("1,234") == 1
    assert "all types" not in text
    assert "5,000 words in 2.0 s (2,500 words/s)" in text
    assert "2 more documents" in text


def test_thresholds_need_one_component(pipeline, corpora):
    result = run("vaner", "thresholds", pipeline, corpora / "pains.train.spacy")
    assert result.exit_code == 1
    assert "VE446: the pipeline (entity_ruler) has 0 vaner_ner components" in result.output
