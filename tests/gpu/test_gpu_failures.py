"""Cells that cannot run, on a real GPU: each failure has its real cause, its class, and harms no cell after it."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest
from gpu.tiny_artifacts import Artifacts

from ceilings.measure.supervisor import supervise
from ceilings.models import pool
from ceilings.workload.shape import Shape

LEFT_BYTES = 3 << 30
"""Device memory that the hog leaves: room for context, libraries and a small batch."""

HUGE = Shape.of({"batch": 1 << 17, "sequence": 64})
"""A batch whose activations take some 10 GB even in a model this small."""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp("tiny"))


def task(artifacts, runtime, shape=None, folder=None, limit=300.0):
    made = artifacts.task(runtime, shape=shape, folder=folder)
    made["spec"]["protocol"] = {**made["spec"]["protocol"], "time_limit_seconds": limit}
    return made


@pytest.fixture(scope="module")
def huge(artifacts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("huge")
    ids = np.random.default_rng(0).integers(5, 60, (1, HUGE["batch"], HUGE["sequence"]), np.int64)
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    named = {pool.PREFIX + name: array for name, array in arrays.items()}
    seal = np.array(pool.sealed(arrays, "random", 1.0))
    pool.save(folder / "inputs.npz", **named, sha256=seal, source=np.array("random"), real_share=np.array(1.0))
    outputs = {one.name: np.zeros((1, *one.sizes(HUGE)), np.float32) for one in artifacts.workload.outputs}
    pool.save_outputs(folder / "reference.npz", outputs, pool.digest(arrays))
    return folder


@pytest.mark.parametrize("runtime", ["torch-cuda-eager", "onnxruntime-cuda", "onnxruntime-cuda-graph"])
def test_a_batch_that_does_not_fit_is_out_of_memory(artifacts, huge, runtime):
    from cuda.bindings import runtime as cudart

    from ceilings.cuda import device as cuda

    cuda.initialise()
    hog = cuda.DeviceBuffer(cuda.check(cudart.cudaMemGetInfo(), "reading free memory")[0] - LEFT_BYTES)
    try:
        record = supervise(task(artifacts, runtime, HUGE, huge))
        print(runtime, record["failure"], record["memory"])
        assert record["status"] == "failed"
        assert record["failure"]["kind"] == "out-of-memory", record["failure"]
    finally:
        del hog
    assert supervise(task(artifacts, runtime))["status"] == "ok"


def test_a_compilation_past_its_limit_is_timed_out(artifacts):
    start = time.monotonic()
    record = supervise(task(artifacts, "torch-compile-max-autotune", limit=6.0))
    print(record["failure"])
    assert record["failure"]["kind"] == "timed-out"
    assert time.monotonic() - start < 30
    assert supervise(task(artifacts, "torch-cuda-eager"))["status"] == "ok"


def test_a_process_that_a_signal_ends_is_crashed(artifacts):
    found = {}
    thread = threading.Thread(target=lambda: found.update(supervise(task(artifacts, "onnxruntime-cuda"))))
    thread.start()
    worker = _worker_with_a_context()
    os.kill(worker, signal.SIGSEGV)
    thread.join(60)
    print(found["failure"])
    assert found["failure"]["kind"] == "crashed"
    assert "SIGSEGV" in found["failure"]["message"]
    assert supervise(task(artifacts, "onnxruntime-cuda"))["status"] == "ok"


def _worker_with_a_context() -> int:
    """Process number of the measuring process of this test, once it has the driver's library open."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in psutil.Process().children():
            if any("libcuda.so" in library.path for library in process.memory_maps()):
                return process.pid
        time.sleep(0.05)
    raise AssertionError("no measuring process opened the CUDA driver")
