#!/usr/bin/env python3
"""Say what limits each counted kernel of a cell: its place below the device's measured ceilings, and a verdict."""

import argparse
from pathlib import Path
from typing import Any

from ceilings import records
from ceilings.limits import counted as counts
from ceilings.limits.roofline import read_limits
from ceilings.program import main
from ceilings.provenance import provenance


def work(arguments: argparse.Namespace) -> None:
    counted = records.read(arguments.counters, "counters")
    head = {name: counted[name] for name in ("cell", "tool", "caches", "status", "failure")}
    record: dict[str, Any] = head
    if not counted["failure"]:
        limits = read_limits(records.read(arguments.peaks, "peaks"))
        floor = records.read(arguments.floor, "floor") if arguments.floor else None
        judged = counts.judged(counted, limits, floor)
        record = head | {name: counted[name] for name in ("iterations", "flags", "lacking")} | judged
        whole = sum(judged["verdicts"].values()) or 1
        print(", ".join(f"{name} {ns / whole:.0%}" for name, ns in judged["verdicts"].items()))
        print("\n".join(f"{one['what']}: {one['ratio']:.3f} of {one['expected']:.4g}" for one in judged["checks"]))
    sources = {"counters": arguments.counters, "peaks": arguments.peaks, "floor": arguments.floor}
    record = record | {"provenance": provenance((), {name: path for name, path in sources.items() if path})}
    records.write(arguments.output, "kernel-limits", record, indent=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counters", type=Path, required=True, help="of count_kernels.py")
    parser.add_argument("--peaks", type=Path, required=True, help="peaks.json of the device")
    parser.add_argument("--floor", type=Path, help="of bound_latency.py: counts to hold the hardware's against")
    parser.add_argument("--output", type=Path, required=True)
    main(work, parser)
