"""The probe of backbones and the queue of a budget: runs that go on, and their table."""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spacy_vaner.training.config import PretrainConfig, config_from_dict
from tests.training.rows_support import write_corpora

PROJECT = Path(__file__).parents[2] / "project"
WAITS = (
    "import signal,time; signal.signal(15, lambda *a: exit(0)); print(1, flush=1); time.sleep(99)"
)


def script(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(PROJECT / f"scripts/{name}.py"), run_name=name))


def budget(path: Path, *runs: tuple[str, str, float]) -> str:
    lines = [f"| {run} | `{command}` | why | {minutes} |" for run, command, minutes in runs]
    head = "| run | command | what | minutes |\n| --- | --- | --- | --- |\n"
    path.write_text("# Budget\n\n| other | table |\n| --- | --- |\n| a | b |\n\n" + head, "utf8")
    with path.open("a", encoding="utf8") as file:
        file.write("\n".join(lines) + "\n")
    return str(path)


def state(folder: Path, run: str) -> str:
    return str(json.loads((folder / f"{run}.json").read_text("utf8"))["state"])


def test_a_queue_does_each_run_once_and_goes_on_behind_failures(tmp_path: Path) -> None:
    queue, folder, log = script("run_queue"), tmp_path / "queue", tmp_path / "log"
    writes = f"python -c \"open('{log}', 'a').write('x')\""
    page = budget(
        tmp_path / "budget.md",
        ("first", writes, 1),
        ("bad", 'python -c "raise SystemExit(3)"', 1),
        ("last", writes, 1),
    )
    assert queue.main([page, str(folder)]) == 1
    assert [state(folder, run) for run in ("first", "bad", "last")] == [
        *("done", "failed with status 3", "done")
    ]
    assert queue.main([page, str(folder), "--runs", "first,last"]) == 0
    assert log.read_text() == "xx"
    assert queue.main([page, str(folder), "--runs", "other"]) == 1


def test_a_run_is_stopped_when_its_minutes_are_used_up_and_not_started_again(
    tmp_path: Path,
) -> None:
    queue, folder = script("run_queue"), tmp_path / "queue"
    page = budget(tmp_path / "budget.md", ("long", f'python -c "{WAITS}"', 0.01))
    started = time.monotonic()
    assert queue.main([page, str(folder)]) == 1
    assert time.monotonic() - started < 90
    assert state(folder, "long") == "over budget"
    size = (folder / "long.log").stat().st_size
    assert queue.main([page, str(folder)]) == 1
    assert (folder / "long.log").stat().st_size == size


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([("a", "python x", 1), ("a", "python y", 1)], "line 10: a is there twice"),
        ([("a", "python 'x", 1)], "line 9: No closing quotation"),
        ([("a", "python x", "soon")], "line 9: could not convert"),
    ],
)
def test_a_budget_that_cannot_be_read_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], runs: Any, reason: str
) -> None:
    page = budget(tmp_path / "budget.md", *runs)
    assert script("run_queue").main([page, str(tmp_path / "queue")]) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "queue").exists()


@pytest.mark.parametrize("name", ["probe", "objectives", "two-by-two", "probe-tiny"])
def test_the_settings_of_shipped_probes_are_right(name: str, tmp_path: Path) -> None:
    probe = arguments(script("probe"), f"{name}.json", tmp_path)
    runs = probe.runs()
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        if run.kind == "pretrained":
            probe.pretrain_config(run)
        elif run.kind == "tuned":
            probe.tag_config(run, tmp_path)
        else:
            assert (PROJECT / "configs" / probe.settings["rivals"][run.system]["config"]).is_file()


def arguments(module: SimpleNamespace, settings: str, output: Path) -> Any:
    options = SimpleNamespace(
        settings=PROJECT / "configs" / settings,
        **{"output": output, "converted": output, "view": "text", "tokenizer": output},
        **{"data": output, "vectors": output, "spacy_vectors": None, "backbone": []},
    )
    return module.Probe(options)


def test_the_table_gives_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    module = script("probe")
    probe = arguments(module, "two-by-two.json", tmp_path)
    probe.settings["corpora"]["JNLPBA"] = 300
    (tmp_path / "results").mkdir()
    found: list[dict[str, Any]] = [
        {"kind": "pretrained", "system": "causal", "n_subwords": 2_500_000},
        *(
            {"kind": "tuned", "system": "causal", "tuning": "unmasked", "dev_f": f, **of}
            for f, of in (
                (0.7, {"corpus": "BC5CDR", "seed": 0}),
                (0.8, {"corpus": "BC5CDR", "seed": 1}),
                (0.6, {"corpus": "JNLPBA", "seed": 0}),
            )
        ),
    ]
    for number, one in enumerate(found):
        (tmp_path / f"results/{number}.json").write_text(json.dumps(one), "utf8")
    lines = module.table(probe).splitlines()
    assert "| causal | unmasked | 2.5 million | 75.0 ± 7.1 (2 seeds) | 60.0 (1 seed) |" in lines
    assert "| random | causal | – | – | – |" in lines


@pytest.mark.slow
def test_a_probe_runs_from_its_plan_to_its_table(
    prepared_path: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    converted = write_corpora(tmp_path / "converted")
    for split in ("train", "dev"):
        (converted / f"two.{split}.spacy").rename(converted / f"sample.text.{split}.spacy")
    words = [str(PROJECT / "configs/probe-tiny.json"), str(tmp_path / "out")]
    words += ["--converted", str(converted), "--tokenizer", str(tokenizer_path)]
    words += ["--data", str(prepared_path)]
    probe, queue = script("probe"), script("run_queue")
    assert probe.main(["plan", *words, "--trial-steps", "2"]) == 0
    page = tmp_path / "out/plan.md"
    entries = list(queue.read_budget(page))
    assert [entry.run for entry in entries][:2] == ["pretrained.mlm", "pretrained.causal"]
    assert len(entries) == 9 and all(entry.minutes > 0 for entry in entries)
    # In this process: nine more would load spaCy and torch anew. The first goes through the queue.
    assert entries[0].command[0] == "python" and sys.executable
    assert queue.main([str(page), str(tmp_path / "queue"), "--runs", "pretrained.mlm"]) == 0
    assert len(list((tmp_path / "out/results").iterdir())) == 1
    for entry in entries:
        assert probe.main(entry.command[2:]) == 0
    results = [json.loads(path.read_text()) for path in (tmp_path / "out/results").iterdir()]
    assert {one["kind"] for one in results} == {"pretrained", "tuned", "rival"}
    tuned = [one for one in results if one["kind"] == "tuned"]
    assert {one["settings"]["causal"] for one in tuned} == {True, False}
    causal = next(one for one in results if one["system"] == "causal" and one["kind"] != "tuned")
    assert config_from_dict(causal["settings"], PretrainConfig).objective.causal_share == 1
    assert probe.main(["table", *words]) == 0
    assert "| spaCy-CNN | – | – |" in (tmp_path / "out/table.md").read_text("utf8")
