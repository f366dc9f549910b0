"""Calibration, quantisation, parity and the sensitivity of layers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ceilings import files, records
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import (
    calibration,
    calibration_comparison,
    export,
    fuse,
    graph,
    parity,
    quantize,
    sensitivity,
    simplify,
)
from ceilings.graphs.calibration import Calibration, Range
from ceilings.graphs.quantize import Quantization
from ceilings.models import inputs
from ceilings.workload.shape import Shape


def compare(found: np.ndarray, expected: np.ndarray) -> parity.Parity:
    """One output of classes, (batch, classes)."""
    return parity.compare({"logits": found[None]}, {"logits": expected[None]}, "classes")


def constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def set_constants(model: onnx.ModelProto, ending: str, value: float) -> None:
    """Fill every constant whose name ends so, in place."""
    for tensor in model.graph.initializer:
        if tensor.name.endswith(ending):
            tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, value, np.float32), tensor.name))


def test_minmax_is_the_minimum_and_maximum(distilbert, ranges) -> None:
    """Against the values themselves, from a graph that gives them as outputs."""
    products = graph.weight_products(distilbert.model)
    assert set(ranges) == {name for product in products for name in (product.activation, product.output)}
    sample = inputs.sample(distilbert.weights, Shape.parse("b1-s32"), 8, 0)
    feed = {name: array.reshape(8, 32) for name, array in sample.arrays.items()}
    names = {product.activation for product in products}
    values = sensitivity._run(distilbert.model, names, feed, 1)
    for name, value in values.items():
        assert ranges[name].low == pytest.approx(float(value.min()), abs=1e-5)
        assert ranges[name].high == pytest.approx(float(value.max()), abs=1e-5)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_methods_stay_within_minmax(distilbert, ranges, method: str) -> None:
    settings = Calibration(method, count=8, sequence=32, percentile=99.0)
    found, described = calibration.calibrate(distilbert.simplified, distilbert.weights, settings, 1)
    assert described["inputs_source"] == "random" and described["shape"] == "b1-s32"
    assert all(found[name].largest <= ranges[name].largest * 1.01 for name in ranges)
    if method == "percentile":
        assert sum(found[name].largest < ranges[name].largest * 0.95 for name in ranges) > len(ranges) / 2


def test_chunks_do_not_change_the_ranges(distilbert, ranges, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = calibration.Calibration("minmax", count=8, sequence=32)  # as the fixture that it is compared with

    monkeypatch.setattr(calibration, "CHUNK_TOKENS", 96)
    seen: list[tuple[int, int]] = []
    found, _ = calibration.calibrate(
        distilbert.simplified, distilbert.weights, wanted, 1, lambda done, total, _: seen.append((done, total))
    )
    assert seen == [(3, 8), (6, 8), (8, 8)]
    assert all(found[name].high == pytest.approx(ranges[name].high, abs=1e-5) for name in ranges)


def test_a_fixed_batch_is_calibrated_in_its_batches(distilbert, ranges, tmp_path: Path) -> None:
    export.export_onnx(distilbert.weights, export.Export(axes={"batch": 4, "sequence": 32}), tmp_path / "e.onnx")
    simple = simplify.simplify(graph.load(tmp_path / "e.onnx"), distilbert.workload).model
    graph.save(simple, tmp_path / "s.onnx")
    # The sequence is the graph's, whatever the study says for models that leave it open.
    found, described = calibration.calibrate(tmp_path / "s.onnx", distilbert.weights, Calibration("minmax", 8, 128), 1)
    assert described["shape"] == "b4-s32" and len(found) == len(ranges)
    first = graph.weight_products(simple)[0].activation
    assert found[first].high == pytest.approx(
        ranges[graph.weight_products(distilbert.model)[0].activation].high, abs=1e-5
    )
    with pytest.raises(CellFailure, match=r"takes batches of 4; calibration.count \(6\)"):
        calibration.calibrate(tmp_path / "s.onnx", distilbert.weights, Calibration("minmax", 6), 1)


def test_the_cache_decodes_to_the_scale(distilbert, ranges, tmp_path: Path) -> None:
    described = {"inputs_sha256": "0" * 64, "inputs_source": "random", "shape": "b1-s32"}
    settings = Calibration("entropy", count=8, sequence=32)
    json_path, cache = tmp_path / "c.json", tmp_path / "c.cache"
    calibration.write(
        json_path,
        cache=cache,
        graph_path=distilbert.simplified,
        calibration=settings,
        ranges=ranges,
        described=described,
    )
    header, *lines = cache.read_text().splitlines()
    assert header == "TRT-101601-EntropyCalibration2"
    decoded = {}
    for line in lines:
        name, _, digits = line.rpartition(": ")
        assert len(digits) == 8
        decoded[name] = struct.unpack(">f", bytes.fromhex(digits))[0]
    assert set(decoded) == set(ranges)
    for name, span in ranges.items():
        assert decoded[name] == pytest.approx(max(abs(span.low), abs(span.high)) / 127, rel=1e-6)
    assert calibration.load(json_path, distilbert.simplified) == ranges
    with pytest.raises(UserError, match=r"made for graph .* delete the calibration"):
        calibration.load(json_path, distilbert.exported)
    record = files.read_json(json_path)
    assert (record["method"], record["count"]) == ("entropy", 8)
    files.write_json(json_path, {"graph_sha256": files.sha256(distilbert.simplified)})
    with pytest.raises(UserError, match="is no record of this pipeline"):
        calibration.load(json_path, distilbert.simplified)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"method": "magic", "count": 8}, "method = 'magic'"),
        ({"method": "minmax"}, "lacks the key 'count'"),
        ({"method": "minmax", "count": 0}, "count = 0"),
        ({"method": "percentile", "count": 8, "percentile": 20}, "percentile = 20"),
    ],
)
def test_calibration_slices_are_checked(value: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        calibration.read(value)


def test_int8_uses_the_ranges(distilbert, ranges, run) -> None:
    done = quantize.quantize(distilbert.model, ranges, "int8", Quantization())
    assert len(done.quantized) == 14 and not done.kept
    for product in graph.weight_products(distilbert.model):
        scale = constant(done.model, f"{product.activation}_scale")
        assert float(scale) == pytest.approx(ranges[product.activation].largest * 2 / 254, rel=0.01)
        assert constant(done.model, f"{product.activation}_zero_point").dtype == np.int8
        weight = constant(done.model, f"{product.weight}_quantized")
        assert weight.dtype == np.int8
        columns = weight.shape[0 if product.transposed else 1]
        assert constant(done.model, f"{product.weight}_scale").shape == (columns,)
    assert not any(node.domain for node in done.model.graph.node)
    onnx.checker.check_model(done.model, full_check=True)
    rounded = {node.output[0] for node in done.model.graph.node if node.op_type == "DequantizeLinear"}
    readers = {node.op_type for node in done.model.graph.node if rounded & set(node.input)}
    assert readers == {"MatMul", "Gemm"}, "residual additions read the unrounded tensor"
    feed = distilbert.feed()
    good = compare(run(done.model, feed), run(distilbert.model, feed))
    assert good.relative_l2 < 0.1
    # Ranges a hundred times too small must hurt: they are what is used.
    small = {name: Range(span.low / 100, span.high / 100) for name, span in ranges.items()}
    bad = quantize.quantize(distilbert.model, small, "int8", Quantization())
    assert compare(run(bad.model, feed), run(distilbert.model, feed)).relative_l2 > 10 * good.relative_l2


@pytest.mark.parametrize(("name", "products", "shape"), [("clip", 13, "b1-i32"), ("clip-text", 13, "b1-s20")])
def test_any_workload_is_calibrated_and_quantised(make_tiny, tmp_path: Path, name, products, shape) -> None:
    tiny = make_tiny(name)
    spans, described = calibration.calibrate(tiny.simplified, tiny.weights, Calibration("entropy", 8, 32), 1)
    assert described["shape"] == shape, "the sequence is cut to what the model takes"
    for precision, floats in (("int8", "fp32"), ("int8", "fp16"), ("fp8", "fp32")):
        done = quantize.quantize(tiny.model, spans, precision, Quantization(), floats)
        assert len(done.quantized) == products
        graph.save(done.model, tmp_path / "q.onnx")
        record = tiny.check(tmp_path / "q.onnx", precision, tiny.simplified)
        assert record["status"] == "ok" and record["relative_l2"] < 0.15 and len(record["layers"]) == products
    convolutions = [node for node in done.model.graph.node if node.op_type == "Conv"]
    quantised = {node.output[0] for node in done.model.graph.node if node.op_type == "DequantizeLinear"}
    assert len(convolutions) == (name == "clip")
    assert not any(quantised & set(node.input) for node in convolutions)


def test_an_older_opset_is_raised_for_scales_by_column(distilbert, ranges) -> None:
    """LayerNormalization is of opset 17: the converter refuses to go below, so a plain product stands for old files."""
    helper, kinds = onnx.helper, onnx.TensorProto
    matrix = numpy_helper.from_array(np.random.default_rng(0).normal(size=(200, 100)).astype(np.float32), "w")
    ends = [
        helper.make_tensor_value_info(name, kinds.FLOAT, ["batch", width]) for name, width in (("x", 200), ("y", 100))
    ]
    model = helper.make_model(
        helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="p")], "g", ends[:1], ends[1:], [matrix]),
        opset_imports=[helper.make_opsetid("", 11)],
        ir_version=6,
    )
    done = quantize.quantize(model, {"x": Range(-3, 3)}, "int8", Quantization())
    assert (done.opset_before, graph.opset(done.model)) == (11, 13)
    onnx.checker.check_model(done.model, full_check=True)
    assert constant(done.model, "w_scale").shape == (100,)


def test_nothing_to_quantise_is_a_cell_that_cannot_run(distilbert, tmp_path: Path) -> None:
    model = distilbert.model
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            node.domain = "of.somebody"
    graph.save(model, tmp_path / "none.onnx")
    with pytest.raises(CellFailure, match="nothing to calibrate"):
        calibration.calibrate(tmp_path / "none.onnx", distilbert.weights, Calibration("minmax", 8), 1)
    with pytest.raises(CellFailure, match="nothing to quantise"):
        quantize.quantize(model, {}, "int8", Quantization())


@pytest.mark.parametrize(("method", "value"), [("minmax", np.inf), ("entropy", np.nan), ("percentile", 1e38)])
def test_what_no_scale_represents_is_a_cell_that_cannot_run(distilbert, tmp_path: Path, method: str, value) -> None:
    model = distilbert.model
    set_constants(model, "embeddings.LayerNorm.bias", value)
    graph.save(model, tmp_path / "broken.onnx")
    with pytest.raises(CellFailure, match=r"NaN or infinities at /model/\S+: no scale represents them"):
        calibration.calibrate(tmp_path / "broken.onnx", distilbert.weights, Calibration(method, 8, 32), 1)


def test_activations_of_zeros_get_a_scale(distilbert, tmp_path: Path, run) -> None:
    model = distilbert.model
    for name in ("embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"):
        set_constants(model, name, 0)
    graph.save(model, tmp_path / "zeros.onnx")
    ranges, _ = calibration.calibrate(tmp_path / "zeros.onnx", distilbert.weights, Calibration("minmax", 8, 32), 1)
    assert min(span.largest for span in ranges.values()) == 0
    scales = [line.rpartition(": ")[2] for line in calibration.tensorrt_cache(ranges).splitlines()[1:]]
    assert len(scales) == len(ranges) and all(struct.unpack(">f", bytes.fromhex(scale))[0] > 0 for scale in scales)
    quantized = quantize.quantize(model, ranges, "int8", Quantization()).model
    feed = distilbert.feed()
    assert compare(run(quantized, feed), run(model, feed)).relative_l2 < 0.1


def test_a_calibration_that_failed_is_the_same_failure_for_its_readers(distilbert, tmp_path: Path) -> None:
    failure = {"status": "failed", "failure": {"kind": "unsupported", "message": "no scale represents them"}}
    records.write(tmp_path / "c.json", "calibration", failure)
    with pytest.raises(CellFailure, match="no scale represents them"):
        calibration.load(tmp_path / "c.json", distilbert.simplified)


def test_per_tensor_weights_have_one_scale(distilbert, ranges) -> None:
    done = quantize.quantize(distilbert.model, ranges, "int8", Quantization(per_channel=False))
    product = graph.weight_products(distilbert.model)[0]
    assert constant(done.model, f"{product.weight}_scale").shape == ()


def test_the_unsigned_form_is_the_same_numbers_in_integer_kernels(distilbert, ranges, run) -> None:
    signed = quantize.quantize(distilbert.model, ranges, "int8", Quantization()).model
    unsigned = quantize.unsigned(signed)
    onnx.checker.check_model(unsigned, full_check=True)
    feed = distilbert.feed()
    np.testing.assert_array_equal(run(signed, feed), run(unsigned, feed))
    # 6 products a layer; the 2 of the classifier are one row an input.
    assert quantize.integer_kernels(unsigned) == {"integer": 12, "float": 2}
    both = quantize.unsigned(signed, weights=True)
    assert not any(tensor.data_type == TensorProto.INT8 for tensor in both.graph.initializer)
    np.testing.assert_array_equal(run(signed, feed), run(both, feed))
    assert quantize.integer_kernels(both) == {"integer": 12, "float": 2}


def test_a_graph_is_checked_with_products_that_do_not_saturate(distilbert, ranges, tmp_path: Path) -> None:
    """On any x86: also the signed form, which ONNX Runtime turns into uint8 by int8."""
    signed = quantize.quantize(distilbert.model, ranges, "int8", Quantization()).model
    graph.session(signed, 1, optimized=tmp_path / "o.onnx")
    optimized = graph.load(tmp_path / "o.onnx").graph
    stored = {tensor.name: tensor.data_type for tensor in optimized.initializer}
    weights = [stored[node.input[1]] for node in optimized.node if node.op_type == "MatMulIntegerToFloat"]
    assert weights and set(weights) == {TensorProto.UINT8}


def test_products_of_two_unsigned_operands_do_not_saturate() -> None:
    """What x86 without VNNI does, by its definition (vpmaddubsw): two products are added in 16 bits."""
    activations, weights = np.array([200, 210], np.int64), np.array([120, 100], np.int64)  # uint8, int8
    exact = int(activations @ weights)
    assert min(exact, 2**15 - 1) != exact, "uint8 by int8 saturates"
    zero = 128
    widened = int(activations @ (weights + zero)) - zero * int(activations.sum())  # 32 bits, then the zero point
    assert widened == exact


def test_keep_keeps(distilbert, ranges) -> None:
    done = quantize.quantize(distilbert.model, ranges, "int8", Quantization(keep=["*/layer.1/ffn/*", "*classifier*"]))
    assert len(done.kept) == 4 and len(done.quantized) == 10
    weights = {tensor.name: tensor.data_type for tensor in done.model.graph.initializer}
    for product in graph.weight_products(distilbert.model):
        assert (product.node in done.kept) == (weights.get(product.weight) == onnx.TensorProto.FLOAT)
    with pytest.raises(UserError, match=r"lin1/MatMull', which .*near: .*layer\.1/ffn/lin1/MatMul"):
        quantize.quantize(distilbert.model, ranges, "int8", Quantization(keep=["*layer.1/ffn/lin1/MatMull"]))
    with pytest.raises(UserError, match="nothing is left"):
        quantize.quantize(distilbert.model, ranges, "int8", Quantization(keep=["*"]))


def test_a_missing_range_is_named(distilbert, ranges) -> None:
    product = graph.weight_products(distilbert.model)[3]
    less = {name: span for name, span in ranges.items() if name != product.activation}
    with pytest.raises(UserError, match="no range of"):
        quantize.quantize(distilbert.model, less, "int8", Quantization())


def test_fp8_raises_the_opset_and_is_close(distilbert, ranges, tmp_path: Path) -> None:
    done = quantize.quantize(distilbert.model, ranges, "fp8", Quantization())
    assert done.opset_before == 17 and graph.opset(done.model) >= 19
    product = graph.weight_products(distilbert.model)[0]
    scale = constant(done.model, f"{product.activation}_scale")
    assert float(scale) == pytest.approx(ranges[product.activation].largest / 448, rel=1e-5)
    graph.save(done.model, tmp_path / "fp8.onnx")
    record = distilbert.check(tmp_path / "fp8.onnx", "fp8", distilbert.simplified)
    assert record["status"] == "ok" and record["relative_l2"] < 0.2 and len(record["layers"]) == 14


def test_quantised_graphs_are_not_fused(distilbert, ranges, tmp_path: Path) -> None:
    graph.save(quantize.quantize(distilbert.model, ranges, "int8", Quantization()).model, tmp_path / "int8.onnx")
    with pytest.raises(UserError, match="is quantised"):
        fuse.fuse(tmp_path / "int8.onnx", distilbert.weights)


def test_a_planted_outlier_is_the_most_sensitive_layer(distilbert, tmp_path: Path) -> None:
    """A row of huge weights on an activation that is always zero: no effect in FP32, all of int8's steps wasted."""
    model = distilbert.model
    planted = next(
        product for product in graph.weight_products(model) if product.node.endswith("layer.0/ffn/lin1/MatMul")
    )
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    norm = next(node for node in model.graph.node if node.output[0] == planted.activation)
    for name, planting in [(norm.input[1], 0.0), (norm.input[2], 0.0), (planted.weight, 2.0)]:
        value = numpy_helper.to_array(tensors[name]).copy()
        value[0] = planting
        tensors[name].CopyFrom(numpy_helper.from_array(value, name))
    path = tmp_path / "planted.onnx"
    graph.save(model, path)
    spans, _ = calibration.calibrate(path, distilbert.weights, Calibration("minmax", 8, 32), 1)
    done = quantize.quantize(model, spans, "int8", Quantization())
    found = sensitivity.layers(done.model, model, distilbert.feed(), 1)
    assert found[0].node == planted.node
    assert found[0].sqnr_db < found[1].sqnr_db - 6
    better = quantize.quantize(model, spans, "int8", Quantization(keep=[planted.node]))
    assert planted.node not in {layer.node for layer in sensitivity.layers(better.model, model, distilbert.feed(), 1)}


