"""A decoder's forward pass in ONNX Runtime's fused operators, written from the weights.

ONNX Runtime's Transformer optimiser fuses no attention of a decoder with a cache, so the graph is written: attention
as ``GroupQueryAttention`` over a cache that is one buffer, past and present at the same address, with the rotary angles
inside; normalisations with the addition before them; activations with their bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ceilings.errors import CellFailure, UserError
from ceilings.graphs.decoding import LENGTHS, TOTAL
from ceilings.models import weights_folder
from ceilings.workload.generation import Decoder
from ceilings.workload.workload import Workload

OPSET = 17
MICROSOFT = "com.microsoft"
IR_VERSION = 8

TYPES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
"""Types of a cache that such a graph is written for."""

LEAST_PLACES = 512
"""ONNX Runtime takes integer constants of up to 100 elements for arithmetic on shapes and puts it on the CPU."""

GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
"""Names of the GELU by the hyperbolic tangent."""

SCALED = ("linear", "llama3", "yarn", "dynamic")
"""Kinds of rotary positions, beside the default one, whose angles are the same for every context that a model has."""

LLAMAS = ("llama", "mistral", "qwen2")
"""Architectures of RMS normalisation, rotary positions, grouped queries and a gated SiLU."""


def build(weights_dir: Path | str, kind: int) -> onnx.ModelProto:
    """The fused graph of a weights folder.

    Args:
        weights_dir: A folder of a causal language model.
        kind: Element type of weights and cache, of ``TYPES``.

    Raises:
        CellFailure: The architecture, a part of its configuration or the type has no form here.
        UserError: Damaged weights.
    """
    workload = Workload.read(weights_dir)
    decoder = workload.decoder
    if decoder is None:
        raise UserError(f"{weights_dir} holds no decoder; its task is {workload.task.name}")
    if kind not in TYPES:
        raise _refusal(f"a cache of {TensorProto.DataType.Name(kind).lower()}", "use fp32 or fp16")
    config = weights_folder.read_config(weights_dir)
    weights = _weights(Path(weights_dir, weights_folder.WEIGHTS))
    if workload.architecture == "gpt2":
        writer: _Writer = _Gpt2(weights_dir, decoder, config, weights, kind)
    elif workload.architecture in LLAMAS:
        writer = _Llama(weights_dir, decoder, config, weights, kind)
    else:
        raise _refusal(f"the architecture {workload.architecture}", f"known: gpt2, {', '.join(LLAMAS)}")
    return writer.model()


def _weights(path: Path) -> dict[str, NDArray[Any]]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: tensor.to(torch.float32).numpy() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); {weights_folder.REMEDY}") from None


def _refusal(what: str, remedy: str) -> CellFailure:
    return CellFailure("unsupported", f"no fused graph of a decoder is written for {what}; {remedy}")


class _Writer:
    """What the architectures share: names, weights, attention, the end of a forward pass."""

    def __init__(
        self,
        folder: Path | str,
        decoder: Decoder,
        config: Mapping[str, Any],
        weights: Mapping[str, NDArray[Any]],
        kind: int,
    ) -> None:
        self.folder = folder
        self.decoder = decoder
        self.config = config
        self.weights = weights
        self.kind = kind
        self.numpy = np.dtype(TYPES[kind])
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.places = max(decoder.positions or int(config.get("max_position_embeddings", 0)), LEAST_PLACES)

    def body(self) -> str:
        """Write all layers; the name of the last token's normalised state, (batch, hidden)."""
        raise NotImplementedError

    def head(self) -> str:
        """The name of the vocabulary's matrix, (vocabulary, hidden)."""
        raise NotImplementedError

    def model(self) -> onnx.ModelProto:
        """The graph with its interface."""
        dtype = TYPES[self.kind]
        logits = self.node("Gemm", [self.body(), self.head()], "logits.out", transB=1)
        self.node("Cast", [logits], "logits", to=TensorProto.FLOAT)
        self.node("ArgMax", ["logits"], "token", axis=-1, keepdims=1)
        inputs = [
            helper.make_tensor_value_info(t.name, helper.np_dtype_to_tensor_dtype(np.dtype(t.dtype)), t.dims)
            for t in self.decoder.step_inputs(dtype)
        ]
        inputs += [
            helper.make_tensor_value_info(LENGTHS, TensorProto.INT32, ["batch"]),
            helper.make_tensor_value_info(TOTAL, TensorProto.INT32, [1]),
        ]
        outputs = [
            helper.make_tensor_value_info(t.name, helper.np_dtype_to_tensor_dtype(np.dtype(t.dtype)), t.dims)
            for t in self.decoder.step_outputs(dtype)
        ]
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, list(self.constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)

    # ---- parts -------------------------------------------------------------------------------------------------------

    def node(self, operator: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: Any) -> str:
        """Write a node; the name of its first output."""
        outputs = [output] if isinstance(output, str) else list(output)
        domain = attributes.pop("domain", "")
        name = f"{operator}.{outputs[0]}"
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, name, domain=domain, **attributes))
        return outputs[0]

    def fused(self, operator: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: Any) -> str:
        """Write a node of ONNX Runtime's."""
        return self.node(operator, inputs, output, domain=MICROSOFT, **attributes)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Store a tensor, a real one in the graph's type."""
        if name not in self.constants:
            value = value.astype(self.numpy) if value.dtype.kind == "f" else value
            self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def weight(self, name: str, transpose: bool = False) -> str:
        """Store a tensor of the checkpoint."""
        value = self.weights[name]
        return self.constant(f"{name}.T" if transpose else name, value.T if transpose else value)

    def has(self, name: str) -> bool:
        """Whether the checkpoint has a tensor."""
        return name in self.weights

    def positions(self) -> str:
        """Place of each token in its row, int32 (batch, tokens): the last one's is the row's entry of ``LENGTHS``.

        Cut from a constant, so that nothing but its bounds is arithmetic on shapes.
        """
        last = np.arange(1 - self.places, 1, dtype=np.int32)
        sizes = self.node("Shape", ["input_ids"], "ids.sizes", start=1, end=2)
        begin = self.node("Neg", [sizes], "places.begin")
        end = self.constant("places.end", np.array([np.iinfo(np.int64).max]))
        axis = self.constant("places.axis", np.array([0]))
        back = self.node("Slice", [self.constant("places.all", last), begin, end, axis], "places.back")
        lengths = self.node("Unsqueeze", [LENGTHS, self.constant("places.rows", np.array([1]))], "places.last")
        return self.node("Add", [lengths, back], "positions")

    def attention(self, layer: int, packed: str, angles: Sequence[str] = (), scale: float = 0.0) -> str:
        """Attention over queries, keys and values side by side, (batch, tokens, heads * head size) of each."""
        inputs = [packed, "", "", f"past.{layer}.key", f"past.{layer}.value", LENGTHS, TOTAL, *angles]
        outputs = [f"layer{layer}.attention", f"present.{layer}.key", f"present.{layer}.value"]
        return self.fused(
            "GroupQueryAttention",
            inputs,
            outputs,
            num_heads=self.decoder.heads,
            kv_num_heads=self.decoder.kv_heads,
            do_rotary=int(bool(angles)),
            **({"scale": scale} if scale else {}),
        )

    def product(self, state: str, weight: str, bias: str | None, output: str) -> str:
        """A product with a matrix (in, out) of the graph, with its bias."""
        made = self.node("MatMul", [state, weight], f"{output}.product" if bias else output)
        return self.node("Add", [made, bias], output) if bias else made

    def last(self, state: str, output: str) -> str:
        """A state's last token, (batch, hidden)."""
        return self.node("Gather", [state, self.constant("last", np.array(-1))], output, axis=1)


