"""What a compiled kernel takes of a multiprocessor: registers, shared memory, and what spilled. No card is needed."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ceilings.kernels.launch import Launch

SHARED_LIMIT = {90: 232_448}
"""Bytes of shared memory that a program may have, by architecture (CUDA C++ Programming Guide)."""

POINTERS = {
    "torch.float8_e4m3fn": "*fp8e4nv",
    "torch.float16": "*fp16",
    "torch.float32": "*fp32",
    "torch.int64": "*i64",
}
"""Triton's name of a pointer, by the type of a tensor."""

ALIGNED = [["tt.divisibility", 16]]
"""What PyTorch's allocator grants of a tensor's address, and what Triton then relies on at a launch."""


class Resources(NamedTuple):
    """What a program takes.

    Attributes:
        registers: Of a thread.
        shared: Bytes of shared memory.
        spilled: Bytes that a thread keeps in memory for want of registers, stored and loaded.
        instructions: How its products are executed: ``wgmma`` (Hopper's, of four warps), ``mma`` (a warp's) or empty.
    """

    registers: int
    shared: int
    spilled: int
    instructions: str

    def fits(self, architecture: int) -> bool:
        """Whether it can be launched and keeps its numbers in registers."""
        return self.shared <= SHARED_LIMIT[architecture] and not self.spilled


def resources(launch: Launch, architecture: int = 90) -> Resources:
    """Compile a launch's kernel for an architecture and read what it takes from the assembler.

    Raises:
        ValueError: The assembler says nothing of it.
    """
    compiled = compile_for(launch, architecture)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(compiled.asm["ptx"])
        command = [
            assembler(),
            "-v",
            f"--gpu-name={target_of(compiled.asm['ptx'])}",
            source,
            "-o",
            Path(folder, "kernel.cubin"),
        ]
        said = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    if not registers or not spills:
        raise ValueError(f"the assembler says nothing of registers: {said[:200]}")
    ptx = compiled.asm["ptx"]
    used = "wgmma" if "wgmma.mma_async" in ptx else "mma" if "mma.sync" in ptx else ""
    return Resources(int(registers[1]), int(compiled.metadata.shared), sum(map(int, spills.groups())), used)


def compile_for(launch: Launch, architecture: int) -> Any:
    """A launch's kernel as Triton compiles it for an architecture, knowing of its arguments what a launch knows."""
    signature, constants, attributes = {}, {}, {}
    for index, (name, value) in enumerate(launch.arguments.items()):
        if hasattr(value, "data_ptr"):
            signature[name], attributes[index,] = POINTERS[str(value.dtype)], ALIGNED
        elif name.islower() and isinstance(value, int):  # a number of the launch; constants have large letters
            signature[name] = "i32"
        else:
            signature[name], constants[name] = "constexpr", value
    source = ASTSource(launch.kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=launch.options)


def assembler() -> str:
    """Where Triton's ``ptxas`` is."""
    return str(triton.knobs.nvidia.ptxas.path)


def target_of(ptx: str) -> str:
    """The architecture that an assembly is for, such as ``sm_90a``."""
    found = re.search(r"^\.target (\S+)", ptx, re.MULTILINE)
    return found[1].rstrip(",") if found else ""
