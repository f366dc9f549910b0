"""What else the machine did while a cell was measured. Standard library only."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ceilings.control_groups import throttled

BUSY_CORES = 0.1
"""From this many busy cores of other processes on, a run is flagged."""

FIELDS = ("others_cores", "stolen_cores", "throttled_periods", "throttled_seconds")
"""Of a record's ``neighbours``."""


class Neighbours:
    """Context that measures what others took: other processes of this system, the hypervisor, and a CPU quota.

    Attributes:
        others_cores: Cores' worth of CPU time used by other processes, mean over the block.
        stolen_cores: Cores' worth of time that the hypervisor gave to other guests.
        throttled_periods: Periods in which a CPU quota stopped this process's group; None where nothing counts them.
        throttled_seconds: For how long, summed over cores.
    """

    others_cores: float | None = None
    stolen_cores: float | None = None
    throttled_periods: int | None = None
    throttled_seconds: float | None = None

    def __enter__(self) -> Neighbours:
        self._throttled = throttled()
        self._start = self._read()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        end, stopped = self._read(), throttled()
        if self._throttled and stopped:
            self.throttled_periods = stopped[0] - self._throttled[0]
            self.throttled_seconds = stopped[1] - self._throttled[1]
        if self._start is None or end is None:
            return
        wall, busy, stolen, used = (after - before for before, after in zip(self._start, end, strict=True))
        if wall > 0:
            self.others_cores = max(0.0, (busy - used) / wall)
            self.stolen_cores = stolen / wall

    def flags(self) -> list[str]:
        """Warnings that belong beside the numbers."""
        flags = []
        if (self.others_cores or 0) >= BUSY_CORES:
            flags.append(f"other processes used {self.others_cores:.0%} of a core")
        if (self.stolen_cores or 0) >= BUSY_CORES:
            flags.append(f"the hypervisor took {self.stolen_cores:.0%} of a core")
        if self.throttled_periods:
            flags.append(
                f"the CPU quota ran out in {self.throttled_periods} periods, for {self.throttled_seconds:.2g} s"
            )
        return flags

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Neighbours:
        """What a record's ``neighbours`` says."""
        neighbours = cls()
        for name in FIELDS:
            setattr(neighbours, name, fields.get(name))
        return neighbours

    def to_json(self) -> dict[str, float | int | None]:
        """The record's ``neighbours``."""
        return {name: getattr(self, name) for name in FIELDS}

    @staticmethod
    def _read() -> tuple[float, float, float, float] | None:
        """Wall time, busy time of all processes, stolen time, this process's CPU time, in seconds.

        None where /proc has no stat.
        """
        try:
            first = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        except OSError:
            return None
        # user nice system idle iowait irq softirq steal; guest time is in user already
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in first]
        times = os.times()
        # Children count once they have ended: a sampler that the block starts and ends is no neighbour.
        spent = times.user + times.system + times.children_user + times.children_system
        return time.monotonic(), sum(ticks[:3]) + sum(ticks[5:7]), ticks[7], spent
