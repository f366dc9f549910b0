"""What a cell's latency is bound by, from the shares of its iteration, by stated thresholds."""

from __future__ import annotations

from collections.abc import Mapping

MAJORITY = 0.5
"""A share of the iteration from which on it alone gives the verdict."""

NAMES = {
    "kernel": "kernel-bound",
    "launch": "launch-bound",
    "host": "host-bound",
    "transfer": "transfer-bound",
    "sync": "sync-bound",
}
"""Verdict of each share. Where none reaches the majority, the verdict is MIXED."""

MIXED = "mixed"

MEANINGS = {
    "kernel-bound": "the device computes, or works off what is queued",
    "launch-bound": "the device waits for the next launch of a row of launches",
    "host-bound": "the device waits for code that launches nothing yet, or nothing more",
    "transfer-bound": "copies between host and device take the time",
    "sync-bound": "everything is done and the host has not noticed yet",
    MIXED: "no single cause takes half of the iteration",
}


def verdict(shares: Mapping[str, float]) -> str:
    """The verdict.

    Args:
        shares: Part of the iteration (0 to 1) by each of ``budget.SHARES``.
    """
    largest = max(shares, key=lambda share: shares[share])
    return NAMES[largest] if shares[largest] >= MAJORITY else MIXED
