"""The setting `engine`: which one runs, and that it changes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language

from spacy_vaner.backbone import onnx_layers
from spacy_vaner.errors import VanerError
from spacy_vaner.model import get_tagger
from tests.support.tiny_tagger import Writer, component_of, predictions

pytest.importorskip("onnxruntime")

TEXT = "with zinc and BRCA1 levels"


def tagger_of(nlp: Language) -> Any:
    return get_tagger(component_of(nlp).model)


def engine_of(nlp: Language) -> str:
    """What has run the layers of the last text."""
    nlp(TEXT)
    assert (tagger_of(nlp)._onnx is not None) == (tagger_of(nlp).engine == "onnx")
    return str(tagger_of(nlp).engine)


@pytest.fixture
def texts(nlp: Language) -> list[str]:
    return [Writer(nlp, seed).doc(n).text for seed, n in enumerate((3, 60, 9, 25, 140, 1, 33))]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"engine": "auto", "precision": "auto"}, "onnx"),
        ({"engine": "auto", "precision": "fp32"}, "torch"),
        ({"engine": "onnx", "precision": "fp32"}, "onnx"),
        ({"engine": "torch", "precision": "auto"}, "torch"),
    ],
)
def test_auto_is_onnx_unless_a_precision_is_named(
    load: Callable[..., Language], settings: dict[str, str], expected: str
) -> None:
    assert engine_of(load(**settings)) == expected


def test_without_the_extra_auto_is_torch_and_onnx_an_error(
    load: Callable[..., Language], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_layers, "find_spec", lambda name: None)
    nlp = load(engine="auto", precision="auto")
    assert engine_of(nlp) == "torch"
    component_of(nlp).engine = "onnx"
    with pytest.raises(VanerError, match=r"VE108.*\[onnx\]"):
        nlp(TEXT)


def test_what_it_cannot_run_is_an_error_and_torch_with_auto(
    load: Callable[..., Language], monkeypatch: pytest.MonkeyPatch
) -> None:
    nlp = load(engine="auto", precision="auto")
    monkeypatch.setattr(type(tagger_of(nlp)), "fits_onnx", False)
    assert engine_of(nlp) == "torch"
    component_of(nlp).engine = "onnx"
    with pytest.raises(VanerError, match="VE109.*small_llama"):
        nlp(TEXT)


def test_it_finds_what_torch_finds(load: Callable[..., Language], texts: list[str]) -> None:
    found = {}
    for engine in ("torch", "onnx"):
        docs = load(engine=engine).pipe(texts)
        found[engine] = [predictions(doc) for doc in docs]
    n_spans = 0
    for ours, theirs in zip(found["onnx"], found["torch"], strict=True):
        # Taught by heart, so that nothing is doubtful.
        sure = [[span for span in spans if span[3] > 0.5] for spans in (ours, theirs)]
        assert [span[:3] for span in sure[0]] == [span[:3] for span in sure[1]]
        for one, other in zip(*sure, strict=True):
            assert one[3] == pytest.approx(other[3], abs=0.1)
        n_spans += len(sure[0])
    assert n_spans > 20
    assert found["onnx"] != found["torch"]


def test_any_batch_and_two_processes_give_the_same(
    load: Callable[..., Language], texts: list[str]
) -> None:
    nlp = load(engine="onnx")
    alone = [predictions(nlp(text)) for text in texts]
    for options in ({"batch_size": 3}, {"batch_size": 2, "n_process": 2}):
        assert [predictions(doc) for doc in nlp.pipe(texts, **options)] == alone
    component_of(nlp).batch_subwords = 64
    assert [predictions(doc) for doc in nlp.pipe(texts)] == alone
    # The parent goes on after its workers.
    assert predictions(nlp(texts[1])) == alone[1]


def test_a_saved_pipeline_runs_on_it_again(
    load: Callable[..., Language], texts: list[str], tmp_path: Path
) -> None:
    nlp = load(engine="onnx")
    expected = [predictions(doc) for doc in nlp.pipe(texts)]
    nlp.to_disk(tmp_path / "nlp")
    again = spacy.load(tmp_path / "nlp")
    copied = load(engine="onnx").from_bytes(nlp.to_bytes())
    for other in (again, copied):
        assert [predictions(doc) for doc in other.pipe(texts)] == expected
        assert engine_of(other) == "onnx"
    weights = "vaner_ner/weights.safetensors"
    assert not list((tmp_path / "nlp").rglob("*.onnx"))
    assert (tmp_path / "nlp" / weights).is_file()


def test_after_an_update_it_runs_the_new_weights(load: Callable[..., Language]) -> None:
    from spacy.training import Example

    nlp = load(engine="onnx")
    before = [predictions(doc) for doc in nlp.pipe([TEXT])]
    optimizer = nlp.resume_training()
    example = Example(nlp.make_doc(TEXT), Writer(nlp).annotated("with zinc and BRCA1 levels"))
    for _ in range(3):
        nlp.update([example], sgd=optimizer)
    after = [predictions(doc) for doc in nlp.pipe([TEXT])]
    assert after != before and engine_of(nlp) == "onnx"
