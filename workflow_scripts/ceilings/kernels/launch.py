"""A kernel with all that its launch needs, and the work that the launch does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple


class Work(NamedTuple):
    """What a launch does.

    Attributes:
        moved: Bytes that any implementation of the step reads and writes: each operand once.
        loaded: Bytes that the programs of this launch read and write together: operands that several programs read
            count for each. They come from the L2 cache.
        operations: Multiplications and additions of matrix products.
    """

    moved: int
    loaded: int
    operations: int = 0


@dataclasses.dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        step: Which step of the encoder it is, as the tiles are named.
        kernel: The Triton function.
        grid: Programs along three axes.
        arguments: By name, in the kernel's order: tensors, and sizes that are constants of the compiled kernel.
        work: What it does.
        warps: Warps of 32 threads a program.
        stages: Loads of the loop over the inner axis that are under way at once.
        cooperative: Whether all programs must be resident at once, as a barrier between them needs; else it fails.
        registers: What a thread may take, at most; None leaves it to the assembler, which then saves them and asks for
            operands one after the other, each once the one before it has come.
    """

    step: str
    kernel: Any
    grid: tuple[int, int, int]
    arguments: Mapping[str, Any]
    work: Work
    warps: int = 4
    stages: int = 3
    cooperative: bool = False
    registers: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What Triton's compiler is given beside the arguments."""
        overlapped = {"launch_pdl": True} if self.arguments.get("OVERLAPPED") else {}
        cooperative = {"launch_cooperative_grid": True} if self.cooperative else {}
        registers = {"maxnreg": self.registers} if self.registers else {}
        return {"num_warps": self.warps, "num_stages": self.stages, **overlapped, **cooperative, **registers}

    def __call__(self) -> None:
        """Enqueue it on PyTorch's current stream."""
        self.kernel[self.grid](**self.arguments, **self.options)

    def compile(self) -> None:
        """Compile it and launch nothing; within Triton's ``AsyncCompileMode`` beside others."""
        self.kernel.warmup(**self.arguments, grid=self.grid, **self.options)


def blocks(size: int, block: int) -> int:
    """How many blocks cover a size."""
    return -(-size // block)


def power_of_two(size: int, least: int = 1) -> int:
    """The least power of two that holds ``size``, and no less than ``least``: Triton's blocks have such sizes."""
    return max(least, 1 << (size - 1).bit_length())
