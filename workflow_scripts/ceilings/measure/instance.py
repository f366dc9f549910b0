"""One instance of a co-location: a loaded cell that answers requests, one after another, between two times.

It obeys the same commands as a thread of the process that leads and as a separate process
(``python -m ceilings.measure.instance PIPE PARENT``). Times are ``perf_counter_ns``, one clock for all processes of a
Linux system: so instances are at work in the same window without waiting for each other inside it.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from typing import Any

from ceilings import environment, lifetime
from ceilings.errors import CellFailure, UserError
from ceilings.isolation import ended_by, signal_name
from ceilings.measure.gate import constant, gate, stacked
from ceilings.measure.loop import undisturbed
from ceilings.measure.setup import make_runner, read_pool
from ceilings.measure.worker import make_bench, memory, sources
from ceilings.models import pool
from ceilings.program import leave
from ceilings.provenance import package_flags, provenance

Span = tuple[int, int]
"""When a request began and when it ended."""

ENDING_SECONDS = 10
"""So long a process may take to end once it is asked to."""


@dataclasses.dataclass(frozen=True)
class Window:
    """When instances are at work: from ``begins_ns`` on, and until a request has ended after ``closes_ns``."""

    begins_ns: int
    closes_ns: int


class Instance:
    """A cell's runner with its pool.

    Args:
        task: As a process that measures the cell gets it, and ``processors``: where it may run; empty: everywhere.
    """

    def __init__(self, task: Mapping[str, Any]) -> None:
        self._task = task
        self._turn = 0

    def load(self) -> dict[str, Any]:
        """Make it ready and answer the elements that have a reference, alone.

        Returns:
            ``pass_ns``, what these answers took, and ``flags``.

        Raises:
            CellFailure: The runtime cannot run it.
        """
        if processors := self._task["processors"]:
            os.sched_setaffinity(0, processors)  # of this thread, and of those that it starts
        runner = self._runner = make_runner(self._task)
        self._bench = make_bench(runner)
        self._bench.refuse_other_device(self._task["cell"]["device"])
        elements = read_pool(self._task)
        self._reference = pool.load_outputs(self._task["reference"], pool.digest(pool.load_pool(self._task["inputs"])))
        runner.load()
        self._slots = [runner.place(element) for element in elements]
        self._elements = elements[: len(next(iter(self._reference.values())))]
        self._stream = getattr(runner, "exposed_stream", None)
        runner.first(self._slots[0])
        start = time.perf_counter_ns()
        self._outputs()
        return {"pass_ns": time.perf_counter_ns() - start, "flags": constant(self._elements, self._reference)}

    def clock_ns(self) -> int:
        """Its time of now, for who leads to hold against the one there."""
        return time.perf_counter_ns()

    def check(self, window: Window) -> dict[str, Any]:
        """Hold answers against the FP32 reference, over and over within a window.

        Returns:
            ``parity`` of the answers that were farthest, and ``answers``, how many were held against it.

        Raises:
            CellFailure: Some were too far.
        """
        _sleep_until(window.begins_ns)
        farthest: dict[str, Any] | None = None
        passes = 0
        while not passes or time.perf_counter_ns() < window.closes_ns:
            outputs, tolerance = self._outputs(), self._task["spec"]["tolerance"]
            parity = gate(self._runner.workload, self._elements, outputs, self._reference, tolerance)
            passes += 1
            if farthest is None or (parity["relative_l2"] or 0) > (farthest["relative_l2"] or 0):
                farthest = parity
        return {"parity": farthest, "answers": passes * len(self._elements)}

    def answer(self, window: Window) -> list[Span]:
        """Answer requests in a closed loop, each with the next element of the pool.

        Returns:
            The span of each: on a GPU from before the first call that submits until the wait for the stream returns.
        """
        prepare, launch, stream = self._runner.activate, self._runner.launch, self._stream
        slots, turn, clock = self._slots, self._turn, time.perf_counter_ns
        spans: list[Span] = []
        closes, end = window.closes_ns, 0
        with self._failures():
            _sleep_until(window.begins_ns)
            while end < closes:
                slot = slots[turn % len(slots)]
                prepare(slot)
                if stream is not None:
                    stream.synchronize()
                begin = clock()
                launched = launch(slot)
                if stream is not None:
                    stream.synchronize()
                end = clock()
                del launched  # freeing a framework's result is not part of a request
                spans.append((begin, end))
                turn += 1
        self._turn = turn
        return spans

    def facts(self) -> dict[str, Any]:
        """What is known of it afterwards: ``memory`` of its process, ``provenance`` and ``flags``."""
        spec, torch, flags = self._task["spec"], sys.modules.get("torch"), package_flags(self._task["spec"]["packages"])
        if "torch" in spec["packages"] and torch and torch.get_num_threads() != spec["threads"]:
            flags.append(f"PyTorch computed with {torch.get_num_threads()} threads instead of {spec['threads']}")
        return {
            "memory": memory(self._bench),
            "provenance": provenance([*spec["packages"], "numpy"], sources(self._task)),
            "flags": flags,
        }

    def _outputs(self) -> dict[str, Any]:
        return stacked([self._runner.outputs(self._runner.run(slot)) for slot in self._slots[: len(self._elements)]])

    def _failures(self) -> Any:
        """What turns a GPU runtime's exceptions into failures of the cell; a CPU's has none."""
        return self._runner.failures() if hasattr(self._runner, "failures") else contextlib.nullcontext()


def _sleep_until(when_ns: int) -> None:
    time.sleep(max(0, when_ns - time.perf_counter_ns()) / 1e9)


class Host(abc.ABC):
    """Where an instance lives. Its commands are done one at a time, always in the same thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)

    @property
    @abc.abstractmethod
    def pid(self) -> int:
        """The process that computes."""

    @abc.abstractmethod
    def obey(self, command: str, *arguments: Any) -> Any:
        """Do a command of :class:`Instance`, and return what it does."""

    def call(self, command: str, *arguments: Any) -> Future[Any]:
        """Have a command done, and go on."""
        return self._thread.submit(self.obey, command, *arguments)

    def close(self) -> None:
        """End it."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class ThreadHost(Host):
    """An instance as a thread of this process."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__()
        self._instance = Instance(task)

    @property
    def pid(self) -> int:
        return os.getpid()

    def obey(self, command: str, *arguments: Any) -> Any:
        return getattr(self._instance, command)(*arguments)


