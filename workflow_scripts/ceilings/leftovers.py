"""What an earlier run left behind because it was killed: processes, half-written files, temporary folders, its lock.

Each says by an identity (:func:`ceilings.lifetime.identity`) whose it is. What belongs to a process that has certainly
ended goes; what another machine or container may still use stays. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path

from ceilings.lifetime import (
    IDENTITY,
    PIPELINE,
    clean_folders,
    ended,
    identity,
    numbering,
    pids,
    remove_ended,
    stat,
    waker,
)
from ceilings.turns import FOLDER

HOLDER = "pipeline"
"""File in ``.snakemake`` with the identity of the Snakemake process that last held the lock of this folder."""


def clear(results: Path) -> str | None:
    """Remove what runs that have ended left behind, on this machine and in a folder of results.

    Returns:
        One line about it; None where there was nothing.
    """
    parts = []
    if killed := end_processes():
        parts.append(f"processes that still ran (pid {', '.join(map(str, killed))})")
    if files := clean_results(results):
        parts.append(f"{files} half-written file{'s' * (files > 1)}")
    if folders := clean_folders():
        parts.append(f"{folders} temporary folder{'s' * (folders > 1)}")
    return f"An earlier run was killed; removed what it left: {', '.join(parts)}" if parts else None


def end_processes() -> list[int]:
    """Kill this user's processes whose pipeline has ended; their numbers."""
    found = []
    for pid in pids():
        process = waker(pid)  # from here on the number means this process
        with contextlib.suppress(OSError):
            pipeline = _pipeline_of(pid)
            if pipeline and ended(pipeline) and pid != os.getpid():
                os.kill(pid, signal.SIGKILL) if process is None else signal.pidfd_send_signal(process, signal.SIGKILL)
                found.append(pid)
        if process is not None:
            os.close(process)
    return found


def _pipeline_of(pid: int) -> str | None:
    """The identity of the pipeline that a process of this user, of this container and of this machine's turns has."""
    if Path(f"/proc/{pid}").stat().st_uid != os.geteuid() or not stat(pid) or numbering(pid) != numbering("self"):
        return None
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    # Pipelines that take turns elsewhere look after what they leave.
    folder = re.search(rb"(?:^|\0)" + FOLDER.encode() + rb"=([^\0]*)", environment)
    if (folder[1] if folder else b"") != os.environb.get(FOLDER.encode(), b""):
        return None
    known = re.search(rf"(?:^|\0){PIPELINE}=({IDENTITY})(?:\0|$)".encode(), environment)
    return known[1].decode() if known else None


def clean_results(folder: Path) -> int:
    """Remove what processes that have ended left half-written below a folder; how many such there were."""
    return remove_ended(
        Path(root, name)
        for root, folders, names in os.walk(folder)
        for name in (*folders, *names)
        if name.startswith(".")
    )


def hold(snakemake: Path) -> None:
    """Note that this process holds the lock of a folder; for a process that does."""
    (snakemake / HOLDER).write_text(identity(), encoding="utf-8")


def release_lock(snakemake: Path) -> bool:
    """Remove Snakemake's lock if who held it has ended; whether there was such a one."""
    holder = snakemake / HOLDER
    taken = holder.with_name(f"{HOLDER}.{identity()}")
    try:
        if not ended(holder.read_text(encoding="utf-8").strip()):
            return False
        locks = list((snakemake / "locks").glob("*.lock"))
        holder.rename(taken)  # of several that come at once one succeeds, before it or others lock anew
        taken.unlink()
    except (OSError, ValueError):
        return False
    for lock in locks:
        lock.unlink(missing_ok=True)
    return bool(locks)
