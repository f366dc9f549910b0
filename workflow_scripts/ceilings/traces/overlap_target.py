"""The process whose schedules are captured: ``python -m ceilings.traces.overlap_target TASK.json RESULT.json``.

Runs the cell's schedules one after another, as :mod:`ceilings.measure.overlap_worker` does, some requests of each. The
calls that submit a request lie between two marks, so that each copy and each kernel is known to be of one request; a
last mark of a schedule is round the wait for its last requests. What it measures is thrown away: a traced time is no
latency.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cuda.bindings import runtime as cudart

from ceilings import gpu
from ceilings.cuda import device as cuda
from ceilings.measure.lanes import Lanes, Pipeline
from ceilings.measure.loop import undisturbed
from ceilings.measure.schedules import IN_FLIGHT, elements_used, schedules
from ceilings.measure.setup import make_runner, read_pool
from ceilings.traces.captured_process import answer_task
from ceilings.traces.target import neighbours, recorder

REQUESTS = 4 * IN_FLIGHT
"""Marked requests of a schedule; the first and the last ``IN_FLIGHT`` fill and empty it, and count for nothing."""


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Run and record the schedules of the cell that ``task`` describes.

    Returns:
        ``iterations`` (marks in all), ``requests`` (of a schedule), ``schedules`` (in order, with ``name``,
        ``in_flight`` and ``pinned``), ``gpu`` and ``flags``.

    Raises:
        CellFailure: The cell cannot run, or an answer is wrong.
    """
    card = gpu.visible()
    gpu.refuse_other(card, task["cell"]["device"])
    elements = read_pool(task)
    every = schedules(task["spec"]["streams"])
    recording = recorder(task["source"], Path(task["raw"]))
    first: Any = make_runner(task)
    with first.failures(), undisturbed():
        lanes = Lanes(task, every, elements[: elements_used(len(elements))])
        lanes.load(first)
        pipelines = [Pipeline(schedule, lanes) for schedule in every]
        for pipeline in pipelines:
            pipeline.requests(REQUESTS, _nothing, _nothing)
        enter, leave = recording.start()
        for pipeline in pipelines:
            pipeline.requests(REQUESTS, _nothing, _nothing)  # a profiler starts and allocates its buffers in the first
            pipeline.requests(REQUESTS, enter, leave)
        cuda.check(cudart.cudaDeviceSynchronize(), "waiting for the device")
        flags = neighbours(card)
        recording.stop()
    return {
        "iterations": len(every) * (REQUESTS + 1),
        "requests": REQUESTS,
        "schedules": [{"name": one.name, "in_flight": one.in_flight, "pinned": one.pinned} for one in every],
        "gpu": {name: getattr(card, name) for name in ("slug", "name", "mig", "multiprocessors", "driver")},
        "flags": flags,
    }


def _nothing() -> None:
    pass


if __name__ == "__main__":
    answer_task(run)
