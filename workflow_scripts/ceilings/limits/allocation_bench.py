"""What memory costs to get and to give back: from CUDA, from a pool, from PyTorch's allocator, and page-locked.

All times are host times. ``first`` is an allocation that finds nothing kept, ``allocate`` and ``free`` are calls that
follow each other on an idle device. ``loop`` is an iteration that allocates, uses and frees; ``kept`` is the same
iteration in memory that was allocated before.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from cuda.bindings import runtime as cudart

from ceilings.cuda import device as cuda
from ceilings.cuda.memory_kinds import Pool
from ceilings.limits.transfer_bench import FEWEST_ROUNDS, MIB, ranged, reason

SIZES = (4096, 64 << 10, MIB, 16 * MIB, 256 * MIB)
"""Bytes of an allocation."""

SAMPLE_S, MOST = 0.004, 50
"""Seconds of one size in one round, about, and allocations in it at most."""

TIMES = ("first", "allocate", "free", "loop", "kept")

KEEP_ALL = 2**64 - 1


class Allocator:
    """Memory by ``cudaMalloc``; other kinds differ in what they say otherwise.

    Attributes:
        method: What gives and takes back.
    """

    method = "cudaMalloc and cudaFree"

    def __init__(self, stream: cuda.Stream) -> None:
        self.stream = stream

    def allocate(self, nbytes: int) -> Any:
        """Memory."""
        return cuda.check(cudart.cudaMalloc(nbytes), "allocating")

    def free(self, memory: Any) -> None:
        """Give it back."""
        cuda.check(cudart.cudaFree(memory), "freeing")

    def use(self, memory: Any, nbytes: int) -> None:
        """Enqueue work on all of it."""
        cuda.check(cudart.cudaMemsetAsync(memory, 0, nbytes, self.stream.native), "using")

    def forget(self) -> None:
        """Give back what is kept for later."""


class Pooled(Allocator):
    """Memory of a pool, in the order of the stream."""

    method = "cudaMallocFromPoolAsync and cudaFreeAsync, a pool that keeps all that is free"
    kept_bytes = KEEP_ALL

    def __init__(self, stream: cuda.Stream) -> None:
        super().__init__(stream)
        self._pool = Pool(self.kept_bytes)

    def allocate(self, nbytes: int) -> Any:
        return self._pool.allocate(nbytes, self.stream)

    def free(self, memory: Any) -> None:
        cuda.check(cudart.cudaFreeAsync(memory, self.stream.native), "freeing")

    def forget(self) -> None:
        self.stream.synchronize()
        self._pool.trim()


class PooledAsIs(Pooled):
    """The same as CUDA sets a pool up: it gives memory back at each wait."""

    method = "cudaMallocFromPoolAsync and cudaFreeAsync, a pool with CUDA's own settings (it keeps nothing over a wait)"
    kept_bytes = 0


class Cached(Allocator):
    """PyTorch's caching allocator."""

    method = "torch.empty, and the end of the tensor"

    def __init__(self, stream: cuda.Stream) -> None:
        super().__init__(stream)
        torch.cuda.set_stream(torch.cuda.ExternalStream(stream.handle))

    def allocate(self, nbytes: int) -> Any:
        return [torch.empty(nbytes, dtype=torch.uint8, device="cuda")]  # so that free can drop the only reference

    def free(self, memory: Any) -> None:
        memory.clear()

    def use(self, memory: Any, nbytes: int) -> None:
        super().use(memory[0].data_ptr(), nbytes)

    def forget(self) -> None:
        self.stream.synchronize()
        torch.cuda.empty_cache()


class Managed(Allocator):
    """Managed memory, which the device is the first to touch."""

    method = "cudaMallocManaged and cudaFree"

    def allocate(self, nbytes: int) -> Any:
        return cuda.check(cudart.cudaMallocManaged(nbytes, cudart.cudaMemAttachGlobal), "allocating")


class PageLocked(Allocator):
    """Page-locked memory of the host, used as the source of a copy to the device."""

    method = "cudaHostAlloc and cudaFreeHost; used by a copy to the device"

    def __init__(self, stream: cuda.Stream) -> None:
        super().__init__(stream)
        self._target = cuda.DeviceBuffer(SIZES[-1])

    def allocate(self, nbytes: int) -> Any:
        return cuda.check(cudart.cudaHostAlloc(nbytes, cudart.cudaHostAllocDefault), "allocating")

    def free(self, memory: Any) -> None:
        cuda.check(cudart.cudaFreeHost(memory), "freeing")

    def use(self, memory: Any, nbytes: int) -> None:
        to, handle = self._target.pointer, self.stream.native
        cuda.check(cudart.cudaMemcpyAsync(to, memory, nbytes, cuda.H2D, handle), "using")
        self.stream.synchronize()  # memory that a copy still reads is not to be freed


