"""The tagger: backbone, adapter and head, made fresh or from saved files.

Saved files (docs/formats.md, section 7): "tagger.json" describes, "weights.safetensors" holds
"head.*", "adapter.*" and, where the backbone is stored, "backbone.*"; with a stored backbone come
the tokenizer's files. A pretrained backbone under an adapter is frozen, so it is referred to.
The tagger that comes with the package, and what stands on it, is stored in 8 bits (packing.py).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from ..errors import Messages, VanerError, VanerWarning
from . import lora, packing, quantization
from .adapters import Adapter, AdapterList
from .attention import ENCODERS, first_position, forward_arguments, self_check
from .device import choose_device, choose_precision
from .joint import Asked, JointHead
from .llama import Llama, LlamaShape, make_llama
from .onnx_layers import OnnxLayers
from .pretrained import (
    DecoderConfig,
    checkpoint_layers,
    config_fingerprint,
    config_from_json,
    find_backbone,
    fresh_decoder,
    load_pretrained,
    longest_input,
    position_fingerprint,
    weights_fingerprint,
)
from .settings import (
    Backbone,
    HFBackbone,
    Lora,
    Pretrained,
    SmallLlama,
    backbone_from_dict,
    check_trainable,
    lora_from_dict,
)
from .tokenizer import SubwordTokenizer, train_bpe
from .word_features import word_embedding

FORMAT_VERSION, PACKED_VERSION = 1, 2
"""Of a saved tagger; the second where weights are packed, so that older versions refuse them."""
LABELS = ("O", "B", "I")
"""The columns of the tagger's output."""

_DESCRIPTION = "tagger.json"
_WEIGHTS = "weights.safetensors"
_HEAD_STD = 0.02
# Mean error of states through 8 bits: 0.016 in a trained tagger, below 0.06 in wild random ones.
_ENGINE_TOLERANCE = 0.15


