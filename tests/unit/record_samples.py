"""One whole record of every kind, by its writer or as its writer makes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unit import planted_colocation, planted_overlap, planted_records, planted_searches, planted_shapes
from unit.planted_records import ENGINE, ENGINE_CACHE, PROVENANCE, WEIGHTS
from unit.report import planted_serving, planted_study, test_quality
from unit.traces import counted, planted_changes
from unit.traces import planted as captured
from unit.traces.events import Events
from unit.traces.handmade import Built, Plain

from ceilings import records
from ceilings.limits import lesson_record
from ceilings.limits.counted import judged
from ceilings.limits.lessons import lessons
from ceilings.limits.roofline import read_limits
from ceilings.traces.budget_record import budget_record
from ceilings.traces.explained.explanation import explanation

PEAKS = Path(__file__).parents[2] / "docs/studies/nvidia-h200/peaks.json"
NOISE = {"node": "layer.0", "sqnr_db": 30.5, "accumulated_sqnr_db": 28.0}
DISTANCE = {"finite": True, "max_abs": 0.1, "max_rel": 0.2, "relative_l2": 0.01, "cosine": 0.99, "top1_agreement": 1.0}
PLAN = {"graph": "g.onnx", "folder": "f", "timing_cache": "t", "optimization_level": 3, "workspace_mb": None}
FILE = {"bytes": 3, "sha256": "ab" * 32, "modified_ns": 1}
IMAGE = {
    **{"width": 64, "masked": True, "tokens": 1, "queries": 16, "keys": 128, "warps": 4, "stages": 2},
    **{"shared": 9728, "bytes": 50_000},
}
LAYER = {"name": "l", "median_ns": 2.0, "p10_ns": 1.0, "p90_ns": 3.0, "kind": "k", "precision": "fp16", "nodes": ["n"]}
TENSOR = {"name": "ids", "dtype": "int64", "dims": ["batch", 8], "content": "tokens", "low": 0, "high": 99}
DECODER = {"layers": 2, "heads": 4, "kv_heads": 2, "head_size": 16, "vocabulary": 300, "positions": 128}
GPU = {"slug": "x", "name": "X", "uuid": "GPU-1", "driver": "580.1", "capability": [9, 0], "memory_bytes": 1 << 30}
HOST = {
    **{"cpu_slug": "cpu-x", "cpu_name": "X", "cores": 4, "gpu": {**GPU, "multiprocessors": 132, "mig": None}},
    **{"gpu_problem": None, "cpu_quota": None, "int8_saturates": False, "multiplies_bf16": True},
}
FAILURE = {"status": "failed", "failure": {"kind": "damaged", "message": "no weights"}}

CELL = "onnxruntime-cpu/m/fp32/b1-s8"
COUNTED = {
    **{"requests": 2, "failures": 0, "executions": 1, "inferences": 2, "queue_ns": 10, "compute_input_ns": 5},
    **{"compute_infer_ns": 100, "compute_output_ns": 5, "request_ns": 200, "batch_sizes": {"2": 1}},
}
WINDOW = {
    **{"cell": CELL, "kind": "closed", "concurrency": 2, "rate": None, "asked": None, "round": 1},
    **{"began_ns": 10, "ended_ns": 1000, "drained_ns": 1100, "latency_ns": [300, 310], "late_ns": [1, 2]},
    **{"sent": 2, "unsent": 0, "answered": 2, "answered_inside": 2, "failed": {}, "connections": 2, "exhausted": 0},
    **{"client_cores": 0.5, "client_cores_allowed": 1, "server": COUNTED},
}
PARITY = {**DISTANCE, "rows": 2, "spread_l2": None, "row_l2": 0.01, "problem": None, "tolerance": 0.02}

TOOK = {"median": 3.0, "low": 2.5, "high": 3.5}
TRANSFERS: dict[str, Any] = {
    "device": "nvidia-test",
    "curves": {
        "h2d.pinned": {
            **{"method": "cudaMemcpyAsync", "device_method": "events", "rounds": 3},
            "points": [{"bytes": 4, "transfers": 100, "host_us": TOOK, "device_us": None}],
        },
        "managed": {"unavailable": "no managed memory"},
    },
    "allocations": {
        "cuda": {
            **{"method": "cudaMalloc", "rounds": 3},
            "points": [{"bytes": 4, **{f"{name}_us": TOOK for name in ("first", "allocate", "free", "loop", "kept")}}],
        }
    },
    **{"attributes": {"ManagedMemory": 1}, "gpu": GPU, "flags": [], "provenance": PROVENANCE},
}

CONTENTS: dict[str, dict[str, Any]] = {
    "transfers": TRANSFERS,
    "side-by-side": {
        **{"device": "nvidia-test", "verdict": "allowed", "cards": ["GPU-1"], "provenance": PROVENANCE},
        "groups": [
            {
                **{"group": "twins", "cells": [CELL, CELL], "verdict": "allowed", "noise": 0.01, "reason": None},
                "slowdowns": [{"estimate": 1.0, "low": 0.99, "high": 1.01}],
            }
        ],
    },
    "weights": WEIGHTS,
    "engine": ENGINE,
    "engine-cache": {
        **ENGINE_CACHE,
        **{"plan": PLAN, "graph_sha256": "ab" * 32, "files": {"x.engine": FILE}, "versions": {"onnxruntime": "1.31.1"}},
    },
    "operator-library": {
        **{"status": "ok", "compiler": "gcc 12.2", "kernels": ["cpu float32"], "bytes": 9, "sha256": "ab" * 32},
        **{"images": [IMAGE], "provenance": PROVENANCE},
    },
    "layers": {"source": "inspector", "Layers": [{"Name": "l"}], "I/O Tensors": [], "engine_sha256": "ab" * 32},
    "layer-times": {
        **{"device": "x", "precision": "fp16", "shape": "b1", "status": "ok", "failure": None, "iterations": 3},
        **{"layers": [LAYER], "layers_sum_ns": 2.0, "inference_ns": {"plain": 3.0, "profiled": 4.0}, "runtime": {}},
        "provenance": PROVENANCE,
    },
    "calibration": {
        **{"status": "ok", "method": "minmax", "count": 8, "sequence": 16, "percentile": 99.99, "seed": 0},
        **dict.fromkeys(("graph_sha256", "cache_sha256", "inputs_sha256"), "ab" * 32),
        **{"inputs_source": "random", "shape": "b1-s16", "ranges": {"x": {"low": -1.0, "high": 2.0}}},
        "provenance": PROVENANCE,
    },
    "calibration-comparison": {
        **{"status": "ok", "precision": "int8", "keep": [], "best": "minmax", "provenance": PROVENANCE},
        "methods": {"minmax": {"status": "ok", "reason": None, **DISTANCE, "layers": [NOISE]}},
    },
    "workload": {
        **{"task": "text-generation", "inputs": [TENSOR], "outputs": [TENSOR], "family": "causal_lm"},
        **{"architecture": "gpt2", "decoder": DECODER},
    },
    "data": {"status": "ok", "source": "corpus", "available": 9, "rows": 8, "truncated": 1, "seed": 0},
    "pool": FAILURE,
    "serving": {
        **{
            "deployment": "http",
            "device": "cpu-x",
            "run": 1,
            "status": "ok",
            "failure": None,
            "log": None,
            "flags": [],
        },
        "server": {"kind": "triton", "version": "2.51.0", "cores": [0], "first_start_ns": {"ready": 9}},
        "client": {"transport": "http", "shared_memory": "none", "round_trip_ms": 0, "cores": [1]},
        **{
            "cells": {CELL: {"parity": PARITY, "warmed": [1, 2]}},
            "windows": [WINDOW],
            "settings": {"server": "triton"},
        },
        **{"protocol": {"rounds": 1, "window_seconds": 2}, "neighbours": {}, "provenance": PROVENANCE},
    },
    "text-verdict": {
        "cell": dict.fromkeys(("device", "runtime", "model", "precision"), "x") | {"shape": "b1-p8-g4"},
        **{"log": None, "status": "ok", "failure": None, "read": 1, "device": "cpu", "seconds": 3.0},
        "runs": {"1": {"digest": "ab" * 32, "texts": 1, "chosen": 0.75, "largest_gap": 0.01}},
        "provenance": PROVENANCE,
    },
    "node": {"node": "h200", "host": HOST},
    "tables": {"files": {"cells.parquet": "ab" * 32}},
    "shape-change": planted_changes.content(),
    "hidden-copies": planted_overlap.account(),
    "overlap": planted_overlap.run(),
}
"""Those of kinds that no planted study has."""


def _planted(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        records.write(folder / f"{kind}.json", kind, CONTENTS[kind])
        return folder / f"{kind}.json"

    return make


def _run(folder: Path) -> Path:
    maker = planted_study.StudyMaker(folder, runs=1)
    return Path(maker.add(planted_study.GPU, "torch-cuda-eager", "fp16", 1, 128, n=30)["runs"][0])


def _floor(folder: Path) -> Path:
    maker = planted_study.StudyMaker(folder, runs=1)
    return maker.bound(maker.add(planted_study.GPU, "torch-cuda-eager", "fp16", 1, 128, n=40), 0.1)


def _quality(folder: Path) -> Path:
    return Path(test_quality.Planted(folder).classified("torch-eager", "fp32", lost=1, count=20)["quality"])


def _changing(folder: Path) -> Path:
    return Path(planted_shapes.write(folder, processes=1)["runs"][0])


def _colocation(folder: Path) -> Path:
    return Path(planted_colocation.write(folder, processes=1, seconds=0.013)["runs"][0])


def _buckets(folder: Path) -> Path:
    return Path(planted_shapes.write(folder, processes=1)["buckets"])


def _best_batch(folder: Path) -> Path:
    return Path(planted_searches.write(folder, most=8)["record"])


def _plan(folder: Path) -> Path:
    maker = planted_study.StudyMaker(folder, runs=1)
    maker.add(planted_study.CPU, "torch-eager", "fp32", 1, 128, n=40)
    return maker.write_plan()


def _serving(folder: Path) -> Path:
    study = planted_serving.ServedStudy(folder, runs=1, n=6)
    return Path(study.deploy("a", closed=(1,), rates=(20.0,))["runs"][0])


def _peaks(folder: Path) -> Path:
    content = json.loads(PEAKS.read_text())
    content["provenance"] = PROVENANCE
    kept = ("read_bandwidth", "launch_enqueue")
    content["peaks"] = {name: content["peaks"][name] for name in kept} | {"memory": {"unavailable": "no NVRTC"}}
    records.write(folder / "peaks.json", "peaks", content)
    return folder / "peaks.json"


def _short(events: Events, begin: float, stretch: float) -> float:
    events.launch(begin + 1, begin + 4, (begin + 5, begin + 5 + 10 * stretch, "layer_norm_kernel"))
    events.call(begin + 6, begin + 20 * stretch, "cudaStreamSynchronize_v3020")
    return begin + 22 * stretch


def _budget(folder: Path) -> Path:
    head = {"status": "ok", "failure": None, "source": "cupti", "tool": "CUPTI", "warmup_p50_ns": 1e6}
    cell = dict.fromkeys(("device", "runtime", "model", "precision"), "x") | {"shape": "b1-s8"}
    made = budget_record(captured.capture(_short, 4))
    records.write(folder / "x.budget.json", "budget", {**head, "cell": cell, **made, "provenance": PROVENANCE})
    return folder / "x.budget.json"


def _explanation(folder: Path) -> Path:
    built = Built()
    for begin in (0.0, 100.0, 200.0):
        built.launch(begin + 5, begin + 9, (begin + 12, begin + 52, "layer_norm_kernel"))
        built.wait(begin + 20, begin + 55)
        built.span(begin + 1, begin + 10, "aten::layer_norm")
    content = explanation(built.recording(), Plain([(0.0, 60.0), (100.0, 160.0), (200.0, 260.0)]))
    source = {**content["source"], "bytes": 3, "sha256": "ab" * 32}
    records.write(
        folder / "x.json", "explanation", {**content, "name": "x", "source": source, "provenance": PROVENANCE}
    )
    return folder / "x.json"


def _counted() -> dict[str, Any]:
    """A cell's counters, without the seal."""
    cell = {"device": "nvidia-test", "runtime": "r", "model": "m", "precision": "fp16", "shape": "b1-s8"}
    head = {"cell": cell, "tool": "ncu 2025.3.1", "caches": "steady", "status": "ok", "failure": None}
    return {
        **{**head, "iterations": 1, "gpu": {}, "flags": [], "lacking": []},
        "kernels": [counted.product(128, 768, 768, 5000.0), counted.kernel("layer_norm_kernel")],
        "provenance": PROVENANCE,
    }


