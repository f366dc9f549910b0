"""What a server executes: a cell's own runner, on arrays of the host, at each batch that the server may form.

A runner whose axes stay open serves every batch: one session meets the batches in the order in which they come, as in
production. One that fixes them (a captured graph, an engine) is made once for each batch, with weights of its own. What
lies between a request and the runner is timed at each batch before the server is ready: joining and padding rows, the
way to the device and back, taking rows apart.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ceilings import foreign
from ceilings.errors import CellFailure
from ceilings.measure.setup import make_runner
from ceilings.runtimes.base import Runner, example
from ceilings.serving.batching import Batching, batches
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

Arrays = Mapping[str, np.ndarray]

TIMED_RUNS = 5
"""Runs at each batch before a server is ready, whose medians are its costs; all but the first of a batch."""


SHOWN = 90
"""Letters of each end of a library's message."""


def serves(task: Mapping[str, Any], batching: Batching | None) -> None:
    """Refuse what no server can execute, before one is started.

    Raises:
        CellFailure: The model generates, or a server cannot join its requests.
    """
    workload, rows = Workload.read(task["workload"]), Shape.parse(task["cell"]["shape"]).batch
    if workload.task.generates:
        raise CellFailure("unsupported", "a server here answers with one inference; this model generates")
    if batching is None:
        return
    if without := [tensor.name for tensor in (*workload.inputs, *workload.outputs) if tensor.dims[:1] != ("batch",)]:
        raise CellFailure("unsupported", f"requests cannot be joined: {without[0]} does not begin with a batch axis")
    if batching.largest < rows:
        raise CellFailure("unsupported", f"a batch of at most {batching.largest} takes no request of {rows} rows")


