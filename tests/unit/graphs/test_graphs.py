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
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import export, fuse, graph, hollow, precision, simplify
from ceilings.workload.shape import Shape

PROGRAMS = Path(graph.__file__).parents[2]


def test_dynamic_export_runs_at_other_shapes(tiny) -> None:
    import torch

    from ceilings.models.load import load_module

    module = load_module(tiny.weights)
    session = graph.session(tiny.exported, 1)
    for shape in [(1, 1), (1, 64), (3, 7)]:
        feed = tiny.feed(*shape)
        with torch.inference_mode():
            expected = module(*(torch.from_numpy(feed[tensor.name]) for tensor in tiny.workload.inputs))[0].numpy()
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


def test_fixed_axes_keep_their_names(make_tiny) -> None:
    clip = make_tiny("clip")
    for path in (clip.exported, clip.simplified):
        model = graph.load(path)
        assert graph.axes(model) == {"batch": None, "image": 32}
        assert graph.describe(model.graph.input[0])["shape"] == ["batch", 3, 32, 32]
        assert graph.takes(model, Shape.parse("b5-i32")) and not graph.takes(model, Shape.parse("b5-i64"))
    half = precision.convert(clip.model, "fp16")[0]
    assert graph.fixed_axes(half) == {"image": 32}


def test_a_waveform_of_any_length_runs_in_a_graph_and_in_half_precision(make_tiny) -> None:
    import torch

    from ceilings.models.load import load_module

    speech = make_tiny("speech")
    module, half = load_module(speech.weights), precision.convert(speech.model, "fp16")[0]
    assert graph.axes(speech.model) == {"batch": None, "samples": None}
    for number, sizes in enumerate([(1, 30), (2, 1333), (3, 800)]):  # 30: the shortest
        waveform = np.random.default_rng(number).standard_normal(sizes).astype(np.float32)
        with torch.inference_mode():
            expected = module(torch.from_numpy(waveform))[0].numpy()
        for model, tolerance in ((speech.exported, 1e-5), (speech.simplified, 1e-5), (half, 2e-2)):
            found = graph.session(model, 1).run(None, {"input_values": waveform})[0]
            np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "exporter"),
    [("answers", "dynamo"), ("clip", "dynamo"), ("clip", "torchscript"), ("modernbert", "torchscript")],
)
def test_any_workload_is_exported_with_its_own_tensors(make_tiny, tmp_path: Path, name: str, exporter: str) -> None:
    tiny = make_tiny(name)
    path = tmp_path / "e.onnx"
    export.export_onnx(tiny.weights, export.Export(exporter, 18), path)
    model = graph.load(path)
    onnx.checker.check_model(model, full_check=True)
    for side, tensors in (("input", tiny.workload.inputs), ("output", tiny.workload.outputs)):
        found = [graph.describe(value) for value in getattr(model.graph, side)]
        wanted = [[32 if dim == "image" else dim for dim in tensor.dims] for tensor in tensors]
        assert [value["name"] for value in found] == [tensor.name for tensor in tensors]
        assert [value["shape"] for value in found] == wanted
    assert tiny.check(path, "fp32")["relative_l2"] < 1e-5
    assert simplify.simplify(model, tiny.workload).simplified


def test_an_axis_that_a_model_has_at_one_size_cannot_be_fixed_to_another(make_tiny, tmp_path: Path) -> None:
    clip = make_tiny("clip")
    with pytest.raises(UserError, match=r"image to 64; the model of .* takes only 32"):
        export.export_onnx(clip.weights, export.read({"axes": {"image": 64}}), tmp_path / "e.onnx")
    # One setting of a study for models of several kinds: what a model does not have is not its matter.
    export.export_onnx(clip.weights, export.read({"axes": {"sequence": 65, "batch": 3}}), tmp_path / "e.onnx")
    assert graph.axes(graph.load(tmp_path / "e.onnx")) == {"batch": 3, "image": 32}


