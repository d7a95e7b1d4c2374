"""The documentation is true: Python examples run, and commands that it names exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

BLOCK = re.compile(
    r"(?P<not_run><!-- not run: .+ -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
COMMAND = re.compile(r"\bspacy (?P<line>(?:vaner|project|train)\b[^`\n#|]*)")


class Block(NamedTuple):
    """A fenced block: its first line in the page, its language and what is in it."""

    line: int
    language: str
    code: str
    is_run: bool


def blocks(text: str) -> Iterator[Block]:
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        indent = found["indent"]
        code = "".join(part.removeprefix(indent) for part in found["code"].splitlines(True))
        yield Block(line, found["language"], code, found["not_run"] is None)


def program(text: str) -> str:
    """The Python blocks of a page as one program, every line where it stands in the page."""
    lines: list[str] = []
    for block in blocks(text):
        if block.language == "python" and block.is_run:
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.code.splitlines()
    return "\n".join(lines)


def commands(text: str) -> Iterator[list[str]]:
    """`spacy vaner …`, `spacy project …` and `spacy train …`, in blocks and in running text."""
    for found in COMMAND.finditer(re.sub(r"\\\n\s*", "", text)):
        line = found["line"].replace("…", "")
        yield shlex.split(line.rstrip(" \"'),.;:"))


NEEDS = {"scispacy": "scispacy"}
"""Page → the package of an extra that not every Python has."""
PROGRAMS = [page for page in PAGES if program(page.read_text("utf8"))]


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: the sample corpus, and a pipeline where the project puts it."""
    import spacy
    from spacy.training import Example

    folder = tmp_path_factory.mktemp("reader_folder")
    shutil.copytree(ROOT / "project/corpora/sample", folder / "project/corpora/sample")
    nlp = spacy.blank("en")
    backbone = {
        "@misc": "spacy-vaner.small_llama.v1",
        **{"hidden_size": 16, "n_layers": 1, "n_heads": 2, "intermediate_size": 32},
        "vocab_size": 300,
    }
    nlp.add_pipe("vaner_ner", config={"model": {"backbone": backbone}})
    nlp.initialize(lambda: [Example.from_dict(nlp.make_doc("Aspirin."), {"entities": []})])
    pipeline = folder / "project/training/sample/tiny.text.0/model-best"
    pipeline.parent.mkdir(parents=True)
    nlp.to_disk(pipeline)
    return folder


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.stem)
def test_python_examples_run_one_after_another(page: Path, reader_folder: Path) -> None:
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem])
    # Not the name of a package that it imports.
    script = reader_folder / f"page_{page.stem}.py"
    script.write_text(program(page.read_text("utf8")), encoding="utf8")
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=reader_folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{page.name}, lines as there:\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_that_a_page_names_exist(page: Path) -> None:
    from typer.main import get_command
    from weasel.util import load_project_config

    from spacy_vaner.cli import vaner_app

    ours = get_command(vaner_app).commands
    config = load_project_config(ROOT / "project")
    steps = {*config["workflows"], *(step["name"] for step in config["commands"])}
    for words in commands(page.read_text("utf8")):
        options = {word.split("=")[0] for word in words if word.startswith("-")}
        if words[0] == "vaner" and len(words) > 1:
            assert words[1] in ours, f"spacy {shlex.join(words)}: no such command"
            known = {name for option in ours[words[1]].params for name in option.opts}
            known |= {name for option in ours[words[1]].params for name in option.secondary_opts}
            assert options <= known | {"--help"}, f"spacy {shlex.join(words)}: no such option"
        elif words[:2] == ["project", "run"] and len(words) > 2:
            assert words[2] in steps, f"spacy {shlex.join(words)}: no such step"
            variables = {word.removeprefix("--vars.") for word in options if "vars." in word}
            assert variables <= set(config["vars"]), f"spacy {shlex.join(words)}: no such variable"
        elif words[0] == "train":
            configs = {word for word in words if word.startswith("project/configs/")}
            assert all((ROOT / path).is_file() for path in configs)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_files_and_make_targets_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text("utf8")
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    assert not [link for link in links if not (page.parent / link).exists()]
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf8"), re.M))
    named = set(re.findall(r"`(?:\w+=\S+ )?make ([a-z][\w-]*)", text))
    named |= set(re.findall(r"^make ([a-z][\w-]*)", text, re.M))
    assert named <= targets


def test_lines_of_examples_are_those_of_the_page() -> None:
    page = "# Title\n\n```python\na = 1\n```\n\n<!-- not run: a GPU -->\n```python\nb\n```\n\n"
    page += "```bash\nls\n```\n```python\n1 / 0\n```\n"
    assert program(page).splitlines() == ["", "", "", "a = 1", *[""] * 11, "1 / 0"]


def test_commands_are_found_in_text_and_blocks() -> None:
    page = "Use `python -m spacy vaner nothing A --x=1`.\n```bash\npython -m spacy train a.cfg \\\n"
    page += "  --output b  # comment\n```"
    expected = [["vaner", "nothing", "A", "--x=1"], ["train", "a.cfg", "--output", "b"]]
    assert list(commands(page)) == expected
