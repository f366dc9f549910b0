"""Streams, events and copies of CUDA on memory of the host, where no card is: work is done late and in any legal order.

It takes the place of the calls of ``cuda.bindings.runtime`` that :mod:`ceilings.measure.lanes` and
:mod:`ceilings.cuda.device` make, with their arguments and results. What is enqueued on a stream is done in its order;
between streams only events decide, and a seed decides the rest. So a buffer that is used without waiting is used at the
wrong time sooner or later. Copies of pageable memory do what CUDA's documentation says of them: one to the device has
read the host's memory when the call returns, one to the host is done when it returns.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart
from unit.measure import tiny_cell

from ceilings.runtimes.cuda_runner import CudaRunner

REAL = dict(vars(cudart))
OK = cudart.cudaError_t.cudaSuccess
TO_DEVICE, TO_HOST = (cudart.cudaMemcpyKind.cudaMemcpyHostToDevice, cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost)


class SimulatedCuda:
    """The device: its streams, and the memory that it and the host have.

    Args:
        seed: Decides which stream goes on next.
    """

    def __init__(self, seed: int = 0) -> None:
        self._chance = random.Random(seed)
        self._queues: dict[int, deque[tuple[str, Any]]] = {}
        self._recorded: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._times: dict[int, int] = {}
        self._memory: dict[int, Any] = {}
        self._pinned: set[int] = set()
        self._clock = 0
        self.free: dict[int, list[np.ndarray]] = {}
        """Memory that an allocator may give to what is launched on a stream, by stream."""
        self.current = 0
        """The stream that a thread of PyTorch launches on."""

    def install(self, monkeypatch: Any) -> SimulatedCuda:
        """Take the place of the bindings' calls."""
        for name in dir(self):
            if name.startswith("cuda"):
                real, mine = (len(inspect.signature(call).parameters) for call in (REAL[name], getattr(self, name)))
                assert real == mine, f"{name} takes {real} arguments, not {mine}"
                monkeypatch.setattr(cudart, name, getattr(self, name))
        return self

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """A kernel."""
        self._queues[stream].append(("work", work))

    # --- the calls ---------------------------------------------------------------------------------------------------

    def cudaStreamCreateWithFlags(self, flags: Any) -> tuple[Any, int]:
        stream = len(self._queues) + 1
        self._queues[stream] = deque()
        return OK, stream

    def cudaEventCreateWithFlags(self, flags: Any) -> tuple[Any, int]:
        event = len(self._recorded) + 1
        self._recorded[event] = self._done[event] = 0
        return OK, event

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any]:
        self._recorded[event] += 1
        self._queues[stream].append(("record", (event, self._recorded[event])))
        return (OK,)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Any]:
        assert flags == 0
        self._queues[stream].append(("wait", (event, self._recorded[event])))
        return (OK,)

    def cudaMemcpyAsync(self, to: int, source: int, nbytes: int, kind: Any, stream: int) -> tuple[Any]:
        if kind == TO_DEVICE and source not in self._pinned:
            staged = ctypes.string_at(source, nbytes)
            self.enqueue(stream, lambda: ctypes.memmove(to, staged, nbytes))
            return (OK,)
        self.enqueue(stream, lambda: ctypes.memmove(to, source, nbytes))
        if kind == TO_HOST and to not in self._pinned:
            self.cudaStreamSynchronize(stream)
        return (OK,)

    def cudaMemcpy(self, to: int, source: int, nbytes: int, kind: Any) -> tuple[Any]:
        ctypes.memmove(to, source, nbytes)
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> tuple[Any]:
        wanted = self._recorded[event]
        self._go_on(lambda: self._done[event] >= wanted)
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:
        self._go_on(lambda: not self._queues[stream])
        return (OK,)

    def cudaDeviceSynchronize(self) -> tuple[Any]:
        self._go_on(lambda: not any(self._queues.values()))
        return (OK,)

    def cudaEventElapsedTime(self, begin: int, end: int) -> tuple[Any, float]:
        return OK, (self._times[end] - self._times[begin]) / 1e6

    def cudaHostAlloc(self, nbytes: int, flags: Any) -> tuple[Any, int]:
        _, pointer = self.cudaMalloc(nbytes)
        self._pinned.add(pointer)
        return OK, pointer

    def cudaMalloc(self, nbytes: int) -> tuple[Any, int]:
        memory = (ctypes.c_byte * nbytes)()
        self._memory[ctypes.addressof(memory)] = memory
        return OK, ctypes.addressof(memory)

    def cudaFree(self, pointer: int) -> tuple[Any]:
        return (OK,)

    def cudaFreeHost(self, pointer: int) -> tuple[Any]:
        return (OK,)

    def cudaSetDevice(self, number: int) -> tuple[Any]:
        return (OK,)

    # --- the device --------------------------------------------------------------------------------------------------

    def _go_on(self, done: Callable[[], bool]) -> None:
        while not done():
            ready = [queue for queue in self._queues.values() if queue and self._may(queue[0])]
            assert ready, "every stream waits for another"
            what, how = self._chance.choice(ready).popleft()
            self._clock += 1000
            if what == "work":
                how()
            elif what == "record":
                event, count = how
                self._done[event], self._times[event] = count, self._clock

    def _may(self, head: tuple[str, Any]) -> bool:
        return head[0] != "wait" or self._done[head[1][0]] >= head[1][1]


