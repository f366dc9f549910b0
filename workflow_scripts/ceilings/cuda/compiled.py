"""Kernels from their source, compiled for device 0 when they are needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cuda.bindings import driver, nvrtc

from ceilings.cuda import device as cuda


def functions(source: str, names: Iterable[str]) -> dict[str, Any]:
    """Kernels of CUDA C++ by their names; the module is loaded for as long as the process lives.

    Args:
        source: With ``extern "C"`` before each kernel.

    Raises:
        RuntimeError: It does not compile; the message is the compiler's.
    """
    major, minor = cuda.attribute("ComputeCapabilityMajor"), cuda.attribute("ComputeCapabilityMinor")
    program = _nvrtc(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, None, None))
    options = [f"--gpu-architecture=sm_{major}{minor}".encode()]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * _nvrtc(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise RuntimeError(f"compiling the kernels failed: {log.decode(errors='replace').strip()}")
    image = b" " * _nvrtc(nvrtc.nvrtcGetCUBINSize(program))
    _nvrtc(nvrtc.nvrtcGetCUBIN(program, image))
    module = done(driver.cuModuleLoadData(image))
    return {name: done(driver.cuModuleGetFunction(module, name.encode())) for name in names}


def done(result: tuple[Any, ...]) -> Any:
    """The value of a call of the driver.

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
