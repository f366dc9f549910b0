"""ONNX Runtime's TensorRT provider: what it is told, what it may not do, and what proves that its engine was kept."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from unit import planted_records

pytest.importorskip("cuda.bindings")

import onnxruntime
import real_bindings
from unit.runtimes.workloads import ANSWERER, CLASSIFIER, EMBEDDER

from ceilings import gpu, records
from ceilings.cuda import device as cuda
from ceilings.engines import cache
from ceilings.errors import CellFailure
from ceilings.files import sha256
from ceilings.runtimes import onnxruntime_cuda, placement
from ceilings.runtimes import onnxruntime_tensorrt as provider
from ceilings.runtimes.onnxruntime_cuda import OnnxRuntimeCuda
from ceilings.workload.shape import Shape

DOUBLE = gpu.Gpu("nvidia-double", "NVIDIA Double", "GPU-0", "580.1", (8, 9), 24 << 30)

PLAN = cache.Plan("graph.onnx", "folder", "timing", 3, None)
SHAPE = Shape.parse("b1-s8")


def model(*nodes):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y"))
    graph = helper.make_graph(list(nodes), "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


OTHER = {"sha256": "0" * 64, "bytes": 1, "modified_ns": 1}


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "fp16.onnx"
    onnx.save(model(helper.make_node("Sqrt", ["x"], ["y"], name="root")), path)
    return path


@pytest.fixture
def kept(graph, monkeypatch):
    """The record and the folder that a build leaves, on a GPU that is not here."""
    monkeypatch.setattr(gpu, "visible", lambda: DOUBLE)
    folder = graph.parent / "b1-s8.cache"
    folder.mkdir()
    for name in ("kernel_sm89.engine", "kernel_sm89.profile"):
        (folder / name).write_text(name)
    plan = cache.Plan(str(graph), str(folder), str(graph.parent), 3, None)

    def make(**changes):
        record = {
            **planted_records.ENGINE_CACHE,
            "status": "ok",
            "plan": plan.to_json(),
            "device": "nvidia-double",
            "versions": provider.Builder(plan, "fp16", CLASSIFIER, SHAPE).versions(),
            "graph_sha256": sha256(graph),
            "files": cache.contents(folder),
            "cold_start_ns": {"load": 9_000_000_000},
        }
        path = graph.parent / "b1-s8.cache.json"
        records.write(path, "engine-cache", record | changes, as_is=("plan",))
        return provider.RUNNER(path, "fp16", CLASSIFIER, SHAPE, 1, {})

    return make


def test_a_start_that_writes_nothing_took_the_kept_engine(kept, monkeypatch):
    monkeypatch.setattr(OnnxRuntimeCuda, "load", lambda self: None)
    runner = kept()
    runner.load()
    assert runner.kept["cold_start_ns"]["load"] == 9_000_000_000


@pytest.mark.parametrize("name", ["kernel_sm89.engine", "kernel_sm90.engine"])
def test_a_start_that_builds_anew_is_refused(kept, monkeypatch, name):
    """Whatever it writes: the same bytes once more, or another engine beside the kept one."""

    def build(self):
        path = Path(self.plan.folder, name)
        path.write_text(name)
        os.utime(path, ns=(1, 1))

    monkeypatch.setattr(OnnxRuntimeCuda, "load", build)
    with pytest.raises(CellFailure, match=f"built anew: it wrote {name}") as caught:
        kept().load()
    assert caught.value.kind == "engine-incompatible"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"device": "nvidia-h200"}, "built on nvidia-h200, and this GPU is nvidia-double"),
        ({"versions": {"onnxruntime": "1.0"}}, f"built with onnxruntime 1.0; here is {onnxruntime.__version__}"),
        ({"graph_sha256": "0" * 64}, "built from another .*fp16.onnx"),
        (
            {"files": {"kernel_sm89.engine": {"sha256": "0" * 64, "bytes": 1, "modified_ns": 1}}},
            r"kernel_sm89.engine, kernel_sm89.profile in .* not what",
        ),
    ],
)
def test_an_engine_that_does_not_belong_here_is_not_used(kept, monkeypatch, changes, why):
    monkeypatch.setattr(OnnxRuntimeCuda, "load", lambda self: pytest.fail("it was loaded"))
    with pytest.raises(CellFailure, match=why) as caught:
        kept(**changes).load()
    assert caught.value.kind == "engine-incompatible" and "snakemake --cores 1 --force" in str(caught.value)


def test_a_build_that_failed_is_the_failure_of_its_cells(kept):
    with pytest.raises(CellFailure, match="no engine: too large") as caught:
        kept(status="failed", failure={"kind": "out-of-memory", "message": "too large"}).load()
    assert caught.value.kind == "out-of-memory"


def test_without_the_provider_there_is_no_number(graph, capfd):
    """Real ONNX Runtime: it opens the session on the CPU instead, and says so on the terminal only."""
    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build of ONNX Runtime has the provider")
    plan = cache.Plan(str(graph), str(graph.parent), str(graph.parent), 3, None)
    runner = provider.Builder(plan, "fp16", CLASSIFIER, SHAPE)
    runner.stream, runner._libraries = type("Stream", (), {"handle": 0}), ""
    with pytest.raises(CellFailure, match="could not load its TensorrtExecutionProvider") as caught:
        runner._open()
    assert caught.value.kind == "fallback" and runner.session.get_providers() == ["CPUExecutionProvider"]


def opened(graph):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=[placement.CPU])


def test_the_graph_must_be_one_partition_of_the_provider():
    one = opened(model(helper.make_node("Sqrt", ["x"], ["y"], name="root")))
    placement.require_one_partition(one, placement.CPU)
    with pytest.raises(CellFailure, match="1 nodes are not on TensorrtExecutionProvider: Sqrt 'root'"):
        placement.require_one_partition(one, "TensorrtExecutionProvider")
    nodes = [helper.make_node("Sqrt", ["x"], ["m"], name="a"), helper.make_node("Sqrt", ["m"], ["y"], name="b")]
    with pytest.raises(CellFailure, match="took the graph in 2 partitions") as caught:
        placement.require_one_partition(opened(model(*nodes)), placement.CPU)
    assert caught.value.kind == "fallback"


def test_the_examples_hold():
    for module in (provider, onnxruntime_cuda):
        assert doctest.testmod(module).attempted and not doctest.testmod(module).failed


def test_every_input_has_its_shape_in_the_only_profile():
    assert provider.shapes(ANSWERER, SHAPE) == "input_ids:1x8,attention_mask:1x8"
    images = provider.shapes(EMBEDDER, Shape.parse("b2-i224"))
    told = provider.provider_options(PLAN, images, 4711, False)
    assert {told[f"trt_profile_{part}_shapes"] for part in ("min", "opt", "max")} == {"pixel_values:2x3x224x224"}


OPEN = """
import json, sys
import onnxruntime
model, options = open(sys.argv[1], "rb").read(), json.loads(sys.argv[2])
try:
    onnxruntime.InferenceSession(model, providers=[("TensorrtExecutionProvider", options)], enable_fallback=0)
