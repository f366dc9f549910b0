"""Makes a study's results with known truth: plan, run records and evidence, as the pipeline would write them."""

# A cell has many coordinates, and they read best in their usual order.
# ruff: noqa: PLR0917

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from unit import planted_records

from ceilings import records
from ceilings.measure.stopping import Protocol
from ceilings.runtimes import engine_facts
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.workload import generation
from ceilings.workload.shape import Shape

CPU, GPU = "cpu-amd-epyc", "nvidia-h200"
SHAPES = [(1, 128), (4, 128), (8, 128), (16, 128), (1, 32), (1, 64), (1, 256), (1, 512)]
CPU_CONFIGURATIONS = [
    ("torch-eager", "fp32"),
    ("torch-int8-dynamic", "int8"),
    ("onnxruntime-cpu", "fp32"),
    ("onnxruntime-cpu", "int8"),
]
IMAGE_CONFIGURATIONS = [("torch-eager", "fp32"), ("onnxruntime-cpu", "fp32")]
GPU_CONFIGURATIONS = [("torch-cuda-eager", "fp16"), ("onnxruntime-cuda", "fp32"), ("tensorrt", "fp16")]

TEXT, IMAGE, DECODER = "distilbert", "clip-image", "gpt2-medium"
AXES = {TEXT: ("batch", "sequence"), IMAGE: ("batch", "image"), DECODER: ("batch", "prompt", "generated")}
"""What the sizes of a model's shapes are along."""

Truth = Callable[..., float]
"""(runtime, precision, batch, size of an input) to the median latency in ms; of the decoder (.., prompt, generated)."""

SCHEDULED = {"vllm": ["CUDA graph", "compilation"], "vllm-compile": ["compilation"], "vllm-eager": []}
"""Levers of runtimes of the stack that schedules requests."""


def realistic(runtime: str, precision: str, batch: int, sequence: int) -> float:
    work = batch * (sequence / 128) * (1 + sequence / 2000)
    fixed, each = {
        ("torch-eager", "fp32"): (8.0, 38.0),
        ("torch-int8-dynamic", "int8"): (20.0, 25.0),
        ("onnxruntime-cpu", "fp32"): (1.5, 31.0),
        ("onnxruntime-cpu", "int8"): (1.2, 13.0),
        ("torch-cuda-eager", "fp16"): (1.6, 0.02),
        ("onnxruntime-cuda", "fp32"): (0.6, 0.12),
        ("tensorrt", "fp16"): (0.25, 0.02),
    }[runtime.removesuffix(".aa"), precision]
    return fixed + each * work


def flat(runtime: str, precision: str, batch: int, sequence: int) -> float:
    """Nothing makes a difference to an inference."""
    return 10.0


def engine(cell: dict) -> dict:
    """What vLLM's engine says of itself for a cell, with the defaults of an H100."""
    levers, shape = SCHEDULED[cell["runtime"].removesuffix(".aa")], Shape.parse(cell["shape"])
    graphs = "CUDA graph" in levers
    facts = {
        "dtype": "float16",
        "cache_dtype": "auto",
        "prefix_caching": False,
        "compilation": "VLLM_COMPILE" if levers else "NONE",
        "cudagraph_mode": "FULL_AND_PIECEWISE" if graphs else "NONE",
        "cudagraph_sizes": [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)] if graphs else [],
        "block_size": 16,
        "blocks": 2 + shape.batch * (generation.context(shape) // 16 + 2),
        "max_num_seqs": 1024,
        "max_num_batched_tokens": max(16384, shape.batch * shape["prompt"]),
    }
    return facts | {"graph_replayed": engine_facts.replays(facts, shape)}


