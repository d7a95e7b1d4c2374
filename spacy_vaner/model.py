"""Architecture spacy-vaner.VanerTagger.v1: the way between a Doc and the backbone.

A document is read once (reading.py): subwords, units, windows. For every question asked of it (a
type and a corpus name) each window becomes a row: instruction + subwords; or, where the tagger is
asked jointly, one row without instruction for all questions. Rows of all documents and questions
are sorted by length and run in batches under a budget of subwords, those of every adapter for
themselves.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional

import numpy as np
from spacy.tokens import Doc
from thinc.api import Model

from spacy_vaner.backbone.settings import (
    HFBackbone,
    Lora,
    Pretrained,
    SmallLlama,
    check_trainable,
)
from spacy_vaner.decoding import FloatArray, softmax
from spacy_vaner.errors import Messages, VanerError, VanerWarning
from spacy_vaner.instructions import Instruction
from spacy_vaner.pieces import IntArray
from spacy_vaner.reading import Question, Reading, Row, encode_document, plan_rows
from spacy_vaner.shim import TaggerModel as TaggerModel
from spacy_vaner.shim import TaggerShim as TaggerShim
from spacy_vaner.shim import get_tagger as get_tagger
from spacy_vaner.shim import run_batch
from spacy_vaner.shim import set_tagger as set_tagger
from spacy_vaner.shipped import read_shipped

if TYPE_CHECKING:
    from spacy_vaner.backbone.tagger import Tagger


def hf_backbone(
    name: str,
    revision: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32",
    attn_implementation: Literal["eager", "sdpa"] = "sdpa",
    quantization: Literal["nf4", "int8"] | None = None,
    gradient_checkpointing: bool = False,
) -> HFBackbone:
    """A decoder of the LLaMA family or an encoder, from a local folder or the Hugging Face hub.

    name: a folder, which is tried first, or a name on the hub.
    revision: a commit, tag or branch on the hub; pin it for figures that should stay.
    dtype: of the frozen weights. bfloat16 halves the memory; adapter and head stay fp32.
    attn_implementation: "sdpa" is faster on CUDA; "eager" works for every architecture.
    quantization: of the linear layers, under an adapter: "nf4" (4 bits) or "int8". Needs the extra
        [quantization]. dtype is then that of embeddings and norms.
    gradient_checkpointing: compute the layers' insides again for the gradients: training takes a
        third longer and a fraction of the memory; the gradients are equal.
    """
    return HFBackbone(
        name=name,
        revision=revision,
        dtype=dtype,
        attn_implementation=attn_implementation,
        quantization=quantization,
        gradient_checkpointing=gradient_checkpointing,
    )


def small_llama(
    hidden_size: int = 256,
    n_layers: int = 6,
    n_heads: int = 4,
    intermediate_size: int = 688,
    max_positions: int = 1024,
    vocab_size: int = 8000,
    tokenizer_path: str | None = None,
    attn_implementation: Literal["eager", "sdpa"] = "sdpa",
) -> SmallLlama:
    """A LLaMA without pretrained weights, all of whose parameters are trained.

    The defaults give 7 million parameters (2 of them embeddings), for a CPU.

    max_positions: longest input, instruction included, in subwords.
    vocab_size: of the tokenizer that is trained on the first examples if tokenizer_path is null.
    tokenizer_path: a folder made by `python -m spacy vaner tokenizer`.
    """
    return SmallLlama(
        hidden_size=hidden_size,
        n_layers=n_layers,
        n_heads=n_heads,
        intermediate_size=intermediate_size,
        max_positions=max_positions,
        vocab_size=vocab_size,
        tokenizer_path=tokenizer_path,
        attn_implementation=attn_implementation,
    )


def pretrained(name: str, attn_implementation: Literal["eager", "sdpa"] = "sdpa") -> Pretrained:
    """A tagger that comes with the package: backbone and head, ready to use and to train on.

    name: its name in the package, or a folder that `python -m spacy vaner ship` wrote.
    """
    return Pretrained(name=name, attn_implementation=attn_implementation)


def lora(
    rank: int = 12,
    alpha: float = 32.0,
    dropout: float = 0.1,
    targets: str | list[str] = "all-linear",
) -> Lora:
    """Low-rank weights on a frozen backbone.

    rank: of the added matrices; size on disk and memory grow with it.
    alpha: their outputs are scaled by alpha / rank.
    dropout: on their input, in training.
    targets: "all-linear", as the paper says, or names of layers; the authors' code trains
        ["q_proj", "v_proj"].
    """
    return Lora(
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        targets=targets if isinstance(targets, str) else tuple(targets),
    )


def build_vaner_tagger(
    window: Callable[[Iterable[Doc]], list[list[Any]]],
    instruction: Callable[[str, str | None], str],
    backbone: HFBackbone | SmallLlama | Pretrained,
    adapter: Lora | None = None,
    labelled_subwords: Literal["first", "all"] = "first",
    max_subwords: int = 384,
    dropout: float = 0.1,
    question_width: int = 128,
) -> Model[list[Any], Any]:
    """Build the tagger; its weights are made or loaded later, by initialize or from_disk.

    window: a span getter. Ours, or one of spacy-transformers' (strided, sentence, document).
    instruction: a template that asks for a type.
    backbone: hf_backbone, small_llama or pretrained.
    adapter: LoRA, or null to train all parameters of the backbone.
    labelled_subwords: whether the loss is on the first subword of a unit or on all of them;
        prediction reads the first.
    max_subwords: longest run of text in one pass; the instruction comes on top, so that a long
        instruction does not shrink the window.
    dropout: between backbone and head, in training. `[training] dropout` is not used.
    question_width: of the hidden layer of a head for joint asking; a head per type has none.
    RAISES VanerError: VE012, max_subwords under 16; VE040, question_width under 1; VE024, no
        adapter on a backbone that is not fp32; VE152, none on one that is quantised.
    """
    if max_subwords < 16:
        raise VanerError(Messages.VE012.format(max_subwords=max_subwords))
    if question_width < 1:
        raise VanerError(Messages.VE040.format(question_width=question_width))
    check_trainable(backbone, adapter)
    if adapter is None and isinstance(backbone, HFBackbone) and backbone.dtype != "float32":
        raise VanerError(Messages.VE024.format(dtype=backbone.dtype))
    attrs = {
        "window": window,
        "instruction": instruction,
        "backbone": backbone,
        "adapter": adapter,
        "labelled_subwords": labelled_subwords,
        "max_subwords": max_subwords,
        "dropout": dropout,
        "question_width": question_width,
    }
    return Model("vaner_tagger", run_batch, attrs=attrs, shims=[TaggerShim()])


# Reading


def read_document(model: TaggerModel, doc: Doc) -> Reading:
    """Subwords, units and windows of a document."""
    tagger = get_tagger(model)
    assert tagger is not None
    return encode_document(
        doc,
        tagger.tokenizer,
        window=model.attrs["window"],
        max_subwords=model.attrs["max_subwords"],
    )


def share_rows(model: TaggerModel, questions: Sequence[Question]) -> list[list[int]]:
    """Indices of questions that are asked of the same rows: all of an adapter, or each alone."""
    tagger = get_tagger(model)
    assert tagger is not None
    if tagger.asking != "joint":
        return [[index] for index in range(len(questions))]
    groups: dict[int, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(id(tagger.adapters.for_type(question.type)), []).append(index)
    return list(groups.values())


def make_rows(model: TaggerModel, reading: Reading, *questions: Question) -> list[Row]:
    """One row per window, in the order of the windows, for the adapter of the types.

    questions: one, or several that share rows.
    """
    tagger = get_tagger(model)
    assert tagger is not None
    question, texts = questions[0], tuple(ask_text(model, one) for one in questions)
    is_joint = tagger.asking == "joint"
    before, after = tagger.frame_window("" if is_joint else texts[0])
    n_instruction = len(before) + len(after)
    longest = n_instruction + model.attrs["max_subwords"]
    if longest > tagger.max_positions:
        raise VanerError(
            Messages.VE014.format(
                type=question.type,
                n_instruction=n_instruction,
                max_subwords=model.attrs["max_subwords"],
                max_positions=tagger.max_positions,
            )
        )
    head, tail = np.array(before, dtype=np.int64), np.array(after, dtype=np.int64)
    adapter = tagger.adapters.for_type(question.type)
    return [
        Row(
            np.concatenate([head, reading.subword_ids[start:end], tail]),
            len(head),
            adapter,
            texts if is_joint else (),
        )
        for start, end in reading.windows.ranges
    ]


def ask_text(model: TaggerModel, question: Question) -> str:
    """What the tagger reads of a question: the instruction, or what is asked jointly."""
    from spacy_vaner.backbone.joint import question_text

    tagger = get_tagger(model)
    assert tagger is not None
    if tagger.asking == "joint":
        return question_text(question.type, question.corpus)
    instruction: Instruction = model.attrs["instruction"]
    return instruction(question.type, question.corpus)


def learns(model: TaggerModel, type_name: str) -> bool:
    """Whether training changes what tags a type: beneath adapters the tagger is frozen."""
    tagger = get_tagger(model)
    assert tagger is not None
    adapter = tagger.adapters.for_type(type_name)
    return not len(tagger.adapters) if adapter is None else adapter.trainable


# Prediction


class Answers(NamedTuple):
    """What the tagger says about one document.

    units: (units, 2), character offsets.
    probabilities: per question (units, 3), columns O B I.
    """

    units: IntArray
    probabilities: list[FloatArray]


def predict_probabilities(
    model: TaggerModel,
    docs: Sequence[Doc],
    questions: Sequence[Sequence[Question]],
    *,
    batch_subwords: int,
) -> list[Answers]:
    """Run the tagger over documents, each with its own questions.

    WARNS VanerWarning: VW011, memory ran out and the batch was halved.
    """
    readings = [read_document(model, doc) for doc in docs]
    answers = [
        Answers(reading.units, [np.zeros((len(reading.units), 3)) for _ in asked])
        for reading, asked in zip(readings, questions, strict=True)
    ]
    rows: list[Row] = []
    # Per row: where the probabilities of its answers go, the units that it labels, their positions.
    places: list[tuple[list[FloatArray], IntArray, IntArray]] = []
    for reading, answer, asked in zip(readings, answers, questions, strict=True):
        labelled = reading.units_by_window()
        for group in share_rows(model, asked):
            shared = make_rows(model, reading, *[asked[i] for i in group])
            for index, row in enumerate(shared):
                start = reading.windows.ranges[index][0]
                positions = reading.first[labelled[index]] - start + row.text_start
                rows.append(row)
                places.append(
                    ([answer.probabilities[i] for i in group], labelled[index], positions)
                )
    for batch in plan_rows(rows, batch_subwords):
        found = iter(_run_in_memory(model, [rows[i] for i in batch]))
        for index in batch:
            of_questions, units, positions = places[index]
            for probabilities in of_questions:
                probabilities[units] = softmax(next(found)[positions])
    return answers


def _run_in_memory(model: TaggerModel, rows: list[Row]) -> list[FloatArray]:
    """Logits per answer; halves the batch as long as memory runs out."""
    try:
        return list(model.predict(rows))
    except (MemoryError, RuntimeError) as error:
        if len(rows) == 1 or not _is_out_of_memory(error):
            raise
    warnings.warn(Messages.VW011.format(n_rows=len(rows)), VanerWarning, stacklevel=2)
    half = len(rows) // 2
    return [*_run_in_memory(model, rows[:half]), *_run_in_memory(model, rows[half:])]


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(
        words in str(error).lower() for words in ("out of memory", "can't allocate memory")
    )


# Weights


def initialize_tagger(
    model: TaggerModel,
    *,
    asking: str,
    device: str,
    precision: str,
    seed: int,
    texts: Iterable[str],
) -> None:
    """Make new weights: adapter and head, and the backbone itself where it is not pretrained.

    A pretrained tagger keeps its head, unless it is for asking otherwise.
    asking: "per_type" or "joint", which the head is made for.
    texts: to train the tokenizer of a small LLaMA that has none.
    """
    from spacy_vaner.backbone.building import build_tagger

    if isinstance(model.attrs["backbone"], Pretrained):
        _take_pretrained(model, asking=asking, device=device, precision=precision, seed=seed)
        return
    tagger = build_tagger(
        model.attrs["backbone"],
        model.attrs["adapter"],
        dropout=model.attrs["dropout"],
        question_width=model.attrs["question_width"] if asking == "joint" else None,
        device=device,
        precision=precision,
        seed=seed,
        texts=texts,
    )
    set_tagger(model, tagger)


def load_pretrained_tagger(
    model: TaggerModel, *, device: str, precision: str
) -> Optional["Tagger"]:
    """Load the tagger that comes with the package, where the model stands on one.

    RETURNS: the tagger in use; None where weights have to be made or loaded otherwise.
    """
    if get_tagger(model) is None and isinstance(model.attrs["backbone"], Pretrained):
        _take_pretrained(model, asking=None, device=device, precision=precision, seed=0)
    return get_tagger(model)


def _take_pretrained(
    model: TaggerModel, *, asking: str | None, device: str, precision: str, seed: int
) -> None:
    from spacy_vaner.backbone.saving import tagger_over

    settings = model.attrs["backbone"]
    tagger = tagger_over(
        read_shipped(settings.name),
        settings,
        model.attrs["adapter"],
        dropout=model.attrs["dropout"],
        question_width=model.attrs["question_width"] if asking == "joint" else None,
        asking=asking,
        device=device,
        precision=precision,
        seed=seed,
    )
    set_tagger(model, tagger)


def model_files(model: TaggerModel) -> dict[str, bytes]:
    """The weights as files, name to content; empty before weights are made."""
    from spacy_vaner.backbone.saving import tagger_files

    tagger = get_tagger(model)
    return tagger_files(tagger) if tagger is not None else {}


def load_model_files(
    model: TaggerModel, files: Mapping[str, bytes], *, device: str, precision: str
) -> None:
    """Load what model_files gave.

    The settings of the config hold for what can change from one machine to another: where the
    backbone is (so that a folder that has moved is found by changing `model.backbone.name`), its
    dtype and attn_implementation. Shapes, adapter and dropout are those that were saved.
    """
    from spacy_vaner.backbone.saving import tagger_from_files

    tagger = tagger_from_files(
        files, device=device, precision=precision, backbone=model.attrs["backbone"]
    )
    set_tagger(model, tagger)
