"""What PyTorch's runtime leaves behind in its thread. CUDA is replaced, PyTorch's modes are real."""

from __future__ import annotations

import concurrent.futures
import gc
import types

import pytest

pytest.importorskip("cuda.bindings")

import torch

from ceilings.runtimes import torch_cuda


@pytest.fixture
def without_cuda(monkeypatch):
    stream = types.SimpleNamespace(handle=0)
    model = types.SimpleNamespace(config=types.SimpleNamespace(num_labels=2))
    monkeypatch.setattr(torch_cuda.TorchCuda, "open_device", lambda self: setattr(self, "stream", stream))
    monkeypatch.setattr(torch_cuda, "load_model", lambda *_: model)
    monkeypatch.setattr(torch, "ones", lambda shape, dtype, device: torch.zeros(shape, dtype=dtype))
    for call in ("synchronize", "set_stream", "ExternalStream"):
        monkeypatch.setattr(torch.cuda, call, lambda *_: None)


def modes():
    return torch.is_inference_mode_enabled(), torch.is_grad_enabled()


def test_a_runner_that_dies_leaves_the_modes_of_its_thread_alone(without_cuda, tmp_path):
    """Also inside of a block that sets them, such as the one in which transformers loads weights."""

    def work():
        runner = torch_cuda.RUNNER(tmp_path, "fp32", (1, 8), 1, {})
        runner.load()
        runner.itself = runner  # only the garbage collector ends it, as after a test that caught an error
        found = [modes()]
        del runner
        with torch.no_grad():
            gc.collect()
            found.append(modes())
        found.append(modes())
        torch_cuda._FOR_GOOD.close()  # of this thread, which ends here
        return found

    before = modes()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:  # the modes are a thread's own
        assert threads.submit(work).result() == [(True, False)] * 3
    assert modes() == before
