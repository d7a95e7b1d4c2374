"""Runs of tagging: they learn, go on to the bit, and end in a pipeline that predicts the same."""

from __future__ import annotations

import json
import re
import shutil
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from spacy_vaner.assembly import assemble
from spacy_vaner.backbone import HFBackbone, build_tagger, tagger_from_files
from spacy_vaner.backbone.lexicon import LexiconTable
from spacy_vaner.backbone.tokenizer import SubwordTokenizer
from spacy_vaner.backbone.word_features import WordVectors
from spacy_vaner.cli import vaner_app
from spacy_vaner.corpora.docbins import read_docs
from spacy_vaner.decoding import UnitSpan
from spacy_vaner.errors import VanerError, VanerWarning
from spacy_vaner.training.__main__ import main
from spacy_vaner.training.asking import Asker, score, tag_documents
from spacy_vaner.training.config import config_from_dict, read_config
from spacy_vaner.training.log import LOG_FILE, read_log
from spacy_vaner.training.loop import CHECKPOINTS_FOLDER
from spacy_vaner.training.rows_folder import PreparedRows
from spacy_vaner.training.tag_config import TagConfig
from spacy_vaner.training.tagging import Tagging, layer_rates, mean_tagger, train_tagger
from tests.support.tiny_tagger import assert_same, predictions
from tests.training.rows_support import tag_config
from tests.training.test_pretrain import started, stop_after, wait_for_steps

ROOT = Path(__file__).parents[2]


def series(output: Path) -> list[tuple[Any, ...]]:
    keys = ("step", "loss", "n_subwords", "n_labels", "dev_f", "dev_f_per_type")
    return [tuple(record.get(key) for key in keys) for record in read_log(output / LOG_FILE)]


