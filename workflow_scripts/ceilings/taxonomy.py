"""The shared words: what the host and the device do, by the names that records, tables and pages give it."""

from __future__ import annotations

HOST_PARTS = ("framework", "launch", "copy", "sync")
"""Where the host thread's time of an iteration goes: outside CUDA, in launches, in copies, waiting for the device."""

OPERATOR_CLASSES = ("gemm", "attention", "normalization", "elementwise", "gather", "copy", "other")
"""What an operator of a graph computes."""

COMMUNICATION = "communication"
"""Work that exchanges data with other devices: the collectives of NCCL and RCCL, all-reduces of a server's own."""

SAMPLING = "sampling"
"""The choice of the next token from its logits, greedy (argmax) or by chance, and what prepares them for it."""

SELDOM = (COMMUNICATION, SAMPLING)
"""Classes that most programs have nothing of: a budget without any leaves them out."""

KERNEL_CLASSES = (*OPERATOR_CLASSES, "unknown", *SELDOM)
"""What the device does. ``unknown``: no name pattern knows the kernel."""

IDLE_CAUSES = ("host", "launching", "queued", "sync")
"""Why the device idles.

``host``: it has not begun the next launch. ``launching``: it is in the launch call. ``queued``: the work is launched
and has not started. ``sync``: everything is done and the host has not noticed yet.
"""

PATH_SHARES = ("kernel", "launch", "host", "transfer", "sync")
"""What the critical path of an iteration consists of."""

STALLED = "stalled"
RECORDING_SHARES = (*PATH_SHARES, COMMUNICATION, STALLED)
"""What that of a recording consists of: communication stands apart from other kernels, and so does the time in which
launched work does not start."""

MEMORY_LEVELS = ("dram", "l2", "shared")
"""The memory of a device, from far to near."""

KERNEL_VERDICTS = {
    "memory-limited": "a level of the memory is busy for most of the time",
    "compute-limited": "a pipe of arithmetic, or the issue of instructions, is busy for most of the time",
    "wave-limited": "the blocks leave a large part of the places on the multiprocessors empty, in all or the last wave",
    "occupancy-limited": "registers, shared memory or the block size leave room for few warps, and these wait",
    "latency-limited": "no unit is busy, and the warps that are there wait",
    "undecided": "the counters point to no single limit, or some are missing",
}
"""What limits a kernel by its hardware counters, and what that means."""
