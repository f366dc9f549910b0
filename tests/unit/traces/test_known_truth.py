"""Captures from an H200 of a program whose account is known: both recorders must find it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gpu.known_truth import HOST_US, ITERATIONS, TRUTH

from ceilings.taxonomy import IDLE_CAUSES, KERNEL_CLASSES
from ceilings.traces import health, store
from ceilings.traces.budget import Account
from ceilings.traces.budget_record import budget_record
from ceilings.traces.capture import MEMCPY, MEMSET
from ceilings.traces.source import SOURCES

DATA = Path(__file__).parent / "data"
"""Made by tests/gpu/capture_fixtures.py."""

SPIN_SLACK = 0.03
"""A kernel spins for at least its time, and its own begin and end take a few us more."""


@pytest.fixture(params=SOURCES)
def capture(request):
    return store.read(DATA / f"truth.{request.param}.sqlite")


def test_counts(capture):
    assert health.refuse_unsound(capture, "it") == []
    iterations = Account(capture).iterations()
    assert len(iterations) == ITERATIONS
    for one in iterations:
        assert {"launches": one.launches, "graphs": one.graphs, "kernels": one.kernels}.items() <= TRUTH.items()
    operations, marks = capture.operations, capture.marks
    inside = (operations.start > marks.start[0]) & (operations.end < marks.end[-1])
    assert (inside & (operations.kind == MEMCPY)).sum() == ITERATIONS * TRUTH["copies"]
    assert (inside & (operations.kind == MEMSET)).sum() == ITERATIONS * TRUTH["fills"]
    assert (inside & operations.node).sum() == ITERATIONS * (TRUTH["kernels"] - 12)


def test_times(capture):
    for one in Account(capture).iterations():
        busy = dict(zip(KERNEL_CLASSES, one.classes / 1000, strict=True))
        for kind in ("gemm", "normalization", "elementwise"):
            assert TRUTH[f"{kind}_us"] <= busy[kind] <= TRUTH[f"{kind}_us"] * (1 + SPIN_SLACK) + 40
        assert busy["attention"] == busy["gather"] == busy["other"] == busy["unknown"] == 0
        unlaunched = one.idle[IDLE_CAUSES.index("host")] / 1000
        assert HOST_US <= unlaunched <= HOST_US * 1.1
        assert one.unexplained == 0


def test_both_recorders_give_the_same_budget():
    """Every part, in shares of the iteration, within 2%."""
    both = []
    for source in SOURCES:
        record = budget_record(store.read(DATA / f"truth.{source}.sqlite"))
        parts = [
            *record["host_ns"].values(),
            *record["device_ns"]["classes"].values(),
            *record["device_ns"]["idle"].values(),
        ]
        both.append(np.array([part["median"] for part in parts]) / record["iteration_ns"]["median"])
    assert np.abs(both[0] - both[1]).max() < 0.02
