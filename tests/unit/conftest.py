"""What several packages' tests stand on."""

from __future__ import annotations

import ctypes
import types

import pytest


@pytest.fixture
def diary(monkeypatch):
    """Replaces CUDA in the loops that time and that are captured: every call is written down and succeeds."""
    from ceilings.cuda import device as cuda
    from ceilings.measure import gpu_loop, transfers
    from ceilings.runtimes import cuda_runner
    from ceilings.traces import target

    calls = []

    def call(name, *values):
        def do(*_):
            calls.append(name)
            return (0, *values)

        return do

    def copy(destination, source, nbytes, *_):
        calls.append("copy")
        ctypes.memmove(destination, source, nbytes)  # a test's device has its memory on the host
        return (0,)

    fake = types.SimpleNamespace(
        cudaEventRecord=call("record"),
        cudaStreamSynchronize=call("wait"),
        cudaEventSynchronize=call("wait event"),
        cudaEventElapsedTime=call("elapsed", 0.25),
        cudaMemcpyAsync=copy,
    )
    for module in (gpu_loop, target, transfers, cuda_runner):
        monkeypatch.setattr(module, "cudart", fake)
    monkeypatch.setattr(cuda, "Event", lambda timing=True: types.SimpleNamespace(native="event"))
    return calls
