"""A tagger that comes with the package: used by default, trained on, saved, damaged."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import copy as copy_of
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.training import Example
from typer.testing import CliRunner

from spacy_vaner import shipped
from spacy_vaner.assembly import ship
from spacy_vaner.backbone.packing import round_weights
from spacy_vaner.cli import vaner_app
from spacy_vaner.errors import VanerError, VanerWarning
from spacy_vaner.model import get_tagger
from spacy_vaner.model_card import SAID, card_text, read_facts, training_data
from spacy_vaner.rows import prepare_rows
from spacy_vaner.training.config import read_config
from spacy_vaner.training.rows_folder import PreparedRows
from spacy_vaner.training.tag_config import TagConfig
from spacy_vaner.training.tagging import train_tagger
from tests.support.tiny_tagger import TINY, Writer, component_of, found, merge, predictions
from tests.training.rows_support import WINDOW, tag_config, write_corpora

ROOT = Path(__file__).parents[2]
TEXT = "with zinc and BRCA1 levels"
FOUND = [("Chemical", "zinc"), ("Gene", "BRCA1")]
FACTS = {key: [f"{key}, said"] if form is list else f"{key}, said" for key, form in SAID.items()}
SCORE = {"gold": 7, "p": 0.5, "r": 0.25, "f": 1 / 3, "f_interval": [0.2, 0.4]}


@pytest.fixture(scope="session")
def facts_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a person says of a tagger."""
    path = tmp_path_factory.mktemp("facts") / "facts.json"
    path.write_text(json.dumps(FACTS), encoding="utf8")
    return path


