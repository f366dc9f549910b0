"""The CUDA runner of requests on a device whose memory is the host's: its buffers, copies, bindings and bookkeeping.

ONNX Runtime's CPU provider executes; what a real card must show is in tests/gpu/test_onnxruntime_requests.py.
"""

from __future__ import annotations

import ctypes
import types

import numpy as np
import pytest
from unit.graphs import decoder_folders as folders

from ceilings.graphs import export, fuse, graph, simplify
from ceilings.workload.shape import Shape

pytest.importorskip("cuda.bindings")

from ceilings.runtimes import onnxruntime_generating_cuda as module
from ceilings.runtimes import placement
from ceilings.runtimes.onnxruntime_session import open_session


class Buffer:
    """Memory of the host with the interface of the device's."""

    def __init__(self, nbytes):
        self.nbytes, self.values = nbytes, np.full(max(nbytes, 1), 0xA5, np.uint8)
        self.pointer = int(self.values.ctypes.data)

    def upload(self, values):
        assert values.nbytes == self.nbytes
        self.values[: self.nbytes] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)

    def array(self, shape, dtype):
        return self.values[: self.nbytes].view(dtype).reshape(shape)


class OnTheHost(module.CudaDecoding):
    device = "cpu"


class Runner(module.OnnxRuntimeGeneratingCuda):
    """Opens its sessions on the CPU provider."""

    provider = placement.CPU
    memory = types.SimpleNamespace(DeviceBuffer=Buffer, PinnedBuffer=Buffer)

    def open_device(self):
        self.stream = types.SimpleNamespace(native=0, handle=0, synchronize=lambda: None)

    def _preload(self):
        return ""

    def _session(self, options, graph=False):
        return open_session(self.artifact, options, [placement.CPU])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny model of each kind, and its graphs."""
    found = {}
    for architecture in ("gpt2", "llama"):
        folder = tmp_path_factory.mktemp(architecture)
        model = folders.model(architecture)
        weights = folders.write(model, folder / "weights")
        export.export_onnx(weights, export.Export(), folder / "exported.onnx")
        outcome = simplify.simplify(graph.load(folder / "exported.onnx"), folders.workload(model))
        graph.save(outcome.model, folder / "plain.onnx")
        graph.save(fuse.fuse(folder / "plain.onnx", weights).model, folder / "fused.onnx")
        found[architecture] = model, folder
    return found


@pytest.fixture
def load(made, monkeypatch):
    """Loads a runner and keeps what was copied."""

    def copy(destination, source, nbytes, kind, stream):
        ctypes.memmove(destination, source, nbytes)
        return (0,)

    def download(pointer, nbytes):
        return np.frombuffer(ctypes.string_at(pointer, nbytes), np.uint8)

    memory = types.SimpleNamespace(DeviceBuffer=Buffer, PinnedBuffer=Buffer, download=download, D2D="D2D", D2H="D2H")
    fake = types.SimpleNamespace(cudaMemcpyAsync=copy)
    monkeypatch.setattr(module, "cudart", fake)
    monkeypatch.setattr(module, "cuda", memory)
    monkeypatch.setattr(module, "CudaDecoding", OnTheHost)
    monkeypatch.setattr("ceilings.runtimes.cuda_runner.cudart", fake)

    def make(architecture, name, shape, **options):
        model, folder = made[architecture]
        runner = Runner(folder / f"{name}.onnx", "fp32", folders.workload(model), Shape.parse(shape), 1, options)
        runner.load()
        return model, runner

    return make


CASES = [("plain", {}), ("fused", {}), ("fused", {"cuda_graph": True})]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("shape", ["b2-p6-g7", "b1-p5-g2", "b3-p4-g1"])
def test_requests_and_items_are_those_of_pytorch(load, architecture, name, options, shape):
    model, runner = load(architecture, name, shape, **options)
    batch, prompt, generated = (runner.shape[axis] for axis in ("batch", "prompt", "generated"))
    prompts = [folders.prompts(batch, prompt, seed) for seed in (1, 2)]
    slots = [runner.place({"input_ids": ids}) for ids in prompts]
    wanted = [folders.request(model, ids, generated) for ids in prompts]
    for slot, (tokens, logits) in list(zip(slots, wanted, strict=True)) * 2:
        outputs = runner.outputs(runner.run(slot))
        assert np.array_equal(outputs["tokens"], tokens)
        there = np.take_along_axis(logits[:, : outputs["ids"].shape[1]], outputs["ids"], -1)
        np.testing.assert_allclose(outputs["logits"], there, atol=2e-4)
        assert len(runner.request(slot)) == generated + 1
    items = runner.iterations(slots)
    for item in [*items, *items]:
        runner.activate(item)
        runner.launch(item)
        tokens = wanted[slots.index(item.slot)][0]
        assert np.array_equal(runner.arrived(), tokens[:, item.position])


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_longest_row_s_length_is_what_a_captured_graph_may_keep(load, name, options):
    _, runner = load("llama", name, "b2-p6-g7", **options)
    requests, seen = runner._decoding, []
    runner.begin(runner.place({"input_ids": folders.prompts(2, 6, 1)}))
    for _ in range(7):
        requests.advance()
        seen.append((int(requests._total[0]), requests.lengths.array((2,), np.int32).tolist()))
    if name == "plain":
        return
    captured = options.get("cuda_graph")
    assert [total for total, _ in seen] == ([6] + [13] * 6 if captured else list(range(6, 13)))
    assert [lengths for _, lengths in seen] == [[place, place] for place in range(5, 12)]


def test_only_decode_steps_are_captured(load):
    _, runner = load("gpt2", "fused", "b1-p4-g3", cuda_graph=True)
    facts = runner.describe()
    assert facts["cuda_graph"] and "prefill runs kernel by kernel" in facts["captured"]
    requests = runner._decoding
    assert requests.step_options.get_run_config_entry(module.GRAPH_ID) == module.STEP_GRAPH
    assert requests.options.get_run_config_entry(module.GRAPH_ID) == module.WITHOUT_GRAPH
    assert requests.step_options.get_run_config_entry(module.DISABLE_WAIT) == "1"
    _, prefill = load("gpt2", "fused", "b1-p4-g1", cuda_graph=True)
    assert not prefill.describe()["cuda_graph"]
    assert prefill._decoding.step_options is prefill._decoding.options


@pytest.mark.parametrize(("name", "count"), [("plain", 0), ("fused", 2)])
def test_placement_is_that_of_one_pass(load, name, count):
    """Of a decode step alone, although the profile has the prefill before it too."""
    for shape in ("b2-p6-g7", "b2-p6-g1"):
        _, runner = load("llama", name, shape)
        operators = runner.describe()["placement"]["operators"]
        assert operators.get("GroupQueryAttention", 0) == count
        assert operators["ArgMax"] == 1
