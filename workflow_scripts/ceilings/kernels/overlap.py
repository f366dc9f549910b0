"""Programmatic dependent launch: a kernel starts while the one before it ends, and fetches weights meanwhile.

A kernel that is launched so may run before the one before it is done. It waits before it reads what any other wrote,
and before it writes. Weights are written by none, so it fetches them into L2 first. Each kernel waits, so when one
has waited, all before it are done. Compute capability 9.0 and newer; elsewhere ``OVERLAPPED`` is False.

The next kernel may start when all programs of this one have said so. ``EARLY`` says so before the wait: then several
kernels wait in a row, each with loads of its weights under way, and memory works while they wait for each other.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def follow(OVERLAPPED: tl.constexpr, EARLY: tl.constexpr = False) -> None:
    """Wait for the kernel before this one, and let the next one start: after that, or before it if ``EARLY``."""
    if OVERLAPPED:
        if EARLY:
            gdc_launch_dependents()
        gdc_wait()
        if not EARLY:
            gdc_launch_dependents()


@triton.jit
def prefetch(pointers: tl.tensor) -> None:
    """Bring the cache lines at these addresses into L2; nothing waits for them."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers], dtype=tl.int32, is_pure=False, pack=1
    )
