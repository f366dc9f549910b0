"""PyCUDA's stream and buffers, with the surface of :mod:`ceilings.cuda.device`, on the same context.

CUDA's runtime API, through which the instrument times and captures, uses the primary context of device 0. PyCUDA is put
on that context too, so a stream or an address of one is good for the other.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart
from numpy.typing import DTypeLike, NDArray
from pycuda import driver

from ceilings.cuda import device as cuda
from ceilings.errors import CellFailure

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, for which PyCUDA has no name: the stream does not wait for the default one."""


@functools.cache
def open_context() -> Any:
    """Make device 0's primary context PyCUDA's current one, once."""
    driver.init()
    context = driver.Device(0).retain_primary_context()
    context.push()
    atexit.register(context.pop)  # PyCUDA aborts a process that ends with a context on its stack
    return context


class Stream(cuda.Stream):
    """A stream that PyCUDA made and owns, as the instrument takes one."""

    def __init__(self) -> None:
        open_context()
        self.pycuda = driver.Stream(NON_BLOCKING)
        self.handle = int(self.pycuda.handle)
        self.native = cudart.cudaStream_t(self.handle)


class DeviceBuffer:
    """Memory of the device; freed with the object."""

    def __init__(self, nbytes: int) -> None:
        open_context()
        self.nbytes = int(nbytes)
        with _out_of_memory(f"allocating {self.nbytes:,} bytes"):
            self._allocation = driver.mem_alloc(max(self.nbytes, 1))
        self.pointer = int(self._allocation)

    def upload(self, values: NDArray[Any]) -> None:
        """Copy an array in and wait."""
        values = np.ascontiguousarray(values)
        if values.nbytes != self.nbytes:
            raise ValueError(f"{values.nbytes} bytes do not fill a buffer of {self.nbytes}")
        driver.memcpy_htod(self.pointer, values)
        driver.Context.synchronize()


class PinnedBuffer:
    """Page-locked host memory with a numpy view; freed when neither the object nor a view is left."""

    def __init__(self, nbytes: int) -> None:
        open_context()
        self.nbytes = int(nbytes)
        with _out_of_memory(f"allocating {self.nbytes:,} bytes of pinned memory"):
            self._bytes = driver.pagelocked_empty(max(self.nbytes, 1), np.uint8)
        self.pointer = int(self._bytes.ctypes.data)

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """The memory as an array."""
        return self._bytes[: self.nbytes].view(dtype).reshape(shape)


class Stopwatch:
    """Device time between two of PyCUDA's events on a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream.pycuda
        self._begin, self._end = driver.Event(), driver.Event()

    def start(self) -> None:
        """Enqueue the first event."""
        self._begin.record(self._stream)

    def stop_ns(self) -> int:
        """Enqueue the second event, wait for it, and return the time between them in ns."""
        self._end.record(self._stream)
        self._end.synchronize()
        return round(self._begin.time_till(self._end) * 1e6)


@contextlib.contextmanager
def _out_of_memory(what: str) -> Iterator[None]:
    try:
        yield
    except driver.MemoryError as error:
        raise CellFailure("out-of-memory", f"{what}: the GPU's memory does not suffice ({error})") from error
