"""Runs requests by a schedule on a GPU: each copies its inputs in, is computed, and copies its outputs out.

Every answer is held against that of the same request run alone, bit for bit, as soon as it is home: a buffer that was
used too early shows as a wrong answer.
"""

from __future__ import annotations

import ctypes
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from ceilings.cuda import device as cuda
from ceilings.errors import CellFailure
from ceilings.measure.schedules import AFTER, COMPUTE, COPY_IN, COPY_OUT, MARK, PARTS, Buffers, Event, Schedule
from ceilings.measure.setup import make_runner
from ceilings.runtimes.base import Inputs
from ceilings.runtimes.cuda_runner import CudaRunner, as_float32

WARM_RUNS = 3
"""Before answers are taken: libraries choose kernels in the first ones."""

ALONE = 2
"""So often each request is run alone: answers that differ then cannot be checked bit for bit."""

_equal = ctypes.CDLL(None).memcmp
_equal.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]

Enqueue = Callable[[int], None]
"""A step of a request as a call; it gets the number of the element that the request computes."""


class HostMemory:
    """Inputs of some elements, and rooms for the outputs of some requests, in memory of the host.

    Args:
        runner: A loaded one: it knows names, sizes and the order of its tensors.
        elements: Of the input pool.
        rooms: How many requests may be in flight.
        pinned: Whether it is page-locked.

    Attributes:
        inputs: Of each element, by input: pointer.
        rooms: Of each room, in the workload's order: pointer and bytes.
        values: The same as arrays of bytes.
    """

    def __init__(self, runner: CudaRunner, elements: Sequence[Inputs], rooms: int, *, pinned: bool) -> None:
        self._keep: list[Any] = []
        self._pinned = pinned
        self.inputs: list[dict[str, int]] = []
        for element in elements:
            pointers = {}
            for name, (_, nbytes) in runner.input_buffers.items():
                source = np.ascontiguousarray(element[name])
                if source.nbytes != nbytes:
                    raise ValueError(f"input {name} has {source.nbytes} bytes; the runtime reads {nbytes}")
                pointers[name], values = self._memory(nbytes)
                values[:] = source.reshape(-1).view(np.uint8)
            self.inputs.append(pointers)
        made = [[self._memory(nbytes) for nbytes in runner.output_bytes] for _ in range(rooms)]
        self.rooms = [[(pointer, values.nbytes) for pointer, values in room] for room in made]
        self.values = [[values for _, values in room] for room in made]

    def _memory(self, nbytes: int) -> tuple[int, np.ndarray]:
        if not self._pinned:
            values = np.zeros(nbytes, np.uint8)
            self._keep.append(values)
            return values.ctypes.data, values
        buffer = cuda.PinnedBuffer(nbytes)
        self._keep.append(buffer)
        values = buffer.array((nbytes,), np.uint8)
        values[:] = 0
        return buffer.pointer, values


class Lanes:
    """The loaded models that schedules need, a buffer set each, and what each answers alone.

    Args:
        task: Of the cell, as a process that measures it gets it.
        schedules: All that are to run.
        elements: Those of the input pool that requests compute, in turn.

    Attributes:
        runners: By buffer set.
        streams: By number, those that only copy among them.
        answers: By buffer set, of each element the outputs' bytes when it ran alone, in the workload's order.
        memory: Of the host, by whether it is pinned.
    """

    def __init__(self, task: Mapping[str, Any], schedules: Sequence[Schedule], elements: Sequence[Inputs]) -> None:
        self._task, self._schedules, self._elements = task, schedules, elements
        self.runners: dict[Buffers, CudaRunner] = {}
        self.streams: dict[int, cuda.Stream] = {}
        self.answers: dict[Buffers, list[list[np.ndarray]]] = {}
        self.memory: dict[bool, HostMemory] = {}

    @property
    def first(self) -> CudaRunner:
        """The runner of the reference schedule."""
        return self.runners[self._schedules[0].buffers[0]]

    def load(self, first: CudaRunner) -> None:
        """Load a model for each buffer set, on the stream of the set, and take its answers.

        Args:
            first: The runner of the first set, not loaded yet.

        Raises:
            CellFailure: The runtime cannot run the model, or its answers to one request are not equal.
        """
        wanted = list(dict.fromkeys(one for schedule in self._schedules for one in schedule.buffers))
        for one in wanted:
            runner: Any = make_runner(self._task) if self.runners else first
            runner.given_stream = self.streams.get(one.stream)
            runner.sibling = first if self.runners else None
            runner.load()
            self.streams[one.stream] = runner.stream
            self.runners[one] = runner
            slot = runner.place(self._elements[0])
            for _ in range(WARM_RUNS):
                runner.run(slot)
        for number in {stream for schedule in self._schedules for stream in schedule.streams} - set(self.streams):
            self.streams[number] = cuda.Stream()
        most = max(schedule.in_flight for schedule in self._schedules)
        for pinned in {schedule.pinned for schedule in self._schedules}:
            self.memory[pinned] = HostMemory(first, self._elements, most, pinned=pinned)
        for one in wanted:
            self.answers[one] = self._alone(one)

    def _alone(self, one: Buffers) -> list[list[np.ndarray]]:
        """What a buffer set answers to each element, each request run to its end before the next begins."""
        pipeline = Pipeline(Schedule("alone", (one,), in_flight=1), self)
        pipeline.begin()
        answers: list[list[np.ndarray]] = []
        for again in range(ALONE):
            for element in range(len(self._elements)):
                for values in self.memory[True].values[0]:
                    values[:] = 0
                pipeline.submit(element, element)
                pipeline.wait(0)
                answer = [values.copy() for values in self.memory[True].values[0]]
                if not again:
                    answers.append(answer)
                elif any((a != b).any() for a, b in zip(answer, answers[element], strict=True)):
                    raise CellFailure(
                        "unsupported",
                        "two runs of the same request alone give answers that are not equal bit for bit, so that no "
                        "answer of a schedule can be checked",
                    )
        return answers

    def use(self, count: int) -> None:
        """Have requests go through the first elements alone."""
        for memory in self.memory.values():
            del memory.inputs[count:]

    def outputs(self, one: Buffers) -> list[dict[str, np.ndarray]]:
        """The answers of a buffer set as arrays by name, of each element."""
        runner = self.runners[one]
        return [
            {
                output.name: as_float32(raw, kind).reshape(output.sizes(runner.shape))
                for output, raw, kind in zip(runner.workload.outputs, answer, runner.output_types, strict=True)
            }
            for answer in self.answers[one]
        ]


