"""The parity record of one graph: ONNX Runtime's CPU provider against the FP32 reference."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ceilings import isolation
from ceilings.errors import CellFailure
from ceilings.graphs import decoding, examples, graph, sensitivity, token_parity
from ceilings.graphs.parity import compare
from ceilings.models import reference as references
from ceilings.provenance import provenance
from ceilings.workload.workload import Workload

QUANTIZED = ("int8", "fp8")


def check(
    path: Path | str,
    *,
    precision: str,
    workload: Path | str,
    inputs: Path | str,
    reference: Path | str,
    base: Path | str | None,
    threads: int,
) -> dict[str, Any]:
    """Run a graph on the reference's inputs.

    Args:
        path: The graph.
        precision: As the study names it.
        workload: The model's ``workload.json``.
        inputs, reference: The input pool and the outputs for its first elements.
        base: The FP32 graph that a quantised one was made from; layers are measured if it is given.
        threads: CPU threads.

    Returns:
        The record. ``status`` is ``unavailable`` where ONNX Runtime has no CPU kernel for a type or operator, and
        ``failed`` where the graph could not be made, or where its outputs cannot be compared: a NaN, an infinity,
        another shape, or a reference of zeros; ``reason`` says which.

    Raises:
        UserError: Files that are damaged or do not belong together.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    record = _blank(precision)
    sources = {"graph": path, "inputs": inputs, "reference": reference} | ({"base": base} if base else {})
    try:
        model = graph.load(path)
        given = Workload.read(workload)
        expected, pool = references.load_for(reference, inputs)
        if given.decoder is not None:
            record |= _requests(path, Path(workload).parent, pool, expected, precision=precision, threads=threads)
            return {**record, "provenance": provenance(graph.PACKAGES, sources)}
        elements = [dict(zip(pool, arrays, strict=True)) for arrays in zip(*pool.values(), strict=True)]
        outputs, record["optimized"] = _outputs(model, path, elements, threads)
        record |= _compare(outputs, expected, given, pool)
        if base is not None and precision in QUANTIZED:
            feed = examples.feed(model, elements[0])
            found = sensitivity.layers(model, graph.load(base), feed, threads, bool(record["optimized"]))
            record["layers"] = [dataclasses.asdict(layer) for layer in found]
    except CellFailure as failure:
        record |= {"status": "failed", "reason": f"{failure.kind}: {failure}"}
    except (state.NotImplemented, state.InvalidGraph, state.Fail, state.RuntimeException) as error:
        record |= {
            "status": "unavailable",
            "reason": f"ONNX Runtime cannot run this graph on a CPU: {graph.first_line(error)}",
        }
    return {**record, "provenance": provenance(graph.PACKAGES, sources)}


def crashed(precision: str) -> dict[str, Any]:
    """The record where ONNX Runtime crashes on a graph."""
    reason = f"ONNX Runtime cannot run this graph on a CPU: its process was {isolation.CRASH}"
    return _blank(precision) | {"status": "unavailable", "reason": reason, "provenance": None}


def _blank(precision: str) -> dict[str, Any]:
    return {
        "precision": precision,
        "status": "ok",
        "reason": None,
        "optimized": True,
        "layers": [],
    }


def _requests(
    path: Path | str,
    weights: Path,
    pool: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    *,
    precision: str,
    threads: int,
) -> dict[str, Any]:
    """The measures of parity of what a decoder's graph generates, and why they are no good where they are not.

    What is not the reference's text is read by the model of the folder ``weights``.
    """
    decoder = Workload.read(weights).decoder
    assert decoder is not None
    session = graph.session(path, threads)
    outputs = decoding.answers(session, decoder, pool["input_ids"], expected["tokens"].shape[-1])
    try:
        measures = token_parity.compare(outputs, expected, precision)
    except ValueError as error:
        return {"status": "failed", "reason": str(error)}
    if measures["problem"]:
        return measures | {"status": "failed", "reason": measures["problem"]}
    texts, places = token_parity.other_texts([outputs["tokens"]], expected["tokens"])
    gaps = np.zeros(texts.shape)
    if len(texts):
        # By name: PyTorch is needed of models that generate alone.
        reference = importlib.import_module("ceilings.models.token_reference")
        gaps = reference.gaps(weights, pool["input_ids"][tuple(places.T)], texts, threads)
    return token_parity.scored(measures, token_parity.reading(gaps))


def _outputs(
    model: onnx.ModelProto, path: Path | str, elements: list[dict[str, np.ndarray]], threads: int
) -> tuple[dict[str, np.ndarray], bool]:
    """Outputs (elements, *dims) by name, and whether ONNX Runtime optimised the graph."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    optimized = True
    try:
        session = graph.session(path, threads)
    except (state.InvalidGraph, state.Fail):
        # Its optimiser takes FP8 for int8 and breaks its own graph; as written the graph is fine.
        session = graph.session(path, threads, optimize=False)
        optimized = False
    names = [value.name for value in model.graph.output]
    runs = [session.run(names, examples.feed(model, element)) for element in elements]
    return {name: np.stack(arrays) for name, arrays in zip(names, zip(*runs, strict=True), strict=True)}, optimized


def _compare(
    outputs: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    workload: Workload,
    pool: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """The measures of parity, and why they are no good where they are not."""
    mask = pool[workload.mask.name] if workload.mask else None
    dims = workload.mask.dims if workload.mask else ()
    masked = {tensor.name for tensor in workload.outputs if dims and tensor.dims[: len(dims)] == dims}
    try:
        parity = compare(outputs, expected, workload.task.compared, mask, masked)
    except ValueError as error:
        return {"status": "failed", "reason": str(error)}
    measures = parity.to_json()
    if parity.problem:
        return measures | {"status": "failed", "reason": parity.problem}
    return measures
