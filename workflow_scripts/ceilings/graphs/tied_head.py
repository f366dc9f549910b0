"""One table where a decoder multiplies by the table that it looks tokens up in.

Exporters write the product with the turned table, and store or make that beside the table: a second copy in the file
and on the device, which no step has to read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ceilings.graphs import hollow


def share(model: onnx.ModelProto) -> onnx.ModelProto:
    """Multiply by the table itself, turned within the product, in place; returns the same graph.

    Products of two matrices alone: Gemm takes no others.
    """
    replaced = dict(_products(model))
    nodes, turned = list(model.graph.node), set()
    for index, table in replaced.items():
        old = nodes[index]
        nodes[index] = helper.make_node("Gemm", [old.input[0], table], old.output, old.name, transB=1)
        turned.add(old.input[1])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    gone = turned - {name for here in hollow.graphs(model) for node in here.node for name in node.input}
    stored = [tensor for tensor in model.graph.initializer if tensor.name not in gone]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(node for node in nodes if node.output[0] not in gone)
    model.graph.initializer.extend(stored)
    return model


def _products(model: onnx.ModelProto) -> Iterator[tuple[int, str]]:
    """Place of each product with a turned table, and the table's name."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather" and node.input[0] in stored}
    turned = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Transpose" and node.input[0] in tables and len(stored[node.input[0]].dims) == 2
    }
    shapes = hollow.with_shapes(model).graph
    matrices = {v.name for v in shapes.value_info if len(v.type.tensor_type.shape.dim) == 2}
    for index, node in enumerate(model.graph.node):
        if node.op_type != "MatMul" or node.input[0] not in matrices:
            continue
        right = node.input[1]
        if right in stored:
            turned.update((right, name) for name in tables if _is_turned(stored[right], stored[name]))
        if right in turned:
            yield index, turned[right]


def _is_turned(one: TensorProto, other: TensorProto) -> bool:
    """Whether a matrix is another one turned."""
    if one.data_type != other.data_type or list(one.dims) != list(other.dims)[::-1]:
        return False
    return np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other).T)
