"""ONNX files of somebody else's making, through every step behind them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ceilings import artifacts, files
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import calibration, check, graph, importing, operations, precision, quantize, simplify
from ceilings.graphs.quantize import Quantization
from ceilings.models import definition, inputs, reference
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

PROGRAMS = Path(graph.__file__).parents[2]
RNG = np.random.default_rng(0)


def weight(name: str, *sizes: int, kind: type = np.float32) -> TensorProto:
    return numpy_helper.from_array((RNG.standard_normal(sizes) * 0.1).astype(kind), name)


def value(name: str, kind: int, *dims: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def model(nodes, ends_in, ends_out, weights=(), **opsets: int) -> onnx.ModelProto:
    versions = [helper.make_opsetid("" if name == "opset" else name, n) for name, n in ({"opset": 17} | opsets).items()]
    made = helper.make_graph(list(nodes), "g", list(ends_in), list(ends_out), list(weights))
    return helper.make_model(made, opset_imports=versions, ir_version=8)


def classifier(opset: int = 17, batch: str | int = "batch_size") -> onnx.ModelProto:
    """Logits from the masked mean of looked-up rows, with a bias among the inputs, as old exporters wrote them."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"], name="lookup"),
        helper.make_node("Cast", ["attention_mask"], ["counts"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["counts", "last"] if opset >= 13 else ["counts"], ["wide"], name="n"),
        helper.make_node("Mul", ["rows", "wide"], ["real"], name="n"),
        helper.make_node("ReduceMean", ["real"], ["mean"], axes=[1], keepdims=0, name="n_1"),
        helper.make_node("Constant", [], ["w"], value=weight("w", 16, 2)),
        helper.make_node("MatMul", ["mean", "w"], ["scores"], name="n"),
        helper.make_node("Add", ["scores", "bias"], ["logits"]),
    ]
    if opset < 13:
        nodes[2].attribute.append(helper.make_attribute("axes", [2]))
    return model(
        nodes,
        [
            value("input_ids", TensorProto.INT64, batch, "seq_len"),
            value("bias", TensorProto.FLOAT, 2),
            value("attention_mask", TensorProto.INT64, batch, "seq_len"),
        ],
        [value("logits", TensorProto.FLOAT, batch, 2)],
        [weight("table", 50, 16), weight("bias", 2), numpy_helper.from_array(np.array([2], np.int64), "last")],
        opset=opset,
    )


class Imported:
    """What is made of an ONNX file."""

    def __init__(self, source: onnx.ModelProto, folder: Path, **says: object) -> None:
        file = folder / "own.onnx"
        file.write_bytes(source.SerializeToString())
        self.folder, self.weights = folder, folder / "weights"
        self.graph, self.report = folder / "exported.onnx", folder / "exported.json"
        says = {"task": "sequence-classification", **says}
        importing.import_onnx(
            definition.read("own", {"onnx": str(file), **says}), self.graph, self.report, self.weights
        )

    @property
    def workload(self) -> Workload:
        return Workload.read(self.weights)

    @property
    def failure(self) -> str:
        """Why it could not be made: the same in both records and for who reads the graph."""
        record = files.read_json(self.report)
        folder = files.read_json(self.weights / "provenance.json")
        assert record["failure"] == folder["failure"] and record["status"] == folder["status"] == "failed"
        with pytest.raises(CellFailure) as failure:
            artifacts.refuse_failed(self.graph)
        return str(failure.value)

    def shape(self, batch: int = 2) -> Shape:
        """A shape with the axes that the file has."""
        sizes = {"batch": batch, "sequence": 8, "image": 16, "frames": 6}
        return Shape.of({axis: sizes[axis] for axis in self.workload.axes})

    def through(self, name: str) -> dict[str, object]:
        """The parity record of a variant, made by every step before it."""
        made = graph.load(self.graph)
        base = self.folder / "simplified.onnx"
        outcome = simplify.simplify(made, self.workload)
        graph.save(outcome.model, base)
        pool, answers = self.folder / "in.npz", self.folder / "ref.npz"
        inputs.make_inputs(self.weights, self.shape(), inputs.Wanted(2, 0), pool)
        reference.compute(self.weights, pool, 1, answers, self.graph)
        path = self.folder / f"{name}.onnx"
        if name in precision.PRECISIONS:
            graph.save(precision.convert(outcome.model, name)[0], path)
        else:
            spans, _ = calibration.calibrate(base, self.weights, calibration.Calibration("minmax", 4, 8), 1)
            kind, _, floats = name.partition(".")
            done = quantize.quantize(outcome.model, spans, kind, Quantization(), "fp16" if floats else "fp32")
            graph.save(done.model, path)
        return check.check(
            path,
            precision=name.partition(".")[0],
            workload=self.weights / "workload.json",
            inputs=pool,
            reference=answers,
            base=base,
            threads=1,
        )


