"""The commands, from texts to a backbone and its curve, and what they say of mistakes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import spacy
import torch
from safetensors.torch import load_file
from spacy.cli._util import app as spacy_app
from spacy.tokens import DocBin
from typer.main import get_command
from typer.testing import CliRunner

from spacy_vaner.backbone import HFBackbone, build_tagger
from spacy_vaner.cli import vaner_app
from spacy_vaner.errors import VanerError
from spacy_vaner.training.__main__ import _parser, main
from spacy_vaner.training.config import (
    BackboneShape,
    Objective,
    OptimizerSettings,
    PretrainConfig,
    Schedule,
    read_config,
)
from spacy_vaner.training.export import PARTS_FILE, export, join
from spacy_vaner.training.tag_config import TagConfig

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/pretraining.md"
CONFIGS = sorted((ROOT / "project/configs").glob("pretrain*.json"))
QUICK = ["--set", "n_steps=4", "--set", "rows_per_step=2", "--set", "rows_per_pass=2"]


def vaner(*arguments: object) -> str:
    result = CliRunner().invoke(spacy_app, ["vaner", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the project's tiny settings on its demo text, by spaCy's command line."""
    folder = tmp_path_factory.mktemp("commands")
    text = ROOT / "project/texts/demo.txt"
    lines = text.read_text("utf8").splitlines()
    doc = spacy.blank("en")(f"Title. {lines[3]}")
    DocBin(docs=[doc]).to_disk(folder / "a.test.spacy")
    # Without dev split, as some corpora are.
    vaner("tokenizer", text, folder / "tokenizer", "--vocab-size", 600)
    assert "runs of 1 files" in vaner("protected-runs", folder, folder / "runs")
    told = vaner(
        *("prepare", text, folder / "ids", "--tokenizer", folder / "tokenizer"),
        *("--protected", folder / "runs", "--repeat", "demo.txt=2", "--dev-share", "0.2"),
    )
    assert f"demo.txt: {2 * len(lines) - 2} documents" in told and "2 protected" in told
    config = ROOT / "project/configs/pretrain-tiny.json"
    options = ["--set", f"data={folder / 'ids'}", *QUICK]
    assert "--resume" in vaner("pretrain", config, folder / "run", *options, "--max-minutes", 0)
    told = vaner("pretrain", config, folder / "run", *options, "--resume")
    assert str(folder / "run/backbone") in told.replace("\n", "")
    return folder / "run"


def test_the_result_is_a_backbone_of_the_tagger(run_folder: Path) -> None:
    assert build_tagger(HFBackbone(str(run_folder / "backbone")), None).hidden_size == 64


def test_the_curve_is_drawn(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed, as on Python 3.10")
    assert main(["plot", str(run_folder), str(tmp_path / "curve.png")]) == 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_exported_parts_are_small_and_join_into_half_the_size(
    run_folder: Path, tmp_path: Path
) -> None:
    source, output = run_folder / "backbone", tmp_path / "out"
    assert main(["export", str(source), str(output), "--part-mb", "0.05"]) == 0
    sizes = [path.stat().st_size for path in output.glob("model.safetensors.*")]
    assert len(sizes) > 3 and max(sizes) == 50_000
    assert main(["join", str(output)]) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    ]
    before, after = (load_file(path / "model.safetensors") for path in (source, output))
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor.bfloat16()), name
    assert json.loads((output / "config.json").read_text())["torch_dtype"] == "bfloat16"
    build_tagger(HFBackbone(str(output)), None)
    export(source, output, dtype="float32")  # in place of an earlier one
    assert torch.equal(
        load_file(output / "model.safetensors")["norm.weight"], before["norm.weight"]
    )


@pytest.mark.parametrize("damage", ["missing", "changed", "list"])
def test_damaged_parts_are_not_joined(run_folder: Path, tmp_path: Path, damage: str) -> None:
    output = tmp_path / "out"
    export(run_folder / "backbone", output, part_bytes=50_000)
    part = output / "model.safetensors.001"
    if damage == "missing":
        part.unlink()
    elif damage == "changed":
        part.write_bytes(part.read_bytes()[:-1] + b"x")
    else:
        (output / PARTS_FILE).write_text("{")
    with pytest.raises(VanerError, match="VE515"):
        join(output)
    assert (output / "model.safetensors.000").exists()
    assert not list(output.glob("*.part")) and not (output / "model.safetensors").exists()


def test_an_export_does_not_replace_anything_else(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "work").touch()
    with pytest.raises(VanerError, match="VE519"):
        export(run_folder / "backbone", tmp_path)
    with pytest.raises(VanerError, match="VE514"):
        export(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "none.txt", "out", "--tokenizer", "t"], "VE506"),
        (["prepare", "none.txt", "out", "--tokenizer", "t", "--repeat", "x"], "VE520"),
        (["pretrain", "none.json", "out"], "VE501"),
        (["pretrain", "{config}", "{run}"], "VE509"),
        (["pretrain", "{config}", "new", "--set", "colour=1"], "VE502"),
        (["pretrain", "{config}", "new", "--init-weights", "none"], "VE514"),
        (["join", "none"], "VE515"),
        (["plot", "none", "x.png"], "VE507"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed, as on Python 3.10")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_folder.parent / "ids", tmp_path / "pretraining/demo/ids")
    values = {"config": CONFIGS[-1].with_name("pretrain-tiny.json"), "run": run_folder}
    assert main([argument.format(**values) for argument in arguments]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(message) and "Traceback" not in errors
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_projects_settings_are_complete(path: Path) -> None:
    assert json.loads(path.read_text()) == read_config(path, PretrainConfig).to_dict()


def commands_of(page: Path) -> Iterator[list[str]]:
    for block in re.findall(r"```bash\n(.*?)```", page.read_text("utf8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("python -m spacy"):
                yield shlex.split(line, comments=True)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (PAGE, {"vaner", "prepare", "pretrain", "export", "join", "plot"}),
        (PAGE.with_name("tagger.md"), {"vaner", "tag"}),
    ],
)
def test_the_pages_commands_exist_with_their_options(page: Path, expected: set[str]) -> None:
    known = get_command(vaner_app).commands  # type: ignore[attr-defined]
    seen = set()
    for words in commands_of(page):
        if words[2] == "spacy_vaner.training":
            _parser().parse_args(words[3:])
        elif words[3] == "vaner":
            command = known[words[4]]
            options = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words[5:] if word.startswith("--")} <= options, words
        seen.add(words[3])
    assert expected <= seen


def test_the_pages_explain_every_setting() -> None:
    page = PAGE.read_text("utf8")
    for section in (PretrainConfig, BackboneShape, Objective, OptimizerSettings, Schedule):
        assert not {e.name for e in fields(section) if f"`{e.name}`" not in page}
    page += PAGE.with_name("tagger.md").read_text("utf8")
    assert not {entry.name for entry in fields(TagConfig) if f"`{entry.name}`" not in page}
