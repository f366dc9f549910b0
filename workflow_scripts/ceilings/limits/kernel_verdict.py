"""What limits a kernel, from its hardware counters, by stated thresholds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

BUSY = 0.6
"""Use of a unit, from which on it limits the kernel. Below it in all units NVIDIA's own rules speak of latency."""

CLOSE = 0.1
"""Memory and arithmetic that are both busy, and closer together than this, leave open which one limits."""

FILLED = 0.8
"""A kernel whose blocks fill less of its waves leaves multiprocessors without work for that reason alone."""

OCCUPIED = 0.5
"""Resources that leave room for fewer warps than this part of them limit what can hide latency."""

ELIGIBLE = 1.0
"""Warps that could issue, a scheduler and cycle. Below one, schedulers wait."""

MEMORY = {"dram": "DRAM", "l2": "the L2 cache", "l1": "the path of L1 and shared memory"}
ARITHMETIC = {
    "tensor": "the tensor cores",
    "fma": "the FMA pipes",
    "alu": "the ALU pipes",
    "fp64": "the FP64 pipes",
    "xu": "the pipes of exponentials and conversions",
    "issue": "the issue of instructions",
}


@dataclasses.dataclass(frozen=True)
class Use:
    """How a kernel uses the device; None where a counter is missing.

    Attributes:
        shares: Part of its most (0 to 1) of each of ``MEMORY`` and ``ARITHMETIC``.
        waves: How many times its blocks fill all places on the multiprocessors.
        theoretical: Part of the warps that its resources leave room for.
        limiters: What leaves no room for more.
        eligible: Warps that could issue, a scheduler and cycle.
        stall: What its warps wait for most, and the part of their time that this takes.
    """

    shares: Mapping[str, float | None]
    waves: float | None
    theoretical: float | None
    limiters: tuple[str, ...]
    eligible: float | None
    stall: tuple[str, float] | None


def verdict(use: Use) -> tuple[str, str]:
    """What limits a kernel, one of ``taxonomy.KERNEL_VERDICTS``, and why: the number that decides."""
    memory, arithmetic = (_busiest(use.shares, names) for names in (MEMORY, ARITHMETIC))
    if memory is None or arithmetic is None:
        lacking = sorted(name for name in (*MEMORY, *ARITHMETIC) if use.shares.get(name) is None)
        return "undecided", f"no counter of {', '.join(lacking)}"
    (level, moved), (unit, computed) = memory, arithmetic
    if max(moved, computed) >= BUSY:
        if min(moved, computed) >= BUSY and abs(moved - computed) < CLOSE:
            return "undecided", f"{MEMORY[level]} at {moved:.0%} and {ARITHMETIC[unit]} at {computed:.0%}"
        if moved > computed:
            return "memory-limited", f"{MEMORY[level]} at {moved:.0%}"
        return "compute-limited", f"{ARITHMETIC[unit]} at {computed:.0%}"
    return _idle(use)


def filled(waves: float) -> float:
    """Part of the places in its waves that a kernel's blocks fill.

    >>> filled(0.5), filled(1.25), filled(2.0)
    (0.5, 0.625, 1.0)
    """
    return waves / math.ceil(waves) if waves > 0 else 0.0


def _idle(use: Use) -> tuple[str, str]:
    """Of a kernel that keeps no unit busy."""
    if use.waves is None or use.theoretical is None or use.eligible is None:
        return "undecided", "no unit is busy, and a counter of waves, occupancy or warps is missing"
    if filled(use.waves) < FILLED:
        return "wave-limited", f"its blocks fill {filled(use.waves):.0%} of {_waves(use.waves)}"
    if use.eligible >= ELIGIBLE:
        return "undecided", f"no unit is busy, and {use.eligible:.2g} warps a scheduler could issue"
    if use.theoretical <= OCCUPIED:
        by = f" ({', '.join(use.limiters)})" if use.limiters else ""
        return "occupancy-limited", f"room for {use.theoretical:.0%} of the warps{by}"
    if use.stall is None:
        return "latency-limited", f"{use.eligible:.2g} warps a scheduler could issue"
    return "latency-limited", f"{use.stall[1]:.0%} of the warps' time waits for {use.stall[0]}"


def _waves(waves: float) -> str:
    """
    >>> _waves(0.3), _waves(1.3)
    ('one wave', '2 waves')
    """
    count = math.ceil(waves)
    return "one wave" if count <= 1 else f"{count} waves"


def _busiest(shares: Mapping[str, float | None], names: Mapping[str, str]) -> tuple[str, float] | None:
    """The one that is used most; None where one is missing and no other is busy."""
    known = {name: share for name in names if (share := shares.get(name)) is not None}
    most = max(known.items(), key=lambda item: item[1], default=None)
    if most is None or (len(known) < len(names) and most[1] < BUSY):
        return None
    return most
