"""The process whose changing shapes are captured: ``python -m ceilings.traces.changing_target TASK.json RESULT.json``.

Runs the cell as :mod:`ceilings.measure.changing_worker` does, with the same runner, and marks each request. What it
measures is thrown away: a traced time is no latency. In this order:

1. The first shape, unmarked, for so long as a profiler takes to begin.
2. The first appearance of each other shape.
3. The sequence, unmarked, ``WARM_PASSES`` times.
4. The sequence, as many requests as the study wants.
5. Each shape again and again, so that every change has the same shape again to be held against.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ceilings import gpu
from ceilings import host as hosts
from ceilings.measure.changing_worker import SETTLING
from ceilings.measure.loop import undisturbed
from ceilings.measure.setup import make_runner
from ceilings.models import pool
from ceilings.traces import cpu_recorders, host_nodes, nvtx
from ceilings.traces.captured_process import answer_task
from ceilings.workload.shape import Shape

SETTLE_SECONDS = 0.2
"""A profiler starts and allocates its buffers in the first requests."""

WARM_PASSES = 2
AGAIN = 12
"""Requests of each shape again, behind those that settle."""

Mark = Callable[[], Any]


def captured_order(order: Sequence[int], iterations: int, repeats: int) -> tuple[list[int], list[int]]:
    """The shapes of the marked requests: first appearances, then sequence and repetitions.

    Args:
        order: The shape of each request of the sequence; shapes are numbered by their first appearance.
        iterations: Requests of the sequence; it begins anew where it has fewer.
        repeats: Requests of each shape in a row, behind the one that changes to it.

    >>> captured_order([0, 1, 0], iterations=4, repeats=2)
    ([1], [0, 1, 0, 0, 0, 0, 0, 1, 1, 1])
    """
    shapes = max(order) + 1
    alone = [shape for shape in range(shapes) for _ in range(repeats + 1)]
    return list(range(1, shapes)), [*itertools.islice(itertools.cycle(order), iterations), *alone]


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Run and record the cell that ``task`` describes.

    Args:
        task: What :func:`ceilings.traces.recorder.record` wrote; ``inputs`` is a file for each shape.

    Returns:
        ``iterations``; ``requests``, as :class:`ceilings.traces.shape_change.Labels` takes it; ``flags``.

    Raises:
        CellFailure: The cell cannot run.
    """
    spec = task["spec"]
    names, order = spec["requests"]["shapes"], spec["requests"]["order"]
    shapes = [Shape.parse(name) for name in names]
    device = _Device(task["cell"]["device"])
    recording = recorder(task["source"], Path(task["raw"]))
    if device.is_card and spec["module"].startswith("onnxruntime") and not spec["options"].get("cuda_graph"):
        recording = host_nodes.WithNodes(recording, Path(task["raw"]))  # a replayed graph runs none
    runner: Any = make_runner({**task, "cell": {**task["cell"], "shape": names[0]}})
    if attach := getattr(recording, "attach", None):
        attach(runner)
    runner.load()
    slots = []
    for shape, name in zip(shapes, names, strict=True):
        runner.at(shape)
        elements = pool.elements(pool.load_pool(task["inputs"][name]))
        slots.append(itertools.cycle([runner.place(element) for element in elements]))
    first, marked = captured_order(order, spec["iterations"], SETTLING + AGAIN)
    previous = [*_before(first, 0), *_before(marked, order[-1])]
    transitions = _Transitions(names, task["source"])

    def answer(wanted: Sequence[int], before: int, marks: tuple[Mark, Mark]) -> None:
        enter, leave = marks
        for last, shape in itertools.pairwise([before, *wanted]):
            slot = next(slots[shape])
            begin, end = transitions.of(last, shape)
            begin()
            enter()
            runner.answer(slot)
            leave()
            end()

    with undisturbed():
        marks, unmarked = recording.start(), (_nothing, _nothing)
        settled = time.perf_counter() + SETTLE_SECONDS
        while time.perf_counter() < settled:
            answer([0], 0, unmarked)
        answer(first, 0, marks)
        for _ in range(WARM_PASSES):
            answer(order, (first or [0])[-1], unmarked)
        answer(marked, order[-1], marks)
        flags = device.finish()
        recording.stop()
    return {
        "iterations": len(first) + len(marked),
        "requests": {
            **{"shapes": list(names), "order": [*first, *marked], "previous": previous},
            **{"first": len(first), "settling": SETTLING},
        },
        "flags": flags,
    }


def _before(order: Sequence[int], before: int) -> list[int]:
    """Of each request the shape of the one before it."""
    return [before, *order[:-1]] if order else []


class _Transitions:
    """Ranges that show people of a timeline of Nsight Systems which shape follows which: ``b1-s16 -> b2-s16``."""

    def __init__(self, names: Sequence[str], source: str) -> None:
        self._names, self._shown = names, source == "nsys"
        self._ranges: dict[tuple[int, int], tuple[Mark, Mark]] = {}

    def of(self, previous: int, shape: int) -> tuple[Mark, Mark]:
        """What begins the range of a transition, and what ends it; nothing for other recorders."""
        if not self._shown:
            return _nothing, _nothing
        if (previous, shape) not in self._ranges:
            self._ranges[previous, shape] = nvtx.ranges(f"{self._names[previous]} -> {self._names[shape]}")
        return self._ranges[previous, shape]


def recorder(source: str, raw: Path) -> Any:
    """The recorder of a source, before anything of CUDA is loaded."""
    if source == "torch":
        return cpu_recorders.TorchRecorder(raw)
    if source == "onnxruntime":
        return cpu_recorders.OnnxRuntimeRecorder(raw)
    from ceilings.traces import target

    return target.recorder(source, raw)


class _Device:
    """What a GPU needs that a CPU does not."""

    def __init__(self, slug: str) -> None:
        self._card = gpu.visible() if hosts.kind_of(slug) == "cuda" else None
        if self._card:
            gpu.refuse_other(self._card, slug)

    @property
    def is_card(self) -> bool:
        """Whether it is a GPU."""
        return self._card is not None

    def finish(self) -> list[str]:
        """Wait for the device; a flag if another process computes on it."""
        if self._card is None:
            return []
        from cuda.bindings import runtime as cudart

        from ceilings.cuda import device as cuda
        from ceilings.traces import target

        cuda.check(cudart.cudaDeviceSynchronize(), "waiting for the device")
        return target.neighbours(self._card)


def _nothing() -> None:
    pass


if __name__ == "__main__":
    answer_task(run)
