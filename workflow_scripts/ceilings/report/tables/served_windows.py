"""One window of load: what is wrong with its numbers, and what the server counted in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ceilings.statistics.quantiles import quantile_interval

Window = Mapping[str, Any]

MOST_BUSY = 0.9
"""A client that uses more of its cores is measured with the server."""

MOST_LATE = 0.05
"""Of the median latency: a client that sends later than this is part of the latency."""

GROWTH = 1.25
"""The last third of a window's requests waits at least so many times as long as the first, where a queue grows."""

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
    elif window["latency_ns"] and np.median(window["late_ns"]) > MOST_LATE * np.median(window["latency_ns"]):
        noticed.append("the client could not keep up: it sent late")
    if window["exhausted"] or window["unsent"]:
        noticed.append("the client could not keep up: it had no connection free")
    if failed:
        noticed.append("requests failed")
    if (counted := server.get("requests")) is not None:
        counted += server.get("failures") or 0
        if counted != window["answered"] + failed:
            noticed.append("server and client counted different requests")
    return noticed


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
