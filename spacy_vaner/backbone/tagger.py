"""The tagger: backbone, adapter and head, and the passes through them.

building.py makes one, saving.py writes and reads its files.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Messages, VanerError, VanerWarning
from . import lora, quantization
from .adapters import Adapter, AdapterList
from .attention import ENCODERS, first_position, forward_arguments, self_check
from .joint import Asked, JointHead
from .llama import Llama
from .onnx_layers import OnnxLayers
from .pretrained import DecoderConfig, longest_input
from .settings import Backbone, Lora, SmallLlama
from .tokenizer import SubwordTokenizer
from .word_features import word_embedding

LABELS = ("O", "B", "I")
"""The columns of the tagger's output."""

_HEAD_STD = 0.02
# Mean error of states through 8 bits: 0.016 in a trained tagger, below 0.06 in wild random ones.
_ENGINE_TOLERANCE = 0.15


class Tagger(nn.Module):
    """A decoder or encoder that attends to both sides, with a layer to O, B, I on every subword.

    With an adapter only adapter and head are trainable, else everything.

    decoder: the backbone without an adapter.
    reference: fingerprints of a backbone that is stored elsewhere; None if it is saved with us.
    dropout: between state and head, in training.
    question_width: of a head for joint asking; None = a head that answers the instruction of a row.
    precision: "fp32" (computes in the parameters' dtype) or "bf16" (autocast); may be changed.
    engine: "torch", or "onnx" for what it can run (`fits_onnx`): passes without gradients and
        without a further adapter, in 8 bits whatever the precision; may be changed.
    is_packed: what 8 bits hold is saved in them.
    known_types: what it was trained for; None = it does not say.
    thresholds: type → the probability from which on its spans are worth taking; None = it does not
        say.
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
        self.thresholds: dict[str, float] | None = None
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
            return layers(embedding_of(self.backbone)(input_ids), lengths)
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

    @property
    def engine_in_use(self) -> str:
        """What has run the layers of the last text: "torch" too where ONNX Runtime failed."""
        return "onnx" if self.engine == "onnx" and self._onnx is not None else "torch"

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
        found = layers(embedding_of(self.backbone)(ids), lengths)
        mask = forward_arguments(self.config, ids, lengths, dtype=self._dtype, separator=None)
        # Any of the adapters may have been in use last.
        with self.adapters.active(None):
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
        return embedding_of(self.backbone).weight.dtype

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


def _new_head(hidden_size: int, question_width: int | None) -> nn.Module:
    if question_width is not None:
        return JointHead(hidden_size, question_width, len(LABELS))
    head = nn.Linear(hidden_size, len(LABELS), dtype=torch.float32)
    nn.init.normal_(head.weight, std=_HEAD_STD)
    nn.init.zeros_(head.bias)
    return head


def embedding_of(decoder: nn.Module) -> nn.Embedding:
    """The embedding of subwords of a backbone."""
    model: Any = decoder
    embedding: nn.Embedding = model.get_input_embeddings()
    return embedding