def test_impossible_exports(distilbert, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sequence to 65; the model of .* takes at most 64"):
        export.export_onnx(distilbert.weights, export.read({"axes": {"sequence": 65}}), tmp_path / "e.onnx")
    for value, message in [({"axes": {"batch": 0}}, "'batch' to 0"), ({"exporter": "jax"}, "exporter = 'jax'")]:
        with pytest.raises(UserError, match=message):
            export.read(value)
    with pytest.raises(CellFailure, match="refuses opset 99") as failure:
        export.export_onnx(distilbert.weights, export.Export(opset=99), tmp_path / "e.onnx")
    assert failure.value.kind == "unsupported"


def test_simplified_graph_is_smaller_standard_and_equal(tiny) -> None:
    assert tiny.outcome.simplified and tiny.outcome.max_difference < 1e-5
    assert len(tiny.model.graph.node) < len(graph.load(tiny.exported).graph.node)
    assert not {node.domain for node in tiny.model.graph.node} - {"", "ai.onnx"}
    # 6 biases a layer and 2 in the classifier (Gemm): none was folded away.
    assert graph.op_types(tiny.model)["MatMul"] >= 16


def test_weights_set_aside_change_nothing(distilbert, monkeypatch: pytest.MonkeyPatch) -> None:
    model = graph.load(distilbert.exported)
    monkeypatch.setattr(simplify, "SET_ASIDE_BYTES", 1000)
    shell, aside = hollow.emptied(model, 1000, matrices=True)
    assert len(aside) > 10 and shell.ByteSize() < model.ByteSize() / 2
    assert hollow.fill(shell, aside) == model
    assert simplify.simplify(model, distilbert.workload).model == distilbert.model


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize(("kind", "axis"), [(onnx.TensorProto.INT64, -1), (onnx.TensorProto.INT32, 1)])
def test_an_argmax_of_integers_becomes_an_operator_that_every_provider_has(kind, axis, kept) -> None:
    helper = onnx.helper
    nodes = [
        helper.make_node("ArgMax", ["x"], ["place"], axis=axis, keepdims=kept),
        helper.make_node("Cast", ["x"], ["real"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ArgMax", ["real"], ["other"], axis=axis, keepdims=kept),
        helper.make_node("ArgMax", ["x"], ["last"], axis=axis, keepdims=kept, select_last_index=1),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, ["batch", 6])]
    outputs = [
        helper.make_tensor_value_info(n, onnx.TensorProto.INT64, ["batch", 1][: 1 + kept])
        for n in ("place", "other", "last")
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "ids", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    ids = np.array([[5, 9, 9, 0, 0, 0], [1, 2, 3, 4, 5, 6]], onnx.helper.tensor_dtype_to_np_dtype(kind))
    expected = graph.session(model).run(None, {"x": ids})
    changed = simplify.without_integer_argmax(model)
    onnx.checker.check_model(changed, full_check=True)
    assert [node.op_type for node in changed.graph.node if node.op_type in ("TopK", "ArgMax")] == [
        "TopK",
        "ArgMax",
        "ArgMax",
    ]
    for before, after in zip(expected, graph.session(changed).run(None, {"x": ids}), strict=True):
        np.testing.assert_array_equal(before, after)


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
        (distort, "outputs differ"),
        (foreign, "com.microsoft"),
        (invalid, "check"),
    ]:
        outcome = simplify.simplify(model, distilbert.workload, slim)
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


@pytest.mark.parametrize(("name", "operators"), [("clip", {"Conv"}), ("modernbert", {"Cos", "Sin"})])
def test_what_bf16_lacks_in_this_opset_stays_in_fp32(make_tiny, name: str, operators: set[str]) -> None:
    converted, done = precision.convert(make_tiny(name).model, "bf16")
    onnx.checker.check_model(converted, full_check=True)
    casts = {node.output[0] for node in converted.graph.node if node.name.endswith(precision.WIDENED)}
    readers = {node.op_type for node in converted.graph.node if casts & set(node.input)}
    assert operators <= readers and done["kept_in_fp32"] >= len(operators)
    # The message of a type that an operator lacks is another than that of a kernel which this provider lacks.
    with pytest.raises(Exception, match="Could not find an implementation"):
        graph.session(converted, 1)


def test_a_causal_mask_in_a_matrix_is_clamped() -> None:
    helper = onnx.helper
    mask = np.triu(np.full((4, 4), np.finfo(np.float32).min, np.float32), 1)
    mask[0, 3] = -np.inf
    tensors = [
        numpy_helper.from_array(mask, "mask"),
        numpy_helper.from_array(np.array([[40000.0, 1, 2, 3]], np.float32), "weight"),
    ]
    nodes = [
        helper.make_node("Add", ["x", "mask"], ["masked"], name="a"),
        helper.make_node("Mul", ["masked", "weight"], ["y"], name="b"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors), opset_imports=[helper.make_opsetid("", 17)]
    )
    converted, done = precision.convert(model, "fp16")
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in converted.graph.initializer}
    assert done["clamped"] == 1
    assert np.array_equal(values["mask"] == 0, mask == 0) and np.isfinite(values["mask"]).all()
    assert values["mask"].min() == np.float16(-32752), "half the range: a score can be added to it"
    assert values["weight"][0, 0] == np.float16(40000), "what the type holds is a weight and stays"


def test_bf16_needs_its_opset(distilbert) -> None:
    model = distilbert.model
    model.opset_import[0].version = 16
    with pytest.raises(CellFailure, match="bf16 needs opset 17 or later, the graph has 16"):
        precision.convert(model, "bf16")


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
    record = distilbert.check(tmp_path / "bf16.onnx", "bf16")
    assert record["status"] == "unavailable" and "cannot run this graph on a CPU" in record["reason"]


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_every_layer_is_fused(tiny, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "variant.onnx"
    graph.save(precision.convert(tiny.model, kind)[0], path)
    fused = fuse.fuse(path, tiny.weights)
    assert fused.attentions == {"fused": 2, "expected": 2}
    graph.save(fused.model, tmp_path / "fused.onnx")
    record = tiny.check(tmp_path / "fused.onnx", kind)
    assert record["status"] == "ok" and record["relative_l2"] < (1e-5 if kind == "fp32" else 1e-2)


def test_fused_bf16_is_a_valid_graph(distilbert, tmp_path: Path) -> None:
    graph.save(precision.convert(distilbert.model, "bf16")[0], tmp_path / "bf16.onnx")
    fused = fuse.fuse(tmp_path / "bf16.onnx", distilbert.weights)
    assert fused.fusions["Attention"] == 2 and "EmbedLayerNormalization" not in fused.fusions
    # What is missing is a kernel on the CPU, not validity.
    with pytest.raises(Exception, match="Could not find an implementation"):
        graph.session(fused.model, 1)


def test_attention_that_is_not_fused_is_counted(distilbert, tmp_path: Path) -> None:
    export.export_onnx(distilbert.weights, export.Export(attention="sdpa"), tmp_path / "sdpa.onnx")
    fused = fuse.fuse(tmp_path / "sdpa.onnx", distilbert.weights)
    assert fused.attentions == {"fused": 0, "expected": 2} and fused.fusions["SkipLayerNormalization"] == 4


@pytest.mark.parametrize(
    ("name", "operators", "attentions"),
    [
        ("clip", {"QuickGelu": 2, "SkipLayerNormalization": 3}, 2),
        ("roberta", {"BiasGelu": 2, "SkipLayerNormalization": 4}, 2),
    ],
)
def test_each_architecture_has_its_fusions(make_tiny, tmp_path: Path, name: str, operators, attentions) -> None:
    tiny = make_tiny(name)
    for kind, tolerance in (("fp32", 1e-5), ("fp16", 1e-2)):
        path = tmp_path / f"{kind}.onnx"
        graph.save(precision.convert(tiny.model, kind)[0], path)
        fused = fuse.fuse(path, tiny.weights)
        assert fused.attentions == {"fused": attentions, "expected": 2}
        assert fused.fusions.items() >= operators.items()
        graph.save(fused.model, tmp_path / "fused.onnx")
        assert tiny.check(tmp_path / "fused.onnx", kind)["relative_l2"] < tolerance


def test_an_architecture_without_fusions_is_a_cell_that_cannot_run(make_tiny, tmp_path: Path) -> None:
    tiny = make_tiny("deberta")
    command = [sys.executable, PROGRAMS / "fuse_graph.py", "--graph", tiny.simplified, "--weights-dir", tiny.weights]
    output, report = tmp_path / "f.onnx", tmp_path / "f.json"
    subprocess.run([*command, "--output", output, "--report", report], check=True)
    record = files.read_json(report)
    assert record["status"] == "failed" and record["failure"]["kind"] == "unsupported"
    assert "no fusion of ONNX Runtime is known for the architecture 'deberta-v2'" in record["failure"]["message"]
    assert output.read_bytes() == b""
    with pytest.raises(CellFailure, match="no fusion of ONNX Runtime"):
        graph.load(output)
    assert tiny.check(output, "fp32")["reason"] == f"unsupported: {record['failure']['message']}"


def test_a_graph_that_could_not_be_made_is_not_fused_for_the_same_reason(tmp_path: Path) -> None:
    """Its weights are empty files then, and one model takes no other with it."""
    source, output, report = (tmp_path / name for name in ("fp32.onnx", "f.onnx", "f.json"))
    with graph.made(source.with_suffix(".json"), source):
        raise CellFailure("damaged", "the folder has no weights")
    for name in ("workload.json", "config.json"):
        (tmp_path / name).touch()
    command = [sys.executable, PROGRAMS / "fuse_graph.py", "--graph", source, "--weights-dir", tmp_path]
    subprocess.run([*command, "--output", output, "--report", report], check=True)
    assert files.read_json(report)["failure"] == {"kind": "damaged", "message": "the folder has no weights"}
    assert output.read_bytes() == b""


def test_a_graph_with_nothing_to_fuse_is_a_cell_that_cannot_run(distilbert, tmp_path: Path) -> None:
    helper = onnx.helper
    ends = distilbert.model.graph
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["numbers", "matrix"], ["logits"]),
    ]
    matrix = numpy_helper.from_array(np.ones((4, 2), np.float32), "matrix")
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends.input, ends.output, [matrix]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    graph.save(model, tmp_path / "plain.onnx")
    with pytest.raises(CellFailure, match="nothing of the graph was fused"):
        fuse.fuse(tmp_path / "plain.onnx", distilbert.weights)


def test_reports_describe_the_graph(distilbert, tmp_path: Path) -> None:
    graph.report(tmp_path / "r.json", distilbert.simplified, {"graph": distilbert.exported}, note="x")
    record = files.read_json(tmp_path / "r.json")
    assert record["status"] == "ok"
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


def test_torch_s_own_attention_is_exported_in_operators(tmp_path: Path) -> None:
    """In eval mode without gradients it would be one operator that no exporter knows: open_clip's models have it."""
    import torch

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.inner(rows, rows, rows, need_weights=False)[0]

    module, rows = Attention().eval().requires_grad_(False), torch.randn(2, 3, 8)
    with export._quiet(), export._attention_written_out():
        torch.onnx.export(module, (rows,), str(tmp_path / "a.onnx"), dynamo=False, opset_version=17)
    written = onnx.load(tmp_path / "a.onnx")
    assert {"MatMul", "Softmax"} <= {node.op_type for node in written.graph.node}
    assert torch.backends.mha.get_fastpath_enabled()
