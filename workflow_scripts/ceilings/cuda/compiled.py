"""Kernels in CUDA C++ that this project has itself, compiled for device 0 by NVRTC when they are needed."""

from __future__ import annotations

import ctypes
from typing import Any

from cuda.bindings import driver, nvrtc

from ceilings.cuda import device as cuda


class Compiled:
    """The kernels of one source.

    Args:
        source: CUDA C++; each kernel is ``extern "C"``.
        name: What the compiler calls the source in its messages.

    Raises:
        RuntimeError: NVRTC refuses the source.
        CudaError: The driver refuses what was compiled.
    """

    def __init__(self, source: str, name: str) -> None:
        major, minor = cuda.capability()
        program = _nvrtc(nvrtc.nvrtcCreateProgram(source.encode(), name.encode(), 0, None, None))
        options = [f"--gpu-architecture=sm_{major}{minor}".encode()]
        (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = b" " * _nvrtc(nvrtc.nvrtcGetProgramLogSize(program))
            nvrtc.nvrtcGetProgramLog(program, log)
            raise RuntimeError(f"compiling the kernels failed: {log.decode(errors='replace').strip()}")
        image = b" " * _nvrtc(nvrtc.nvrtcGetCUBINSize(program))
        _nvrtc(nvrtc.nvrtcGetCUBIN(program, image))
        self._module = called(driver.cuModuleLoadData(image))

    def function(self, name: str) -> Any:
        """A kernel, as ``cuLaunchKernel`` takes it."""
        return called(driver.cuModuleGetFunction(self._module, name.encode()))


class Arguments:
    """Arguments of a launch, packed once: packing them anew costs as much as a launch.

    Args:
        values: In the order of the kernel's parameters.

    Attributes:
        address: What ``cuLaunchKernel`` takes; good as long as the object lives.
    """

    def __init__(self, *values: ctypes._SimpleCData[Any]) -> None:
        self._values = values
        self._packed = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        self.address = ctypes.addressof(self._packed)


def called(result: tuple[Any, ...]) -> Any:
    """What a call of the driver API returned beside its error code.

    Raises:
        CudaError: It failed.
    """
    if result[0] != driver.CUresult.CUDA_SUCCESS:
        raise cuda.CudaError(f"CUDA driver: {result[0]}")
    return result[1] if len(result) > 1 else None


def _nvrtc(result: tuple[Any, ...]) -> Any:
    if result[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC: {result[0]}")
    return result[1] if len(result) > 1 else None
