"""A run that begins with a trained tagger, and one that is taught by trained taggers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spacy_vaner.backbone import tagger_from_files
from spacy_vaner.errors import VanerError
from spacy_vaner.training.asking import run_pass
from spacy_vaner.training.log import LOG_FILE, read_log
from spacy_vaner.training.tagging import Tagging, train_tagger
from tests.training.rows_support import tag_config
from tests.training.test_pretrain import stop_after

QUIET = {"dropout": 0.0, "noise": {"lexicon_dropout": 0.0}}


@pytest.fixture(scope="module", params=["joint", pytest.param("per_type", marks=pytest.mark.slow)])
def taught(
    request: pytest.FixtureRequest, rows_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A tagger that has learned something, and the settings of a run beside it."""
    output = tmp_path_factory.mktemp("teacher")
    config = tag_config(rows_path, asking=request.param, n_steps=30, dev_steps=30, seed=1)
    train_tagger(config, output / "run")
    same = {"asking": request.param, "backbone": str(output / "run/start")}
    return output / "run/tagger", {**same, **QUIET}


def length_of_gradient(task: Tagging) -> float:
    for one in task.passes(0):
        task.loss_sum(one).backward()
    return float(nn.utils.clip_grad_norm_(task.parameters.values(), float("inf")))


def test_a_run_begins_with_a_tagger(
    taught: tuple[Path, dict[str, Any]], rows_path: Path, tmp_path: Path
) -> None:
    teacher, same = taught
    task = Tagging(tag_config(rows_path, **same, tagger=str(teacher)), tmp_path)
    files = {path.name: path.read_bytes() for path in teacher.iterdir()}
    begun = task.tagger.saved_weights()
    for name, weights in (
        tagger_from_files(files, device="cpu", precision="fp32").saved_weights().items()
    ):
        assert torch.equal(weights, begun[name]), name
    assert task.dev_figures()["dev_f"] > 0.2
    assert (
        task.dev_figures()["dev_f"]
        > 2 * Tagging(tag_config(rows_path, **same), tmp_path).dev_figures()["dev_f"]
    )


def test_who_answers_like_the_teacher_has_nothing_to_learn_of_it(
    taught: tuple[Path, dict[str, Any]], rows_path: Path, tmp_path: Path
) -> None:
    teacher, same = taught
    same = {**same, "tagger": str(teacher)}
    plain = length_of_gradient(Tagging(tag_config(rows_path, **same), tmp_path))

    def taught_by(n: int, share: float) -> float:
        config = tag_config(rows_path, **same, teachers=[str(teacher)] * n, teacher_share=share)
        return length_of_gradient(Tagging(config, tmp_path))

    assert taught_by(1, 1.0) < 1e-4 * plain
    assert taught_by(2, 1.0) < 1e-4 * plain
    assert taught_by(1, 0.0) == pytest.approx(plain, rel=1e-5)
    assert taught_by(1, 0.5) == pytest.approx(plain / 2, rel=1e-3)


def test_the_mean_of_the_teachers_is_taught(
    taught: tuple[Path, dict[str, Any]], rows_path: Path, tmp_path: Path
) -> None:
    teacher, same = taught
    train_tagger(tag_config(rows_path, **same, n_steps=3, seed=2), tmp_path / "second")
    folders = [teacher, tmp_path / "second/tagger"]
    config = tag_config(rows_path, **same, teachers=[str(f) for f in folders], teacher_share=1.0)
    task = Tagging(config, tmp_path)
    one = task.passes(0)[0]
    positions = torch.from_numpy(one.positions)
    answers = []
    for folder in folders:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        tagger = tagger_from_files(files, device="cpu", precision="fp32").eval()
        with torch.no_grad():
            answers.append(run_pass(tagger, one).flatten(0, 1)[positions].softmax(-1))
    logits = run_pass(task.tagger, one).flatten(0, 1)[positions]
    expected = -((answers[0] + answers[1]) / 2 * logits.log_softmax(-1)).sum()
    assert task.loss_sum(one).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_pupil_comes_near_its_teacher_and_goes_on_to_the_bit(
    taught: tuple[Path, dict[str, Any]], rows_path: Path, tmp_path: Path
) -> None:
    teacher, same = taught
    config = tag_config(rows_path, **same, teachers=[str(teacher)], n_steps=8, dev_steps=8)
    train_tagger(config, tmp_path / "whole")
    parts = tmp_path / "parts"
    train_tagger(config, parts, on_step=stop_after(3))
    train_tagger(config, parts, resume=True)
    series = [
        [record.get("loss") for record in read_log(folder / LOG_FILE)]
        for folder in (tmp_path / "whole", parts)
    ]
    assert series[0] == series[1]
    losses = [loss for loss in series[0] if loss is not None]
    assert losses[-1] < losses[0]
    with pytest.raises(VanerError, match="VE51[14]"):
        train_tagger(tag_config(rows_path, **same, n_steps=8), parts, resume=True)


def test_who_cannot_teach_is_told(
    taught: tuple[Path, dict[str, Any]], rows_path: Path, tmp_path: Path
) -> None:
    teacher, same = taught
    other = "per_type" if same["asking"] == "joint" else "joint"
    for changes, message in (
        ({"teachers": [str(tmp_path / "none")]}, "VE514.*none"),
        ({"tagger": str(tmp_path / "none")}, "VE514.*none"),
        ({"teachers": [str(teacher)], "asking": other}, "VE514.*way of asking is not that"),
    ):
        with pytest.raises(VanerError, match=message):
            Tagging(tag_config(rows_path, **{**same, **changes}), tmp_path)
    shutil.copytree(teacher, tmp_path / "damaged")
    (tmp_path / "damaged/weights.safetensors").write_bytes(b"no")
    with pytest.raises(VanerError, match="VE514.*damaged.*VE133"):
        Tagging(tag_config(rows_path, **same, teachers=[str(tmp_path / "damaged")]), tmp_path)
