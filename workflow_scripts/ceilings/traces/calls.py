"""What a CUDA call does to the thread that makes it, by its name in a capture."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ceilings.traces.capture import Calls

LAUNCH, COPY, SYNC, OTHER = range(4)
"""Kinds of calls: starts kernels; copies or fills memory; waits for the device; anything else."""

KINDS = ("launch", "copy", "sync", "other")

_PATTERNS = (
    (SYNC, re.compile(r"Synchronize|WaitExternal|(Event|Stream)Query")),
    (LAUNCH, re.compile(r"Launch(?!HostFunc)")),
    (COPY, re.compile(r"Mem(cpy|set)|cuMemPrefetch|cudaMemPrefetch")),
)
_STARTS_KERNELS = re.compile(r"LaunchKernel|LaunchCooperative|GraphLaunch|^cuLaunch$|^cudaLaunch$")
_BEGINS_GRAPH, _ENDS_GRAPH = re.compile(r"StreamBeginCapture"), re.compile(r"StreamEndCapture")
_SUFFIX = re.compile(r"(_ptsz|_ptds)?(_v\d+)?(_ptsz|_ptds)?$")


def plain(name: str) -> str:
    """A call's name without the version that CUPTI appends.

    >>> plain("cudaLaunchKernelExC_ptsz_v11060"), plain("cuMemcpyHtoDAsync_v2")
    ('cudaLaunchKernelExC', 'cuMemcpyHtoDAsync')
    """
    return _SUFFIX.sub("", name)


def kind(name: str) -> int:
    """Kind of a call."""
    return next((number for number, pattern in _PATTERNS if pattern.search(name)), OTHER)


def starts_kernels(name: str) -> bool:
    """Whether an operation on the device must follow from each call of this name."""
    return bool(_STARTS_KERNELS.search(plain(name)))


def launches_graph(name: str) -> bool:
    """Whether the call starts a whole CUDA graph."""
    return "GraphLaunch" in name


def served(calls: Calls, names: Sequence[str], answered: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which calls an operation on the device must follow.

    A call that failed started nothing. One that a thread made while it recorded a CUDA graph became a node of it, and
    runs with each launch of the graph.

    Args:
        calls: By start.
        names: Of a capture; ``calls.name`` are indices into it.
        answered: Of each call, whether an operation follows it.
    """
    starts = _of_names(calls, names, starts_kernels) & ~calls.failed
    begins = _of_names(calls, names, lambda name: bool(_BEGINS_GRAPH.search(name))) & ~calls.failed
    if not begins.any():
        return starts
    ends = _of_names(calls, names, lambda name: bool(_ENDS_GRAPH.search(name)))
    for thread in np.unique(calls.thread[begins]):
        made = np.flatnonzero(calls.thread == thread)
        for first, last in _graphs(begins[made], ends[made], answered[made]):
            starts[made[first:last]] = False
    return starts


def _graphs(
    begins: NDArray[np.bool_], ends: NDArray[np.bool_], answered: NDArray[np.bool_]
) -> Iterator[tuple[int, int]]:
    """From where to where a thread recorded graphs, by its calls.

    An end without its begin belongs to a graph from before. A begin without its end lasts until a call has work on the
    device: by then the graph was done, and its end is among the records that were lost.
    """
    unended = []
    for place in np.flatnonzero(begins | ends).tolist():
        if begins[place]:
            unended.append(place)
        elif unended:
            yield unended.pop(), place
    for place in unended:
        ran = np.flatnonzero(answered[place:])
        yield place, place + int(ran[0]) if len(ran) else len(answered)


def _of_names(calls: Calls, names: Sequence[str], test: Callable[[str], bool]) -> NDArray[np.bool_]:
    """What holds of each call's name; of a call without one nothing does."""
    result: NDArray[np.bool_] = np.array([*map(test, names), False], bool)[calls.name]
    return result
