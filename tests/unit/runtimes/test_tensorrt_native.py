"""The native TensorRT runner against a double made from the real bindings' surface, for every generation."""

from __future__ import annotations

import hashlib
import importlib
import sys

import numpy as np
import pytest
from unit import planted_records

pytest.importorskip("cuda.bindings")

import real_bindings
import tensorrt_double as double
from unit.runtimes.workloads import ANSWERER, CLASSIFIER, EMBEDDER

from ceilings import gpu, records
from ceilings.cuda import cuda_graph
from ceilings.cuda import device as cuda
from ceilings.engines import inspect
from ceilings.errors import CellFailure
from ceilings.measure import transfers
from ceilings.workload.shape import Shape

DOUBLE = gpu.Gpu("nvidia-double", "NVIDIA Double", "GPU-0", "580.1", (8, 9), 24 << 30)

BUILDERS = {"10": "tensorrt10", "11": "tensorrt11", "rtx": "tensorrt-rtx"}
FRESH = ("pycuda_memory", "pycuda_runner", "tensorrt_native", "layer_times")
MASK = [[1, 1, 0], [1, 1, 1]]
PROFILES = (("b1-s1", "b2-s4", "b4-s8"),)


@pytest.fixture
def engine(tmp_path):
    """Bytes that stand for an engine, with the record that a build leaves."""

    def make(generation, **changes):
        content = b"engine"
        record = {
            **planted_records.ENGINE,
            "status": "ok",
            "builder": BUILDERS[generation],
            "builder_version": real_bindings.committed()[generation]["version"],
            "version_compatible": False,
            "hardware_compatibility": "none",
            "device": "nvidia-double",
            "gpu": "NVIDIA Double",
            "capabilities": [[8, 9]],
            "engine_sha256": hashlib.sha256(content).hexdigest(),
            "engine_bytes": len(content),
        }
        path = tmp_path / "b2-s3.engine"
        path.write_bytes(content)
        records.write(path.with_suffix(".json"), "engine", record | changes)
        return path

    return make


@pytest.fixture
def runner(engine, monkeypatch):
    """Makes runners of a generation on the doubles."""
    for name, module in double.pycuda().items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in FRESH:
        monkeypatch.delitem(sys.modules, f"ceilings.runtimes.{name}", raising=False)
    native = importlib.import_module("ceilings.runtimes.tensorrt_native")
    memory = importlib.import_module("ceilings.cuda.pycuda_memory")
    fake = double.Cuda.namespace()
    monkeypatch.setattr(double.Cuda, "capturing", None)
    for module in (cuda, cuda_graph, transfers, memory, importlib.import_module("ceilings.runtimes.cuda_runner")):
        monkeypatch.setattr(module, "cudart", fake)
    monkeypatch.setattr(gpu, "visible", lambda: DOUBLE)
    monkeypatch.setattr(cuda, "capability", lambda: (8, 9))

    def make(generation, behaviour, shape="b2-s3", cuda_graph=False, workload=CLASSIFIER, **changes):
        if behaviour:
            monkeypatch.setattr(native, "bindings", lambda generation_wanted: double.module(generation, behaviour))
        options = {"builder": BUILDERS[generation], "cuda_graph": cuda_graph}
        return native.RUNNER(engine(generation, **changes), "fp16", workload, Shape.parse(shape), 1, options)

    yield make
    for name in FRESH:
        sys.modules.pop(f"ceilings.runtimes.{name}", None)


@pytest.mark.parametrize("cuda_graph", [False, True], ids=["enqueued", "captured"])
@pytest.mark.parametrize("generation", list(BUILDERS))
def test_inputs_reach_the_engine_and_logits_come_back(runner, generation, cuda_graph):
    behaviour = double.Behaviour(CLASSIFIER, PROFILES)
    behaviour.types["logits"] = "HALF"
    loaded = runner(generation, behaviour, cuda_graph=cuda_graph)
    loaded.load()
    pool = [{"input_ids": np.array([[5, 6, 7], [1, 2, k]]), "attention_mask": np.array(MASK)} for k in (3, 9)]
    slots = [loaded.place(one) for one in pool]
    found = [loaded.outputs(loaded.run(slot))["logits"].tolist() for slot in (slots[0], slots[1], slots[0])]
    assert found == [[[11, -11], [6, -6]], [[11, -11], [12, -12]], [[11, -11], [6, -6]]]
    assert loaded.output_types == ("float16",) and set(behaviour.streams) == {loaded.stream.handle}
    phases = ["context", "libraries", "load", "deserialize", "execution_context"]
    assert list(loaded.cold_start_ns) == [*phases, *(["capture"] if cuda_graph else [])]
    facts = loaded.describe()
    assert facts["cuda_graph"] == cuda_graph and facts["tensorrt"] == real_bindings.committed()[generation]["version"]
    # Captured once, after one regular run; from then on only the graph is launched.
    assert len(behaviour.streams) == (2 if cuda_graph else 3)


