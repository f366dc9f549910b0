"""A device that has its memory on the host, behind the real bindings of CUDA's runtime.

For machines without a driver: every call goes to the real binding first, which refuses arguments of wrong number or
type and then says that there is no driver; only then the double does it. Streams run at once; captures keep what is
enqueued. It says nothing of times.
"""

from __future__ import annotations

import ctypes
import time

import numpy as np
from cuda.bindings import runtime as cudart

from ceilings.cuda import device as cuda

SUCCESS = cudart.cudaError_t.cudaSuccess
NO_MEMORY = cudart.cudaError_t.cudaErrorMemoryAllocation

ATTRIBUTES = {"cudaDevAttrConcurrentManagedAccess": 1, "cudaDevAttrMultiProcessorCount": 4}


class HostDevice:
    """Memory, streams, events, graphs, pools and managed memory.

    Attributes:
        memory: What is allocated, by its address.
        diary: Prefetches, advice and trims, in their order.
        attributes: Of the device.
        flips: Bytes of the copies to the host that arrive wrong.
        devices: How many there are.
    """

    def __init__(self, monkeypatch):
        self.memory, self.diary, self.attributes, self.flips, self.devices = {}, [], dict(ATTRIBUTES), 0, 1
        self._captured, self._graphs, self._recorded, self._handles = None, {}, {}, 1
        passes = cuda.problem() is not None and "Driver" in cuda.problem()
        for name in dir(self):
            if name.startswith("cuda"):
                monkeypatch.setattr(cudart, name, self._behind(name, getattr(cudart, name) if passes else None))

    def _behind(self, name, real):
        do = getattr(self, name)

        def call(*arguments):
            if real is not None:
                assert real(*arguments)[0] != SUCCESS
            given = do(*arguments)
            return given if isinstance(given, tuple) else (SUCCESS,) if given is None else (SUCCESS, given)

        return call

    def enqueue(self, work):
        """Do something now, or when the graph that is being captured is launched."""
        if self._captured is None:
            work()
        else:
            self._captured.append(work)

    def _handle(self, kind):
        self._handles += 1
        return kind(self._handles)

    def _allocate(self, nbytes):
        values = np.full(nbytes + 256, 0xAA, np.uint8)
        pointer = -(-values.ctypes.data // 256) * 256
        self.memory[pointer] = values
        return pointer

    # --- memory -----------------------------------------------------------------------------------------------------

    def cudaMalloc(self, size):
        return self._allocate(size)

    def cudaHostAlloc(self, size, flags):
        return self._allocate(size)

    def cudaMallocManaged(self, size, flags):
        return self._allocate(size)

    def cudaMallocFromPoolAsync(self, size, pool, stream):
        return self._allocate(size)

    def cudaFree(self, pointer):
        if pointer:
            del self.memory[int(pointer)]

    def cudaFreeHost(self, pointer):
        del self.memory[int(pointer)]

    def cudaFreeAsync(self, pointer, stream):
        del self.memory[int(pointer)]

    def cudaHostGetDevicePointer(self, pointer, flags):
        return pointer

    def cudaMemGetInfo(self):
        return SUCCESS, 1 << 34, 1 << 35

    def cudaMemcpyAsync(self, to, source, count, kind, stream):
        def copy():
            ctypes.memmove(to, source, count)
            if self.flips and kind == cuda.D2H:
                ctypes.memset(to, ctypes.c_uint8.from_address(to).value ^ 1, 1)

        self.enqueue(copy)

    def cudaMemcpy(self, to, source, count, kind):
        ctypes.memmove(to, source, count)

    def cudaMemsetAsync(self, pointer, value, count, stream):
        ctypes.memset(pointer, value, count)

    # --- streams, events, graphs ------------------------------------------------------------------------------------

    def cudaGetDeviceCount(self):
        return self.devices

    def cudaSetDevice(self, device):
        self.diary.append(("device", device))

    def cudaDeviceCanAccessPeer(self, device, peer):
        return self.attributes.get("peer", 1)

    def cudaDeviceEnablePeerAccess(self, peer, flags):
        self.diary.append(("access", peer))

    def cudaMemcpyPeerAsync(self, *arguments):
        to, to_device, source, source_device, count, _ = arguments
        assert (to_device, source_device) == (1, 0)
        self.enqueue(lambda: ctypes.memmove(to, source, count))

    def cudaGetLastError(self):
        pass

    def cudaDeviceSynchronize(self):
        pass

    def cudaStreamCreateWithFlags(self, flags):
        return self._handle(cudart.cudaStream_t)

    def cudaStreamSynchronize(self, stream):
        assert self._captured is None, "a stream that is captured cannot be waited for"

    def cudaEventCreateWithFlags(self, flags):
        return self._handle(cudart.cudaEvent_t)

    def cudaEventRecord(self, event, stream):
        self._recorded[int(event)] = time.perf_counter_ns()

    def cudaEventElapsedTime(self, begin, end):
        return (self._recorded[int(end)] - self._recorded[int(begin)]) / 1e6

    def cudaStreamBeginCapture(self, stream, mode):
        self._captured = []

    def cudaStreamEndCapture(self, stream):
        template = self._handle(cudart.cudaGraph_t)
        self._graphs[int(template)], self._captured = self._captured, None
        return template

    def cudaGraphGetNodes(self, graph, numNodes=0):
        return SUCCESS, [], len(self._graphs[int(graph)])

    def cudaGraphInstantiate(self, graph, flags):
        executable = self._handle(cudart.cudaGraphExec_t)
        self._graphs[int(executable)] = self._graphs[int(graph)]
        return executable

    def cudaGraphDestroy(self, graph):
        del self._graphs[int(graph)]

    def cudaGraphExecDestroy(self, graph):
        del self._graphs[int(graph)]

    def cudaGraphLaunch(self, graph, stream):
        for work in self._graphs[int(graph)]:
            work()

    # --- managed memory, pools, attributes --------------------------------------------------------------------------

    def cudaDeviceGetAttribute(self, attribute, device):
        return self.attributes.get(attribute.name, 0)

    def cudaMemPrefetchAsync(self, pointer, count, location, flags, stream):
        self.diary.append(("prefetch", pointer, count, location.type.name.removeprefix("cudaMemLocationType")))

    def cudaMemAdvise(self, pointer, count, advice, location):
        place = location.type.name.removeprefix("cudaMemLocationType")
        self.diary.append((advice.name.removeprefix("cudaMemAdvise"), pointer, count, place))

    def cudaMemPoolCreate(self, properties):
        return self._handle(cudart.cudaMemPool_t)

    def cudaMemPoolSetAttribute(self, pool, attribute, value):
        self.diary.append((attribute.name, int(value)))

    def cudaMemPoolTrimTo(self, pool, kept):
        self.diary.append(("trim", kept))

    def cudaMemPoolDestroy(self, pool):
        pass


class HostKernel:
    """The kernel that copies, in place of the compiled one."""

    def __init__(self, device):
        self._device = device

    def launcher(self, to, source, nbytes, stream):
        assert to % 16 == source % 16 == nbytes % 4 == 0
        return lambda: self._device.enqueue(lambda: ctypes.memmove(to, source, nbytes))