@pytest.mark.parametrize("opset", [11, 17])
def test_a_file_of_texts(tmp_path: Path, opset: int) -> None:
    own = Imported(classifier(opset), tmp_path)
    made = graph.load(own.graph)
    assert [graph.describe(v) for v in (*made.graph.input, *made.graph.output)] == [
        {"name": "input_ids", "type": "int64", "shape": ["batch", "sequence"]},
        {"name": "attention_mask", "type": "int64", "shape": ["batch", "sequence"]},
        {"name": "logits", "type": "float", "shape": ["batch", 2]},
    ]
    ids, mask = own.workload.inputs
    assert (ids.content, ids.low, ids.high, mask.content) == ("tokens", 0, 49, "mask")
    names = [node.name for node in made.graph.node]
    assert len(set(names)) == len(names) and all(names) and {"n", "n_1", "n_2"} < set(names)
    assert [product.weight for product in graph.weight_products(made)] == ["w"], "a Constant node's weight is one"
    record, folder = files.read_json(own.report), files.read_json(own.weights / "provenance.json")
    assert (record["status"], record["stored"]) == ("ok", {"float": 50 * 16 + 16 * 2 + 2})
    assert (folder["parameters"], folder["sha256"]) == (834, graph.sha256(own.graph))
    assert record["provenance"]["sources"]["file"] == files.sha256(tmp_path / "own.onnx")
    for name, tolerance in (("fp32", 1e-6), ("fp16", 5e-3), ("int8", 0.1), ("int8.half", 0.1)):
        found = own.through(name)
        assert found["status"] == "ok" and found["relative_l2"] < tolerance, (name, found)
    assert operations.count(made, own.shape(batch=3)).flops == 2 * 3 * 16 * 2
    if opset == 11:
        with pytest.raises(CellFailure, match="bf16 needs opset 17"):
            own.through("bf16")


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    own = Imported(classifier(batch=2), tmp_path)
    assert graph.describe(graph.load(own.graph).graph.input[0])["shape"] == [2, "sequence"]
    assert own.through("int8")["status"] == "ok"


def test_a_file_of_images_with_several_outputs(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["pixel_values", "kernel"], ["patches"], strides=[4, 4]),
        helper.make_node("Flatten", ["patches"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["vector"]),
        helper.make_node("ArgMax", ["vector"], ["best"], axis=1, keepdims=0),
    ]
    own = Imported(
        model(
            nodes,
            [value("pixel_values", TensorProto.FLOAT, "N", 3, 16, 16)],
            [value("vector", TensorProto.FLOAT, "N", 10), value("best", TensorProto.INT64, "N")],
            [weight("kernel", 8, 3, 4, 4), weight("w", 128, 10)],
        ),
        tmp_path,
        task="tensors",
    )
    assert [tensor.dims for tensor in own.workload.outputs] == [("batch", 10), ("batch",)]
    for name in ("fp32", "fp16", "int8"):
        found = own.through(name)
        assert found["status"] == "ok" and found["top1_agreement"] is None, (name, found)
    work = operations.count(graph.load(own.graph), own.shape(batch=3))
    assert work.flops == 3 * 2 * (16 * 8 * 48 + 128 * 10) and not work.unknown


def test_axes_and_contents_as_the_study_says(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "places"], ["rows"]),
        helper.make_node("Add", ["rows", "noise"], ["sums"]),
        helper.make_node("ReduceMean", ["sums"], ["y"], axes=[1], keepdims=0),
    ]
    own = Imported(
        model(
            nodes,
            [value("places", TensorProto.INT32, "rows_", "steps"), value("noise", TensorProto.FLOAT, 1, "steps", 4)],
            [value("y", TensorProto.FLOAT, "rows_", 4)],
            [weight("table", 50, 4)],
        ),
        tmp_path,
        task="tensors",
        axes={"rows_": "batch", "steps": "frames"},
        inputs={"places": {"content": "integers", "low": 10, "high": 12}},
    )
    assert graph.axes(graph.load(own.graph)) == {"batch": None, "frames": None}
    found = own.through("fp16")
    assert found["status"] == "ok" and found["relative_l2"] < 5e-3
    pool = np.load(tmp_path / "in.npz")["input/places"]
    assert pool.dtype == np.int32 and (pool.min(), pool.max()) == (10, 12)


