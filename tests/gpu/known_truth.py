#!/usr/bin/env python3
"""Work whose account is known beforehand: kernels that spin for a stated time, launched in counted numbers.

    export PYTHONPATH=workflow_scripts
    nsys profile FLAGS -o raw python3 tests/gpu/known_truth.py          (FLAGS: ceilings.traces.nsys.PROFILE)
    python3 tests/gpu/known_truth.py --cupti raw.sqlite

``tests/unit/traces/test_known_truth.py`` holds captures of it against ``TRUTH``.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from pathlib import Path
from typing import Any

ITERATIONS = 6
LAUNCHED = {"truth_gemm": (4, 200), "truth_softmax": (4, 100), "truth_elementwise": (4, 50)}
"""Kernels launched one by one in an iteration: how many, and how long each spins, in us."""

REPLAYS, NODES, NODE_US = 2, 10, 30
"""Graph replays in an iteration, kernels in the graph, and how long each spins."""

HOST_US = 1000
"""How long the host spins between a wait and the next launch, while the device has nothing."""

COPY_BYTES = 4 << 20

TRUTH = {
    "launches": sum(count for count, _ in LAUNCHED.values()) + REPLAYS,
    "graphs": REPLAYS,
    "kernels": sum(count for count, _ in LAUNCHED.values()) + REPLAYS * NODES,
    "copies": 2,
    "fills": 1,
    "gemm_us": LAUNCHED["truth_gemm"][0] * LAUNCHED["truth_gemm"][1],
    "normalization_us": LAUNCHED["truth_softmax"][0] * LAUNCHED["truth_softmax"][1],
    "elementwise_us": LAUNCHED["truth_elementwise"][0] * LAUNCHED["truth_elementwise"][1] + REPLAYS * NODES * NODE_US,
    "idle_host_us": HOST_US,
}
"""An iteration's counts; busy times by class and idle time that the host causes are at least these, and little more."""

SOURCE = "".join(
    f"""
extern "C" __global__ void {name}(unsigned long long ns) {{
    unsigned long long begin, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
    do {{ asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); }} while (now - begin < ns);
}}
"""
    for name in LAUNCHED
)


class Work:
    """The kernels, a graph of them, and buffers to copy."""

    def __init__(self) -> None:
        from cuda.bindings import driver, nvrtc
        from cuda.bindings import runtime as cudart

        from ceilings.cuda import device as cuda

        self.cuda, self.cudart, self.driver = cuda, cudart, driver
        cuda.initialise()
        major, minor = cuda.attribute("ComputeCapabilityMajor"), cuda.attribute("ComputeCapabilityMinor")
        program = self._done(nvrtc.nvrtcCreateProgram(SOURCE.encode(), b"truth.cu", 0, None, None))
        self._done(nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture=sm_{major}{minor}".encode()]))
        image = b" " * self._done(nvrtc.nvrtcGetCUBINSize(program))
        self._done(nvrtc.nvrtcGetCUBIN(program, image))
        self.module = self._done(driver.cuModuleLoadData(image))
        self.kernels = {name: self._done(driver.cuModuleGetFunction(self.module, name.encode())) for name in LAUNCHED}
        self.stream = cuda.Stream()
        self.device, self.pinned = cuda.DeviceBuffer(COPY_BYTES), cuda.PinnedBuffer(COPY_BYTES)
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        cuda.check(cudart.cudaStreamBeginCapture(self.stream.native, mode))
        for _ in range(NODES):
            self.launch("truth_elementwise", NODE_US)
        graph = cuda.check(cudart.cudaStreamEndCapture(self.stream.native))
        self.graph = cuda.check(cudart.cudaGraphInstantiate(graph, 0))

    @staticmethod
    def _done(result: tuple[Any, ...]) -> Any:
        if int(result[0]):
            raise RuntimeError(f"CUDA: {result[0]}")
        return result[1] if len(result) > 1 else None

    def launch(self, name: str, us: float) -> None:
        """Enqueue one kernel that spins."""
        arguments = ((int(us * 1000),), (ctypes.c_ulonglong,))
        self._done(
            self.driver.cuLaunchKernel(self.kernels[name], 1, 1, 1, 32, 1, 1, 0, self.stream.handle, arguments, 0)
        )

    def iteration(self) -> None:
        """Launches, a wait, idle time, graph replays, copies, a fill, a wait."""
        cuda, cudart, stream = self.cuda, self.cudart, self.stream
        for name, (count, us) in LAUNCHED.items():
            for _ in range(count):
                self.launch(name, us)
        stream.synchronize()
        deadline = time.perf_counter_ns() + HOST_US * 1000
        while time.perf_counter_ns() < deadline:
            pass
        for _ in range(REPLAYS):
            cuda.check(cudart.cudaGraphLaunch(self.graph, stream.native))
        for pair, kind in (((self.device, self.pinned), cuda.H2D), ((self.pinned, self.device), cuda.D2H)):
            cuda.check(cudart.cudaMemcpyAsync(pair[0].pointer, pair[1].pointer, COPY_BYTES, kind, stream.native))
        cuda.check(cudart.cudaMemsetAsync(self.device.pointer, 0, COPY_BYTES, stream.native))
        stream.synchronize()


def main() -> None:
    """Do the work and have it recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cupti", type=Path, metavar="SQLITE", help="record with CUPTI into this; default: for nsys")
    arguments = parser.parse_args()
    from ceilings.traces.target import recorder

    recording = recorder("cupti" if arguments.cupti else "nsys", arguments.cupti or Path())
    work = Work()
    for _ in range(3):
        work.iteration()
    enter, leave = recording.start()
    for _ in range(50):
        work.iteration()
    for _ in range(ITERATIONS):
        enter()
        work.iteration()
        leave()
    work.cuda.check(work.cudart.cudaDeviceSynchronize())
    recording.stop()


if __name__ == "__main__":
    main()
