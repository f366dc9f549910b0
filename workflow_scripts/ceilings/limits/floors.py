"""The record of a floor: counts, limits and the times that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from ceilings.errors import CellFailure, UserError
from ceilings.graphs import graph as graphs
from ceilings.graphs import operations
from ceilings.limits.roofline import Roofline, missing, read_limits
from ceilings.provenance import provenance
from ceilings.workload import generation
from ceilings.workload.shape import Shape

PACKAGES = ("onnx", "numpy")


def bound(
    graph: onnx.ModelProto | Path | str,
    peaks: Mapping[str, Any],
    cell: Mapping[str, Any],
    sources: Mapping[str, Path | str],
) -> dict[str, Any]:
    """Count a graph at a shape and bound its latency on a device.

    Args:
        graph: The unfused graph in the cell's precision, or its path.
        peaks: Content of the device's ``peaks.json``.
        cell: ``model``, ``precision``, ``graph`` and ``shape`` (its name); what else it holds is recorded. Of a shape
            that generates, one iteration is bounded: a decode step or a prefill of the graph of a forward pass.
        sources: The files that graph and peaks came from.

    Returns:
        ``status`` is ``ok``, or ``unavailable`` with a ``reason``: a limit that could not be measured, or a graph that
        could not be made or cannot be counted.

    Raises:
        UserError: ``peaks`` is no record of measured limits.
    """
    if lacking := {"device", "peaks", "l2_bytes"} - peaks.keys():
        raise UserError(f"{sources['peaks']} holds no measured limits (no {', '.join(sorted(lacking))}); measure them")
    shape, passed = _counted(Shape.parse(cell["shape"]))
    head = {"device": peaks["device"], **cell, **passed}
    tail = {"provenance": provenance(PACKAGES, sources)}
    try:
        model = graph if isinstance(graph, onnx.ModelProto) else graphs.load(graph)
    except CellFailure as failure:
        return {**head, "status": "unavailable", "reason": str(failure), **tail}
    try:
        work = operations.count(model, shape)
    except UserError as error:
        return {**head, "status": "unavailable", "reason": str(error), **tail}
    limits = read_limits(peaks)
    roofline = Roofline(work, limits, cell["precision"])
    record = {
        **head,
        "work": {
            "flops": work.flops,
            "flops_by_precision": work.flops_by_precision(),
            "bytes": work.bytes,
            "weight_bytes": work.weight_bytes,
            "boundary_bytes": work.boundary_bytes,
            **({"cache_bytes": work.cache_bytes} if passed else {}),
            "unknown_operators": dict(work.unknown),
            "products": [
                dataclasses.asdict(product) | {"class": kind, "nodes": nodes}
                for product, kind, nodes in operations.products(work)
            ],
        },
        "limits": {
            "flops_per_s": {kind: limits.rate(kind) for kind in roofline.precisions},
            "dram_bytes_per_s": limits.dram,
            "l2_bytes_per_s": limits.l2,
            "l2_bytes": limits.l2_bytes,
            "graph_launch_s": limits.launch,
            "flags": peaks.get("flags", []),
        },
    }
    if unmeasured := missing(limits, roofline.precisions):
        record |= {"status": "unavailable", "reason": f"not measured on {peaks['device']}: {', '.join(unmeasured)}"}
    else:
        record |= {
            "status": "ok",
            "floor": roofline.floor(),
            "classes": roofline.classes(),
            "library_products": roofline.library(),
        }
    return record | tail


def _counted(shape: Shape) -> tuple[Shape, dict[str, Any]]:
    """Sizes of what one iteration of a shape runs, and what the record says of it where it generates.

    ``context``: tokens of a row whose keys and values the forward pass reads or writes.
    """
    if not generation.is_request(shape):
        return shape, {}
    step = generation.step_shape(shape)
    return step, {"phase": generation.phase(shape), "context": step["present"]}


def sentence(record: Mapping[str, Any]) -> str:
    """One line for the log."""
    if record["status"] != "ok":
        return f"no floor, {record['reason']}"
    floor, work = record["floor"], record["work"]
    unknown = ", ".join(f"{count} {name}" for name, count in work["unknown_operators"].items())
    part = {"decode": " a decode step", "prefill": " a prefill"}.get(record.get("phase", ""), "")
    return (
        f"at least {floor['floor_ms']:.3g} ms{part}, set by {floor['limited_by']} "
        f"({work['flops'] / 1e9:.3g} GFLOP, {work['bytes'] / 1e6:.3g} MB)"
        + (f"; not counted: {unknown}" if unknown else "")
    )
