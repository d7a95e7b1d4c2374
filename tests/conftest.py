"""What holds for every test: no network, one thread, fixed seeds, opt-in for the expensive ones."""

from __future__ import annotations

import os
import random
import runpy
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_NO_NETWORK = _TESTS / "support" / "no_network"

# Before anything is imported that reads them; child processes inherit all of it.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(_NO_NETWORK), os.environ.get("PYTHONPATH")])
)
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
# Two threads that compete with another process can be slower than one; several test workers do.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
# By path: a sitecustomize of the system may have taken the name in this process.
runpy.run_path(str(_NO_NETWORK / "sitecustomize.py"))

import hypothesis  # noqa: E402
import numpy  # noqa: E402
import torch  # noqa: E402

# The same examples each time: no change is refused for what it did not touch. To search for new
# ones: pytest --hypothesis-profile=default
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

_OPT_IN = {
    "slow": "takes long",
    "gpu": "needs a CUDA device",
    "external": "needs a corpus or a model that is not in the repository",
    "browser": "starts a headless Chromium",
    "ray": "starts a Ray of its own, and needs the extra [ray]",
}
_WITH_A_BACKBONE = {"backbone", "component", "training", "test_model.py", "test_package.py"}
"""What is also tested with the second generation of transformers, as marked transformers5."""


def pytest_addoption(parser: pytest.Parser) -> None:
    for mark, reason in _OPT_IN.items():
        parser.addoption(
            f"--{mark}", action="store_true", help=f"run tests marked {mark}: {reason}"
        )


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(_TESTS).parts[0] in _WITH_A_BACKBONE:
            item.add_marker("transformers5")
    for mark, reason in _OPT_IN.items():
        if not config.getoption(f"--{mark}"):
            skip = pytest.mark.skip(reason=f"{reason}: run with --{mark}")
            for item in items:
                if mark in item.keywords:
                    item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline that knows a few words by heart, MENTIONS of tiny_tagger (about 10 s)."""
    import spacy

    from tests.support.tiny_tagger import save_taught

    return save_taught(spacy.blank("en"), tmp_path_factory.mktemp("trained") / "pipeline")
