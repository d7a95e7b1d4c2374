"""A finished backbone as files that travel: half the size, cut into small parts.

`export` writes an ordinary Hugging Face folder, its weights in parts of bytes if asked; `join` puts
them together again and proves every one of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from spacy_vaner.backbone.tokenizer import SubwordTokenizer
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.training.checkpoints import write_folder
from spacy_vaner.training.language_model import BACKBONE_CONFIG_FILE, WEIGHTS_FILE, as_dtype
from spacy_vaner.training.token_file import file_sha256

PARTS_FILE = "parts.json"
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

_OURS = {BACKBONE_CONFIG_FILE, WEIGHTS_FILE, PARTS_FILE, "tokenizer.json", "tokenizer_config.json"}


def export(source: Path, output: Path, *, dtype: str = "bfloat16", part_bytes: int = 0) -> None:
    """Write the backbone of a checkpoint (or of any such folder) for use elsewhere.

    dtype: "bfloat16", "float16" or "float32".
    part_bytes: longest file of weights; 0 = one file. Parts are read after `join` only.
    RAISES VanerError: VE514, no such backbone; VE519, an output that is something else; VE512.
    """
    if output.exists() and not (output.is_dir() and all(map(_is_ours, output.iterdir()))):
        raise VanerError(Messages.VE519.format(path=output))
    try:
        tensors = load_tensors((source / WEIGHTS_FILE).read_bytes())
        config = json.loads((source / BACKBONE_CONFIG_FILE).read_text("utf8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise VanerError(Messages.VE514.format(path=source, reason=error)) from None
    weights = save_tensors(as_dtype(tensors, DTYPES[dtype]), metadata={"format": "pt"})
    files = {
        **SubwordTokenizer.from_folder(source).to_files(),
        BACKBONE_CONFIG_FILE: json.dumps(
            {**config, "torch_dtype": dtype}, indent=2, sort_keys=True
        ).encode("utf8"),
    }
    if not part_bytes:
        files[WEIGHTS_FILE] = weights
    else:
        parts = {
            f"{WEIGHTS_FILE}.{number:03d}": weights[start : start + part_bytes]
            for number, start in enumerate(range(0, len(weights), part_bytes))
        }
        listed = {
            "sha256": hashlib.sha256(weights).hexdigest(),
            "parts": {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()},
        }
        files |= {**parts, PARTS_FILE: json.dumps(listed, indent=2).encode("utf8")}
    write_folder(output, files)


def join(folder: Path) -> None:
    """Put the parts of a folder's weights together, in place; the parts are removed.

    RAISES VanerError: VE515, a part is missing or damaged: nothing is changed then.
    """
    path = folder / WEIGHTS_FILE
    beside = folder / f"{WEIGHTS_FILE}.part"
    try:
        listed = json.loads((folder / PARTS_FILE).read_text("utf8"))
        for name, sha256 in listed["parts"].items():
            if file_sha256(folder / name) != sha256:
                raise VanerError(
                    Messages.VE515.format(path=folder / name, reason="its hash is another one")
                )
        with beside.open("wb") as whole:
            for name in listed["parts"]:
                with (folder / name).open("rb") as part:
                    shutil.copyfileobj(part, whole)
        if file_sha256(beside) != listed["sha256"]:
            raise ValueError("the parts do not make the whole")
    except VanerError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        beside.unlink(missing_ok=True)
        raise VanerError(Messages.VE515.format(path=folder, reason=error)) from None
    beside.replace(path)
    for name in [*listed["parts"], PARTS_FILE]:
        (folder / name).unlink()


def _is_ours(path: Path) -> bool:
    return path.name in _OURS or path.name.startswith(f"{WEIGHTS_FILE}.")
