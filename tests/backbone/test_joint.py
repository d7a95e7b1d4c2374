"""Joint asking in the backbone library: the head by hand, questions' vectors, saved files."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from spacy_vaner.backbone import SmallLlama, Tagger, build_tagger, tagger_files, tagger_from_files
from spacy_vaner.backbone.joint import Asked, JointHead, question_text
from spacy_vaner.backbone.saving import set_tagger_weights
from spacy_vaner.backbone.settings import Lora
from spacy_vaner.errors import VanerError

TEXTS = ["BRCA1-deficient mice were given aspirin.", "Disease Chemical [BC5CDR-chem] Gene"] * 5
TINY = SmallLlama(
    hidden_size=16, n_layers=2, n_heads=2, intermediate_size=32, max_positions=64, vocab_size=320
)


@pytest.fixture(scope="module")
def make() -> Callable[..., Tagger]:
    def make(width: int | None = 8, adapter: Lora | None = None) -> Tagger:
        return build_tagger(TINY, adapter, dropout=0.0, question_width=width, texts=TEXTS)

    return make


def asked(tagger: Tagger, rows: list[int], texts: list[str]) -> Asked:
    return Asked(torch.tensor(rows), tagger.question_vectors(texts))


IDS, LENGTHS = torch.tensor([[5, 30, 40, 50], [7, 31, 41, 0]]), torch.tensor([4, 3])


def test_the_head_is_a_layer_over_a_sum_of_state_and_question() -> None:
    head = JointHead(4, 3, 3)
    states, vectors = torch.randn(2, 5, 4), torch.randn(3, 4)
    rows = torch.tensor([1, 0, 1])
    logits = head(states, Asked(rows, vectors))
    assert logits.shape == (3, 5, 3)
    hidden = head.state.weight @ states[1, 2] + head.question.weight @ vectors[2] + head.state.bias
    by_hand = head.label.weight @ torch.nn.functional.gelu(hidden) + head.label.bias
    assert torch.allclose(logits[2, 2], by_hand, atol=1e-6)


def test_a_question_names_its_corpus() -> None:
    assert question_text("Disease", None) == "Disease"
    assert question_text("Disease", "ncbi") == "Disease [ncbi]"


def test_an_answer_depends_on_its_own_row_and_question_alone(make: Callable[..., Tagger]) -> None:
    tagger = make().eval()
    with torch.no_grad():
        both = tagger(IDS, LENGTHS, asked=asked(tagger, [0, 1, 1], ["Gene", "Gene", "Chemical"]))
        alone = tagger(IDS[1:], LENGTHS[1:], asked=asked(tagger, [0], ["Chemical"]))
    assert torch.allclose(both[2, :3], alone[0, :3], atol=1e-6)
    assert not torch.allclose(both[1, :3], both[2, :3], atol=1e-4)


def test_questions_are_read_once_until_weights_change(
    make: Callable[..., Tagger], monkeypatch: pytest.MonkeyPatch
) -> None:
    tagger = make().eval()
    n_read = []
    states = Tagger.states
    monkeypatch.setattr(
        Tagger, "states", lambda self, *a: (n_read.append(len(a[0])), states(self, *a))[1]
    )
    first = tagger.question_vectors(["Gene", "Disease"])
    assert torch.equal(tagger.question_vectors(["Disease"])[0], first[1]) and n_read == [1, 1]
    for change in (
        lambda: tagger.train().eval(),
        tagger.forget_questions,
        lambda: setattr(tagger, "precision", "fp32"),
        lambda: tagger.to("cpu"),
    ):
        change()
        n_read.clear()
        tagger.question_vectors(["Gene"])
        assert n_read == [1]


def test_questions_have_gradients_in_training(make: Callable[..., Tagger]) -> None:
    tagger = make().train()
    vectors = tagger.question_vectors(["Gene", "Chemical [BC5CDR-chem]"])
    # Together they are read as each is alone.
    tagger.eval()
    alone = torch.stack(
        [tagger.question_vectors([t])[0] for t in ("Gene", "Chemical [BC5CDR-chem]")]
    )
    assert torch.allclose(vectors, alone, atol=1e-5)
    vectors.sum().backward()
    for parameter in tagger.backbone.parameters():
        assert parameter.grad is not None


def test_a_joint_tagger_is_saved_and_loaded(make: Callable[..., Tagger]) -> None:
    tagger = make(12)
    files = tagger_files(tagger)
    assert json.loads(files["tagger.json"])["head"]["question_width"] == 12
    loaded = tagger_from_files(files, device="cpu", precision="fp32")
    assert loaded.asking == "joint" and tagger_files(loaded) == files
    other = build_tagger(TINY, None, question_width=12, seed=1, tokenizer=tagger.tokenizer)
    set_tagger_weights(other, files)
    for one, two in zip(other.parameters(), tagger.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(VanerError, match="VE135"):
        set_tagger_weights(make(None), files)


def test_a_tagger_per_type_is_saved_as_before(make: Callable[..., Tagger]) -> None:
    tagger = make(None)
    files = tagger_files(tagger)
    assert json.loads(files["tagger.json"])["head"].keys() == {"labels", "dropout"}
    assert tagger_from_files(files, device="cpu", precision="fp32").asking == "per_type"


def test_an_adapter_over_a_joint_tagger_has_a_joint_head(make: Callable[..., Tagger]) -> None:
    tagger = make().eval()
    before = tagger(IDS, LENGTHS, asked=asked(tagger, [0], ["Gene"]))
    adapter = tagger.adapters.new(["Anatomy"], Lora(rank=2))
    tagger.adapters.put_on(adapter)
    assert adapter.trainable and isinstance(adapter.head, JointHead)
    second = tagger.adapters.new(["Cell"], Lora(rank=2))
    assert second.trainable
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.1)
    tagger.forget_questions()
    vectors = tagger.question_vectors(["Anatomy"], adapter)
    changed = tagger(IDS, LENGTHS, adapter, Asked(torch.tensor([0]), vectors))
    after = tagger(IDS, LENGTHS, asked=asked(tagger, [0], ["Gene"]))
    assert torch.equal(before, after) and not torch.allclose(changed, after, atol=1e-3)
