"""`vaner import-adapter`: from a folder of PEFT to a pipeline that spacy.load takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from spacy.cli._util import app as spacy_app
from spacy.language import Language
from spacy.tokens import Doc
from typer.testing import CliRunner

from spacy_vaner.cli import vaner_app  # noqa: F401  # hangs itself on spaCy's
from spacy_vaner.component import VanerNER
from spacy_vaner.model import Question, get_tagger, make_rows, read_document
from tests.support.foreign_checkpoint import reference_logits, save_checkpoint
from tests.support.tiny_llama import save_tiny_llama

pytestmark = pytest.mark.transformers5

WORDS = "BRCA1 mutations predispose to breast cancer , and to ovarian cancer .".split()
INSTRUCTION = "If any Disease entity is mentioned in the ncbi input, extract it. ##input: "


def run(*arguments: object) -> Any:
    return CliRunner().invoke(
        spacy_app, ["vaner", "import-adapter", *(str(argument) for argument in arguments)]
    )


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(
        tmp_path_factory.mktemp("backbone"), [" ".join(WORDS), INSTRUCTION, "p53"] * 4
    )


@pytest.fixture(scope="module")
def checkpoint(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("checkpoint")
    return folder, save_checkpoint(backbone, folder)


def component_of(nlp: Language) -> VanerNER:
    component = nlp.get_pipe("vaner_ner")
    assert isinstance(component, VanerNER)
    return component


def reads_as_the_authors(
    nlp: Language, tuned: Any, backbone: Path, *, first: list[str], columns: list[int]
) -> None:
    """Their tokenizer's rows of words, and their model's logits, in our order."""
    import transformers

    component = component_of(nlp)
    doc = Doc(nlp.vocab, words=WORDS)
    auto: Any = transformers.AutoTokenizer
    row = auto.from_pretrained(str(backbone))([*first, *WORDS], is_split_into_words=True)
    (found,) = make_rows(
        component.model, read_document(component.model, doc), Question("Disease", "ncbi")
    )
    assert found.input_ids.tolist() == row["input_ids"]
    tagger = get_tagger(component.model)
    assert tagger is not None
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad():
        logits = tagger(ids, torch.tensor([ids.shape[1]]))
    expected = reference_logits(tuned, ids)[..., columns]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    # And through the component: the first subword of every piece.
    nlp(doc)
    assert "vaner_predictions" in doc.user_data


def test_a_checkpoint_of_vaner_becomes_a_pipeline(
    checkpoint: tuple[Path, Any], backbone: Path, tmp_path: Path
) -> None:
    folder, tuned = checkpoint
    output = tmp_path / "new" / "pipeline"
    result = run(folder, output, "--backbone", backbone, "--dtype", "float32")
    assert result.exit_code == 0, result.output
    for part in (
        "rank 12, alpha 32, on q_proj, v_proj: 8 matrices",
        "O (column 0), B (column 1), I (column 2)",
        f"Trained on {backbone}",
        "Disease, Chemical, Gene, Species",
    ):
        assert part in " ".join(result.output.split())
    assert [path.name for path in output.parent.iterdir()] == ["pipeline"]
    n_bytes = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    assert n_bytes < 200_000, "the backbone is not in there"

    nlp = spacy.load(output)
    component = component_of(nlp)
    assert component.types == ("Disease", "Chemical", "Gene", "Species")
    assert component.model.attrs["labelled_subwords"] == "first"
    component.precision = "fp32"
    reads_as_the_authors(nlp, tuned, backbone, first=[INSTRUCTION], columns=[0, 1, 2])


def test_a_checkpoint_of_ls_llama_becomes_a_pipeline(
    checkpoint: tuple[Path, Any], backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tuned = checkpoint
    monkeypatch.chdir(backbone.parent)
    result = run(
        *(folder, tmp_path / "out", "--backbone", backbone.name, "--format", "ls_unllama"),
        *("--labels", "I-Disease, O, B-Disease", "--dtype", "float32"),
    )
    assert result.exit_code == 0, result.output
    assert "O (column 1), B-Disease (column 2), I-Disease (column 0)" in result.output
    monkeypatch.chdir(tmp_path)
    nlp = spacy.load(tmp_path / "out")
    assert component_of(nlp).types == ("Disease",)
    component_of(nlp).precision = "fp32"
    reads_as_the_authors(nlp, tuned, backbone, first=[], columns=[1, 2, 0])


def test_the_pipeline_is_saved_and_trained_like_others(
    checkpoint: tuple[Path, Any], backbone: Path, tmp_path: Path
) -> None:
    from spacy.training import Example

    assert run(checkpoint[0], tmp_path / "out", "--backbone", backbone).exit_code == 0
    nlp = spacy.load(tmp_path / "out")
    nlp.to_disk(tmp_path / "again")
    text = "Breast cancer. BRCA1."
    again = spacy.load(tmp_path / "again")
    before = again(text).user_data["vaner_predictions"]
    assert before == nlp(text).user_data["vaner_predictions"]
    example = Example.from_dict(nlp.make_doc(text), {"entities": [(0, 13, "Disease")]})
    head = get_tagger(component_of(nlp).model).head.weight  # type: ignore[union-attr]
    weights = head.detach().numpy().copy()
    nlp.update([example], sgd=nlp.resume_training())
    assert not np.array_equal(weights, head.detach().numpy())


def cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    os.truncate(path, path.stat().st_size - 20)


@pytest.mark.parametrize(
    ("harm", "options", "message"),
    [
        (cut, [], "VE163"),
        (None, ["--labels", "O,B-PER,I-LOC"], "VE167"),
        (None, ["--format", "ls_unllama"], "VE170"),
        (None, ["--format", "ls_unllama", "--types", "A,B"], "VE170: .*A, B"),
        (None, ["--backbone", "no such folder"], "VE120"),
        (None, ["--types", "a:b"], "VE022"),
    ],
)
def test_a_fault_is_a_message_and_leaves_nothing_behind(
    harm: Callable[[Path], None] | None,
    options: list[str],
    message: str,
    checkpoint: tuple[Path, Any],
    backbone: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "results" / "out"
    folder = Path(shutil.copytree(checkpoint[0], tmp_path / "checkpoint"))
    if harm:
        harm(folder)
    result = run(folder, output, "--backbone", backbone, *options)
    assert result.exit_code == 1
    assert message.split(".*")[0] in result.output and message.split(".*")[-1] in result.output
    assert "Traceback" not in result.output
    assert not output.exists()
    assert not output.parent.exists() or not list(output.parent.iterdir())


def test_what_is_there_already_is_kept(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "file").write_text("mine")
    result = run(checkpoint[0], tmp_path / "work", "--backbone", "anything")
    assert result.exit_code == 1 and "VE169" in result.output
    assert (tmp_path / "work" / "file").read_text() == "mine"