def _counters(folder: Path) -> Path:
    records.write(folder / "x.counters.json", "counters", _counted())
    return folder / "x.counters.json"


def _kernel_limits(folder: Path) -> Path:
    content = {name: value for name, value in _counted().items() if name not in ("gpu", "kernels")}
    work = {"flops_by_precision": {"fp16": 1.5e8}, "weight_bytes": 1.2e6}
    floor = {"precision": "fp16", "work": work}
    made = judged(_counted(), read_limits(json.loads(PEAKS.read_text())), floor)
    records.write(folder / "x.ncu.json", "kernel-limits", {**content, **made})
    return folder / "x.ncu.json"


def _lessons(folder: Path) -> Path:
    every = lessons(132, 233472)
    middle = {"median": 10.0, "low": 9.0, "high": 12.0}
    timed = {
        "sizes": [132, 233472],
        "times_us": {lesson.name: {one.name: middle for one in lesson.variants} for lesson in every},
    }
    launches = [launch for lesson in every for one in lesson.variants for launch in one.launches]
    kernels = [counted.kernel(launch.kernel, **launch.expected) for launch in launches]
    made = lesson_record.record(timed, kernels, read_limits(json.loads(PEAKS.read_text())))
    head = {"device": "nvidia-test", "status": "ok", "failure": None, "tool": "ncu 2025.3.1", "lacking": []}
    shown = {"lessons": made["lessons"][1:2]}  # each of them is as the others
    records.write(folder / "lessons.json", "lessons", {**head, **shown, "provenance": PROVENANCE})
    return folder / "lessons.json"


SAMPLES: dict[str, Callable[[Path], Path]] = {
    **{kind: _planted(kind) for kind in CONTENTS},
    "run": _run,
    "floor": _floor,
    "quality": _quality,
    "changing": _changing,
    "colocation": _colocation,
    "buckets": _buckets,
    "best-batch": _best_batch,
    "plan": _plan,
    "serving": _serving,
    "peaks": _peaks,
    "budget": _budget,
    "counters": _counters,
    "kernel-limits": _kernel_limits,
    "lessons": _lessons,
    "explanation": _explanation,
    "graph": lambda folder: planted_study.evidence(folder)[1],
    "parity": lambda folder: planted_study.evidence(folder)[2],
}


def edited(path: Path, *place: Any, value: Any) -> None:
    """Change one place in a record and correct its digest."""
    record = json.loads(path.read_text())
    here = record
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value
    planted_records.overwrite(path, record)
