"""The frame of the package: who imports whom, what is registered, what loads how much."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import json
import re
import shutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import spacy_vaner

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "spacy_vaner"
NAMES = json.loads((ROOT / "tests/data/registered_names.json").read_text("utf8"))

LAYERS = (
    {"types", "errors", "files"},
    {"backbone", "corpora", "decoding", "gold", "instructions", "knowledge", "metrics", "pieces"}
    | {"document_names", "predictions", "scorer", "settings", "shipped", "windows"},
    {"training"},
    {"adapters", "examples", "model", "optimizer", "reader", "reading", "rows", "shim", "targets"},
    {"assembly", "component", "model_card"},
    {"evaluation", "annotation"},
    {"cli"},
)
"""A part may import parts of its own layer and of those before it, without a cycle."""

FORBIDDEN = {
    "types": {"spacy", "thinc", "torch", "transformers", "peft", "numpy"},
    "errors": {"spacy", "thinc", "torch", "transformers", "peft", "numpy"},
    "backbone": {"spacy", "thinc"},
    "training": {"spacy", "thinc"},
    "decoding": {"spacy", "thinc", "torch", "transformers", "peft"},
    "document_names": {"spacy", "thinc", "torch", "transformers", "peft"},
    "metrics": {"spacy", "thinc", "torch", "transformers", "peft"},
    "model": {"transformers", "peft"},
    "shim": {"transformers", "peft"},
    "component": {"transformers", "peft"},
}
"""Part → libraries that it may not import, at the top of a module or in a function."""


def modules() -> Iterator[tuple[str, Path]]:
    """Part of the package (module or folder directly in it) and source file, for every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path


def imported(path: Path) -> Iterator[str]:
    """Full names of what a source file imports anywhere in it; relative names are resolved."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            # `from spacy_vaner import model` imports a module, not a name of the package.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def parts_imported(path: Path) -> set[str]:
    """The parts of the package that a source file imports."""
    known = {part for part, _ in modules()} - {"__init__"}
    names = (name.split(".") for name in imported(path))
    return {name[1] for name in names if name[0] == "spacy_vaner" and name[1] in known}


def layer_of(part: str) -> int:
    places = [index for index, layer in enumerate(LAYERS) if part in layer]
    assert places, f"spacy_vaner/{part} has no place in LAYERS: decide who may import it"
    return places[0]


def test_imports_go_in_one_direction() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported_part}"
        for part, path in modules()
        if part != "__init__"
        for imported_part in parts_imported(path)
        if layer_of(imported_part) > layer_of(part)
    ]
    assert not wrong


def test_parts_import_each_other_without_a_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for part, path in modules():
        graph.setdefault(part, set()).update(parts_imported(path) - {part})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_parts_stay_free_of_the_libraries_that_they_do_not_need() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for part, path in modules()
        for name in imported(path)
        if name.split(".")[0] in FORBIDDEN.get(part, ())
    ]
    assert not wrong


def test_registered_names_are_those_that_are_promised() -> None:
    points = importlib.metadata.distribution("spacy_vaner").entry_points
    registered: dict[str, list[str]] = {}
    for point in points:
        # Optimisers are in thinc's own registry, which spaCy's shares.
        registry = point.group.removeprefix("spacy_").removeprefix("thinc_")
        registered.setdefault(registry, []).append(point.name)
    assert {group: sorted(names) for group, names in registered.items()} == NAMES


@pytest.mark.parametrize("registry, name", [(r, n) for r, names in NAMES.items() for n in names])
def test_registered_names_are_found_and_documented(registry: str, name: str) -> None:
    import spacy
    from spacy import registry as spacy_registry

    spacy.blank("en")  # as every pipeline does; the registry of span getters is not spaCy's own
    catalogue = "_entry_point_factories" if registry == "factories" else registry
    assert getattr(spacy_registry, catalogue).get(name) is not None
    if registry not in ("cli", "displacy_colors"):
        assert name in (ROOT / "docs/formats.md").read_text("utf8")


@pytest.mark.parametrize(
    "point",
    [p for p in importlib.metadata.distribution("spacy_vaner").entry_points if p.name != "vaner"],
    ids=lambda point: point.name,
)
def test_annotations_of_registered_functions_resolve(
    point: importlib.metadata.EntryPoint,
) -> None:
    # A name that cannot be resolved at run time switches confection's validation off.
    function = point.load()
    hints = typing.get_type_hints(function)
    assert set(inspect.signature(function).parameters) <= set(hints)


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_of_the_package_loads_no_heavy_library() -> None:
    heavy = ["spacy", "thinc", "torch", "transformers", "peft", "numpy"]
    code = f"import sys, spacy_vaner; print([n for n in {heavy} if n in sys.modules])"
    assert run_python(code) == "[]"


def test_a_pipeline_without_a_model_loads_neither_transformers_nor_peft() -> None:
    # spaCy imports every installed factory; that of spacy-transformers loads transformers.
    code = """
import sys
from importlib import metadata
find = metadata.distributions
metadata.distributions = lambda **kwargs: (
    found for found in find(**kwargs) if found.metadata["Name"] != "spacy-transformers"
)
import spacy
nlp = spacy.blank("en")
assert nlp.has_factory("vaner_ner") and "spacy_vaner.component" in sys.modules
nlp.add_pipe("vaner_ner")
print([name for name in ("transformers", "peft") if name in sys.modules])
"""
    assert run_python(code) == "[]"


def test_every_message_is_numbered_by_its_own_name() -> None:
    from spacy_vaner.errors import Messages

    messages = {name: text for name, text in vars(Messages).items() if name.startswith("V")}
    assert messages
    unnumbered = [name for name, text in messages.items() if not text.startswith(f"{name}: ")]
    # VE017 continues spaCy's own E109.
    assert unnumbered in ([], ["VE017"])


def test_version_is_the_one_of_the_distribution_and_of_the_changelog() -> None:
    assert importlib.metadata.version("spacy_vaner") == spacy_vaner.__version__
    assert f"## [{spacy_vaner.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf8")


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_clean_removes_environments_and_all_that_workflows_leave() -> None:
    command = ["make", "-n", "clean"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ignored = (ROOT / ".gitignore").read_text("utf8")
    left = set(re.findall(r"^/(project/\w+)/$", ignored, re.MULTILINE))
    # What was downloaded or packaged stays.
    left -= {"project/assets", "project/packages"}
    left |= set(re.findall(r"VENV=(\S+)", (ROOT / ".ci/run").read_text("utf8")))
    assert len(left) > 8 and left <= set(told.split())


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_connections_beyond_this_machine_are_refused(address: str) -> None:
    code = f"import socket; socket.create_connection(({address!r}, 443), timeout=5)"
    with pytest.raises(ConnectionRefusedError, match="Tests may not leave"):
        exec(code, {})
    with pytest.raises(AssertionError, match="Tests may not leave"):
        run_python(code)


def test_names_of_other_machines_are_not_looked_up() -> None:
    code = "import urllib.request; urllib.request.urlopen('http://example.invalid', timeout=5)"
    with pytest.raises(AssertionError, match="Tests may not leave"):
        run_python(code)


def test_loopback_is_open() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
