"""A GPU's runtimes in a server: the executor of each, and Triton with ONNX Runtime's CUDA provider."""

from __future__ import annotations

import numpy as np
import pytest
from gpu.tiny_artifacts import TOLERANCE, Artifacts

from ceilings.serving import server_python
from ceilings.serving.batching import Batching
from ceilings.serving.executor import Executor
from ceilings.serving.servers.embedded import Embedded
from ceilings.serving.servers.repository import Served
from ceilings.serving.servers.triton import Triton
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
