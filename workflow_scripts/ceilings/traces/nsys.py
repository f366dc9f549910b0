"""Nsight Systems round the process that is captured."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ceilings.errors import UserError
from ceilings.lifetime import tied

PROFILE = (
    *("--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none", "--cuda-graph-trace=node"),
    *("--capture-range=cudaProfilerApi", "--capture-range-end=stop", "--wait=primary"),
    *("--force-overwrite=true", "--stats=false"),
)
"""Only CUDA and NVTX, for anything else costs time; graphs node by node; only what lies in the range; helpers that a
framework leaves behind are not waited for."""

EXPORT = ("--type=sqlite", "--lazy=false", "--force-overwrite=true")
"""Without --lazy=false the export leaves out tables that have no rows."""

EXPORT_SECONDS = 1200


def executable() -> str:
    """Path of nsys.

    Raises:
        UserError: It is not on PATH.
    """
    if path := shutil.which("nsys"):
        return path
    raise UserError("nsys is not on PATH; install Nsight Systems, or set traces.source to cupti")


def version() -> str:
    """What nsys says of itself."""
    done = subprocess.run(
        [executable(), "--version"], capture_output=True, text=True, timeout=60, check=False, preexec_fn=tied(120)
    )
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else "unknown version"


def wrapped(command: Sequence[str], report: Path) -> list[str]:
    """``command`` under nsys, which writes ``report`` (.nsys-rep)."""
    return [executable(), "profile", *PROFILE, f"--output={report.with_suffix('')}", *command]


def export(report: Path, database: Path, environment: Mapping[str, str], log: str) -> None:
    """Turn a report into SQLite.

    Args:
        log: What nsys printed while it recorded, for the message.

    Raises:
        UserError: There is no report, or it cannot be exported.
    """
    if not report.is_file():
        last = " ".join(log.split())[-300:]
        raise UserError(f"nsys left no report ({last}); see the log, or set traces.source to cupti")
    command = [executable(), "export", *EXPORT, f"--output={database}", str(report)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=dict(environment),
        check=False,
        timeout=EXPORT_SECONDS,
        preexec_fn=tied(2 * EXPORT_SECONDS),
    )
    if done.returncode or not database.is_file():
        message = " ".join((done.stderr or done.stdout).split())[-300:]
        raise UserError(f"nsys could not export its report ({message}); see the log, or set traces.source to cupti")
