"""How much of the time of copies lies under kernels of other requests, from a capture of schedules.

A capture has a mark round the calls that submit each request, and one round the wait for the last ones, schedule after
schedule (:mod:`ceilings.traces.overlap_target`). What such a call launched is of its request.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.traces.capture import DEVICE_TO_HOST, GRAPH, HOST_TO_DEVICE, KERNEL, MEMCPY, MEMSET, Capture, Integers
from ceilings.traces.covered import disjoint, union

COPY_IN, COMPUTE, COPY_OUT = "copy-in", "compute", "copy-out"

SHOWN = 6
"""Requests of a schedule while which are computed all work is kept, to be drawn."""

JOINED_NS = 2_000
"""Kernels of a request that follow each other more closely are drawn as one."""


def accounts(capture: Capture) -> list[dict[str, Any]]:
    """Of each schedule what its copies and kernels take, and how much of the copies lies under kernels.

    Of a request, in the mean over those that neither fill nor empty the schedule: ``copy_in_ns``, ``copy_out_ns``
    (each the sum of its copies), ``compute_ns`` (time with a kernel or a fill of it). ``period_ns``: between the ends
    of the first and the last of these requests, over their number less one. ``hidden_ns``: of the copies, what lies in
    the time of kernels of other requests; ``own_ns``: what lies in that of kernels of the same request, which is
    none where a schedule is right. ``hidden_share``: of the time of copies; None of a model without copies.
    ``timeline``: all work while some requests in a row are computed, ``[request, part, stream, begin, end]``, times
    from 0.

    Raises:
        ValueError: The marks are not those of its schedules.
    """
    marks, meta = capture.marks, capture.meta
    count, names = meta["requests"], meta["schedules"]
    if len(marks.start) != len(names) * (count + 1):
        raise ValueError(f"{len(marks.start)} marks are not those of {len(names)} schedules of {count} requests")
    operations, calls = capture.operations, capture.calls
    known = operations.call >= 0
    launched = np.where(known, calls.start[operations.call], -1) if len(calls.start) else np.full(len(known), -1)
    at = np.searchsorted(marks.start, launched, "right") - 1
    inside = known & (at >= 0) & (launched <= marks.end[np.maximum(at, 0)])
    part = _parts(capture)
    accounted = []
    for number, schedule in enumerate(names):
        first = number * (count + 1)
        kept = inside & (at >= first) & (at < first + count) & (part != "")
        work = _Work(
            at[kept] - first, part[kept], operations.start[kept], operations.end[kept], operations.stream[kept]
        )
        accounted.append({**schedule, **_account(work, count, min(schedule["in_flight"], count // 4) or 1)})
    return accounted


@dataclasses.dataclass(frozen=True)
class _Work:
    """Copies and kernels of one schedule."""

    request: Integers
    part: NDArray[np.str_]
    begin: Integers
    end: Integers
    stream: Integers

    def of(self, chosen: NDArray[np.bool_]) -> _Work:
        """Those that are chosen."""
        return _Work(**{name: column[chosen] for name, column in vars(self).items()})


def _parts(capture: Capture) -> NDArray[np.str_]:
    """Of each operation which part of a request it is; empty of copies within the device."""
    operations = capture.operations
    part = np.full(len(operations.start), "", dtype="U8")
    part[np.isin(operations.kind, (KERNEL, MEMSET, GRAPH))] = COMPUTE
    copies = operations.kind == MEMCPY
    part[copies & (operations.copy_kind == HOST_TO_DEVICE)] = COPY_IN
    part[copies & (operations.copy_kind == DEVICE_TO_HOST)] = COPY_OUT
    return part


def _account(work: _Work, count: int, edge: int) -> dict[str, Any]:
    inner = np.arange(edge, count - edge)
    ends = np.array([work.end[work.request == one].max(initial=0) for one in inner], np.int64)
    copies = work.of((work.part != COMPUTE) & np.isin(work.request, inner))
    kernels = work.of(work.part == COMPUTE)
    hidden = own = 0.0
    for one in inner:
        mine = copies.of(copies.request == one)
        hidden += _under(mine, kernels.of(kernels.request != one))
        own += _under(mine, kernels.of(kernels.request == one))
    sums = {
        name: float((work.end - work.begin)[(work.part == name) & np.isin(work.request, inner)].sum())
        for name in (COPY_IN, COPY_OUT)
    }
    busy = sum(_length(kernels.of(kernels.request == one)) for one in inner)
    total = sums[COPY_IN] + sums[COPY_OUT]
    each = len(inner)
    return {
        "requests": each,
        "copy_in_ns": sums[COPY_IN] / each,
        "compute_ns": busy / each,
        "copy_out_ns": sums[COPY_OUT] / each,
        "period_ns": float(ends.max() - ends.min()) / (each - 1),
        "hidden_ns": hidden / each,
        "own_ns": own / each,
        "hidden_share": hidden / total if total else None,
        "timeline": _timeline(work, inner),
    }


def _under(copies: _Work, kernels: _Work) -> float:
    """How much of the time of copies, each by itself, has a kernel."""
    return float(union(kernels.begin, kernels.end).within(copies.begin, copies.end).sum())


def _length(work: _Work) -> float:
    """Time with any of it."""
    begin, end = disjoint(work.begin, work.end)
    return float((end - begin).sum())


def _timeline(work: _Work, inner: Integers) -> list[list[Any]]:
    """All work while some requests in the middle are computed, by begin; kernels that nearly touch as one.

    Times are from the begin of the first of these kernels; what lies partly within is cut.
    """
    middle = len(inner) // 2 - SHOWN // 2
    computed = work.of((work.part == COMPUTE) & np.isin(work.request, inner[max(0, middle) : max(0, middle) + SHOWN]))
    if not len(computed.begin):
        return []
    zero, last = computed.begin.min(), computed.end.max()
    shown = work.of((work.end > zero) & (work.begin < last))
    begins, ends = np.maximum(shown.begin, zero) - zero, np.minimum(shown.end, last) - zero
    streams = {int(stream): index for index, stream in enumerate(np.unique(work.stream))}
    rows: list[list[Any]] = []
    for request, part, stream in sorted({*zip(shown.request.tolist(), shown.part, shown.stream.tolist(), strict=True)}):
        mine = (shown.request == request) & (shown.part == part) & (shown.stream == stream)
        reach = JOINED_NS if part == COMPUTE else 0
        for begin, end in zip(*disjoint(begins[mine], ends[mine] + reach), strict=True):
            rows.append([request, str(part), streams[stream], int(begin), int(end) - reach])
    return sorted(rows, key=lambda row: row[3:])
