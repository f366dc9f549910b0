"""Starts the process that measures, and turns what becomes of it into a record.

A crash, a hang or a kill of that process is a result of the cell, not of the pipeline.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ceilings.errors import UserError
from ceilings.files import read_json, write_json

SCRIPTS = Path(__file__).parents[2]


def supervise(task: dict[str, Any], module: str = "ceilings.measure.worker") -> dict[str, Any]:
    """Measure a cell in a fresh process.

    Args:
        task: ``cell``, ``spec`` (a slice of the study), and the paths ``artifact``, ``inputs``, ``reference``.
        module: What the process runs.

    Returns:
        The worker's part of the record; with status ``failed`` if the worker crashed or passed its time limit.

    Raises:
        UserError: The worker met something that the user can mend.
        RuntimeError: The worker met an error of the pipeline's own.
    """
    limit = task["spec"]["protocol"]["time_limit_seconds"]
    with tempfile.TemporaryDirectory(prefix="ceilings-") as folder:
        write_json(f"{folder}/task.json", task)
        command = [sys.executable, "-m", module, f"{folder}/task.json", f"{folder}/record.json"]
        process = subprocess.Popen(
            command, env=environment(task["spec"]["threads"]), stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            errors = process.communicate(timeout=limit)[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return failed("timed-out", f"no result after {limit:g} s")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        sys.stderr.write(errors)
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
            return failed("crashed", f"ended by {name}{hint}")
        if process.returncode:
            last = errors.strip().splitlines()[-1] if errors.strip() else f"exit status {process.returncode}"
            if last.startswith("error: "):
                raise UserError(last.removeprefix("error: "))
            raise RuntimeError(f"the measuring process failed: {last}")
        return read_json(f"{folder}/record.json")


def environment(threads: int) -> dict[str, str]:
    """The worker's environment: its thread counts are the study's, not those that Snakemake derives from --cores."""
    path = os.pathsep.join(filter(None, (str(SCRIPTS), os.environ.get("PYTHONPATH"))))
    pinned = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    fixed = {"PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1"}
    # Else a folder of the working directory that is called like a package would shadow it.
    return {**os.environ, **pinned, **fixed, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def failed(kind: str, message: str) -> dict[str, Any]:
    """The record's measured part for a worker that left none."""
    return {
        "status": "failed",
        "failure": {"kind": kind, "message": message},
        "parity": None,
        "series": {},
        "flags": [],
        "cold_start_ns": {},
        "memory": None,
        "threads": None,
        "provenance": None,
    }