@pytest.fixture(scope="session")
def trained_on(trained_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rows and settings, as of a run."""
    folder = tmp_path_factory.mktemp("rows")
    corpora = write_corpora(folder / "corpora")
    prepare_rows([corpora], folder / "rows", tokenizer_path=trained_path / "vaner_ner", **WINDOW)
    (folder / "tag.json").write_text(json.dumps({"rows": "rows", "n_steps": 1}), encoding="utf8")
    return {"rows": folder / "rows", "config": folder / "tag.json"}


@pytest.fixture(scope="session")
def shipped_path(
    trained_path: Path,
    facts_path: Path,
    trained_on: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny tagger as the package would carry it."""
    folder = tmp_path_factory.mktemp("shipped") / shipped.DEFAULT_NAME
    nlp = spacy.load(trained_path)
    tagger_of(nlp).known_types = ("Chemical", "Gene")
    ship(nlp, folder, facts=facts_path, **trained_on)
    return folder


@pytest.fixture
def copy(shipped_path: Path, tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    return Path(shutil.copytree(shipped_path, tmp_path / "copy"))


@pytest.fixture
def make(shipped_path: Path) -> Callable[..., Language]:
    """A pipeline on the shipped tagger, by the path of its folder."""

    def make_nlp(folder: Path = shipped_path, **changes: Any) -> Language:
        backbone = {"@misc": "spacy-vaner.pretrained.v1", "name": str(folder)}
        nlp = spacy.blank("en")
        nlp.tokenizer.rules = {}  # type: ignore[assignment]  # as the pipeline that it is from
        nlp.add_pipe(
            "vaner_ner", config=merge(TINY, merge({"model": {"backbone": backbone}}, changes))
        )
        return nlp

    return make_nlp


def tagger_of(nlp: Language) -> Any:
    tagger = get_tagger(component_of(nlp).model)
    assert tagger is not None
    return tagger


def example(nlp: Language, type_name: str) -> Example:
    return Example.from_dict(nlp.make_doc(TEXT), {"entities": [(5, 9, type_name)]})


def texts(nlp: Language) -> list[str]:
    return [Writer(nlp, seed).doc(30).text for seed in range(4)]


def all_predictions(nlp: Language) -> list[Any]:
    return [predictions(doc) for doc in nlp.pipe(texts(nlp))]


# First use


def test_predicting_imports_neither_transformers_nor_peft(shipped_path: Path) -> None:
    """As where spacy-transformers, whose factory imports transformers, is not installed."""
    settings = merge(
        TINY,
        {"model": {"backbone": {"@misc": "spacy-vaner.pretrained.v1", "name": str(shipped_path)}}},
    )
    code = f"""
import importlib.metadata, json, sys
import catalogue
class Others:
    def select(self, *, group):
        points = importlib.metadata.entry_points(group=group)
        return [point for point in points if not point.value.startswith("spacy_transformers")]
catalogue.AVAILABLE_ENTRY_POINTS = Others()
import spacy
nlp = spacy.blank("en")
nlp.add_pipe("vaner_ner", config=json.loads({json.dumps(json.dumps(settings))}))
assert nlp({TEXT!r}).ents
heavy = {{"transformers", "peft", "onnx"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# The folder


def test_the_folder_is_small_and_says_what_it_holds(shipped_path: Path, trained_path: Path) -> None:
    names = {path.name for path in shipped_path.iterdir()}
    assert names == {
        *("model.json", "card.json", "card.md"),
        *("weights.safetensors", "tagger.json", "tokenizer.json", "tokenizer_config.json"),
    }
    before = trained_path / "vaner_ner/weights.safetensors"
    assert (shipped_path / before.name).stat().st_size < 0.35 * before.stat().st_size
    manifest = json.loads((shipped_path / "model.json").read_text("utf8"))
    assert manifest["settings"]["types"] == ["Chemical", "Gene"]
    assert manifest["settings"]["model"]["instruction"] == TINY["model"]["instruction"]
    for name, sha256 in manifest["files"].items():
        assert hashlib.sha256((shipped_path / name).read_bytes()).hexdigest() == sha256
    # Nothing of the machine that it was made on.
    assert str(Path.home()) not in (shipped_path / "tagger.json").read_text("utf8")


def test_the_page_names_the_settings_that_a_folder_holds(shipped_path: Path) -> None:
    manifest = json.loads((shipped_path / "model.json").read_text("utf8"))
    page = (ROOT / "docs/shipped.md").read_text("utf8")
    for name in {*manifest["settings"]} - {"model"}:
        assert page.count(f"`{name}`") >= 2, name


def test_shipping_again_gives_the_same_bytes(
    make: Callable[..., Language],
    shipped_path: Path,
    facts_path: Path,
    trained_on: dict[str, Path],
    tmp_path: Path,
) -> None:
    nlp = make()
    nlp(TEXT)
    again = tmp_path / shipped_path.name
    for _ in range(2):
        ship(nlp, again, facts=facts_path, **trained_on)
    for path in shipped_path.iterdir():
        if path.name != "model.json":
            assert (again / path.name).read_bytes() == path.read_bytes(), path.name
    assert [path.name for path in tmp_path.iterdir()] == [again.name]


def test_the_card_is_written_from_its_facts(
    trained_path: Path, facts_path: Path, trained_on: dict[str, Path], tmp_path: Path
) -> None:
    result = {
        **{"command": "evaluate it", "view": "text", "name_corpus": False},
        "versions": {"spacy": "3.8"},
        "corpora": {"NCBI-disease": {"types": {"Disease": SCORE}, "micro": SCORE}},
    }
    (tmp_path / "dev.json").write_text(json.dumps(result), encoding="utf8")
    nlp = spacy.load(trained_path)
    tagger_of(nlp).known_types = ("Chemical", "Gene")
    nlp.to_disk(tmp_path / "nlp")
    output = tmp_path / "out" / "mine"
    options = [
        "--facts",
        facts_path,
        "--config",
        trained_on["config"],
        "--rows",
        trained_on["rows"],
        "--dev",
        tmp_path / "dev.json",
    ]
    command = ["ship", tmp_path / "nlp", output, *options]
    done = CliRunner().invoke(vaner_app, [str(part) for part in command])
    assert done.exit_code == 0 and "0.1 MB" in done.output.replace("\n", ""), done.output
    card = (output / "card.md").read_text("utf8")
    assert card == card_text(json.loads((output / "card.json").read_text("utf8")))
    assert "| NCBI-disease | Disease | 7 | 50.00 | 25.00 | 33.33 | 20.0–40.0 |" in card
    assert "| one | 24 | Chemical " in card and "(Chemical " in card
    assert all(f"{key}, said" in card for key in SAID)


def test_the_card_tells_what_was_trained_on_with_its_licence(trained_on: dict[str, Path]) -> None:
    rows = PreparedRows.open(trained_on["rows"])
    config = read_config(trained_on["config"], TagConfig)
    assert [row["corpus"] for row in training_data(rows, [config])] == ["one", "two"]
    assert training_data(rows, [config])[1]["partial"] == ["Chemical"]
    without = replace(config, without=["Chemical"], mixture={"one.text": 0.0})
    (row,) = training_data(rows, [without])
    assert row["corpus"] == "two" and list(row["mentions"]) == ["Gene"]
    assert row["licence"] == "not in the catalogue"
    for source in rows.sources:
        source.facts = replace(source.facts, corpus="Linnaeus")
    (row,) = training_data(rows, [config])
    # Both files are taken for views of one corpus.
    assert row["licence"] == "CC BY 4.0" and row["documents"] == 24


def rows_of(trained_on: dict[str, Path], *sources: tuple[str, str, int, dict[str, int]]) -> Any:
    """Rows whose training files are said to be: name, corpus, documents, mentions per type."""
    rows = PreparedRows.open(trained_on["rows"])
    first = rows.of_split("train")[0]
    made = []
    for name, corpus, n_documents, mentions in sources:
        questions = [
            first.facts.questions[0]._replace(type=type_name, corpus=None, n_mentions=n)
            for type_name, n in mentions.items()
        ]
        source = copy_of(first)
        source.facts = replace(
            first.facts, name=name, corpus=corpus, n_documents=n_documents, questions=questions
        )
        made.append(source)
    return replace(rows, sources=made)


def test_the_card_counts_a_corpus_once_in_documents_of_its_raw_text(
    trained_on: dict[str, Path],
) -> None:
    rows = rows_of(
        trained_on,
        ("BC5CDR.text.lower", "BC5CDR (lower)", 490, {"Chemical": 9}),
        ("BC5CDR.tokens", "BC5CDR", 4461, {"Chemical": 10, "Disease": 3}),
        ("BC5CDR.text", "BC5CDR", 489, {"Chemical": 8}),
        ("JNLPBA.tokens", "JNLPBA", 1773, {"Gene": 5}),
        ("mine-a", "mine", 2, {"Gene": 1}),
        ("mine-b", "mine", 3, {"Gene": 4}),
        ("new.text.cells", None, 6, {"Gene": 4}),
        ("silver.text", "silver.text", 7, {"Gene": 4}),
    )
    config = read_config(trained_on["config"], TagConfig)
    bc5cdr, jnlpba, mine, new, silver = training_data(rows, [config])
    assert bc5cdr["corpus"] == "BC5CDR" and bc5cdr["documents"] == 489
    assert bc5cdr["licence"] == "none stated by the source" and bc5cdr["citation"]
    # A type of one view only is told with the others.
    assert bc5cdr["mentions"] == {"Chemical": 8, "Disease": 3}
    assert bc5cdr["forms"] == ["text", "tokens", "text.lower"]
    assert (jnlpba["documents"], jnlpba["forms"]) == (1773, ["tokens"])
    assert (mine["documents"], mine["mentions"], mine["forms"]) == (5, {"Gene": 5}, [])
    assert (new["corpus"], new["documents"], new["forms"]) == ("new", 6, ["text.cells"])
    assert (silver["corpus"], silver["forms"]) == ("silver", ["text"])


def test_the_card_tells_what_the_run_was_set_to(
    trained_path: Path, facts_path: Path, trained_on: dict[str, Path], tmp_path: Path
) -> None:
    rows = trained_on["rows"]
    length = {"n_steps": 1, "dev_documents": 0}
    genes = tag_config(rows, **length, without=["Chemical"], mixture={"one.text": 0.0})
    train_tagger(genes, tmp_path / "genes")
    train_tagger(tag_config(rows, **length, seed=5, mixture={"two": 0.0}), tmp_path / "one")
    nlp = spacy.load(trained_path)
    tagger_of(nlp).known_types = ("Chemical", "Gene")
    nlp.to_disk(tmp_path / "nlp")
    runs = [tmp_path / "genes", tmp_path / "one"]

    command = ["ship", tmp_path / "nlp", tmp_path / "out", "--facts", facts_path, "--rows", rows]
    command += ["--run", runs[0], "--run", runs[1]]
    done = CliRunner().invoke(vaner_app, [str(part) for part in command])
    assert done.exit_code == 0, done.output
    both = json.loads((tmp_path / "out/card.json").read_text("utf8"))
    assert [row["corpus"] for row in both["data"]] == ["two", "one"]
    assert [one["seed"] for one in both["settings"]] == [0, 5]

    def card(**options: Any) -> dict[str, Any]:
        ship(nlp, tmp_path / "out", facts=facts_path, rows=rows, **options)
        facts: dict[str, Any] = json.loads((tmp_path / "out/card.json").read_text("utf8"))
        return facts

    of_genes = card(runs=runs[:1])
    assert [(row["corpus"], [*row["mentions"]]) for row in of_genes["data"]] == [("two", ["Gene"])]
    (settings,) = of_genes["settings"]
    assert settings["without"] == ["Chemical"] and settings["rows"] == "rows"
    other = card(runs=runs[:1], config=trained_on["config"])
    assert [row["corpus"] for row in other["data"]] == ["one", "two"]

    (state,) = (runs[1] / "checkpoints").glob("*/state.json")
    values = json.loads(state.read_text("utf8"))
    state.write_text(json.dumps({**values, "data_sha256": "0"}), encoding="utf8")
    with pytest.raises(VanerError, match=r"VE196: .*rows .*one was trained on other rows"):
        card(runs=runs)
    with pytest.raises(VanerError, match=r"VE196: .*nlp .*no checkpoint"):
        card(runs=[tmp_path / "nlp"])
    with pytest.raises(VanerError, match="VE445: give .*--run"):
        card()


def test_what_is_said_of_the_tagger_of_the_package_does_not_age() -> None:
    said = read_facts(ROOT / "project/configs/ship.json")
    text = json.dumps(said, ensure_ascii=False)
    assert all(one in said["pretraining"] for one in ("read on", "vectors", "lexicon"))
    # Scores come from --dev and --test, settings from --run.
    assert not re.search(r"\d\.\d\d|minutes|rising|tagger-\d", text)
    card = json.loads((shipped.FOLDER / shipped.DEFAULT_NAME / "card.json").read_text("utf8"))
    assert {key: card[key] for key in SAID} == {key: said[key] for key in SAID}


def test_the_card_tells_of_data_that_no_catalogue_knows(
    trained_path: Path, trained_on: dict[str, Path], tmp_path: Path
) -> None:
    said = {"about": "labelled by itself", "licence": "as it"}
    other_data = {"two": said, "unread": said}
    (tmp_path / "facts.json").write_text(json.dumps({**FACTS, "other_data": other_data}))
    nlp = spacy.load(trained_path)
    tagger_of(nlp).known_types = ("Chemical", "Gene")
    ship(nlp, tmp_path / "out", facts=tmp_path / "facts.json", **trained_on)
    card = (tmp_path / "out/card.md").read_text("utf8")
    assert re.search(r"\| one \| 24 \| .* \| text \| not in the catalogue \| – \|", card)
    assert re.search(r"\| two \| 12 \| .* \| – \| as it \| labelled by itself \|", card)
    assert "unread" not in (tmp_path / "out/card.json").read_text("utf8")


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"licence": None}, "'licence' has to be text"),
        ({"x": 1}, "'x' is not known"),
        ({"other_data": {}}, "'other_data' has to be a table"),
        ({"other_data": {"two": {"about": "x"}}}, "'two' two texts, 'about' and 'licence'"),
        ({"other_data": {"two": {"about": "x", "licence": ""}}}, "'two' two texts"),
    ],
)
def test_facts_of_another_form_are_refused(
    trained_path: Path,
    trained_on: dict[str, Path],
    tmp_path: Path,
    change: dict[str, Any],
    complaint: str,
) -> None:
    (tmp_path / "facts.json").write_text(json.dumps({**FACTS, **change}), encoding="utf8")
    nlp = spacy.load(trained_path)
    tagger_of(nlp).known_types = ("Gene",)
    with pytest.raises(VanerError, match=f"VE196.*{complaint}"):
        ship(nlp, tmp_path / "out", facts=tmp_path / "facts.json", **trained_on)
    (tmp_path / "dev.json").write_text("{}", encoding="utf8")
    (tmp_path / "facts.json").write_text(json.dumps(FACTS), encoding="utf8")
    with pytest.raises(VanerError, match="VE196.*dev.json"):
        ship(
            nlp,
            tmp_path / "out",
            facts=tmp_path / "facts.json",
            **trained_on,
            dev=[tmp_path / "dev.json"],
        )
    assert not (tmp_path / "out").exists()


def test_what_cannot_stand_alone_does_not_ship(
    trained_path: Path,
    lora_path: Path,
    facts_path: Path,
    trained_on: dict[str, Path],
    tmp_path: Path,
    make_nlp: Callable[..., Language],
) -> None:
    with_adapter = spacy.load(trained_path)
    component_of(with_adapter).add_adapter("Anatomy")
    for nlp, reason in (
        (spacy.blank("xx"), "0 components"),
        (make_nlp(), "no weights"),
        (spacy.load(lora_path), "adapters"),
        (with_adapter, "adapters"),
        (spacy.load(trained_path), "does not say"),
    ):
        with pytest.raises(VanerError, match=f"VE195.*{reason}"):
            ship(nlp, tmp_path / "out", facts=facts_path, **trained_on)


def test_something_else_is_not_replaced(
    make: Callable[..., Language], facts_path: Path, trained_on: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    nlp = make()
    nlp(TEXT)
    with pytest.raises(VanerError, match="VE194"):
        ship(nlp, tmp_path / "work", facts=facts_path, **trained_on)


# In a pipeline


def test_it_predicts_as_the_rounded_tagger(make: Callable[..., Language], nlp: Language) -> None:
    round_weights(tagger_of(nlp))
    assert all_predictions(make()) == all_predictions(nlp)
    assert found(make()(TEXT)) == FOUND


def test_training_goes_on_from_its_weights(make: Callable[..., Language]) -> None:
    nlp = make()
    nlp.initialize(lambda: [example(nlp, "Chemical")])
    assert all_predictions(nlp) == all_predictions(make())
    before = tagger_of(nlp).saved_weights()["backbone.norm.weight"].clone()
    optimizer = nlp.resume_training()
    nlp.update([example(nlp, "Chemical")], sgd=optimizer)
    assert not tagger_of(nlp).saved_weights()["backbone.norm.weight"].equal(before)


def test_a_folder_elsewhere_is_asked_as_its_own_settings_say(
    make: Callable[..., Language], facts_path: Path, trained_on: dict[str, Path], tmp_path: Path
) -> None:
    made = make(types=["Gene"], threshold={"Gene": 0.25}, repeat_threshold=None)
    made(TEXT)
    ship(made, tmp_path / "mine", facts=facts_path, **trained_on)
    nlp = spacy.blank("en")
    nlp.tokenizer.rules = {}  # type: ignore[assignment]
    config = shipped.shipped_component(str(tmp_path / "mine"))
    nlp.add_pipe("vaner_ner", config={**config, "precision": "fp32"})
    ner = component_of(nlp)
    assert (ner.types, ner.threshold, ner.repeat_threshold) == (("Gene",), None, None)
    assert ner.threshold_in_use == tagger_of(nlp).thresholds == {"Gene": 0.25}
    ner.threshold = 0.5
    assert ner.threshold_in_use == 0.5
    ner.threshold = None
    assert ner.asking == component_of(made).asking
    models = [one.config["components"]["vaner_ner"]["model"] for one in (nlp, made)]
    for key in ("window", "instruction", "max_subwords"):
        assert models[0][key] == models[1][key]
    assert all_predictions(nlp) == all_predictions(made)
    with pytest.raises(VanerError, match=r"VE190: .*no-such"):
        shipped.shipped_component("no-such")


def test_another_backbone_is_untrained(make_nlp: Callable[..., Language]) -> None:
    with pytest.raises(VanerError, match="VE017"):
        make_nlp()(TEXT)


def test_lora_over_it_starts_where_it_is(make: Callable[..., Language], tmp_path: Path) -> None:
    lora = {"@misc": "spacy-vaner.lora.v1", "rank": 2, "dropout": 0.0}
    nlp = make(model={"adapter": lora})
    assert found(nlp(TEXT)) == FOUND
    trainable = [n for n, p in tagger_of(nlp).named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in name or "head" in name for name in trainable)
    nlp.update([example(nlp, "Chemical")], sgd=nlp.resume_training())
    nlp.to_disk(tmp_path / "nlp")
    assert all_predictions(spacy.load(tmp_path / "nlp")) == all_predictions(nlp)


def test_asked_the_other_way_it_needs_a_new_head(make: Callable[..., Language]) -> None:
    nlp = make(asking="joint", model={"question_width": 6})
    with pytest.raises(VanerError, match="VE039"):
        nlp(TEXT)
    nlp.initialize(lambda: [example(nlp, "Chemical")])
    tagger = tagger_of(nlp)
    assert tagger.asking == "joint" and tagger.head.width == 6
    weights = tagger_of_made(make).saved_weights()
    kept = {n: w for n, w in tagger.saved_weights().items() if n.startswith("backbone.")}
    assert kept and all(weights[name].equal(tensor) for name, tensor in kept.items())


def tagger_of_made(make: Callable[..., Language]) -> Any:
    nlp = make()
    nlp(TEXT)
    return tagger_of(nlp)


def test_a_saved_pipeline_holds_it_in_its_packing(
    make: Callable[..., Language], copy: Path, tmp_path: Path
) -> None:
    nlp = make(copy)
    nlp.to_disk(tmp_path / "nlp")  # before it was used
    weights = (tmp_path / "nlp/vaner_ner/weights.safetensors").read_bytes()
    assert weights == (copy / "weights.safetensors").read_bytes()
    expected = all_predictions(nlp)
    # Whatever another version of the package carries.
    shutil.rmtree(copy)
    again = spacy.load(tmp_path / "nlp")
    assert all_predictions(again) == expected
    assert component_of(again).known_types == ("Chemical", "Gene")
    other = make(copy).from_bytes(nlp.to_bytes())
    assert all_predictions(other) == expected


def test_what_was_trained_is_saved_to_the_bit(
    make: Callable[..., Language], tmp_path: Path
) -> None:
    nlp = make()
    nlp.update([example(nlp, "Chemical")], sgd=nlp.resume_training())
    nlp.to_disk(tmp_path / "nlp")
    assert all_predictions(spacy.load(tmp_path / "nlp")) == all_predictions(nlp)


def test_an_adapter_leaves_it_packed(make: Callable[..., Language], tmp_path: Path) -> None:
    nlp = make()
    ner = component_of(nlp)
    ner.add_adapter("Anatomy")
    ner.update([example(nlp, "Anatomy")], sgd=nlp.resume_training())
    ner.save_adapter("Anatomy", tmp_path / "anatomy")
    nlp.to_disk(tmp_path / "nlp")
    weights = (tmp_path / "nlp/vaner_ner/weights.safetensors").read_bytes()
    nlp.remove_pipe("vaner_ner")
    unused = make()
    unused.to_disk(tmp_path / "unused")
    assert weights == (tmp_path / "unused/vaner_ner/weights.safetensors").read_bytes()
    # A config may put it on the shipped tagger.
    adapters = [{"types": ["Anatomy"], "path": str(tmp_path / "anatomy")}]
    put_on = make(adapters=adapters)
    assert all_predictions(put_on) == all_predictions(spacy.load(tmp_path / "nlp"))
    assert component_of(put_on).known_types == ("Chemical", "Gene", "Anatomy")


def test_a_type_that_it_never_saw_gives_one_warning(make: Callable[..., Language]) -> None:
    nlp = make()
    with pytest.warns(VanerWarning, match="VW041: Anatomy is new .* Chemical, Gene") as caught:
        for _ in range(2):
            nlp(TEXT, component_cfg={"vaner_ner": {"types": ["Gene", "Anatomy"]}})
    assert len(caught) == 1
    taught = make(types=["Gene", "Anatomy"])
    taught.update([example(taught, "Anatomy")], sgd=taught.resume_training())
    taught(TEXT)
    assert component_of(taught).known_types == ("Chemical", "Gene", "Anatomy")


# Damage


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["weights.safetensors", "tagger.json", "tokenizer.json"])
def test_damaged_and_missing_files_are_told(
    make: Callable[..., Language], copy: Path, name: str
) -> None:
    damage(copy / name)
    with pytest.raises(VanerError, match=f"VE193: .*{name}.*hash"):
        make(copy)(TEXT)
    (copy / name).unlink()
    with pytest.raises(VanerError, match=f"VE193: .*{name}"):
        make(copy)(TEXT)


def test_a_damaged_or_newer_manifest_is_told(make: Callable[..., Language], copy: Path) -> None:
    path = copy / "model.json"
    manifest = json.loads(path.read_text("utf8"))
    path.write_text(json.dumps({**manifest, "format_version": 2}), encoding="utf8")
    with pytest.raises(VanerError, match="VE192: .*format 2.* reads 1"):
        make(copy)(TEXT)
    path.write_text(json.dumps({**manifest, "name": "other"}), encoding="utf8")
    with pytest.raises(VanerError, match="VE191: .*fingerprint"):
        make(copy)(TEXT)
    path.write_text("{", encoding="utf8")
    with pytest.raises(VanerError, match="VE191"):
        make(copy)(TEXT)


def test_a_name_that_is_not_there_is_told_when_it_is_needed(make: Callable[..., Language]) -> None:
    nlp = make(Path("no-such-tagger"))
    with pytest.raises(VanerError, match="VE190: .*no-such-tagger.*small_llama"):
        nlp(TEXT)


def test_a_newer_packing_is_refused(make: Callable[..., Language], tmp_path: Path) -> None:
    make().to_disk(tmp_path / "nlp")
    path = tmp_path / "nlp/vaner_ner/tagger.json"
    description = json.loads(path.read_text("utf8"))
    assert description["format_version"] == 2
    path.write_text(json.dumps({**description, "format_version": 3}), encoding="utf8")
    with pytest.raises(VanerError, match="VE132"):
        spacy.load(tmp_path / "nlp")


# The default


@pytest.fixture(scope="session")
def package_with_it(shipped_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that carries the tiny tagger; RETURNS the folder that it is in."""
    folder = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns("__pycache__", "pretrained")
    shutil.copytree(ROOT / "spacy_vaner", folder / "spacy_vaner", ignore=ignored)
    shutil.copytree(shipped_path, folder / "spacy_vaner/pretrained" / shipped_path.name)
    return folder


def run_with(package: Path, code: str, folder: Path) -> str:
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error::spacy_vaner.errors.VanerWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_is_the_default_of_the_factory(package_with_it: Path, tmp_path: Path) -> None:
    code = f"""
import sys, spacy
nlp = spacy.blank("en")
ner = nlp.add_pipe("vaner_ner")
import spacy_vaner
assert spacy_vaner.__file__.startswith({str(package_with_it)!r}), spacy_vaner.__file__
assert "peft" not in sys.modules
assert ner.types == ("Chemical", "Gene")
print([(ent.label_, ent.text) for ent in nlp({TEXT!r}).ents])
assert "peft" not in sys.modules
nlp.to_disk("nlp")
again = spacy.util.load_model_from_config(nlp.config)
assert again.config == nlp.config
small = {{"@misc": "spacy-vaner.small_llama.v1"}}
nlp.add_pipe("vaner_ner", name="own", config={{"model": {{"backbone": small}}}})
try:
    nlp.get_pipe("own")(nlp.make_doc("a"))
except ValueError as error:
    assert "VE017" in str(error), error
else:
    raise AssertionError("it has weights")
"""
    assert run_with(package_with_it, code, tmp_path) == str(FOUND)
    # This package carries none, or another one.
    nlp = spacy.load(tmp_path / "nlp")
    assert [(ent.label_, ent.text) for ent in nlp(TEXT).ents] == FOUND
    assert component_of(nlp).types == ("Chemical", "Gene")


def test_the_defaults_that_the_page_of_formats_gives_are_those_of_the_package() -> None:
    if not (shipped.FOLDER / shipped.DEFAULT_NAME).is_dir():
        pytest.skip("this package carries no tagger")
    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner")
    config = nlp.config["components"]["vaner_ner"]
    section = (ROOT / "docs/formats.md").read_text("utf8").split("\n## ")[4]
    told = {}
    for keys, values in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", section, re.M):
        pairs = zip(re.findall(r"`(.+?)`", keys), re.findall(r"`(.+?)`", values), strict=False)
        told.update({key: json.loads(value) for key, value in pairs if key != "scorer"})
    assert len(told) > 12 and told == {key: config[key] for key in told}


def test_a_package_without_one_keeps_the_untrained_default() -> None:
    if (shipped.FOLDER / shipped.DEFAULT_NAME).is_dir():
        pytest.skip("this package carries one")
    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner")
    assert nlp.config["components"]["vaner_ner"]["asking"] == "per_type"
    with pytest.raises(VanerError, match="VE017"):
        nlp(TEXT)


@pytest.mark.slow
def test_a_damaged_folder_does_not_hinder_other_pipelines(
    package_with_it: Path, tmp_path: Path
) -> None:
    package = Path(shutil.copytree(package_with_it, tmp_path / "package"))
    damage(package / f"spacy_vaner/pretrained/{shipped.DEFAULT_NAME}/model.json")
    (package / f"spacy_vaner/pretrained/{shipped.DEFAULT_NAME}/model.json").write_text("{")
    code = """
import spacy
nlp = spacy.blank("en")
nlp("text")
nlp.add_pipe("vaner_ner")
try:
    nlp("text")
except ValueError as error:
    print(str(error)[:5])
"""
    assert run_with(package, code, tmp_path) == "VE191"


@pytest.mark.slow
def test_the_wheel_carries_it(package_with_it: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(package_with_it, source)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", tmp_path, source], check=True, timeout=200, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "wheel", "zip")
    folder = tmp_path / "wheel/spacy_vaner/pretrained" / shipped.DEFAULT_NAME
    written = source / "spacy_vaner/pretrained" / shipped.DEFAULT_NAME
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in written.iterdir()
    }


@pytest.mark.slow
@pytest.mark.timeout(600)  # four programs, one after another
def test_spacy_package_makes_a_pipeline_to_install(
    make: Callable[..., Language], shipped_path: Path, tmp_path: Path
) -> None:
    make().to_disk(tmp_path / "nlp")
    run = [sys.executable, "-m", "spacy", "package", "nlp", ".", "--name", "tiny"]
    run += ["--version", "1.0.0", "--build", "none"]
    done = subprocess.run(
        run, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (package,) = tmp_path.glob("*_tiny-1.0.0")
    assert any(
        "spacy_vaner" in line
        for line in json.loads((package / "meta.json").read_text())["requirements"]
    )
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--target", tmp_path / "site", package],
        check=True,
        timeout=200,
        capture_output=True,
    )
    code = (
        f"import spacy; print([(e.label_, e.text) for e in spacy.load('en_tiny')({TEXT!r}).ents])"
    )
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    installed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert installed.stdout.strip() == str(FOUND)


@pytest.mark.slow
def test_processes_load_it_for_themselves(make: Callable[..., Language]) -> None:
    nlp = make()
    expected = all_predictions(make())
    assert [predictions(doc) for doc in nlp.pipe(texts(nlp), n_process=2)] == expected
