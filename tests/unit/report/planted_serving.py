"""Deployments with known truth beside the cells of a planted study, as the pipeline would write their records."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from unit import planted_records
from unit.report import planted_study as planted

from ceilings import records
from ceilings.report.tables.collect import bare_means, collect
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.served_rows import served_tables

FP32, INT8 = "onnxruntime-cpu/distilbert/fp32/b1-s128", "onnxruntime-cpu/distilbert/int8/b1-s128"
CLOSED = (1, 2, 8)
BARE_MS = {"fp32": 10.0, "int8": 5.0}


def bare(runtime: str, precision: str, batch: int, sequence: int) -> float:
    """A batch takes as much longer as it has more inputs, less a little."""
    return BARE_MS[precision] * batch**0.8 * sequence / 128


@dataclass(frozen=True)
class Truth:
    """What a request waits for, in ms, at so many clients.

    Attributes:
        beyond, queue, infer: Of these parts; input, output and rest take 0.2, 0.1 and 0.05.
        batches: Size of a batch to its number of executions, of as many requests as the window has.
        per_s: Requests answered a second.
    """

    beyond: float
    queue: float
    infer: float
    per_s: float
    batches: dict[int, int]


INPUT, OUTPUT, REST = 0.2, 0.1, 0.05


def plain(cell: str, clients: float) -> Truth:
    """One request after the other: from the second client on they queue for the one before."""
    infer = BARE_MS[cell.split("/")[2]] * 1.1
    served = infer + INPUT + OUTPUT + REST
    return Truth(1.0, (clients - 1) * served if clients > 1 else 0.02, infer, 1e3 / (served + (clients == 1)), {1: 1})


def batched(cell: str, clients: float) -> Truth:
    """Batches of as many requests as there are clients, up to 4."""
    size = int(min(clients, 4))
    infer = BARE_MS[cell.split("/")[2]] * 1.1 * size**0.8
    queue = 2.0 + max(0.0, clients / size - 1) * infer
    return Truth(1.0, queue, infer, clients * 1e3 / (queue + infer + 1.35), {size: 1})


Law = Callable[[str, float], Truth]


@functools.cache
def _cells(gpu, sizes, precisions, *, runs, between, seed) -> tuple[dict[str, Any], Tables]:
    """Plan and tables of bare cells: the same for many tests, whose deployments differ."""
    folder = Path(tempfile.mkdtemp(prefix="planted-cells-"))
    atexit.register(shutil.rmtree, folder)
    maker = planted.StudyMaker(folder, bare, runs=runs, between=between, seed=seed)
    for runtime in ("onnxruntime-cuda", "onnxruntime-tensorrt") if gpu else ("onnxruntime-cpu",):
        for precision in precisions:
            for batch in sizes:
                maker.add(planted.GPU if gpu else planted.CPU, runtime, precision, batch, 128, n=40)
    if not sizes:
        maker.unavailable("onnxruntime-cpu", "fp32", 1, 128, "no onnxruntime", "install it")
    return maker.plan(), collect(maker.plan())


BATCHING = {"largest": 4, "delay_ms": 2}


class ServedStudy:
    """Plants deployments.

    Args:
        between: Spread of fresh servers, on a log scale.
        sizes, precisions: Of the bare cells; empty: none was measured.
    """

    def __init__(
        self, root, *, runs=3, between=0.004, seed=0, sizes=(1,), precisions=("fp32",), rounds=2, n=60, gpu=False
    ):
        self.device = planted.GPU if gpu else planted.CPU
        self._plan, self._bare = _cells(gpu, sizes, precisions, runs=runs, between=between, seed=seed)
        self.root, self.runs, self.between, self.rounds, self.n = root, runs, between, rounds, n
        self.random = np.random.default_rng(seed)
        self.limit_ms: float | None = None
        self.serving: list[dict[str, Any]] = []

    def deploy(
        self,
        name,
        law: Law = plain,
        *,
        cells=(FP32,),
        closed=CLOSED,
        rates=(),
        run_flags=(),
        change=None,
        aa_of=None,
        **settings,
    ) -> dict[str, Any]:
        """One deployment.

        Args:
            closed, rates: Its loads; a rate waits as plain(.., 1) with a queue that follows it.
            settings: Of server and client, such as ``transport`` or ``batching``.
            change: (window) to the window, with what is wrong with it.
            aa_of: The deployment that this one is once more.
        """
        folder = self.root / f"results/serving/{self.device}/{name}"
        paths = [str(folder / f"run{k}.json") for k in range(1, self.runs + 1)]
        for k, path in enumerate(paths, 1):
            windows = self._windows(law, cells, closed, rates)
            content = self._record(name, k, windows, settings) | {"flags": list(run_flags)}
            content["cells"] = {cell: {"parity": PARITY, "warmed": [1, 2, 4]} for cell in cells}
            content["windows"] = [change(one) if change else one for one in content["windows"]]
            records.write(path, "serving", content, indent=None)
        entry = {"deployment": name, "aa_of": aa_of, "device": self.device, "cells": list(cells), "runs": paths}
        self.serving.append(entry | {"reason": None, "remedy": None})
        return self.serving[-1]

    def fail(self, entry, message="the server ended with status 1", kind="crashed") -> None:
        for path in entry["runs"]:
            kept = {
                name: records.read(path, "serving")[name] for name in ("deployment", "device", "run", "log", "flags")
            }
            records.write(path, "serving", {**kept, "status": "failed", "failure": {"kind": kind, "message": message}})

    def unavailable(self, name, cells=(FP32,)) -> None:
        gone = {"reason": "no serving packages", "remedy": "make .venv/serving"}
        self.serving.append({"deployment": name, "device": self.device, "cells": list(cells), "runs": [], **gone})

    def plan(self) -> dict[str, Any]:
        protocol = self._plan["protocol"] | {"serving": {"limit_ms": self.limit_ms}}
        return {**self._plan, "protocol": protocol, "serving": self.serving}

    def tables(self) -> Tables:
        """As ``collect`` makes them of the plan; the bare cells were collected once."""
        made = served_tables(self.plan(), bare_means(self._bare.samples))
        return replace(self._bare, serving=made.serving, serving_windows=made.windows, serving_samples=made.samples)

    def _windows(self, law, cells, closed, rates) -> list[dict[str, Any]]:
        shift = float(np.exp(self.random.normal(0, self.between)))
        windows = []
        for number in range(1, self.rounds + 1):
            for cell in cells:
                windows += [self._closed(law, cell, clients, number, shift) for clients in closed]
                windows += [self._open(law, cell, rate, number, shift) for rate in rates]
        return windows

    def _record(self, name, run, windows, settings) -> dict[str, Any]:
        client = {"transport": "http", "shared_memory": "none", "round_trip_ms": 0, "cores": [1]}
        server = {"kind": "triton", "version": "2.51.0", "backend": "python", "instances": 1, "batching": None}
        server |= {
            "cores": [0],
            "threads": dict.fromkeys((FP32, INT8), settings.get("threads", 2)),
            "first_start_ns": {"process": 4 * 10**9, "ready": 5 * 10**9},
            "warm_start_ns": None,
        }
        trip = settings.get("round_trip_ms", 0)
        for window in windows:
            window["latency_ns"] = [one + int(trip * 1e6) for one in window["latency_ns"]]
            window["drained_ns"] = max(window["drained_ns"], window["began_ns"] + sum(window["latency_ns"]))
        return {
            **{"deployment": name, "device": self.device, "run": run, "status": "ok", "failure": None, "log": "l"},
            "server": server | {key: value for key, value in settings.items() if key in server and key != "threads"},
            "client": client | {key: value for key, value in settings.items() if key in client},
            "windows": windows,
            "protocol": {"window_seconds": 2, "rounds": self.rounds, "warmup_seconds": 1},
            **{"flags": [], "provenance": planted_records.PROVENANCE},
        }

    def _closed(self, law, cell, clients, number, shift) -> dict[str, Any]:
        truth = law(cell, clients)
        return self._window(truth, cell, number, shift) | {"kind": "closed", "concurrency": clients, "rate": None}

    def _open(self, law, cell, rate, number, shift) -> dict[str, Any]:
        truth = law(cell, 1)
        busy = rate / truth.per_s
        window = self._window(replace(truth, per_s=min(rate, truth.per_s)), cell, number, shift)
        if busy >= 1:  # the queue grows all the time
            waits = np.linspace(0, 50 * truth.infer, self.n)
            window["latency_ns"] = [
                int(one + wait * 1e6) for one, wait in zip(window["latency_ns"], waits, strict=True)
            ]
        return window | {"kind": "open", "concurrency": None, "rate": rate}

    def _window(self, truth: Truth, cell, number, shift) -> dict[str, Any]:
        n = self.n
        parts = {"queue_ns": truth.queue, "compute_input_ns": INPUT, "compute_infer_ns": truth.infer}
        parts["compute_output_ns"] = OUTPUT
        request = sum(parts.values()) + REST
        latency = (truth.beyond + request) * shift * np.exp(self.random.normal(0, 0.02, n)) * 1e6
        seconds = n / (truth.per_s / shift)
        inputs = sum(size * count for size, count in truth.batches.items())
        sizes = {str(size): count * n // inputs for size, count in truth.batches.items()}
        counters = {key: int(value * shift * 1e6 * n) for key, value in parts.items()}
        return {
            **{"cell": cell, "round": number, "began_ns": 10**9, "ended_ns": 10**9 + int(seconds * 1e9)},
            **{"drained_ns": 2 * 10**9 + int(seconds * 1e9), "answered_inside": n, "unsent": 0, "exhausted": 0},
            **{"latency_ns": latency.astype(int).tolist(), "late_ns": [1000] * n, "sent": n, "answered": n},
            **{"failed": {}, "connections": 8, "client_cores": 0.2, "client_cores_allowed": 1},
            "server": {
                **{"requests": n, "failures": 0, "executions": sum(sizes.values())},
                "inferences": sum(int(size) * count for size, count in sizes.items()),
                **counters,
                "request_ns": int(request * shift * 1e6 * n),
                "batch_sizes": sizes,
            },
        }


PARITY = {
    **{"finite": True, "rows": 2, "spread_l2": None, "row_l2": 0.04, "problem": None, "relative_l2": 1e-6},
    **{"max_abs": 0.02, "max_rel": 0.4, "cosine": 0.9995, "top1_agreement": 1.0, "tolerance": 0.001},
}


def uncounted(window: dict[str, Any]) -> dict[str, Any]:
    """As of a server that counts nothing."""
    return window | {"server": dict.fromkeys(window["server"])}
