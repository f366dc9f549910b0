"""Throughput with requests queued."""

from __future__ import annotations

from typing import Any

from ceilings.measure.bench import Bench


def measure(bench: Bench) -> dict[str, Any]:
    """The series ``throughput``."""
    return {"throughput": bench.saturated()}