@pytest.mark.parametrize("generation", list(BUILDERS))
def test_layers_are_named_to_profilers_in_captures_alone(runner, generation):
    behaviour = double.Behaviour(CLASSIFIER, PROFILES)
    loaded = runner(generation, behaviour)
    loaded.load()
    loaded.name_work()
    told = [value.name for _, name, value in behaviour.written if name == "nvtx_verbosity"]
    assert told == ["NONE", "LAYER_NAMES_ONLY"]


def test_an_end_to_end_iteration_copies_through_pinned_memory(runner):
    loaded = runner("11", double.Behaviour(CLASSIFIER, PROFILES))
    loaded.load()
    inputs = {"input_ids": np.array([[1, 2, 3], [4, 5, 6]]), "attention_mask": np.array(MASK)}
    element = transfers.host_element(loaded, inputs, loaded.place(inputs), pinned=True)
    transfers.verify_transfers(loaded, element)
    assert element.values[0].view(np.float32).tolist() == [3, -3, 15, -15]


@pytest.mark.parametrize(("shape", "profile"), [("b1-s8", 0), ("b2-s32", 1), ("b8-s16", 1)])
def test_the_profile_that_takes_the_shape_is_selected_on_our_stream(runner, shape, profile):
    behaviour = double.Behaviour(CLASSIFIER)
    loaded = runner("11", behaviour, shape=shape)
    loaded.load()
    assert behaviour.active == loaded.profile == profile
    assert behaviour.streams == [loaded.stream.handle] * profile  # the first one is active from the start
    assert Shape.of(behaviour.sizes) == Shape.parse(shape)


def test_a_shape_outside_every_profile_says_which_there_are(runner):
    with pytest.raises(CellFailure, match=r"b3-s12 lies in no profile of the engine: .*b1-s8 to b4-s8") as caught:
        runner("11", double.Behaviour(CLASSIFIER), shape="b3-s12").load()
    assert caught.value.kind == "outside-profiles"


@pytest.mark.parametrize(
    ("call", "message", "kind"),
    [
        ("deserialize_cuda_engine", "Error Code 1: Serialization (Version tag does not match)", "engine-incompatible"),
        ("create_execution_context", "Error Code 2: OutOfMemory (Requested size was 99)", "out-of-memory"),
        ("create_execution_context", "Error Code 1: Cuda Runtime (out of memory)", "out-of-memory"),
        ("set_input_shape", "does not satisfy any optimization profiles", "outside-profiles"),
        ("set_tensor_address", "Error Code 3: API Usage Error", "runtime-error"),
        ("execute_async_v3", "Error Code 1: Myelin ([executor] failed)", "runtime-error"),
    ],
)
def test_a_call_that_fails_is_a_failure_of_the_cell_in_tensorrt_s_words(runner, call, message, kind):
    behaviour = double.Behaviour(CLASSIFIER, PROFILES)
    behaviour.refuses[call] = message
    loaded = runner("10", behaviour)
    with pytest.raises(CellFailure) as caught:
        loaded.load()
        loaded.launch(None)
    assert caught.value.kind == kind and message in str(caught.value)


def test_an_engine_that_cannot_be_captured_is_a_failure_of_its_cell_alone(runner, monkeypatch):
    behaviour = double.Behaviour(CLASSIFIER, PROFILES)
    monkeypatch.setattr(double.Cuda, "uncapturable", True)
    with pytest.raises(CellFailure, match=r"cannot be captured .* cudaErrorStreamCaptureInvalidated") as caught:
        runner("11", behaviour, cuda_graph=True).load()
    assert caught.value.kind == "unsupported"
    runner("11", behaviour).load()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"builder": "tensorrt10"}, "built by tensorrt10, and tensorrt11 would load it"),
        ({"builder_version": "11.0.0.1"}, "built by version 11.0.0.1, and 11.4.0.106 would load it"),
        ({"device": "nvidia-other"}, "built on nvidia-other, and this GPU is nvidia-double"),
        ({"capabilities": [[9, 0]]}, "built for compute capability 9.0, and this GPU has 8.9"),
        ({"engine_sha256": "0" * 64}, "not what was built"),
    ],
)
def test_an_engine_that_does_not_belong_here_is_not_deserialised(runner, changes, why):
    behaviour = double.Behaviour(CLASSIFIER)
    with pytest.raises(CellFailure, match=why) as caught:
        runner("11", behaviour, **changes).load()
    assert caught.value.kind == "engine-incompatible" and "snakemake --cores 1 --force" in str(caught.value)
    assert "deserialize_cuda_engine" not in behaviour.said


