"""Ray: the bytes of the local engine, with a worker killed in the middle of the run."""

from __future__ import annotations

import gc
import json

import psutil
import pytest

from spacy_vaner.annotation.ray_engine import ray_engine
from spacy_vaner.annotation.run import annotate, local_engine
from spacy_vaner.errors import VanerError

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    # Ray's own, and what it meets in pandas and asyncio.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
HERE = {
    "num_cpus": 3,
    "include_dashboard": False,
    "log_to_driver": False,
    "object_store_memory": 100_000_000,
}
"""A small Ray."""


@pytest.fixture(autouse=True)
def ray_at_home(monkeypatch, tmp_path):
    """Ray writes a token into the home folder, and reports its use, unless told not to.

    It takes the address that others see, for 127.0.0.1 too, where it takes clusters for possible.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield
    # Ray leaves its processes' handles to the garbage collector: here, where their warnings are
    # ignored, and not in the middle of another test.
    gc.collect()


@pytest.fixture
def given(texts, tmp_path):
    """Two files with 60 and 10 documents."""
    folder = tmp_path / "given"
    folder.mkdir()
    for name, n in (("a", 6), ("b", 1)):
        lines = [json.dumps({"id": str(i), "text": text}) for i, text in enumerate(texts * n)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def actors():
    """The processes of this test's own Ray that annotate."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if "ray::" in (title := " ".join(child.cmdline())) and "_Actor" in title
    ]


def test_ray_writes_the_bytes_of_the_local_engine_though_an_actor_is_killed(
    given, settings, tmp_path
):
    killed = []

    def kill_one(progress):
        if not killed and progress.documents:
            assert len(running := actors()) == 2
            killed.append(running[0].pid)
            running[0].kill()

    totals = annotate(
        str(given),
        tmp_path / "ray",
        settings(),
        engine=ray_engine(2, init=HERE),
        on_progress=kill_one,
    )
    assert killed and totals.documents == 70
    annotate(str(given), tmp_path / "local", settings(), engine=local_engine(1))
    assert content(tmp_path / "ray") == content(tmp_path / "local")


def test_standard_input_is_refused(settings, tmp_path):
    with pytest.raises(VanerError, match="VE716"):
        annotate("-", tmp_path / "out", settings(), from_format="text", engine=ray_engine(1))


def test_a_ray_that_cannot_be_started_is_told(given, settings, tmp_path):
    engine = ray_engine(1, init={**HERE, "object_store_memory": 1})
    with pytest.raises(VanerError, match="VE715"):
        annotate(str(given), tmp_path / "out", settings(), engine=engine)