class Output:
    """An output of a launch; its memory is given to the next launch as soon as nobody holds it, as PyTorch does."""

    def __init__(self, free: list[np.ndarray], nbytes: int) -> None:
        self._free = free
        self.values = free.pop() if free else np.zeros(nbytes, np.uint8)

    def __del__(self) -> None:
        self._free.append(self.values)


class SimulatedRunner(CudaRunner):
    """The model of :mod:`unit.measure.tiny_cell` in two kernels: the first gives the sum, the second the product.

    Like PyTorch it launches on the current stream of the thread.

    Attributes:
        device_of_all: The device that every runner is on.
        fresh: Whether outputs are new memory each time, as in PyTorch's eager mode, or one buffer, as in a CUDA graph.
    """

    device_of_all: SimulatedCuda
    fresh = False

    def load(self) -> None:
        self.open_device()
        self._inputs = {one.name: np.zeros(one.sizes(self.shape), np.float32) for one in self.workload.inputs}
        self.input_buffers = {name: (values.ctypes.data, values.nbytes) for name, values in self._inputs.items()}
        self.output_types = ("float32", "float32")
        self._fixed = self._new() if not self.fresh else []
        self.entered = 0
        self.enter_stream()

    def _new(self) -> list[Output]:
        free = self.device_of_all.free.setdefault(self.stream.handle, [])
        return [Output(free, nbytes) for nbytes in self.output_bytes]

    def enter_stream(self) -> None:
        self.entered += 1
        self.device_of_all.current = self.stream.native

    def place(self, element: Any) -> Any:
        return element

    def activate(self, slot: Any) -> None:
        for name, values in self._inputs.items():
            values[:] = slot[name]

    def launch(self, slot: Any) -> Any:
        outputs = self._new() if self.fresh else self._fixed
        left, right = self._inputs.values()
        for output, compute in zip(outputs, (np.add, np.multiply), strict=True):
            written = output.values.view(np.float32).reshape(left.shape)  # holds the memory, and not the output
            self.device_of_all.enqueue(self.device_of_all.current, functools.partial(compute, left, right, out=written))
        return outputs

    def output_pointers(self, launched: Any) -> tuple[int, ...]:
        return tuple(output.values.ctypes.data for output in launched)


def runner(device: SimulatedCuda, *, fresh: bool = False) -> SimulatedRunner:
    """A runner on a simulated device, not loaded yet."""
    made = type("Runner", (SimulatedRunner,), {"device_of_all": device, "fresh": fresh})
    return made(Path(), "fp32", tiny_cell.WORKLOAD, tiny_cell.SHAPE, 1, {})
