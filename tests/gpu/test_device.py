"""The instrument and every CUDA runtime on a real device, with a tiny model; ``-k "not compile"`` saves minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gpu.tiny_artifacts import COMPARED, TOLERANCE, Artifacts

from ceilings.errors import CellFailure
from ceilings.runtimes.catalogue import RUNTIMES

CELLS = [
    (name, precision)
    for name, runtime in RUNTIMES.items()
    if runtime.device == "cuda"
    and runtime.module in ("torch_cuda", "onnxruntime_cuda")
    and runtime.artifact != "operator"
    for precision in (("fp32", "fp16") if "max-autotune" not in name else ("fp16",))
]
OTHERS = [
    (model, runtime, precision)
    for model in ("answerer", "images")
    for runtime in ("torch-cuda-eager", "torch-cudagraph", "onnxruntime-cuda", "onnxruntime-cuda-graph")
    for precision in ("fp32", "fp16")
]


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def others(tmp_path_factory):
    """Models with two outputs and with images."""
    return {model: Artifacts(tmp_path_factory.mktemp(model), model) for model in ("answerer", "images")}


@pytest.fixture(autouse=True)
def as_in_a_new_process():
    """PyTorch's runtimes set a mode of their thread for good; here many of them follow each other in one."""
    import torch

    with torch.inference_mode(False):
        yield


# --- the layer below ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def stream():
    from ceilings.cuda import device as cuda

    cuda.initialise()
    return cuda.Stream()


def test_events_and_the_host_s_clock_agree_on_a_long_kernel(stream):
    import torch

    from ceilings.cuda import device as cuda

    begin, end = cuda.Event(), cuda.Event()
    with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):
        torch.cuda._sleep(1000)
        stream.synchronize()
        begin.record(stream)
        start = time.perf_counter_ns()
        torch.cuda._sleep(50_000_000)  # about 25 ms
        end.record(stream)
        stream.synchronize()
        host = time.perf_counter_ns() - start
    device = cuda.elapsed_ns(begin, end)
    assert device > 5_000_000
    assert abs(host / device - 1) < 0.02


def test_what_torch_launches_is_on_our_stream(stream):
    import torch

    from ceilings.cuda import device as cuda

    a = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    ours, theirs = (cuda.Event(), cuda.Event()), (torch.cuda.Event(True), torch.cuda.Event(True))
    with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):
        a @ a
        stream.synchronize()
        ours[0].record(stream)
        theirs[0].record()
        a @ a
        theirs[1].record()
        ours[1].record(stream)
        stream.synchronize()
    mine, his = cuda.elapsed_ns(*ours), theirs[0].elapsed_time(theirs[1]) * 1e6
    assert mine > 500_000 and abs(mine / his - 1) < 0.05


def test_pinned_copies_arrive_whole(stream):
    from ceilings.cuda import device as cuda

    values = np.random.default_rng(0).integers(0, 255, 1 << 20, dtype=np.uint8)
    there, back, device = cuda.PinnedBuffer(values.nbytes), cuda.PinnedBuffer(values.nbytes), cuda.DeviceBuffer(1 << 20)
    there.array(values.shape, np.uint8)[...] = values
    copy = cuda.cudart.cudaMemcpyAsync
    cuda.check(copy(device.pointer, there.pointer, values.nbytes, cuda.H2D, stream.native))
    cuda.check(copy(back.pointer, device.pointer, values.nbytes, cuda.D2H, stream.native))
    stream.synchronize()
    assert (back.array(values.shape, np.uint8) == values).all()
    assert (cuda.download(device.pointer, values.nbytes) == values).all()
    cuda.L2Flush(stream)()
    stream.synchronize()


def test_too_large_an_allocation_is_out_of_memory(stream):
    from ceilings.cuda import device as cuda

    with pytest.raises(CellFailure) as caught:
        cuda.DeviceBuffer(1 << 50)
    assert caught.value.kind == "out-of-memory"
    cuda.DeviceBuffer(1 << 20)  # and nothing is broken afterwards


def test_torch_s_lack_of_memory_is_out_of_memory(artifacts):
    import torch

    runner = artifacts.loaded("torch-cuda-eager")
    with pytest.raises(CellFailure) as caught, runner.failures():
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    assert caught.value.kind == "out-of-memory"