@pytest.mark.parametrize("allowed", [False, True])
def test_code_inside_an_engine_runs_only_where_the_record_says_that_it_has_some(runner, allowed):
    behaviour = double.Behaviour(CLASSIFIER, PROFILES)
    runner("11", behaviour, version_compatible=allowed).load()
    assert behaviour.written[0] == ("Runtime", "engine_host_code_allowed", allowed)


def test_several_outputs_come_back_by_name(runner):
    """Each from its buffer, with its type, whatever the order in which the engine has them."""

    def compute(inputs):
        kept = inputs["input_ids"] * inputs["attention_mask"]
        return {"start_logits": kept, "end_logits": -kept}

    behaviour = double.Behaviour(ANSWERER, PROFILES, compute)
    behaviour.specs = dict(reversed(behaviour.specs.items()))
    behaviour.types["end_logits"] = "HALF"
    loaded = runner("11", behaviour, workload=ANSWERER)
    loaded.load()
    element = {"input_ids": np.array([[5, 6, 7], [1, 2, 3]]), "attention_mask": np.array(MASK)}
    launched = loaded.run(loaded.place(element))
    found = {name: value.tolist() for name, value in loaded.outputs(launched).items()}
    assert found == {"start_logits": [[5, 6, 0], [1, 2, 3]], "end_logits": [[-5, -6, 0], [-1, -2, -3]]}
    assert (loaded.output_types, loaded.output_bytes) == (("float32", "float16"), (24, 12))
    assert len(set(loaded.output_pointers(launched))) == 2


def test_images_reach_the_engine(runner):
    def compute(inputs):
        return {"embedding": np.repeat(inputs["pixel_values"].mean(axis=(1, 2, 3))[:, None], 16, axis=1)}

    behaviour = double.Behaviour(EMBEDDER, (("b1-i8", "b2-i8", "b4-i8"),), compute)
    loaded = runner("10", behaviour, "b2-i8", workload=EMBEDDER, cuda_graph=True)
    loaded.load()
    pixels = np.stack([np.full((3, 8, 8), value, np.float32) for value in (0.5, -2)])
    found = loaded.outputs(loaded.run(loaded.place({"pixel_values": pixels})))["embedding"]
    assert found.shape == (2, 16) and found[:, 0].tolist() == [0.5, -2]
    assert loaded.profiles[0].to_json() == {"batch": [1, 2, 4], "image": [8, 8, 8]}


def test_an_engine_of_something_else_is_refused(runner):
    message = (
        "of another model: it reads pixel_values and writes embedding, and the model reads input_ids, attention_mask "
        "and writes logits"
    )
    with pytest.raises(CellFailure, match=message):
        runner("11", double.Behaviour(EMBEDDER)).load()
    behaviour = double.Behaviour(CLASSIFIER)
    behaviour.types["input_ids"] = "INT32"
    with pytest.raises(CellFailure, match="reads input_ids as int32; the inputs are int64"):
        runner("11", behaviour).load()
    behaviour = double.Behaviour(CLASSIFIER, PROFILES)
    behaviour.types["logits"] = "INT4"
    with pytest.raises(CellFailure, match="logits is INT4; known: bool"):
        runner("11", behaviour).load()


def test_layers_are_timed_apart_and_the_inference_with_and_without(runner):
    behaviour = double.Behaviour(CLASSIFIER, PROFILES)
    loaded = runner("10", behaviour)
    loaded.load()
    times = importlib.import_module("ceilings.runtimes.layer_times")
    inputs = {"input_ids": np.array([[1, 2, 3], [4, 5, 6]]), "attention_mask": np.array(MASK)}
    found = times.layer_times(loaded, [loaded.place(inputs)], 5)
    medians = {layer["name"]: layer["median_ns"] for layer in found["layers"]}
    assert medians == {"embeddings": 500_000, "classifier": 500_000}  # one of them runs twice in an inference
    assert found["layers_sum_ns"] == 1_000_000 and set(found["inference_ns"]) == {"plain", "profiled"}
    assert len(behaviour.streams) == times.WARM_RUNS + 2 * 5
    known = [inspect.Layer("classifier", "gemm", "fp16", ("/classifier/Gemm",), True, 0)]
    assert [layer["precision"] for layer in times.described(found["layers"], known)] == [None, "fp16"]


def test_the_real_library_s_own_words_are_the_reason(runner):
    """TensorRT for RTX is a package like any other; what it lacks here is a driver, or an engine worth the name."""
    pytest.importorskip("tensorrt_rtx_bindings")
    pytest.importorskip("tensorrt_rtx_libs")
    with pytest.raises(CellFailure, match=r"deserialising the engine failed: .*(Error Code|engine)") as caught:
        runner("rtx", None).load()
    assert caught.value.kind in ("runtime-error", "engine-incompatible")