def test_branches_work(tmp_path: Path) -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        node = helper.make_node(operator, ["x", "outer"], [name])
        return helper.make_graph([node], name, [], [value(name, TensorProto.FLOAT, "batch", 4)])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["z"], then_branch=branch("a", "Add"), else_branch=branch("b", "Mul"), name="choice"
        ),
        helper.make_node("MatMul", ["z", "w"], ["y"], name="p"),
    ]
    own = Imported(
        model(
            nodes,
            [value("x", TensorProto.FLOAT, "batch", 4)],
            [value("y", TensorProto.FLOAT, "batch", 4)],
            [weight("outer", 4), weight("w", 4, 4), numpy_helper.from_array(np.float32(0), "zero")],
        ),
        tmp_path,
        task="tensors",
    )
    assert own.through("fp32")["relative_l2"] < 1e-6
    assert own.through("fp16")["relative_l2"] < 5e-3
    # Calibrated on a batch that goes through one branch, so that only the form can be right.
    assert own.through("int8")["status"] == "ok"
    work = operations.count(graph.load(own.graph), own.shape())
    assert (work.flops, work.unknown) == (2 * 2 * 4 * 4, {"If": 1})


@pytest.mark.parametrize(
    ("kind", "stored"),
    [(TensorProto.FLOAT16, "float16"), (TensorProto.BFLOAT16, "bfloat16"), (TensorProto.DOUBLE, "double")],
)
def test_other_floating_point_becomes_fp32(tmp_path: Path, kind: int, stored: str) -> None:
    """Weights, constants, casts, branches, inputs and outputs."""
    held = helper.tensor_dtype_to_np_dtype(kind)
    branch = helper.make_graph([helper.make_node("Neg", ["sums"], ["b"])], "b", [], [value("b", kind, "batch", 8)])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["products"], name="p"),
        helper.make_node("Constant", [], ["c"], value=weight("c", 8, kind=held)),
        helper.make_node("ConstantOfShape", ["one"], ["m"], value=numpy_helper.from_array(np.array([2], held))),
        helper.make_node("Add", ["products", "c"], ["more"]),
        helper.make_node("Mul", ["more", "m"], ["sums"]),
        helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch, name="choice"),
        helper.make_node("Cast", ["chosen"], ["y"], to=kind),
    ]
    constants = [numpy_helper.from_array(np.array([1]), "one"), numpy_helper.from_array(np.array(True), "yes")]
    w = weight("w", 8, 8, kind=held)
    ends = [value(name, kind, "batch", 8) for name in "xy"]
    own = Imported(model(nodes, ends[:1], ends[1:], [w, *constants]), tmp_path, task="tensors")
    report = files.read_json(own.report)
    assert (report["stored"], report["widened"]) == ({stored: 8 * 8 + 8 + 1}, [stored])
    made = graph.load(own.graph)
    assert precision.other_floats(made) == [] and precision.other_floats(precision.widen(made)) == []
    assert [tensor.dtype for tensor in (*own.workload.inputs, *own.workload.outputs)] == ["float32"] * 2
    kept = next(t for t in made.graph.initializer if t.name == "w")
    np.testing.assert_array_equal(numpy_helper.to_array(kept), numpy_helper.to_array(w).astype(np.float32))
    for name in ("fp32", "fp16", "int8"):
        found = own.through(name)
        assert found["status"] == "ok" and found["relative_l2"] < 0.1, (name, found)
    assert precision.other_floats(graph.load(tmp_path / "fp32.onnx")) == []
    assert precision.other_floats(graph.load(tmp_path / "fp16.onnx")) == ["float16"]


def test_a_mask_beyond_fp32_becomes_its_lowest_number() -> None:
    lowest = numpy_helper.from_array(np.array([np.finfo(np.float64).min, -np.inf, 1.5]), "m")
    made = precision.widen(model([helper.make_node("Identity", ["m"], ["y"])], [], [], [lowest]))
    found = numpy_helper.to_array(made.graph.initializer[0])
    np.testing.assert_array_equal(found, np.array([np.finfo(np.float32).min, -np.inf, 1.5], np.float32))


