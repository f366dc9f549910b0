"""Counts a cell's kernels: runs one iteration of it under Nsight Compute, keeps the counters of each kernel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ceilings import environment, turns
from ceilings.errors import CellFailure
from ceilings.files import atomic
from ceilings.lifetime import temporary_folder
from ceilings.traces import counters, ncu
from ceilings.traces.recorder import run_target

SOURCE = "ncu"


def count(task: dict[str, Any], report: Path) -> dict[str, Any]:
    """Count the kernels of one iteration of a cell, in fresh processes.

    Args:
        task: ``cell``, ``uuid`` of the GPU, ``spec`` (a slice of the study, with ``caches`` and ``iterations``), and
            the paths ``artifact``, ``inputs`` and ``workload``.
        report: Where the report of Nsight Compute is kept. It names machine and user, and is never to be published.

    Returns:
        The content of a record of kind ``counters``, less its provenance. One whose cell or counters failed holds why.

    Raises:
        UserError: The process met something that the user can mend.
    """
    head = {"cell": task["cell"], "tool": ncu.version(), "caches": task["spec"]["caches"]}
    report.unlink(missing_ok=True)
    try:
        return {**head, **_counted(task, report), "status": "ok", "failure": None}
    except CellFailure as failure:
        return {**head, "status": "failed", "failure": {"kind": failure.kind, "message": str(failure)}}


def _counted(task: dict[str, Any], report: Path) -> dict[str, Any]:
    spec = task["spec"]
    with turns.turn(task.get("uuid")), temporary_folder() as name:
        folder = Path(name)
        raw = folder / "raw.ncu-rep"
        metrics, lacking = counters.wanted(ncu.offered())

        def wrapped(command: list[str]) -> list[str]:
            return ncu.wrapped(command, raw, metrics, spec["caches"])

        left, log = run_target({**task, "source": SOURCE, "raw": str(raw)}, folder, SOURCE, wrapped=wrapped)
        if "failure" in left:
            raise CellFailure(left["failure"]["kind"], left["failure"]["message"])
        if not raw.is_file():
            raise CellFailure("runtime-error", f"ncu left no report: {ncu.problem(log)}")
        kernels = counters.kernels(ncu.table(raw, metrics, environment.executing(spec["threads"])))
        with atomic(report) as temporary:
            shutil.copy(raw, temporary)
            temporary.chmod(0o600)
    return {
        "iterations": left["iterations"],
        "gpu": left["gpu"],
        "flags": left["flags"],
        "lacking": lacking,
        "kernels": kernels,
    }
