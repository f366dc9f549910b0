"""How fast the host is while a series is measured: a fixed piece of work, timed between blocks of iterations.

Hosts change their speed unseen: another guest works on the other half of a core, or the clock falls. Nothing is stolen
and nothing throttled then, and a cell whose host submits kernel by kernel takes half as long again. Where the fixed
work takes longer too, the host was slower; where it does not, the program was.
"""

from __future__ import annotations

import time

WORK = range(2_000)
"""Turns of an empty loop in Python: some 20 to 60 us of one thread, without memory and without the device."""


class HostSpeed:
    """The fixed work's times along a series.

    Attributes:
        at: Iterations of the series that were done when it began.
        ns: How long it took.
    """

    def __init__(self) -> None:
        self.at: list[int] = []
        self.ns: list[int] = []

    def take(self, done: int) -> None:
        """Do the work once, after so many iterations."""
        clock = time.perf_counter_ns
        start = clock()
        for _ in WORK:
            pass
        self.ns.append(clock() - start)
        self.at.append(done)

    def to_json(self) -> dict[str, list[int]]:
        """Its part of a series."""
        return {"host_at": self.at, "host_ns": self.ns}