def test_methods_are_compared_side_by_side(distilbert, ranges, tmp_path: Path) -> None:
    described = {"inputs_sha256": "0" * 64, "inputs_source": "random", "shape": "b1-s32"}
    paths = {}
    for method, factor in (("minmax", 1.0), ("entropy", 0.01)):
        paths[method] = tmp_path / f"{method}.json"
        calibration.write(
            paths[method],
            cache=tmp_path / f"{method}.cache",
            graph_path=distilbert.simplified,
            calibration=Calibration(method, 8, 32),
            ranges={name: Range(span.low * factor, span.high * factor) for name, span in ranges.items()},
            described=described,
        )
    paths["percentile"] = tmp_path / "percentile.json"
    failure = {"kind": "unsupported", "message": "gives NaN"}
    records.write(paths["percentile"], "calibration", {"status": "failed", "failure": failure})
    record = calibration_comparison.compare(
        distilbert.simplified,
        paths,
        Quantization(),
        workload=distilbert.weights / "workload.json",
        inputs=distilbert.inputs,
        reference=distilbert.reference,
        threads=1,
    )
    assert record["best"] == "minmax"
    found = {name: (each["status"], each["reason"], len(each["layers"])) for name, each in record["methods"].items()}
    assert found == {
        "minmax": ("ok", None, 14),
        "entropy": ("ok", None, 14),
        "percentile": ("failed", "gives NaN", 0),
    }