except Exception as error:
    print(error)
"""


def onnxruntime_gpu() -> Path | None:
    """The folder that holds a CUDA build of ONNX Runtime: installed, or unpacked and named in the environment."""
    if named := os.environ.get("CEILINGS_ONNXRUNTIME_GPU"):
        return Path(named)
    try:
        return Path(str(metadata.distribution("onnxruntime-gpu").locate_file("")))
    except metadata.PackageNotFoundError:
        return None


@pytest.mark.skipif(onnxruntime_gpu() is None, reason="onnxruntime-gpu is neither installed nor unpacked")
@pytest.mark.skipif(
    cuda.problem() is None, reason="the real CUDA is here, and empty libraries beside it; tests/gpu asks what is real"
)
@pytest.mark.parametrize(("more", "refused"), [({}, None), ({"trt_nonsense": "1"}, "Invalid TensorRT EP option")])
def test_the_real_provider_takes_every_option_of_ours(graph, tmp_path, more, refused):
    """Beside empty libraries in place of TensorRT's and CUDA's it reads its options, then misses the CUDA provider."""
    import json

    folder = onnxruntime_gpu()
    extension = folder / "onnxruntime" / "capi" / "libonnxruntime_providers_tensorrt.so"
    real_bindings.make_libraries(extension, tmp_path / "lib", "libnv|libcu")
    options = {**provider.provider_options(PLAN, provider.shapes(CLASSIFIER, SHAPE), 4711, True), **more}
    environment = {**os.environ, "PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(tmp_path / "lib")}
    command = [sys.executable, "-P", "-c", OPEN, str(graph), json.dumps(options)]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout
    assert (refused or "CUDA Provider not available") in told, told
    assert ("Invalid" in told or "should be" in told) == bool(refused)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("RegisterTensorRTPluginsAsCustomOps Please install TensorRT libraries as mentioned", "fallback"),
        ("GetProviderInfo_CUDA() CUDA Provider not available, can't get interface for it", "fallback"),
        ("TensorRT EP failed to create engine from network for fused node: x", "build-failed"),
        ("TensorRT EP could not deserialize engine from cache: x", "engine-incompatible"),
        ("TensorRT EP execution context enqueue failed.", "runtime-error"),
        ("something else", None),
    ],
)
def test_the_provider_s_words_are_understood(error, kind):
    found = provider.tensorrt_failure(RuntimeError(error))
    assert (found.kind if found else None) == kind
