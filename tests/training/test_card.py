"""The card of a backbone: what the run knows, and what a person has to say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spacy_vaner.errors import VanerError
from spacy_vaner.training.__main__ import main
from spacy_vaner.training.card import write_card
from spacy_vaner.training.config import PretrainConfig
from spacy_vaner.training.pretraining import pretrain

SAID: dict[str, Any] = {
    "name": "tiny",
    "about": "A backbone for tests.",
    "intended_use": "None.",
    "limits": ["It knows nothing.", "Nor does it learn."],
    "sources": {"texts.txt": "the sample | CC0"},
    "commands": ["python -m spacy_vaner.training pretrain run.json run"],
    "licence": "MIT",
    "licence_reason": "All of it is ours.",
}


@pytest.fixture
def run_folder(make_config: Callable[..., PretrainConfig], tmp_path: Path) -> Path:
    pretrain(make_config(n_steps=4, dev_steps=2), tmp_path / "run")
    return tmp_path / "run"


def test_a_card_says_what_was_read_and_how(run_folder: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps(SAID), encoding="utf8")
    backbone = run_folder / "backbone"
    assert main(["card", str(run_folder), str(backbone), "--facts", str(facts)]) == 0
    page = (backbone / "README.md").read_text("utf8")
    known = json.loads((backbone / "card.json").read_text("utf8"))
    assert [n for n, *_ in known["curve"]] == [2 * 8 * 32, 4 * 8 * 32]
    assert "4 steps, 1,024 subwords" in page and "| 512 | " in page
    assert "| texts.txt | the sample / CC0 |" in page and "Nothing was left out" in page
    for text in (*SAID["limits"], *SAID["commands"], "**MIT.** All of it is ours.", "seed 0"):
        assert text in page
    # Where the text lay is nobody's business.
    assert str(tmp_path) not in page and str(tmp_path) not in json.dumps(known["settings"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"limits": "none"}, "'limits' has to be a list of texts"),
        ({"sources": {"other.txt": "x"}}, "'sources' says nothing of texts.txt"),
        ({"motto": "x"}, "'motto' is not known"),
    ],
)
def test_facts_that_are_not_complete_are_refused(
    run_folder: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({**SAID, **changes}), encoding="utf8")
    with pytest.raises(VanerError, match=f"VE196.*{reason}"):
        write_card(run_folder, tmp_path / "out", facts=facts)
    assert not (tmp_path / "out").exists()