class Pipeline:
    """Requests by one schedule.

    Args:
        schedule: It.
        lanes: Loaded.
    """

    def __init__(self, schedule: Schedule, lanes: Lanes) -> None:
        self.schedule = schedule
        self._lanes = lanes
        self._memory = lanes.memory[schedule.pinned]
        self._events: dict[Event, cuda.Event] = {}
        self._held: list[Any] = [None] * schedule.in_flight
        self._several = len({one.stream for one in schedule.buffers}) > 1
        self._program = [self._compiled(number) for number in range(schedule.cycle)]
        arrived = [schedule.steps(room)[-1].event for room in range(schedule.in_flight)]
        self._home = [self._event(event).native for event in arrived if event]
        self.checked = 0

    def begin(self) -> None:
        """Make ready: nothing is under way, no room holds an answer, the thread launches on the schedule's stream."""
        cuda.check(cudart.cudaDeviceSynchronize(), "waiting for the device")
        for room in self._memory.values:
            for values in room:
                values[:] = 255
        self._lanes.runners[self.schedule.buffers[0]].enter_stream()

    def submit(self, number: int, element: int) -> None:
        """Enqueue a request."""
        for step in self._program[number % self.schedule.cycle]:
            step(element)

    def wait(self, room: int) -> None:
        """Wait until the request in a room is home."""
        cuda.check(cudart.cudaEventSynchronize(self._home[room]), "waiting for a request")

    def timed(self, count: int) -> dict[str, list[int]]:
        """The spans of the parts of requests, in ns of the device's clock, by part; each over the requests in order.

        Only of one stream: there the parts follow each other, so that events between them bound them.
        """
        schedule, used = self.schedule, len(self._memory.inputs)
        rooms = [[cuda.Event() for _ in range(len(PARTS) + 1)] for _ in range(schedule.in_flight)]
        stream = self._lanes.streams[schedule.buffers[0].stream]
        spans: dict[str, list[int]] = {part: [] for part in PARTS}
        self.begin()
        for number in range(count + schedule.in_flight):
            room = number % schedule.in_flight
            events = rooms[room]
            if number >= schedule.in_flight:
                self.wait(room)
                self._check(number - schedule.in_flight)
                for part, (begin, end) in zip(PARTS, itertools.pairwise(events), strict=True):
                    spans[part].append(cuda.elapsed_ns(begin, end))
            if number < count:
                *enqueues, home = self._program[number % schedule.cycle]
                events[0].record(stream)
                for enqueue, event in zip(enqueues, events[1:], strict=True):
                    enqueue(number % used)
                    event.record(stream)
                home(number % used)
        return spans

    def window(self, seconds: float, least: int) -> dict[str, Any]:
        """Requests in a closed loop of ``in_flight`` requests for a time, and until ``least`` were submitted.

        Returns:
            ``latency_ns``: of each request, from before its first copy is submitted until the host has waited for its
            outputs. ``submit_ns``: the median time of the calls that submit one. ``completions`` in ``elapsed_ns``:
            requests that came home between the first that came home with the window full and the last one submitted
            within it.

        Raises:
            CellFailure: An answer differs from that of the request alone.
        """
        in_flight, used, clock = self.schedule.in_flight, len(self._memory.inputs), time.perf_counter_ns
        program, cycle = self._program, self.schedule.cycle
        submitted: list[int] = []
        took: list[int] = []
        home: list[int] = []
        self.begin()
        closes = clock() + int(seconds * 1e9)
        open_ = True
        while open_ or len(home) < len(submitted):
            sent, back = len(submitted), len(home)
            if open_ and sent - back < in_flight:
                begin = clock()
                if begin >= closes and sent >= least:
                    open_, full = False, back
                    continue
                element = sent % used
                for step in program[sent % cycle]:
                    step(element)
                took.append(clock() - begin)
                submitted.append(begin)
                continue
            self.wait(back % in_flight)
            home.append(clock())
            self._check(back)
        self._held[:] = [None] * in_flight
        return {
            "latency_ns": [end - begin for begin, end in zip(submitted, home, strict=True)],
            "submit_ns": float(np.median(took)),
            "completions": full - 1,
            "elapsed_ns": home[full - 1] - home[0],
        }

    def requests(self, count: int, enter: Callable[[], Any], leave: Callable[[], Any]) -> None:
        """Some requests, the calls that submit each of them between two marks, and the wait for the last ones too."""
        in_flight, used = self.schedule.in_flight, len(self._memory.inputs)
        self.begin()
        for number in range(count):
            if number >= in_flight:
                self.wait(number % in_flight)
                self._check(number - in_flight)
            enter()
            self.submit(number, number % used)
            leave()
        enter()
        for number in range(max(0, count - in_flight), count):
            self.wait(number % in_flight)
        leave()
        for number in range(max(0, count - in_flight), count):
            self._check(number)

    def _check(self, number: int) -> None:
        """Hold the answer of a request that is home against that of the same request alone."""
        one = self.schedule.buffers[number % len(self.schedule.buffers)]
        expected = self._lanes.answers[one][number % len(self._memory.inputs)]
        room = self._memory.rooms[number % self.schedule.in_flight]
        self.checked += 1
        for (pointer, nbytes), values in zip(room, expected, strict=True):
            if _equal(pointer, values.ctypes.data, nbytes):
                raise CellFailure(
                    "parity",
                    f"{self.schedule.name}: the answer of request {number + 1} differs from that of the same request "
                    "alone: a buffer was used before the request that needed it was done with it",
                )

    def _event(self, event: Event) -> cuda.Event:
        if event not in self._events:
            self._events[event] = cuda.Event(timing=False)
        return self._events[event]

    def _compiled(self, number: int) -> list[Enqueue]:
        """The steps of a request as calls, as lean as Python allows: a host that is slow would hide what streams do."""
        schedule, lanes = self.schedule, self._lanes
        one = schedule.buffers[number % len(schedule.buffers)]
        runner, room = lanes.runners[one], number % schedule.in_flight
        compiled: list[Enqueue] = []
        for step in schedule.steps(number):
            handle = lanes.streams[step.stream].native
            if step.do == COPY_IN:
                compiled.append(_copies_in(runner, self._memory.inputs, handle))
            elif step.do == COMPUTE:
                compiled.append(_launch(runner, self._held, room, enter=self._several))
            elif step.do == COPY_OUT:
                compiled.append(_copies_out(runner, self._held, room, self._memory.rooms[room], handle))
            elif step.event and step.do in (AFTER, MARK):
                event = self._event(step.event).native
                compiled.append(_wait(handle, event) if step.do == AFTER else _record(handle, event))
        return compiled


