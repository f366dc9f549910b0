"""One window of load: what is wrong with its numbers, and what the server counted in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ceilings import foreign
from ceilings.report import text
from ceilings.statistics.quantiles import quantile_interval

Window = Mapping[str, Any]

MOST_BUSY = 0.9
"""A client that uses more of its cores is measured with the server."""

MOST_LATE = 0.05
"""Of a latency that is shown: a client whose lateness, or waiting for a processor, is more than this is part of it."""

TAIL = 0.99

GROWTH = 1.25
"""The last third of a window's requests waits at least so many times as long as the first, where a queue grows."""

SUSTAINED = 0.95
"""Of the highest throughput of closed loops: a rate below it cannot make a queue grow for ever."""

NOTICED = 30
"""Requests of a window from which on growth shows at a rate beyond the throughput: in nine of ten simulated runs at
1.05 of it, in all at 1.2 and more. The medians of a window's thirds have no bounds below 18."""

STEADY, GROWS, SHORT = "steady", "grows", "short"
"""What an open loop came to: a steady state, a queue that grows, windows that ended before the queue had settled."""

MS = 1e-6

PARTS = {
    "queue_ms": "queue_ns",
    "input_ms": "compute_input_ns",
    "infer_ms": "compute_infer_ns",
    "output_ms": "compute_output_ns",
}
"""Columns of the server's account of a request, and the counters that they come from."""


def faults(window: Window) -> list[str]:
    """What makes the numbers of a window wrong, in sentences without numbers, so that equal ones can be counted."""
    server, failed = window["server"], sum(window["failed"].values())
    noticed = []
    if window["client_cores"] > MOST_BUSY * window["client_cores_allowed"]:
        noticed.append("the client could not keep up: it used its cores whole")
    elif _late(window):
        noticed.append("the client could not keep up: it sent late")
    elif _waited_ns(window) > MOST_LATE * sum(window["latency_ns"]):
        noticed.append("the client could not keep up: it waited for a processor that others had")
    if window["exhausted"] or window["unsent"]:
        noticed.append("the client could not keep up: it had no connection free")
    if failed:
        most = max(window["failed"], key=window["failed"].__getitem__)
        noticed.append(f"requests failed: {most.replace('; ', ', ')}")  # a semicolon ends a flag
    if (counted := server.get("requests")) is not None:
        counted += server.get("failures") or 0
        if counted != window["answered"] + failed:
            noticed.append("server and client counted different requests")
    if others := server.get("others"):
        named = text.cut((foreign.one_line(one, 60).replace("; ", ", ") for one in sorted(others)), 3)
        noticed.append(f"other models of the server were asked meanwhile: {named}")
    return noticed


def _late(window: Window) -> bool:
    """Whether a client's lateness moves what is shown: the median, the mean, or of an open loop the tail.

    A closed loop's latency counts from the sending, and lateness takes from its throughput as it adds to the mean.
    """
    latency, late = (np.asarray(window[name], np.float64) for name in ("latency_ns", "late_ns"))
    if not len(latency):
        return False
    if np.median(late) > MOST_LATE * np.median(latency) or late.mean() > MOST_LATE * latency.mean():
        return True
    if window["kind"] == "closed" or len(late) != len(latency):  # of failed requests the lateness alone is known
        return False
    return bool(np.quantile(latency, TAIL) > (1 + MOST_LATE) * np.quantile(latency - late, TAIL))


def _waited_ns(window: Window) -> float:
    """How long a client waited for a processor that others had.

    Its threads share a core and wait for each other as well, for no longer than they compute.
    """
    computed = window["client_cores"] * (window["drained_ns"] - window["began_ns"])
    return max(0.0, (window.get("client_waited_ns") or 0) - computed)


def growing(window: Window) -> bool:
    """Whether the queue of an open loop grew: the last third of its requests waited longer than the first."""
    return window["kind"] == "open" and _rose(window["latency_ns"])


def _rose(latencies: ArrayLike) -> bool:
    values = np.asarray(latencies, np.float64)
    third = len(values) // 3
    first, last = (quantile_interval(part, 0.5) for part in (values[:third], values[len(values) - third :]))
    if first is None or last is None:
        return False
    return last.estimate > GROWTH * first.estimate and last.low > first.high


def settling_requests(share: float) -> float:
    """Requests from an empty queue until the latencies of all of them are within 5% of the steady state.

    Three times the relaxation time of the M/M/1 queue, ``1 / (1 - sqrt(share))^2`` service times (Abate and Whitt,
    "Transient behavior of the M/M/1 queue", 1987). Simulated queues with a constant service time keep within 5%, too.

    >>> [round(settling_requests(share)) for share in (0.5, 0.7, 0.8, 0.9)]
    [35, 112, 269, 1139]

    Args:
        share: Of the highest throughput; below 1.
    """
    return 3 / (1 - math.sqrt(share)) ** 2


def state(windows: Sequence[Window], share: float | None) -> str:
    """``STEADY``, ``GROWS`` or ``SHORT``: what the windows of an open loop came to together.

    At random arrivals the last third of a window waits longer than the first by chance: in one of ten windows at 0.7 of
    the throughput, in four of ten at 0.9. So one such window decides nothing where others do not grow.

    Args:
        windows: All of one load.
        share: Its rate over the highest throughput of closed loops; None where there were none.
    """
    grown = sum(map(growing, windows))
    expected = min(window["rate"] * (window["ended_ns"] - window["began_ns"]) / 1e9 for window in windows)
    sustained = share is not None and share < SUSTAINED
    if sustained and expected >= needed_requests(share):
        return GROWS if len(windows) > 1 and 5 * grown >= 4 * len(windows) else STEADY
    if not sustained and grown and 3 * grown >= len(windows):
        return GROWS
    return SHORT if expected < needed_requests(share) else STEADY


def needed_requests(share: float | None) -> float:
    """Requests of a window that show what an open loop comes to: its steady state, or a queue that grows.

    Args:
        share: Of the highest throughput; None where that is not known.
    """
    return settling_requests(share) if share is not None and share < SUSTAINED else NOTICED


def mean_ms(window: Window, counter: str) -> float | None:
    """A counter of the server over its requests, in ms; None where the server does not count it."""
    return over_windows([window], counter)


def over_windows(windows: list[Window], counter: str) -> float | None:
    """The same over several windows together; None unless all of them have it."""
    totals = [window["server"].get(counter) for window in windows]
    requests = [window["server"].get("requests") for window in windows]
    if any(value is None for value in (*totals, *requests)) or not sum(requests):
        return None
    return float(sum(totals)) / sum(requests) * MS


def sizes(windows: list[Window]) -> dict[int, int]:
    """Executions by size of the batch, in inputs, over several windows; empty unless the server counts them in all."""
    counted: dict[int, int] = {}
    for window in windows:
        known = window["server"].get("batch_sizes")
        if not known:
            return {}
        for size, executions in known.items():
            counted[int(size)] = counted.get(int(size), 0) + executions
    return dict(sorted(counted.items()))