def test_the_parity_record(distilbert, ranges, tmp_path: Path) -> None:
    graph.save(quantize.quantize(distilbert.model, ranges, "int8", Quantization()).model, tmp_path / "int8.onnx")
    record = distilbert.check(tmp_path / "int8.onnx", "int8", distilbert.simplified)
    assert record["status"] == "ok" and record["rows"] == 4 and record["reason"] is None
    noise = [layer["sqnr_db"] for layer in record["layers"]]
    assert len(noise) == 14 and noise == sorted(noise) and min(noise) > 15
    assert set(record["provenance"]["sources"]) == {"graph", "inputs", "reference", "base"}
    records.write(tmp_path / "p.json", "parity", record)


def test_the_rest_can_compute_in_fp16(distilbert, ranges, run) -> None:
    kept = Quantization(keep=["*ffn/lin1/MatMul"])
    plain = quantize.quantize(distilbert.model, ranges, "int8", kept).model
    half = quantize.quantize(distilbert.model, ranges, "int8", kept, "fp16").model
    onnx.checker.check_model(half, full_check=True)
    kinds = {tensor.data_type for tensor in half.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds
    assert graph.quantized_products(half) == graph.quantized_products(plain)
    logits = run(plain, distilbert.feed())
    assert 0 < np.linalg.norm(run(half, distilbert.feed()) - logits) < 0.01 * np.linalg.norm(logits)


def test_a_range_that_fp16_does_not_hold_is_refused(distilbert, ranges) -> None:
    tiny = {name: Range(-1e-7, 1e-7) for name in ranges}
    with pytest.raises(UserError, match="has a scale that FP16 does not hold"):
        quantize.quantize(distilbert.model, tiny, "int8", Quantization(), "fp16")
