"""Traces of PyTorch's profiler from an H100, of programs whose content and whose changed latencies are known.

``benchmarks/what_if.py record`` made them (programs ``sleep-host`` and ``sleep-long``), without names of the machine.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from ceilings.traces.explained.explain import explain

DATA = Path(__file__).with_name("data")
MEASURED = Path(__file__).parents[3] / "docs/studies/nvidia-h100/what_if"
ITERATIONS, LAUNCHES = 30, 20


def explained(name, latency=None):
    record = explain(DATA / f"{name}.torch.json.gz", name, latency=latency)
    (group,) = record["groups"]
    assert (record["iterations"]["by"], record["iterations"]["count"], group["count"]) == ("period", 30, ITERATIONS)
    assert group["counts"]["kernels"] == group["counts"]["launches"] == LAUNCHES
    return group


def measured(name):
    facts = json.loads((MEASURED / f"{name}.measured.json").read_text())
    return {change: statistics.median(turns) * 1e9 for change, turns in facts["seconds"].items()}


@pytest.mark.parametrize(("name", "kernel_us"), [("sleep-host", 20), ("sleep-long", 100)])
def test_what_ran(name, kernel_us):
    group = explained(name)
    (kernel,) = group["kernels"]
    assert kernel["short"] == "spin_kernel" and kernel["count"] == LAUNCHES
    assert kernel_us <= kernel["ns"] / LAUNCHES / 1e3 <= kernel_us + 1  # it waits so long, and begins and ends
    (device,) = group["devices"]
    everything = [*device["classes"].values(), *device["idle"].values(), device["idle_unexplained_ns"]]
    total = sum(part["median"] for part in everything)
    assert total == pytest.approx(group["length_ns"]["median"], rel=0.01)


def test_what_bounds_them():
    assert explained("sleep-long")["shares"]["kernel"] > 0.95
    shares = explained("sleep-host")["shares"]  # the host spins 40 us before each launch of a kernel of 20 us
    assert shares["host"] + shares["launch"] > 0.9


@pytest.mark.parametrize(
    ("name", "change"),
    [("sleep-host", "graph"), ("sleep-host", "kernels"), ("sleep-long", "graph"), ("sleep-long", "kernels")],
)
def test_what_ifs_are_what_was_measured(name, change):
    latencies = measured(name)
    said = {one["change"]: one["ns"] for one in explained(name, latencies["unchanged"] / 1e6)["what_if"]}
    assert said[change] == pytest.approx(latencies[change], rel=0.03)
