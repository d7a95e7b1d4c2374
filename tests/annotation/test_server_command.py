"""`serve` as a process: how it starts, what it says, how it ends; and what a fuzzer finds."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spacy_vaner import shipped
from spacy_vaner.cli import vaner_app

pytest.importorskip("fastapi", reason="fastapi is in the extra [serve]")
httpx = pytest.importorskip("httpx", reason="httpx is in requirements-dev.txt")


@contextmanager
def started(pipeline: Path | None, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, when it takes requests, and its address. None: with the package's tagger."""
    command = [sys.executable, "-m", "spacy", "vaner", "serve", "--port", "0", *options]
    if pipeline is not None:
        command += ["--model", str(pipeline)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf8",
        env={**os.environ, "PYTHONIOENCODING": "utf8"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        name = shipped.DEFAULT_NAME if pipeline is None else "en_pipeline-0.0.0"
        said = re.fullmatch(rf"Serving {name}/[0-9a-f]{{12}} at (\S+) \(.*\)\n", line)
        assert said, line + process.stdout.read()
        yield process, said[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


@pytest.fixture(scope="module")
def address(pipeline):
    """The address of a server that is a process of its own."""
    with started(pipeline) as (_, address):
        yield address


@pytest.mark.slow
def test_requests_of_the_documentation_are_answered(address):
    text = PAGE.read_text("utf8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    requests = re.findall(r"^curl .*$", text, re.M)
    here = [line.replace("http://127.0.0.1:8000", address) for line in [program, *requests]]
    python = [sys.executable, "-c", here[0].replace("Aspirin", "of zinc")]
    commands = [python]
    if shutil.which("curl"):
        commands += [["curl", "-s", *shlex.split(line)[1:]] for line in here[1:]]
    said = [
        subprocess.run(one, capture_output=True, text=True, timeout=60, check=True).stdout
        for one in commands
    ]
    assert said[0].startswith("1 3 7 Chemical zinc ")
    assert all("Aspirin eases pain." in one and "VE7" not in one for one in said[1:])
    assert len(requests) == 2


@pytest.mark.slow
def test_it_serves_says_nothing_of_texts_and_ends_when_it_is_told(pipeline):
    with started(pipeline, "--max-documents", "1") as (process, address):
        assert address.startswith("http://127.0.0.1:")
        text = "secretly zinc"
        with httpx.Client(base_url=address, timeout=60) as client:
            answer = client.post("/annotate", json={"text": text})
            assert answer.json()["documents"][0]["ents"][0][3] == "zinc"
            assert answer.json()["model"] == client.get("/health").json()["model"]
            client.post("/annotate?types=secretly", content=b"secretly {", headers={})
            refused = client.post("/annotate", json={"documents": [{"text": text}] * 2})
            assert refused.status_code == 422 and "--max-documents" in refused.json()["error"]
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as line:
            line.sendall(b"secretly not HTTP\r\n\r\n")
            assert line.recv(100).startswith(b"HTTP/1.1 400")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "Stopped" in said
    assert "secretly" not in said


@pytest.mark.slow
@pytest.mark.skipif(
    not (shipped.FOLDER / shipped.DEFAULT_NAME).is_dir(), reason="the package carries no tagger"
)
def test_without_a_model_the_tagger_of_the_package_is_served():
    with started(None) as (process, address):
        with httpx.Client(base_url=address, timeout=60) as client:
            known = client.get("/types").json()
            assert known["takes_types"] and "Gene" in known["types"]
            assert set(known["types"]) <= set(known["known_types"])
            document = {"text": "mutations in BRCA1"}
            answer = client.post("/annotate?types=Gene", json=document).json()
            assert answer["documents"][0]["ents"] == [[13, 18, "Gene", "BRCA1"]]
            assert answer["model"] == known["model"] == client.get("/health").json()["model"]
            client.post("/annotate?types=secretly", json=document)
        process.terminate()
        assert "secretly" not in process.communicate(timeout=60)[0]


def test_a_package_without_a_tagger_asks_for_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    done = run("--port", 0)
    assert done.exit_code == 1 and "VE719" in done.output


def run(*arguments):
    return CliRunner().invoke(vaner_app, ["serve", *map(str, arguments)])


def test_a_port_that_is_taken_is_told(pipeline):
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = run("--model", pipeline, "--port", other.getsockname()[1])
    assert done.exit_code == 1 and "VE750" in done.output


def test_a_pipeline_that_is_not_there_is_told(tmp_path):
    done = run("--model", tmp_path / "nowhere", "--port", 0)
    assert done.exit_code == 1 and "VE709" in done.output


def test_the_extra_is_named_where_it_is_missing(pipeline, monkeypatch):
    monkeypatch.setattr("spacy_vaner.cli.serve.find_spec", lambda name: None)
    done = run("--model", pipeline)
    assert done.exit_code == 1 and "spacy_vaner[serve]" in done.output


@pytest.mark.slow
def test_the_load_test_of_the_page_runs(pipeline, tmp_path):
    (command,) = re.findall(
        r"^python (project/scripts/load_server.py .*)$", PAGE.read_text("utf8"), re.M
    )
    script, *words = shlex.split(command)
    few = [{"60": "3", "32": "4"}.get(word, word) for word in words]
    done = subprocess.run(
        [sys.executable, PAGE.parents[1] / script, *few, "--model", pipeline, "--n-texts", "9"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "load.json").read_text("utf8"))
    assert result["wrong"] == 0 and result["answers"]["good, 200"] > 0
    assert result["model"].startswith("en_pipeline-0.0.0/")


@pytest.mark.slow
def test_a_fuzzer_finds_nothing(address, tmp_path):
    """What the OpenAPI document says is so: schemathesis sends what fits it and what does not.

    It does not know which offsets fit a text, so that it cannot tell which of the requests that
    fit the document have to be taken.
    """
    pytest.importorskip("schemathesis", reason="schemathesis needs Python 3.11")
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "run"),
            f"{address}/openapi.json",
            *("--max-examples", "25", "--generation-deterministic"),
            *("--exclude-checks", "positive_data_acceptance"),
            *("--suppress-health-check", "all", "--no-shrink"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert httpx.get(f"{address}/health").json()["waiting"] == 0
