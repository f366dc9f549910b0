"""What PyTorch's runtime leaves behind in its thread. CUDA is replaced, PyTorch's modes are real."""

from __future__ import annotations

import concurrent.futures
import gc
import types

import pytest

pytest.importorskip("cuda.bindings")

import torch

from unit.runtimes.workloads import ANSWERER, EMBEDDER

from ceilings.errors import CellFailure
from ceilings.runtimes import torch_cuda
from ceilings.workload.shape import Shape


def answer(ids, mask):
    return (ids * mask).to(torch.float16), (ids - mask).float()


@pytest.fixture
def without_cuda(monkeypatch):
    stream = types.SimpleNamespace(handle=0)
    monkeypatch.setattr(torch_cuda.TorchCuda, "open_device", lambda self: setattr(self, "stream", stream))
    monkeypatch.setattr(torch_cuda, "load_module", lambda *_: answer)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: self)
    for call in ("synchronize", "set_stream", "ExternalStream"):
        monkeypatch.setattr(torch.cuda, call, lambda *_: None)


def modes():
    return torch.is_inference_mode_enabled(), torch.is_grad_enabled()


def test_a_runner_that_dies_leaves_the_modes_of_its_thread_alone(without_cuda, tmp_path):
    """Also inside of a block that sets them, such as the one in which transformers loads weights."""

    def work():
        runner = torch_cuda.RUNNER(tmp_path, "fp32", ANSWERER, Shape.parse("b1-s8"), 1, {})
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


def test_types_and_places_of_outputs_are_those_of_the_first_inference(without_cuda, tmp_path):
    """In the workload's order, which is also that in which the module takes the inputs."""

    def work():
        runner = torch_cuda.RUNNER(tmp_path, "fp16", ANSWERER, Shape.parse("b1-s8"), 1, {})
        runner.load()
        assert {name: nbytes for name, (_, nbytes) in runner.input_buffers.items()} == {
            "input_ids": 64,
            "attention_mask": 64,
        }
        launched = runner.launch(None)
        runner._take_outputs(launched)
        found = runner.output_types, runner.output_bytes, runner.output_pointers(launched)
        torch_cuda._FOR_GOOD.close()
        return found, tuple(value.data_ptr() for value in launched), runner.describe_mask()

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        (kinds, nbytes, pointers), expected, _ = threads.submit(work).result()
    assert (kinds, nbytes, pointers) == (("float16", "float32"), (16, 32), expected)