def test_what_fp32_does_not_hold_is_a_cell_that_cannot_run(tmp_path: Path) -> None:
    """Adding and taking away a number beyond FP32's 24 bits leaves FP64's input, and nothing of FP32's."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["wide", "big"], ["up"]),
        helper.make_node("Sub", ["up", "big"], ["down"]),
        helper.make_node("Cast", ["down"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [value(name, TensorProto.FLOAT, "batch", 8) for name in "xy"]
    big = numpy_helper.from_array(np.float64(1e9), "big")
    own = Imported(model(nodes, ends[:1], ends[1:], [big]), tmp_path, task="tensors")
    assert own.failure.startswith("the graph needs FP64: its answers in FP32 are 1 away")


@pytest.mark.parametrize("kind", ["operators", "type"])
def test_a_quantised_file_is_a_cell_that_cannot_run(tmp_path: Path, kind: str) -> None:
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    if kind == "operators":
        zero = numpy_helper.from_array(np.int8(0), "zero")
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ]
    else:
        zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [1], [0.5])
        nodes = [
            helper.make_node("Cast", ["zero"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["x", "wide"], ["y"]),
        ]
    ends = [value(name, TensorProto.FLOAT, "batch", 8) for name in "xy"]
    source = model(nodes, ends[:1], ends[1:], [scale, zero], opset=19)
    assert Imported(source, tmp_path, task="tensors").failure.startswith("the graph is quantised already (")
    for name in precision.PRECISIONS:
        with pytest.raises(CellFailure, match="name the floating point file"):
            precision.convert(source, name)


def test_dimensions_of_outputs_are_measured_where_the_graph_leaves_them_open(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Concat", ["rows", "rows"], ["twice"], axis=1),
        helper.make_node("Transpose", ["rows"], ["turned"], perm=[1, 2, 0]),
    ]
    own = Imported(
        model(
            nodes,
            [value("ids", TensorProto.INT64, "length", "N")],  # the batch need not lead
            [
                helper.make_tensor_value_info("rows", TensorProto.FLOAT, None),
                value("turned", TensorProto.FLOAT, "a", "b", "s"),
                value("twice", TensorProto.FLOAT, "length", "t", 4),
            ],
            [weight("table", 50, 4)],
        ),
        tmp_path,
        task="tensors",
        axes={"length": "sequence"},
    )
    dims = {tensor.name: tensor.dims for tensor in own.workload.outputs}
    assert dims == {
        "rows": ("sequence", "batch", 4),
        "turned": ("batch", 4, "sequence"),
        "twice": ("sequence", "twice.1", 4),
    }
    assert own.through("fp32")["relative_l2"] < 1e-6
    assert [d.dim_param or d.dim_value for d in graph.load(own.graph).graph.output[1].type.tensor_type.shape.dim] == [
        "batch",
        4,
        "sequence",
    ]


def test_axes_of_one_size_by_place(tmp_path: Path) -> None:
    own = Imported(classifier(batch=2), tmp_path, axes={"input_ids.0": "batch"})
    assert graph.axes(graph.load(own.graph)) == {"batch": 2, "sequence": None}
    assert files.read_json(own.weights / "provenance.json")["limits"] == {"batch": [2, 2]}
    assert own.through("int8")["status"] == "ok"


def test_answers_that_are_not_finite_have_no_parity(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["n"]),
        helper.make_node("Sqrt", ["n"], ["y"]),
    ]
    ends = [value(name, TensorProto.FLOAT, "batch", 8) for name in "xy"]
    found = Imported(model(nodes, ends[:1], ends[1:]), tmp_path, task="tensors").through("fp32")
    assert found["status"] == "failed" and "NaN" in found["reason"]


def test_a_product_of_the_input_itself_is_quantised_beside_fp16(tmp_path: Path) -> None:
    """The cast of the input stands between it and the product, under another name than the calibration's."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["sums"]), helper.make_node("Relu", ["sums"], ["y"])]
    ends = [value(name, TensorProto.FLOAT, "batch", 8) for name in "xy"]
    own = Imported(model(nodes, ends[:1], ends[1:], [weight("w", 8, 8)]), tmp_path, task="tensors")
    found = own.through("int8.half")
    assert found["status"] == "ok" and found["relative_l2"] < 0.1 and len(found["layers"]) == 1


SEQUENCE = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
OPTIONAL = helper.make_value_info(
    "o", helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch"]))
)


@pytest.mark.parametrize(
    ("node", "extra", "output", "message"),
    [
        (
            helper.make_node("SplitToSequence", ["x"], ["y"], axis=0),
            [],
            SEQUENCE,
            r"output y is no tensor \(sequence\)",
        ),
        (helper.make_node("OptionalHasElement", ["o"], ["y"]), [OPTIONAL], None, r"input o is no tensor \(optional\)"),
        (
            helper.make_node("Identity", ["s"], ["y"]),
            [value("s", TensorProto.STRING, "batch")],
            None,
            "s has the element",
        ),
        (
            helper.make_node("Foo", ["x"], ["y"]),
            [value("c", TensorProto.COMPLEX64, "batch")],
            None,
            "c has the element",
        ),
    ],
)
def test_what_is_no_tensor_of_numbers_is_a_cell_that_cannot_run(tmp_path, node, extra, output, message) -> None:
    output = output or value("y", TensorProto.FLOAT, "batch")
    own = Imported(
        model([node], [value("x", TensorProto.FLOAT, "batch", 4), *extra], [output]), tmp_path, task="tensors"
    )
    assert re.match(message, own.failure)
    with pytest.raises(CellFailure, match=message):
        inputs.make_inputs(own.weights, own.shape(), inputs.Wanted(2, 0), tmp_path / "in.npz")


