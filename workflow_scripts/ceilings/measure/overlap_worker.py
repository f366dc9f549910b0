"""One fresh process that measures schedules: ``python -m ceilings.measure.overlap_worker TASK.json RECORD.json``.

Started by :mod:`ceilings.measure.supervisor`. The task holds ``cell``, ``gpu`` (its UUID), ``streams``, the paths
``artifact``, ``inputs``, ``reference`` and ``workload``, and ``spec`` as of a process that measures the cell. What is
done, in this order:

1. A model is loaded for each set of buffers, on the stream that computes with it.
2. Each set answers each element alone, twice; the answers are held against the FP32 reference.
3. Each schedule runs until it is warm; the reference until two windows agree.
4. The parts of requests on one stream are timed by events.
5. Rounds: a window of the reference, one of each other schedule, a window of the reference.

Every answer of 3 to 5 is held against that of the same request alone, bit for bit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ceilings import environment
from ceilings.errors import CellFailure
from ceilings.measure.bystanders import Bystanders
from ceilings.measure.gate import constant, gate, stacked
from ceilings.measure.gpu_watch import GpuWatch
from ceilings.measure.lanes import Lanes, Pipeline
from ceilings.measure.loop import undisturbed
from ceilings.measure.schedules import COMPUTE, COPY_IN, COPY_OUT, IN_FLIGHT, ROUNDS, order, schedules
from ceilings.measure.schedules import elements_used as used_of
from ceilings.measure.setup import make_runner, read_pool
from ceilings.measure.stopping import NS, STABLE_FRACTION
from ceilings.measure.worker import make_bench, memory, sources
from ceilings.models import pool
from ceilings.program import answer_task
from ceilings.provenance import package_flags, provenance

TIMED = 100
"""Requests whose parts are timed."""

FEWEST = 4 * IN_FLIGHT
"""Requests of a window."""

SHORTEST_SECONDS = 0.1
"""Of a window."""

COLUMNS = {COPY_IN: "copy_in_ns", COMPUTE: "compute_ns", COPY_OUT: "copy_out_ns"}
"""By part the key of its spans in a record."""


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """The record's fields that come from measuring: status, failure, schedules, parts, windows, flags and so on."""
    record: dict[str, Any] = {"status": "failed", "failure": None, "flags": []}
    try:
        record |= {"status": "ok", **_measured(task)}
    except CellFailure as failure:
        record |= {"failure": {"kind": failure.kind, "message": str(failure)}}
    except MemoryError as error:
        record |= {"failure": {"kind": "out-of-memory", "message": str(error) or "MemoryError"}}
    return record


def _measured(task: Mapping[str, Any]) -> dict[str, Any]:
    spec, protocol = task["spec"], task["spec"]["protocol"]
    every = schedules(task["streams"])
    first: Any = make_runner(task)
    bench = make_bench(first)
    bench.refuse_other_device(task["cell"]["device"])
    elements = read_pool(task)
    reference = pool.load_outputs(task["reference"], pool.digest(pool.load_pool(task["inputs"])))
    compared = len(next(iter(reference.values())))
    used = used_of(len(elements))
    kept = elements[: max(used, compared)]
    with first.failures():
        lanes = Lanes(task, every, kept)
        lanes.load(first)
        parity = _farthest(lanes, kept[:compared], reference, spec["tolerance"])
        lanes.use(used)
        pipelines = {schedule.name: Pipeline(schedule, lanes) for schedule in every}
        seconds = max(SHORTEST_SECONDS, protocol["min_seconds"] / 2)
        flags: list[str] = []
        with (
            undisturbed(),
            GpuWatch(task["gpu"], {os.getpid()}) as watch,
            Bystanders(lambda: ()) as neighbours,
        ):
            flags += _warm(pipelines, protocol)
            spans = pipelines[every[0].name].timed(TIMED)
            windows = [
                {"round": number, "schedule": schedule.name, **_watched(watch, pipelines[schedule.name], seconds)}
                for number in range(1, ROUNDS + 1)
                for schedule in order(every, number)
            ]
    if used == 1:
        flags.append(
            f"an answer that came too early or too late would look right: of {len(elements)} elements one alone could "
            "be used; inputs.pool of 5 or more shows it"
        )
    return {
        "schedules": [
            {
                "name": one.name,
                "streams": len(one.streams),
                "buffers": len(one.buffers),
                "in_flight": one.in_flight,
                "pinned": one.pinned,
            }
            for one in every
        ],
        "batch": first.shape.batch,
        "bytes_in": sum(nbytes for _, nbytes in first.input_buffers.values()),
        "bytes_out": sum(first.output_bytes),
        "elements": used,
        "checked": sum(one.checked for one in pipelines.values()),
        "parity": parity,
        "parts": {COLUMNS[part]: values for part, values in spans.items()},
        "windows": windows,
        "memory": memory(bench),
        "neighbours": neighbours.to_json(),
        "gpu": watch.facts(),
        "provenance": (origin := provenance([*spec["packages"], "numpy"], sources(task))),
        "flags": list(
            dict.fromkeys(
                (
                    *neighbours.flags(),
                    *watch.flags(),
                    *flags,
                    *constant(kept[:compared], reference),
                    *environment.flags(origin["variables"], spec.get("variables")),
                    *package_flags(spec["packages"]),
                )
            )
        ),
    }


def _farthest(lanes: Lanes, elements: Any, reference: Any, tolerance: float) -> dict[str, Any]:
    """Hold what each buffer set answers alone against the reference; of the farthest, how far it is.

    Raises:
        CellFailure: One is too far.
    """
    parities = [
        gate(lanes.first.workload, elements, stacked(lanes.outputs(one)[: len(elements)]), reference, tolerance)
        for one in lanes.runners
    ]
    return max(parities, key=lambda parity: parity["relative_l2"] or 0.0)


def _watched(watch: GpuWatch, pipeline: Pipeline, seconds: float) -> dict[str, Any]:
    """A window, and ``activity``, the shares of the device that were busy in it; None where NVML does not say."""
    watch.begin()
    window = pipeline.window(seconds, FEWEST)
    return {**window, "activity": watch.end()["activity"]}


def _warm(pipelines: Mapping[str, Pipeline], protocol: Mapping[str, Any]) -> list[str]:
    """Run every schedule, then the reference until two windows agree; flags."""
    reference, *_ = pipelines.values()
    seconds = max(protocol["warmup_seconds"], SHORTEST_SECONDS)
    for pipeline in pipelines.values():
        pipeline.window(SHORTEST_SECONDS, FEWEST)
    deadline, before = time.perf_counter_ns() + protocol["warmup_max_seconds"] * NS, 0.0
    while time.perf_counter_ns() < deadline:
        window = reference.window(seconds, FEWEST)
        median = float(np.median(window["latency_ns"]))
        if before and abs(median - before) <= STABLE_FRACTION * min(median, before):
            return []
        before = median
    return [f"warm-up ended before two windows agreed within {STABLE_FRACTION:.0%}"]


if __name__ == "__main__":
    answer_task(measure)
