"""How long this process was ready to run and had no processor, as Linux counts it for each thread."""

from __future__ import annotations

from pathlib import Path

THREADS = Path("/proc/self/task")


def waited_ns() -> int | None:
    """ns that the threads of this process, those that live now, have waited for a processor; None: not counted here.

    The second number of ``schedstat`` (Linux, Documentation/scheduler/sched-stats.rst).
    """
    total = 0
    for thread in THREADS.glob("*/schedstat"):
        try:
            total += int(thread.read_text(encoding="ascii").split()[1])
        except (ProcessLookupError, FileNotFoundError):  # it has ended
            continue
        except (OSError, ValueError, IndexError):
            return None
    return total or None


def since(before: int | None) -> int | None:
    """ns waited since an earlier look; None where either is not known. Threads that have ended count no more."""
    now = waited_ns()
    return None if before is None or now is None else max(0, now - before)
