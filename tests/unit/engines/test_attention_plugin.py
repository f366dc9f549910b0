"""The plug-in for attention: engines of TensorRT for RTX are built with it here; what executes it needs a card."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ceilings.engines import attention_plugin, libraries, produce
from ceilings.engines.catalogue import BUILDERS
from ceilings.files import read_json

HIDDEN = 32
PROFILE = {"batch": [1, 2, 4], "sequence": [8, 16, 64]}


def graph(path, heads=4, kind=TensorProto.FLOAT16, masked=True, widths=(HIDDEN,) * 3):
    """Three products, the node, and a product."""
    half = helper.tensor_dtype_to_np_dtype(kind)
    random = np.random.default_rng(0)
    sizes = [*((HIDDEN, width) for width in widths), (widths[0], HIDDEN)]
    weights = [
        numpy_helper.from_array(random.normal(size=size).astype(half), f"w{at}") for at, size in enumerate(sizes)
    ]
    nodes = [helper.make_node("MatMul", ["x", f"w{at}"], [f"p{at}"]) for at in range(3)]
    reads = ["p0", "p1", "p2", *(["mask"] if masked else [])]
    fields = {"num_heads": heads} if heads else {}
    nodes += [helper.make_node(attention_plugin.NAME, reads, ["a"], name="attention", **fields)]
    nodes += [helper.make_node("MatMul", ["a", "w3"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", kind, ["batch", "sequence", HIDDEN])]
    if masked:
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.INT64, ["batch", "sequence"]))
    outputs = [helper.make_tensor_value_info("y", kind, ["batch", "sequence", HIDDEN])]
    made = helper.make_graph(nodes, "attention", inputs, outputs, weights)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def built(spec, tmp_path):
    """Builds a graph in a separate process, as the pipeline does; its record and the engine's bytes."""

    def build(**changes):
        folder = tmp_path / "built"
        folder.mkdir()
        record = produce._build(spec(profiles=[PROFILE]), "fp16", graph(tmp_path / "graph.onnx", **changes), folder)
        return record, (folder / "engine").read_bytes() if (folder / "engine").exists() else b"", folder

    return build


@pytest.mark.parametrize("masked", [True, False])
def test_an_engine_holds_the_plug_in_and_its_fields(built, masked):
    record, engine, folder = built(masked=masked)
    assert record["status"] == "ok", record["failure"]
    for word in (attention_plugin.NAME, attention_plugin.HEADS, attention_plugin.TILE):
        assert word.encode() in engine, word
    assert (folder / "libtensorrt_rtx.so").resolve() == libraries.find("libtensorrt_rtx.so.1").resolve()
    assert "attention" in str(read_json(folder / "layers.json"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": TensorProto.FLOAT}, "Failed to find any supported plugin"),
        ({"heads": 5}, "5 heads do not share a hidden size of 32 alike"),
        ({"heads": 0}, "the node attention has no attribute num_heads"),
        ({"widths": (HIDDEN, HIDDEN, 16)}, "reads query, key and value of (batch, sequence, hidden) alike"),
    ],
)
def test_what_the_kernel_cannot_read_is_refused_with_its_reason(built, changes, words):
    record, engine, _ = built(**changes)
    assert record["status"] == "failed" and words in record["failure"]["message"] and not engine


def test_without_the_link_the_vendor_s_parser_ends_the_process(spec, tmp_path):
    """The minimal case of the abort. A package that mends it makes this test fail: ``linked`` can go then."""
    spec()
    program = (
        "import sys\nfrom ceilings.engines import builder, profiles\n"
        "builder.build(sys.argv[1], builder.Settings('tensorrt-rtx', 'fp16', (), capability=(8, 9)))"
    )
    command = [sys.executable, "-c", program, str(graph(tmp_path / "graph.onnx"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("LD_LIBRARY_PATH", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == -6 and "terminate called without an active exception" in done.stderr


def test_a_library_with_a_name_needs_no_link(tmp_path, monkeypatch):
    rtx = BUILDERS["tensorrt-rtx"]
    for name in ("libtensorrt_rtx.so", "libtensorrt_rtx.so.1"):
        (tmp_path / name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    libraries.find.cache_clear()
    try:
        assert libraries.linked(rtx, tmp_path) == {}
        assert libraries.linked(BUILDERS["tensorrt11"], tmp_path) == {}
    finally:
        libraries.find.cache_clear()


def test_a_graph_without_the_node_needs_no_plug_in(tmp_path):
    (tmp_path / "other").write_bytes(b"Attention")
    (tmp_path / "empty").touch()
    assert attention_plugin.needed(graph(tmp_path / "graph.onnx"))
    assert not attention_plugin.needed(tmp_path / "other") and not attention_plugin.needed(tmp_path / "empty")
