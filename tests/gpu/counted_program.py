#!/usr/bin/env python3
"""Kernels whose operations and bytes are known beforehand, between cudaProfilerStart and cudaProfilerStop."""

from __future__ import annotations

EDGE = 4096
"""Of the square product in FP16."""

BYTES = 512 << 20
"""Of the array in FP32 that the addition reads, and of the one that it writes: ten times the L2 cache of an H100."""


def main() -> None:
    import torch

    left, right = (torch.randn(EDGE, EDGE, device="cuda", dtype=torch.float16) for _ in range(2))
    values = torch.randn(BYTES // 4, device="cuda")
    product, added = torch.empty_like(left), torch.empty_like(values)
    for counted in (False, True):  # the first time everything is loaded and chosen
        torch.cuda.synchronize()
        if counted:
            torch.cuda.cudart().cudaProfilerStart()
        torch.matmul(left, right, out=product)
        torch.add(values, 1, out=added)
        torch.cuda.synchronize()
    torch.cuda.cudart().cudaProfilerStop()


if __name__ == "__main__":
    main()
