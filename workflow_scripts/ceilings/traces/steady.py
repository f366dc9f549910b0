"""Whether all iterations of a capture do the same: kernels, copies and calls that some have and others lack.

A steady state repeats. What it does not repeat is no part of it: an allocation, a module that is loaded, a search for
an algorithm, a kernel that another length of the context chose. A median hides all of them. What comes every n-th time
exactly, such as two buffers in turn, repeats too: it is named apart, with n.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.traces.calls import LAUNCH, kind, plain
from ceilings.traces.capture import (
    DEVICE_TO_HOST,
    HOST_TO_DEVICE,
    KERNEL,
    MEMCPY,
    MEMSET,
    Capture,
    Integers,
    Operations,
)
from ceilings.traces.kernel_classes import short

PREPARES = re.compile(r"Malloc|MemAlloc|Free|MemCreate|MemMap|ModuleLoad|LibraryLoad|GraphInstantiate|StreamCreate")
"""Calls that belong before a steady state, however often they come."""

NOT_ITS_OWN = re.compile(r"(Event|Stream)Query|[Pp]rofiler|^cupti")
"""Calls whose number depends on how long something takes and on nothing else, and those of the profiler."""

COPIES = {HOST_TO_DEVICE: "host to device", DEVICE_TO_HOST: "device to host"}
"""Directions of copies; all others stay on the device."""

FEWEST_PERIODS = 3
"""What repeats so often is periodic."""

NAMED = 3
"""So many of a kind are named in a flag, those that take longest."""


def irregular(capture: Capture) -> list[dict[str, Any]]:
    """What is not in every iteration equally often, and calls that prepare; those that take longest first.

    Returns:
        For each kernel, copy and call: ``what`` (``kernel``, ``copy`` or ``call``), ``name``; ``iterations`` that have
        it, of how many (``of``); ``first`` and ``last`` of them, from 0; ``least`` and ``most`` in one of them all;
        ``period``: it comes in the same way every so many iterations (None: in no such way); ``ns``, its mean time in
        an iteration that has it.
    """
    calls, operations = capture.calls, capture.operations
    kernels = operations.kind == KERNEL
    moved = (operations.kind == MEMCPY) | (operations.kind == MEMSET)
    directions = ("fill", "within the device", *COPIES.values())
    direction = np.where(operations.kind == MEMSET, 0, 1)
    for place, copied in enumerate(COPIES, 2):
        direction[(operations.kind == MEMCPY) & (operations.copy_kind == copied)] = place
    found = [
        *_uneven(capture, "kernel", capture.names, _columns(operations, operations.name, kernels)),
        *_uneven(capture, "copy", directions, _columns(operations, direction, moved)),
        *_uneven(capture, "call", capture.names, (calls.name, calls.start, calls.end)),
    ]
    return sorted(found, key=lambda one: -one["ns"] * one["iterations"])


def flags(found: list[dict[str, Any]]) -> list[str]:
    """What a reader should know of it."""
    lines = []
    for what in ("kernel", "copy", "call"):
        uneven = [one for one in found if one["what"] == what and one["least"] != one["most"]]
        if once := [one for one in uneven if one["period"] is None]:
            lines.append(f"not the same in every iteration: {_listed(once)}")
        if periodic := [one for one in uneven if one["period"] is not None]:
            lines.append(f"not in every iteration, but in a fixed turn: {_listed(periodic)}")
    if always := [one for one in found if one["least"] == one["most"]]:
        lines.append(f"prepared in every iteration: {_listed(always)}")
    return lines


def _columns(operations: Operations, name: Integers, kept: NDArray[np.bool_]) -> tuple[Integers, Integers, Integers]:
    return name[kept], operations.start[kept], operations.end[kept]


def _uneven(
    capture: Capture, what: str, names: tuple[str, ...], columns: tuple[Integers, Integers, Integers]
) -> list[dict[str, Any]]:
    marks, (name, start, end) = capture.marks, columns
    at = np.searchsorted(marks.start, start, "right") - 1
    inside = (at >= 0) & (start < marks.end[np.maximum(at, 0)]) & (name >= 0)
    at, name, took = at[inside], name[inside], (end - start)[inside]
    count = np.zeros((len(marks.start), len(names)), np.int64)
    np.add.at(count, (at, name), 1)
    total = np.bincount(name, took, minlength=len(names))
    rows = []
    for index in np.flatnonzero(count.any(axis=0)).tolist():
        each = count[:, index]
        prepares = what == "call" and PREPARES.search(names[index]) is not None
        if each.min() == each.max() and not prepares:
            continue
        if what == "call" and (NOT_ITS_OWN.search(names[index]) or kind(names[index]) == LAUNCH):  # the kernels say it
            continue
        having = np.flatnonzero(each)
        rows.append(
            {
                "what": what,
                "name": short(names[index]) if what == "kernel" else plain(names[index]),
                "iterations": len(having),
                "of": len(each),
                "first": int(having[0]),
                "last": int(having[-1]),
                "least": int(each.min()),
                "most": int(each.max()),
                "period": _period(each),
                "ns": float(total[index] / len(having)),
            }
        )
    return rows


def _period(counts: Integers) -> int | None:
    """After how many iterations the counts repeat exactly, again and again; None where they do not.

    >>> _period(np.array([0, 1] * 5)), _period(np.array([1, 0, 0, 1, 0, 0, 1, 0, 1, 0]))
    (2, None)
    """
    if counts.min() == counts.max():
        return None
    for period in range(2, len(counts) // FEWEST_PERIODS + 1):
        if (counts[period:] == counts[:-period]).all():
            return period
    return None


def _listed(found: list[dict[str, Any]]) -> str:
    shown = ", ".join(_one(one) for one in found[:NAMED])
    more = len(found) - NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _one(one: dict[str, Any]) -> str:
    often = f"{one['least']} to {one['most']} times an iteration" if one["least"] != one["most"] else ""
    if one["iterations"] < one["of"]:
        often = f"in {_where(one)}{one['iterations']} of {one['of']}"
    elif not often:
        often = f"{one['most']} an iteration"
    if one["period"] is not None:
        often += f", the same every {one['period']} iterations"
    return f"{one['what']} `{one['name']}` {often} ({one['ns'] / 1e3:.3g} µs)"


def _where(one: dict[str, Any]) -> str:
    """Of what comes in the first or the last iterations only, that it does."""
    if one["last"] - one["first"] + 1 != one["iterations"]:
        return ""
    return "the first " if one["first"] == 0 else "the last " if one["last"] == one["of"] - 1 else ""
