"""Real engines of TensorRT for RTX, built here without a GPU from real variants of a tiny DistilBERT."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ceilings import files
from ceilings.artifacts import made, refuse_failed
from ceilings.engines import builder, produce
from ceilings.engines.library import make_monitor
from ceilings.engines.profiles import Profile
from ceilings.errors import CellFailure, UserError
from ceilings.provenance import provenance
from ceilings.report.tables.product_counts import product_columns
from ceilings.workload.shape import Shape

PRODUCTS_OF_LAYERS = 2 * 6 + 2  # six of each of the two layers, and the two of the head


@pytest.fixture
def build(graphs, spec, tmp_path):
    """Build an engine as the program does; gives its record."""

    def make(name, precision=None, source=None, **changes):
        engine = tmp_path / "x.engine"
        precision = precision or name.split(".")[0]
        return produce.produce(spec(**changes), source or graphs[name], engine, precision=precision, device="sm-8.9")

    return make


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_products_compute_in_the_precision_of_the_graph(build, tmp_path, precision):
    record = build(precision)
    assert (record["status"], record["failure"]) == ("ok", None)
    assert record["engine_bytes"] == (tmp_path / "x.engine").stat().st_size > 1_000_000
    assert record["engine_sha256"] == files.sha256(tmp_path / "x.engine")
    summary = record["summary"]
    quantized = summary["quantized"]
    asked = PRODUCTS_OF_LAYERS if precision in ("int8", "fp8") else 0
    assert (quantized["asked"], quantized["ran"], quantized["elsewhere"]) == (asked, asked, {})
    # Attention itself is not quantised, and fused where it is narrower than FP32.
    others = {"int8": "fp16", "fp8": "fp16"}.get(precision, precision)
    assert set(summary["products"]) == {precision, others}
    # The report finds them by the engine that was timed.
    cell = {"precision": precision, "engine": str(tmp_path / "x.json")}
    run = {"runtime": {"profile": 0}, "provenance": provenance((), {"artifact": tmp_path / "x.engine"})}
    found = product_columns(cell, [run, run])
    assert found.get("quantized_products", 0) == (summary["products"][precision] if asked else 0)
    assert found.get("matrix_products", 0) == (sum(summary["products"].values()) if asked else 0)
    assert summary["attention"] == {"softmax": 2, "fused": 0 if precision == "fp32" else 2}
    told = files.read_json(tmp_path / "x.layers.json")
    assert [len(told["Layers"])] == summary["layers"]
    assert [tensor["Name"] for tensor in told["I/O Tensors"]] == ["input_ids", "attention_mask", "logits"]


def test_kept_products_stay_in_the_type_of_the_rest(build):
    summary = build("int8.kept")["summary"]
    assert summary["quantized"]["asked"] == summary["quantized"]["ran"] == PRODUCTS_OF_LAYERS - 2
    assert set(summary["products"]) == {"int8", "fp16"}


def test_int8_with_the_rest_in_fp32_loses_fused_attention(build):
    assert build("int8.plain")["summary"]["attention"]["fused"] == 0
    assert build("int8")["summary"]["attention"]["fused"] == 2


@pytest.mark.parametrize("capability", [[7, 5], [8, 6], [12, 0]])
def test_one_engine_can_have_several_profiles_on_any_capability(build, tmp_path, capability):
    profiles = [{"batch": [1, 1, 1], "sequence": [8, 32, 64]}, {"batch": [2, 4, 8], "sequence": [8, 32, 64]}]
    record = build("fp16", profiles=profiles, capability=capability)
    assert record["capabilities"] == [capability] and record["profiles"] == profiles
    assert len(record["summary"]["layers"]) == 2
    (ids, *_) = files.read_json(tmp_path / "x.layers.json")["I/O Tensors"]
    assert [profile["MaxShape"] for profile in ids["ProfileInfo"]] == [[1, 64], [8, 64]]


def test_tf32_is_a_flag_of_the_builder(build):
    with_flag, without = build("fp32", "tf32", tf32=True), build("fp32")
    assert "--noTF32" in without["trtexec"] and "--noTF32" not in with_flag["trtexec"]
    # It times nothing, so the same graph and settings give the same bytes: what differs is the flag's doing.
    assert with_flag["engine_sha256"] != without["engine_sha256"] == build("fp32")["engine_sha256"]


def test_a_long_build_says_where_it_is(graphs, spec, capsys, monkeypatch):
    spec()  # skips where the library is not installed
    monkeypatch.setattr(builder, "make_monitor", lambda trt, label: make_monitor(trt, label, quiet_seconds=0))
    profiles = [Profile.static(Shape.parse("b1-s32"))]
    builder.build(graphs["fp16"], builder.Settings("tensorrt-rtx", "fp16", profiles, capability=(8, 9)))
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("building ") and "Building engine > " in line and " of " in line for line in said)


# ---- what cannot be built ------------------------------------------------------------------------------------------


@pytest.fixture
def changed(graphs, tmp_path):
    """A graph with something changed in its first node of an operator."""

    def make(name, operator, change):
        model = onnx.load(graphs[name])
        change(model, next(node for node in model.graph.node if node.op_type == operator))
        onnx.save(model, tmp_path / "changed.onnx")
        return tmp_path / "changed.onnx"

    return make


def rename(model, node):
    node.op_type = "Frobnicate"


def drop_scale(model, node):
    del node.input[1:]


def zero_scale(model, node):
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    scale.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(scale)), scale.name))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (("fp32", "Erf", rename), "unsupported", "layer.0/ffn/activation/Erf (Frobnicate)"),
        (("int8", "QuantizeLinear", drop_scale), "missing-scales", "LayerNormalization_output_0_QuantizeLinear"),
        (("int8", "QuantizeLinear", zero_scale), "missing-scales", "must all be positive"),
    ],
)
def test_a_node_that_the_parser_refuses_is_named(build, changed, change, kind, message):
    record = build(change[0], source=changed(*change))
    assert (record["status"], record["failure"]["kind"], record["engine_bytes"]) == ("failed", kind, 0)
    assert message in record["failure"]["message"]


def test_an_int8_engine_of_a_graph_without_scales_is_refused(build):
    failure = build("fp32", "int8")["failure"]
    assert failure == {"kind": "missing-scales", "message": "the int8 graph has no QuantizeLinear node, so no scales"}


def test_a_profile_with_min_above_max_is_refused(build):
    failure = build("fp16", profiles=[{"batch": [8, 4, 1], "sequence": [8, 8, 8]}])["failure"]
    assert failure["kind"] == "invalid-profile" and "batch has min 8, opt 4, max 1" in failure["message"]


def test_too_little_workspace_is_refused(build):
    failure = build("fp32", workspace_mb=1)["failure"]
    assert failure["kind"] == "workspace" and "workspace limit" in failure["message"]


def test_a_fixed_graph_takes_no_other_shape(graphs, build, tmp_path):
    model = onnx.load(graphs["fp16"])
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, (1, 32), strict=True):
            dim.dim_value = size
    fixed = tmp_path / "fixed.onnx"
    onnx.save(model, fixed)
    assert build("fp16", source=fixed)["status"] == "ok"
    failure = build("fp16", source=fixed, profiles=[Profile.static(Shape.parse("b2-s32")).to_json()])["failure"]
    assert failure["kind"] == "outside-profiles"
    assert (
        "no input of the graph has the batch of b2-s32: input_ids (1, 32), attention_mask (1, 32)" in failure["message"]
    )


def test_a_profile_gives_a_range_of_every_symbolic_axis(build):
    failure = build("fp16", profiles=[{"batch": [1, 2, 4]}])["failure"]
    assert failure["kind"] == "invalid-profile"
    assert "b1 to b4, best at b2 has no range of sequence, an axis of input_ids" in failure["message"]


def test_a_graph_that_could_not_be_made_gives_an_engine_that_could_not(build, tmp_path):
    source = tmp_path / "fp8.onnx"
    with made(tmp_path / "fp8.json", [source], "graph"):
        raise CellFailure("missing-scales", "no ranges")
    record = build("fp8", source=source)
    assert record["failure"] == {"kind": "missing-scales", "message": "no ranges"}
    assert (record["engine_bytes"], record["trtexec"]) == (0, None)
    with pytest.raises(CellFailure, match="no ranges"):
        refuse_failed(tmp_path / "x.engine")


def test_a_builder_that_crashes_is_a_result(build, tmp_path, monkeypatch):
    """A stand-in for the library that dies as one does: what matters is that only the building process dies."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "tensorrt_rtx.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(site))
    assert build("fp16")["failure"] == {"kind": "crashed", "message": "the builder was ended by SIGSEGV"}


