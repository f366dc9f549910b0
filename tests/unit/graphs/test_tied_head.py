"""Products with a turned table become products with the table; others stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ceilings.graphs import graph, tied_head

TABLE = np.arange(20, dtype=np.float32).reshape(5, 4) / 7


def model(turned: bool, head: np.ndarray, rank: int = 2) -> onnx.ModelProto:
    """A head over the rows that are looked up in ``TABLE``: it turns the table, or stores it turned."""
    nodes = [helper.make_node("Gather", ["table", "ids"], ["state"], "lookup")]
    stored = {"table": TABLE}
    if turned:
        nodes.append(helper.make_node("Transpose", ["table"], ["head"], "turn", perm=[1, 0]))
    else:
        stored["head"] = head
    nodes.append(helper.make_node("MatMul", ["state", "head"], ["logits"], "product"))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", 1][: rank - 1])
    logits = helper.make_tensor_value_info(
        "logits", TensorProto.FLOAT, ["rows", 1, 5][-rank:] if rank == 3 else ["rows", 5]
    )
    made = helper.make_graph(
        nodes, "tied", [ids], [logits], [numpy_helper.from_array(value, name) for name, value in stored.items()]
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def operators(made: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in made.graph.node]


@pytest.mark.parametrize("turned", [True, False])
def test_a_tied_head_multiplies_by_the_table(turned: bool) -> None:
    plain = model(turned, np.ascontiguousarray(TABLE.T))
    ids = {"ids": np.array([3, 0])}
    (expected,) = graph.session(plain).run(None, ids)
    shared = tied_head.share(plain)
    assert operators(shared) == ["Gather", "Gemm"]
    assert [tensor.name for tensor in shared.graph.initializer] == ["table"]
    onnx.checker.check_model(shared, full_check=True)
    np.testing.assert_allclose(graph.session(shared).run(None, ids)[0], expected, rtol=1e-6)


def test_another_matrix_of_that_size_stays() -> None:
    other = np.ascontiguousarray(TABLE.T)
    other[0, 0] += 1
    assert operators(tied_head.share(model(False, other))) == ["Gather", "MatMul"]


def test_a_product_of_more_than_matrices_stays() -> None:
    shared = tied_head.share(model(True, TABLE, rank=3))
    assert operators(shared) == ["Gather", "Transpose", "MatMul"]


def test_a_turned_table_that_another_node_reads_stays() -> None:
    made = model(True, TABLE)
    made.graph.node.append(helper.make_node("Neg", ["head"], ["less"], "other"))
    made.graph.output.append(helper.make_tensor_value_info("less", TensorProto.FLOAT, [4, 5]))
    assert operators(tied_head.share(made)) == ["Gather", "Transpose", "Gemm", "Neg"]
