"""An explanation by its schema, from a capture of this project: what the account of a trace would say of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from unit import planted_records

from ceilings import files
from ceilings.taxonomy import KERNEL_CLASSES, RECORDING_SHARES
from ceilings.traces.budget_record import budget_record
from ceilings.traces.store import read

DATA = Path(__file__).parents[1] / "traces/data"
EAGER = DATA / "torch-cuda-eager.nsys.sqlite"
GRAPH = DATA / "onnxruntime-cuda-graph.nsys.sqlite"
NONE = {"median": 0.0, "low": None, "high": None}


def explanation(path: Path = EAGER, name: str = "eager") -> dict[str, Any]:
    """The content of a record of kind ``explanation``; calls, what-ifs and levers are planted."""
    capture = read(path)
    budget = budget_record(capture)
    lengths = [int(end - start) for start, end in zip(capture.marks.start, capture.marks.end, strict=True)]
    operations = capture.operations
    span = int(operations.end.max() - operations.start.min())
    return {
        "name": name,
        "source": {
            "format": "ceilings",
            "tool": "Nsight Systems 2024.2.3",
            "bytes": path.stat().st_size,
            "sha256": files.sha256(path),
            "counts": {"calls": len(capture.calls.start), "operations": len(operations.start)},
            "lacks": ["It holds no event dependencies between streams."],
        },
        "health": [
            {"level": "note", "text": "Dependencies between streams are inferred."},
            {"level": "warning", "text": "The recorder lost 3 events."},
        ],
        "span_ns": span,
        "devices": [
            {
                **{"device": 0, "name": "NVIDIA H200", "processes": 1, "streams": 1, "kernels": len(operations.start)},
                **{"copies": 0, "fills": 0, "graphs": 0, "busy_ns": span // 2, "span_ns": span},
            }
        ],
        "iterations": {
            **{"by": "range", "name": "iteration", "count": len(lengths), "certainty": 1.0},
            "why": "Ranges of this project mark them. Certainty 100%. Each lasts as long as its range.",
            **{"inside_ns": sum(lengths), "between_ns": span - sum(lengths) if span > sum(lengths) else 0},
            "others": [{"by": "period", "name": None, "count": len(lengths)}],
        },
        "groups": [_group(budget, lengths)],
        "provenance": planted_records.PROVENANCE,
    }


def _group(budget: dict[str, Any], lengths: list[int]) -> dict[str, Any]:
    length, timeline = budget["iteration_ns"]["median"], budget["timeline"]
    device = budget["device_ns"]
    threads = {"calls": [[*call, 0, index % 2 == 0] for index, call in enumerate(timeline["calls"])]}
    streams = sorted({operation[3] for operation in timeline["operations"]})
    threads["operations"] = [
        [*operation[:3], streams.index(operation[3]), operation[4], index % 2 == 0]
        for index, operation in enumerate(timeline["operations"])
    ]
    middle = timeline["length"] // 3
    path = {"path": [[0, middle, "host: aten::linear"], [middle, timeline["length"], "kernel: gemm"]]}
    names = {"threads": ["thread 1"], "streams": [f"device 0, stream {stream}" for stream in streams]}
    return {
        "label": "all iterations",
        "count": len(lengths),
        "share": 1.0,
        "length_ns": {**budget["iteration_ns"], "least": min(lengths), "most": max(lengths)},
        "verdict": budget["verdict"],
        "shares": dict.fromkeys(RECORDING_SHARES, 0.0) | budget["shares"],
        "path": [
            {"part": f"{name}: all", "ns": share * length, "share": share} for name, share in budget["shares"].items()
        ],
        "host": [{"thread": "thread 1", "parts": budget["host_ns"], "launches": 1.0}],
        "devices": [
            {
                "device": 0,
                "busy_ns": device["busy"],
                "classes": dict.fromkeys(KERNEL_CLASSES, NONE) | device["classes"],
                "idle": device["idle"],
                "idle_unexplained_ns": {**NONE, "median": device["idle_unexplained"]["median"]},
                **dict.fromkeys(("overlap_ns", "hidden_transfer_ns", "hidden_communication_ns"), NONE),
            }
        ],
        "parts": [
            {"part": "work that outlives the iteration", "ns": 1200.0, "share": 1200 / length},
            {"part": "framework: aten::mm", "ns": 900.0, "share": 900 / length},
        ],
        "residual_ns": budget["residual_ns"],
        "counts": budget["counts"],
        "kernels": [{**kernel, "path_ns": kernel["ns"] / 2} for kernel in budget["kernels"]],
        "calls": [
            {"name": "cudaLaunchKernel", "kind": "launch", "count": 90.0, "ns": 0.3 * length, "path_ns": 0.2 * length},
            {"name": "cudaStreamSynchronize", "kind": "sync", "count": 1.0, "ns": 9000.0, "path_ns": None},
        ],
        "layers": [],
        "what_if": [
            {"change": "host", "ns": 0.4 * length, "gain": 0.6, "why_not": None},
            {"change": "graph", "ns": 0.45 * length, "gain": 0.55, "why_not": None},
            {"change": "copies", "ns": length, "gain": 0.0, "why_not": None},
            {"change": "kernels", "ns": None, "gain": None, "why_not": "the replay at recorded speed is 4% too long"},
        ],
        "levers": [
            {"lever": "capture a CUDA graph", "why": "90 launches take 61% of the path", "gain": 0.55},
            {"lever": "fuse small kernels", "why": "kernels last 3.2 µs on average", "gain": None},
        ],
        "lengths_ns": [float(one) for one in lengths],
        "timeline": {"iteration": timeline["iteration"], "length": timeline["length"], **threads, **names, **path},
    }


def profile_only(name: str = "trtexec") -> dict[str, Any]:
    """An explanation of what one program says of itself: layers and lengths, and nothing of a host or a device."""
    content = copy.deepcopy(explanation(name=name))
    content["source"] |= {
        "format": "trtexec-profile",
        "tool": None,
        "lacks": ["It has no host.", "It has no kernels.", "It has no single iterations."],
    }
    content["devices"], content["health"] = [], []
    group = content["groups"][0]
    group |= {"verdict": None, "shares": None, "residual_ns": None, "timeline": None, "lengths_ns": [], "counts": {}}
    group |= {key: [] for key in ("path", "host", "devices", "parts", "kernels", "calls", "what_if", "levers")}
    group["layers"] = [{"name": "/encoder/MatMul", "kind": "gemm", "count": 1.0, "ns": 9000.0}]
    return content
