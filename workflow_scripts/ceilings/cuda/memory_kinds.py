"""Kinds of memory that host and device exchange data through, where pages lie, and pools of the device's memory."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import driver
from cuda.bindings import runtime as cudart
from numpy.typing import NDArray

from ceilings.control_groups import memory_limit
from ceilings.cuda import device as cuda

PAGEABLE, PINNED, WRITE_COMBINED, MAPPED, MANAGED = "pageable", "pinned", "write-combined", "mapped", "managed"

FLAGS = {
    PINNED: cudart.cudaHostAllocDefault,
    WRITE_COMBINED: cudart.cudaHostAllocWriteCombined,
    MAPPED: cudart.cudaHostAllocMapped,
}
"""Kinds that ``cudaHostAlloc`` gives, and its flags."""

DEVICE_PLACE, HOST_PLACE = cudart.cudaMemLocation(), cudart.cudaMemLocation()
"""Device 0 and the host, as prefetches and advice name them."""
DEVICE_PLACE.type, DEVICE_PLACE.id = cudart.cudaMemLocationType.cudaMemLocationTypeDevice, 0
HOST_PLACE.type, HOST_PLACE.id = cudart.cudaMemLocationType.cudaMemLocationTypeHost, 0


class HostBlock:
    """Memory that the host reads and writes, of one of the kinds; freed with the object.

    Args:
        kind: One of the kinds above.
        nbytes: Its size.

    Attributes:
        pointer: Its address on the host.
        view: All of it as bytes; the view does not keep the object alive.
    """

    def __init__(self, kind: str, nbytes: int) -> None:
        self.kind, self.nbytes = kind, nbytes
        self._free: Callable[[int], Any] | None = None
        what = f"allocating {nbytes:,} bytes of {kind} memory"
        if kind == PAGEABLE:
            self.view: NDArray[np.uint8] = np.zeros(nbytes, np.uint8)
            self.pointer = int(self.view.ctypes.data)
            return
        if kind == MANAGED:
            self.pointer = int(cuda.check(cudart.cudaMallocManaged(nbytes, cudart.cudaMemAttachGlobal), what))
            self._free = cudart.cudaFree
        else:
            self.pointer = int(cuda.check(cudart.cudaHostAlloc(nbytes, FLAGS[kind]), what))
            self._free = cudart.cudaFreeHost
        self.view = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(self.pointer))

    @property
    def device_pointer(self) -> int:
        """Where a kernel reads it: of mapped and of managed memory.

        Raises:
            CudaError: The device does not see it.
        """
        if self.kind == MANAGED:
            return self.pointer
        return int(cuda.check(cudart.cudaHostGetDevicePointer(self.pointer, 0), "mapping host memory"))

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at interpreter exit the driver may be gone
            if self._free:
                self._free(self.pointer)


@contextlib.contextmanager
def current(device: int) -> Iterator[None]:
    """Another device than device 0 is current within the block, for this thread."""
    cuda.check(cudart.cudaSetDevice(device), "choosing a device")
    try:
        yield
    finally:
        cuda.check(cudart.cudaSetDevice(0), "choosing device 0")


def devices() -> int:
    """How many devices this process sees."""
    return int(cuda.check(cudart.cudaGetDeviceCount(), "counting devices"))


class FarBuffer(cuda.DeviceBuffer):
    """Memory of device 1; freed with the object."""

    def __init__(self, nbytes: int) -> None:
        with current(1):
            super().__init__(nbytes)


def free_bytes() -> int:
    """What is free, of the device's memory or of the host's, whichever is less."""
    device, _ = cuda.check(cudart.cudaMemGetInfo(), "cudaMemGetInfo")
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    host = int(fields["MemAvailable"].split()[0]) * 1024
    return min(int(device), host, memory_limit() or host)


def moves_on_demand() -> bool:
    """Whether host and device may use managed memory at once; without that there are no prefetches."""
    return bool(cuda.attribute("ConcurrentManagedAccess"))


def prefetch(pointer: int, nbytes: int, place: Any, stream: cuda.Stream) -> None:
    """Enqueue the move of managed pages to a place."""
    cuda.check(cudart.cudaMemPrefetchAsync(pointer, nbytes, place, 0, stream.native), "prefetching managed memory")


def read_mostly(block: HostBlock) -> None:
    """Advise that the block is read far more often than written: each device that reads it gets a copy."""
    advice = cudart.cudaMemoryAdvise.cudaMemAdviseSetReadMostly
    cuda.check(cudart.cudaMemAdvise(block.pointer, block.nbytes, advice, DEVICE_PLACE), "advising read-mostly")


def stay_on_host(block: HostBlock) -> None:
    """Advise that the block stays on the host and device 0 reads it from there."""
    advices = cudart.cudaMemoryAdvise
    for advice, place in (
        (advices.cudaMemAdviseSetPreferredLocation, HOST_PLACE),
        (advices.cudaMemAdviseSetAccessedBy, DEVICE_PLACE),
    ):
        cuda.check(cudart.cudaMemAdvise(block.pointer, block.nbytes, advice, place), "advising where to stay")


class Pool:
    """A memory pool of device 0, for ``cudaMallocFromPoolAsync``; destroyed with the object.

    Args:
        kept_bytes: How much of what is free it keeps when a stream is waited for.
    """

    def __init__(self, kept_bytes: int) -> None:
        self.native: Any = None
        properties = cudart.cudaMemPoolProps()
        properties.allocType = cudart.cudaMemAllocationType.cudaMemAllocationTypePinned
        properties.location = DEVICE_PLACE
        self.native = cuda.check(cudart.cudaMemPoolCreate(properties), "creating a memory pool")
        threshold = cudart.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
        kept = driver.cuuint64_t(kept_bytes)
        cuda.check(cudart.cudaMemPoolSetAttribute(self.native, threshold, kept), "setting what a pool keeps")

    def allocate(self, nbytes: int, stream: cuda.Stream) -> int:
        """Memory in the order of the stream."""
        what = f"allocating {nbytes:,} bytes of a pool"
        return int(cuda.check(cudart.cudaMallocFromPoolAsync(nbytes, self.native, stream.native), what))

    def trim(self) -> None:
        """Give back what is free."""
        cuda.check(cudart.cudaMemPoolTrimTo(self.native, 0), "trimming a memory pool")

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            if self.native is not None:
                cudart.cudaMemPoolDestroy(self.native)
