"""Latency with inputs and outputs on the device, each inference waiting for the one before."""

from __future__ import annotations

from typing import Any

from ceilings.measure.bench import Bench


def measure(bench: Bench) -> dict[str, Any]:
    """The series ``latency``, under the whole protocol."""
    return {"latency": bench.closed_loop(main=True)}
