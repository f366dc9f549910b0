"""Memory that the client and a server on the same machine share, by the shared memory extensions of Triton's protocol.

Inputs are written into it once, before anything is timed, and outputs of one request always go to the same place: what
this saves is the way of the tensors, and what a client pays to fill the memory is its own.
"""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ceilings.errors import CellFailure
from ceilings.lifetime import SHARED_MEMORY, identity
from ceilings.serving.kserve import TransportError, pack

ALIGNED = 256
"""Tensors begin at multiples of this many bytes."""

_numbers = itertools.count()


class Place(NamedTuple):
    """Where a tensor lies."""

    region: str
    offset: int
    nbytes: int


class Region(Protocol):
    """A piece of shared memory, of the kind ``system`` or ``cuda``."""

    kind: str
    name: str
    nbytes: int
    key: str
    """Of ``shm_open``; of system memory."""
    handle: bytes
    """Of CUDA IPC; of a GPU's memory."""
    device: int

    def write(self, offset: int, raw: bytes) -> None:
        """Put bytes at a place."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """The bytes at a place."""

    def close(self) -> None:
        """Give the memory back."""


class SystemRegion:
    """Shared memory of the operating system; its name says whose it is, so that it goes even if its owner is killed."""

    kind = "system"
    handle = b""
    device = 0

    def __init__(self, nbytes: int) -> None:
        self.name = f"ceilings-{identity()}-{next(_numbers)}"
        self.key = f"/{self.name}"
        self.nbytes = nbytes
        self._path = Path(SHARED_MEMORY, self.name)
        try:
            number = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise TransportError(f"no shared memory here ({error.strerror})") from None
        try:
            os.posix_fallocate(number, 0, nbytes)  # a full file system is an error here, and not a crash at a write
            self._memory = mmap.mmap(number, nbytes)
        except OSError as error:
            self._path.unlink()
            raise TransportError(f"no {nbytes} bytes of shared memory ({error.strerror})") from None
        finally:
            os.close(number)

    def write(self, offset: int, raw: bytes) -> None:
        """Put bytes at a place."""
        _within(self, offset, len(raw))
        self._memory[offset : offset + len(raw)] = raw

    def read(self, offset: int, nbytes: int) -> bytes:
        """The bytes at a place."""
        _within(self, offset, nbytes)
        return self._memory[offset : offset + nbytes]

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        self._path.unlink(missing_ok=True)


GRANULE = 2 << 20
"""Bytes of a block of a GPU's memory. CUDA shares whole blocks between processes, so a region has its own."""


class CudaRegion:
    """Memory of a GPU that another process can open; the driver takes it back when its owner ends."""

    kind = "cuda"
    key = ""
    device = 0

    def __init__(self, nbytes: int) -> None:
        try:
            from ceilings.cuda import device as cuda
        except ImportError as error:
            raise TransportError(f"no CUDA shared memory here ({error})") from None
        self._cuda = cuda
        self.name = f"ceilings-{identity()}-{next(_numbers)}"
        self.nbytes = nbytes
        try:
            cuda.initialise()
            whole = -(-nbytes // GRANULE) * GRANULE
            self._pointer: int = cuda.check(cuda.cudart.cudaMalloc(whole), "cudaMalloc")
            handle = cuda.check(cuda.cudart.cudaIpcGetMemHandle(self._pointer), "cudaIpcGetMemHandle")
        except (CellFailure, cuda.CudaError) as error:
            raise TransportError(f"no CUDA shared memory here ({error})") from None
        self.handle = bytes(handle.reserved)

    def write(self, offset: int, raw: bytes) -> None:
        """Put bytes at a place."""
        _within(self, offset, len(raw))
        source = np.frombuffer(raw, np.uint8)
        if raw:
            copied = self._cuda.cudart.cudaMemcpy(self._pointer + offset, source.ctypes.data, len(raw), self._cuda.H2D)
            self._cuda.check(copied, "cudaMemcpy")
            # From pageable memory it may return before the device has the data, which another process reads.
            self._cuda.check(self._cuda.cudart.cudaDeviceSynchronize(), "cudaDeviceSynchronize")

    def read(self, offset: int, nbytes: int) -> bytes:
        """The bytes at a place."""
        _within(self, offset, nbytes)
        values = np.empty(nbytes, np.uint8)
        if nbytes:
            copied = self._cuda.cudart.cudaMemcpy(values.ctypes.data, self._pointer + offset, nbytes, self._cuda.D2H)
            self._cuda.check(copied, "cudaMemcpy")
        return values.tobytes()

    def close(self) -> None:
        """Give the memory back."""
        self._cuda.check(self._cuda.cudart.cudaFree(self._pointer), "cudaFree")


def _within(region: Region, offset: int, nbytes: int) -> None:
    if offset < 0 or offset + nbytes > region.nbytes:
        raise TransportError(f"{nbytes} bytes at {offset} are not within the {region.nbytes} of shared memory")


def placed(kind: str, tensors: Mapping[str, np.ndarray], outputs: Mapping[str, int]) -> tuple[Region, dict[str, Place]]:
    """A region with tensors in it and room for outputs, and where each lies.

    Args:
        kind: ``system`` or ``cuda``.
        tensors: By name.
        outputs: How many bytes each has.

    Raises:
        TransportError: There is no such memory.
    """
    packed = {name: pack(array) for name, array in tensors.items()}
    sizes = {name: len(raw) for name, raw in packed.items()} | dict(outputs)
    if len(sizes) != len(packed) + len(outputs):
        raise TransportError("an input and an output of one name have no places in shared memory")
    starts = np.cumsum([0, *(-(-size // ALIGNED) * ALIGNED for size in sizes.values())])
    region: Region = (SystemRegion if kind == "system" else CudaRegion)(max(int(starts[-1]), ALIGNED))
    places = {
        name: Place(region.name, int(start), size)
        for (name, size), start in zip(sizes.items(), starts[:-1], strict=True)
    }
    for name, raw in packed.items():
        region.write(places[name].offset, raw)
    return region, places