def test_a_builder_that_is_not_installed_is_named(build):
    with pytest.raises(UserError, match=r"tensorrt10 cannot build: package tensorrt 10\.\* is not installed; install"):
        build("fp16", builder="tensorrt10")


# ---- engines from elsewhere ----------------------------------------------------------------------------------------


def test_an_engine_of_trtexec_is_taken_over_by_its_digest(build, tmp_path):
    built = build("fp16")
    path = tmp_path / "theirs.engine"
    path.write_bytes((tmp_path / "x.engine").read_bytes())
    external = {"path": str(path), "sha256": built["engine_sha256"], "version": "1.7.1.116"}
    external |= {"profiles": built["profiles"]}
    record = build("fp16", external=external)
    assert (record["built_by"], record["engine_sha256"]) == ("trtexec", built["engine_sha256"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="another file than the study names, and is not loaded"):
        build("fp16", external=external)


# ---- failures of TensorRT 10 and 11, which do not run here ---------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        (["Error Code 10: Could not find any implementation for node {X} due to insufficient workspace."], "workspace"),
        (["Error Code 10: Could not find any implementation for node {X}."], "unsupported"),
        (["Error Code 1: Cuda Runtime (out of memory)"], "out-of-memory"),
        (["Error Code 2: Internal Error (assertion failed)"], "build-failed"),
        ([], "build-failed"),
    ],
)
def test_messages_of_a_builder_have_a_class(errors, kind):
    assert builder._failure(errors).kind == kind


def test_timing_caches_are_merged_by_the_library(monkeypatch):
    """The calls are the library's own: RTX still has them, though it times nothing and keeps an empty cache."""
    pytest.importorskip("tensorrt_rtx_bindings")
    with pytest.warns(DeprecationWarning):
        assert isinstance(builder.merge_timing_caches("tensorrt-rtx", [b"", b""]), bytes)