class ProcessHost(Host):
    """An instance in a separate process.

    Args:
        task: Of the instance.
        variables: Of its environment, beside those of every process that executes a cell.
    """

    def __init__(self, task: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        super().__init__()
        self._pipe, theirs = Pipe()
        command = [sys.executable, "-m", "ceilings.measure.instance", str(theirs.fileno()), str(os.getpid())]
        environ = {**environment.executing(task["spec"]["threads"]), **variables}
        self._process = subprocess.Popen(command, env=environ, pass_fds=[theirs.fileno()])
        theirs.close()
        self._pipe.send(dict(task))

    @property
    def pid(self) -> int:
        return self._process.pid

    def obey(self, command: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((command, arguments))
            kind, result = self._pipe.recv()
        except (EOFError, OSError):
            status = self._process.wait()
            how = ended_by(signal_name(-status)) if status < 0 else f"ended with status {status}"
            raise CellFailure("crashed" if status < 0 else "runtime-error", f"the process {how}") from None
        if kind == "answer":
            return result
        if kind == "user":
            raise UserError(result)
        raise CellFailure(kind, result)

    def close(self) -> None:
        super().close()
        self._pipe.close()
        try:
            self._process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def failure_of(error: Exception) -> tuple[str, str]:
    """An exception as kind of failure and message; ``user`` where the user must act."""
    if isinstance(error, UserError):
        return "user", str(error)
    if isinstance(error, CellFailure):
        return error.kind, str(error)
    if isinstance(error, MemoryError):
        return "out-of-memory", str(error) or "MemoryError"
    traceback.print_exc()
    line = next(iter(str(error).splitlines()), "")[:300]
    return "runtime-error", f"{type(error).__name__}: {line}"


def main() -> None:
    """Obey until whoever leads has closed the pipe."""
    lifetime.die_with(int(sys.argv[2]))
    pipe: Connection = Connection(int(sys.argv[1]))
    instance = Instance(pipe.recv())
    with undisturbed():
        while True:
            try:
                command, arguments = pipe.recv()
            except EOFError:
                leave()
            try:
                pipe.send(("answer", getattr(instance, command)(*arguments)))
            except Exception as error:  # told to who leads, whatever it is
                pipe.send(failure_of(error))


if __name__ == "__main__":
    main()