@pytest.fixture(scope="module", params=["joint", pytest.param("per_type", marks=pytest.mark.slow)])
def trained(
    request: pytest.FixtureRequest, rows_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run of 45 steps that has learned something."""
    output = tmp_path_factory.mktemp("run") / "run"
    config = tag_config(
        rows_path, asking=request.param, n_steps=45, dev_steps=15, windows_per_step=12
    )
    assert train_tagger(config, output).reason == "finished"
    return output


def test_a_run_learns_and_keeps_its_best(trained: Path) -> None:
    log = read_log(trained / LOG_FILE)
    losses = [record["loss"] for record in log if "loss" in record]
    assert len(losses) == 45 and sum(losses[-5:]) < 0.5 * sum(losses[:5])
    figures = {record["step"] + 1: record["dev_f"] for record in log if "dev_f" in record}
    assert list(figures) == [15, 30, 45] and max(figures.values()) > 0.3
    best = json.loads((trained / "best/best.json").read_text())
    assert best["figure"] == max(figures.values()) == figures[best["step"]]
    measured = next(record for record in reversed(log) if "dev_f" in record)
    assert set(measured["dev_f_per_type"]) == {"one.text: Chemical", "one.text: Gene", "two: Gene"}


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_tagger_looks_to_the_left_and_becomes_no_pipeline(
    rows_path: Path, tmp_path: Path, causal: bool
) -> None:
    config = tag_config(rows_path, causal=causal, n_steps=1, start={"word_rows": 0})
    outcome = train_tagger(config, tmp_path / "run")
    assert outcome.result is not None
    assert (outcome.result / "recipe.json").exists() is not causal
    tagger = Tagging(config, tmp_path / "other").tagger.eval()
    ids = torch.randint(10, tagger.tokenizer.n_tokens, (2, 12))
    ids[1, :8] = ids[0, :8]
    first, second = tagger.states(ids, torch.tensor([12, 12]))
    assert torch.allclose(first[:8], second[:8], atol=1e-6) is causal
    assert not torch.allclose(first[8:], second[8:], atol=1e-3)


def test_words_would_tell_a_causal_tagger_what_comes_later(rows_path: Path, tmp_path: Path) -> None:
    with pytest.raises(VanerError, match="VE531.*start"):
        train_tagger(tag_config(rows_path, causal=True), tmp_path / "run")


def test_the_mean_of_taggers_has_the_mean_of_their_weights(trained: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(trained / "tagger", second)
    tensors = load_file(second / "weights.safetensors")
    halved = {n: t / 2 if t.is_floating_point() else t for n, t in tensors.items()}
    set_weights(second, halved)
    assert main(["mean", str(trained / "tagger"), str(second), str(tmp_path / "mean")]) == 0
    found = load_file(tmp_path / "mean/weights.safetensors")
    for name, tensor in tensors.items():
        expected = 0.75 * tensor if tensor.is_floating_point() else tensor
        assert torch.allclose(found[name], expected, atol=1e-7), name
    assert len(assemble(tmp_path / "mean").pipe_names) == 1
    set_weights(second, {name: tensor for name, tensor in halved.items() if "norm" not in name})
    with pytest.raises(VanerError, match="VE514"):
        mean_tagger([trained / "tagger", second], tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.fixture(scope="module")
def rich(rows_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tagger with word vectors and a lexicon."""
    folder = tmp_path_factory.mktemp("rich")
    WordVectors.from_words(["zinc", "brca1"], torch.ones(2, 4)).to_file(folder / "vectors")
    LexiconTable.from_names([("zinc", "Chemical")], ["Chemical"]).to_file(folder / "lexicon")
    config = tag_config(
        rows_path,
        n_steps=1,
        dev_documents=1,
        start={"vectors": str(folder / "vectors")},
        lexicon=str(folder / "lexicon"),
    )
    train_tagger(config, folder / "run")
    return folder / "run/tagger"


@pytest.mark.parametrize("name", ["keys", "lexicon.bits"])
def test_there_is_no_mean_of_taggers_that_know_other_words(
    rich: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(rich, tmp_path / "second")
    tensors = load_file(rich / "weights.safetensors")
    name = f"backbone.embed_tokens.{name}"
    set_weights(tmp_path / "second", {**tensors, name: tensors[name].flip(0)})
    with pytest.raises(VanerError, match=f"VE514.*second.*{name} is not that of .*tagger"):
        mean_tagger([rich, tmp_path / "second"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_there_is_no_mean_of_taggers_of_two_tokenizers(rich: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(rich, second)
    tokenizer = json.loads((second / "tokenizer.json").read_text("utf8"))
    vocab = tokenizer["model"]["vocab"]
    one, other = list(vocab)[-2:]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    (second / "tokenizer.json").write_text(json.dumps(tokenizer), "utf8")
    described = json.loads((second / "tagger.json").read_text())
    fingerprint = SubwordTokenizer.from_folder(second).fingerprint()
    (second / "tagger.json").write_text(json.dumps({**described, "tokenizer": fingerprint}))
    with pytest.raises(VanerError, match="VE514.*second.*tokenizer is not that of .*tagger"):
        mean_tagger([rich, second], tmp_path / "mean")


def set_weights(tagger: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, tagger / "weights.safetensors")
    path = tagger / "tagger.json"
    content = (tagger / "weights.safetensors").read_bytes()
    described = {**json.loads(path.read_text()), "weights_sha256": sha256(content).hexdigest()}
    path.write_text(json.dumps(described))


def test_the_curve_of_a_run_is_drawn(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main(["plot", str(trained), str(tmp_path / "curve.png")]) == 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_pipeline_of_a_run_predicts_what_the_loop_measured(
    trained: Path, rows_path: Path, corpora_path: Path, tmp_path: Path
) -> None:
    run = CliRunner().invoke(
        vaner_app, ["assemble", str(trained), str(tmp_path / "nlp"), "--types", "Gene,Chemical"]
    )
    assert run.exit_code == 0, run.output
    nlp = spacy.load(tmp_path / "nlp")
    component: Any = nlp.get_pipe("vaner_ner")
    # bf16 and 8 bits make more of the order in which batches are added up.
    component.precision = "fp32"
    component.repeat_threshold = None
    recipe = json.loads((trained / "best/recipe.json").read_text())
    assert component.types == ("Gene", "Chemical") and component.asking == recipe["asking"]
    config = read_config(write_config(tmp_path, trained), TagConfig)
    tagger: Any = component.model.shims[0].tagger
    asker = Asker(tagger, config.with_corpus, config.without_corpus)
    n_spans = 0
    for source in PreparedRows.open(rows_path).of_split("dev"):
        documents = [source[index] for index in range(len(source))]
        path = corpora_path / f"{source.facts.name}.dev.spacy"
        docs = [*nlp.pipe(doc.copy() for doc in read_docs(path, nlp.vocab))]
        asked = [[(name, None) for name in component.types] for _ in documents]
        spans = tag_documents(asker, documents, asked, batch_subwords=300)
        for doc, found in zip(docs, spans, strict=True):
            in_order = sorted(found, key=lambda span: (span.start, span.end, span.type))
            assert_same(predictions(doc), [tuple(span) for span in in_order])
            n_spans += len(found)
    assert n_spans > 20


def write_config(folder: Path, run: Path) -> Path:
    (checkpoint,) = sorted((run / CHECKPOINTS_FOLDER).iterdir())[-1:]
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads((checkpoint / "state.json").read_text())["config"]))
    return path


@pytest.mark.slow
def test_a_killed_and_a_stopped_run_go_on_to_the_bit(rows_path: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_steps": 14, "dev_steps": 5, "dropout": 0.2, "n_threads": 1}
    train_tagger(tag_config(rows_path, **settings), tmp_path / "whole")
    output, config = tmp_path / "run", tag_config(rows_path, checkpoint_minutes=0, **settings)
    process = started(config, tmp_path, command="tag")
    wait_for_steps(process, output, 4)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    train_tagger(config, output, resume=True, on_step=stop_after(11))
    assert train_tagger(config, output, resume=True).reason == "finished"
    assert series(output) == series(tmp_path / "whole")
    for name in ("tagger/weights.safetensors", "best/weights.safetensors", "best/best.json"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_run_starts_from_a_pretrained_backbone(
    trained: Path, rows_path: Path, tmp_path: Path
) -> None:
    backbone = trained / "start"
    config = tag_config(rows_path, backbone=str(backbone), n_steps=2, optimizer={"lr": 0.0})
    train_tagger(config, tmp_path / "run")
    before = build_tagger(HFBackbone(str(backbone)), None).backbone.state_dict()
    files = {path.name: path.read_bytes() for path in (tmp_path / "run/tagger").iterdir()}
    after = tagger_from_files(files, device="cpu", precision="fp32").backbone.state_dict()
    assert before.keys() == after.keys()
    for name, weights in before.items():
        assert torch.equal(weights, after[name]), name


def test_a_run_is_not_mixed_with_another(
    rows_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, path = tmp_path / "run", tmp_path / "config.json"
    path.write_text(json.dumps(tag_config(rows_path).to_dict()))
    assert main(["tag", str(path), str(output), "--max-minutes", "0"]) == 0
    told = capsys.readouterr().out
    assert "Stopped after 0 steps (time)" in told and "--resume" in told
    assert main(["tag", str(path), str(output)]) == 1 and "VE509" in capsys.readouterr().err
    for changes in ({"asking": "per_type"}, {"mixture": {"two": 2}}, {"dropout": 0.3}):
        with pytest.raises(VanerError, match="VE51[14]"):
            train_tagger(tag_config(rows_path, **changes), output, resume=True)
    with pytest.warns(VanerWarning, match="VW502.*n_steps was 20, is 1"):
        train_tagger(tag_config(rows_path, n_steps=1, dev_documents=1), output, resume=True)


def test_rows_that_do_not_fit_the_backbone_are_refused(
    trained: Path, rows_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(VanerError, match="VE527"):
        train_tagger(tag_config(rows_path, start={"max_positions": 24}), tmp_path / "run")
    backbone = tmp_path / "backbone"
    backbone.mkdir()
    for file in (trained / "start").iterdir():
        (backbone / file.name).write_bytes(file.read_bytes())
    tokenizer = backbone / "tokenizer_config.json"
    values = {**json.loads(tokenizer.read_text()), "add_bos_token": False}
    tokenizer.write_text(json.dumps(values))
    with pytest.raises(VanerError, match="VE526"):
        train_tagger(tag_config(rows_path, backbone=str(backbone)), tmp_path / "run")


def test_a_type_follows_the_guideline_that_is_chosen(trained: Path, tmp_path: Path) -> None:
    def run(output: str, corpus: str) -> Any:
        words = ["assemble", str(trained), str(tmp_path / output), "--corpus", corpus]
        return CliRunner().invoke(vaner_app, words)

    assert run("nlp", "Gene = one-gene").exit_code == 0
    nlp = spacy.load(tmp_path / "nlp")
    component: Any = nlp.get_pipe("vaner_ner")
    assert component.corpus == {"Gene": "one-gene"}
    text = "aspirin and BRCA1 in zinc, high p53 of HDAC"
    chosen = predictions(nlp(text))
    by_call = {"vaner_ner": {"corpus": None}}
    assert chosen != predictions(nlp(text, component_cfg=by_call))
    for wrong, message in (("Gene=two", "VE535.*one-gene"), ("Gene", "VE536"), ("Gene=", "VE536")):
        result = run("other", wrong)
        assert result.exit_code == 1 and re.search(message, " ".join(result.output.split()))


def test_a_folder_without_a_tagger_makes_no_pipeline(tmp_path: Path) -> None:
    result = CliRunner().invoke(vaner_app, ["assemble", str(tmp_path), str(tmp_path / "nlp")])
    assert result.exit_code == 1 and "VE529" in result.output


def test_scores_are_strict_and_count_what_cannot_be_tagged(
    trained: Path, rows_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PreparedRows.open(rows_path).of_split("dev")[1]
    document = source[0]
    gene = next(one for one in document.annotations if one.type == "Gene")
    gene = gene._replace(n_discontinuous=2)
    first = document.units.tolist().index(
        next(unit for unit in document.units.tolist() if unit[2] == gene.mentions[0, 0])
    )
    last = [unit[3] for unit in document.units.tolist()].index(gene.mentions[0, 1])
    found = [UnitSpan(first, last + 1, 0.9), UnitSpan(last + 1, last + 2, 0.9)]
    monkeypatch.setattr("spacy_vaner.decoding.decode", lambda values: [found])
    tagger = build_tagger(HFBackbone(str(trained / "start")), None, question_width=8)
    counts = score(
        Asker(tagger),
        [("two", document._replace(annotations=[gene, *document.annotations[1:]]))],
        is_named=False,
        batch_subwords=500,
    )
    (gene_counts,) = counts.values()
    assert (gene_counts.tp, gene_counts.fp) == (1, 1)
    assert gene_counts.fn == len(gene.mentions) - 1 + 2


def test_rates_fall_from_the_head_to_the_embedding() -> None:
    names = [
        "backbone.embed_tokens.weight",
        "backbone.layers.0.mlp.up_proj.weight",
        "backbone.layers.1.mlp.up_proj.weight",
        "backbone.norm.weight",
        "head.weight",
    ]
    assert list(layer_rates(names, 0.5).values()) == [0.125, 0.25, 0.5, 1.0, 1.0]
    encoder = layer_rates(["backbone.encoder.layer.3.output.weight"], 0.5)
    assert list(encoder.values()) == [0.5]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"mixture": {"one": -1.0}}, "mixture.*0.0 or more|mixture.*0 or more"),
        ({"mixture": [1]}, "expected a table"),
        ({"without": "Gene"}, "a list of texts"),
        ({"leave_out": [1]}, "a list of texts"),
        ({"mixture": {"one": "much"}}, "expected a number for one"),
        ({"without_corpus": None}, "give both or none"),
        ({"best_by": "f_named"}, "dev_names = none leaves it out"),
        ({"asking": "politely"}, "one of joint, per_type"),
        ({"compile": True}, "no such setting"),
        ({"n_minutes": 3}, "exactly one"),
    ],
)
def test_settings_are_checked_as_a_whole(
    rows_path: Path, changes: dict[str, Any], fault: str
) -> None:
    values = {**tag_config(rows_path).to_dict(), **changes}
    with pytest.raises(VanerError, match=fault):
        config_from_dict(values, TagConfig)


def test_the_projects_settings_are_complete() -> None:
    path = ROOT / "project/configs/tagger.json"
    assert json.loads(path.read_text()) == read_config(path, TagConfig).to_dict()
