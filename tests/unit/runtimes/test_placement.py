"""Node placement, read from real sessions and profiles of ONNX Runtime's CPU provider."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ceilings.errors import CellFailure
from ceilings.runtimes import placement
from ceilings.runtimes.placement import CPU, Node

CUDA = "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def session_and_profile(tmp_path_factory):
    """A product, and arithmetic on its shape."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
        helper.make_node("Shape", ["y"], ["s"], name="shape"),
        helper.make_node("Reshape", ["y", "s"], ["z"], name="reshape"),
    ]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], np.eye(4, dtype=np.float32).ravel())
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path_factory.mktemp("profile") / "p")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    session.run(None, {"x": np.ones((2, 4), np.float32)})
    return session, Path(session.end_profiling())


def test_the_nodes_that_ran_are_read_from_a_profile(session_and_profile):
    nodes = {node.name: node for node in placement.profiled(session_and_profile[1])}
    assert nodes["product"] == Node("product", "MatMul", CPU, 8)
    assert not nodes["shape"].heavy
    found = placement.summary(list(nodes.values()))
    assert found["operators"]["MatMul"] == 1 and found["float_products"] == {"MatMul": 1}
    assert found["nodes_by_provider"] == {CPU: len(nodes)}


def test_the_nodes_that_a_provider_claimed_are_read_from_the_session(session_and_profile):
    nodes = placement.assigned(session_and_profile[0])
    assert Node("product", "MatMul", CPU) in nodes
    placement.refuse_fallback(nodes, CPU)
    with pytest.raises(CellFailure, match=r"1 of 3 nodes ran on the CPU: MatMul 'product'$") as caught:
        placement.refuse_fallback(nodes, CUDA)
    assert caught.value.kind == "fallback"


def test_arithmetic_on_shapes_may_stay_on_the_cpu_but_not_on_data():
    placement.refuse_fallback([Node("a", "Add", CPU, 4), Node("b", "MatMul", CUDA, 1 << 20)], CUDA)
    with pytest.raises(CellFailure, match="Add 'a'"):
        placement.refuse_fallback([Node("a", "Add", CPU, 1 << 20)], CUDA)


def test_what_ran_in_int8_is_told_apart_from_what_was_dequantised():
    operators = ["QLinearMatMul", "MatMulIntegerToFloat", "DequantizeLinear", "MatMul", "MemcpyToHost"]
    operators += ["QLinearAdd", "DynamicQuantizeLinear"]  # in INT8, and no products
    found = placement.summary([Node(str(i), operator, CUDA) for i, operator in enumerate(operators)])
    assert found["int8_products"] == {"QLinearMatMul": 1, "MatMulIntegerToFloat": 1}
    assert found["float_products"] == {"MatMul": 1}
    assert found["dequantize_nodes"] == 1
    assert found["copies"] == {"MemcpyToHost": 1, "MemcpyFromHost": 0}