class _Gpt2(_Writer):
    """Learned positions, layer normalisation, a joint projection, GELU."""

    def body(self) -> str:
        config, eps = self.config, float(self.config.get("layer_norm_epsilon", 1e-5))
        activation = config.get("activation_function", "gelu_new")
        if activation not in GELUS:
            raise _refusal(f"the activation {activation}", f"known: {', '.join(GELUS)}")
        if config.get("add_cross_attention"):
            raise _refusal("attention to an encoder", "leave the model out of runtimes with fusion")
        ids = self.node("Gather", [self.weight("transformer.wte.weight"), "input_ids"], "embedded")
        places = self.node("Gather", [self.weight("transformer.wpe.weight"), self.positions()], "placed")
        residual, delta, bias = ids, places, ""
        for layer in range(self.decoder.layers):
            h = f"transformer.h.{layer}"
            state, residual = self._norm(residual, delta, bias, f"{h}.ln_1", eps)
            packed = self._linear(state, f"{h}.attn.c_attn", f"layer{layer}.packed")
            attended = self.attention(layer, packed, scale=self._scale(layer))
            delta = self.node("MatMul", [attended, self.weight(f"{h}.attn.c_proj.weight")], f"layer{layer}.projected")
            bias = self.weight(f"{h}.attn.c_proj.bias")
            state, residual = self._norm(residual, delta, bias, f"{h}.ln_2", eps)
            up = self.node("MatMul", [state, self.weight(f"{h}.mlp.c_fc.weight")], f"layer{layer}.up")
            active = self.fused("FastGelu", [up, self.weight(f"{h}.mlp.c_fc.bias")], f"layer{layer}.active")
            delta = self.node("MatMul", [active, self.weight(f"{h}.mlp.c_proj.weight")], f"layer{layer}.down")
            bias = self.weight(f"{h}.mlp.c_proj.bias")
        residual, delta = self.last(residual, "residual.last"), self.last(delta, "delta.last")
        return self._norm(residual, delta, bias, "transformer.ln_f", eps)[0]

    def head(self) -> str:
        tied = "transformer.wte.weight"
        return self.weight("lm_head.weight" if self.has("lm_head.weight") else tied)

    def _norm(self, residual: str, delta: str, bias: str, name: str, eps: float) -> tuple[str, str]:
        """Normalised sum, and the sum."""
        scales = [self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        inputs = [delta, residual, *scales, *([bias] if bias else [])]
        outputs = [f"{name}.out", "", "", f"{name}.sum"]
        self.fused("SkipLayerNormalization", inputs, outputs, epsilon=eps)
        return outputs[0], outputs[3]

    def _linear(self, state: str, name: str, output: str) -> str:
        return self.product(state, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), output)

    def _scale(self, layer: int) -> float:
        scale = self.decoder.head_size**-0.5 if self.config.get("scale_attn_weights", True) else 1.0
        return scale / (layer + 1) if self.config.get("scale_attn_by_inverse_layer_idx") else scale


