"""Latency end to end: copies in, inference, copies out, with pinned and with pageable host memory."""

from __future__ import annotations

from typing import Any

from ceilings.measure.cuda_bench import CudaBench
from ceilings.measure.transfers import end_to_end, host_element, verify_transfers


def measure(bench: CudaBench) -> dict[str, Any]:
    """The series ``latency_end_to_end`` (pinned) and ``latency_end_to_end_pageable``, with the bytes of each copy.

    Where a launch itself copies, from and to pageable memory, the first cannot be had.

    Raises:
        RuntimeError: The timed copies are not those of the inference.
    """
    if bench.runner.transfers_inside:
        return {"latency_end_to_end_pageable": bench.closed_loop()}
    series = {}
    for name, pinned in (("latency_end_to_end", True), ("latency_end_to_end_pageable", False)):
        pairs = zip(bench.elements, bench.slots, strict=True)
        elements = [host_element(bench.runner, inputs, slot, pinned) for inputs, slot in pairs]
        series[name] = bench.closed_loop(end_to_end(bench.runner), items=elements)
        verify_transfers(bench.runner, elements[0])
        series[name]["copies"] = {
            "h2d": [size for _, _, size in elements[0].copies],
            "d2h": [size for _, size in elements[0].room],
        }
    return series
