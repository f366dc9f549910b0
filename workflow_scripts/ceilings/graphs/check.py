"""The parity record of one graph: ONNX Runtime's CPU provider against FP32 PyTorch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ceilings.graphs import graph, sensitivity
from ceilings.graphs.parity import compare
from ceilings.models import reference as references
from ceilings.provenance import provenance

QUANTIZED = ("int8", "fp8")


def check(
    path: Path | str,
    *,
    precision: str,
    inputs: Path | str,
    reference: Path | str,
    base: Path | str | None,
    threads: int,
) -> dict[str, Any]:
    """Run a graph on the reference's inputs.

    Args:
        path: The graph.
        precision: As the study names it.
        inputs, reference: The ring and the logits of its first elements.
        base: The FP32 graph that a quantised one was made from; layers are measured if it is given.
        threads: CPU threads.

    Returns:
        The record; ``status`` is ``unavailable`` where ONNX Runtime has no CPU kernel for a type or operator.

    Raises:
        UserError: Files that are damaged or do not belong together.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    model = graph.load(path)
    expected, feeds = references.load_for(reference, inputs)
    sources = {"graph": path, "inputs": inputs, "reference": reference} | ({"base": base} if base else {})
    record: dict[str, Any] = {
        "schema_version": 1,
        "precision": precision,
        "status": "ok",
        "reason": None,
        "optimized": True,
        "layers": [],
    }
    try:
        try:
            session = graph.session(path, threads)
        except (state.InvalidGraph, state.Fail):
            # Its optimiser takes FP8 for int8 and breaks its own graph; as written the graph is fine.
            session = graph.session(path, threads, optimize=False)
            record["optimized"] = False
        elements = [dict(zip(feeds, arrays, strict=True)) for arrays in zip(*feeds.values(), strict=True)]
        logits = np.stack([session.run([graph.OUTPUT], element)[0] for element in elements])
        record |= compare(logits, expected.logits).to_json()
        if base is not None and precision in QUANTIZED:
            found = sensitivity.layers(model, graph.load(base), elements[0], threads, bool(record["optimized"]))
            record["layers"] = [dataclasses.asdict(layer) for layer in found]
    except (state.NotImplemented, state.InvalidGraph, state.Fail) as error:
        record |= {
            "status": "unavailable",
            "reason": f"ONNX Runtime cannot run this graph on a CPU: {graph.first_line(error)}",
        }
    return {**record, "provenance": provenance(graph.PACKAGES, sources)}
