"""Graphs of a decoder's forward pass: of small ones as exported, of GPT-2 in any size as written by hand."""

from __future__ import annotations

import io
import warnings
from typing import Any

import onnx
import torch
import transformers
from onnx import TensorProto, helper

from ceilings.graphs import tied_head
from ceilings.workload.generation import Decoder

VOCABULARY, WIDTH, LAYERS, HEADS = 300, 64, 2, 4
GPT2 = Decoder(LAYERS, HEADS, HEADS, WIDTH // HEADS, VOCABULARY, 128)
LLAMA = Decoder(LAYERS, HEADS, 2, WIDTH // HEADS, VOCABULARY, 128)
INNER = 96
"""Width between Llama's projections; GPT-2's is four times its width."""


def module(decoder: Decoder) -> Any:
    """The small model of a decoder, with random weights."""
    torch.manual_seed(0)
    if decoder is GPT2:
        sizes = {"n_layer": LAYERS, "n_embd": WIDTH, "n_head": HEADS, "n_positions": 128}
        config = transformers.GPT2Config(vocab_size=VOCABULARY, attn_implementation="eager", **sizes)
        return transformers.GPT2LMHeadModel(config).eval()
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, intermediate_size=INNER, attn_implementation="eager", **sizes
    )
    return transformers.LlamaForCausalLM(config).eval()


class _Pass(torch.nn.Module):
    """A forward pass over a cache that comes and goes as plain tensors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cache = transformers.DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        before = past[0].shape[2]
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None] + before
        hidden = self.model.base_model(input_ids, past_key_values=cache, position_ids=positions, use_cache=True)
        logits = self.model.get_output_embeddings()(hidden.last_hidden_state[:, -1])
        pairs = [part for layer in hidden.past_key_values.layers for part in (layer.keys, layer.values)]
        return logits, logits.argmax(-1, keepdim=True), *pairs


def exported(decoder: Decoder) -> onnx.ModelProto:
    """The graph of a small decoder's forward pass, its past and present as inputs and outputs."""
    inputs, outputs = decoder.step_inputs(), decoder.step_outputs()
    ids = torch.ones(2, 3, dtype=torch.int64)
    past = [torch.randn(2, decoder.kv_heads, 5, decoder.head_size) for _ in range(2 * decoder.layers)]
    axes = {
        one.name: {place: dim for place, dim in enumerate(one.dims) if isinstance(dim, str)}
        for one in (*inputs, *outputs)
    }
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Pass(module(decoder)).eval(),
            (ids, *past),
            buffer,
            dynamo=False,
            opset_version=17,
            input_names=[one.name for one in inputs],
            output_names=[one.name for one in outputs],
            dynamic_axes=axes,
        )
    return tied_head.share(onnx.load_from_string(buffer.getvalue()))


def written(decoder: Decoder, kind: int = TensorProto.FLOAT16) -> onnx.ModelProto:
    """GPT-2's forward pass from its published structure; its weights have sizes and no values."""
    width = decoder.heads * decoder.head_size
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, list[int]] = {}

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=f"{output}_{op}", **attributes))
        return output

    def weight(name: str, *dims: int) -> str:
        weights[name] = list(dims)
        return name

    def linear(source: str, name: str, columns: int, rows: int) -> str:
        product = add("MatMul", [source, weight(f"{name}.weight", rows, columns)], f"{name}.product")
        return add("Add", [product, weight(f"{name}.bias", columns)], name)

    def norm(source: str, name: str) -> str:
        return add("LayerNormalization", [source, weight(f"{name}.w", width), weight(f"{name}.b", width)], name)

    integers = {
        **{"one": [1], "two": [2], "zero": [0], "scalar": 0, "step": 1},
        "split": [0, 0, decoder.heads, decoder.head_size],
        **{"merged": [0, 0, width], "unlimited": [2**62], "last": [-1]},
    }
    length = add("Shape", ["input_ids"], "length", start=1, end=2)
    past = add("Shape", ["past.0.key"], "past_length", start=2, end=3)
    present = add("Add", [past, length], "present_length")
    bounds = [add("Squeeze", [name, "zero"], f"{name}.scalar") for name in (past, present)]
    positions = add("Range", [*bounds, "step"], "positions")
    words = add("Gather", [weight("wte", decoder.vocabulary, width), "input_ids"], "words")
    hidden = add("Add", [words, add("Gather", [weight("wpe", 1024, width), positions], "places")], "embedded")
    for layer in range(decoder.layers):
        block = f"h{layer}"
        projected = linear(norm(hidden, f"{block}.ln_1"), f"{block}.c_attn", 3 * width, width)
        parts = [f"{block}.{part}" for part in "qkv"]
        nodes.append(helper.make_node("Split", [projected], parts, name=f"{block}.Split", axis=2, num_outputs=3))
        heads = [
            add("Transpose", [add("Reshape", [part, "split"], f"{part}.split")], f"{part}.heads", perm=[0, 2, 1, 3])
            for part in parts
        ]
        key, value = (
            add("Concat", [f"past.{layer}.{part}", new], f"present.{layer}.{part}", axis=2)
            for part, new in zip(("key", "value"), heads[1:], strict=True)
        )
        turned = add("Transpose", [key], f"{block}.turned", perm=[0, 1, 3, 2])
        scores = add("MatMul", [heads[0], turned], f"{block}.scores")
        context = add("MatMul", [add("Softmax", [scores], f"{block}.weights"), value], f"{block}.context")
        context = add("Transpose", [context], f"{block}.context.rows", perm=[0, 2, 1, 3])
        context = add("Reshape", [context, "merged"], f"{block}.context.merged")
        hidden = add("Add", [hidden, linear(context, f"{block}.c_proj", width, width)], f"{block}.attended")
        inner = linear(norm(hidden, f"{block}.ln_2"), f"{block}.c_fc", 4 * width, width)
        wide = add("Gelu", [inner], f"{block}.gelu", approximate="tanh")
        hidden = add("Add", [hidden, linear(wide, f"{block}.mlp", width, 4 * width)], f"{block}.out")
    newest = add("Slice", [norm(hidden, "ln_f"), "last", "unlimited", "one"], "newest")
    turned = add("Transpose", ["wte"], "wte.turned", perm=[1, 0])
    logits = add("MatMul", [add("Squeeze", [newest, "one"], "newest.rows"), turned], "scores")
    logits = add("Cast", [logits], "logits", to=TensorProto.FLOAT)
    add("ArgMax", [logits], "token", axis=-1, keepdims=1)

    def value(spec: Any) -> onnx.ValueInfoProto:
        fixed = {"input_ids": TensorProto.INT64, "token": TensorProto.INT64, "logits": TensorProto.FLOAT}
        return helper.make_tensor_value_info(spec.name, fixed.get(spec.name, kind), list(spec.dims))

    initializers = [TensorProto(name=name, dims=dims, data_type=kind) for name, dims in weights.items()]
    for name, numbers in integers.items():
        many = isinstance(numbers, list)
        initializers.append(
            helper.make_tensor(name, TensorProto.INT64, [len(numbers)] if many else [], numbers if many else [numbers])
        )
    graph = helper.make_graph(
        nodes,
        "forward_pass",
        [value(spec) for spec in decoder.step_inputs()],
        [value(spec) for spec in decoder.step_outputs()],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