def test_the_monitor_reads_the_device_that_cuda_uses(stream):
    import torch

    from ceilings import gpu
    from ceilings.cuda import monitor as gpu_monitor

    uuid = gpu.visible().uuid
    device = gpu_monitor.Device(uuid)
    a = torch.randn(4096, 4096, device="cuda")
    with gpu_monitor.Monitor(uuid) as monitor:
        assert monitor.wait_for_samples(), monitor.refused
        start = time.perf_counter_ns()
        while time.perf_counter_ns() - start < 1_000_000_000:
            a @ a
            torch.cuda.synchronize()
        end = time.perf_counter_ns()
        time.sleep(0.1)
        monitor.poll()
    samples = gpu_monitor.between(monitor.samples, start, end)
    summary = gpu_monitor.summarise(samples)
    print(json.dumps({"summary": summary, "facts": device.facts(), "refused": monitor.refused | device.refused}))
    print("energy", gpu_monitor.energy(monitor.samples, start, end, 1))
    print("processes", device.processes(), "own", os.getpid(), "used", device.used_bytes())
    assert len(samples) >= 10
    assert summary["sm_mhz"] and summary["sm_mhz"]["max"] > 300
    assert (device.used_bytes() or 0) > 0


# --- runtimes, in this process --------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["torch-cudagraph", "onnxruntime-cuda-graph"])
def test_a_replay_reads_the_inputs_that_were_activated(artifacts, runtime):
    runner = artifacts.loaded(runtime)
    slots = [runner.place(element) for element in artifacts.pool]
    found = [runner.outputs(runner.run(slot))["logits"] for slot in (slots[0], slots[1], slots[0])]
    for index in range(COMPARED):
        np.testing.assert_allclose(found[index], artifacts.expected[index]["logits"], rtol=1e-3, atol=1e-4)
    assert (found[0] == found[2]).all()
    assert not np.allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("model", "runtime", "precision"), OTHERS, ids=["-".join(case) for case in OTHERS])
def test_every_output_of_other_models_is_the_reference_s(others, model, runtime, precision):
    runner = others[model].loaded(runtime, precision)
    for element, expected in zip(others[model].pool, others[model].expected, strict=False):
        found = runner.outputs(runner.run(runner.place(element)))
        assert list(found) == list(expected) and len(found) == len(runner.output_bytes)
        for name, values in expected.items():
            assert found[name].shape == values.shape
            difference = np.linalg.norm(found[name] - values) / np.linalg.norm(values)
            assert difference < TOLERANCE[precision], f"{name} differs by {difference:.2g}"


@pytest.mark.parametrize("runtime", ["onnxruntime-cuda", "onnxruntime-cuda-graph"])
def test_onnxruntime_s_launch_only_enqueues_and_on_our_stream(artifacts, runtime):
    """The stream is kept busy, so a launch that waited, or ran elsewhere, would show in either clock."""
    import torch

    from ceilings.cuda import device as cuda

    runner = artifacts.loaded(runtime)
    slot = runner.place(artifacts.pool[0])
    runner.run(slot)
    begin, end = cuda.Event(), cuda.Event()
    with torch.cuda.stream(torch.cuda.ExternalStream(runner.stream.handle)):
        torch.cuda._sleep(1000)
        runner.stream.synchronize()
        begin.record(runner.stream)
        torch.cuda._sleep(100_000_000)  # about 50 ms
        start = time.perf_counter_ns()
        runner.launch(slot)
        enqueued = time.perf_counter_ns() - start
        end.record(runner.stream)
        runner.stream.synchronize()
    assert enqueued < 20_000_000, f"a launch behind 50 ms of work took {enqueued / 1e6:.1f} ms: it waits"
    assert cuda.elapsed_ns(begin, end) > 20_000_000


