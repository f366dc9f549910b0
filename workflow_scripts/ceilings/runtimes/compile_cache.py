"""Where Inductor and Triton keep what they compiled, for PyTorch by itself and within vLLM."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from ceilings.lifetime import temporary_folder

CACHE = "CEILINGS_COMPILE_CACHE"
"""Names a folder that keeps compiled kernels between processes. Without it every process compiles anew, so that the
compile time is a cold one and each process makes its own autotuning choices, whose spread belongs to the result."""


def compile_folder() -> tuple[str, TemporaryDirectory[str] | None]:
    """The folder that ``CACHE`` names, else a temporary one with what removes it once nobody holds it."""
    if named := os.environ.get(CACHE):
        return str(Path(named).absolute()), None
    temporary = temporary_folder()
    return temporary.name, temporary


def end_compile_workers() -> None:
    """End Inductor's idle processes, which are of no use once all is compiled."""
    with contextlib.suppress(Exception):
        from torch._inductor.async_compile import shutdown_compile_workers

        shutdown_compile_workers()
