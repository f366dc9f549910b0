"""What a CUDA call does to the thread that makes it, by its name in a capture."""

from __future__ import annotations

import re

LAUNCH, COPY, SYNC, OTHER = range(4)
"""Kinds of calls: starts kernels; copies or fills memory; waits for the device; anything else."""

KINDS = ("launch", "copy", "sync", "other")

_PATTERNS = (
    (SYNC, re.compile(r"Synchronize|WaitExternal|(Event|Stream)Query")),
    (LAUNCH, re.compile(r"Launch(?!HostFunc)")),
    (COPY, re.compile(r"Mem(cpy|set)|cuMemPrefetch|cudaMemPrefetch")),
)
_STARTS_KERNELS = re.compile(r"LaunchKernel|LaunchCooperative|GraphLaunch|^cuLaunch$|^cudaLaunch$")
_SUFFIX = re.compile(r"(_ptsz|_ptds)?(_v\d+)?(_ptsz|_ptds)?$")


def plain(name: str) -> str:
    """A call's name without the version that CUPTI appends.

    >>> plain("cudaLaunchKernelExC_ptsz_v11060"), plain("cuMemcpyHtoDAsync_v2")
    ('cudaLaunchKernelExC', 'cuMemcpyHtoDAsync')
    """
    return _SUFFIX.sub("", name)


def kind(name: str) -> int:
    """Kind of a call."""
    return next((number for number, pattern in _PATTERNS if pattern.search(name)), OTHER)


def starts_kernels(name: str) -> bool:
    """Whether an operation on the device must follow from each call of this name."""
    return bool(_STARTS_KERNELS.search(plain(name)))


def launches_graph(name: str) -> bool:
    """Whether the call starts a whole CUDA graph."""
    return "GraphLaunch" in name
