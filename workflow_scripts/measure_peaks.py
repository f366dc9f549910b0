#!/usr/bin/env python3
"""Measure what this GPU allows: bandwidths, matrix rate per precision, launch costs, copy rates."""

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

from ceilings import gpu, records, turns
from ceilings import host as hosts
from ceilings.program import main
from ceilings.provenance import provenance

DEFAULT_PRODUCTS = tuple((m, n, k) for m in (128, 4096) for k, n in ((768, 768), (768, 3072), (3072, 768)))
"""(M, N, K) of the products in BERT-base and DistilBERT: M is batch times sequence."""

PACKAGES = ("torch", "cuda-bindings", "nvidia-ml-py", "numpy")


def work(arguments: argparse.Namespace) -> None:
    hosts.having(arguments.device, arguments.output, "cuda")
    from ceilings.cuda import device as cuda
    from ceilings.cuda import monitor as gpu_monitor
    from ceilings.limits.peaks import TINY, Bench, Sizes

    card = gpu.visible()
    gpu.refuse_other(card, arguments.device)
    with turns.turn(card.uuid), gpu_monitor.Monitor(card.uuid) as monitor:
        monitor.wait_for_samples()
        start = time.perf_counter_ns()
        sizes = TINY if arguments.tiny else Sizes(products=arguments.products)
        bench = Bench(arguments.repeats, arguments.seconds_budget, sizes)
        peaks = bench.run()
        monitor.poll()
        summary = gpu_monitor.summarise(gpu_monitor.between(monitor.samples, start, time.perf_counter_ns()))
    flags = [f for f in gpu_monitor.flags(summary) if "SM clock" not in f]  # idle stretches lie between the limits
    if company := gpu_monitor.neighbours(monitor.processes, os.getpid())[1]:
        flags.append(company)
    if arguments.tiny:
        flags.append("tiny sizes: these numbers are no limits")
    record = {
        "device": arguments.device,
        "peaks": peaks,
        "gpu": {**dataclasses.asdict(card), **summary, "refused": monitor.refused},
        "l2_bytes": cuda.attribute("L2CacheSize"),
        "multiprocessors": cuda.attribute("MultiProcessorCount"),
        "flags": flags,
        "provenance": provenance(PACKAGES),
    }
    records.write(arguments.output, "peaks", record)


def products(text: str) -> tuple[tuple[int, int, int], ...]:
    """An argparse type: sizes (M, N, K) of matrix products as JSON, each once."""
    try:
        sizes = [tuple(size) for size in json.loads(text)]
    except (json.JSONDecodeError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"not a JSON list of [m, n, k]: {error}") from None
    for size in sizes:
        if len(size) != len("mnk") or any(not isinstance(edge, int) or edge < 1 for edge in size):
            raise argparse.ArgumentTypeError(f"{list(size)} is no [m, n, k] of whole numbers from 1 on")
    return tuple(dict.fromkeys(sizes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the GPU that must run it")
    parser.add_argument("--repeats", type=int, default=10, help="of each limit")
    parser.add_argument("--seconds-budget", type=float, default=40, help="for all limits, about")
    parser.add_argument("--products", type=products, default=DEFAULT_PRODUCTS, help="JSON: [[m, n, k], ...]")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