class StudyMaker:
    """Plants a truth.

    Args:
        enqueue: (runtime, batch) to the host's share of a latency.
        spike: (runtime, batch) to the mean of the exponential that 3% of the iterations have on top, on a log scale.
    """

    def __init__(
        self,
        root: Path,
        truth: Truth = realistic,
        *,
        seed: int = 0,
        runs: int = 3,
        between: float = 0.01,
        enqueue: Callable[[str, int], float] = lambda runtime, batch: 0.6,
        spike: Callable[[str, int], float] = lambda runtime, batch: 0.25,
    ):
        self.root, self.truth, self.runs, self.between = root, truth, runs, between
        self.enqueue, self.spike = enqueue, spike
        self.price_per_hour: dict[str, float] = {}
        self.random = np.random.default_rng(seed)
        self.cells: list[dict] = []

    def measure(self, device: str, configurations, shapes=SHAPES, n: int = 120, model: str = TEXT) -> StudyMaker:
        for runtime, precision in configurations:
            for batch, size in shapes:
                self.add(device, runtime, precision, batch, size, n=n, model=model)
        return self

    def add(self, device, runtime, precision, batch, size, /, n=120, model=TEXT, lengths="", **changes) -> dict:
        """One measured cell; ``size`` is what the shape has beside the batch, of the decoder (prompt, generated)."""
        sizes = (batch, *size) if isinstance(size, tuple) else (batch, size)
        cell = self._cell(device, runtime, precision, sizes, model, lengths)
        folder = f"results/benchmarks/{device}/{runtime}/{model}/{precision}/{cell['shape']}"
        cell["runs"] = [str(self.root / folder / f"run{k}.json") for k in range(1, self.runs + 1)]
        for k, path in enumerate(cell["runs"], 1):
            records.write(path, "run", self._record(cell, k, n) | changes, indent=None)
        self.cells.append(cell)
        return cell

    def repeat(self, device, runtime, precision, batch, size, n=120, model=TEXT) -> dict:
        """The second cell of an A/A pair."""
        cell = self.add(device, f"{runtime}.aa", precision, batch, size, n, model)
        cell["aa_of"] = runtime
        return cell

    def unavailable(self, runtime, precision, batch, size, reason, remedy, device=None) -> None:
        cell = self._cell(device, runtime, precision, (batch, size))
        self.cells.append(cell | {"available": False, "reason": reason, "remedy": remedy, "runs": []})

    def change(self, cell: dict, run: int, **changes) -> None:
        path = cell["runs"][run - 1]
        records.write(path, "run", records.read(path, "run") | changes)

    def fail(self, cell: dict, run: int, kind="out-of-memory", message="std::bad_alloc while allocating 12 GB") -> None:
        self.change(cell, run, status="failed", series={}, failure={"kind": kind, "message": message}, parity=None)

    def bound(self, cell: dict, floor_ms: float, limited_by: str = "compute", graph: str = "", **changes) -> Path:
        """Give a cell a floor. Its products take half of it at the matrix rate, unless that sets it."""
        folder = f"results/floors/{cell['device']}/{cell['model']}/{graph or cell['precision']}"
        path = self.root / folder / f"{cell['shape']}.json"
        compute = floor_ms if limited_by == "compute" else floor_ms / 2
        record = {
            **{name: cell[name] for name in ("device", "model", "precision", "shape")},
            "graph": graph or cell["precision"],
            "status": "ok",
            "work": {
                "flops": int(compute * 1e12),
                "flops_by_precision": {cell["precision"]: int(compute * 1e12)},
                "bytes": int(floor_ms * 4e9),
                "weight_bytes": int(floor_ms * 4e9),
                "boundary_bytes": 0,
                "unknown_operators": {},
                "products": [],
            },
            "limits": {},
            "floor": {
                "compute_floor_ms": compute,
                "memory_floor_ms": floor_ms / 2 if limited_by == "compute" else floor_ms,
                "launch_floor_ms": 0.005,
                "floor_ms": floor_ms,
                "limited_by": limited_by,
                "cold_memory_floor_ms": floor_ms,
                "l2_share": 0.5,
            },
            "classes": {"gemm": {"unfused_ms": floor_ms}, "elementwise": {"unfused_ms": 0.25 * floor_ms}},
            "library_products": {"ms": 3 * floor_ms, "flops_share": 1.0},
            "provenance": planted_records.PROVENANCE,
        }
        if changes.get("status") == "unavailable":
            kept = {name: record[name] for name in record if name not in ("floor", "classes", "library_products")}
            records.write(path, "floor", kept | changes)
        else:
            records.write(path, "floor", record)
            planted_records.edit(path, **changes)
        cell["floor"] = str(path)
        return path

    def plan(self) -> dict:
        return {
            "study": "default",
            "seed": 0,
            "devices": [
                {"slug": CPU, "kind": "cpu", "name": "AMD EPYC 9B14", "cores": 2},
                {"slug": GPU, "kind": "cuda", "name": "NVIDIA H200", "driver": "580.159", "memory_bytes": 150754820096},
            ],
            "protocol": PROTOCOL,
            "tolerances": TOLERANCES,
            "price_per_hour": self.price_per_hour,
            "models": {
                TEXT: {"architecture": "distilbert", "task": "sequence-classification", "weights": "auto"},
                **(
                    {IMAGE: {"architecture": "clip", "task": "image-embedding", "weights": "auto"}}
                    if self._images
                    else {}
                ),
                **(
                    {DECODER: {"architecture": "gpt2", "task": "text-generation", "weights": "random"}}
                    if any(cell["model"] == DECODER for cell in self.cells)
                    else {}
                ),
            },
            "cells": self.cells,
        }

    def write_plan(self) -> Path:
        path = self.root / "results/plan.json"
        records.write(path, "plan", self.plan(), as_is=("cells",))
        return path

    @property
    def _images(self) -> bool:
        return any(cell["model"] == IMAGE for cell in self.cells)

    def _cell(self, device, runtime, precision, sizes, model=TEXT, lengths="") -> dict:
        known = RUNTIMES.get(runtime.removesuffix(".aa"))
        axes = dict(zip(AXES[model], sizes, strict=True))
        return {
            "device": device,
            "runtime": runtime,
            "stack": known.stack if known else "vLLM" if runtime in SCHEDULED else runtime,
            "levers": sorted(known.levers if known else SCHEDULED.get(runtime, ())),
            "artifact": known.artifact if known else "plain",
            "aa_of": None,
            "model": model,
            "precision": precision,
            "shape": str(Shape.of(axes, lengths)),
            "axes": axes,
            "lengths": lengths,
            "sweeps": ["batch"] if axes.get("sequence") == 128 else ["sequence"],
            "available": True,
            "reason": None,
            "remedy": None,
        }

    def _record(self, cell: dict, run: int, n: int) -> dict:
        batch, *size = cell["axes"].values()
        median = self.truth(cell["runtime"], cell["precision"], batch, *size)
        median *= np.exp(self.random.normal(0, self.between))
        latency_ms = median * np.exp(np.abs(self.random.normal(0, 0.02, n)) + self._spikes(cell, n) - 0.0135)
        gpu = cell["device"] == GPU
        hidden = (
            cell["runtime"].removesuffix(".aa") in SCHEDULED
        )  # vLLM creates its streams: no event is recorded on them
        latency = {
            "latency_ns": (latency_ms * 1e6).astype(int).tolist(),
            "gpu_ns": (latency_ms * 0.3e6).astype(int).tolist() if gpu and not hidden else None,
            "enqueue_ns": (latency_ms * 1e6 * self.enqueue(cell["runtime"], batch)).astype(int).tolist()
            if gpu and not hidden
            else None,
            "warmup_ns": (latency_ms[:10] * 1.2e6).astype(int).tolist(),
            "warmup_stable": True,
        }
        elapsed = int(latency_ms.sum() * 1.2e6)
        # Capped here at the latest, where the median is not yet known as precisely as the protocol asks.
        protocol = PROTOCOL | {
            name: min(PROTOCOL[name], elapsed // 10**6 / 1e3) for name in ("min_seconds", "max_seconds")
        }
        reason = Protocol.from_json(protocol).stop_reason(latency["latency_ns"], elapsed)
        latency |= {"stop_reason": reason, "elapsed_ns": elapsed}
        series = {"latency": latency}
        generates = cell["model"] == DECODER
        if generates:
            series["requests"] = self._requests(cell, median)
        elif gpu:
            copies = {"h2d": [8 * batch * size[0]] * 2, "d2h": [8 * batch]}
            for name, factor in (("latency_end_to_end", 1.1e6), ("latency_end_to_end_pageable", 1.2e6)):
                slower = {"elapsed_ns": 2 * elapsed, "latency_ns": (latency_ms * factor).astype(int).tolist()}
                series[name] = latency | slower | {"copies": copies}
        per_s = 1.15 * batch * 1e3 / median
        seconds = 12 * batch / per_s
        if not generates:
            series["throughput"] = {"concurrency": 2, "completions": 12, "seconds": seconds, "inferences_per_s": per_s}
        return {
            "cell": {name: cell[name] for name in ("device", "runtime", "model", "precision", "shape")},
            "run": run,
            "status": "ok",
            "failure": None,
            "log": f"results/logs/{cell['runtime']}.{cell['shape']}.run{run}.log",
            "parity": {
                "finite": True,
                "rows": 2,
                "spread_l2": None,
                "row_l2": 0.04,
                "problem": None,
                "relative_l2": 0.031 if cell["precision"] == "int8" else 2.1e-7,
                "max_abs": 0.02,
                "max_rel": 0.4,
                "cosine": 0.9995,
                "top1_agreement": 0.98 if cell["precision"] == "int8" else 1.0,
                "tolerance": 0.1,
            },
            "cold_start_ns": {"import": 1_400_000_000, "load": 320_000_000, "first_run": int(median * 1.9e6)},
            "series": series,
            "flags": [],
            "memory": {"peak_rss_bytes": 812_000_000, "peak_device_bytes": 900_000_000 if gpu else None},
            "energy": {
                name: {"joules_per_inference": 0.3 * median / 1e3 / (batch if generates else 1), "mean_watts": 300.0}
                for name in ("latency", *(["requests"] if generates else []))
            }
            if gpu
            else None,
            "gpu": {"uuid": "GPU-secret", "latency": {"sm_mhz": {"median": 1700.0}}, "max_sm_mhz": 1980}
            if gpu
            else None,
            **({"runtime": engine(cell)} if hidden else {}),
            "threads": {"intra_op": 2},
            "protocol": protocol,
            "provenance": planted_records.PROVENANCE,
            "host": {"cpu": "AMD EPYC 9B14", "cores": 2, "kernel": "6.8.0"},
        }

    def _requests(self, cell: dict, median: float) -> dict:
        """Five requests whose tokens take about as long as those of the closed loop."""
        batch, prompt, generated = cell["axes"].values()
        first = median if generated == 1 else self.truth(cell["runtime"], cell["precision"], batch, prompt, 1)
        firsts = (first * 1e6 * np.exp(self.random.normal(0, 0.02, 5))).astype(int)
        gaps = (median * 1e6 * np.exp(self.random.normal(0, 0.02, (5, generated - 1)))).astype(int)
        several = generated > 1
        quartiles = np.quantile(gaps, [0.25, 0.75], axis=1) if generated > 2 else None
        return {
            "request_ns": (firsts + gaps.sum(1)).tolist(),
            "first_token_ns": firsts.tolist(),
            "token_ns": gaps.ravel().tolist(),
            "per_token_ns": [round(row.sum() / len(row)) for row in gaps] if several else [],
            "worst_gap_ns": gaps.max(1).tolist() if several else [],
            "jitter_ns": [] if quartiles is None else (quartiles[1] - quartiles[0]).astype(int).tolist(),
            "tokens": 5 * batch * generated,
            "batch": batch,
            "generated": generated,
            "cache_bytes": 98304 * batch * (prompt + generated),
            "stop_reason": "time-cap",
            "elapsed_ns": int((firsts + gaps.sum(1)).sum() * 1.01),
        }

    def _spikes(self, cell: dict, n: int) -> np.ndarray:
        scale = self.spike(cell["runtime"], cell["axes"]["batch"])
        return np.where(self.random.random(n) < 0.03, self.random.exponential(scale, n), 0.0)


PROTOCOL = {
    "processes": 3,
    "warmup_seconds": 0.2,
    "warmup_max_seconds": 5,
    "min_iterations": 30,
    "min_seconds": 0.5,
    "max_seconds": 4,
    "precision": 0.01,
    "saturated_seconds": 0.5,
    "concurrency": 2,
    "time_limit_seconds": 3600,
}
TOLERANCES = {"fp32": 0.001, "tf32": 0.02, "fp16": 0.02, "bf16": 0.1, "int8": 0.25, "fp8": 0.25}


def default_study(root: Path, **options) -> StudyMaker:
    """A CPU-only machine: 37 cells, 4 of them of an image model, one failed, one flagged; and 60 that need a GPU."""
    maker = StudyMaker(root, **options)
    maker.measure(CPU, CPU_CONFIGURATIONS)
    maker.repeat(CPU, "onnxruntime-cpu", "fp32", 1, 128)
    flagged = maker.cells[2]
    maker.change(flagged, 2, flags=["other processes used 35% of a core"])
    failed = next(c for c in maker.cells if c["runtime"] == "torch-int8-dynamic" and c["axes"]["sequence"] == 512)
    for run in (1, 2, 3):
        maker.fail(failed, run)
    for runtime in ("torch-cuda-eager", "onnxruntime-cuda", "tensorrt"):
        for batch, sequence in SHAPES:
            for precision in ("fp32", "fp16"):
                reason, remedy = "no CUDA device on this machine", "run on a machine with an NVIDIA GPU"
                maker.unavailable(runtime, precision, batch, sequence, reason, remedy)
    for batch, sequence in [*SHAPES, (2, 128), (32, 128), (64, 128), (128, 128)]:
        reason, remedy = "package tensorrt not installed", "pip install tensorrt"
        maker.unavailable("tensorrt", "int8", batch, sequence, reason, remedy)
    maker.measure(CPU, IMAGE_CONFIGURATIONS, [(1, 224), (4, 224)], model=IMAGE)
    return maker


def evidence(root: Path) -> list[Path]:
    """Random weights, a simplified graph, and INT8 parity whose weakest layer is layer.5."""
    graph = {"opset": 17, "nodes": 312, "op_types": {"MatMul": 312}, "inputs": [], "outputs": [], "bytes": 1}
    made = {
        "models/distilbert/weights/provenance.json": ("weights", planted_records.WEIGHTS | {"model": TEXT}),
        "onnx/distilbert/simplified.json": (
            "graph",
            {**graph, "status": "ok", "graph_sha256": "ab" * 32, "simplified": True, "nodes_before": 400},
        ),
        "parity/distilbert/int8.json": (
            "parity",
            {
                "status": "ok",
                "precision": "int8",
                "optimized": True,
                "reason": None,
                "finite": True,
                "max_abs": 0.02,
                "max_rel": 0.4,
                "relative_l2": 0.031,
                "cosine": 0.9995,
                "top1_agreement": 0.98,
                "rows": 2,
                "spread_l2": None,
                "row_l2": 0.04,
                "problem": None,
                "layers": [
                    {"node": f"layer.{i}", "sqnr_db": 40.0 - 3 * i, "accumulated_sqnr_db": 30.0} for i in range(6)
                ],
            },
        ),
    }
    paths = []
    for name, (kind, content) in made.items():
        records.write(root / "results" / name, kind, {**content, "provenance": planted_records.PROVENANCE})
        paths.append(root / "results" / name)
    return paths
