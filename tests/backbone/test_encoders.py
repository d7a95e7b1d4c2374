"""Encoders as backbones: how each kind is called, framed, adapted, saved and refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from spacy.tokens import Doc
from spacy.vocab import Vocab
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from spacy_vaner.backbone import (
    HFBackbone,
    Lora,
    SubwordTokenizer,
    Tagger,
    build_tagger,
    tagger_files,
    tagger_from_files,
)
from spacy_vaner.backbone.attention import forward_arguments
from spacy_vaner.backbone.lora import adapter_parameters
from spacy_vaner.backbone.pretrained import quiet_transformers
from spacy_vaner.errors import VanerError
from spacy_vaner.model import Question, build_vaner_tagger, make_rows, read_document, set_tagger

from .conftest import TEXTS

pytestmark = [
    pytest.mark.transformers5,
    # transformers scripts parts of DeBERTa when it is imported.
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]

WORDPIECE_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_MARKS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wordpiece_tokenizer() -> SubwordTokenizer:
    """Lower case, "##" for what continues a word, [CLS] A [SEP] B [SEP]: as BERT has it."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=WORDPIECE_MARKS, show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return SubwordTokenizer(made.to_str(), {**config, "tokenizer_class": "PreTrainedTokenizerFast"})


def roberta_tokenizer() -> SubwordTokenizer:
    """Byte-level BPE, <s> A </s></s> B </s>: as RoBERTa has it."""
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=ROBERTA_MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return SubwordTokenizer(made.to_str(), {**config, "tokenizer_class": "PreTrainedTokenizerFast"})


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
DEBERTA = {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": SIZES,
    "Roberta": {**SIZES, "max_position_embeddings": 130, "pad_token_id": 1, "type_vocab_size": 1},
    "XLMRoberta": {
        **{**SIZES, "max_position_embeddings": 130, "pad_token_id": 1, "type_vocab_size": 1},
    },
    "Electra": {**SIZES, "embedding_size": 16},
    "DistilBert": {
        **{"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
        **{"max_position_embeddings": 128, "pad_token_id": 0},
    },
    "ModernBert": {
        **SIZES,
        **{"local_attention": 8, "global_attn_every_n_layers": 2},
        **dict.fromkeys(("cls_token_id", "bos_token_id"), 2),
        **dict.fromkeys(("sep_token_id", "eos_token_id"), 3),
    },
    "Deberta": DEBERTA,
    "DebertaV2": {**DEBERTA, "position_buckets": 16},
}
ROBERTAS = ("Roberta", "XLMRoberta")
KINDS = [
    pytest.param(family, marks=pytest.mark.slow)
    if family in ("XLMRoberta", "Electra", "DistilBert", "Deberta")
    else family
    for family in FAMILIES
]
"""Without --slow one of each kind that is called in its own way."""
WITH_SEGMENTS = ("Bert", "Electra")
EAGER_ONLY = ("Deberta", "DebertaV2")
"""Without sdpa in both generations of transformers; Electra has it in the second."""


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Save a masked language model of a family with its tokenizer, as the hub has it; once."""
    import transformers

    @cache
    def save(family: str) -> Path:
        tokenizer = roberta_tokenizer() if family in ROBERTAS else wordpiece_tokenizer()
        folder = tmp_path_factory.mktemp(family)
        config = getattr(transformers, f"{family}Config")(
            vocab_size=tokenizer.n_tokens, **{**FAMILIES[family], "initializer_range": 0.1}
        )
        with torch.random.fork_rng(devices=[]), quiet_transformers():
            torch.manual_seed(3)
            getattr(transformers, f"{family}ForMaskedLM")(config).save_pretrained(folder)
        for name, content in tokenizer.to_files().items():
            (folder / name).write_bytes(content)
        return folder

    return save


def settings(folder: Path, attn_implementation: str = "eager", **more: Any) -> HFBackbone:
    return HFBackbone(str(folder), attn_implementation=attn_implementation, **more)


def probe(n_rows: int, size: int) -> torch.Tensor:
    """Ids of subwords, not of marks."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(20, 90, (n_rows, size), generator=generator)


@pytest.mark.parametrize("adapter", [None, Lora(rank=2)], ids=["full", "lora"])
@pytest.mark.parametrize("family", KINDS)
def test_every_subword_sees_every_real_one_and_no_padding(
    family: str, adapter: Lora | None, encoder: Callable[[str], Path]
) -> None:
    tagger = build_tagger(settings(encoder(family)), adapter).eval()
    row = probe(1, 7)
    changed = row.clone()
    changed[0, -1] += 1
    with torch.no_grad():
        alone = tagger(row, torch.tensor([7]))
        moved = (tagger(changed, torch.tensor([7])) - alone)[0, :-1].abs().amax(-1)
        # The window of ModernBERT's local layers reaches four subwords to each side.
        assert moved.min() > 1e-6
        for filler in (tagger.tokenizer.pad_id, 17):
            padded = torch.nn.functional.pad(row, (0, 6), value=filler)
            batch = torch.cat([probe(2, 13), padded])
            three = tagger(batch, torch.tensor([13, 1, 7]))
            torch.testing.assert_close(three[2:, :7], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", KINDS)
def test_sdpa_gives_the_same_or_says_that_there_is_none(
    family: str, encoder: Callable[[str], Path]
) -> None:
    folder = encoder(family)
    try:
        fast = build_tagger(settings(folder, "sdpa"), None).eval()
    except VanerError as error:
        assert "VE160" in str(error) and 'attn_implementation = "eager"' in str(error)
        assert family in (*EAGER_ONLY, "Electra")
        return
    assert family not in EAGER_ONLY
    slow = build_tagger(settings(folder), None).eval()
    ids, lengths = probe(2, 9), torch.tensor([9, 4])
    with torch.no_grad():
        for length, one, other in zip(
            lengths, fast.states(ids, lengths), slow.states(ids, lengths), strict=True
        ):
            torch.testing.assert_close(one[:length], other[:length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_and_states_are_those_of_transformers_for_a_pair(
    family: str, encoder: Callable[[str], Path]
) -> None:
    """Its tokenizer and its model, called as for any pair of texts, give what we give."""
    import transformers

    folder, instruction = encoder(family), "find Disease: "
    tagger = build_tagger(settings(folder), None).eval()
    model = build_vaner_tagger(
        window=lambda docs: [[doc[:]] for doc in docs],
        instruction=lambda type_name, corpus: f"find {type_name}: ",
        backbone=settings(folder),
        max_subwords=64,
    )
    set_tagger(model, tagger)
    doc = Doc(Vocab(), words=TEXTS[1].split())
    (row,) = make_rows(model, read_document(model, doc), Question("Disease", None))

    auto: Any = transformers.AutoTokenizer
    pair = auto.from_pretrained(str(folder))(
        instruction, TEXTS[1], return_tensors="pt", return_token_type_ids=True
    )
    assert row.input_ids.tolist() == pair["input_ids"][0].tolist()
    assert tagger.tokenizer.encode(TEXTS[1])[0] == row.input_ids[row.text_start : -1].tolist()

    lengths = torch.tensor([len(row.input_ids)])
    arguments = forward_arguments(
        tagger.config,
        pair["input_ids"],
        lengths,
        dtype=torch.float32,
        separator=tagger.tokenizer.separator_id,
    )
    assert ("token_type_ids" in arguments) == (family in WITH_SEGMENTS)
    if family in WITH_SEGMENTS:
        assert arguments["token_type_ids"].tolist() == pair["token_type_ids"].tolist()
        assert pair["token_type_ids"].sum() == len(row.input_ids) - row.text_start
    else:
        pair.pop("token_type_ids")
    with quiet_transformers():
        reference = transformers.AutoModel.from_pretrained(str(folder)).eval()
    with torch.no_grad():
        expected = reference(**pair).last_hidden_state
        found = tagger.states(torch.from_numpy(row.input_ids)[None], lengths)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_offsets_are_those_of_the_raw_text() -> None:
    text = "  Crohn's disease, TNF-α and Été [SEP] p53. "
    ids, spans = wordpiece_tokenizer().encode(text)
    assert len(ids) == len(spans) and not set(ids) & {2, 3}
    covered = "".join(text[start:end] for start, end in spans)
    assert covered == "".join(text.split())
    assert wordpiece_tokenizer().encode_first_segment("a") == ([2, *ids_of("a"), 3], [3])
    assert roberta_tokenizer().encode_first_segment("")[0] == [0, 2, 2]


def ids_of(text: str) -> list[int]:
    return wordpiece_tokenizer().encode(text)[0]


def test_positions_begin_behind_padding_where_the_class_has_it_so(
    encoder: Callable[[str], Path],
) -> None:
    tagger = build_tagger(settings(encoder("Roberta")), None).eval()
    assert tagger.max_positions == 128
    # Also where the id of padding stands in the text, and up to the last position.
    ids = probe(1, 128)
    ids[0, 3] = 1
    arguments = forward_arguments(
        tagger.config, ids, torch.tensor([128]), dtype=torch.float32, separator=2
    )
    assert arguments["position_ids"].tolist() == [list(range(2, 130))]
    with torch.no_grad():
        assert torch.isfinite(tagger.states(ids, torch.tensor([128]))).all()
    assert build_tagger(settings(encoder("Bert")), None).max_positions == 128


@pytest.mark.parametrize("family", KINDS)
def test_an_adapter_on_all_linear_layers_learns_and_comes_back(
    family: str, encoder: Callable[[str], Path]
) -> None:
    tagger = build_tagger(settings(encoder(family)), Lora(rank=4, dropout=0.0), dropout=0.0)
    linear = {
        name
        for name, module in tagger.backbone.named_modules()
        if type(module).__name__ == "Linear" and "lora" in name
    }
    assert len(linear) == len(adapter_parameters(tagger.backbone)) >= 2 * 2 * 4
    before = {name: p.detach().clone() for name, p in tagger.named_parameters()}
    loss = teach(tagger)
    assert loss[-1] < 0.8 * loss[0]
    moved = {name for name, p in tagger.named_parameters() if not torch.equal(p, before[name])}
    assert all(".lora_" in name or name.startswith("head.") for name in moved)
    assert_comes_back(tagger)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "ModernBert"])
def test_all_parameters_learn_and_come_back(family: str, encoder: Callable[[str], Path]) -> None:
    tagger = build_tagger(settings(encoder(family)), None, dropout=0.0)
    assert not [name for name, _ in tagger.named_parameters() if "pooler" in name]
    loss = teach(tagger)
    assert loss[-1] < 0.8 * loss[0]
    assert_comes_back(tagger)


def teach(tagger: Tagger, n_steps: int = 12) -> list[float]:
    """Learn to label every id by what it is. RETURNS: the losses."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW([p for p in tagger.parameters() if p.requires_grad], lr=1e-2)
    ids, lengths = probe(4, 10), torch.tensor([10, 10, 10, 10])
    losses = []
    tagger.eval()  # encoders have dropout of their own
    for _ in range(n_steps):
        logits = tagger(ids, lengths)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten() % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def assert_comes_back(tagger: Tagger) -> None:
    """Saved and loaded, and merged where there is an adapter, it predicts the same."""
    ids, lengths = probe(3, 9), torch.tensor([9, 4, 1])
    files = tagger_files(tagger)
    loaded = tagger_from_files(files, device="cpu", precision="fp32")
    with torch.no_grad():
        expected = tagger.eval()(ids, lengths)
        assert torch.equal(loaded(ids, lengths), expected)
        loaded.merge_adapter()
        torch.testing.assert_close(loaded(ids, lengths)[0], expected[0], atol=1e-4, rtol=0)
    assert tagger_files(loaded) == files


def test_the_self_check_finds_an_encoder_that_sees_padding(
    encoder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sees_all(config: Any, ids: torch.Tensor, lengths: torch.Tensor, **rest: Any) -> Any:
        return {"attention_mask": torch.ones_like(ids)}

    from spacy_vaner.backbone import tagger as module

    monkeypatch.setattr(module, "forward_arguments", sees_all)
    with pytest.raises(VanerError, match="VE106.*padding moves"):
        build_tagger(settings(encoder("Bert")), None)


def test_a_causal_encoder_is_refused(tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(**SIZES, vocab_size=300, is_decoder=True)
    transformers.BertModel(config).save_pretrained(tmp_path)
    wordpiece_tokenizer().to_folder(tmp_path / "tokenizer")
    with pytest.raises(VanerError, match="VE106.*causal"):
        build_tagger(settings(tmp_path), None, tokenizer=wordpiece_tokenizer())


def test_a_vocabulary_of_the_older_form_is_read(
    encoder: Callable[[str], Path], tmp_path: Path
) -> None:
    """A folder as PubMedBERT's, with a vocab.txt only."""
    import json

    expected = wordpiece_tokenizer()
    vocab = json.loads(expected.to_files()["tokenizer.json"])["model"]["vocab"]
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.__getitem__)), "utf8")
    (tmp_path / "config.json").write_bytes((encoder("Bert") / "config.json").read_bytes())
    found = SubwordTokenizer.from_folder(tmp_path)
    for text in TEXTS:
        assert found.encode(text) == expected.encode(text)
    assert found.encode_first_segment("x") == expected.encode_first_segment("x")


