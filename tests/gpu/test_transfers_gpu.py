"""Transfers and allocations on a real device: every way there is, small, and what must hold of their times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ceilings import host as hosts
from ceilings import records

PROGRAM = Path(__file__).parents[2] / "workflow_scripts" / "measure_transfers.py"


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    output = tmp_path_factory.mktemp("hosts") / "transfers.json"
    arguments = ["--device", hosts.detect().device("cuda"), "--rounds", "3", "--seconds-budget", "5", "--tiny"]
    subprocess.run([sys.executable, PROGRAM, *arguments, "--output", output], check=True, timeout=300)
    made = records.read(output, "transfers")
    print(json.dumps(made["attributes"]), made["flags"])
    return made


def shown(entries):
    """Which entries could not be had, and why."""
    return {name: entry["unavailable"] for name, entry in entries.items() if "unavailable" in entry}


def test_copies_and_mapped_memory_work_everywhere(record):
    missing = shown(record["curves"])
    print(missing)
    assert not [name for name in missing if "managed" not in name]


def test_managed_memory_works_as_far_as_the_device_says(record):
    missing = shown(record["curves"])
    attributes = record["attributes"]
    assert not attributes["ManagedMemory"] or not [name for name in missing if "managed" in name], missing
    prefetched = [name for name in record["curves"] if name.endswith("-prefetch")]
    assert bool(prefetched) == bool(attributes["ManagedMemory"] and attributes["ConcurrentManagedAccess"])


def test_every_allocator_has_its_costs(record):
    assert not shown(record["allocations"])


def test_times_rise_with_size_and_the_device_s_part_is_no_longer_than_the_whole(record):
    for name, curve in record["curves"].items():
        if "points" not in curve:
            continue
        medians = {point["bytes"]: point["host_us"]["median"] for point in curve["points"]}
        device = {point["bytes"]: (point["device_us"] or {}).get("median") for point in curve["points"]}
        print(name, {size: (round(us, 2), device[size] and round(device[size], 2)) for size, us in medians.items()})
        assert 0.5 < min(medians.values()) < 1e5, name
        if name in ("h2d.pinned", "d2h.pinned", "h2d.write-combined"):
            assert medians[1 << 20] > 2 * medians[4], name
            assert all(device[size] < 1.1 * medians[size] for size in medians), name
            assert 1 < (1 << 20) / device[1 << 20] / 1e3 < 1000, f"{name}: GB/s"  # bytes/us/1e3 = GB/s


def test_a_graph_of_more_kernels_costs_more_to_capture_and_to_instantiate(record):
    points = {point["nodes"]: point for point in record["graphs"]["points"]}
    for nodes, point in points.items():
        shown_us = {name: round(value["median"], 1) for name, value in point.items() if name.endswith("_us")}
        print(nodes, shown_us, point["device_bytes"])
    assert points[1000]["capture_us"]["median"] > 10 * points[10]["capture_us"]["median"]
    assert points[1000]["instantiate_us"]["median"] > points[10]["instantiate_us"]["median"]
    assert points[1000]["again_us"]["median"] > points[10]["again_us"]["median"]


def test_a_pool_that_keeps_memory_is_cheaper_than_cuda_s_own_calls(record):
    costs = {name: {point["bytes"]: point for point in one["points"]} for name, one in record["allocations"].items()}
    for name, points in costs.items():
        print(
            name, {size: {k: round(v["median"], 2) for k, v in p.items() if k != "bytes"} for size, p in points.items()}
        )
    largest = max(costs["cuda"])
    assert costs["pool"][largest]["loop_us"]["median"] < costs["cuda"][largest]["loop_us"]["median"]
    assert costs["torch"][largest]["allocate_us"]["median"] < costs["cuda"][largest]["allocate_us"]["median"]