def _copies_in(runner: CudaRunner, inputs: Sequence[Mapping[str, int]], handle: Any) -> Enqueue:
    copy, kind = cudart.cudaMemcpyAsync, cuda.H2D
    of_element = [
        [(pointer, element[name], nbytes) for name, (pointer, nbytes) in runner.input_buffers.items()]
        for element in inputs
    ]

    def enqueue(element: int) -> None:
        for destination, source, nbytes in of_element[element]:
            copy(destination, source, nbytes, kind, handle)

    return enqueue


def _launch(runner: CudaRunner, held: list[Any], room: int, *, enter: bool) -> Enqueue:
    """The launch. Its outputs are held until the room's next request: a framework would give their memory to others."""
    launch, enter_stream = runner.launch, runner.enter_stream

    def enqueue(element: int) -> None:
        held[room] = launch(None)

    def enqueue_there(element: int) -> None:
        enter_stream()
        held[room] = launch(None)

    return enqueue_there if enter else enqueue


def _copies_out(
    runner: CudaRunner, held: Sequence[Any], room: int, places: Sequence[tuple[int, int]], handle: Any
) -> Enqueue:
    copy, kind, pointers = cudart.cudaMemcpyAsync, cuda.D2H, runner.output_pointers

    def enqueue(element: int) -> None:
        for (host, nbytes), device in zip(places, pointers(held[room]), strict=True):
            copy(host, device, nbytes, kind, handle)

    return enqueue


def _wait(handle: Any, event: Any) -> Enqueue:
    wait = cudart.cudaStreamWaitEvent

    def enqueue(element: int) -> None:
        wait(handle, event, 0)

    return enqueue


def _record(handle: Any, event: Any) -> Enqueue:
    record = cudart.cudaEventRecord

    def enqueue(element: int) -> None:
        record(event, handle)

    return enqueue
