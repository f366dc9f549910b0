"""Joins requests into batches as Triton's dynamic batcher does, and counts what becomes of them. For one event loop."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ceilings.serving.batching import Batching
from ceilings.serving.executor import Arrays, Executor, Times

Answer = dict[str, np.ndarray]


def due(waiting: Sequence[int], waited_ns: int, batching: Batching | None) -> int:
    """How many of the waiting requests are executed now, together; 0: none yet.

    >>> of = Batching(largest=8, delay_ms=1, preferred=(4,))
    >>> due([1, 1], 0, of), due([1, 1], 10**6, of), due([1] * 5, 0, of), due([4, 4], 0, of), due([3, 6], 0, of)
    (0, 2, 4, 2, 1)

    Args:
        waiting: Rows of each, the oldest first.
        waited_ns: How long the oldest has waited.
        batching: None: each is a batch.
    """
    if batching is None or not waiting:
        return min(1, len(waiting))
    rows = count = best = 0
    for each in waiting:
        if rows + each > batching.largest:
            break
        rows, count = rows + each, count + 1
        if rows == batching.largest or rows in batching.preferred:
            best = count
    if best:
        return best
    return count if count < len(waiting) or waited_ns >= batching.delay_ms * 1e6 else 0


@dataclasses.dataclass
class Tally:
    """Sums since the server began, over requests: a batch of four adds its times four times, as in Triton."""

    requests: int = 0
    failures: int = 0
    executions: int = 0
    inferences: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0
    request_ns: int = 0
    sizes: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)


@dataclasses.dataclass
class _Waiting:
    inputs: Arrays
    rows: int
    arrived_ns: int
    answer: asyncio.Future[Answer]


class Batcher:
    """The requests of one model, and the instances that execute them, each in a thread of its own.

    Args:
        make: Makes an executor.
        instances: How many execute side by side.
        batching: How requests are joined.
    """

    def __init__(self, make: Callable[[], Executor], instances: int, batching: Batching | None) -> None:
        self.tally = Tally()
        self.batching = batching
        self.executors = [make() for _ in range(instances)]
        self._threads = [concurrent.futures.ThreadPoolExecutor(1) for _ in range(instances)]
        self._free = collections.deque(range(instances))
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Make every instance ready.

        Raises:
            CellFailure: The runtime cannot run it.
        """
        loop = asyncio.get_running_loop()
        for executor, thread in zip(self.executors, self._threads, strict=True):
            await loop.run_in_executor(thread, executor.load)

    async def answer(self, inputs: Arrays, arrived_ns: int) -> Answer:
        """The outputs for one request.

        Raises:
            Exception: What the batch that it was in raised.
        """
        self.executors[0].refuse_other(inputs)
        rows = next((values.shape[0] if values.ndim else 1 for values in inputs.values()), 1)
        one = _Waiting(inputs, rows, arrived_ns, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._dispatch()
        return await one.answer

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count a request that fails within."""
        try:
            yield
        except Exception:
            self.tally.failures += 1
            raise

    def answered(self, arrived_ns: int) -> None:
        """Count a request whose answer is about to be sent."""
        self.tally.requests += 1
        self.tally.request_ns += time.perf_counter_ns() - arrived_ns

    def _dispatch(self) -> None:
        """Give what is due to instances that are free, and come again when more is."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while self._free and self._waiting:
            waited = time.perf_counter_ns() - self._waiting[0].arrived_ns
            count = due([one.rows for one in self._waiting], waited, self.batching)
            if count == 0:
                assert self.batching is not None
                left = self.batching.delay_ms / 1e3 - waited / 1e9
                self._alarm = asyncio.get_running_loop().call_later(max(0.0, left), self._dispatch)
                return
            batch = [self._waiting.popleft() for _ in range(count)]
            task = asyncio.get_running_loop().create_task(self._execute(self._free.popleft(), batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _execute(self, instance: int, batch: list[_Waiting]) -> None:
        times: list[Times] = []
        loop = asyncio.get_running_loop()
        began = time.perf_counter_ns()
        try:
            inputs = [one.inputs for one in batch]
            answers = await loop.run_in_executor(
                self._threads[instance], self.executors[instance].execute, inputs, times
            )
        except Exception as error:
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
        else:
            self._count(batch, began, times[0])
            for one, answer in zip(batch, answers, strict=True):
                if not one.answer.done():  # whose client has left
                    one.answer.set_result(answer)
        finally:
            self._free.append(instance)
            self._dispatch()

    def _count(self, batch: list[_Waiting], began: int, took: Times) -> None:
        tally, count = self.tally, len(batch)
        tally.executions += 1
        tally.inferences += took.rows
        tally.sizes[took.rows] += 1
        tally.queue_ns += sum(began - one.arrived_ns for one in batch)
        tally.compute_input_ns += took.join_ns * count
        tally.compute_infer_ns += took.run_ns * count
        tally.compute_output_ns += took.read_ns * count
