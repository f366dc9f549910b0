"""One fresh process that measures changing shapes: ``python -m ceilings.measure.changing_worker TASK RECORD``.

Started by :mod:`ceilings.measure.supervisor`, as a process that measures one shape is. The task holds ``cell``
(``device``, ``runtime``, ``model``, ``precision``, ``sequence``), the paths ``artifact`` and ``workload``, ``pools``
(for each shape ``inputs`` and ``reference``), and ``spec``, where ``requests`` says which shape comes when.

What is timed, in this order:

1. The sequence once, from a cold start: what the first appearance of each shape costs, and what memory it adds.
2. Each shape alone: first its return after another one, then, settled, its steady latency.
3. The sequence, and each shape alone again; both ``ROUNDS`` times. So each pass has steady references before and after
   it, in the same process: what drifts falls on both.
"""

from __future__ import annotations

from ceilings import import_clock

if __name__ == "__main__":  # before the imports that it times
    import_clock.start()

import os
import time
from collections.abc import Sequence
from typing import Any

from ceilings import environment
from ceilings.errors import CellFailure
from ceilings.measure.loop import undisturbed
from ceilings.measure.neighbours import Neighbours
from ceilings.measure.setup import artifact_file, make_runner
from ceilings.measure.stopping import NS, Protocol
from ceilings.measure.worker import cold_start, gate, make_bench, memory, stacked
from ceilings.models import pool
from ceilings.program import answer_task
from ceilings.provenance import package_flags, provenance
from ceilings.workload.shape import Shape

ROUNDS = 3
"""Passes over the sequence, each between steady references."""

SETTLING = 3
"""Iterations after a return that belong to neither: neither the first one, nor steady yet."""

FEWEST = 10
"""Iterations of a shape alone, at least, however slow."""

PAGE = os.sysconf("SC_PAGE_SIZE")

Slots = Sequence[Sequence[Any]]
"""The pool of each shape, placed."""


class Stepper:
    """Answers requests of the shapes, one at a time, each time with the next element of the shape's pool."""

    def __init__(self, runner: Any, slots: Slots) -> None:
        self.runner = runner
        self.slots = slots
        self._next = [0] * len(slots)

    def timed(self, shape: int) -> int:
        """Nanoseconds of one request."""
        slots = self.slots[shape]
        slot = slots[self._next[shape] % len(slots)]
        self._next[shape] += 1
        answer = self.runner.answer
        start = time.perf_counter_ns()
        answer(slot)
        return time.perf_counter_ns() - start


def first_pass(stepper: Stepper, order: Sequence[int]) -> dict[str, Any]:
    """The sequence from a cold start, with what is in use after the first appearance of each shape.

    Returns:
        ``latency_ns`` of each request; by shape ``rss_bytes`` and ``device_bytes`` (None on a CPU) in use after it,
        behind what was in use before all; ``graphs``, those compiled after each request, None where none are counted.
    """
    runner = stepper.runner
    latencies: list[int] = []
    used, device, graphs = [resident_bytes()], [runner.device_bytes()], [runner.graphs_compiled()]
    seen: set[int] = set()
    for shape in order:
        latencies.append(stepper.timed(shape))
        graphs.append(runner.graphs_compiled())
        if shape not in seen:  # shapes are numbered by their first appearance
            seen.add(shape)
            used.append(resident_bytes())
            device.append(runner.device_bytes())
    return {
        "latency_ns": latencies,
        "rss_bytes": used,
        "device_bytes": None if device[0] is None else device,
        "graphs": None if graphs[0] is None else graphs,
    }


def alone(stepper: Stepper, count: int, budget_ns: float) -> tuple[list[int], list[list[int]]]:
    """Each of ``count`` shapes again and again, one shape after another.

    Args:
        budget_ns: Time for each shape, unless ``FEWEST`` iterations take longer.

    Returns:
        By shape the latency of its return after another one, and the steady latencies.
    """
    returns, steady = [], []
    for shape in range(count):
        returns.append(stepper.timed(shape))
        for _ in range(SETTLING):
            stepper.timed(shape)
        latencies: list[int] = []
        begin = time.perf_counter_ns()
        while len(latencies) < FEWEST or time.perf_counter_ns() - begin < budget_ns:
            latencies.append(stepper.timed(shape))
        steady.append(latencies)
    return returns, steady


