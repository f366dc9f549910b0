"""What shapes cost in one process: steady alone, at their first appearance, and when they come back. Pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ceilings.statistics.shape_tax import Round

NS_PER_MS = 1e6


def rounds_of(record: Any) -> list[Round]:
    """The passes of a measured record with their references, in ms."""
    steady = [[(np.asarray(values, float) / NS_PER_MS).tolist() for values in each] for each in record["steady_ns"]]
    order = record["requests"]["order"]
    return [
        Round(
            order,
            (np.asarray(latencies, float) / NS_PER_MS).tolist(),
            dict(enumerate(before)),
            dict(enumerate(after)),
        )
        for latencies, before, after in zip(record["sequence_ns"], steady, steady[1:], strict=False)
    ]


def steady_ms(record: Any) -> list[float]:
    """Mean steady latency of each shape over all references."""
    return [
        float(np.mean([np.mean(each[shape]) for each in record["steady_ns"]])) / NS_PER_MS
        for shape in range(len(record["requests"]["shapes"]))
    ]


def steady_median_ms(record: Any) -> list[float]:
    """Median steady latency of each shape over all references: what a median of few requests is held against."""
    return [
        float(np.median(np.concatenate([each[shape] for each in record["steady_ns"]]))) / NS_PER_MS
        for shape in range(len(record["requests"]["shapes"]))
    ]


def first_ms(record: Any) -> list[float]:
    """Latency of each shape's first appearance; of the first shape also what the process does once."""
    first: dict[int, float] = {}
    for shape, latency in zip(record["requests"]["order"], record["cold"]["latency_ns"], strict=True):
        first.setdefault(shape, latency / NS_PER_MS)
    return [first[shape] for shape in sorted(first)]


def return_ms(record: Any) -> list[float]:
    """Median latency of each shape's return after another one; of a sequence of one shape nothing returns."""
    returns: list[float] = (np.median(np.asarray(record["return_ns"], float), axis=0) / NS_PER_MS).tolist()
    return returns


def growth_bytes(record: Any) -> list[int]:
    """Memory that each shape's first appearance added: of the device where it has its own, else resident on the host.

    The first shape's is without meaning: what the process allocates once is in it.
    """
    used: Sequence[int] = record["cold"]["device_bytes"] or record["cold"]["rss_bytes"]
    return [max(0, after - before) for before, after in itertools.pairwise(used)]