class Tagger(nn.Module):
    """A decoder or encoder that attends to both sides, with a layer to O, B, I on every subword.

    Made by `build_tagger` and `tagger_from_files`. With an adapter only adapter and head are
    trainable, else everything.

    decoder: the backbone without an adapter.
    reference: fingerprints of a backbone that is stored elsewhere; None if it is saved with us.
    dropout: between state and head, in training.
    question_width: of a head for joint asking; None = a head that answers the instruction of a row.
    precision: "fp32" (computes in the parameters' dtype) or "bf16" (autocast); may be changed.
    engine: "torch", or "onnx" for what it can run (`fits_onnx`): passes without gradients and
        without a further adapter, in 8 bits whatever the precision; may be changed.
    is_packed: what 8 bits hold is saved in them.
    known_types: what it was trained for; None = it does not say.
    SOURCE: VANER, section 3.3, equations 2-4; differs: padding is masked.
    """

    def __init__(
        self,
        decoder: nn.Module,
        *,
        tokenizer: SubwordTokenizer,
        settings: Backbone,
        adapter: Lora | None,
        reference: dict[str, str] | None,
        dropout: float,
        question_width: int | None = None,
        precision: str,
    ) -> None:
        super().__init__()
        self._questions: dict[tuple[Adapter | None, str], Tensor] = {}
        self.tokenizer = tokenizer
        self.settings = settings
        self.adapter = adapter
        self.reference = reference
        config: Any = decoder.config
        self.config: DecoderConfig = config
        self.hidden_size = self.config.hidden_size
        self.max_positions = longest_input(self.config) - first_position(config)
        self._has_words = word_embedding(decoder) is not None
        self.backbone: nn.Module = lora.add_adapter(decoder, adapter) if adapter else decoder
        self.dropout = nn.Dropout(dropout)
        self.head = _new_head(self.hidden_size, question_width)
        self.is_packed = False
        self.known_types: tuple[str, ...] | None = None
        self._originals: lora.Originals | None = None
        self.engine = "torch"
        self._onnx: OnnxLayers | None = None
        self._onnx_fails = False
        self.precision = precision
        self.adapters = AdapterList(self)

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        adapter: Adapter | None = None,
        asked: Asked | None = None,
    ) -> Tensor:
        """Score every subword.

        input_ids: (B, S), padded on the right with any valid id.
        lengths: (B,), real subwords per row, 1 or more.
        adapter: one of `adapters`, whose updates and head are used; None = the tagger's own head.
        asked: what is asked of which row, where `asking` is "joint".
        RETURNS: (answers, S, 3), fp32 logits, columns O B I; what stands in padding means nothing.
            Without `asked` there is one answer per row.
        """
        top = self if adapter is None else adapter
        states = top.dropout(self.states(input_ids, lengths, adapter).float())
        # The head stays fp32 also where the backbone runs under autocast.
        with torch.autocast(states.device.type, enabled=False):
            logits: Tensor = top.head(states) if asked is None else top.head(states, asked)
        return logits

    @property
    def asking(self) -> str:
        """ "joint" where rows are read without instruction and questions come apart from them."""
        return "joint" if isinstance(self.head, JointHead) else "per_type"

    def question_vectors(self, texts: Sequence[str], adapter: Adapter | None = None) -> Tensor:
        """Read questions: the mean of the states over each one's subwords.

        In training they are read together and have gradients. Else each is read alone, so that it
        does not depend on the others to the last bit, and remembered until weights change.
        RETURNS: (texts, hidden_size), fp32.
        """
        top = self if adapter is None else adapter
        if top.training:
            return self._read_questions(texts, adapter)
        for text in texts:
            if (adapter, text) not in self._questions:
                with torch.no_grad():
                    self._questions[adapter, text] = self._read_questions([text], adapter)[0]
        return torch.stack([self._questions[adapter, text] for text in texts])

    def _read_questions(self, texts: Sequence[str], adapter: Adapter | None) -> Tensor:
        framed = [self.frame_window(text) for text in texts]
        ids = [[*before, *after] for before, after in framed]
        lengths = torch.tensor([len(row) for row in ids], device=self.device)
        width = int(lengths.max())
        padded = [row + [self.tokenizer.pad_id] * (width - len(row)) for row in ids]
        input_ids = torch.tensor(padded, device=self.device)
        states = self.states(input_ids, lengths, adapter).float()
        is_real = torch.arange(width, device=self.device) < lengths[:, None]
        sums: Tensor = (states * is_real[:, :, None]).sum(1)
        return sums / lengths[:, None]

    def forget_questions(self) -> None:
        """To be called when weights were changed from outside."""
        self._questions.clear()
        self._onnx, self._onnx_fails = None, False

    def states(self, input_ids: Tensor, lengths: Tensor, adapter: Adapter | None = None) -> Tensor:
        """Give the backbone's last states: (B, S, hidden_size), in the dtype that it computes."""
        if self._has_words:
            # A word must not go on into the padding behind it. Other backbones see it as it is, so
            # that the self-check proves the mask.
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
            input_ids = input_ids.masked_fill(positions >= lengths[:, None], self.tokenizer.pad_id)
        if adapter is None and (layers := self._onnx_layers()) is not None:
            return layers(_embedding(self.backbone)(input_ids), lengths)
        arguments = forward_arguments(
            self.config,
            input_ids,
            lengths,
            dtype=self._dtype,
            separator=self.tokenizer.separator_id,
        )
        autocast = torch.autocast(
            input_ids.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )
        with self.adapters.active(adapter), autocast:
            states: Tensor = self.backbone(input_ids=input_ids, **arguments).last_hidden_state
        return states

    @property
    def fits_onnx(self) -> bool:
        """Whether the engine "onnx" can run it: a LLaMA of ours without LoRA, on the CPU."""
        return isinstance(self.backbone, Llama) and self.device.type == "cpu"

    @property
    def engine(self) -> str:
        """What runs the layers: "torch", or "onnx" where it can."""
        return self._engine

    @engine.setter
    def engine(self, engine: str) -> None:
        self._engine = engine
        self.forget_questions()

    def _onnx_layers(self) -> OnnxLayers | None:
        """The layers as ONNX Runtime runs them, where it does.

        WARNS VanerWarning: VW108, it computes something else than torch.
        """
        if self.engine != "onnx" or self._onnx_fails or torch.is_grad_enabled():
            return None
        if self._onnx is None and self.fits_onnx:
            assert isinstance(self.backbone, Llama)
            self._onnx = OnnxLayers(self.backbone)
            try:
                self.check_attention()
                self._compare_engines(self._onnx)
            except Exception as error:  # of onnxruntime, which has classes of its own
                self._onnx, self._onnx_fails = None, True
                message = Messages.VW108.format(error=error)
                warnings.warn(message, VanerWarning, stacklevel=2)
        return self._onnx

    def _compare_engines(self, layers: OnnxLayers) -> None:
        """Prove that both engines give like states: old processors cut sums of products off.

        RAISES ValueError: they do not.
        """
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, self.config.vocab_size, (2, 16), generator=generator)
        lengths = torch.tensor([16, 16])
        found = layers(_embedding(self.backbone)(ids), lengths)
        mask = forward_arguments(self.config, ids, lengths, dtype=self._dtype, separator=None)
        expected = self.backbone(input_ids=ids, **mask).last_hidden_state
        error = float((found - expected).abs().mean() / expected.abs().mean())
        if not error <= _ENGINE_TOLERANCE:
            raise ValueError(f"states differ by {error:.2g}")

    def frame_window(self, instruction: str) -> tuple[list[int], list[int]]:
        """Encode what a window stands between, as the backbone expects it.

        RETURNS: ids before and after the window. For a decoder BOS and the instruction, and
            nothing; for an encoder a pair of two texts: [CLS] instruction [SEP] and [SEP], say.
        """
        if self.config.model_type in ENCODERS:
            return self.tokenizer.encode_first_segment(instruction)
        return self.tokenizer.encode_instruction(instruction), []

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    @property
    def precision(self) -> str:
        """What the backbone computes in: "fp32" or "bf16"."""
        return self._precision

    @precision.setter
    def precision(self, precision: str) -> None:
        self._precision = precision
        self.forget_questions()
        quantization.set_compute_dtype(
            self.backbone, torch.bfloat16 if precision == "bf16" else None
        )

    @property
    def is_merged(self) -> bool:
        return self._originals is not None

    def merge_adapter(self) -> None:
        """Add the adapter to the backbone's weights, for faster inference; without one, nothing.

        Predictions stay equal up to rounding. The weights from before are kept, at the cost of
        their memory; `unmerge_adapter` and `train` bring them back to the bit. The sums are not
        quantised: they take the memory of a dense backbone.
        RAISES VanerError: VE106, the merged weights fail the self-check.
        """
        if self.adapter is None or self.is_merged:
            return
        self._originals = lora.merge(self.backbone)
        self.forget_questions()
        try:
            self.check_attention()
        except VanerError:
            self.unmerge_adapter()
            raise

    def unmerge_adapter(self) -> None:
        """Undo `merge_adapter`."""
        if self._originals is not None:
            lora.unmerge(self.backbone, self._originals)
            self._originals = None
            self.forget_questions()

    def train(self, mode: bool = True) -> Tagger:
        if mode:
            self.forget_questions()
        is_frozen = len(self.adapters) > 0
        if mode and not is_frozen:
            self.unmerge_adapter()
        super().train(mode)
        if mode and is_frozen:
            # Beneath adapters the backbone stays merged, and has no dropout; it is in training
            # mode all the same, since gradient checkpointing works in no other.
            for module in self.backbone.modules():
                if isinstance(module, nn.Dropout):
                    module.train(False)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Tagger:
        # Moved to another device or dtype.
        self.forget_questions()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def check_attention(self) -> None:
        """Run the self-check on the weights in use.

        RAISES VanerError: VE106, attention is not bidirectional or padding leaks; VE107, the
            backbone cannot be run this way at all.
        """
        was_training = self.training
        super().train(False)
        try:
            self_check(
                self.states,
                vocab_size=self.config.vocab_size,
                device=self.device,
                dtype=torch.bfloat16
                if self.precision == "bf16" or self._onnx is not None
                else self._dtype,
                backbone=self.backbone_name,
                attn_implementation=self.settings.attn_implementation,
            )
        except VanerError:
            raise
        except (
            TypeError,
            ValueError,
            LookupError,
            RuntimeError,
        ) as error:  # from the model's own code
            raise VanerError(
                Messages.VE107.format(backbone=self.backbone_name, error=error)
            ) from error
        finally:
            super().train(was_training)

    @property
    def _dtype(self) -> torch.dtype:
        # The adapter is fp32 whatever the decoder is; the embedding is never adapted.
        return _embedding(self.backbone).weight.dtype

    @property
    def backbone_name(self) -> str:
        """What it is called in messages."""
        name = "small_llama" if isinstance(self.settings, SmallLlama) else self.settings.name
        return f"{name} ({self.config.model_type})"

    def saved_parameters(self) -> dict[str, nn.Parameter]:
        """Name the parameters that are saved: head, adapter, and a backbone that is stored."""
        adapter = lora.adapter_parameters(self.backbone)
        named = {f"head.{name}": parameter for name, parameter in self.head.named_parameters()}
        named.update({f"adapter.{name}": parameter for name, parameter in adapter.items()})
        if self.reference is None:
            base = lora.base_parameters(self.backbone)
            named.update({f"backbone.{name}": parameter for name, parameter in base.items()})
        return named

    def saved_weights(self) -> dict[str, Tensor]:
        """Give the values of `saved_parameters`, on the CPU; without the adapter merged in."""
        weights: dict[str, Tensor] = dict(self.saved_parameters())
        if self.reference is None and self._originals is not None:
            originals = self._originals.weights
            weights.update({f"backbone.{name}": t for name, t in originals.items()})
        return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def build_tagger(
    settings: HFBackbone | SmallLlama,
    adapter: Lora | None,
    *,
    dropout: float = 0.1,
    question_width: int | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    seed: int = 0,
    texts: Iterable[str] | None = None,
    tokenizer: SubwordTokenizer | None = None,
) -> Tagger:
    """Make a tagger with a fresh head and adapter, and fresh weights for a SmallLlama.

    question_width: of a head for joint asking; None = a head for asking per type.
    device, precision: as in the component's settings; "auto" is resolved.
    seed: of all fresh weights; the global generators are left as they are.
    texts: to train a tokenizer on, read only where a SmallLlama has no other.
    tokenizer: used instead of the settings' one.
    RAISES VanerError: VE103-VE107, VE110-VE113, VE120-VE127, VE151-VE155.
    """
    check_trainable(settings, adapter)
    reference = None
    make_decoder: Callable[[], nn.Module]
    if isinstance(settings, HFBackbone):
        folder = find_backbone(settings)
        tokenizer = tokenizer or SubwordTokenizer.from_folder(folder)
        if adapter:
            reference = _fingerprints(folder, tokenizer)
        make_decoder = partial(load_pretrained, folder, settings)
    else:
        tokenizer = tokenizer or _small_llama_tokenizer(settings, texts)
        shape = LlamaShape.of(settings, tokenizer.n_tokens)
        make_decoder = partial(make_llama, shape, settings.attn_implementation)
    tagger = _assemble(
        make_decoder,
        tokenizer=tokenizer,
        settings=settings,
        adapter=adapter,
        reference=reference,
        dropout=dropout,
        question_width=question_width,
        precision=precision,
        device=device,
        seed=seed,
    )
    tagger.check_attention()
    return tagger


