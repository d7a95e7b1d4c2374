"""Ray: the bytes of the local engine, with a worker killed in the middle of the run."""

from __future__ import annotations

import gc
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from spacy_vaner.annotation.ray_engine import ray_engine
from spacy_vaner.annotation.run import annotate, local_engine
from spacy_vaner.cli import vaner_app
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


def test_what_an_actor_complains_of_is_told_in_a_sentence(given, settings, tmp_path):
    nowhere = replace(settings(), model=str(tmp_path / "nowhere"))
    with pytest.raises(VanerError, match="^VE709: the pipeline .*nowhere cannot be loaded") as told:
        annotate(str(given), tmp_path / "out", nowhere, engine=ray_engine(1, init=HERE))
    assert "\n" not in str(told.value)


PAGE = (Path(__file__).parents[2] / "docs/cluster.md").read_text("utf8")


@pytest.fixture
def cluster(tmp_path):
    """A head of its own on loopback, as `ray start` makes it, that others may join. Its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = [
        *("--head", "--block", "--node-ip-address=127.0.0.1", f"--port={address.split(':')[1]}"),
        *("--num-cpus=3", "--include-dashboard=false", "--object-store-memory=100000000"),
        f"--temp-dir={tempfile.mkdtemp(prefix='ray')}",  # a path of pytest's is too long for it
    ]
    script = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
    head = subprocess.Popen(
        [sys.executable, "-c", script, "start", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = []
    for line in head.stdout:
        said.append(line)
        if "--block" in line:
            break
    else:
        pytest.fail("".join(said))
    yield address
    os.killpg(head.pid, signal.SIGTERM)
    head.communicate(timeout=120)
    shutil.rmtree(options[-1].removeprefix("--temp-dir="), ignore_errors=True)


def test_the_command_of_the_page_runs_on_a_cluster_that_is_there(
    cluster, given, pipeline, tmp_path, monkeypatch
):
    # What --address auto looks at first.
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    (command,) = [
        shlex.split(line) for line in re.findall("^python.*vaner annotate.*", PAGE, re.MULTILINE)
    ]
    places = {"/shared/pubmed": given, "/shared/trained": pipeline, "64": 1}
    places["/shared/pubmed-results"] = tmp_path / "out"
    words = [str(places.get(word, word)) for word in command[5:]]
    done = CliRunner().invoke(vaner_app, ["annotate", *words])
    assert done.exit_code == 0 and "70 documents" in done.output, done.output
    assert (tmp_path / "out/annotated/a.00000.parquet").is_file()


def test_the_cluster_file_of_the_page_is_one():
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = prepare_config(yaml.safe_load(block))
    validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"]) == 2
