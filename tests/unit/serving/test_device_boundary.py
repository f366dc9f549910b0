"""The way of a batch to the device and back, against a device that keeps a diary and has its memory on the host."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

pytest.importorskip("cuda.bindings")

from unit.measure.test_cuda_bench import SHAPE, WORKLOAD, Inside, Runner

from ceilings.cuda import device as cuda
from ceilings.serving import executor
from ceilings.serving.batching import Batching
from ceilings.serving.executor import Boundary, Executor, boundary

COPIES_OF_A_BATCH = ["copy", "copy", "launch", "copy", "copy", "wait"]


@pytest.fixture
def element():
    random = np.random.default_rng(5)
    return {"left": random.standard_normal((2, 3)).astype(np.float32), "right": random.integers(0, 9, (2, 3))}


@pytest.fixture(autouse=True)
def device(monkeypatch):
    def download(pointer, nbytes):
        return np.frombuffer(ctypes.string_at(pointer, nbytes), np.uint8)

    monkeypatch.setattr(cuda, "download", download)


def test_a_batch_goes_as_at_the_cells_boundary_and_its_answer_is_read_after_the_wait(diary, element):
    runner = Runner(diary)
    runner.load()
    made = boundary(runner)
    made.first(element)
    diary.clear()
    outputs = made.outputs(made.run(element))
    assert diary == COPIES_OF_A_BATCH
    np.testing.assert_array_equal(outputs["sum"], element["left"] + element["right"].astype(np.float32))
    expected = (element["left"] * element["right"]).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(outputs["product"], expected)
    assert all(values.dtype == np.float32 for values in outputs.values())
    assert made.copies == 1


def test_an_answer_does_not_change_with_the_next_batch(diary, element):
    runner = Runner(diary)
    runner.load()
    made = boundary(runner)
    outputs = made.outputs(made.run(element))
    kept = {name: values.copy() for name, values in outputs.items()}
    made.run({name: values + 1 for name, values in element.items()})
    for name, values in outputs.items():
        np.testing.assert_array_equal(values, kept[name])


def test_copies_that_are_not_the_runners_are_refused_before_anything_is_served(diary, element):
    runner = Runner(diary)
    runner.load()
    made = boundary(runner)
    runner.output_pointers = lambda launched: tuple(buffer.pointer for buffer in reversed(runner.results))
    runner.outputs = lambda launched: {"sum": np.ones((2, 3), np.float32), "product": np.ones((2, 3), np.float32)}
    with pytest.raises(RuntimeError, match="differs from what the runner reads"):
        made.first(element)


def test_a_runner_that_copies_itself_is_left_to_do_so(diary):
    runner = Inside(diary)
    made = boundary(runner)
    assert type(made) is Boundary
    other = SHAPE.with_sizes(batch=4)
    assert made.at(other) is None
    runner.options = {"dynamic": True}
    assert made.at(other) is made


def test_open_axes_share_what_is_loaded_with_buffers_of_their_own(diary, element):
    class Open(Runner):
        def _bind(self):
            Runner.load(self)

    runner = Open(diary)
    runner.options = {"dynamic": True}
    runner.load()
    runner.session = object()
    made = boundary(runner)
    other = made.at(SHAPE.with_sizes(batch=2))
    assert other.runner is not runner and other.runner.session is runner.session
    first = made.outputs(made.run(element))
    second = other.outputs(other.run({name: values + 1 for name, values in element.items()}))
    assert not np.array_equal(first["sum"], second["sum"])
    np.testing.assert_array_equal(made.outputs(None)["sum"], first["sum"])


def test_each_batch_has_a_runner_of_its_own(diary, monkeypatch, tmp_path):
    """Buffers that are bound once have one shape; the runner of this test knows the shape of two rows alone."""
    made = []

    def make_runner(task):
        made.append(task["cell"]["shape"])
        return Runner(diary)

    WORKLOAD.write(tmp_path)
    monkeypatch.setattr(executor, "make_runner", make_runner)
    task = {"cell": {"shape": str(SHAPE)}, "workload": str(tmp_path / "workload.json")}
    padded = Executor(task, Batching(2, preferred=(2,), pad=True))
    padded.load()
    assert made == ["b2-s3"]
    assert padded.facts()["runners"] == 1
    with pytest.raises(ValueError, match=r"could not broadcast|bytes; the runtime reads"):
        Executor(task, Batching(4)).load()  # asked for a runner of four rows, it gave one of two
    assert made == ["b2-s3", "b2-s3", "b4-s3"]