def tagger_files(tagger: Tagger) -> dict[str, bytes]:
    """Give the files of a tagger, by name; equal taggers give equal bytes.

    A merged adapter is saved as it was before merging.
    """
    tensors = tagger.saved_weights()
    weights = save_tensors(packing.pack(tensors) if tagger.is_packed else tensors)
    description: dict[str, Any] = {
        "format_version": PACKED_VERSION if tagger.is_packed else FORMAT_VERSION,
        "backbone": tagger.settings.to_dict(),
        "backbone_reference": tagger.reference,
        "adapter": tagger.adapter.to_dict() if tagger.adapter else None,
        "head": {"labels": list(LABELS), "dropout": tagger.dropout.p},
        "hidden_size": tagger.hidden_size,
        "tokenizer": tagger.tokenizer.fingerprint(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    if isinstance(tagger.head, JointHead):
        description["head"]["question_width"] = tagger.head.width
    if tagger.known_types is not None:
        description["known_types"] = list(tagger.known_types)
    files = {_WEIGHTS: weights}
    if tagger.reference is None:
        files.update(tagger.tokenizer.to_files())
        if not isinstance(tagger.settings, SmallLlama):
            config = json.loads(tagger.config.to_json_string(False))
            # Where it was when it was trained; the settings say so where that is of use.
            config.pop("_name_or_path", None)
            description["backbone_config"] = config
    files[_DESCRIPTION] = json.dumps(description, indent=2, sort_keys=True).encode("utf8")
    return {**files, **tagger.adapters.files()}


def tagger_from_files(
    files: Mapping[str, bytes],
    *,
    device: torch.device | str,
    precision: str,
    backbone: Backbone | None = None,
) -> Tagger:
    """Undo `tagger_files`; predictions are equal to the bit.

    device, precision: as in the component's settings; "auto" is resolved.
    backbone: settings to use instead of the saved ones for what may differ between machines: name,
        revision, dtype, attn_implementation and quantization of a pretrained backbone,
        attn_implementation of a small LLaMA. Of another kind than what was saved: not used.
    RAISES VanerError: VE130-VE137, the files or the backbone are not what was saved; VE120-VE124
        and VE151-VE155, the backbone cannot be found or loaded; VE103-VE107.
    WARNS VanerWarning: VW151, another quantization than that of the saved tagger.
    """
    description = _read_description(files)
    try:
        settings = backbone_from_dict(description["backbone"])
        saved_adapter = description["adapter"]
        adapter = lora_from_dict(saved_adapter) if saved_adapter is not None else None
        reference = description["backbone_reference"]
        dropout = float(description["head"]["dropout"])
        width = description["head"].get("question_width")
        sha256 = description["weights_sha256"]
    except (KeyError, TypeError, AttributeError) as error:
        raise VanerError(Messages.VE131.format(file=_DESCRIPTION, error=repr(error))) from None
    if isinstance(settings, HFBackbone) and isinstance(backbone, HFBackbone):
        saved, settings = settings, backbone
        if saved.quantization != settings.quantization:
            message = Messages.VW151.format(saved=saved.quantization, now=settings.quantization)
            warnings.warn(message, VanerWarning, stacklevel=2)
    elif isinstance(backbone, (SmallLlama, Pretrained)) and type(backbone) is type(settings):
        settings = replace(settings, attn_implementation=backbone.attn_implementation)
    check_trainable(settings, adapter)
    tensors = _read_weights(files, sha256)

    make_decoder: Callable[[], nn.Module]
    if reference is not None:
        if not isinstance(settings, HFBackbone):
            raise VanerError(Messages.VE131.format(file=_DESCRIPTION, error="backbone_reference"))
        folder = find_backbone(settings)
        tokenizer = SubwordTokenizer.from_folder(folder)
        _check_fingerprints(reference, _fingerprints(folder, tokenizer), folder)
        make_decoder = partial(load_pretrained, folder, settings)
    else:
        tokenizer = _stored_tokenizer(files, description)
        make_decoder = _stored_decoder(description, settings, tokenizer)
    tagger = _assemble(
        make_decoder,
        tokenizer=tokenizer,
        settings=settings,
        adapter=adapter,
        reference=reference,
        dropout=dropout,
        question_width=None if width is None else int(width),
        precision=precision,
        device=device,
        seed=0,
    )
    _set_weights(tagger, tensors, tagger.saved_parameters())
    _set_facts(tagger, description)
    tagger.check_attention()
    tagger.adapters.load(files)
    return tagger.eval()


def tagger_over(
    files: Mapping[str, bytes],
    settings: Pretrained,
    adapter: Lora | None,
    *,
    dropout: float,
    question_width: int | None,
    asking: str | None = None,
    device: torch.device | str,
    precision: str,
    seed: int = 0,
) -> Tagger:
    """Make a tagger that goes on from a saved one which stores its backbone.

    files: as `tagger_files` gives them.
    settings: what the new tagger says that it stands on.
    adapter: a fresh one over its backbone, which is then frozen; None = all of it is trainable.
    question_width: of a new head, where one is made for joint asking.
    asking: "joint" or "per_type"; None = as the saved tagger. Where that asks the other way, only
        its backbone is taken, and the head is new.
    RAISES VanerError: VE130-VE135, VE137, the files; VE127, the adapter.
    """
    description = _read_description(files)
    try:
        saved_width = description["head"].get("question_width")
        sha256 = description["weights_sha256"]
    except (KeyError, TypeError, AttributeError) as error:
        raise VanerError(Messages.VE131.format(file=_DESCRIPTION, error=repr(error))) from None
    keeps_head = asking is None or (asking == "joint") == (saved_width is not None)
    tensors = _read_weights(files, sha256)
    tokenizer = _stored_tokenizer(files, description)
    tagger = _assemble(
        _stored_decoder(description, settings, tokenizer),
        tokenizer=tokenizer,
        settings=settings,
        adapter=adapter,
        reference=None,
        dropout=dropout,
        question_width=saved_width if keeps_head else question_width,
        precision=precision,
        device=device,
        seed=seed,
    )
    taken = ("backbone.", "head.") if keeps_head else ("backbone.",)
    places = {n: p for n, p in tagger.saved_parameters().items() if n.startswith(taken)}
    _set_weights(tagger, {n: t for n, t in tensors.items() if n.startswith(taken)}, places)
    _set_facts(tagger, description)
    tagger.check_attention()
    return tagger.eval()


def set_tagger_weights(tagger: Tagger, files: Mapping[str, bytes]) -> None:
    """Take over the weights of another tagger of the same shape, adapters aside.

    files: as `tagger_files` gives them.
    RAISES VanerError: VE130-VE135.
    """
    tensors = _read_weights(files, _read_description(files).get("weights_sha256"))
    _set_weights(tagger, tensors, tagger.saved_parameters())
    tagger.forget_questions()


def _assemble(
    make_decoder: Callable[[], nn.Module],
    *,
    tokenizer: SubwordTokenizer,
    settings: Backbone,
    adapter: Lora | None,
    reference: dict[str, str] | None,
    dropout: float,
    question_width: int | None,
    precision: str,
    device: torch.device | str,
    seed: int,
) -> Tagger:
    device = choose_device(str(device))
    precision = choose_precision(precision, device)
    # Only the CPU's generator draws here: torch.manual_seed would reseed CUDA's as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        decoder = make_decoder()
        n_rows = _embedding(decoder).num_embeddings
        # Embeddings are padded by a few rows; half of them unused is another model's tokenizer.
        if not n_rows / 2 <= tokenizer.n_tokens <= n_rows:
            raise VanerError(Messages.VE125.format(n_tokens=tokenizer.n_tokens, n_rows=n_rows))
        words = word_embedding(decoder)
        if words is not None:
            words.bind(tokenizer)
        if isinstance(settings, HFBackbone):
            if settings.quantization is not None:
                quantization.quantize(decoder, settings.quantization, device)
        tagger = Tagger(
            decoder,
            tokenizer=tokenizer,
            settings=settings,
            adapter=adapter,
            reference=reference,
            dropout=dropout,
            question_width=question_width,
            precision=precision,
        )
        # Not before the adapter is on: peft would hook a closure to the embeddings, which cannot be
        # pickled.
        if isinstance(settings, HFBackbone) and settings.gradient_checkpointing:
            checkpoint_layers(decoder, settings.name)
    return tagger.to(device)


def _new_head(hidden_size: int, question_width: int | None) -> nn.Module:
    if question_width is not None:
        return JointHead(hidden_size, question_width, len(LABELS))
    head = nn.Linear(hidden_size, len(LABELS), dtype=torch.float32)
    nn.init.normal_(head.weight, std=_HEAD_STD)
    nn.init.zeros_(head.bias)
    return head


def _embedding(decoder: nn.Module) -> nn.Embedding:
    model: Any = decoder
    embedding: nn.Embedding = model.get_input_embeddings()
    return embedding


def _small_llama_tokenizer(settings: SmallLlama, texts: Iterable[str] | None) -> SubwordTokenizer:
    if settings.tokenizer_path is not None:
        return SubwordTokenizer.from_folder(Path(settings.tokenizer_path).expanduser())
    if texts is None:
        raise VanerError(Messages.VE126)
    return train_bpe(texts, vocab_size=settings.vocab_size)


def _stored_tokenizer(
    files: Mapping[str, bytes], description: Mapping[str, Any]
) -> SubwordTokenizer:
    tokenizer = SubwordTokenizer.from_files(files)
    if tokenizer.fingerprint() != description.get("tokenizer"):
        raise VanerError(Messages.VE137)
    return tokenizer


def _stored_decoder(
    description: Mapping[str, Any], settings: Backbone, tokenizer: SubwordTokenizer
) -> Callable[[], nn.Module]:
    """How to make the decoder of a tagger that stores its backbone.

    What has been tuned as transformers computes it goes on so; else our own LLaMA takes over.
    """
    if isinstance(settings, SmallLlama):
        shape = LlamaShape.of(settings, tokenizer.n_tokens)
        return partial(make_llama, shape, settings.attn_implementation)
    try:
        saved = description["backbone_config"]
        plain = LlamaShape.from_config(saved) if isinstance(settings, Pretrained) else None
        if plain is not None:
            return partial(make_llama, plain, settings.attn_implementation)
        return partial(fresh_decoder, config_from_json(saved), settings.attn_implementation)
    except (KeyError, TypeError, ValueError) as error:
        raise VanerError(Messages.VE131.format(file=_DESCRIPTION, error=repr(error))) from None


def _fingerprints(folder: Path, tokenizer: SubwordTokenizer) -> dict[str, str]:
    return {
        "config": config_fingerprint(folder),
        "positions": position_fingerprint(folder),
        "tokenizer": tokenizer.fingerprint(),
        "weights": weights_fingerprint(folder),
    }


def _check_fingerprints(saved: object, found: dict[str, str], folder: Path) -> None:
    known = saved if isinstance(saved, dict) else {}
    # What version 0.1.0 saved has no word on positions.
    known = {"positions": found["positions"], **known}
    if known != found:
        parts = [part for part in found if known.get(part) != found[part]]
        raise VanerError(Messages.VE136.format(folder=folder, parts=", ".join(parts)))


def _read_description(files: Mapping[str, bytes]) -> dict[str, Any]:
    for name in (_DESCRIPTION, _WEIGHTS):
        if name not in files:
            raise VanerError(Messages.VE130.format(file=name))
    try:
        description = json.loads(files[_DESCRIPTION])
        version = description["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise VanerError(Messages.VE131.format(file=_DESCRIPTION, error=repr(error))) from None
    if version not in (FORMAT_VERSION, PACKED_VERSION):
        raise VanerError(Messages.VE132.format(version=version, known=PACKED_VERSION))
    checked: dict[str, Any] = description
    return checked


def _read_weights(files: Mapping[str, bytes], sha256: object) -> dict[str, Tensor]:
    weights = files[_WEIGHTS]
    if hashlib.sha256(weights).hexdigest() != sha256:
        raise VanerError(Messages.VE133.format(file=_WEIGHTS, described_in=_DESCRIPTION))
    try:
        tensors: dict[str, Tensor] = load_tensors(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise VanerError(Messages.VE134.format(file=_WEIGHTS, error=error)) from None
    return packing.unpack(tensors)


def _set_facts(tagger: Tagger, description: Mapping[str, Any]) -> None:
    tagger.is_packed = description["format_version"] == PACKED_VERSION
    known_types = description.get("known_types")
    tagger.known_types = None if known_types is None else tuple(map(str, known_types))


def _set_weights(
    tagger: Tagger, tensors: Mapping[str, Tensor], places: Mapping[str, nn.Parameter]
) -> None:
    """Put saved tensors into their places; each has to have one, of its shape."""
    wrong = [
        f"{name}: {tuple(tensors[name].shape) if name in tensors else 'missing'} instead of "
        f"{tuple(places[name].shape) if name in places else 'nothing'}"
        for name in sorted(places.keys() | tensors.keys())
        if name not in tensors or name not in places or tensors[name].shape != places[name].shape
    ]
    if wrong:
        raise VanerError(
            Messages.VE135.format(
                file=_WEIGHTS, described_in=_DESCRIPTION, n_wrong=len(wrong), first=wrong[0]
            )
        )
    for name, place in places.items():
        # Replaced, not copied: a fully trained backbone may be bf16 where a fresh one is fp32.
        place.data = tensors[name].to(place.device)
