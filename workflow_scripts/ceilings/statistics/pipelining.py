"""What schedules of copies and compute gain over one stream: measured, and as the parts of a request predict it.

Pure functions of a record (``ceilings.schemas.overlap``). The pace of a schedule in a window is its requests a second.
In each round a window of the reference, one stream, lies before and after those of the others; the geometric mean of
both is what the round is held against, and what both differ by is noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ceilings.statistics.interference import Floats

Record = Mapping[str, Any]

REFERENCE = "one-stream"
"""The schedule that others are held against: all of a request on one stream, the next ones queued behind it."""

SEQUENTIAL = "sequential"
"""The schedule in which each request waits for the one before: there the host never waits for a queue."""

COPIES_IN, COMPUTE, COPIES_OUT, HOST = "copies in", "compute", "copies out", "the host"
"""What can bound a schedule."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a request takes of each resource, in ns.

    Attributes:
        copy_in, compute, copy_out: Of the device's engines, each request on its own.
        host: Of the thread that submits.
    """

    copy_in: float
    compute: float
    copy_out: float
    host: float

    @property
    def serial(self) -> float:
        """The period of one stream: its parts one after another, or the host where that takes longer."""
        return max(self.copy_in + self.compute + self.copy_out, self.host)

    @property
    def overlapped(self) -> float:
        """The least period with copies beside compute, one request computing at a time: that of the longest part.

        Several streams that compute may go below it, where the kernels of one request leave multiprocessors idle.
        """
        return max(self.copy_in, self.compute, self.copy_out, self.host)

    @property
    def gain(self) -> float:
        """Requests a second of three streams at best, over those of one stream.

        >>> Parts(2.0, 5.0, 1.0, 3.0).gain, Parts(2.0, 5.0, 1.0, 10.0).gain
        (1.6, 1.0)
        """
        return self.serial / self.overlapped

    @property
    def bound(self) -> str:
        """What is busy longest.

        >>> Parts(9.0, 5.0, 1.0, 3.0).bound
        'copies in'
        """
        times = {COMPUTE: self.compute, COPIES_IN: self.copy_in, COPIES_OUT: self.copy_out, HOST: self.host}
        return max(times, key=lambda name: times[name])


def parts(record: Record) -> Parts:
    """The parts of a run: medians of the timed requests, and of the sequential windows for the host."""
    host = [one["submit_ns"] for one in record["windows"] if one["schedule"] == SEQUENTIAL]
    copy_in, compute, copy_out = (
        float(np.median(record["parts"][name])) for name in ("copy_in_ns", "compute_ns", "copy_out_ns")
    )
    return Parts(copy_in, compute, copy_out, float(np.median(host)))


def paces(record: Record, schedule: str) -> Floats:
    """Requests a second of each window of a schedule, in the order of time."""
    windows = [one for one in record["windows"] if one["schedule"] == schedule]
    return np.array([one["completions"] * 1e9 / one["elapsed_ns"] for one in windows])


def log_gains(record: Record, schedule: str) -> Floats:
    """Logarithm of the pace of a schedule over that of one stream around it, one a round."""
    around = np.log(paces(record, REFERENCE)).reshape(-1, 2).mean(axis=1)
    return np.asarray(np.log(paces(record, schedule)) - around, np.float64)


def log_repeats(record: Record) -> Floats:
    """Logarithm of the second reference of a round over the first, one a round: nothing but noise."""
    return np.asarray(np.diff(np.log(paces(record, REFERENCE)).reshape(-1, 2), axis=1)[:, 0], np.float64)
