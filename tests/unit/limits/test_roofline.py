"""Floors of planted work on planted limits, worked out by hand."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import onnx
import pytest

import measure_peaks
from ceilings import records
from ceilings.errors import UserError
from ceilings.graphs.operations import Node, Product, Work
from ceilings.limits import floors
from ceilings.limits.roofline import Limits, Roofline, missing, read_limits

PEAKS = Path(__file__).parents[3] / "docs/studies/nvidia-h200/peaks.json"

BIG, OWN = (4096, 4096, 4096), (100, 10, 500)
LIMITS = Limits(
    rates={("fp16", BIG): 1e12, ("fp16", OWN): 1e11, ("fp32", BIG): 1e11, ("tf32", BIG): 5e11, ("int8", BIG): 2e12},
    dram=1e9,
    l2=4e9,
    l2_bytes=1_000_000,
    launch=5e-6,
)


def product(precision="fp16", *, m=100, n=10, k=500, weight=0, activation=0):
    """A million operations, if nothing else is said."""
    return Node("product", "MatMul", "gemm", Product(m, n, k, 1, precision), 0, weight, activation)


def work(*nodes, weights=0):
    return Work(nodes, weights, 0, {})


def floor(*nodes, weights=1, precision="fp16"):
    return Roofline(work(*nodes, weights=weights), LIMITS, precision).floor()


def test_each_limit_can_set_the_floor():
    compute = floor(product(k=50_000))  # 1e8 operations at 1e12 a second; the lower rate at its own size is no limit
    assert (compute["limited_by"], compute["floor_ms"]) == ("compute", pytest.approx(0.1))
    inside = floor(product(), weights=800_000)  # stays in L2
    assert (inside["limited_by"], inside["floor_ms"]) == ("l2", pytest.approx(0.2))
    assert inside["l2_share"] == 1
    far = floor(product(), weights=11_000_000)  # ten of eleven megabytes cannot have stayed
    assert (far["limited_by"], far["floor_ms"]) == ("dram", pytest.approx(10))
    assert far["cold_memory_floor_ms"] == pytest.approx(11)
    assert far["l2_share"] == pytest.approx(1 / 11)
    nothing = floor(product(m=1, n=1, k=1))
    assert (nothing["limited_by"], nothing["floor_ms"]) == ("launch", pytest.approx(0.005))


def test_memory_floor_knows_no_step_where_the_weights_outgrow_the_cache():
    below, above = (floor(product(), weights=weights)["memory_floor_ms"] for weights in (999_999, 1_000_001))
    assert below == pytest.approx(above, rel=1e-4)


def test_precisions_add_up_on_shared_units_and_overlap_on_others():
    quantised, half, full = product("int8"), product("fp16"), product("fp32")
    assert floor(quantised, half)["compute_floor_ms"] == pytest.approx(0.0005 + 0.001)
    assert floor(quantised, half, full)["compute_floor_ms"] == pytest.approx(0.01)
    assert floor(full, precision="tf32")["compute_floor_ms"] == pytest.approx(0.002)


def test_classes_tell_what_one_kernel_an_operator_takes():
    add = Node("add", "Add", "elementwise", None, 10, 0, 400_000)
    wide = Node("wide", "Add", "elementwise", None, 10, 0, 2_000_000)
    nodes = (product(weight=1_600_000, activation=400_000), add, wide)
    classes = Roofline(work(*nodes, weights=2_000_000), LIMITS, "fp16").classes()
    # Half of the weights come from DRAM, which takes longer than two megabytes through L2 and than the product.
    assert classes["gemm"]["unfused_ms"] == pytest.approx(0.8)
    # The small one's tensors are still in L2, the wide one's cannot be.
    assert classes["elementwise"]["unfused_ms"] == pytest.approx(0.1 + 2.0)
    assert classes["elementwise"]["vector_operations"] == 20


def test_the_library_s_time_is_at_its_own_sizes_and_says_what_it_covers():
    nodes = (product(), product(), product(n=20))
    library = Roofline(work(*nodes, weights=1), LIMITS, "fp16").library()
    assert library == {"ms": pytest.approx(0.02), "flops_share": pytest.approx(0.5)}


def test_what_was_not_measured_is_named_and_gives_no_floor():
    assert missing(LIMITS, ["fp16", "fp8"]) == ["matrix rate in fp8"]
    record = floors.bound(
        one_product(), json.loads(PEAKS.read_text()) | {"peaks": {"memory": {"unavailable": "no NVRTC"}}}, CELL, {}
    )
    assert record["status"] == "unavailable"
    assert record["reason"].startswith("not measured on nvidia-h200: DRAM bandwidth, L2 bandwidth, graph launch")
    assert record["work"]["flops"] == FLOPS
    with pytest.raises(UserError, match=r"x\.json holds no measured limits \(no device, l2_bytes, peaks\)"):
        floors.bound(one_product(), {}, CELL, {"peaks": "x.json"})


def test_a_graph_that_could_not_be_made_or_counted_has_no_floor(tmp_path):
    peaks = json.loads(PEAKS.read_text())
    (tmp_path / "bf16.onnx").write_bytes(b"")
    failure = {"kind": "unsupported", "message": "bf16 needs opset 17"}
    records.write(tmp_path / "bf16.json", "graph", {"status": "failed", "failure": failure})
    record = floors.bound(tmp_path / "bf16.onnx", peaks, CELL, {"peaks": PEAKS})
    assert (record["status"], record["reason"], record["shape"]) == ("unavailable", "bf16 needs opset 17", "b2-s4")
    record = floors.bound(one_product(), peaks, {**CELL, "shape": "b2"}, {"peaks": PEAKS})
    assert record["status"] == "unavailable" and "has the axis sequence, which b2 gives no size" in record["reason"]


def test_floors_are_of_any_axes(tmp_path):
    """One number an image, from the mean of its pixels."""
    helper, kinds = onnx.helper, onnx.TensorProto
    image = helper.make_tensor_value_info("pixels", kinds.FLOAT, ["batch", 3, "image", "image"])
    score = helper.make_tensor_value_info("score", kinds.FLOAT, ["batch"])
    nodes = [helper.make_node("ReduceMean", ["pixels"], ["score"], axes=[1, 2, 3], keepdims=0)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [image], [score]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, tmp_path / "fp32.onnx")
    cell = {**CELL, "shape": "b2-i10.half"}
    record = floors.bound(tmp_path / "fp32.onnx", json.loads(PEAKS.read_text()), cell, {"peaks": PEAKS})
    assert record["status"] == "ok" and record["work"]["bytes"] == 4 * (2 * 3 * 100 + 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[1, 2]]", "[1, 2] is no [m, n, k]"),
        ("[[1, 2, 0]]", "[1, 2, 0] is no"),
        ("[1]", "not a JSON list"),
        ("{", "not"),
    ],
)
def test_products_to_measure_are_checked(text, said):
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(said)):
        measure_peaks.products(text)


def test_each_product_is_measured_once():
    assert measure_peaks.products("[[1, 2, 3], [4, 5, 6], [1, 2, 3]]") == ((1, 2, 3), (4, 5, 6))


def test_limits_of_a_real_device():
    record = json.loads(PEAKS.read_text())
    limits = read_limits(record)

    def told(name: str, unit: float) -> float:
        return record["peaks"][name]["median"] * unit

    assert limits.rate("fp16") == pytest.approx(told("matrix_rate.fp16.8192x8192x8192", 1e12))
    assert limits.rates["fp16", (128, 768, 768)] == pytest.approx(told("matrix_rate.fp16.128x768x768", 1e12))
    assert limits.dram == pytest.approx(told("read_bandwidth", 1e9))
    assert limits.l2 == pytest.approx(told("l2_read_bandwidth", 1e9))
    assert limits.launch == pytest.approx(told("graph_to_completion.1", 1e-6))
    assert not missing(limits, ["fp32", "tf32", "fp16", "bf16", "int8", "fp8"])
    # An H200 on paper: 989 TFLOP/s in FP16, 1979 in INT8, 4.8 TB/s. A measured limit lies below, and not by a factor.
    assert 0.6 < limits.rate("fp16") / 989e12 < 1 and 0.4 < limits.rate("int8") / 1979e12 < 1
    assert 0.8 < limits.dram / 4.8e12 < 1 < limits.l2 / limits.dram


CELL = {"model": "m", "precision": "fp32", "graph": "fp32", "shape": "b2-s4"}
FLOPS = 2 * 2 * 4 * 3


def one_product() -> onnx.ModelProto:
    """logits (batch, 3) = mask as numbers (batch, sequence) times a matrix."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["numbers"], to=kinds.FLOAT),
        helper.make_node("MatMul", ["numbers", "matrix"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, kinds.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("logits", kinds.FLOAT, ["batch", 3])
    matrix = helper.make_tensor("matrix", kinds.FLOAT, [4, 3], [1.0] * 12)
    parts = helper.make_graph(nodes, "g", inputs, [output], [matrix])
    return helper.make_model(parts, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
