"""ONNX files: the workload that the graph and the study give, and the reference of ONNX Runtime."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from unit import planted_records

from ceilings.errors import CellFailure, UserError
from ceilings.models import definition, onnx_file, outline, pool, reference
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
    workload = onnx_file.read(of_file(write(tmp_path / "m.onnx"))).workload
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
    ids, _ = onnx_file.read(of_file(write(tmp_path / "m.onnx"), inputs=says)).workload.inputs
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
        onnx_file.read(of_file(write(tmp_path / "m.onnx", ids), **value))


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; correct onnx"):
        outline.outline(of_file(tmp_path / "m.onnx"))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    no_outputs = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], []))
    for content, message in (
        (b"no graph at all", "is no ONNX file"),
        (no_outputs.SerializeToString(), "no nodes or no outputs"),
        (b"", "is empty; copy or export it anew"),
        (pointer, "is a pointer of git-lfs .* run git lfs pull"),
    ):
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(UserError, match=message):
            outline.outline(of_file(tmp_path / "m.onnx"))
    with pytest.raises(UserError, match="cannot be read"):
        outline.outline(of_file(tmp_path))


def test_the_reference_is_onnx_runtimes(tmp_path: Path) -> None:
    file, weights_dir, inputs = write(tmp_path / "m.onnx"), tmp_path / "weights", tmp_path / "in.npz"
    onnx_file.read(of_file(file)).workload.write(weights_dir)
    planted_records.weights(weights_dir)
    made = make_inputs(weights_dir, Shape.parse("b2-s3"), Wanted(3, 0), inputs).arrays
    shapes = reference.compute(weights_dir, inputs, 1, tmp_path / "ref.npz", graph=file)
    assert shapes == {"sum": (2, 2, 3, 4), "mean": (2, 2, 4)}
    outputs = reference.load_for(tmp_path / "ref.npz", inputs)[0]
    expected = TABLE[made["ids"][:2]] + made["shift"][:2, None, None]
    np.testing.assert_allclose(outputs["sum"], expected, rtol=1e-6)
    np.testing.assert_allclose(outputs["mean"], expected.mean(2), rtol=1e-5)
    with pytest.raises(UserError, match="belongs to an ONNX file, which has no module"):
        load_module(weights_dir)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"is damaged .* delete it and run `snakemake"):
        reference.compute(weights_dir, inputs, 1, tmp_path / "ref.npz", graph=file)


def save(path: Path, nodes: list[Any], ends_in: list[Any], ends_out: list[Any], *weights: Any, **names: Any) -> Path:
    graph = helper.make_graph(nodes, "g", ends_in, ends_out, [numpy_helper.from_array(a, n) for n, a in weights])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9, **names), path)
    return path


def tensor(name: str, *dims: str | int | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def test_a_file_of_one_size_runs_at_that_size(tmp_path: Path) -> None:
    ends = [tensor("x", 2, 3), tensor("y", 2, 3)]
    path = save(tmp_path / "fixed.onnx", [helper.make_node("Relu", ["x"], ["y"])], ends[:1], ends[1:])
    with pytest.raises(UserError, match=r"\('x': \[2, 3\]\).* axes: \{x.0: batch\}, .*symbolic first dimension"):
        outline.outline(definition.read("fixed", {"onnx": str(path)}))
    plan = outline.outline(definition.read("fixed", {"onnx": str(path), "axes": {"x.0": "batch"}}))
    assert (plan.axes, plan.fixed) == (("batch",), {"batch": 2})
    with pytest.raises(UserError, match=r"dimensions of 2 and of 3 .* both 'batch'"):
        outline.outline(definition.read("fixed", {"onnx": str(path), "axes": {"x.0": "batch", "x.1": "batch"}}))


def test_a_file_that_reads_nothing_is_refused_while_planning(tmp_path: Path) -> None:
    nodes = [helper.make_node("RandomNormal", [], ["y"], shape=[2])]
    path = save(tmp_path / "m.onnx", nodes, [], [tensor("y", 2)])
    with pytest.raises(UserError, match=r"reads no input, .*leave it out"):
        outline.outline(definition.read("m", {"onnx": str(path)}))


def test_dimensions_without_a_name_are_named_by_their_place(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", (None, None))
    with pytest.raises(UserError, match=r"axes: \{ids.0: batch, ids.1: sequence\}"):
        onnx_file.read(definition.read("m", {"onnx": str(path)}))
    workload = onnx_file.read(of_file(path, axes={"ids.0": "batch", "ids.1": "sequence"})).workload
    assert workload.inputs[0].dims == ("batch", "sequence")


def test_a_symbol_of_outputs_alone_is_no_axis(tmp_path: Path) -> None:
    """Exporters count on: s, n and h say nothing where no input has them."""
    ends = [tensor("x", "N", 4), tensor("y", "N", "s", "batch")]
    path = save(tmp_path / "m.onnx", [helper.make_node("Foo", ["x"], ["y"])], ends[:1], ends[1:])
    assert onnx_file.read(definition.read("m", {"onnx": str(path)})).workload.outputs[0].dims == ("batch", "y.1", "y.2")


def node(*given: Any, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(*given, **attributes)


def branches(*bodies: onnx.NodeProto) -> dict[str, onnx.GraphProto]:
    names = ("then_branch", "else_branch")
    out = tensor("r")
    return {name: helper.make_graph([body], name, [], [out]) for name, body in zip(names, bodies, strict=True)}


LOOP = helper.make_graph(
    [
        node("Gather", ["small", "state"], ["looked"]),
        node("Identity", ["go"], ["on"]),
        node("Cast", ["state"], ["n"], to=7),
    ],
    "body",
    [tensor("i", kind=7), tensor("go", kind=9), tensor("state", kind=7)],
    [tensor("on", kind=9), tensor("n", kind=7), tensor("looked")],
)


@pytest.mark.parametrize(
    ("nodes", "high"),
    [
        ([node("Gather", ["large", "ids"], ["y"])], 49),
        ([node("Gather", ["large", "ids"], ["z"]), node("Gather", ["small", "ids"], ["y"])], 9),
        ([node("Gather", ["large", "ids"], ["y"], axis=1)], 3),
        (
            [
                node("Cast", ["ids"], ["a"], to=7),
                node("Reshape", ["a", "flat"], ["b"]),
                node("Gather", ["large", "b"], ["y"]),
            ],
            49,
        ),
        (
            [
                node("Unsqueeze", ["ids", "last"], ["a"]),
                node("Concat", ["a", "a"], ["b"], axis=-1),
                node("GatherND", ["large", "b"], ["y"]),
            ],
            3,
        ),
        ([node("GatherElements", ["large", "ids"], ["y"], axis=-1)], 3),
        ([node("Transpose", ["large"], ["t"]), node("Gather", ["t", "ids"], ["y"])], 3),
        ([node("Cast", ["large"], ["t"], to=10), node("Gather", ["t", "ids"], ["y"])], 49),
        ([node("If", ["yes"], ["y"], **branches(*(node("Gather", [t, "ids"], ["r"]) for t in ("large", "small"))))], 9),
        (
            [
                node("If", ["yes"], ["a"], **branches(*[node("Identity", ["ids"], ["r"])] * 2)),
                node("Gather", ["small", "a"], ["y"]),
            ],
            9,
        ),
        ([node("Loop", ["", "yes", "ids"], ["n", "y"], body=LOOP)], 9),
        (
            [
                node(
                    "EmbedLayerNormalization",
                    ["ids", "", "large", "small", "", "g", "g"],
                    ["y"],
                    domain="com.microsoft",
                ),
            ],
            49,
        ),
    ],
)
def test_ids_are_followed_to_their_table(tmp_path: Path, nodes: list[onnx.NodeProto], high: int) -> None:
    tables = [("large", np.zeros((50, 4), np.float32)), ("small", np.zeros((10, 4), np.float32))]
    others = [
        ("flat", np.array([-1])),
        ("last", np.array([-1])),
        ("yes", np.array(True)),
        ("g", np.ones(4, np.float32)),
    ]
    ids = tensor("ids", "N", "seq", kind=TensorProto.INT32)
    path = save(tmp_path / "m.onnx", nodes, [ids], [tensor("y")], *tables, *others)
    spec = onnx_file.read(definition.read("m", {"onnx": str(path)})).workload.inputs[0]
    assert (spec.content, spec.low, spec.high) == ("integers", 0, high)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Cast", ["ids"], ["y"], to=1)],
        [node("Gather", ["x", "ids"], ["y"])],
        [node("Add", ["ids", "ids"], ["twice"]), node("Gather", ["table", "twice"], ["y"])],
    ],
)
def test_whole_numbers_of_unknown_range_are_asked_for(tmp_path: Path, nodes: list[onnx.NodeProto]) -> None:
    ends = [tensor("ids", "N", kind=TensorProto.INT64), tensor("x", "N", 4)]
    path = save(tmp_path / "m.onnx", nodes, ends, [tensor("y")], ("table", TABLE))
    with pytest.raises(UserError, match=r"does not say which it takes.* inputs: \{ids: .*content: mask"):
        onnx_file.read(definition.read("m", {"onnx": str(path)}))
    for says, expected in (
        ({"content": "mask"}, ("mask", 0, 0)),
        ({"high": 4}, ("integers", 0, 4)),
        ({"content": "tokens", "low": 1, "high": 7}, ("tokens", 1, 7)),
    ):
        spec = onnx_file.read(definition.read("m", {"onnx": str(path), "inputs": {"ids": says}})).workload.inputs[0]
        assert (spec.content, spec.low, spec.high) == expected


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ({"low": 12}, "has low 12 and high 9"),
        ({"high": 10}, "indexes a table of 10 rows, and the study says high: 10; give 9 at most"),
        ({"low": -11}, "a table of 10 rows, and the study says low: -11; give -10 at least"),
        ({"content": "tokens", "low": 1, "high": 500}, "says high: 500; give 9 at most"),
        ({"content": "tokens", "low": 3, "high": 3}, "too few ids"),
        ({"high": 1 << 40}, "is int32, which does not hold"),
    ],
)
def test_ranges_that_cannot_be(tmp_path: Path, says: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "m.onnx", dtype=TensorProto.INT32)
    with pytest.raises(UserError, match=message):
        onnx_file.read(of_file(file, inputs={"ids": says}))


def test_a_local_function_is_looked_into(tmp_path: Path) -> None:
    look_up = helper.make_function(
        "mine", "LookUp", ["t", "i"], ["o"], [node("Gather", ["t", "i"], ["o"])], [helper.make_opsetid("", 17)]
    )
    path = tmp_path / "m.onnx"
    nodes = [node("LookUp", ["table", "ids"], ["y"], domain="mine")]
    save(path, nodes, [tensor("ids", "N", kind=7)], [tensor("y")], ("table", TABLE), functions=[look_up])
    model = onnx.load(path)
    model.opset_import.add(domain="mine", version=1)
    onnx.save(model, path)
    assert onnx_file.read(definition.read("m", {"onnx": str(path)})).workload.inputs[0].high == 9


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("NonZero", ["x"], ["z"]), node("Cast", ["z"], ["y"], to=1)], "depends on values cannot be compared"),
        ([node("Reshape", ["x", "wrong"], ["y"])], "ONNX Runtime cannot run the graph .*correct the file, or the axes"),
        ([node("Slice", ["x", "none", "none"], ["y"])], "nothing to compare"),
        ([node("Mystery", ["x"], ["y"])], "cannot load the graph"),
    ],
)
def test_a_graph_without_a_reference_is_a_cell_that_cannot_run(
    tmp_path: Path, nodes: list[onnx.NodeProto], message: str
) -> None:
    weights_dir, inputs = tmp_path / "weights", tmp_path / "in.npz"
    nodes = [node("Relu", ["a"], ["x"]), *nodes]
    file = save(
        tmp_path / "m.onnx",
        nodes,
        [tensor("a", "N", 3)],
        [tensor("y")],
        ("wrong", np.array([7])),
        ("none", np.array([0])),
    )
    onnx_file.read(definition.read("m", {"onnx": str(file)})).workload.write(weights_dir)
    planted_records.weights(weights_dir)
    make_inputs(weights_dir, Shape.parse("b2"), Wanted(3, 0), inputs)
    with pytest.raises(CellFailure, match=message):
        reference.compute(weights_dir, inputs, 1, tmp_path / "ref.npz", graph=file)


def test_sizes_that_follow_from_values_are_the_same_in_all_that_is_measured(tmp_path: Path) -> None:
    """Two of three elements have as many positive numbers as each other."""
    nodes = [node("Relu", ["a"], ["x"]), node("NonZero", ["x"], ["z"]), node("Cast", ["z"], ["y"], to=1)]
    file = save(tmp_path / "m.onnx", nodes, [tensor("a", "N", 3)], [tensor("y", 2, "count")])
    onnx_file.read(definition.read("m", {"onnx": str(file)})).workload.write(tmp_path)
    for last, message in (([1, -1, -1], None), ([1, 1, -1], r"shape \(2, 1\) for one input and \(2, 2\) for another")):
        arrays = {"a": np.array([[[1, -1, -1]], [[-1, 1, -1]], [last]], np.float32)}
        facts = {"source": np.array("random"), "real_share": np.array(1.0)}
        seal = np.array(pool.sealed(arrays, "random", 1.0))
        pool.save(tmp_path / "in.npz", **{"input/a": arrays["a"]}, sha256=seal, **facts)
        with pytest.raises(CellFailure, match=message) if message else contextlib.nullcontext():
            assert reference.compute(tmp_path, tmp_path / "in.npz", 1, tmp_path / "r.npz", graph=file) == {
                "y": (2, 2, 1)
            }