def rounds(stepper: Stepper, order: Sequence[int], protocol: Protocol) -> dict[str, Any]:
    """The passes, with the references around them.

    Returns:
        ``sequence_ns``: the latencies of each pass; ``steady_ns``: by reference and shape; ``return_ns``: the same,
        one each.
    """
    count = max(order) + 1
    budget = protocol.min_seconds * NS / count
    with undisturbed():
        passes, references = [], [alone(stepper, count, budget)]
        for _ in range(ROUNDS):
            passes.append([stepper.timed(shape) for shape in order])
            references.append(alone(stepper, count, budget))
    return {
        "sequence_ns": passes,
        "steady_ns": [steady for _, steady in references],
        "return_ns": [returns for returns, _ in references],
    }


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """The record's fields that come from measuring: status, failure, parity, cold, rounds, flags and so on."""
    import_clock.start()
    try:
        return _measure(task)
    finally:
        import_clock.stop()


def _measure(task: dict[str, Any]) -> dict[str, Any]:
    spec, requests = task["spec"], task["spec"]["requests"]
    shapes, order = [Shape.parse(name) for name in requests["shapes"]], requests["order"]
    runner: Any = make_runner({**task, "cell": {**task["cell"], "shape": str(shapes[0])}})
    bench = make_bench(runner)
    bench.refuse_other_device(task["cell"]["device"])
    pools = [pool.load_pool(task["pools"][str(shape)]["inputs"]) for shape in shapes]
    elements = [pool.elements(arrays) for arrays in pools]
    references = [
        pool.load_outputs(task["pools"][str(shape)]["reference"], pool.digest(arrays))
        for shape, arrays in zip(shapes, pools, strict=True)
    ]
    record: dict[str, Any] = {"status": "failed", "failure": None, "parity": None, "flags": []}
    try:
        runner.load()
        slots = []
        for shape, each in zip(shapes, elements, strict=True):
            runner.at(shape)
            slots.append([runner.place(element) for element in each])
        stepper = Stepper(runner, slots)
        with undisturbed():
            record["cold"] = first_pass(stepper, order)
        record |= cold_start(runner)
        record["parity"] = {}
        for index, (shape, reference) in enumerate(zip(shapes, references, strict=True)):
            runner.at(shape)
            compared = len(next(iter(reference.values())))
            outputs = stacked([runner.outputs(runner.answer(slot)) for slot in slots[index][:compared]])
            record["parity"][str(shape)] = gate(
                runner.workload, elements[index][:compared], outputs, reference, spec["tolerance"]
            )
        with Neighbours() as neighbours:
            record |= rounds(stepper, order, Protocol.from_json(spec["protocol"]))
        record["flags"] = neighbours.flags()
        record["compiled"] = _compiled(runner, slots)
        record["graphs"] = runner.graphs_compiled()
        record["memory"] = memory(bench)
        record["runtime"] = runner.describe()
        record["status"] = "ok"
    except CellFailure as failure:
        record |= {"failure": {"kind": failure.kind, "message": str(failure)}}
    except MemoryError as error:
        record |= {"failure": {"kind": "out-of-memory", "message": str(error) or "MemoryError"}}
    record["flags"] += _flags(record, requests)
    record["threads"] = {"intra_op": spec["threads"], "affinity": len(os.sched_getaffinity(0))}
    record["provenance"] = provenance([*spec["packages"], "numpy"], _sources(task))
    record["flags"] += environment.flags(record["provenance"]["variables"], spec.get("variables"))
    record["flags"] += package_flags(spec["packages"])
    return record


def _compiled(runner: Any, slots: Slots) -> list[bool] | None:
    """By shape whether compiled code answers it; None where nothing is compiled."""
    answers = [runner.compiled(each[0]) for each in slots]
    return None if answers[0] is None else answers


def _flags(record: dict[str, Any], requests: dict[str, Any]) -> list[str]:
    flags = []
    if requests["sorted"]:
        flags.append("the log of requests was not in order of arrival and was sorted")
    if record.get("compiled") and not all(record["compiled"]):
        names = [name for name, compiled in zip(requests["shapes"], record["compiled"], strict=True) if not compiled]
        flags.append(
            f"PyTorch's limit on recompilations is reached: {', '.join(names)} run eagerly, which only its log says"
        )
    return flags


def _sources(task: dict[str, Any]) -> dict[str, str]:
    """The files that the measurement is made from."""
    pools = {f"{name}:{part}": path for name, parts in task["pools"].items() for part, path in parts.items()}
    return {"artifact": str(artifact_file(task)), "workload": task["workload"], **pools}


def resident_bytes() -> int:
    """Memory of this process that is resident now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


if __name__ == "__main__":
    answer_task(measure)
