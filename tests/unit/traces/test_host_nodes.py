"""Nodes of a real session beside another recorder: PyTorch's stands for that of CUDA, since both mark requests."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from unit.measure import changing_cell

from ceilings.errors import UserError
from ceilings.traces import changing_target, cpu_recorders, host_nodes, store
from ceilings.traces.shape_change import change_record


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    """Of the same requests: what the other recorder wrote, and the nodes."""
    folder = tmp_path_factory.mktemp("nodes")
    task = changing_cell.make(folder)
    task |= {"source": "torch", "raw": str(folder / "raw.sqlite"), "spec": {**task["spec"], "iterations": 20}}
    task["inputs"] = {name: paths["inputs"] for name, paths in task["pools"].items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            changing_target,
            "recorder",
            lambda _, raw: host_nodes.WithNodes(cpu_recorders.TorchRecorder(raw), raw),
        )
        made = changing_target.run(task)
    capture = store.read(task["raw"])
    capture.meta.update(made)
    return capture, store.read(folder / host_nodes.FILE)


def test_each_node_lies_in_its_request_and_takes_what_it_took(captures):
    capture, nodes = captures
    both = host_nodes.joined(capture, nodes)
    at = np.searchsorted(both.marks.start, both.ranges.start, "right") - 1
    assert (at >= 0).all() and len(np.unique(at)) == len(both.marks.start)
    # The clocks are aligned to the time that a mark takes; a busy machine may stop a process between the two.
    late = both.ranges.end - both.marks.end[at]
    assert np.mean(late <= 20_000) > 0.95, np.sort(late)[-10:]
    counted = np.bincount(at)
    assert counted.min() == counted.max() > 0
    record = change_record(both)
    parts = {part["part"]: part for part in record["changes"]["host"]}
    assert parts["operators"]["again_ns"] > 0.05 * record["changes"]["again_ns"]


def test_a_node_that_takes_longer_at_a_change_is_named(captures):
    capture, nodes = captures
    labels, late = capture.meta["requests"], 5_000_000
    changes = np.array(labels["order"]) != np.array(labels["previous"])
    at = np.searchsorted(nodes.marks.start, nodes.ranges.start, "right") - 1
    last = np.array([np.flatnonzero(at == request)[-1] for request in range(len(changes))])
    (slow,) = set(nodes.ranges.text[last])
    # The last node of each request after another shape takes longer, and all that follows comes later.
    longer = np.where(changes, late, 0)
    before = np.cumsum(longer) - longer
    moved = np.where(at >= 0, before[at], 0)
    end = nodes.ranges.end + moved
    end[last] += longer
    ranges = dataclasses.replace(nodes.ranges, start=nodes.ranges.start + moved, end=end)

    def stretched(marks):
        return dataclasses.replace(marks, start=marks.start + before, end=marks.end + before + longer)

    both = host_nodes.joined(
        dataclasses.replace(capture, marks=stretched(capture.marks)),
        dataclasses.replace(nodes, marks=stretched(nodes.marks), ranges=ranges),
    )
    made = change_record(both)["changes"]
    longest = made["longer"][0]
    assert (longest["what"], longest["name"]) == ("range", slow)
    assert longest["ns"] - longest["again_ns"] == pytest.approx(late, rel=0.3)
    part = next(part for part in made["host"] if part["part"] == "operators")
    assert part["cost_ns"] == pytest.approx(late, rel=0.3)


def test_another_number_of_requests_is_refused(captures):
    capture, nodes = captures
    short = dataclasses.replace(
        capture,
        marks=dataclasses.replace(
            capture.marks, **{name: getattr(capture.marks, name)[1:] for name in ("start", "end", "thread")}
        ),
    )
    with pytest.raises(UserError, match="capture it anew"):
        host_nodes.joined(short, nodes)
