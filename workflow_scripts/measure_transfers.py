#!/usr/bin/env python3
"""Measure how data gets from this host to its GPU and back, by kind of memory, and what memory and graphs cost."""

import argparse
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from ceilings import gpu, isolation, records, turns
from ceilings import host as hosts
from ceilings.errors import UserError
from ceilings.program import main
from ceilings.provenance import provenance

PACKAGES = ("torch", "cuda-bindings", "nvidia-ml-py", "numpy")

TINY = 1 << 20
"""Bytes of the largest transfer and allocation of a check that everything runs."""

ATTRIBUTES = (
    *("CanMapHostMemory", "ManagedMemory", "ConcurrentManagedAccess", "PageableMemoryAccess"),
    *("DirectManagedMemAccessFromHost", "MemoryPoolsSupported", "AsyncEngineCount"),
)
"""What the device says of its memory."""


def work(arguments: argparse.Namespace) -> None:
    hosts.having(arguments.device, arguments.output, "cuda")
    from ceilings.cuda import device as cuda
    from ceilings.cuda import memory_kinds
    from ceilings.cuda import monitor as gpu_monitor
    from ceilings.limits import allocation_bench, graph_costs, transfer_bench

    card, *others = gpu.every()
    gpu.refuse_other(card, arguments.device)
    record: dict[str, Any] = {"device": arguments.device, "curves": {}, "allocations": {}, "attributes": {}}
    record |= {"gpu": dataclasses.asdict(card), "flags": [], "provenance": provenance(PACKAGES)}
    record |= {"peer": dataclasses.asdict(others[0])} if others else {}
    most = TINY if arguments.tiny else max(transfer_bench.SIZES)
    with turns.turn([one.uuid for one in (card, *others[:1])]), gpu_monitor.Monitor(card.uuid) as monitor:
        monitor.wait_for_samples()
        start = time.perf_counter_ns()
        cuda.initialise()
        record["attributes"] = {name: cuda.attribute(name) for name in ATTRIBUTES}
        free = min(memory_kinds.free_bytes(), transfer_bench.LEFT_FREE * most)
        sizes = transfer_bench.fitting(transfer_bench.SIZES, free)
        allocated = transfer_bench.fitting(allocation_bench.SIZES, free)
        if not (sizes and allocated):
            raise UserError(f"{free:,} bytes of memory are free; measuring transfers needs more: end other processes")
        share = arguments.seconds_budget / (len(transfer_bench.GROUPS) + 1)
        _survive(arguments.output, record, "allocations", "allocations")
        record["allocations"] = allocation_bench.AllocationBench(arguments.rounds, share, allocated).run()
        try:
            record["graphs"] = graph_costs.GraphCosts(arguments.rounds).run()
        except Exception as error:  # they take no other number with them
            record["graphs"] = {"unavailable": transfer_bench.reason(error)}
        bench = transfer_bench.TransferBench(arguments.rounds, share, sizes)
        for name in transfer_bench.GROUPS:
            _survive(arguments.output, record, "curves", name)
            record["curves"] |= bench.group(name)
        monitor.poll()
        summary = gpu_monitor.summarise(gpu_monitor.between(monitor.samples, start, time.perf_counter_ns()))
    record["gpu"] |= {**summary, "refused": monitor.refused}
    # Copies leave the multiprocessors idle.
    record["flags"] += [flag for flag in gpu_monitor.flags(summary) if "SM clock" not in flag]
    if company := gpu_monitor.neighbours(monitor.processes, os.getpid())[1]:
        record["flags"].append(company)
    if arguments.tiny:
        record["flags"].append("tiny sizes: these numbers say nothing of this host")
    records.write(arguments.output, "transfers", record)


def _survive(output: Path, record: dict[str, Any], part: str, name: str) -> None:
    """Leave what is measured so far, should a signal end this process while it measures something."""
    lost = {name: {"unavailable": isolation.CRASH}}
    isolation.leave_on_crash({output: {"kind": "transfers", **record, part: record[part] | lost}})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the GPU that must run it")
    parser.add_argument("--rounds", type=int, default=7, help="over all sizes; three at least")
    parser.add_argument("--seconds-budget", type=float, default=60, help="for all of it, about")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser, isolated=True)
