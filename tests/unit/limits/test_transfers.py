"""How transfers and allocations are measured, on a device that has its memory on the host; times mean nothing here."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import signal

import pytest

import measure_transfers

pytest.importorskip("cuda.bindings")

from cuda.bindings import driver
from unit.limits.host_device import HostDevice, HostKernel

from ceilings import gpu, isolation, records, schemas
from ceilings.cuda import device as cuda
from ceilings.cuda import memory_kinds, monitor
from ceilings.cuda.compiled import Arguments
from ceilings.limits import graph_costs, transfer_bench, transfer_ways
from ceilings.limits.copy_kernel import CopyKernel
from ceilings.limits.transfer_bench import TransferBench, fitting

SIZES = (4, 64, 4096, 3 * 4096)
COPIED = [f"{direction}.{kind}" for direction in ("h2d", "d2h") for kind in ("pageable", "pinned", "write-combined")]
ALL = [
    *(*COPIED, "h2d.mapped", "d2h.mapped", "d2d.kernel", "h2d.managed", "d2h.managed", "d2d.managed"),
    *("h2d.managed-prefetch", "h2d.managed-read-mostly", "h2d.managed-on-host", "d2h.managed-prefetch"),
]


@pytest.fixture
def device(monkeypatch):
    device = HostDevice(monkeypatch)
    for module in (transfer_ways, graph_costs):
        monkeypatch.setattr(module, "CopyKernel", lambda: HostKernel(device))
    return device


def measured(**options):
    """The curves of every group."""
    bench = TransferBench(**options)
    return {name: curve for group in transfer_bench.GROUPS for name, curve in bench.group(group).items()}


def test_every_way_has_a_curve_over_all_sizes(device):
    curves = measured(rounds=3, seconds=60, sizes=SIZES)
    assert list(curves) == ALL
    for name, curve in curves.items():
        assert [point["bytes"] for point in curve["points"]] == list(SIZES), (name, curve)
        assert curve["rounds"] == 3
        clocked = [point["device_us"] is not None for point in curve["points"]]
        assert set(clocked) == {name != "d2h.managed"}  # the host reads pages: no work of the device to time
    gc.collect()
    assert not device.memory  # each group gave its memory back


def test_what_arrives_is_held_against_what_was_sent(device):
    device.flips = 1
    curves = measured(rounds=3, seconds=60, sizes=SIZES)
    wrong = {name for name, curve in curves.items() if "unavailable" in curve}
    assert wrong == {"d2h.pageable", "d2h.pinned", "d2h.write-combined"}
    assert curves["d2h.pinned"]["unavailable"] == "RuntimeError: 1 of 4 bytes arrived wrong by d2h.pinned"


def test_pages_start_on_the_other_side_before_each_transfer_that_is_timed(device):
    stream = cuda.Stream()
    ways = {way.name: way for way in transfer_ways.managed(4096, stream)}
    way = ways["h2d.managed-prefetch"]
    address = way.source.block.pointer
    device.diary.clear()
    call = way.enqueue(4096)
    way.ready(4096)
    call()
    assert device.diary == [("prefetch", address, 4096, "Host"), ("prefetch", address, 4096, "Device")]
    back = ways["d2h.managed-prefetch"]
    device.diary.clear()
    back.ready(4096)
    back.enqueue(4096)()
    assert [entry[3] for entry in device.diary] == ["Device", "Host"]


def test_advice_names_the_whole_block_and_its_places(device):
    ways = {way.name: way for way in transfer_ways.managed(8192, cuda.Stream())}
    mostly_read, staying = (ways[f"h2d.managed-{kind}"].source.block.pointer for kind in ("read-mostly", "on-host"))
    assert [entry for entry in device.diary if entry[0] != "prefetch"] == [
        ("SetReadMostly", mostly_read, 8192, "Device"),
        ("SetPreferredLocation", staying, 8192, "Host"),
        ("SetAccessedBy", staying, 8192, "Device"),
    ]


def test_without_concurrent_access_there_are_no_prefetches(device):
    device.attributes["cudaDevAttrConcurrentManagedAccess"] = 0
    curves = measured(rounds=3, seconds=60, sizes=(64,))
    assert {name for name in curves if "managed" in name} == {"h2d.managed", "d2h.managed", "d2d.managed"}
    assert not device.diary


def test_of_two_devices_copies_between_them_are_measured_without_access_first(device):
    device.devices = 2
    curves = measured(rounds=3, seconds=60, sizes=(64, 4096))
    assert {"p2p.staged", "p2p.direct"} == {name for name in curves if name.startswith("p2p")}
    assert [point["bytes"] for point in curves["p2p.direct"]["points"]] == [64, 4096]
    chosen = [entry for entry in device.diary if entry[0] in ("device", "access")]
    before = chosen[: chosen.index(("access", 1))]
    assert before.count(("device", 1)) == before.count(("device", 0)) == 1 + 2  # one buffer, filled once a size
    assert chosen[-1] == ("device", 0)
    device.attributes["peer"] = 0
    curves = measured(rounds=3, seconds=60, sizes=(64,))
    assert curves["direct"] == {"unavailable": "CudaError: device 0 cannot have access to device 1"}


def test_memory_that_cannot_be_had_takes_no_other_way_with_it(device, monkeypatch):
    def refused(*_):
        raise cuda.CudaError("no managed memory here")

    monkeypatch.setitem(transfer_bench.GROUPS, "managed", refused)
    curves = measured(rounds=3, seconds=60, sizes=(64,))
    assert curves["managed"] == {"unavailable": "CudaError: no managed memory here"}
    assert curves["h2d.pinned"]["points"]


def test_a_group_ends_after_three_rounds_once_its_time_is_used_up(device, monkeypatch):
    monkeypatch.setattr(transfer_bench, "GROUPS", {"copies": transfer_ways.copies})
    curves = measured(rounds=50, seconds=0, sizes=(64,))
    assert {curve["rounds"] for curve in curves.values()} == {3}


def test_a_pageable_copy_is_never_captured(device):
    bench = TransferBench(rounds=3, seconds=60, sizes=(64, 1024))
    for way in transfer_ways.copies(1024, bench.stream):
        graphs = transfer_bench.Timed(way, bench)._graphs
        assert bool(graphs) == ("pageable" not in way.name)
        assert all(graph.nodes == transfer_bench.MOST_CAPTURED for graph, _ in graphs.values())


def test_sizes_leave_most_of_the_memory_free():
    assert fitting((4, 1024, 4096), 8 * 1024) == [4, 1024]
    assert fitting((4, 1024), 16) == []


def test_what_is_free_is_the_least_of_device_host_and_control_group(device, monkeypatch):
    monkeypatch.setattr(memory_kinds, "memory_limit", lambda: 1 << 20)
    assert memory_kinds.free_bytes() == 1 << 20
    monkeypatch.setattr(memory_kinds, "memory_limit", lambda: None)
    assert 0 < memory_kinds.free_bytes() <= 1 << 34


def test_a_launch_has_the_arguments_of_its_kernel(device, monkeypatch):
    launched = []

    def launch(*arguments):
        launched.append(arguments)
        return (driver.CUresult.CUDA_SUCCESS,)

    monkeypatch.setattr(driver, "cuLaunchKernel", launch)
    kernel = object.__new__(CopyKernel)
    kernel._function, kernel._most = driver.CUfunction(7), 3
    for nbytes, blocks in ((4, 1), (4096, 1), (4112, 2), (1 << 20, 3)):
        call = kernel.launcher(0x2000, 0x1000, nbytes, cuda.Stream())
        call()
        function, *grid = launched[-1][:4]
        assert int(function) == 7 and grid == [blocks, 1, 1]
        addresses = (ctypes.c_void_p * 3).from_address(launched[-1][9])
        source, to, words = (ctypes.c_uint64.from_address(address).value for address in addresses)
        assert (source, to, words) == (0x1000, 0x2000, nbytes // 4)


def test_packed_arguments_stay_as_long_as_they_are_used():
    packed = Arguments(ctypes.c_int(5), ctypes.c_ulonglong(6))
    gc.collect()
    first, second = (ctypes.c_void_p * 2).from_address(packed.address)
    assert (ctypes.c_int.from_address(first).value, ctypes.c_ulonglong.from_address(second).value) == (5, 6)


def test_graphs_of_each_size_are_captured_launched_and_freed(device):
    made = graph_costs.GraphCosts(3, nodes=(1, 30)).run()
    assert [point["nodes"] for point in made["points"]] == [1, 30] and made["rounds"] == 3
    assert made["points"][1]["capture_us"]["median"] > made["points"][0]["capture_us"]["median"]
    assert not device._graphs  # each of them is freed
    assert schemas.flaw("transfers", record(graphs=made)) is None


def test_costs_of_each_allocator(device, monkeypatch):
    from ceilings.limits import allocation_bench

    monkeypatch.setattr(allocation_bench, "SIZES", (4096, 65536))
    costs = allocation_bench.AllocationBench(rounds=3, seconds=60, sizes=(4096, 65536)).run()
    assert set(costs) == set(allocation_bench.ALLOCATORS)
    assert "unavailable" in costs["torch"]  # this PyTorch has no CUDA
    for name in set(costs) - {"torch"}:
        assert costs[name]["rounds"] == 3 and [point["bytes"] for point in costs[name]["points"]] == [4096, 65536]
    kept = [entry[1] for entry in device.diary if entry[0] == "cudaMemPoolAttrReleaseThreshold"]
    assert kept == [2**64 - 1, 0]
    assert ("trim", 0) in device.diary
    assert schemas.flaw("transfers", record(allocations=costs)) is None


def record(**parts):
    from unit.planted_records import PROVENANCE

    empty = {"curves": {}, "allocations": {}, "attributes": {}, "flags": [], "provenance": PROVENANCE}
    return {"device": "nvidia-test", **empty, **parts}


def test_curves_are_a_record(device):
    curves = measured(rounds=3, seconds=60, sizes=(4, 64))
    assert schemas.flaw("transfers", record(curves=curves)) is None


@pytest.fixture
def program(device, monkeypatch, tmp_path):
    """The program's arguments, on a machine that has this device and no NVML."""

    class Monitor:
        samples, processes, refused = (), None, {"nvml": "no NVML"}

        def __init__(self, uuid):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait_for_samples(self):
            return False

        def poll(self):
            pass

    card = gpu.Gpu("nvidia-test", "NVIDIA Test", "GPU-1", "580.1", (9, 0), 80 << 30)
    monkeypatch.setattr(gpu, "every", lambda: [card])
    monkeypatch.setattr(measure_transfers.hosts, "having", lambda *_: None)
    monkeypatch.setattr(monitor, "Monitor", Monitor)
    monkeypatch.setattr(measure_transfers, "TINY", 1 << 14)
    monkeypatch.setattr(graph_costs, "AGAIN", 1)
    monkeypatch.setenv("CEILINGS_LOCKS", str(tmp_path))
    options = {"device": "nvidia-test", "rounds": 3, "seconds_budget": 60.0, "tiny": True}
    return argparse.Namespace(output=tmp_path / "hosts/nvidia-test/transfers.json", **options)


def test_the_program_writes_a_whole_record(program):
    measure_transfers.work(program)
    made = records.read(program.output, "transfers")
    assert list(made["curves"]) == ALL and len(made["allocations"]) == 6
    assert [point["bytes"] for point in made["curves"]["h2d.pinned"]["points"]] == [4**n for n in range(1, 8)]
    assert [point["nodes"] for point in made["graphs"]["points"]] == list(graph_costs.NODES)
    assert made["attributes"]["ConcurrentManagedAccess"] == 1 and made["gpu"]["uuid"] == "GPU-1"
    assert made["flags"] == ["tiny sizes: these numbers say nothing of this host"]


def test_a_crash_leaves_what_was_measured_before_it(program, monkeypatch):
    """Managed memory comes last; a machine may end the process that touches it."""
    monkeypatch.setitem(transfer_bench.GROUPS, "managed", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    child = os.fork()
    if child == 0:
        isolation.isolate()
        measure_transfers.work(program)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    made = records.read(program.output, "transfers")
    assert made["curves"]["managed"] == {"unavailable": "ended by SIGKILL; the system may have run out of memory"}
    assert made["curves"]["d2d.kernel"]["points"] and len(made["allocations"]) == 6