def _rotary(weights_dir: Path | str) -> tuple[NDArray[Any], float]:
    """Frequencies of rotary positions (half a head's size), and what cosines and sines are multiplied by.

    As Transformers computes them, for every kind whose angles stay what they are while a text grows.
    """
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config: Any = AutoConfig.from_pretrained(weights_dir)
    kind, size = config.rope_parameters["rope_type"], _head_size(config)
    if kind == "default":
        return config.rope_parameters["rope_theta"] ** (-np.arange(0, size, 2) / size), 1.0
    if kind not in SCALED:
        raise _refusal(f"rotary positions of the kind {kind}", f"known: default, {', '.join(SCALED)}")
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    if len(frequencies) != size // 2:
        raise _refusal(f"rotary positions of {2 * len(frequencies)} of a head's {size} sizes", "rotate all of them")
    return frequencies.numpy().astype(np.float64), float(factor)


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


class _Llama(_Writer):
    """Rotary positions, RMS normalisation, grouped queries, a gated SiLU."""

    def body(self) -> str:
        config, eps = self.config, float(self.config.get("rms_norm_eps", 1e-6))
        if (activation := config.get("hidden_act", "silu")) not in ("silu", "swish"):
            raise _refusal(f"the activation {activation}", "known: silu")
        angles = self._angles()
        self._refuse_window()
        residual, delta = self.node("Gather", [self.weight("model.embed_tokens.weight"), "input_ids"], "embedded"), ""
        for layer in range(self.decoder.layers):
            h = f"model.layers.{layer}"
            state, residual = self._norm(residual, delta, f"{h}.input_layernorm", eps)
            packed = self._packed(state, h, layer)
            attended = self.attention(layer, packed, angles)
            delta = self._linear(attended, f"{h}.self_attn.o_proj", f"layer{layer}.projected")
            state, residual = self._norm(residual, delta, f"{h}.post_attention_layernorm", eps)
            gate = self._linear(state, f"{h}.mlp.gate_proj", f"layer{layer}.gate")
            up = self._linear(state, f"{h}.mlp.up_proj", f"layer{layer}.up")
            silu = self.fused("QuickGelu", [gate], f"layer{layer}.silu", alpha=1.0)
            gated = self.node("Mul", [silu, up], f"layer{layer}.gated")
            delta = self._linear(gated, f"{h}.mlp.down_proj", f"layer{layer}.down")
        residual, delta = self.last(residual, "residual.last"), self.last(delta, "delta.last")
        return self._norm(residual, delta, "model.norm", eps)[0]

    def head(self) -> str:
        return self.weight("lm_head.weight" if self.has("lm_head.weight") else "model.embed_tokens.weight")

    def _norm(self, residual: str, delta: str, name: str, eps: float) -> tuple[str, str]:
        """Normalised sum, and the sum; of the first there is nothing to add."""
        gamma = self.weight(f"{name}.weight")
        if not delta:
            out = self.node("SimplifiedLayerNormalization", [residual, gamma], f"{name}.out", axis=-1, epsilon=eps)
            return out, residual
        outputs = [f"{name}.out", "", "", f"{name}.sum"]
        self.fused("SkipSimplifiedLayerNormalization", [delta, residual, gamma], outputs, epsilon=eps)
        return outputs[0], outputs[3]

    def _linear(self, state: str, name: str, output: str) -> str:
        bias = self.weight(f"{name}.bias") if self.has(f"{name}.bias") else None
        return self.product(state, self.weight(f"{name}.weight", transpose=True), bias, output)

    def _packed(self, state: str, h: str, layer: int) -> str:
        """Queries, keys and values in one product."""
        names = [f"{h}.self_attn.{part}_proj" for part in "qkv"]
        joined = np.concatenate([self.weights[f"{name}.weight"] for name in names]).T
        weight, bias = self.constant(f"{h}.self_attn.qkv.weight", joined), None
        if self.has(f"{names[0]}.bias"):
            bias = self.constant(
                f"{h}.self_attn.qkv.bias", np.concatenate([self.weights[f"{name}.bias"] for name in names])
            )
        return self.product(state, weight, bias, f"layer{layer}.packed")

    def _angles(self) -> tuple[str, str]:
        frequencies, factor = _rotary(self.folder)
        angles = np.arange(self.places)[:, None] * frequencies
        cosine, sine = factor * np.cos(angles), factor * np.sin(angles)
        return self.constant("angles.cosine", cosine), self.constant("angles.sine", sine)

    def _refuse_window(self) -> None:
        """Refuse attention to the nearest tokens only."""
        window = self.config.get("sliding_window")
        if self.config.get("use_sliding_window", True) and window and window < self.places:
            raise _refusal(f"a sliding window of {window}", "set sliding_window to null")
