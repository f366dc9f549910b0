"""The ways by which data gets from host to device and back: copies, kernels that read the host, pages that move."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart
from numpy.typing import NDArray

from ceilings.cuda import device as cuda
from ceilings.cuda import memory_kinds as kinds
from ceilings.cuda.memory_kinds import HostBlock
from ceilings.limits.copy_kernel import CopyKernel

Enqueue = Callable[[], Any]

PAGE = mmap.PAGESIZE
H2D, D2H, D2D, P2P = "h2d", "d2h", "d2d", "p2p"
STAGED, DIRECT = "staged", "direct"
PEERS = {STAGED: "without", DIRECT: "with"}
"""Kinds of a copy between two devices, and how they have access to each other."""

GRAPH, EVENTS, NO_CLOCK = "graph", "events", ""
"""How device time is taken: over a CUDA graph of many transfers, around a single one, or not at all."""


class HostSide:
    """The end of a transfer that lies on the host."""

    def __init__(self, block: HostBlock) -> None:
        self.block = block

    def fill(self, values: NDArray[np.uint8]) -> None:
        """Write the first bytes."""
        self.block.view[: values.size] = values

    def read(self, nbytes: int) -> NDArray[np.uint8]:
        """The first bytes."""
        return self.block.view[:nbytes].copy()


class DeviceSide:
    """The end of a transfer that lies on the device."""

    def __init__(self, buffer: cuda.DeviceBuffer) -> None:
        self.buffer = buffer

    def fill(self, values: NDArray[np.uint8]) -> None:
        """Write the first bytes, and wait."""
        cuda.check(cudart.cudaMemcpy(self.buffer.pointer, values.ctypes.data, values.size, cuda.H2D), "filling")
        cuda.check(cudart.cudaDeviceSynchronize(), "filling")

    def read(self, nbytes: int) -> NDArray[np.uint8]:
        """The first bytes."""
        return cuda.download(self.buffer.pointer, nbytes)


class FarSide(DeviceSide):
    """The end of a transfer that lies on device 1."""

    def fill(self, values: NDArray[np.uint8]) -> None:
        """Write the first bytes, and wait for that device."""
        with kinds.current(1):
            super().fill(values)


class Way:
    """One way of one direction.

    Attributes:
        name: Direction and kind of memory, as ``h2d.pinned``.
        method: What one transfer consists of.
        clock: How its device time is taken.
        anew: Whether each transfer needs ``ready`` before it.
    """

    name: str
    method: str
    clock = GRAPH
    anew = False
    source: HostSide | DeviceSide
    target: HostSide | DeviceSide

    def enqueue(self, nbytes: int) -> Enqueue:
        """A call that does one transfer of this size, or enqueues it; who calls it waits for the stream."""
        raise NotImplementedError

    def ready(self, nbytes: int) -> None:
        """Bring the data to where the transfer starts; it is never timed."""


class Copy(Way):
    """``cudaMemcpyAsync`` between a block of the host and the device."""

    def __init__(self, direction: str, block: HostBlock, buffer: cuda.DeviceBuffer, stream: cuda.Stream) -> None:
        self.name = f"{direction}.{block.kind}"
        self.method = f"cudaMemcpyAsync, {block.kind} host memory"
        # The host takes part in such a copy: it stages the data through page-locked memory.
        self.clock = EVENTS if block.kind == kinds.PAGEABLE else GRAPH
        here, there = HostSide(block), DeviceSide(buffer)
        self.source, self.target = (here, there) if direction == H2D else (there, here)
        pair = (buffer.pointer, block.pointer) if direction == H2D else (block.pointer, buffer.pointer)
        self._call = (*pair, cuda.H2D if direction == H2D else cuda.D2H, stream.native)

    def enqueue(self, nbytes: int) -> Enqueue:
        to, source, way, handle = self._call
        copy = cudart.cudaMemcpyAsync

        def once() -> None:
            result = copy(to, source, nbytes, way, handle)
            if result[0]:
                cuda.check(result, "copying")

        return once


class PeerCopy(Way):
    """``cudaMemcpyPeerAsync`` from device 0 to device 1.

    Args:
        kind: Whether device 0 has access to device 1: ``direct`` or ``staged``.
        pair: Buffers of device 0 and of device 1.
        stream: Where it is enqueued.
    """

    clock = EVENTS

    def __init__(self, kind: str, pair: tuple[cuda.DeviceBuffer, kinds.FarBuffer], stream: cuda.Stream) -> None:
        self.name = f"{P2P}.{kind}"
        self.method = f"cudaMemcpyPeerAsync from device 0 to device 1, {PEERS[kind]} peer access"
        self.source, self.target = DeviceSide(pair[0]), FarSide(pair[1])
        self._call = pair[1].pointer, 1, pair[0].pointer, 0
        self._handle = stream.native

    def enqueue(self, nbytes: int) -> Enqueue:
        call, handle, copy = self._call, self._handle, cudart.cudaMemcpyPeerAsync

        def once() -> None:
            result = copy(*call, nbytes, handle)
            if result[0]:
                cuda.check(result, "copying to the other device")

        return once


class KernelCopy(Way):
    """A kernel that reads one end and writes the other, with no copy engine between.

    Args:
        name: Of the way.
        method: Of the way.
        pair: Source and target.
        kernel: What copies.
        stream: Where it runs.
    """

    def __init__(
        self,
        name: str,
        method: str,
        pair: tuple[HostSide | DeviceSide, HostSide | DeviceSide],
        kernel: CopyKernel,
        stream: cuda.Stream,
    ) -> None:
        self.name, self.method = name, method
        self.source, self.target = pair
        self._kernel, self._stream = kernel, stream

    def enqueue(self, nbytes: int) -> Enqueue:
        return self._kernel.launcher(seen(self.target), seen(self.source), nbytes, self._stream)


class PagesToDevice(KernelCopy):
    """A kernel that reads managed memory whose pages lie on the host: they move as it touches them, or before.

    Args:
        prefetched: Whether a prefetch to the device is enqueued before the kernel.
        others: As of a kernel's copy.
    """

    clock, anew = EVENTS, True

    def __init__(self, *others: Any, prefetched: bool = False) -> None:
        super().__init__(*others)
        self._prefetched = prefetched

    def ready(self, nbytes: int) -> None:
        assert isinstance(self.source, HostSide)
        block = self.source.block
        if kinds.moves_on_demand():
            kinds.prefetch(block.pointer, nbytes, kinds.HOST_PLACE, self._stream)
        self._stream.synchronize()
        block.view[:nbytes:PAGE] |= 0  # a page that the host writes is the host's alone, whatever was advised

    def enqueue(self, nbytes: int) -> Enqueue:
        launch = super().enqueue(nbytes)
        if not self._prefetched:
            return launch
        pointer, stream = seen(self.source), self._stream

        def once() -> None:
            kinds.prefetch(pointer, nbytes, kinds.DEVICE_PLACE, stream)
            launch()

        return once


class PagesOnDevice(KernelCopy):
    """A kernel that reads managed memory whose pages are on the device already."""

    anew = True

    def ready(self, nbytes: int) -> None:
        super().enqueue(nbytes)()  # what it reads moves there
        self._stream.synchronize()


class PagesToHost(KernelCopy):
    """Managed memory that a kernel has written, brought to the host: by reading it there, or by a prefetch.

    Args:
        prefetched: Whether a prefetch to the host is what is timed.
        others: As of a kernel's copy.
    """

    anew = True

    def __init__(self, *others: Any, prefetched: bool = False) -> None:
        super().__init__(*others)
        self._prefetched = prefetched
        self.clock = EVENTS if prefetched else NO_CLOCK

    def ready(self, nbytes: int) -> None:
        if kinds.moves_on_demand():
            kinds.prefetch(seen(self.target), nbytes, kinds.DEVICE_PLACE, self._stream)
        super().enqueue(nbytes)()
        self._stream.synchronize()

    def enqueue(self, nbytes: int) -> Enqueue:
        assert isinstance(self.target, HostSide)
        block, stream = self.target.block, self._stream
        if self._prefetched:
            return lambda: kinds.prefetch(block.pointer, nbytes, kinds.HOST_PLACE, stream)
        touched = block.view[:nbytes:PAGE]
        return touched.max


def seen(side: HostSide | DeviceSide) -> int:
    """The address of an end of a transfer, as a kernel uses it."""
    return side.block.device_pointer if isinstance(side, HostSide) else side.buffer.pointer


def copies(nbytes: int, stream: cuda.Stream) -> list[Way]:
    """Copies from and to each kind of memory that no page moves in.

    Args:
        nbytes: The largest transfer.
        stream: Where they are enqueued.
    """
    buffer = cuda.DeviceBuffer(nbytes)
    blocks = [HostBlock(kind, nbytes) for kind in (kinds.PAGEABLE, kinds.PINNED, kinds.WRITE_COMBINED)]
    return [Copy(direction, block, buffer, stream) for direction in (H2D, D2H) for block in blocks]


def mapped(nbytes: int, stream: cuda.Stream) -> list[Way]:
    """Kernels that read and write memory of the host where it lies, and the same kernel on the device alone.

    Args:
        nbytes: The largest transfer.
        stream: Where they are enqueued.
    """
    kernel, there, further = CopyKernel(), *(DeviceSide(cuda.DeviceBuffer(nbytes)) for _ in range(2))
    here = HostSide(HostBlock(kinds.MAPPED, nbytes))
    return [
        KernelCopy("h2d.mapped", "a kernel reads mapped host memory", (here, there), kernel, stream),
        KernelCopy("d2h.mapped", "a kernel writes mapped host memory", (there, here), kernel, stream),
        KernelCopy("d2d.kernel", "the same kernel, from device to device", (there, further), kernel, stream),
    ]


def managed(nbytes: int, stream: cuda.Stream) -> list[Way]:
    """Managed memory: pages that move when they are touched or before, advised or not.

    Args:
        nbytes: The largest transfer.
        stream: Where they are enqueued.
    """
    kernel, there = CopyKernel(), DeviceSide(cuda.DeviceBuffer(nbytes))
    plain, mostly_read, staying = (HostSide(HostBlock(kinds.MANAGED, nbytes)) for _ in range(3))
    reads = "a kernel reads managed memory whose pages lie on the host"
    touched = "the host reads a byte of each page that a kernel wrote"
    back = "cudaMemPrefetchAsync to the host of pages that a kernel wrote"
    ahead = "cudaMemPrefetchAsync to the device, then a kernel reads the memory"
    resident = "a kernel reads managed memory whose pages are on the device"
    ways: list[Way] = [
        PagesToDevice("h2d.managed", f"{reads}; they move as it touches them", (plain, there), kernel, stream),
        PagesToHost("d2h.managed", touched, (there, plain), kernel, stream),
        PagesOnDevice("d2d.managed", resident, (plain, there), kernel, stream),
    ]
    if not kinds.moves_on_demand():
        return ways
    kinds.read_mostly(mostly_read.block)
    kinds.stay_on_host(staying.block)
    return [
        *ways,
        PagesToDevice("h2d.managed-prefetch", ahead, (plain, there), kernel, stream, prefetched=True),
        PagesToDevice("h2d.managed-read-mostly", f"{reads}, advised read-mostly", (mostly_read, there), kernel, stream),
        PagesToDevice("h2d.managed-on-host", f"{reads}, advised to stay there", (staying, there), kernel, stream),
        PagesToHost("d2h.managed-prefetch", back, (there, plain), kernel, stream, prefetched=True),
    ]


def staged(nbytes: int, stream: cuda.Stream) -> list[Way]:
    """Copies to a second device to which the first one has no access; none where there is one device.

    Args:
        nbytes: The largest transfer.
        stream: Where they are enqueued.
    """
    if kinds.devices() < 2:
        return []
    return [PeerCopy(STAGED, (cuda.DeviceBuffer(nbytes), kinds.FarBuffer(nbytes)), stream)]


def direct(nbytes: int, stream: cuda.Stream) -> list[Way]:
    """The same with access, which stays from then on.

    Args:
        nbytes: The largest transfer.
        stream: Where they are enqueued.

    Raises:
        CudaError: The devices cannot have access to each other.
    """
    if kinds.devices() < 2:
        return []
    if not cuda.check(cudart.cudaDeviceCanAccessPeer(0, 1), "asking for peer access"):
        raise cuda.CudaError("device 0 cannot have access to device 1")
    cuda.check(cudart.cudaDeviceEnablePeerAccess(1, 0), "enabling peer access")
    return [PeerCopy(DIRECT, (cuda.DeviceBuffer(nbytes), kinds.FarBuffer(nbytes)), stream)]
