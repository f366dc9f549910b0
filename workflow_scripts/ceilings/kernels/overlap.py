"""Programmatic dependent launch: a kernel starts while the one before it ends, and fetches weights meanwhile.

A kernel that is launched so may run before the one before it is done. It waits before it reads what any other wrote,
and before it writes. Weights are written by none, so it fetches them into L2 first. Each kernel waits, so when one
has waited, all before it are done. Compute capability 9.0 and newer; elsewhere ``OVERLAPPED`` is False.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def follow(OVERLAPPED: tl.constexpr) -> None:
    """Wait for the kernel before this one, then let the next one start."""
    if OVERLAPPED:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def prefetch(pointers: tl.tensor) -> None:
    """Bring the cache lines at these addresses into L2; nothing waits for them."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers], dtype=tl.int32, is_pure=False, pack=1
    )
