"""What the control groups of a container or a service allow this process. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 1 << 60
"""A limit of memory from here on is none: version 1 writes the largest number of pages."""

_TOP = "sys/fs/cgroup"


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of CPU time that this process may use, by the tightest of its groups; None without a limit.

    Args:
        root: Where ``proc`` and ``sys`` lie.
    """
    quotas = []
    for folder in _groups(root, "cpu"):
        version_1 = [*_words(folder / "cpu.cfs_quota_us")[:1], *_words(folder / "cpu.cfs_period_us")[:1]]
        match _words(folder / "cpu.max") or version_1:
            case [quota, period] if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def throttled(root: Path = Path("/")) -> tuple[int, float] | None:
    """Periods in which a quota stopped this process's groups so far, and for how many seconds; None without a count.

    Of several groups the one that was stopped most often. The seconds are summed over cores.
    """
    counts = []
    for folder in _groups(root, "cpu"):
        fields = dict(zip((words := _words(folder / "cpu.stat"))[::2], words[1::2], strict=False))
        if fields.get("nr_throttled", "").isdecimal():
            # Version 1 counts nanoseconds.
            seconds = int(fields.get("throttled_usec", 0)) / 1e6 + int(fields.get("throttled_time", 0)) / 1e9
            counts.append((int(fields["nr_throttled"]), seconds))
    return max(counts, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process's groups may use, the tightest of them; None without a limit."""
    words = [
        word
        for folder in _groups(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        for word in _words(folder / name)[:1]
    ]
    return min((int(word) for word in words if word.isdecimal() and int(word) < UNLIMITED), default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group and of its parents, as far as they can be seen, in both versions."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            tops = [root / _TOP, root / _TOP / "unified"]
        elif controller in controllers.split(","):
            tops = [root / _TOP / controllers, root / _TOP / controller]
        else:
            continue
        for top in tops:
            # A container may see the host's path and only its own group, as the top.
            folder = top / path.strip("/")
            yield from (parent for parent in (folder, *folder.parents) if parent == top or top in parent.parents)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()
