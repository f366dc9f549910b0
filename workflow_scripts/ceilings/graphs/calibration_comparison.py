"""Calibration methods side by side: the same products quantised with each one's ranges, each against FP32."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings.errors import CellFailure
from ceilings.graphs import calibration, check, graph, quantize
from ceilings.provenance import provenance

MEASURES = ("status", "reason", "finite", "max_abs", "max_rel", "relative_l2", "cosine", "top1_agreement", "layers")


def compare(
    base: Path,
    calibrations: Mapping[str, Path],
    settings: quantize.Quantization,
    *,
    workload: Path,
    inputs: Path,
    reference: Path,
    threads: int,
) -> dict[str, Any]:
    """Quantise a graph to int8 by each method and run it on ONNX Runtime's CPU provider.

    Args:
        base: The FP32 graph that was calibrated.
        calibrations: Ranges by method.
        settings: What to keep by name. The most sensitive layers are not looked for: they would differ by method.
        workload: The model's ``workload.json``.
        inputs, reference: The input pool and the FP32 outputs for its first elements.
        threads: CPU threads.

    Returns:
        The record; ``methods`` holds each one's parity and layers, ``best`` the one with the smallest relative L2
        difference.

    Raises:
        UserError: Files that are damaged or do not belong together.
    """
    model = graph.load(base)
    settings = dataclasses.replace(settings, keep_most_sensitive=0)
    methods: dict[str, dict[str, Any]] = {}
    for method, path in calibrations.items():
        try:
            done = quantize.quantize(model, calibration.load(path, base), "int8", settings)
        except CellFailure as failure:
            methods[method] = {**dict.fromkeys(MEASURES), "status": "failed", "reason": str(failure), "layers": []}
            continue
        with graph.stored(done.model) as quantized:
            found = check.check(
                quantized,
                precision="int8",
                workload=workload,
                inputs=inputs,
                reference=reference,
                base=base,
                threads=threads,
            )
        methods[method] = {name: found.get(name) for name in MEASURES}
    measured = {name: each["relative_l2"] for name, each in methods.items() if each["status"] == "ok"}
    sources = {"base": base, "inputs": inputs, "reference": reference, **calibrations}
    return {
        "status": "ok",
        "precision": "int8",
        "keep": settings.keep,
        "methods": methods,
        "best": min(measured, key=lambda name: measured[name], default=None),
        "provenance": provenance(graph.PACKAGES, sources),
    }
