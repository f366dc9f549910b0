"""Nodes of a CUDA graph, which a recorder draws apart."""

from __future__ import annotations

import pytest
from unit.traces.events import Events

from ceilings.report.tables.budget_rows import replayed
from ceilings.traces.budget_record import budget_record

NODES, LENGTH, RECORDED_GAP = 50, 3.0, 0.6


def step(gap: float, iterations: int = 3) -> Events:
    """Steps of one graph launch: nodes of 3 us with a gap between them, then a wait."""
    events, now = Events(), 10.0
    for _ in range(iterations):
        begin, start = now, now + 10
        launch = events.call(begin + 2, begin + 8, "cudaGraphLaunch_v10000")
        for number in range(NODES):
            events.kernel(launch, start, start + LENGTH, "gemm", node=number + 1)
            start += LENGTH + gap
        end = start - gap + 2
        events.call(begin + 9, end, "cudaStreamSynchronize_v3020")
        events.mark(begin, end + 1)
        now = end + 5
    return events


def test_a_latency_that_the_drawn_nodes_hide_is_explained():
    record = budget_record(step(RECORDED_GAP).capture())
    recorded = 10 + NODES * (LENGTH + RECORDED_GAP) - RECORDED_GAP + 3
    closer = recorded - (NODES - 1) * (RECORDED_GAP - 0.3)
    enqueue = 8e-3
    as_recorded = replayed(record, enqueue)
    assert as_recorded["length_ms"] == pytest.approx(recorded / 1e3, rel=0.01) and as_recorded["node_gap_us"] is None
    found = replayed(record, enqueue, 0.97 * closer / 1e3)
    assert found["length_ms"] == pytest.approx(closer / 1e3, rel=0.01) and found["node_gap_us"] == 0.3
    assert found["shares"]["kernel"] > 0.85


def test_the_recorded_gap_counts_where_it_explains_the_latency_or_nothing_does():
    record = budget_record(step(RECORDED_GAP).capture())
    recorded = replayed(record, 8e-3)["length_ms"]
    for latency in (recorded, 0.95 * recorded, 1.3 * recorded, 0.5 * recorded):
        assert replayed(record, 8e-3, latency)["node_gap_us"] is None


def test_nodes_that_lie_close_are_replayed_as_recorded():
    record = budget_record(step(0.2).capture())
    assert record["replays"]["closer"]["length_ns"] == record["replays"]["length_ns"]


def test_without_nodes_there_is_nothing_to_draw_together():
    events = Events()
    events.mark(0, 100)
    events.launch(10, 14, (16, 60))
    events.call(20, 90, "cudaStreamSynchronize_v3020")
    assert "closer" not in budget_record(events.capture())["replays"]
