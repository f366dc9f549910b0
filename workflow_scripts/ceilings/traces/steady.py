"""Whether all iterations of a capture do the same: kernels and calls that some have and others lack.

A steady state repeats. What it does not repeat is no part of it: an allocation, a module that is loaded, a search for
an algorithm, a kernel that another length of the context chose. A median hides all of them.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.traces.calls import LAUNCH, kind, plain
from ceilings.traces.capture import KERNEL, Capture
from ceilings.traces.kernel_classes import short

PREPARES = re.compile(r"Malloc|MemAlloc|Free|MemCreate|MemMap|ModuleLoad|LibraryLoad|GraphInstantiate|StreamCreate")
"""Calls that belong before a steady state, however often they come."""

POLLS = re.compile(r"(Event|Stream)Query")
"""Calls whose number depends on how long something takes, and on nothing else."""

NAMED = 3
"""So many of a kind are named in a flag, those that take longest."""


def irregular(capture: Capture) -> list[dict[str, Any]]:
    """What is not in every iteration equally often, and calls that prepare; those that take longest first.

    Returns:
        For each kernel and each call: ``what`` (``kernel`` or ``call``), ``name``; ``iterations`` that have it, of how
        many (``of``); ``least`` and ``most`` in one of them all; ``ns``, its mean time in an iteration that has it.
    """
    calls, operations = capture.calls, capture.operations
    kernels = operations.kind == KERNEL
    found = [
        *_uneven(capture, "kernel", operations.name[kernels], operations.start[kernels], operations.end[kernels]),
        *_uneven(capture, "call", calls.name, calls.start, calls.end),
    ]
    return sorted(found, key=lambda one: -one["ns"] * one["iterations"])


def flags(found: list[dict[str, Any]]) -> list[str]:
    """What a reader should know of it."""
    lines = []
    for what in ("kernel", "call"):
        uneven = [one for one in found if one["what"] == what and one["least"] != one["most"]]
        if uneven:
            lines.append(f"not the same in every iteration: {_listed(uneven)}")
    if always := [one for one in found if one["least"] == one["most"]]:
        lines.append(f"prepared in every iteration: {_listed(always)}")
    return lines


def _uneven(
    capture: Capture, what: str, name: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]
) -> list[dict[str, Any]]:
    marks, names = capture.marks, capture.names
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
        if what == "call" and (POLLS.search(names[index]) or kind(names[index]) == LAUNCH):  # the kernels say it
            continue
        having = int(np.count_nonzero(each))
        rows.append(
            {
                "what": what,
                "name": short(names[index]) if what == "kernel" else plain(names[index]),
                "iterations": having,
                "of": len(each),
                "least": int(each.min()),
                "most": int(each.max()),
                "ns": float(total[index] / having),
            }
        )
    return rows


def _listed(found: list[dict[str, Any]]) -> str:
    shown = ", ".join(_one(one) for one in found[:NAMED])
    more = len(found) - NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _one(one: dict[str, Any]) -> str:
    often = f"{one['least']} to {one['most']} times an iteration" if one["least"] != one["most"] else ""
    if one["iterations"] < one["of"]:
        often = f"in {one['iterations']} of {one['of']}"
    elif not often:
        often = f"{one['most']} an iteration"
    return f"{one['what']} `{one['name']}` {often} ({one['ns'] / 1e3:.3g} µs)"
