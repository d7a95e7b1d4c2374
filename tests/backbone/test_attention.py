from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spacy_vaner.backbone import (
    HFBackbone,
    Lora,
    SmallLlama,
    SubwordTokenizer,
    Tagger,
    bidirectional_mask,
    build_tagger,
    self_check,
    tagger_files,
    tagger_from_files,
)
from spacy_vaner.backbone.pretrained import load_pretrained
from spacy_vaner.errors import VanerError

pytestmark = pytest.mark.transformers5

ATTENTION = ("eager", "sdpa")


def test_mask_is_zero_where_real_and_lowest_in_padding() -> None:
    mask = bidirectional_mask(torch.tensor([2, 1]), 3, torch.float16)
    low = torch.finfo(torch.float16).min
    assert mask.dtype == torch.float16
    assert mask.tolist() == [[[[0, 0, low]]], [[[0, low, low]]]]


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2"])
@pytest.mark.parametrize("attn_implementation", ATTENTION)
def test_forward_equals_the_layers_without_a_mask(
    family: str, attn_implementation: str, folders: dict[str, Path]
) -> None:
    settings = HFBackbone(str(folders[family]), attn_implementation=attn_implementation)
    tagger = build_tagger(settings, None).eval()
    reference: Any = load_pretrained(folders[family], HFBackbone(settings.name))
    ids = torch.randint(0, 260, (2, 11))
    positions = torch.arange(11)[None]
    with torch.no_grad():
        states = reference.embed_tokens(ids)
        rotary = reference.rotary_emb(states, positions)
        for layer in reference.layers:
            zeros = torch.zeros(2, 1, 11, 11)
            output = layer(
                states,
                attention_mask=zeros,
                position_ids=positions,
                position_embeddings=rotary,
            )
            states = output[0] if isinstance(output, tuple) else output
        expected = tagger.head(reference.norm(states))
        found = tagger(ids, torch.tensor([11, 11]))
    assert found.dtype == torch.float32 and found.shape == (2, 11, 3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


STAGES: dict[str, Callable[[Tagger], None]] = {
    "adapter": lambda tagger: None,
    "merged": Tagger.merge_adapter,
    "unmerged": lambda tagger: (tagger.merge_adapter(), tagger.unmerge_adapter())[0],
    "trained": lambda tagger: train(tagger, n_steps=2),
}


def train(tagger: Tagger, n_steps: int) -> None:
    """Teach the tagger to label every second subword."""
    tagger.train()
    optimizer = torch.optim.AdamW([p for p in tagger.parameters() if p.requires_grad], lr=1e-2)
    ids, lengths = torch.randint(0, 260, (4, 10)), torch.tensor([10, 8, 5, 3])
    tags = torch.arange(10).remainder(2).expand(4, 10)
    for _ in range(n_steps):
        logits = tagger(ids, lengths)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tags.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tagger.eval()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("attn_implementation", ATTENTION)
@pytest.mark.parametrize("kind", ["hf", "small-full"])
def test_every_subword_sees_every_real_one_and_no_padding(
    kind: str, attn_implementation: str, stage: str, make_tagger: Callable[..., Tagger]
) -> None:
    tagger = make_tagger(kind, attn_implementation=attn_implementation)
    STAGES[stage](tagger)
    row = torch.randint(0, 260, (1, 7))
    with torch.no_grad():
        alone = tagger(row, torch.tensor([7]))
        changed = row.clone()
        changed[0, -1] += 1
        moved = (tagger(changed, torch.tensor([7])) - alone)[0, :-1].abs().amax(-1)
        assert moved.min() > 1e-5, "the last subword moves every other one"
        for filler in (0, 259):
            padded = torch.nn.functional.pad(row, (0, 6), value=filler)
            one = tagger(padded, torch.tensor([7]))
            torch.testing.assert_close(one[:, :7], alone, atol=1e-5, rtol=0)
            batch = torch.cat([torch.randint(0, 260, (2, 13)), padded])
            three = tagger(batch, torch.tensor([13, 1, 7]))
            torch.testing.assert_close(three[2:, :7], alone, atol=1e-5, rtol=0)
            assert torch.isfinite(three).all()


def boolean_mask(lengths: Tensor, size: int) -> Tensor:
    keep = torch.arange(size)[None] < lengths[:, None]
    return keep[:, None, None, :].expand(-1, 1, size, size)


BROKEN: dict[str, Callable[[Tensor, int], Tensor | None]] = {
    "causal: no mask": lambda lengths, size: None,
    "causal: a 2-D mask": lambda lengths, size: (
        torch.arange(size)[None] < lengths[:, None]
    ).long(),
    "padding moves: zeros": lambda lengths, size: torch.zeros(len(lengths), 1, size, size),
}


@pytest.mark.parametrize("attn_implementation", ATTENTION)
@pytest.mark.parametrize("broken", BROKEN)
def test_self_check_finds_a_broken_call(
    broken: str, attn_implementation: str, make_tagger: Callable[..., Tagger]
) -> None:
    assert_refused(
        make_tagger("hf-full", attn_implementation=attn_implementation),
        BROKEN[broken],
        broken.split(":")[0],
    )


def test_self_check_finds_the_boolean_mask_under_eager_attention(
    make_tagger: Callable[..., Tagger],
) -> None:
    # An additive mask of zeros and ones, which is what eager attention makes of a boolean one.
    def additive(lengths: Tensor, size: int) -> Tensor:
        return boolean_mask(lengths, size).float()

    tagger = make_tagger("hf-full", attn_implementation="eager")
    assert_refused(tagger, additive, "padding moves")


def assert_refused(
    tagger: Tagger, make_mask: Callable[[Tensor, int], Tensor | None], fault: str
) -> None:
    def states(input_ids: Tensor, lengths: Tensor) -> Tensor:
        mask = make_mask(lengths, input_ids.shape[1])
        output: Tensor = tagger.backbone(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return output

    with pytest.raises(VanerError, match="VE106") as caught:
        self_check(
            states,
            vocab_size=260,
            device=torch.device("cpu"),
            dtype=torch.float32,
            backbone="the name",
            attn_implementation=tagger.settings.attn_implementation,
        )
    import transformers

    message = str(caught.value)
    assert fault.removesuffix(": no mask") in message
    for part in ("the name", tagger.settings.attn_implementation, transformers.__version__):
        assert part in message


def test_self_check_takes_nan_for_a_fault(make_tagger: Callable[..., Tagger]) -> None:
    tagger = make_tagger("small-full")
    next(tagger.backbone.parameters()).data.fill_(float("nan"))
    with pytest.raises(VanerError, match="VE106"):
        tagger.check_attention()


def test_self_check_runs_at_every_stage(
    monkeypatch: pytest.MonkeyPatch, make_tagger: Callable[..., Tagger]
) -> None:
    """A mask that lost its padding is found when building, merging and loading."""
    from spacy_vaner.backbone import attention as module

    good = make_tagger("hf")
    files = tagger_files(good)

    def no_padding(lengths: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(len(lengths), 1, 1, size, dtype=dtype)

    monkeypatch.setattr(module, "bidirectional_mask", no_padding)
    with pytest.raises(VanerError, match="VE106"):
        make_tagger("small")
    with pytest.raises(VanerError, match="VE106"):
        good.merge_adapter()
    assert not good.is_merged
    with pytest.raises(VanerError, match="VE106"):
        tagger_from_files(files, device="cpu", precision="fp32")


def test_self_check_passes_for_coarse_and_for_deep_models(
    llama_folder: Path, tokenizer: SubwordTokenizer
) -> None:
    for dtype in ("bfloat16", "float16"):
        build_tagger(HFBackbone(str(llama_folder), dtype=dtype), Lora())
    for seed in range(3):
        deep = SmallLlama(
            hidden_size=64,
            n_layers=12,
            n_heads=4,
            intermediate_size=128,
            attn_implementation="sdpa",
        )
        for precision in ("fp32", "bf16"):
            build_tagger(deep, None, tokenizer=tokenizer, seed=seed, precision=precision)


@pytest.mark.parametrize("family", ["T5", "GPT2"])
def test_another_kind_of_model_is_refused(
    family: str, tmp_path: Path, tokenizer: SubwordTokenizer
) -> None:
    import transformers

    options = {
        "T5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 2},
        # Positions of its own, and too few of them for the probe.
        "GPT2": {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 4},
    }[family]
    config = getattr(transformers, f"{family}Config")(vocab_size=400, **options)
    getattr(transformers, f"{family}Model")(config).save_pretrained(tmp_path)
    with pytest.raises(VanerError, match="VE107"):
        settings = HFBackbone(str(tmp_path), attn_implementation="eager")
        build_tagger(settings, None, tokenizer=tokenizer)
