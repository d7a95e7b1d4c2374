"""Taggers that come with the package: a folder each, below `spacy_vaner/pretrained`.

`model.json` describes a folder: how the component asks its tagger, and the hash of every other
file: those of a saved tagger (weights in 8 bits, tokenizer) and its card. `python -m spacy vaner
ship` writes such a folder, also for a tagger of one's own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spacy_vaner.errors import Messages, VanerError

FOLDER = Path(__file__).parent / "pretrained"
DEFAULT_NAME = "vaner-small"
"""The one that `nlp.add_pipe("vaner_ner")` takes."""

FORMAT_VERSION = 1
MANIFEST = "model.json"
CARD, CARD_FACTS = "card.md", "card.json"
WEIGHTS = "weights.safetensors"


def default_component() -> dict[str, Any]:
    """What a component is by default where the package carries a tagger; else nothing.

    Read when the factory is registered, for any pipeline, so a damaged folder raises nothing here:
    it is complained about when its tagger is needed.
    """
    if not (FOLDER / DEFAULT_NAME).is_dir():
        return {}
    try:
        settings = dict(
            json.loads((FOLDER / DEFAULT_NAME / MANIFEST).read_text("utf8"))["settings"]
        )
        model = dict(settings["model"])
    except (OSError, ValueError, KeyError, TypeError):
        settings, model = {}, {}
    return _on_tagger(DEFAULT_NAME, {**settings, "model": model})


def shipped_component(name: str) -> dict[str, Any]:
    """The config of a component on a tagger, asked as the tagger's own settings say.

    `nlp.add_pipe("vaner_ner", config=shipped_component("my/tagger"))`. Where only the backbone is
    named, all other settings are the defaults: those of the tagger of the package.

    name: as for find_shipped.
    RAISES VanerError: VE190-VE192.
    """
    return _on_tagger(name, read_manifest(find_shipped(name))["settings"])


def _on_tagger(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    backbone = {
        "@misc": "spacy-vaner.pretrained.v1",
        "name": name,
        "attn_implementation": "sdpa",
    }
    return {**settings, "model": {**settings["model"], "backbone": backbone}}


def find_shipped(name: str) -> Path:
    """The folder of a tagger by its name in the package, else by its path.

    RAISES VanerError: VE190.
    """
    for folder in (FOLDER / name, Path(name).expanduser()):
        if (folder / MANIFEST).is_file():
            return folder
    known = sorted(path.parent.name for path in FOLDER.glob(f"*/{MANIFEST}"))
    raise VanerError(Messages.VE190.format(name=name, known=", ".join(known) or "none"))


def read_manifest(folder: Path) -> dict[str, Any]:
    """RAISES VanerError: VE191, it is damaged; VE192, it is of a newer version."""
    path = folder / MANIFEST
    try:
        manifest = dict(json.loads(path.read_bytes()))
        version = manifest["format_version"]
        if version == FORMAT_VERSION and manifest["fingerprint"] != _fingerprint(manifest):
            raise ValueError("its content is not what its fingerprint says")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VanerError(Messages.VE191.format(path=path, error=error)) from None
    if version != FORMAT_VERSION:
        raise VanerError(
            Messages.VE192.format(folder=folder, version=version, known=FORMAT_VERSION)
        )
    return manifest


def read_shipped(name: str) -> dict[str, bytes]:
    """The files of a tagger, whole and as they were written.

    name: as for find_shipped.
    RAISES VanerError: VE190-VE192; VE193, a file is missing or damaged.
    """
    folder = find_shipped(name)
    files = {}
    for file, sha256 in read_manifest(folder)["files"].items():
        if file in (CARD, CARD_FACTS):
            continue
        try:
            files[file] = (folder / file).read_bytes()
        except OSError as error:
            raise VanerError(Messages.VE193.format(path=folder / file, error=error)) from None
        if hashlib.sha256(files[file]).hexdigest() != sha256:
            reason = f"its hash is not the one in {MANIFEST}"
            raise VanerError(Messages.VE193.format(path=folder / file, error=reason))
    return files


def write_shipped(
    folder: Path, files: Mapping[str, bytes], *, name: str, settings: Mapping[str, Any]
) -> str:
    """Write a folder beside and rename it; one that such a tagger is in is replaced.

    files: of the saved tagger, and its card.
    settings: of the component, its model among them, without the backbone.
    RETURNS: the fingerprint.
    RAISES VanerError: VE194, the folder is there and is something else.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise VanerError(Messages.VE194.format(folder=folder))
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "settings": dict(settings),
        "files": {file: hashlib.sha256(files[file]).hexdigest() for file in sorted(files)},
    }
    manifest["fingerprint"] = _fingerprint(manifest)
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        fresh, replaced = Path(beside) / "new", Path(beside) / "old"
        fresh.mkdir()
        for file, content in {**files, MANIFEST: text.encode("utf8")}.items():
            (fresh / file).write_bytes(content)
        if folder.exists():
            folder.rename(replaced)
        try:
            fresh.rename(folder)
        except OSError:
            if replaced.exists():
                shutil.move(replaced, folder)
            raise
    return str(manifest["fingerprint"])


def _fingerprint(manifest: Mapping[str, Any]) -> str:
    """Hash of all that the folder holds, through the hashes of its files."""
    facts = {key: value for key, value in manifest.items() if key != "fingerprint"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf8")).hexdigest()
