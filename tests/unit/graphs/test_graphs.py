"""Export, simplification, precision, fusion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ceilings import files
from ceilings.errors import UserError
from ceilings.graphs import check, export, fuse, graph, precision, simplify

PROGRAMS = Path(graph.__file__).parents[2]


def test_dynamic_export_runs_at_other_shapes(tiny) -> None:
    import torch

    from ceilings.models.weights import load_model

    model = load_model(tiny.weights)
    session = graph.session(tiny.exported, 1)
    for shape in [(1, 1), (1, 64), (3, 7)]:
        feed = tiny.feed(*shape)
        with torch.inference_mode():
            expected = model(**{name: torch.from_numpy(value) for name, value in feed.items()}).logits.numpy()
        np.testing.assert_allclose(session.run(["logits"], feed)[0], expected, atol=1e-6)


def test_interface_is_named_and_anonymous(tiny) -> None:
    for path in (tiny.exported, tiny.simplified):
        model = graph.load(path)
        assert [graph.describe(value) for value in (*model.graph.input, *model.graph.output)] == [
            {"name": "input_ids", "type": "int64", "shape": ["batch", "sequence"]},
            {"name": "attention_mask", "type": "int64", "shape": ["batch", "sequence"]},
            {"name": "logits", "type": "float", "shape": ["batch", 2]},
        ]
        assert b"site-packages" not in path.read_bytes(), "no path of the machine that exported"


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_axes_can_be_fixed_one_by_one(distilbert, tmp_path: Path, exporter: str) -> None:
    settings = export.read({"exporter": exporter, "opset": 18, "axes": {"batch": 1}})
    export.export_onnx(distilbert.weights, settings, tmp_path / "e.onnx")
    model = graph.load(tmp_path / "e.onnx")
    assert graph.fixed_axes(model) == {"batch": 1} and graph.opset(model) == 18
    assert b"site-packages" not in (tmp_path / "e.onnx").read_bytes()
    feed = distilbert.feed(1, 11)
    expected = graph.session(distilbert.exported, 1).run(["logits"], feed)[0]
    np.testing.assert_allclose(graph.session(model, 1).run(["logits"], feed)[0], expected, atol=1e-6)


def test_impossible_exports(distilbert, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sequence to 65; the model has 64 positions"):
        export.export_onnx(distilbert.weights, export.read({"axes": {"sequence": 65}}), tmp_path / "e.onnx")
    for value, message in [({"axes": {"width": 2}}, "'width'"), ({"exporter": "jax"}, "exporter = 'jax'")]:
        with pytest.raises(UserError, match=message):
            export.read(value)
    with pytest.raises(UserError, match="refuses opset 99"):
        export.export_onnx(distilbert.weights, export.Export(opset=99), tmp_path / "e.onnx")


def test_simplified_graph_is_smaller_standard_and_equal(tiny) -> None:
    assert tiny.outcome.simplified and tiny.outcome.max_difference < 1e-5
    assert len(tiny.model.graph.node) < len(graph.load(tiny.exported).graph.node)
    assert not {node.domain for node in tiny.model.graph.node} - {"", "ai.onnx"}
    # 6 biases a layer and 2 in the classifier (Gemm): none was folded away.
    assert graph.op_types(tiny.model)["MatMul"] >= 16


def test_weights_set_aside_change_nothing(distilbert, monkeypatch: pytest.MonkeyPatch) -> None:
    model = graph.load(distilbert.exported)
    monkeypatch.setattr(simplify, "SET_ASIDE_BYTES", 1000)
    hollow, aside = simplify._set_aside(model)
    assert len(aside) > 10 and hollow.ByteSize() < model.ByteSize() / 2
    assert simplify.simplify(model).model == distilbert.model


def test_bad_simplifications_fall_back_with_the_reason(distilbert) -> None:
    model = graph.load(distilbert.exported)

    def crash(given: onnx.ModelProto) -> onnx.ModelProto:
        raise KeyError("lost a tensor")

    def distort(given: onnx.ModelProto) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(given)
        tensor = next(tensor for tensor in copy.graph.initializer if "classifier.bias" in tensor.name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))
        return copy

    def foreign(given: onnx.ModelProto) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(given)
        copy.opset_import.add(domain="com.microsoft", version=1)
        next(node for node in copy.graph.node if node.op_type == "Erf").domain = "com.microsoft"
        return copy

    def invalid(given: onnx.ModelProto) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(given)
        del copy.graph.node[5]
        return copy

    for slim, reason in [
        (crash, "lost a tensor"),
        (distort, "logits differ"),
        (foreign, "com.microsoft"),
        (invalid, "check"),
    ]:
        outcome = simplify.simplify(model, slim)
        assert not outcome.simplified and reason in outcome.reason, outcome.reason
        assert outcome.model is model


def test_fp16_is_close_and_keeps_the_interface(tiny, run) -> None:
    half, _ = precision.convert(tiny.model, "fp16")
    assert [graph.describe(v)["type"] for v in (*half.graph.input, *half.graph.output)] == ["int64", "int64", "float"]
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in half.graph.initializer)
    assert not any(tensor.data_type == TensorProto.FLOAT for tensor in half.graph.initializer)
    feed = tiny.feed()
    np.testing.assert_allclose(run(half, feed), run(tiny.model, feed), atol=2e-3)


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_masked_rows_do_not_become_nan(tiny, run, kind: str) -> None:
    converted, done = precision.convert(tiny.model, kind)
    assert done["clamped"] >= 1
    for tensor in converted.graph.initializer:
        assert np.isfinite(numpy_helper.to_array(tensor).astype(np.float32)).all(), tensor.name
    if kind == "bf16":
        return  # no kernels on a CPU
    # Large scores beside the mask: with the smallest float16 in the mask their sum would be an infinity.
    for tensor in converted.graph.initializer:
        if tensor.name.endswith("word_embeddings.weight"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float16(50), tensor.name))
    feed = tiny.feed()
    feed["attention_mask"][0] = 0
    assert np.isfinite(run(converted, feed)).all()


def test_bf16_rounds_from_fp32(distilbert) -> None:
    import ml_dtypes

    converted, _ = precision.convert(distilbert.model, "bf16")
    onnx.checker.check_model(converted, full_check=True)
    exact = {tensor.name: numpy_helper.to_array(tensor) for tensor in distilbert.model.graph.initializer}
    compared = 0
    for tensor in converted.graph.initializer:
        assert tensor.data_type != TensorProto.FLOAT16
        if tensor.data_type == TensorProto.BFLOAT16 and np.prod(tensor.dims) > 1:
            found = numpy_helper.to_array(tensor).astype(np.float32)
            np.testing.assert_array_equal(found, exact[tensor.name].astype(ml_dtypes.bfloat16).astype(np.float32))
            compared += 1
    assert compared > 20


def test_bf16_is_unavailable_on_a_cpu(distilbert, tmp_path: Path) -> None:
    graph.save(precision.convert(distilbert.model, "bf16")[0], tmp_path / "bf16.onnx")
    record = check.check(
        tmp_path / "bf16.onnx",
        precision="bf16",
        inputs=distilbert.inputs,
        reference=distilbert.reference,
        base=None,
        threads=1,
    )
    assert record["status"] == "unavailable" and "cannot run this graph on a CPU" in record["reason"]


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_every_layer_is_fused(tiny, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "variant.onnx"
    graph.save(precision.convert(tiny.model, kind)[0], path)
    fused = fuse.fuse(path, tiny.weights, tiny.architecture)
    assert fused.fusions["Attention"] == fused.layers == 2
    graph.save(fused.model, tmp_path / "fused.onnx")
    record = check.check(
        tmp_path / "fused.onnx",
        precision=kind,
        inputs=tiny.inputs,
        reference=tiny.reference,
        base=None,
        threads=1,
    )
    assert record["status"] == "ok" and record["relative_l2"] < (1e-5 if kind == "fp32" else 1e-2)


def test_fused_bf16_is_a_valid_graph(distilbert, tmp_path: Path) -> None:
    graph.save(precision.convert(distilbert.model, "bf16")[0], tmp_path / "bf16.onnx")
    fused = fuse.fuse(tmp_path / "bf16.onnx", distilbert.weights, "distilbert")
    assert fused.fusions["Attention"] == 2 and "EmbedLayerNormalization" not in fused.fusions
    # What is missing is a kernel on the CPU, not validity.
    with pytest.raises(Exception, match="Could not find an implementation"):
        graph.session(fused.model, 1)


def test_attention_that_is_not_fused_is_an_error(distilbert, tmp_path: Path) -> None:
    export.export_onnx(distilbert.weights, export.Export(attention="sdpa"), tmp_path / "sdpa.onnx")
    with pytest.raises(UserError, match=r"0 of 2 attentions.*torchscript and attention: eager"):
        fuse.fuse(tmp_path / "sdpa.onnx", distilbert.weights, "distilbert")


def test_reports_describe_the_graph(distilbert, tmp_path: Path) -> None:
    graph.report(tmp_path / "r.json", distilbert.simplified, {"graph": distilbert.exported}, note="x")
    record = files.read_json(tmp_path / "r.json")
    assert record["nodes"] == sum(record["op_types"].values()) == len(distilbert.model.graph.node)
    assert record["provenance"]["sources"]["graph"] == files.sha256(distilbert.exported)
    assert record["graph_sha256"] == files.sha256(distilbert.simplified)


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_graphs_give_one_message(distilbert, tmp_path: Path, damage: str) -> None:
    content = distilbert.simplified.read_bytes()
    path = tmp_path / "broken.onnx"
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"hello world\n"}[damage])
    command = [sys.executable, PROGRAMS / "convert_precision.py", "--graph", path, "--precision", "fp16"]
    done = subprocess.run(
        [*command, "--output", tmp_path / "o.onnx", "--report", tmp_path / "o.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path} is a damaged ONNX file") and done.stderr.count("\n") == 1
    assert not (tmp_path / "o.onnx").exists()
