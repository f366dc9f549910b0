"""The shared words: what the host and the device do, by the names that records, tables and pages give it."""

from __future__ import annotations

HOST_PARTS = ("framework", "launch", "copy", "sync")
"""Where the host thread's time of an iteration goes: outside CUDA, in launches, in copies, waiting for the device."""

KERNEL_CLASSES = ("gemm", "attention", "normalization", "elementwise", "gather", "copy", "other", "unknown")
"""What the device computes. ``unknown``: no name pattern knows the kernel."""

OPERATOR_CLASSES = KERNEL_CLASSES[:-1]
"""Those that an operator of a graph can be of."""

IDLE_CAUSES = ("host", "launching", "queued", "sync")
"""Why the device idles.

``host``: it has not begun the next launch. ``launching``: it is in the launch call. ``queued``: the work is launched
and has not started. ``sync``: everything is done and the host has not noticed yet.
"""

PATH_SHARES = ("kernel", "launch", "host", "transfer", "sync")
"""What the critical path of an iteration consists of."""
