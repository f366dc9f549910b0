"""Streams, events and buffers for every runtime, so that one clock and one boundary serve all of them.

A thin layer on ``cuda.bindings.runtime``. The timing loops call the bindings themselves: a wrapper costs about as much
as the calls it would wrap.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart
from numpy.typing import DTypeLike, NDArray

from ceilings.errors import CellFailure

H2D = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
D2H = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
D2D = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
_SUCCESS = cudart.cudaError_t.cudaSuccess
_OUT_OF_MEMORY = cudart.cudaError_t.cudaErrorMemoryAllocation


class CudaError(RuntimeError):
    """A CUDA call failed for a reason that no cell explains."""


def check(result: tuple[Any, ...], what: str = "a CUDA call") -> Any:
    """What a call of the bindings returned beside its error code.

    Raises:
        CellFailure: ``out-of-memory``.
        CudaError: Any other error.
    """
    error, *values = result
    if error != _SUCCESS:
        cudart.cudaGetLastError()  # else the next call of a framework reports this error as its own
        name = getattr(error, "name", str(error))
        if error == _OUT_OF_MEMORY:
            raise CellFailure("out-of-memory", f"{what}: the GPU's memory does not suffice ({name})")
        raise CudaError(f"{what} failed: {name}")
    return values[0] if len(values) == 1 else tuple(values) if values else None


def problem() -> str | None:
    """Why no CUDA device can be used; None if one can."""
    error, count = cudart.cudaGetDeviceCount()
    if error != _SUCCESS:
        words = bytes(cudart.cudaGetErrorString(error)[1]).decode()
        return f"cudaGetDeviceCount: {words} ({getattr(error, 'name', error)})"
    return None if count else "no CUDA device is visible"


def initialise() -> None:
    """Make device 0's context current: seconds of work that belong to no runtime.

    Raises:
        CellFailure: CUDA has no device, or the driver is too old for it.
    """
    try:
        check(cudart.cudaSetDevice(0), "cudaSetDevice")
        check(cudart.cudaFree(0), "creating the CUDA context")
    except CudaError as error:
        raise CellFailure("runtime-error", problem() or str(error)) from error


def capability() -> tuple[int, int]:
    """Compute capability of device 0."""
    return attribute("ComputeCapabilityMajor"), attribute("ComputeCapabilityMinor")


def attribute(name: str) -> int:
    """A device attribute of device 0, such as ``L2CacheSize``."""
    return int(check(cudart.cudaDeviceGetAttribute(getattr(cudart.cudaDeviceAttr, f"cudaDevAttr{name}"), 0), name))


def memory_used() -> int:
    """Bytes of the device that are in use, by whoever."""
    free, total = check(cudart.cudaMemGetInfo(), "cudaMemGetInfo")
    return int(total) - int(free)


class Stream:
    """A stream that does not wait for the default stream.

    Attributes:
        native: What the bindings take.
        handle: The ``cudaStream_t`` as a number, which is what frameworks take.
    """

    def __init__(self) -> None:
        self.native = check(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking), "creating a stream")
        self.handle = int(self.native)

    def synchronize(self) -> None:
        """Wait until everything enqueued is done."""
        check(cudart.cudaStreamSynchronize(self.native), "waiting for the stream")


class Event:
    """An event; ``timing=False`` makes one that is only waited for, which is cheaper."""

    def __init__(self, timing: bool = True) -> None:
        flags = cudart.cudaEventDefault if timing else cudart.cudaEventDisableTiming
        self.native = check(cudart.cudaEventCreateWithFlags(flags), "creating an event")

    def record(self, stream: Stream) -> None:
        """Enqueue it."""
        check(cudart.cudaEventRecord(self.native, stream.native), "recording an event")


def elapsed_ns(begin: Event, end: Event) -> int:
    """Time between two events that are done, in ns; the clock ticks about every 500 ns."""
    return round(check(cudart.cudaEventElapsedTime(begin.native, end.native), "reading an event") * 1e6)


class DeviceBuffer:
    """Memory of the device; freed with the object."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = int(nbytes)
        self.pointer = 0
        self.pointer = int(check(cudart.cudaMalloc(max(self.nbytes, 1)), f"allocating {self.nbytes:,} bytes"))

    def upload(self, values: NDArray[Any]) -> None:
        """Copy an array in and wait."""
        values = np.ascontiguousarray(values)
        if values.nbytes != self.nbytes:
            raise ValueError(f"{values.nbytes} bytes do not fill a buffer of {self.nbytes}")
        # A copy on the default stream from pageable memory may return before the device has the data.
        check(cudart.cudaMemcpy(self.pointer, values.ctypes.data, self.nbytes, H2D), "copying to the device")
        check(cudart.cudaDeviceSynchronize(), "copying to the device")

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at interpreter exit the driver may be gone
            if self.pointer:
                cudart.cudaFree(self.pointer)


class PinnedBuffer:
    """Page-locked host memory with a numpy view; freed with the object, which the view does not keep alive."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = int(nbytes)
        self.pointer = 0
        what = f"allocating {self.nbytes:,} bytes of pinned memory"
        self.pointer = int(check(cudart.cudaHostAlloc(max(self.nbytes, 1), cudart.cudaHostAllocDefault), what))
        self._bytes = (ctypes.c_byte * self.nbytes).from_address(self.pointer)

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """The memory as an array."""
        return np.ctypeslib.as_array(self._bytes).view(dtype).reshape(shape)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            if self.pointer:
                cudart.cudaFreeHost(self.pointer)


def download(pointer: int, nbytes: int) -> NDArray[np.uint8]:
    """Bytes of the device as an array; waits for the whole device first, and so for every stream."""
    check(cudart.cudaDeviceSynchronize(), "waiting for the device")
    values = np.empty(nbytes, np.uint8)
    check(cudart.cudaMemcpy(values.ctypes.data, pointer, nbytes, D2H), "copying from the device")
    return values


class L2Flush:
    """Overwrites twice the L2 cache, so that what follows finds none of its data there.

    The cache then holds modified lines of this buffer, whose writing back takes part of the bandwidth of what follows.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.buffer = DeviceBuffer(2 * max(attribute("L2CacheSize"), 1 << 20))

    def __call__(self) -> None:
        check(
            cudart.cudaMemsetAsync(self.buffer.pointer, 0, self.buffer.nbytes, self._stream.native),
            "flushing the cache",
        )


def call_costs(stream: Stream, repeats: int = 1000) -> dict[str, float]:
    """Median host time in ns of what an iteration calls beside the launch, on an idle stream."""
    begin, end = Event(), Event()
    clock, handle = time.perf_counter_ns, stream.native
    record, synchronize = cudart.cudaEventRecord, cudart.cudaStreamSynchronize
    costs: dict[str, list[int]] = {"clock": [], "event_record": [], "synchronize_idle": []}
    for _ in range(repeats):
        t0 = clock()
        t1 = clock()
        record(begin.native, handle)
        t2 = clock()
        record(end.native, handle)
        synchronize(handle)
        t3 = clock()
        synchronize(handle)
        t4 = clock()
        for name, value in (("clock", t1 - t0), ("event_record", t2 - t1), ("synchronize_idle", t4 - t3)):
            costs[name].append(value)
    stream.synchronize()
    return {f"{name}_ns": float(np.median(values)) for name, values in costs.items()}
