"""What a cell's latency is bound by, from the shares of its critical path, by stated thresholds."""

from __future__ import annotations

from collections.abc import Mapping

MAJORITY = 0.5
"""A share of the critical path from which on it gives the verdict."""

NAMES = {
    "kernel": "kernel-bound",
    "launch": "launch-bound",
    "host": "host-bound",
    "transfer": "transfer-bound",
    "sync": "sync-bound",
    "communication": "communication-bound",
    "stalled": "stall-bound",
}
"""Verdict of each share. Where none reaches the majority, the verdict is MIXED."""

MIXED = "mixed"
UNEXPLAINED = "unexplained"
"""Of a latency whose capture, recorded or replayed, is longer or shorter: its path is another one's."""

MEANINGS = {
    "kernel-bound": "the host waits for work that the device has",
    "launch-bound": "the host launches one thing after the other, and the device keeps up",
    "host-bound": "the host is in code that launches nothing yet, or nothing more, and the device keeps up",
    "transfer-bound": "copies between host and device take the time",
    "sync-bound": "everything is done and the host has not noticed yet",
    "communication-bound": "devices exchange data, or wait for one another to do so",
    "stall-bound": "work is launched, the device is free as far as the recording shows, and the work does not start",
    MIXED: "no single cause takes half of the critical path",
}


ORCHESTRATION = ("launch", "host")
"""Both are the host's work: together they make a majority too, and the larger one gives it its name."""


def verdict(shares: Mapping[str, float]) -> str:
    """The verdict.

    Args:
        shares: Part of the critical path (0 to 1) by each of ``PATH_SHARES``.
    """
    sides = {share: value for share, value in shares.items() if share not in ORCHESTRATION}
    largest = max(ORCHESTRATION, key=lambda share: shares.get(share, 0))
    sides[largest] = sum(shares.get(share, 0) for share in ORCHESTRATION)
    first = max(sides, key=lambda share: sides[share])
    return NAMES[first] if sides[first] >= MAJORITY else MIXED