class Executor:
    """A cell's runners, ready for every batch.

    Attributes:
        costs: By batch: ``join_ns``, ``run_ns``, ``read_ns``, medians; ``copied_bytes`` on the host.
        load_ns: From the first import to the last warm-up.
    """

    def __init__(self, task: Mapping[str, Any], batching: Batching | None) -> None:
        serves(task, batching)
        self._task = task
        self._shape = Shape.parse(task["cell"]["shape"])
        self.batching = batching
        self.sizes = batches(self._shape.batch, batching)
        self.costs: dict[int, dict[str, float]] = {}
        self.load_ns = 0
        self._runners = 0
        self._boundaries: dict[int, Boundary] = {}
        self._workload = workload = Workload.read(task["workload"])
        # Of a model without a batch axis each request is a batch by itself.
        self._rowed = all(tensor.dims[:1] == ("batch",) for tensor in (*workload.inputs, *workload.outputs))

    def load(self) -> None:
        """Make the runners ready, and run every batch twice or more.

        Raises:
            CellFailure: The runtime cannot run it.
        """
        began = time.perf_counter_ns()
        if folder := self._task.get("folder"):
            os.chdir(folder)  # a server works elsewhere, and records of engines name files from there
        first: Boundary | None = None
        for size in self.sizes:
            again = first.at(self._at(size)) if first else None
            self._boundaries[size] = again or self._boundary(size)
            first = first or self._boundaries[size]
        for size in self.sizes:
            self._try(size)
        self.load_ns = time.perf_counter_ns() - began

    def _boundary(self, size: int) -> Boundary:
        runner = make_runner({**self._task, "cell": {**self._task["cell"], "shape": str(self._at(size))}})
        runner.load()
        self._runners += 1
        return boundary(runner)

    def _at(self, rows: int) -> Shape:
        """The request's shape with so many rows; an axis that no tensor has stays away."""
        return self._shape if rows == self._shape.batch else self._shape.with_sizes(batch=rows)

    def _try(self, size: int) -> None:
        """Run a batch as it would come, of as many requests as fit, and note what it takes."""
        answer, each = self._boundaries[size], self._shape.batch
        element = example(self._workload, self._shape)
        requests = [element] * max(1, size // each)
        try:
            answer.first(self._joined(requests, size))
        except CellFailure:
            raise
        except Exception as error:
            if size == each:
                raise  # it fails as the bare cell does
            words = f"{type(error).__name__}: {_ends(str(error))}"
            raise CellFailure(
                "runtime-error", f"the model runs no batch of {size}, which batching lets the server form: {words}"
            ) from error
        times: list[Times] = []
        for _ in range(TIMED_RUNS):
            outputs = self.execute(requests, times)
        for name, values in outputs[-1].items() if self._rowed else ():
            if len(values) != each:
                raise CellFailure("unsupported", f"{name} has {len(values)} rows for a request of {each}")
        nbytes = sum(values.nbytes for values in self._joined(requests, size).values())
        self.costs[size] = {
            "join_ns": statistics.median(one.join_ns for one in times),
            "run_ns": statistics.median(one.run_ns for one in times),
            "read_ns": statistics.median(one.read_ns for one in times),
            "copied_bytes": nbytes * (answer.copies + (len(requests) > 1 or size != each)),
        }

    def refuse_other(self, inputs: Arrays) -> None:
        """Refuse a request by itself: joined with others, it would have them fail too. Triton does so itself.

        Raises:
            CellFailure: Its inputs are not the model's, at the shape of one request.
        """
        for tensor in self._workload.inputs:
            values, sizes = inputs.get(tensor.name), tensor.sizes(self._shape)
            if values is None or values.dtype != tensor.dtype or values.shape != sizes:
                came = "not there" if values is None else f"{values.dtype.name} {list(values.shape)}"
                wanted = f"{tensor.dtype} {list(sizes)}"
                raise CellFailure("unsupported", f"the input {tensor.name} is {came}, not {wanted}")
        if unknown := inputs.keys() - {tensor.name for tensor in self._workload.inputs}:
            raise CellFailure("unsupported", f"the model reads no {min(unknown)}")

    def execute(self, requests: Sequence[Arrays], times: list[Times] | None = None) -> list[dict[str, np.ndarray]]:
        """The outputs of each request, executed as one batch.

        Args:
            requests: Of each its inputs; their rows together are no more than the largest batch.
            times: Where to note what it took.

        Raises:
            CellFailure: Nothing is prepared for so many rows.
        """
        t0 = time.perf_counter_ns()
        rows = [len(next(iter(one.values()))) for one in requests] if self._rowed else [self._shape.batch]
        total = sum(rows)
        size = next((size for size in self.sizes if size >= total), None)
        if size is None or (size != total and not (self.batching and self.batching.pad)):
            prepared = ", ".join(map(str, self.sizes))
            raise CellFailure("unsupported", f"a batch of {total} came; prepared: {prepared}")
        inputs = self._joined(requests, size)
        t1 = time.perf_counter_ns()
        answer = self._boundaries[size]
        launched = answer.run(inputs)
        t2 = time.perf_counter_ns()
        outputs = answer.outputs(launched)
        parted = _parted(outputs, rows) if self._rowed else [outputs]
        if times is not None:
            times.append(Times(size, total, t1 - t0, t2 - t1, time.perf_counter_ns() - t2))
        return parted

    def _joined(self, requests: Sequence[Arrays], size: int) -> Arrays:
        """The inputs of one batch; rows that are missing repeat the last one, which every model takes."""
        if len(requests) == 1 and (not self._rowed or len(next(iter(requests[0].values()))) == size):
            return requests[0]
        joined = {}
        for name in requests[0]:
            parts = [one[name] for one in requests]
            missing = size - sum(map(len, parts))
            joined[name] = np.concatenate(parts + [parts[-1][-1:]] * missing)
        return joined

    def facts(self) -> dict[str, Any]:
        """What it is and what it costs, as JSON."""
        first = next(iter(self._boundaries.values()))
        return {
            "runners": self._runners,
            "boundary": first.name,
            "load_ns": self.load_ns,
            "cold_start_ns": {str(size): dict(one.runner.cold_start_ns) for size, one in self._boundaries.items()},
            "costs": {str(size): costs for size, costs in self.costs.items()},
        }


@dataclasses.dataclass(frozen=True)
class Times:
    """What one batch took: joining rows, the run with its copies to and from the device, reading outputs."""

    size: int
    rows: int
    join_ns: int
    run_ns: int
    read_ns: int


def _ends(message: str) -> str:
    """The ends of a long message: libraries say what failed first, and with which sizes last."""
    line = foreign.one_line(message, 10_000)
    return line if len(line) <= 2 * SHOWN else f"{line[:SHOWN]} ... {line[-SHOWN:]}"


def _parted(outputs: Arrays, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """The outputs of each request; rows that were only filled up are nobody's."""
    parted, at = [], 0
    for count in rows:
        parted.append({name: values[at : at + count] for name, values in outputs.items()})
        at += count
    return parted


class Boundary:
    """A runner that takes arrays of the host: it reads them where they lie, or copies them itself."""

    name = "the runner's own"
    copies = 0
    """How often the inputs are copied on the host."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def at(self, shape: Shape) -> Boundary | None:
        """The same runner at another batch; None where it needs another runner."""
        return self if self.runner.device == "cpu" or self.runner.options.get("dynamic") else None

    def first(self, inputs: Arrays) -> None:
        """The first run at a batch, whose errors say what the runtime lacks."""
        self.runner.run(self.runner.place(inputs))
        self.runner.runs_ns.clear()

    def run(self, inputs: Arrays) -> Any:
        """Execute a batch to its end."""
        return self.runner.launch(self.runner.place(inputs))

    def outputs(self, launched: Any) -> dict[str, np.ndarray]:
        """What a run gave, in float32."""
        return dict(self.runner.outputs(launched))


def boundary(runner: Runner) -> Boundary:
    """What executes arrays of the host with a runner that is loaded."""
    if runner.device == "cpu" or getattr(runner, "transfers_inside", False):
        return Boundary(runner)
    from ceilings.serving.device_boundary import DeviceBoundary

    return DeviceBoundary(runner)
