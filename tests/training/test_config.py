"""The settings of a run: round trip, overrides, and every fault at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spacy_vaner.errors import VanerError
from spacy_vaner.training.config import PretrainConfig, config_from_dict, read_config


def test_settings_survive_json() -> None:
    config = PretrainConfig(data="ids", n_steps=5)
    assert config_from_dict(json.loads(json.dumps(config.to_dict())), PretrainConfig) == config


def test_overrides_reach_sections_and_are_json(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"data": "ids", "n_steps": 5}')
    overrides = ["optimizer.lr=0.5", "n_steps=null", "n_minutes=3", "data=other", "compile=true"]
    config = read_config(path, PretrainConfig, overrides)
    assert (config.optimizer.lr, config.n_steps, config.n_minutes) == (0.5, None, 3.0)
    assert (config.data, config.compile) == ("other", True)


def test_every_fault_is_listed_with_its_path() -> None:
    values = {
        "data": 5,
        "n_steps": 0,
        "seed": True,
        "colour": "red",
        "backbone": [],
        "objective": {"name": "clm", "masking_rate": float("nan"), "rate": 1},
    }
    with pytest.raises(VanerError, match="VE502") as caught:
        config_from_dict(values, PretrainConfig)
    for part in (
        "data = 5: expected text",
        "n_steps = 0: expected 1 or more",
        "seed = True: expected a whole number",
        "colour: there is no such setting",
        "backbone: expected a table",
        "objective.name = 'clm': expected one of mntp, mlm",
        "objective.masking_rate = nan",
        "objective.rate: there is no such setting",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, "exactly one"),
        ({"n_steps": 1, "n_minutes": 1}, "exactly one"),
        ({"n_steps": 1, "rows_per_step": 3, "rows_per_pass": 2}, "multiple of rows_per_pass"),
        ({"n_steps": 1, "row_subwords": 2048}, "more than backbone.max_positions"),
        ({"n_steps": 1, "objective": {"random_share": 0.6, "kept_share": 0.6}}, "more than 1"),
        ({"n_steps": 1, "backbone": {"n_heads": 3}}, "a multiple of twice n_heads"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], fault: str) -> None:
    with pytest.raises(VanerError, match=fault):
        config_from_dict({"data": "ids", **changes}, PretrainConfig)


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_files_that_are_no_settings(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content, encoding="latin1")
    with pytest.raises(VanerError, match="VE50[12].*run.json"):
        read_config(path, PretrainConfig)


def test_an_override_without_a_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("{}")
    with pytest.raises(VanerError, match="VE520"):
        read_config(path, PretrainConfig, ["n_steps"])