def test_a_planted_fallback_to_the_cpu_is_refused(artifacts, tmp_path):
    """Det has no CUDA kernel: its result is added to the logits, times zero."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(artifacts.folder / "fp32.onnx")
    graph = model.graph
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name == "logits":
                node.output[i] = "logits_before"
    graph.initializer.append(numpy_helper.from_array(np.zeros((1,), np.float32), "planted_zero"))
    graph.node.extend(
        [
            helper.make_node("MatMul", ["logits_before", "planted_turned"], ["planted_square"], name="planted_square"),
            helper.make_node("Det", ["planted_square"], ["planted_det"], name="planted_det"),
            helper.make_node("Mul", ["planted_det", "planted_zero"], ["planted_nothing"], name="planted_mul"),
            helper.make_node("Add", ["logits_before", "planted_nothing"], ["logits"], name="planted_add"),
        ]
    )
    turned = helper.make_node("Transpose", ["logits_before"], ["planted_turned"], name="planted_turn", perm=[1, 0])
    graph.node.insert(len(graph.node) - 4, turned)
    onnx.checker.check_model(model)
    path = tmp_path / "planted.onnx"
    onnx.save(model, path)

    from ceilings.runtimes import onnxruntime_cuda

    for options in ({}, {"cuda_graph": True}):
        runner = onnxruntime_cuda.RUNNER(path, "fp32", artifacts.workload, artifacts.shape, 2, options)
        with pytest.raises(CellFailure) as caught:
            runner.load()
        assert caught.value.kind == "fallback", str(caught.value)


# --- runtimes, each in a separate process ---------------------------------------------------------------------------


@pytest.mark.parametrize(("runtime", "precision"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_a_runtime_measures_a_cell(artifacts, runtime, precision):
    from ceilings.measure.supervisor import supervise

    record = supervise(artifacts.task(runtime, precision))
    p50 = {
        name: round(float(np.median(s["latency_ns"])) / 1e3, 1)
        for name, s in record["series"].items()
        if "latency_ns" in s
    }
    print(json.dumps({"cell": [runtime, precision], "status": record["status"], "failure": record["failure"]}))
    print(json.dumps({"p50_us": p50, "cold_start_ms": {k: v // 10**6 for k, v in record["cold_start_ns"].items()}}))
    told = {name: record.get(name) for name in ("memory", "energy", "flags", "parity", "runtime", "gpu")}
    print(json.dumps(told, default=str))
    assert record["status"] == "ok", record["failure"]
    latency = record["series"]["latency"]
    n = len(latency["latency_ns"])
    assert n == len(latency["gpu_ns"]) == len(latency["enqueue_ns"]) >= 50
    medians = [float(np.median(latency[name])) for name in ("latency_ns", "gpu_ns", "enqueue_ns")]
    print(json.dumps({"latency/gpu/enqueue_us": [round(m / 1e3, 1) for m in medians], "n": n}))
    assert 0 < medians[1] <= medians[0] * 1.1 and 0 < medians[2] <= medians[0]
    assert record["series"]["throughput"]["inferences_per_s"] > 0
    assert record["memory"]["peak_device_bytes"] > 0
    assert {"latency_end_to_end_pageable", "latency_cold"} <= set(record["series"])
    assert not [flag for flag in record["flags"] if "compilations" in flag]


# --- programs -------------------------------------------------------------------------------------------------------


def test_peaks_run_with_tiny_sizes(tmp_path):
    from ceilings import host as hosts

    output = tmp_path / "peaks.json"
    program = Path(__file__).parents[2] / "workflow_scripts" / "measure_peaks.py"
    slug = hosts.detect().device("cuda")
    arguments = ["--device", slug, "--repeats", "3", "--seconds-budget", "5", "--tiny", "--output", output]
    arguments += ["--products", "[[64, 64, 64]]"]
    subprocess.run([sys.executable, program, *arguments], check=True, timeout=300)
    peaks = json.loads(output.read_text())["peaks"]
    unavailable = {name: peak["unavailable"] for name, peak in peaks.items() if "unavailable" in peak}
    print(json.dumps({name: peak.get("median") for name, peak in peaks.items()}), unavailable)
    assert not [name for name in unavailable if not name.startswith(("matrix_rate.fp8", "matrix_rate.int8"))]
    assert len(peaks) > 20


def test_the_plain_loop_agrees_roughly_even_on_a_tiny_model(artifacts):
    program = Path(__file__).parents[2] / "benchmarks" / "plain_loop.py"
    arguments = ["--runtime", "torch-cudagraph", "--precision", "fp32", "--seconds", "0.2", "--rounds", "3"]
    done = subprocess.run(
        [
            *(sys.executable, program, *arguments, "--artifact", artifacts.weights, "--inputs", artifacts.inputs),
            *("--workload", artifacts.weights / "workload.json", "--shape", str(artifacts.shape)),
        ],
        check=True,
        timeout=300,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    print(done.stdout)
    assert abs(found["difference_us"]) < 20
