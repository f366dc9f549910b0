"""Nsight Compute: the program that reads a kernel's hardware counters, what it is asked for, its report as a table."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ceilings.errors import CellFailure, UserError
from ceilings.lifetime import tied

PROFILE = (
    *("--profile-from-start=off", "--graph-profiling=node", "--clock-control=none"),
    *("--check-exit-code=no", "--force-overwrite"),
)
"""Kernels between cudaProfilerStart and cudaProfilerStop, those of CUDA graphs one by one; the clocks stay as they are.
The process writes what became of it into its result, so its exit code says nothing more."""

CACHES = {
    "steady": ("--replay-mode=application", "--cache-control=none"),
    "cold": ("--replay-mode=kernel", "--cache-control=all"),
}
"""What a kernel finds in the caches. Counters take several passes.

``steady``: each pass is a run of the program, so that every kernel runs once a pass, after the kernels before it, and
finds in the L2 cache what they left there. ``cold``: each kernel is repeated on the spot and finds nothing. Repeated
without flushing, it would find its data of the pass before, which no iteration does.
"""

TABLE = ("--csv", "--page=raw", "--print-units=base", "--print-kernel-base=demangled", "--rename-kernels=no")

TABLE_SECONDS = 600
QUERY_SECONDS = 120

REFUSED = "ERR_NVGPUCTRPERM"


def executable() -> str:
    """Path of ncu.

    Raises:
        UserError: It is not on PATH.
    """
    if path := shutil.which("ncu"):
        return path
    raise UserError(
        "ncu is not on PATH; install Nsight Compute, or leave out what it counts (lessons, traces.counters)"
    )


def version() -> str:
    """What ncu says of its version."""
    lines = _answer(["--version"], QUERY_SECONDS).stdout.strip().splitlines()
    return f"ncu {lines[-1]}" if lines else "ncu of unknown version"


def offered(chip: str | None = None) -> set[str]:
    """Names of the counters that ncu reads on this machine's GPU, without their suffixes (``.sum``).

    Args:
        chip: Of this chip instead (``gh100``), which takes no GPU.

    Raises:
        CellFailure: It cannot say.
    """
    done = _answer(["--query-metrics", *(["--chips", chip] if chip else [])], QUERY_SECONDS)
    names = set(re.findall(r"^(\w+__\w+) ", done.stdout, re.MULTILINE))
    if done.returncode or not names:
        raise CellFailure("runtime-error", f"ncu does not name its counters: {problem(done.stdout + done.stderr)}")
    return names


def wrapped(command: Sequence[str], report: Path, metrics: Sequence[str], caches: str) -> list[str]:
    """``command`` under ncu, which writes ``report`` (.ncu-rep).

    Args:
        metrics: Names of counters, with their suffixes.
        caches: One of ``CACHES``.
    """
    options = [*PROFILE, *CACHES[caches], f"--metrics={','.join(metrics)}", f"--export={report.with_suffix('')}"]
    return [executable(), *options, *command]


def table(report: Path, metrics: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """A report as CSV: a row a kernel in the order of their launches, below names and units.

    Raises:
        CellFailure: It cannot be read.
    """
    done = _answer([f"--import={report}", *TABLE, f"--metrics={','.join(metrics)}"], TABLE_SECONDS, environment)
    if done.returncode or not done.stdout.strip():
        raise CellFailure("runtime-error", f"ncu cannot read its report: {problem(done.stdout + done.stderr)}")
    return done.stdout


def problem(printed: str) -> str:
    """Why ncu wrote no report, from what it printed, in one line with the remedy where one is known."""
    if REFUSED in printed:
        return (
            f"the driver lets only root read the counters ({REFUSED}); run as root, or load the driver with "
            "NVreg_RestrictProfilingToAdminUsers=0"
        )
    errors = re.findall(r"^==(?:ERROR|WARNING)== (.+)", printed, re.MULTILINE)
    if not errors:
        return " ".join(printed.split())[-300:] or "it printed nothing"
    return " ".join(dict.fromkeys(line.strip() for line in errors))[:300]


def _answer(
    options: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [executable(), *options],
            capture_output=True,
            text=True,
            errors="replace",
            env=None if environment is None else dict(environment),
            check=False,
            timeout=seconds,
            preexec_fn=tied(2 * seconds),
        )
    except subprocess.TimeoutExpired:
        raise CellFailure("runtime-error", f"ncu gave no answer within {seconds:g} s") from None
