"""Public traces of PyTorch's profiler against counts that another program made, in exact nanoseconds."""

import numpy as np
import pytest
from unit.traces.readers.public_traces import needs_public_traces, trace

from ceilings.traces import calls
from ceilings.traces.capture import KERNEL, MEMCPY, MEMSET
from ceilings.traces.readers import kineto, read

# name, kernels, copies, fills, launches, graphs, streams, busy ns, span ns
COUNTS = (
    ("alexnet", 79, 16, 3, 79, 0, 2, 66_141_000, 12_920_244_000),
    ("event_sync_multi_stream", 3, 0, 3, 3, 0, 3, 372_000, 19_506_000),
    ("nccl_data", 2700, 960, 114, 2700, 0, 2, 157_500_014, 660_551_005),
    ("h100_bert_small", 60, 1, 0, 60, 0, 1, 309_437, 3_907_825),
    ("h100_vit", 154, 0, 2, 154, 0, 1, 1_225_310, 7_559_844),
    ("vllm_decode_graph", 425, 9, 0, 5, 1, 1, 10_717_708, 10_743_181),
)

pytestmark = needs_public_traces


def busy(start, end):
    order = np.argsort(start)
    before = np.concatenate([start[order][:1], np.maximum.accumulate(end[order])[:-1]])
    return int(np.maximum(end[order] - np.maximum(start[order], before), 0).sum())


@pytest.mark.parametrize("counts", COUNTS, ids=lambda counts: counts[0])
def test_counts_and_times_are_exact(counts):
    name, kernels, copies, fills, launches, graphs, streams, busy_ns, span_ns = counts
    recording = read(trace(name))
    work = recording.work
    assert [int((work.kind == kind).sum()) for kind in (KERNEL, MEMCPY, MEMSET)] == [kernels, copies, fills]
    called = [recording.names[name] for name in recording.calls.name]
    assert sum(map(calls.starts_kernels, called)) == launches
    assert sum(map(calls.launches_graph, called)) == graphs
    assert len(set(work.stream.tolist())) == streams
    assert busy(work.start, work.end) == busy_ns
    assert work.end.max() - work.start.min() == span_ns
    assert (work.call >= 0).all()
    unknown = name == "event_sync_multi_stream"  # one query of an event that was recorded before the trace began
    assert [": 1, left out" in problem for problem in recording.source.problems] == [True] * unknown


def test_waits_refer_to_the_calls_that_make_and_record_them():
    recording = kineto.read(trace("event_sync_multi_stream"))
    waits = recording.waits
    made = [recording.names[recording.calls.name[call]] for call in waits.call]
    assert made == ["cudaEventQuery", "cudaStreamWaitEvent", "cudaEventQuery", "cudaDeviceSynchronize"]
    recorded = [recording.names[recording.calls.name[call]] for call in waits.after_call if call >= 0]
    assert recorded == ["cudaEventRecord"] * 3


def test_the_kernels_of_a_graph_have_its_launch():
    recording = kineto.read(trace("vllm_decode_graph"))
    nodes = recording.work.node
    assert nodes.sum() > 400
    launches = set(recording.work.call[nodes].tolist())
    assert [recording.names[recording.calls.name[call]] for call in launches] == ["hipGraphLaunch"]


@pytest.mark.parametrize("name", ["h100_bert_small", "vllm_decode_graph"])
def test_nothing_of_the_machine_gets_into_a_recording(name):
    recording = kineto.read(trace(name))
    assert not [one for one in recording.names if "/" in one and "(" in one and ".py" in one]
    assert "moca" not in repr(recording.source)
