"""What else the machine did while several processes were measured: they are no neighbours of each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ceilings.measure.neighbours import Neighbours


class Bystanders(Neighbours):
    """Neighbours of this process and of others that belong to the measurement, and live as long as the block.

    Args:
        ours: The numbers of these.
        endpoint: Whether a server runs here that we did not start: its use counts as that of other processes.
    """

    def __init__(self, ours: Callable[[], Iterable[int]], endpoint: bool = False) -> None:
        self._ours, self._endpoint = ours, endpoint

    def flags(self) -> list[str]:
        """Warnings that belong beside the numbers."""
        others = "other processes, the endpoint among them," if self._endpoint else "other processes"
        return [flag.replace("other processes", others) for flag in super().flags()]

    def _read(self) -> tuple[float, float, float, float] | None:  # type: ignore[override]
        read = Neighbours._read()
        if read is None:
            return None
        wall, busy, stolen, used = read
        return wall, busy, stolen, used + sum(map(_spent, self._ours()))


def _spent(pid: int) -> float:
    """CPU seconds of a process, and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
