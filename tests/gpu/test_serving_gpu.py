"""A GPU's runtimes in a server: the executor of each, Triton with ONNX Runtime's CUDA provider, shared GPU memory."""

from __future__ import annotations

import contextlib
import sys

import numpy as np
import pytest
from gpu.tiny_artifacts import TOLERANCE, Artifacts

from ceilings import gpu, records
from ceilings.report.tables import gates
from ceilings.serving import server_python, session
from ceilings.serving.batching import Batching
from ceilings.serving.executor import Executor
from ceilings.serving.servers.embedded import Embedded
from ceilings.serving.servers.repository import Served
from ceilings.serving.servers.triton import Triton
from ceilings.serving.shared_memory import placed
from ceilings.serving.transports import transport

RUNTIMES = {
    "torch-cuda-eager": 2,
    "torch-cudagraph": 2,
    "onnxruntime-cuda": 2,
    "onnxruntime-cuda-noio": 2,
    "onnxruntime-cuda-dynamic": 1,
    "onnxruntime-cuda-graph": 2,
    "onnxruntime-cuda-fused-graph": 2,
}
"""Runners for two batches: one session where axes stay open."""

SERVERS = {"triton": (Triton, "pytriton"), "embedded": (Embedded, "mlserver")}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp("served"))


def near(found, wanted, precision):
    for name, values in wanted.items():
        assert np.linalg.norm(found[name] - values) <= TOLERANCE[precision] * np.linalg.norm(values), name


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_executor_gives_each_request_the_references_outputs(tiny, runtime, precision):
    executor = Executor(tiny.task(runtime, precision), Batching(4))
    executor.load()
    assert executor.sizes == (2, 4)
    assert executor.facts()["runners"] == RUNTIMES[runtime]
    for requests in (tiny.pool[:1], tiny.pool[:2]):
        for answer, wanted in zip(executor.execute(requests), tiny.expected, strict=False):
            near(answer, wanted, precision)
    for costs in executor.facts()["costs"].values():
        assert costs["run_ns"] > 0


def test_a_captured_graph_takes_fewer_rows_when_they_are_padded(tiny):
    executor = Executor(tiny.task("onnxruntime-cuda-graph", "fp16"), Batching(8, preferred=(8,), pad=True))
    executor.load()
    assert executor.sizes == (8,)
    for answer, wanted in zip(executor.execute(tiny.pool[:2]), tiny.expected, strict=True):
        near(answer, wanted, "fp16")


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("runtime", ["onnxruntime-cuda", "onnxruntime-cuda-graph", "torch-cuda-eager"])
def test_a_server_answers_with_the_references_outputs(tiny, tmp_path, server, runtime):
    made, package = SERVERS[server]
    if problem := server_python.problem(package):
        pytest.skip(problem)
    served = Served("tiny", tiny.task(runtime, "fp16"))
    with made([served], tmp_path) as running:
        running.start()
        by, before = transport("http", running.addresses["http"]), running.counters("tiny")
        for element, wanted in zip(tiny.pool, tiny.expected, strict=False):
            near(by.decode(by.send(by.prepare("tiny", element))), wanted, "fp16")
        by.close()
        counted = running.since("tiny", before, len(tiny.expected))
        assert (counted.requests, counted.failures) == (len(tiny.expected), 0)


def without(package):
    """Skip where the servers' packages are not there."""
    if problem := server_python.problem(package):
        pytest.skip(problem)


@pytest.mark.parametrize("by", ["http", "grpc"])
def test_tensors_go_through_the_memory_of_the_gpu(tiny, tmp_path, monkeypatch, by):
    """All elements have open regions at once, and each region has its answer."""
    without("pytriton")
    monkeypatch.setattr(sys, "path", [*sys.path])
    server_python.extend_path()
    sizes = {name: values.astype(np.float32).nbytes for name, values in tiny.expected[0].items()}
    with (
        Triton([Served("tiny", tiny.task("onnxruntime-cuda", "fp16"))], tmp_path) as running,
        contextlib.ExitStack() as s,
    ):
        running.start()
        to = s.enter_context(contextlib.closing(transport(by, running.addresses[by])))
        shared = []
        for element in tiny.pool:
            region, places = placed("cuda", element, sizes)
            s.callback(region.close)
            to.register(region)
            s.callback(to.unregister, region)
            outputs = {name: places[name] for name in sizes}
            shared.append((region, outputs, to.prepare("tiny", element, places, outputs)))
        for _ in range(3):
            for (region, outputs, request), wanted in zip(shared, tiny.expected, strict=False):
                near(to.decode(to.send(request), {region.name: region}, outputs), wanted, "fp16")


def spec(tiny, cell, **settings):
    """A slice of a study with one deployment of one cell."""
    made = tiny.task(*cell.split("/")[:3:2])["spec"]
    packages = dict.fromkeys(made["packages"])
    served = {"module": made["module"], "options": made["options"], "threads": 2, "tolerance": made["tolerance"]}
    deployment = {"server": "triton", "cells": [cell], "concurrency": [1, 4], "rates": ["0.5x"], **settings}
    return {
        "deployment": deployment,
        "cells": {cell: {**served, "packages": packages}},
        "protocol": {"window_seconds": 1, "rounds": 2, "warmup_seconds": 0.2},
        **{"seed": 0, "packages": {}},
    }


@pytest.mark.parametrize(
    "settings",
    [{"transport": "grpc"}, {"shared_memory": "cuda"}, {"batching": {"largest": 6, "delay_ms": 1}}],
    ids=["grpc", "cuda", "batching"],
)
def test_a_deployment_is_measured_from_both_sides(tiny, tmp_path, settings):
    without("pytriton")
    card, cell = gpu.visible(), f"onnxruntime-cuda/tiny/fp16/{tiny.shape}"
    task = tiny.task("onnxruntime-cuda", "fp16")
    files = {name: task[name] for name in ("artifact", "inputs", "reference", "workload")}
    given = spec(tiny, cell, **settings)
    asked = {"deployment": "d", "device": card.slug, "gpu": card.uuid, "run": 1}
    record = session.run({**asked, "spec": given, "files": {cell: files}})
    assert record["status"] == "ok", record["failure"]
    assert len(record["windows"]) == 6
    for window in record["windows"]:
        counted = window["server"]
        assert not window["failed"] and counted["requests"] == window["answered"] > 0
        assert 0 < counted["compute_infer_ns"] <= counted["request_ns"]
    assert "nvml" not in record["gpu"]["refused"]
    whole = {"deployment": "d", "device": card.slug, "run": 1, "log": None, **record, "protocol": given["protocol"]}
    records.write(tmp_path / "run1.json", "serving", whole, indent=None)
    assert gates.serving(records.read(tmp_path / "run1.json", "serving")) is None
