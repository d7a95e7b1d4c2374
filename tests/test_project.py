"""project/: configs, steps, README; and its workflows, capped, on the sample corpus."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from spacy.util import load_config, load_model_from_config
from thinc.api import Config

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "project"
CONFIGS = sorted((PROJECT / "configs").glob("*.cfg"))
RESULTS = (
    "converted",
    "probe",
    "knowledge",
    "tokenizers",
    "training",
    "metrics",
    "benchmarks",
    "pretraining",
    "shipped",
    "assets",
    "project.lock",
)


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config_path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_configs_are_complete(config_path: Path) -> None:
    # What `spacy init fill-config` would write holds nothing that the file does not say.
    config = load_config(config_path)
    nlp = load_model_from_config(load_config(config_path), auto_fill=True, validate=True)
    assert dict(nlp.config) == dict(config)


def test_configs_read_the_corpus_anew_in_every_epoch(config_path: Path) -> None:
    # spaCy would otherwise read it once, and shuffle and sample for itself.
    assert load_config(config_path)["training"]["max_epochs"] == -1


def test_configs_resolve_as_spacy_train_does(config_path: Path) -> None:
    from spacy.schemas import ConfigSchemaTraining

    config = load_config(config_path, interpolate=True)
    training = spacy.registry.resolve(config["training"], schema=ConfigSchemaTraining)
    assert training["max_steps"] > 0
    for corpus in spacy.registry.resolve(config["corpora"]).values():
        assert corpus.shuffle == (corpus.split == "train")


@pytest.mark.parametrize("name", ["paper", "authors"])
def test_configs_of_the_paper_keep_its_settings(name: str) -> None:
    config = load_config(PROJECT / f"configs/{name}.cfg", interpolate=True)
    model = config["components"]["vaner_ner"]["model"]
    adapter, optimizer = model["adapter"], config["training"]["optimizer"]
    assert (adapter["rank"], adapter["alpha"], adapter["dropout"]) == (12, 32, 0.1)
    assert model["max_subwords"] == 128
    words_per_batch = config["training"]["batcher"]["size"]
    # 90,544 sentences of 26 words, 20 epochs.
    assert config["training"]["max_steps"] == pytest.approx(20 * 90544 * 26 / words_per_batch)
    if name == "paper":
        assert adapter["targets"] == "all-linear" and words_per_batch == 8 * 26
        assert optimizer["learn_rate"] == 1e-4
        assert model["backbone"]["quantization"] == "nf4"
    else:
        assert adapter["targets"] == ["q_proj", "v_proj"] and words_per_batch == 4 * 26
        assert optimizer["learn_rate"]["initial_rate"] == 1e-4
        assert model["backbone"]["quantization"] is None
    assert optimizer["@optimizers"] == "spacy-vaner.AdamW.v1" and optimizer["weight_decay"] == 0.01


def project_config(**variables: Any) -> dict[str, Any]:
    from weasel.util import load_project_config

    overrides = {f"vars.{name}": value for name, value in variables.items()}
    return load_project_config(PROJECT, overrides=overrides)


def test_every_step_is_a_command_that_exists() -> None:
    from typer.main import get_command

    from spacy_vaner.cli import vaner_app

    known = get_command(vaner_app).commands
    scripts = [line for step in project_config()["commands"] for line in step["script"]]
    for words in map(shlex.split, scripts):
        if words[:4] == ["python", "-m", "spacy", "vaner"]:
            command = known[words[4]]
            options = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words[5:] if word.startswith("--")} <= options
        else:
            is_script = words[1].startswith("scripts/") and (PROJECT / words[1]).is_file()
            assert is_script or words[1] in ("-m", "-c")


def test_steps_of_other_settings_write_to_other_places() -> None:
    # Files of one corpus or view must never be read for another.
    def outputs(**variables: Any) -> set[str]:
        steps = project_config(**variables)["commands"]
        return {path for step in steps for path in step["outputs"] if step["name"] != "unpack"}

    of_data = {"converted", "knowledge", "tokenizers", "ablation"}
    kept = {"seed": of_data, "config": of_data}
    for variable, value in (("corpora", "A,B"), ("view", "x"), ("seed", 7), ("config", "small")):
        shared = outputs() & outputs(**{variable: value})
        shared -= {path for path in shared if path.startswith("converted/NCBI")}
        if variable == "config":  # it has a config of its own
            shared -= {path for path in shared if "/scispacy." in path}
        own = {path.split("/")[0] for path in shared if "/sample" in path}
        assert own == kept.get(variable, set())


def test_every_dependency_is_made_by_an_earlier_step_or_is_there() -> None:
    config = project_config()
    steps = {step["name"]: step for step in config["commands"]}
    begin_with = {"shipped-tagger": "shipped_backbone", "new-type": "new_base"}
    for workflow, names in config["workflows"].items():
        made = {config["vars"][begin_with[workflow]]} if workflow in begin_with else set()
        for name in names:
            for path in steps[name]["deps"]:
                assert path in made or (PROJECT / path).exists(), f"{name} needs {path}"
            made.update(steps[name]["outputs"])


def test_a_card_tells_what_the_run_had_and_what_was_measured() -> None:
    steps = {step["name"]: step for step in project_config()["commands"]}
    words = words_of(steps["ship"])
    given = {
        option: {words[place + 1] for place, word in enumerate(words) if word == option}
        for option in ("--run", "--dev", "--test")
    }
    assert given["--run"] == {words_of(steps["tag"])[5]} and "--config" not in words
    assert given["--dev"] == set(steps["evaluate-dev"]["outputs"])
    assert given["--test"] == set(steps["evaluate-test"]["outputs"])


def words_of(step: dict[str, Any]) -> list[str]:
    return shlex.split(step["script"][0])


def test_assets_lie_where_the_catalogue_looks_and_are_not_fetched_unasked() -> None:
    from spacy_vaner.corpora.catalogue import catalogue

    assets = project_config()["assets"]
    assert all(asset["extra"] for asset in assets)
    listed = {
        path
        for corpus in catalogue().values()
        for view in corpus.views.values()
        for path in view.files.values()
    }
    places = {asset["dest"].removeprefix("corpora/") for asset in assets}
    assert {place for place in places if not place.startswith("assets/")} <= listed


def test_readme_is_what_spacy_project_document_makes_of_the_project(tmp_path: Path) -> None:
    from weasel.cli.document import project_document

    project_document(PROJECT, tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text("utf8") == (PROJECT / "README.md").read_text("utf8")


@pytest.fixture
def project_copy(tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(
            PROJECT, tmp_path / "project", ignore=lambda _, names: set(RESULTS).intersection(names)
        )
    )


Run = Callable[..., str]


@pytest.fixture
def run(project_copy: Path) -> Run:
    """Run a workflow on the copy of the project, two steps of training long."""

    def run_workflow(name: str, *options: str) -> str:
        command = [sys.executable, "-m", "spacy", "project", "run", name, str(project_copy)]
        done = subprocess.run(
            [*command, *options],
            env={
                **os.environ,
                "VANER_TRAIN_OPTIONS": "--training.max_steps 2 --training.eval_frequency 1",
            },
            capture_output=True,
            text=True,
            timeout=840,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)

    return run_workflow


@pytest.mark.slow
def test_workflow_pretrain_ends_with_a_backbone_and_is_not_repeated(
    project_copy: Path, run: Run
) -> None:
    pytest.importorskip("gensim")
    run("pretrain")
    folder = project_copy / "pretraining/demo/pretrain-tiny.0"
    assert (folder / "backbone/model.safetensors").is_file()
    assert run("pretrain").count("nothing changed") == 6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workflow_all_ends_with_scores_and_a_pipeline_and_is_not_repeated(
    project_copy: Path, run: Run
) -> None:
    printed = run("all")
    for name in ("Disease", "Chemical", "Gene", "Species"):
        assert re.search(rf"sample +{name} ", printed)
    pipeline = project_copy / "training/sample/tiny.text.0/model-best"
    assert str(pipeline) in printed
    doc = spacy.load(pipeline)("BRCA1-deficient tumours in mice respond to olaparib.")
    assert "vaner" in doc.spans
    for asked in ("named", "unnamed"):
        path = project_copy / f"metrics/sample/tiny.text.0.{asked}.json"
        assert json.loads(path.read_text("utf8"))["corpora"]["sample"]
    benchmarks = project_copy / "benchmarks/sample"
    report = (benchmarks / "tiny.text.0.rivals/report.md").read_text("utf8")
    for shown in ("dictionary", "scispaCy-architecture", "× spaCy's CNN", "en_ner_bc5cdr_md"):
        assert shown in report
    assert (benchmarks / "tiny.text.0.rivals/pages/vaner.text.html").is_file()
    adapted = (benchmarks / "tiny.text.0.adaptation/report.md").read_text("utf8")
    assert "### Raw text, no corpus named: what users get" in adapted
    again = run("all")
    assert again.count("nothing changed") == 9
    run("annotate", "--vars.annotate_to", "jsonl")
    annotated = project_copy / "annotated/sample/tiny.text.0/jsonl"
    totals = json.loads((annotated / "manifest.json").read_text("utf8"))["totals"]
    lines = (annotated / "annotated/sample.test.00000.jsonl").read_text("utf8").splitlines()
    assert totals["documents"] == len(lines) > 5 and not totals["rejected"]
    changed = run("all", "--vars.seed", "1")
    assert changed.count("nothing changed") == 4


@pytest.mark.slow
def test_workflow_paper_runs_on_any_llama(project_copy: Path, run: Run, tmp_path: Path) -> None:
    from tests.support.tiny_llama import save_tiny_llama

    texts = srsly.read_jsonl(PROJECT / "corpora/sample/sample.train.jsonl")
    backbone = save_tiny_llama(tmp_path / "llama", [record["text"] for record in texts])
    printed = run("paper", "--vars.paper_corpora", "sample", "--vars.backbone", str(backbone))
    assert re.search(r"sample +Gene ", printed)
    folder = project_copy / "training/sample/paper.tokens.0/model-best"
    # Adapter and head: the backbone is referred to, not stored.
    stored = (folder / "vaner_ner/weights.safetensors").stat().st_size
    assert stored < sum(path.stat().st_size for path in backbone.glob("*.safetensors"))
    assert Config().from_disk(folder / "config.cfg")["paths"]["backbone"] == str(backbone)


@pytest.mark.slow
def test_workflows_shipped_and_new_type_end_in_a_tagger_to_carry_and_a_curve(
    project_copy: Path, run: Run, tmp_path: Path
) -> None:
    from tests.support.tiny_llama import save_tiny_llama

    texts = srsly.read_jsonl(PROJECT / "corpora/sample/sample.train.jsonl")
    backbone = save_tiny_llama(tmp_path / "llama", [record["text"] for record in texts])
    options = ("--vars.shipped_backbone", str(backbone), "--vars.shipped_name", "mine")
    options += ("--vars.shipped_options", " --set drop_corpus=0.25")
    run("shipped-tagger", *options)
    nlp = spacy.blank("en")
    settings = {"@misc": "spacy-vaner.pretrained.v1", "name": str(project_copy / "shipped/mine")}
    nlp.add_pipe("vaner_ner", config={"asking": "joint", "model": {"backbone": settings}})
    assert "vaner" in nlp("BRCA1-deficient tumours in mice respond to olaparib.").spans
    card = (project_copy / "shipped/mine/card.md").read_text("utf8")
    assert "| sample | 36 | " in card and "CC BY-NC-SA 4.0" in card
    assert "| text, tokens, text.lower, text.upper | " in card and "None were taken." not in card
    facts = json.loads((project_copy / "shipped/mine/card.json").read_text("utf8"))
    assert facts["settings"][0]["drop_corpus"] == 0.25
    # Every step goes on where it stands.
    assert run("shipped-tagger", *options).count("nothing changed") == 7
    run("new-type", "--vars.new_base", "training/mine/nlp.0")
    path = project_copy / "metrics/new-type.sample.Species.0.json"
    curve = json.loads(path.read_text("utf8"))["curve"]
    assert [point["sentences"] for point in curve] == [5, 10]
    assert all(point["old_types_unchanged"] and point["updates"] for point in curve)
