"""The kernel that copies: what reads and writes memory of the host where no copy engine does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from cuda.bindings import driver

from ceilings.cuda import device as cuda
from ceilings.cuda.compiled import Arguments, Compiled, called

SOURCE = r"""
extern "C" __global__ void copy_all(const unsigned int* from, unsigned int* to, unsigned long long words) {
    unsigned long long step = (unsigned long long)gridDim.x * blockDim.x;
    unsigned long long first = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    unsigned long long quads = words / 4;
    for (unsigned long long i = first; i < quads; i += step) ((uint4*)to)[i] = ((const uint4*)from)[i];
    for (unsigned long long i = 4 * quads + first; i < words; i += step) to[i] = from[i];
}
"""
THREADS, WORD, VECTOR = 256, 4, 16


class CopyKernel:
    """The kernel, compiled for device 0."""

    def __init__(self) -> None:
        self._function = Compiled(SOURCE, "copies.cu").function("copy_all")
        self._most = 8 * cuda.attribute("MultiProcessorCount")

    def launcher(self, to: int, source: int, nbytes: int, stream: cuda.Stream) -> Callable[[], None]:
        """A call that enqueues one copy; its arguments are packed once.

        Args:
            to, source: Addresses as the device sees them, multiples of 16.
            nbytes: A multiple of 4.
            stream: Where it is enqueued.
        """
        words = nbytes // WORD
        packed = Arguments(ctypes.c_void_p(source), ctypes.c_void_p(to), ctypes.c_ulonglong(words))
        blocks = max(1, min(self._most, -(-nbytes // (VECTOR * THREADS))))
        launch, function, handle = driver.cuLaunchKernel, self._function, stream.handle

        def enqueue() -> None:
            called(launch(function, blocks, 1, 1, THREADS, 1, 1, 0, handle, packed.address, 0))

        return enqueue
