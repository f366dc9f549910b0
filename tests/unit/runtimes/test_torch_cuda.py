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


class Answer(torch.nn.Module):
    """Outputs of two types."""

    attention = "sdpa"

    def forward(self, ids, mask):
        return (ids * mask).half(), (ids - mask).float()


@pytest.fixture
def without_cuda(monkeypatch):
    stream = types.SimpleNamespace(handle=0)
    monkeypatch.setattr(torch_cuda.TorchCuda, "open_device", lambda self: setattr(self, "stream", stream))
    monkeypatch.setattr(torch_cuda, "load_module", lambda *_: Answer())
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


@pytest.fixture
def in_a_thread():
    """Modes are a thread's own: run a test's work in one that ends, and undo there what a runner leaves."""

    def run(work):
        def whole():
            try:
                return work()
            finally:
                torch_cuda._FOR_GOOD.close()

        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            return threads.submit(whole).result()

    return run


def loaded(tmp_path, workload, shape):
    runner = torch_cuda.RUNNER(tmp_path, "fp16", workload, Shape.parse(shape), 1, {})
    runner.load()
    return runner


def test_types_and_places_of_outputs_are_those_of_the_first_inference(without_cuda, tmp_path, in_a_thread):
    """In the workload's order, which is also that in which the module takes the inputs."""

    def work():
        runner = loaded(tmp_path, ANSWERER, "b1-s8")
        assert {name: nbytes for name, (_, nbytes) in runner.input_buffers.items()} == dict.fromkeys(
            ("input_ids", "attention_mask"), 64
        )
        launched = runner.launch(None)
        runner._take_outputs(launched)
        assert (runner.output_types, runner.output_bytes) == (("float16", "float32"), (16, 32))
        assert runner.output_pointers(launched) == tuple(value.data_ptr() for value in launched)
        with pytest.raises(CellFailure, match=r"start_logits has shape \(1, 4\), not \(1, 8\)"):
            runner._take_outputs(tuple(value[:, :4] for value in launched))
        with pytest.raises(ValueError, match="start_logits is a view with gaps"):
            runner._take_outputs(tuple(value.repeat(1, 2)[:, ::2] for value in launched))

    in_a_thread(work)


def test_the_mask_is_spoken_of_where_there_is_one(without_cuda, tmp_path, in_a_thread):
    assert "mask" in in_a_thread(lambda: loaded(tmp_path, ANSWERER, "b1-s8").describe())
    assert "mask" not in in_a_thread(lambda: loaded(tmp_path, EMBEDDER, "b1-i8").describe())