def test_a_graph_that_draws_random_numbers_says_so(tmp_path: Path) -> None:
    noise = helper.make_node("RandomNormalLike", ["x"], ["noise"], name="dropout")
    ends = [value(name, TensorProto.FLOAT, "batch", 4) for name in "xy"]
    own = Imported(model([noise, helper.make_node("Add", ["x", "noise"], ["y"])], ends[:1], ends[1:]), tmp_path)
    assert own.failure == (
        "the graph draws random numbers (RandomNormalLike, node dropout), so no two runs of it agree; export it without"
    )


@pytest.mark.parametrize(("domain", "operator"), [("of.somebody", "Mystery"), ("", "Mystery")])
def test_an_operator_that_nobody_has_is_a_cell_that_cannot_run(tmp_path: Path, domain: str, operator: str) -> None:
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    ends = [value(name, TensorProto.FLOAT, "batch", 4) for name in "xy"]
    own = Imported(model([node], ends[:1], ends[1:], **({domain: 1} if domain else {})), tmp_path)
    assert own.failure.startswith("ONNX Runtime cannot load the file on a CPU")


def test_operators_of_onnx_runtime_work(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["sums"], name="p"),
        helper.make_node("QuickGelu", ["sums"], ["y"], domain="com.microsoft", alpha=1.702),
    ]
    ends = [value(name, TensorProto.FLOAT, "batch", 8) for name in "xy"]
    own = Imported(
        model(nodes, ends[:1], ends[1:], [weight("w", 8, 8)], **{"com.microsoft": 1}), tmp_path, task="tensors"
    )
    for name in ("fp32", "fp16", "int8"):
        assert own.through(name)["status"] == "ok"
    with pytest.raises(UserError, match="the shape of y"):
        operations.count(graph.load(own.graph), own.shape())


def test_weights_beside_the_file_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    onnx.save(classifier(), there / "big.onnx", save_as_external_data=True, location="weights.bin", size_threshold=100)
    assert (there / "weights.bin").exists()
    monkeypatch.setattr(graph, "LARGEST", 1000)
    model = json.dumps({"name": "own", "onnx": str(there / "big.onnx"), "task": "sequence-classification"})
    command = [sys.executable, PROGRAMS / "import_onnx.py", "--model", model, "--weights-dir", here / "weights"]
    done = subprocess.run(
        [*command, "--output", here / "e.onnx", "--report", here / "e.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sources = files.read_json(here / "e.json")["provenance"]["sources"]
    assert sources["weights.bin"] == files.sha256(there / "weights.bin")
    assert graph.load(here / "e.onnx").graph.initializer[0].raw_data


def test_weights_that_are_not_beside_the_file_are_a_cell_that_cannot_run(tmp_path: Path) -> None:
    there, weights = tmp_path / "there", tmp_path / "there/weights.bin"
    there.mkdir()
    onnx.save(classifier(), there / "big.onnx", save_as_external_data=True, location="weights.bin", size_threshold=100)
    weights.rename(tmp_path / "weights.bin")

    def failure() -> str:
        own = definition.read("own", {"onnx": str(there / "big.onnx"), "task": "sequence-classification"})
        importing.import_onnx(own, tmp_path / "e.onnx", tmp_path / "e.json", tmp_path / "w")
        found = files.read_json(tmp_path / "e.json")["failure"]
        assert found["kind"] == "damaged"
        return found["message"]

    assert "is not there; put that file beside it" in failure()
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "is a pointer of git-lfs; run git lfs pull" in failure()
    weights.write_bytes(bytes(100))
    assert "has damaged weights beside it" in failure()
    weights.unlink()
    weights.symlink_to(tmp_path / "weights.bin")
    assert "outside its folder" in failure()


@pytest.mark.parametrize("content", [b"", b"hello world\n"])
def test_a_file_that_is_no_graph_is_the_users_to_mend(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"own\.onnx"):
        importing.import_onnx(
            definition.read("own", {"onnx": str(tmp_path / "own.onnx")}),
            tmp_path / "e.onnx",
            tmp_path / "e.json",
            tmp_path / "w",
        )
