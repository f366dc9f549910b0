"""Records that no device can have written: what is there twice, and what lies far from everything else."""

import numpy as np
import pytest
from unit.traces.nsight_exports import Export
from unit.traces.readers.kineto_events import Trace, inference

from ceilings.traces.readers import kineto, nsight
from ceilings.traces.readers.impossible import FAR_NS, misplaced, repeated

DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


def equal(one, other):
    return all(
        np.array_equal(getattr(getattr(one, part), column), getattr(getattr(other, part), column))
        for part in ("calls", "work", "spans")
        for column in ("start", "end", "name")
    )


@pytest.mark.parametrize("doubled", [DEVICE, None])
def test_operations_that_are_there_twice_count_once(tmp_path, doubled):
    once = kineto.read(inference().write(tmp_path / "once.json"))
    trace = inference()
    trace.events += [one for one in trace.events if doubled is None or one["cat"] in doubled]
    twice = kineto.read(trace.write(tmp_path / "twice.json"))
    assert equal(once, twice)
    assert [problem for problem in twice.source.problems if "twice" in problem] == [
        "Operations that are there twice, equal in stream, times and correlation: 10, counted once."
    ]


def test_nodes_of_a_graph_with_equal_times_are_two(tmp_path):
    """Branches of a graph run at once, and some recorders give them one stream."""
    trace = Trace()
    trace.call(0, 10_000, "cudaGraphLaunch", 1)
    for node in (1, 2, 2):
        trace.kernel(20_000, 30_000, "gemm", 1, args={"graph node id": node})
    recording = kineto.read(trace.write(tmp_path / "graph.json"))
    assert len(recording.work.start) == 2
    assert recording.source.counts["operations that are there twice"] == 1


def test_rows_of_a_table_that_are_there_twice_count_once(tmp_path):
    def export(times):
        made = Export(2024)
        made.gpu(0, "NVIDIA H100 80GB HBM3", ((4711, 0),))
        for begin in (0, 100):
            launch = made.call(begin, begin + 8, "cudaLaunchKernel_v7000")
            for _ in range(times):
                made.kernel(launch, begin + 9, begin + 20)
        return nsight.read(made.write(tmp_path / f"{times}.sqlite"))

    twice = export(2)
    assert equal(export(1), twice)
    assert "2 kernels are there twice, equal in each number: counted once." in twice.source.problems


@pytest.mark.parametrize(
    ("start", "end"), [(45_000, 10**15), (-(10**15), 10), (-(10**15), 10**15), (10**15, 10**15 + 1)]
)
def test_an_operation_far_from_all_else_is_left_out(tmp_path, start, end):
    trace = inference()
    trace.kernel(start, end, "far", 99)
    recording = kineto.read(trace.write(tmp_path / "far.json"))
    assert "far" not in [recording.names[name] for name in recording.work.name if name >= 0]
    assert recording.work.end.max() < 2_000_000
    assert any(problem.endswith("everything else: 1, left out.") for problem in recording.source.problems)


def test_a_row_far_from_all_else_is_left_out(tmp_path):
    export = Export(2024)
    export.gpu(0, "NVIDIA H100 80GB HBM3", ((4711, 0),))
    for begin in range(0, 1000, 100):
        export.kernel(
            export.call(begin, begin + 8, "cudaLaunchKernel_v7000"), begin + 9, begin + 20 + (begin == 300) * 10**9
        )
    recording = nsight.read(export.write(tmp_path / "x.sqlite"))
    assert len(recording.work.start) == 9
    assert any("far after everything else" in problem for problem in recording.source.problems)


def test_long_work_stays():
    """A kernel that runs on behind the host, one that takes most of a trace, and a pause are real."""
    second = 1_000_000_000
    host = np.arange(100) * 1000
    nothing = np.zeros(3, np.int64)
    start = np.array([10, 2000, 99_000])
    assert not misplaced(start, np.array([20, 3000, 5 * second]), nothing, host).any()
    assert not misplaced(start, np.array([20, 98_000, 99_500]), nothing, host).any()
    assert not misplaced(start, np.array([20, 5 * second, 99_500]), np.array([0, 1, 0]), host).any()
    assert misplaced(start, np.array([20, 5 * second, 99_500]), nothing, host).tolist() == [False, True, False]
    pause = np.concatenate([host, host + FAR_NS * 100])
    assert not misplaced(pause + 10, pause + 20, np.zeros(200, np.int64), pause).any()


def test_only_equal_rows_are_repeated():
    rows = np.array([[1, 2, 7], [1, 2, 8], [1, 2, 7], [0, 2, 7], [1, 3, 7], [1, 2, 7]])
    assert repeated(rows).tolist() == [False, False, True, False, False, True]
    assert not repeated(rows[:0]).any()
