#!/usr/bin/env python3
"""Measure what this GPU allows: bandwidths, matrix rate per precision, launch costs, copy rates."""

import argparse
import time
from pathlib import Path

from ceilings import SCHEMA_VERSION
from ceilings import host as hosts
from ceilings.errors import UserError
from ceilings.files import write_json
from ceilings.program import main
from ceilings.provenance import provenance

PACKAGES = ("torch", "cuda-bindings", "nvidia-ml-py", "numpy")


def work(arguments: argparse.Namespace) -> None:
    here = hosts.detect().device("cuda")
    if here != arguments.device:
        raise UserError(
            f"{arguments.output} belongs to {arguments.device}, but this machine's GPU is {here or 'none'}; "
            "run it there, or ask for the path of this machine's GPU"
        )
    from ceilings.cuda import device as cuda
    from ceilings.cuda import monitor as gpu_monitor
    from ceilings.limits.peaks import TINY, Bench, Sizes

    uuid = cuda.device_uuid()
    with gpu_monitor.Monitor(uuid) as monitor:
        monitor.wait_for_samples()
        start = time.perf_counter_ns()
        bench = Bench(arguments.repeats, arguments.seconds_budget, TINY if arguments.tiny else Sizes())
        peaks = bench.run()
        monitor.poll()
        summary = gpu_monitor.summarise(gpu_monitor.between(monitor.samples, start, time.perf_counter_ns()))
    flags = [f for f in gpu_monitor.flags(summary) if "SM clock" not in f]  # idle stretches lie between the limits
    if arguments.tiny:
        flags.append("tiny sizes: these numbers are no limits")
    record = {
        "schema_version": SCHEMA_VERSION,
        "device": arguments.device,
        "peaks": peaks,
        "gpu": {"uuid": uuid, **summary, "refused": monitor.refused},
        "l2_bytes": cuda.attribute("L2CacheSize"),
        "multiprocessors": cuda.attribute("MultiProcessorCount"),
        "flags": flags,
        "provenance": provenance(PACKAGES),
    }
    write_json(arguments.output, record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the GPU that must run it")
    parser.add_argument("--repeats", type=int, default=10, help="of each limit")
    parser.add_argument("--seconds-budget", type=float, default=40, help="for all limits, about")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