ALLOCATORS: dict[str, type[Allocator]] = {
    "cuda": Allocator,
    "pool": Pooled,
    "pool-default": PooledAsIs,
    "torch": Cached,
    "pinned": PageLocked,
    "managed": Managed,
}


class AllocationBench:
    """Measures each allocator on device 0.

    Args:
        rounds: Repetitions, each over all sizes and allocators.
        seconds: For all of it: it ends after three rounds once they are used up.
        sizes: Of allocations.
    """

    def __init__(self, rounds: int, seconds: float, sizes: Sequence[int]) -> None:
        self.rounds, self.seconds, self.sizes = rounds, seconds, tuple(sizes)
        self.stream = cuda.Stream()

    def run(self) -> dict[str, dict[str, Any]]:
        """Costs by allocator; one that cannot be had is ``{"unavailable": why}``."""
        print("allocations", file=sys.stderr, flush=True)
        costs: dict[str, dict[str, Any]] = {}
        made: dict[str, Allocator] = {}
        taken: dict[str, dict[int, dict[str, list[float]]]] = {}
        for name, kind in ALLOCATORS.items():
            try:
                made[name] = kind(self.stream)
                for nbytes in self.sizes:  # what only the first of all allocations needs
                    self._round(made[name], nbytes)
            except Exception as error:  # one that this machine does not have takes no other with it
                made.pop(name, None)
                costs[name] = {"unavailable": reason(error)}
            else:
                taken[name] = {nbytes: {what: [] for what in TIMES} for nbytes in self.sizes}
        start = time.monotonic()
        for done in range(self.rounds):
            if done >= FEWEST_ROUNDS and time.monotonic() - start > self.seconds:
                break
            for nbytes in self.sizes:
                for name, allocator in made.items():
                    for what, value in self._round(allocator, nbytes).items():
                        taken[name][nbytes][what].append(value)
        return costs | {name: _costs(made[name], sizes) for name, sizes in taken.items()}

    def _round(self, allocator: Allocator, nbytes: int) -> dict[str, float]:
        """Each time once, in us; of calls in a row the median."""
        clock, allocate, free, wait = time.perf_counter_ns, allocator.allocate, allocator.free, self.stream.synchronize
        allocator.forget()
        wait()
        start = clock()
        memory = allocate(nbytes)
        first = clock() - start
        allocator.use(memory, nbytes)
        free(memory)
        wait()
        count = max(1, min(MOST, int(SAMPLE_S * 1e9 / (4 * (clock() - start)))))
        calls: list[tuple[int, int]] = []
        for _ in range(count):
            t0 = clock()
            memory = allocate(nbytes)
            t1 = clock()
            free(memory)
            calls.append((t1 - t0, clock() - t1))
            wait()
        loop = self._loop(count, lambda: self._whole(allocator, nbytes))
        memory = allocate(nbytes)
        kept = self._loop(count, lambda: allocator.use(memory, nbytes))
        free(memory)
        wait()
        times = (first, *(statistics.median(column) for column in zip(*calls, strict=True)), loop, kept)
        return {name: value / 1e3 for name, value in zip(TIMES, times, strict=True)}

    @staticmethod
    def _whole(allocator: Allocator, nbytes: int) -> None:
        memory = allocator.allocate(nbytes)
        allocator.use(memory, nbytes)
        allocator.free(memory)

    def _loop(self, count: int, iteration: Callable[[], None]) -> float:
        """Mean host time of iterations in a row, until the stream is idle."""
        start = time.perf_counter_ns()
        for _ in range(count):
            iteration()
        self.stream.synchronize()
        return (time.perf_counter_ns() - start) / count


def _costs(allocator: Allocator, sizes: dict[int, dict[str, list[float]]]) -> dict[str, Any]:
    rounds = len(next(iter(sizes.values()))["first"])
    points = [
        {"bytes": nbytes, **{f"{name}_us": ranged(values) for name, values in times.items()}}
        for nbytes, times in sizes.items()
    ]
    return {"method": allocator.method, "rounds": rounds, "points": points}
