"""One node of our attention as a graph, a session on it, and its answer in FP64."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from ceilings.graphs.attention_operator import DOMAIN, NAME

KINDS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
ROWS = ["batch", "sequence", "row"]


def model(kind: str, heads: int, *, packed: bool, masked: bool, name: str = NAME) -> onnx.ModelProto:
    """A graph of the operator alone; query, key and value as one input where packed."""
    rows = ["query", *(["", ""] if packed else ["key", "value"])]
    inputs = [helper.make_tensor_value_info(one, KINDS[kind], ROWS) for one in rows if one]
    if masked:
        rows.append("mask")
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.INT64, ROWS[:2]))
    node = helper.make_node(name, rows if masked else [one for one in rows if one], ["result"], "only", domain=DOMAIN)
    node.attribute.append(helper.make_attribute("num_heads", heads))
    output = helper.make_tensor_value_info("result", KINDS[kind], [*ROWS[:2], "hidden"])
    graph = helper.make_graph([node], "attention", inputs, [output])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def session(
    graph: onnx.ModelProto, library: object, provider: str = "CPUExecutionProvider"
) -> onnxruntime.InferenceSession:
    """A session of a provider with a library, which says what each node runs on."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 2
    settings.register_custom_ops_library(str(library))
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return onnxruntime.InferenceSession(graph.SerializeToString(), settings, providers=[provider])


def feed(random: np.random.Generator, kind: str, sizes: tuple[int, int, int], *, masked: bool) -> dict[str, np.ndarray]:
    """Query, key and value of (batch, sequence, hidden), and a mask with padding anywhere but at the first token."""
    values = {name: random.normal(size=sizes).astype(kind) for name in ("query", "key", "value")}
    if masked:
        values["mask"] = (random.random(sizes[:2]) < 0.7).astype(np.int64)
        values["mask"][:, 0] = 1
    return values


def packed(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with rows of all three."""
    row = np.concatenate([values["query"], values["key"], values["value"]], axis=-1)
    return {"query": row, **{name: value for name, value in values.items() if name == "mask"}}


def exact(values: dict[str, np.ndarray], heads: int) -> np.ndarray:
    """The answer in FP64."""
    batch, sequence, hidden = values["query"].shape
    apart = (batch, sequence, heads, hidden // heads)
    query, key, value = (
        values[name].astype(np.float64).reshape(apart).transpose(0, 2, 1, 3) for name in ("query", "key", "value")
    )
    scores = query @ key.swapaxes(-1, -2) * (hidden // heads) ** -0.5
    if "mask" in values:
        scores = np.where(values["mask"][:, None, None, :] != 0, scores, -1e30)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return (shares @ value).transpose(0, 2, 1, 3).reshape(batch, sequence, hidden)
