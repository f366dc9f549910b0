"""ONNX files: the workload that the graph and the study give, and the reference of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ceilings.errors import UserError
from ceilings.models import definition, onnx_file, outline, reference
from ceilings.models.inputs import Wanted, make_inputs
from ceilings.models.load import load_module
from ceilings.workload.shape import Shape

TABLE = np.arange(40, dtype=np.float32).reshape(10, 4)


def write(
    path: Path, ids: tuple[str | int | None, ...] = ("batch_size", "tokens"), dtype: int = TensorProto.INT64
) -> Path:
    """A graph that looks ids up in a table of ten rows and adds the last axis of a second input."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Add", ["rows", "shift"], ["sum"]),
        helper.make_node("ReduceMean", ["sum"], ["mean"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("ids", dtype, ids),
            helper.make_tensor_value_info("shift", TensorProto.FLOAT, [4]),
            helper.make_tensor_value_info("table", TensorProto.FLOAT, [10, 4]),
        ],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [*ids, 4]),
            helper.make_tensor_value_info("mean", TensorProto.FLOAT, [ids[0], 4]),
        ],
        [numpy_helper.from_array(TABLE, "table")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def of_file(path: Path, **value: Any) -> definition.Definition:
    return definition.read("mine", {"onnx": str(path), "axes": {"tokens": "sequence"}, **value})


def test_a_graph_says_what_it_reads(tmp_path: Path) -> None:
    workload = onnx_file.workload(of_file(write(tmp_path / "m.onnx")))
    ids, shift = workload.inputs  # a table with a value is no input, whatever the graph lists
    assert (ids.dtype, ids.dims, ids.content, ids.low, ids.high) == ("int64", ("batch", "sequence"), "integers", 0, 9)
    assert (shift.dims, shift.content) == ((4,), "reals")
    assert [(t.name, t.dims) for t in workload.outputs] == [("sum", ("batch", "sequence", 4)), ("mean", ("batch", 4))]
    assert (workload.task.name, workload.family) == ("tensors", "")
    plan = outline.outline(of_file(tmp_path / "m.onnx", task="sentence-embedding"))
    assert (plan.axes, plan.task, plan.has_weights, plan.fusion) == (
        ("batch", "sequence"),
        "sentence-embedding",
        False,
        None,
    )


def test_the_study_says_what_the_graph_does_not(tmp_path: Path) -> None:
    says = {"ids": {"content": "tokens", "low": 2, "high": 5}}
    ids, _ = onnx_file.workload(of_file(write(tmp_path / "m.onnx"), inputs=says)).inputs
    assert (ids.content, ids.low, ids.high) == ("tokens", 2, 5)


@pytest.mark.parametrize(
    ("ids", "value", "message"),
    [
        (("batch", "tokens"), {"axes": {}}, r"dimension 1 of 'ids' .* is 'tokens', which is no axis; say which"),
        (("batch", None), {"axes": {}}, "is 'unnamed', which is no axis"),
        (("batch", "tokens"), {"axes": {"words": "sequence"}}, "axes names 'words', but the symbolic dimensions"),
        (("batch", "tokens"), {"inputs": {"x": {"content": "mask"}}}, "inputs names 'x', but .* reads ids, shift"),
    ],
)
def test_what_a_graph_leaves_open_is_asked(
    tmp_path: Path, ids: tuple[str, ...], value: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        onnx_file.workload(of_file(write(tmp_path / "m.onnx", ids), **value))


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; correct onnx"):
        outline.outline(of_file(tmp_path / "m.onnx"))
    (tmp_path / "m.onnx").write_bytes(b"no graph at all")
    with pytest.raises(UserError, match="is no ONNX file"):
        outline.outline(of_file(tmp_path / "m.onnx"))


def test_the_reference_is_onnx_runtimes(tmp_path: Path) -> None:
    file, weights_dir, inputs = write(tmp_path / "m.onnx"), tmp_path / "weights", tmp_path / "in.npz"
    onnx_file.workload(of_file(file)).write(weights_dir)
    (weights_dir / "provenance.json").write_text("{}")
    made = make_inputs(weights_dir, Shape.parse("b2-s3"), Wanted(3, 0), inputs).arrays
    shapes = reference.compute(weights_dir, inputs, 1, tmp_path / "ref.npz", graph=file)
    assert shapes == {"sum": (2, 2, 3, 4), "mean": (2, 2, 4)}
    outputs = reference.load(tmp_path / "ref.npz").outputs
    expected = TABLE[made["ids"][:2]] + made["shift"][:2, None, None]
    np.testing.assert_allclose(outputs["sum"], expected, rtol=1e-6)
    np.testing.assert_allclose(outputs["mean"], expected.mean(2), rtol=1e-5)
    with pytest.raises(UserError, match="belongs to an ONNX file, which has no module"):
        load_module(weights_dir)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="ONNX Runtime cannot run"):
        reference.compute(weights_dir, inputs, 1, tmp_path / "ref.npz", graph=file)


def test_a_file_without_symbolic_dimensions_is_refused_while_planning(tmp_path):
    """Its shape would have no name."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "fixed.onnx")
    with pytest.raises(UserError, match="symbolic first dimension"):
        outline.outline(definition.read("fixed", {"onnx": str(tmp_path / "fixed.onnx")}))
