"""Runs: they learn, end where they should, and go on after anything as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from spacy_vaner.backbone import HFBackbone, build_tagger
from spacy_vaner.errors import VanerError, VanerWarning
from spacy_vaner.training.checkpoints import STATE_FILE, Checkpoints
from spacy_vaner.training.config import PretrainConfig, RunSettings
from spacy_vaner.training.log import LOG_FILE, Log, read_log
from spacy_vaner.training.loop import CHECKPOINTS_FOLDER, Outcome
from spacy_vaner.training.pretraining import Pretraining, pretrain
from spacy_vaner.training.processes import Processes

MakeConfig = Callable[..., PretrainConfig]

# What a run without spaCy must not load; a name set to None cannot be imported.
WITHOUT = ["spacy", "thinc", "srsly", "typer", "wasabi", "peft", "matplotlib"]
START = (
    f"import runpy, sys; sys.modules.update(dict.fromkeys({WITHOUT}))\n"
    "runpy.run_module('spacy_vaner.training', run_name='__main__')"
)


def losses(output: Path) -> list[tuple[int, str, float]]:
    """(step, "loss" or "dev_loss", value) of every line of the log."""
    return [
        (record["step"], key, record[key])
        for record in read_log(output / LOG_FILE)
        for key in ("loss", "dev_loss")
        if key in record
    ]


def started(
    config: RunSettings,
    folder: Path,
    *options: str,
    command: str = "pretrain",
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """A run in a process of its own."""
    path = folder / "run.json"
    path.write_text(json.dumps(config.to_dict()))
    words = [sys.executable, "-c", START, command, str(path), str(folder / "run"), *options]
    return subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )


def wait_for_steps(process: subprocess.Popen[str], output: Path, n_steps: int) -> None:
    """Until so many steps are in a checkpoint."""
    checkpoints = Checkpoints(output / CHECKPOINTS_FOLDER)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        last = checkpoints.last()
        if last is not None and int(last.name.removeprefix("step-")) >= n_steps:
            return
        time.sleep(0.002)
    process.kill()
    pytest.fail(f"no checkpoint after {n_steps} steps: {process.communicate()}")


def stop_after(n_steps: int, number: int = signal.SIGTERM) -> Callable[[dict[str, Any]], None]:
    """A look at the log that sends a signal when the last of so many steps is in it."""

    def look(record: dict[str, Any]) -> None:
        if record["step"] == n_steps - 1 and "loss" in record:
            signal.raise_signal(number)

    return look


@pytest.fixture
def whole(make_config: MakeConfig, tmp_path: Path) -> Path:
    """A run that nothing interrupted."""
    pretrain(make_config(), tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("objective", ["mlm", "mntp", "rtd"])
def test_a_run_learns_and_leaves_a_backbone(
    make_config: MakeConfig, tmp_path: Path, name: str, objective: str
) -> None:
    config = make_config(optimizer={"name": name}, objective={"name": objective}, n_steps=60)
    lines: list[dict[str, Any]] = []
    outcome = pretrain(config, tmp_path / "run", on_step=lines.append)
    assert (outcome.reason, outcome.step) == ("finished", 60)
    assert lines == read_log(tmp_path / "run" / LOG_FILE)
    steps = [line for line in lines if "loss" in line]
    dev = [line for line in lines if "dev_loss" in line]
    assert [line["step"] for line in steps] == list(range(60))
    assert [line["step"] for line in dev] == [9, 19, 29, 39, 49, 59]
    # Whether a subword was drawn is told in 60 steps hardly better than by how often that is.
    assert dev[-1]["dev_loss"] < dev[0]["dev_loss"] - (0 if objective == "rtd" else 0.2)
    assert steps[-1]["n_subwords"] == 60 * 8 * 32
    assert {line["causal"] for line in steps} == {True, False}
    assert outcome.result is not None
    tagger = build_tagger(HFBackbone(str(outcome.result)), None)
    assert tagger.hidden_size == 32 and tagger.reference is None
    checkpoints = Checkpoints(tmp_path / "run" / CHECKPOINTS_FOLDER)
    assert checkpoints.last() == outcome.checkpoint


def test_the_first_loss_is_that_of_guessing(whole: Path) -> None:
    n_subwords = 600
    first = losses(whole)[0][2]
    assert first == pytest.approx(float(torch.tensor(n_subwords).log()), abs=0.3)


def test_a_killed_and_a_stopped_run_go_on_to_the_bit(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    n_steps = 60
    pretrain(make_config(n_steps=n_steps), tmp_path / "whole")
    # As fast as can be, so that the log runs ahead of the last checkpoint.
    config = make_config(n_steps=n_steps, checkpoint_minutes=0.0005)
    output = tmp_path / "run"
    at = random.SystemRandom().randrange(1, 25)
    process = started(config, tmp_path)
    wait_for_steps(process, output, at)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    process = started(config, tmp_path, "--resume")
    wait_for_steps(process, output, at + 10)
    process.send_signal(signal.SIGTERM)
    told, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "--resume" in told
    assert pretrain(config, output, resume=True).reason == "finished"
    assert losses(output) == losses(tmp_path / "whole"), f"killed after step {at}"
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = (
            (folder / CHECKPOINTS_FOLDER / f"step-{n_steps:08d}" / name).read_bytes()
            for folder in (output, tmp_path / "whole")
        )
        assert first == second, name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_after_its_step_with_a_checkpoint(
    make_config: MakeConfig, tmp_path: Path, number: int
) -> None:
    before = signal.getsignal(number)
    outcome = pretrain(make_config(), tmp_path / "run", on_step=stop_after(10, number))
    assert (outcome.reason, outcome.signal, outcome.step) == ("signal", number, 10)
    assert json.loads((outcome.checkpoint / STATE_FILE).read_text())["step"] == 10
    assert signal.getsignal(number) == before


def test_a_time_limit_stops_a_run_and_it_goes_on(
    make_config: MakeConfig, whole: Path, tmp_path: Path
) -> None:
    def take_long(record: dict[str, Any]) -> None:
        if record["step"] == 9:
            time.sleep(0.1)

    output = tmp_path / "run"
    starts = 0
    reason = ""
    while reason != "finished":
        starts += 1
        config = make_config(max_minutes=0.0015)
        outcome = pretrain(config, output, resume=True, on_step=take_long)
        assert (outcome.result is None) == (outcome.reason == "time")
        reason = outcome.reason
    assert starts > 1
    assert losses(output) == losses(whole)


def test_a_run_by_minutes_ends_with_the_schedule(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(n_steps=None, n_minutes=0.02, schedule={"name": "linear"}, dev_steps=1000)
    started_at = time.monotonic()
    outcome = pretrain(config, tmp_path / "run")
    assert outcome.reason == "finished" and 1.2 <= time.monotonic() - started_at < 20
    rates = [line["lr"] for line in read_log(tmp_path / "run" / LOG_FILE) if "lr" in line]
    assert rates[-1] < 0.1 * max(rates)


def test_the_last_two_checkpoints_are_kept(make_config: MakeConfig, tmp_path: Path) -> None:
    pretrain(make_config(checkpoint_minutes=0, n_steps=5), tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / CHECKPOINTS_FOLDER).iterdir())
    assert names == ["step-00000004", "step-00000005"]


def test_a_damaged_checkpoint_is_passed_over(
    make_config: MakeConfig, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    pretrain(make_config(checkpoint_minutes=0), output, on_step=stop_after(7))
    checkpoints = Checkpoints(output / CHECKPOINTS_FOLDER)
    weights = checkpoints.paths()[-1] / "optimizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.warns(VanerWarning, match="VW501"):
        pretrain(make_config(), output, resume=True)
    assert losses(output) == losses(whole)
    for path in checkpoints.paths():
        (path / "state.json").unlink()
    with (
        pytest.warns(VanerWarning, match="VW501"),
        pytest.raises(VanerError, match="VE514.*step-00000030"),
    ):
        pretrain(make_config(), output, resume=True)


def test_a_full_disk_leaves_the_last_checkpoint(
    make_config: MakeConfig, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    pretrain(make_config(max_minutes=0), output)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        with pytest.raises(VanerError, match="VE512.*step-00000000"):
            pretrain(make_config(), output, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in (output / CHECKPOINTS_FOLDER).iterdir()] == ["step-00000000"]
    pretrain(make_config(), output, resume=True)
    assert losses(output) == losses(whole)


def test_a_run_is_not_overwritten_and_not_mixed_with_another(
    make_config: MakeConfig, prepared_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    pretrain(make_config(max_minutes=0), output)
    with pytest.raises(VanerError, match="VE509"):
        pretrain(make_config(), output)
    for changes in (
        {"seed": 1},
        {"objective": {"masking_rate": 0.5}},
        {"backbone": {"n_layers": 1}},
        {"optimizer": {"name": "adamw"}},
    ):
        with pytest.raises(VanerError, match="VE51[14]"):
            pretrain(make_config(**changes), output, resume=True)
    other = tmp_path / "ids"
    shutil.copytree(prepared_path, other)
    pretrain(make_config(data=str(other), n_steps=1, max_minutes=0), tmp_path / "moved")
    with pytest.warns(VanerWarning, match="VW502.*n_steps was 30, is 2"):
        pretrain(make_config(data=str(other), n_steps=2), output, resume=True)


def test_a_run_goes_on_where_a_newer_version_knows_more_settings(
    make_config: MakeConfig, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    pretrain(make_config(), output, on_step=stop_after(10))
    last = Checkpoints(output / CHECKPOINTS_FOLDER).last()
    assert last is not None
    state = json.loads((last / STATE_FILE).read_text())
    del state["config"]["objective"]["name_share"]
    (last / STATE_FILE).write_text(json.dumps(state))
    pretrain(make_config(), output, resume=True)
    assert losses(output) == losses(whole)


def test_hiding_names_is_part_of_a_runs_identity(make_config: MakeConfig, tmp_path: Path) -> None:
    names = tmp_path / "names.tsv"
    objective = {"causal_share": 0, "names": str(names), "name_share": 0.5}
    names.write_text("name\ttype\tid\npatients\tDisease\t1\n", encoding="utf8")
    config = make_config(objective=objective, n_steps=2)
    assert pretrain(config, tmp_path / "run").reason == "finished"
    names.write_text("name\ttype\tid\nmice\tSpecies\t1\n", encoding="utf8")
    with pytest.raises(VanerError, match="VE511.*data is another one"):
        pretrain(config, tmp_path / "run", resume=True)


def test_a_warm_restart_takes_the_weights_alone(
    make_config: MakeConfig, whole: Path, tmp_path: Path
) -> None:
    lines: list[dict[str, Any]] = []
    pretrain(
        make_config(n_steps=1, optimizer={"name": "adamw"}),
        tmp_path / "run",
        init_weights=whole / "backbone",
        on_step=lines.append,
    )
    assert lines[0]["step"] == 0
    assert lines[0]["loss"] < losses(whole)[0][2] - 0.3


def test_a_loss_that_is_no_number_is_not_saved(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    pretrain(make_config(max_minutes=0), output)
    loss_sum = Pretraining.loss_sum
    monkeypatch.setattr(Pretraining, "loss_sum", lambda *a: loss_sum(*a) * float("nan"))
    with pytest.raises(VanerError, match="VE513.*step 0.*step-00000000"):
        pretrain(make_config(checkpoint_minutes=0), output, resume=True)
    assert [path.name for path in (output / CHECKPOINTS_FOLDER).iterdir()] == ["step-00000000"]


def test_accumulated_passes_give_the_step_of_one_pass(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    # Causal steps predict the same places however they are cut.
    objective = {"causal_share": 1.0}
    series = []
    for rows in (2, 8):
        output = tmp_path / str(rows)
        pretrain(make_config(objective=objective, rows_per_pass=rows, n_steps=5), output)
        series.append([value for *_, value in losses(output)])
    assert series[0] == pytest.approx(series[1], abs=2e-3)


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_bf16_learns_too_and_the_share_of_the_device_is_logged(
    make_config: MakeConfig, whole: Path, tmp_path: Path, attn_implementation: str
) -> None:
    lines: list[dict[str, Any]] = []
    config = make_config(precision="bf16", peak_tflops=0.5, attn_implementation=attn_implementation)
    pretrain(config, tmp_path / "run", on_step=lines.append)
    assert losses(tmp_path / "run")[-1][2] == pytest.approx(losses(whole)[-1][2], abs=0.1)
    assert 0 < lines[0]["flops_share"] < 1
    weights = Checkpoints(tmp_path / "run" / CHECKPOINTS_FOLDER).last()
    assert weights is not None
    config_json = json.loads((weights / "config.json").read_text())
    assert config_json["torch_dtype"] == "float32"


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(
    make_config: MakeConfig, whole: Path, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        started(
            make_config(), tmp_path, env={**together, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]
    for process in running:
        told, errors = process.communicate(timeout=300)
        assert process.returncode == 0, told + errors
    found, expected = losses(tmp_path / "run"), losses(whole)
    assert [line[:2] for line in found] == [line[:2] for line in expected]
    assert [line[2] for line in found] == pytest.approx([line[2] for line in expected], abs=2e-3)
    assert (tmp_path / "run/backbone/model.safetensors").is_file()


def test_processes_have_to_share_a_step_and_no_gpu(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(VanerError, match="VE533.*cuda:1"):
        pretrain(make_config(device="cuda:1"), tmp_path / "run")
    monkeypatch.setattr(Processes, "joined", lambda device: Processes(1, 3))
    with pytest.raises(VanerError, match="VE534: 2 passes.*3 processes"):
        pretrain(make_config(), tmp_path / "run")


@pytest.mark.gpu
def test_a_compiled_run_on_cuda_goes_on_within_rounding(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    series = []
    for compile in (False, True):
        config = make_config(device="cuda", precision="bf16", compile=compile)
        output = tmp_path / str(compile)
        pretrain(config, output, on_step=stop_after(10))
        pretrain(config, output, resume=True)
        series.append([value for *_, value in losses(output)])
    assert series[0] == pytest.approx(series[1], rel=0.02)


def test_a_finished_run_that_is_started_again_stays_as_it_is(
    make_config: MakeConfig, whole: Path
) -> None:
    before = losses(whole)
    outcome = pretrain(make_config(), whole, resume=True)
    assert isinstance(outcome, Outcome) and outcome.reason == "finished"
    assert losses(whole) == before


def test_a_log_is_cut_to_the_checkpoint_also_where_its_last_line_is_half(tmp_path: Path) -> None:
    log = Log(tmp_path / LOG_FILE)
    log.append([{"step": step} for step in range(5)])
    with (tmp_path / LOG_FILE).open("a") as file:
        file.write('{"step": 5, "lo')
    log.cut_to(3)
    assert [record["step"] for record in read_log(tmp_path / LOG_FILE)] == [0, 1, 2]
