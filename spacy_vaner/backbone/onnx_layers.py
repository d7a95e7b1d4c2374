"""The layers of our LLaMA as a graph for ONNX Runtime, in 8 bits: the engine "onnx".

Products of states and weights are sums of whole numbers. Weights have a scale per output; states
are rounded anew before every product with a scale per subword, its own largest number. So no scale
has to be measured beforehand, and none depends on another row: a text gives the same states to the
bit in any batch. Attention, norms and the gate stay fp32, the embedding and the head stay in torch.

The graph is made from the weights when it is first needed. onnx and onnxruntime are imported then.
SOURCE: a scale per token: Yao et al., "ZeroQuant" (2022), section 4.2.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import Messages, VanerError
from .llama import Attention, FeedForward, Layer, Llama, Norm, rotary_angles

_LARGEST = 127
# Unsigned states: the form that processors multiply fastest; 0 stands at this number.
_ZERO = 128
_OPSET, _IR_VERSION = 21, 10
_CONTRIB = "com.microsoft"
_ERRORS_ONLY = 3
# A batch is run in parts that fit a processor's cache: parts of 1,024 subwords read 1.12 times as
# fast as 4,096 at once.
_PART_SUBWORDS = 1024
# Rows are padded to a multiple of it by their own length alone, and run beside rows of that width:
# attention adds up in another order in another width, and rounding to 8 bits makes more of it.
_WIDTH_STEP = 32


def is_installed() -> bool:
    """Whether the extra [onnx] is there."""
    return all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))


class OnnxLayers:
    """The layers of a decoder, with the weights that it had when this was made.

    A session is opened when it is first needed, and again in another process (it can be neither
    pickled nor forked) or when torch's number of threads has changed.
    RAISES VanerError: VE108, the extra [onnx] is not installed.
    """

    def __init__(self, decoder: Llama) -> None:
        if not is_installed():
            raise VanerError(Messages.VE108)
        self._graph = _graph_of(decoder)
        self._max_positions = decoder.config.max_position_embeddings
        self._opened_for: tuple[int, int] | None = None
        self._session: Any = None

    def __call__(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Run the layers.

        embedded: (B, S, hidden_size), fp32, on the CPU: what `embed_tokens` gives.
        lengths: (B,), real subwords per row, 1 or more.
        RETURNS: the last states, (B, S, hidden_size), fp32; what stands in padding means nothing.
        """
        session, size = self._open(), embedded.shape[1]
        widths = (-(-lengths // _WIDTH_STEP) * _WIDTH_STEP).clamp_max(self._max_positions)
        states = torch.zeros_like(embedded)
        for width in sorted({*widths.tolist()}):
            rows = (widths == width).nonzero().flatten()
            kept = min(width, size)
            for part in rows.split(max(1, _PART_SUBWORDS // width)):
                padded = embedded.new_zeros(len(part), width, embedded.shape[2])
                padded[:, :kept] = embedded[part, :kept]
                counts = lengths[part].to(torch.int32)
                feed = {"embedded": padded.numpy(), "lengths": counts.numpy()}
                states[part, :kept] = torch.from_numpy(session.run(None, feed)[0])[:, :kept]
        return states

    def _open(self) -> Any:
        needed = (os.getpid(), torch.get_num_threads())
        if self._session is None or self._opened_for != needed:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = needed[1]
            options.log_severity_level = _ERRORS_ONLY
            # Threads that spin while they wait take the processor from torch and other processes.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._session = onnxruntime.InferenceSession(
                self._graph, options, providers=["CPUExecutionProvider"]
            )
            self._opened_for = needed
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None, "_opened_for": None}


class _Graph:
    """Nodes and constants, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.step = self.constant("step", np.float32(1 / _LARGEST))
        self.zero = self.constant("zero", np.uint8(_ZERO))
        self.tiny = self.constant("tiny", np.float32(1e-30))
        self.last_axis = self.constant("last_axis", np.array([-1]))

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def add(
        self, kind: str, inputs: Sequence[str], *, contrib: bool = False, **options: Any
    ) -> str:
        """RETURNS: the name of what it gives."""
        return self.add_several(kind, inputs, [True], contrib=contrib, **options)[0]

    def add_several(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[bool],
        *,
        contrib: bool = False,
        **options: Any,
    ) -> list[str]:
        """outputs: which of them are wanted. RETURNS: their names; "" for the others."""
        from onnx import helper

        number = len(self.nodes)
        names = [f"{number}.{i}" if wanted else "" for i, wanted in enumerate(outputs)]
        domain = _CONTRIB if contrib else ""
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **options))
        return names

    def rounded(self, states: str) -> tuple[str, str]:
        """Round states to 8 bits. RETURNS: them, and the largest number of each: (B, S, 1)."""
        largest = self.add("ReduceMax", [self.add("Abs", [states]), self.last_axis], keepdims=1)
        largest = self.add("Max", [largest, self.tiny])
        shares = self.add("Div", [states, largest])
        return self.add("QuantizeLinear", [shares, self.step, self.zero]), largest

    def product(self, rounded: str, name: str, weight: Tensor) -> str:
        """Rounded states times a weight (outputs, inputs), still to be scaled by the largest."""
        scales = weight.abs().amax(1).clamp_min(1e-30) / _LARGEST
        numbers = (weight / scales[:, None]).round().to(torch.int8)
        inputs = [
            rounded,
            self.constant(name, numbers.T.numpy()),
            self.step,
            self.constant(f"{name}.scales", scales.numpy()),
            self.zero,
        ]
        return self.add("MatMulIntegerToFloat", inputs, contrib=True)

    def linear(self, rounded: tuple[str, str], name: str, weight: Tensor) -> str:
        return self.add("Mul", [self.product(rounded[0], name, weight), rounded[1]])


def _graph_of(decoder: Llama) -> bytes:
    """An ONNX model: embedded (B, S, H), lengths (B,) → states (B, S, H)."""
    from onnx import TensorProto, helper

    graph, shape = _Graph(), decoder.config
    positions = torch.arange(shape.max_position_embeddings)[None]
    angles = rotary_angles(shape, positions)[0, :, : shape.head_dim // 2]
    turns = [
        graph.constant("first_position", np.array([0])),
        graph.constant("cosines", angles.cos().numpy()),
        graph.constant("sines", angles.sin().numpy()),
    ]
    states, added = "embedded", ""
    with torch.no_grad():
        for number, layer in enumerate(decoder.layers):
            assert isinstance(layer, Layer)
            name = f"layers.{number}"
            # Each part gives what it adds, and the norm of the next part does the sum.
            normed, states = _norm(graph, f"{name}.in", layer.input_layernorm, states, added)
            added = _attention(graph, name, layer.self_attn, normed, turns)
            normed, states = _norm(
                graph, f"{name}.post", layer.post_attention_layernorm, states, added
            )
            added = _feed_forward(graph, name, layer.mlp, normed)
        last, _ = _norm(graph, "norm", decoder.norm, states, added)
    graph.nodes.append(helper.make_node("Identity", [last], ["states"]))
    whole: list[str | int | None] = ["rows", "size", shape.hidden_size]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "layers",
            [
                helper.make_tensor_value_info("embedded", TensorProto.FLOAT, whole),
                helper.make_tensor_value_info("lengths", TensorProto.INT32, ["rows"]),
            ],
            [helper.make_tensor_value_info("states", TensorProto.FLOAT, whole)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)],
        ir_version=_IR_VERSION,
    )
    serialized: bytes = model.SerializeToString()
    return serialized


def _norm(graph: _Graph, name: str, norm: Norm, states: str, added: str) -> tuple[str, str]:
    """RETURNS: the norm of states + added, and this sum."""
    weight = graph.constant(f"{name}.weight", norm.weight.float().numpy())
    epsilon = norm.epsilon
    if not added:
        kind = "SimplifiedLayerNormalization"
        return graph.add(kind, [states, weight], axis=-1, stash_type=1, epsilon=epsilon), states
    normed, _, _, total = graph.add_several(
        "SkipSimplifiedLayerNormalization",
        [states, added, weight],
        [True, False, False, True],
        contrib=True,
        epsilon=epsilon,
    )
    return normed, total


def _attention(
    graph: _Graph, name: str, attention: Attention, normed: str, turns: Sequence[str]
) -> str:
    rounded = graph.rounded(normed)
    layers: dict[str, nn.Linear] = {
        "q": attention.q_proj,
        "k": attention.k_proj,
        "v": attention.v_proj,
    }
    read = {}
    for part, layer in layers.items():
        weight = layer.weight.float()
        if part != "q":  # Heads that share keys and values get a copy each.
            heads = weight.view(-1, attention.head_dim, weight.shape[1])
            weight = heads.repeat_interleave(attention.n_sharing, 0).flatten(0, 1)
        read[part] = graph.linear(rounded, f"{name}.{part}", weight)
    n_heads = attention.q_proj.out_features // attention.head_dim
    for part in ("q", "k"):
        read[part] = graph.add(
            "RotaryEmbedding",
            [read[part], *turns],
            contrib=True,
            num_heads=n_heads,
            rotary_embedding_dim=0,
            interleaved=0,
        )
    inputs = [*read.values(), "", "lengths"]
    given = graph.add("MultiHeadAttention", inputs, contrib=True, num_heads=n_heads)
    return graph.linear(graph.rounded(given), f"{name}.o", attention.o_proj.weight.float())


def _feed_forward(graph: _Graph, name: str, part: FeedForward, normed: str) -> str:
    rounded = graph.rounded(normed)
    gate = graph.linear(rounded, f"{name}.gate", part.gate_proj.weight.float())
    gate = graph.add("QuickGelu", [gate], contrib=True, alpha=1.0)
    # Rounding does away with a factor per subword, so what scales `up` scales the result.
    up = graph.product(rounded[0], f"{name}.up", part.up_proj.weight.float())
    numbers, largest = graph.rounded(graph.add("Mul", [gate, up]))
    down = graph.product(numbers, f"{name}.down", part.down_proj.weight.float())
    return graph.add("Mul", [down, graph.add("Mul", [largest, rounded[1]])])