def test_the_model_of_spacy_transformers_loads_once_it_is_saved_as_a_folder(
    encoder: Callable[[str], Path], tmp_path: Path
) -> None:
    """As docs/import.md says; the pipeline's own folder is refused with a pointer to it."""
    pytest.importorskip("spacy_transformers", exc_type=ImportError)
    import spacy

    bert = encoder("Bert")
    nlp = spacy.blank("en")
    nlp.add_pipe(
        "transformer",
        config={
            "model": {
                "@architectures": "spacy-transformers.TransformerModel.v3",
                "name": str(bert),
                "get_spans": {"@span_getters": "spacy-transformers.doc_spans.v1"},
            }
        },
    )
    nlp.initialize()
    nlp.to_disk(tmp_path / "pipeline")
    for folder in (tmp_path / "pipeline", tmp_path / "pipeline" / "transformer"):
        with pytest.raises(VanerError, match=r"VE161.*docs/import\.md"):
            build_tagger(settings(folder), None)

    model = nlp.get_pipe("transformer").model
    model.transformer.save_pretrained(tmp_path / "encoder")
    model.tokenizer.save_pretrained(tmp_path / "encoder")
    tagger = build_tagger(settings(tmp_path / "encoder"), None).eval()
    expected = build_tagger(settings(bert), None).eval()
    ids, lengths = probe(2, 9), torch.tensor([9, 4])
    with torch.no_grad():
        assert torch.equal(tagger.states(ids, lengths), expected.states(ids, lengths))
    assert tagger.frame_window("Disease: ") == expected.frame_window("Disease: ")
