"""`python -m spacy vaner import-adapter`: a checkpoint of VANER or LS-LLaMA as a pipeline."""

from __future__ import annotations

import tempfile
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from wasabi import msg

from spacy_vaner.errors import Messages, VanerError

if TYPE_CHECKING:
    from spacy_vaner.backbone.foreign import Checkpoint
    from spacy_vaner.backbone.tagger import Tagger

MAX_SUBWORDS = 128
"""What both programs train on, there with the instruction included."""


class Origin(str, Enum):
    """Whose checkpoint it is; the folders look alike."""

    vaner = "vaner"
    ls_unllama = "ls_unllama"


class Dtype(str, Enum):
    """Of the backbone's weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


INSTRUCTIONS = {
    Origin.vaner: "spacy-vaner.paper_instruction.v1",
    Origin.ls_unllama: "spacy-vaner.no_instruction.v1",
}
TYPES = ("Disease", "Chemical", "Gene", "Species")
"""What the VANER authors trained."""


def import_adapter_command(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder with adapter_config.json and adapter_model.safetensors (or .bin)",
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Folder of the pipeline; must not be there")
    ],
    backbone: Annotated[
        str,
        typer.Option(
            "--backbone", help="Folder or hub name of the model that the adapter was trained on"
        ),
    ],
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit, tag or branch on the hub")
    ] = None,
    origin: Annotated[
        Origin,
        typer.Option(
            "--format",
            help="Whose training script left it: 'vaner' (with its instruction) or 'ls_unllama' "
            "(LS-LLaMA without the causal mask; no instruction)",
        ),
    ] = Origin.vaner,
    types: Annotated[
        str | None,
        typer.Option(
            "--types",
            help="Types that the pipeline asks for, with commas between; for ls_unllama the one "
            "that it was trained on",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="Names of the head's columns in their order, with commas between, where the "
            "folder has no config.json that says them; O,B,I if not given",
        ),
    ] = None,
    dtype: Annotated[
        Dtype, typer.Option("--dtype", help="Of the backbone's weights when it is loaded")
    ] = Dtype.bfloat16,
) -> None:
    """Turn a LoRA checkpoint for tagging, saved by PEFT, into a pipeline for spacy.load.

    Adapter and head are copied; the backbone stays where it is. Code in a .bin file is not run.
    """
    if output.exists():
        raise VanerError(Messages.VE169.format(output=output))

    from spacy_vaner.backbone.foreign import read_checkpoint, tagger_from_checkpoint
    from spacy_vaner.backbone.settings import HFBackbone

    checkpoint = read_checkpoint(folder, labels=_parts(labels) if labels is not None else None)
    asked = _types(origin, types, checkpoint)
    # A relative folder would be found from here only.
    name = str(Path(backbone).resolve()) if Path(backbone).is_dir() else backbone
    tagger = tagger_from_checkpoint(
        checkpoint, HFBackbone(name=name, revision=revision, dtype=dtype.value)
    )
    _save_pipeline(tagger, output, types=asked, instruction=INSTRUCTIONS[origin])
    for line in _summary(checkpoint, tagger):
        # print, since wasabi breaks long lines, and a path is to be copied.
        print(line)
    msg.good(f"Pipeline for {', '.join(asked)}: {output}")


def _parts(option: str) -> list[str]:
    return [part.strip() for part in option.split(",")]


def _types(origin: Origin, option: str | None, checkpoint: Checkpoint) -> list[str]:
    """RAISES VanerError: VE170, not exactly one type where there is no instruction."""
    if origin is Origin.vaner:
        return _parts(option) if option is not None else list(TYPES)
    named = [checkpoint.type_name] if checkpoint.type_name else []
    found = _parts(option) if option is not None else named
    if len(found) != 1:
        raise VanerError(Messages.VE170.format(types=", ".join(found) or "not named in its labels"))
    return found


def _save_pipeline(tagger: Tagger, output: Path, *, types: list[str], instruction: str) -> None:
    """Write the folder that spacy.load reads: beside it, then renamed."""
    import spacy

    from spacy_vaner.model import set_tagger

    backbone, adapter = tagger.settings.to_dict(), tagger.adapter
    assert adapter is not None
    backbone.pop("kind")
    model = {
        "@architectures": "spacy-vaner.VanerTagger.v1",
        # The authors label the first subword of a word, a sentence per row.
        "labelled_subwords": "first",
        "max_subwords": MAX_SUBWORDS,
        "dropout": tagger.dropout.p,
        "window": {"@span_getters": "spacy-vaner.packed_sentences.v1", "pack": False},
        "instruction": {"@misc": instruction},
        "backbone": {"@misc": "spacy-vaner.hf_backbone.v1", **backbone},
        "adapter": {"@misc": "spacy-vaner.lora.v1", **adapter.to_dict()},
    }
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    # All that is not said is as the tagger that the package carries has it. A name is not repeated
    # over a document either: the checkpoint's code does not.
    settings = {
        "types": types,
        "asking": "per_type",
        "corpus": None,
        "threshold": 0.0,
        "repeat_threshold": None,
    }
    component: Any = nlp.add_pipe("vaner_ner", config={**settings, "model": model})
    set_tagger(component.model, tagger)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as beside:
        nlp.to_disk(Path(beside) / "pipeline")
        (Path(beside) / "pipeline").rename(output)


def _summary(checkpoint: Checkpoint, tagger: Tagger) -> list[str]:
    adapter = checkpoint.adapter
    n_values = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    columns = zip(checkpoint.labels, checkpoint.columns, strict=True)
    settings: Any = tagger.settings
    return [
        f"Weights:   {checkpoint.path}",
        f"Adapter:   LoRA, rank {adapter.rank}, alpha {adapter.alpha:g}, on "
        f"{', '.join(adapter.targets)}: {len(checkpoint.tensors)} matrices, {n_values:,} values",
        f"Head:      {', '.join(f'{label} (column {column})' for label, column in columns)}",
        f"Trained on {checkpoint.base}, put on {settings.name}",
    ]
