"""Nsight Systems round the process that is captured."""

from __future__ import annotations

import re
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
    if problem := exported(report, database, environment):
        raise UserError(f"nsys could not export its report ({problem}); see the log, or set traces.source to cupti")


def exported(report: Path, database: Path, environment: Mapping[str, str]) -> str | None:
    """Turn a report into SQLite; why that failed, in one line, or None."""
    command = [executable(), "export", *EXPORT, f"--output={database}", str(report)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(environment),
            check=False,
            timeout=EXPORT_SECONDS,
            preexec_fn=tied(2 * EXPORT_SECONDS),
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {EXPORT_SECONDS} s"
    if done.returncode == 0 and database.is_file():
        return None
    lines = re.split(r"[\r\n]+", done.stderr or done.stdout)
    return " ".join(" ".join(line for line in lines if "%" not in line).split())[-300:] or f"exit {done.returncode}"
