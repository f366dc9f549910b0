"""A barrier of all programs of a launch, which must all be resident: a cooperative launch grants that or fails.

Each program counts itself in, and waits until as many have come as programs exist. The counter only grows, by as many
as there are programs at each barrier, so it needs no reset between launches or replays of a graph; 64 bits last.

A program that has waited too long goes on, and waits at no later barrier. So a fault ends the launch with a wrong
answer, which the kernel marks, and never blocks the card.
"""

from __future__ import annotations

import triton
import triton.language as tl

PATIENCE = 1 << 20
"""Looks at the counter before a program gives up: about a second, where a barrier takes some microseconds."""


@triton.jit
def arrive(counter: tl.tensor, PROGRAMS: tl.constexpr) -> tl.tensor:
    """Counts this program in; what it wrote is then seen by all that wait. Returns the count to wait for."""
    tl.debug_barrier()  # all threads have written
    return (tl.atomic_add(counter, 1, sem="release", scope="gpu") // PROGRAMS + 1) * PROGRAMS


@triton.jit
def await_all(counter: tl.tensor, count: tl.tensor, patience: tl.tensor) -> tl.tensor:
    """Waits until all have counted themselves in; returns the patience that is left for later barriers, or zero."""
    left = patience
    while (tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < count) & (left > 0):
        left -= 1
    tl.debug_barrier()  # what others wrote is seen by all threads
    return tl.where(left > 0, patience, 0)
