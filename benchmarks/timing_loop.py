#!/usr/bin/env python3
"""What the timing loop of CPU cells costs for each iteration, against a plain loop around the same call.

    python benchmarks/timing_loop.py

The call does nothing, so that all that is seen is the loops' own. Plain: a clock, the call, a clock, a list.
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from ceilings.measure.loop import block

ITERATIONS = 100_000
REPEATS = 15


def nothing(slot: object) -> None:
    """The work."""


def plain(call, argument, count):
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        call(argument)
        times.append(time.perf_counter_ns() - start)
    return times


def main() -> None:
    whole, recorded = [], []
    slots = [0, 1, 2, 3, 4, 5, 6, 7]
    for _ in range(REPEATS):
        start = time.perf_counter_ns()
        theirs = plain(nothing, 0, ITERATIONS)
        middle = time.perf_counter_ns()
        ours: list[int] = []
        block(nothing, slots, ITERATIONS, ours)
        end = time.perf_counter_ns()
        whole.append(((end - middle) - (middle - start)) / ITERATIONS)
        recorded.append(statistics.median(ours) - statistics.median(theirs))
    print(
        f"extra wall time an iteration: {statistics.median(whole):.0f} ns (range {min(whole):.0f} to {max(whole):.0f})"
    )
    print(f"extra in the recorded latency: {statistics.median(recorded):.0f} ns")


if __name__ == "__main__":
    main()
