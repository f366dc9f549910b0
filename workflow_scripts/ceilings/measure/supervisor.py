"""Starts the process that measures, and turns what becomes of it into a record.

A crash, a hang or a kill of that process is a result of the cell, not of the pipeline.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ceilings import environment
from ceilings.errors import UserError
from ceilings.files import read_json, write_task
from ceilings.isolation import ended_by, last_error, signal_name
from ceilings.lifetime import temporary_folder, tied

ALARM_SECONDS = 10
"""So long after its time limit a process ends by itself, should nobody be there to end it."""


def supervise(task: dict[str, Any], module: str = "ceilings.measure.worker") -> dict[str, Any]:
    """Measure a cell in a fresh process.

    Args:
        task: ``cell``, ``spec`` (a slice of the study), and the paths ``artifact``, ``inputs``, ``reference``.
        module: What the process runs.

    Returns:
        The worker's part of the record; with status ``failed`` if the worker crashed, passed its time limit, ended with
        an error or left no whole record.

    Raises:
        UserError: The worker met something that the user can mend.
    """
    limit = task["spec"]["protocol"]["time_limit_seconds"]
    with temporary_folder() as folder, open(f"{folder}/errors", "w+b") as errors:
        write_task(f"{folder}/task.json", task)
        command = [sys.executable, "-m", module, f"{folder}/task.json", f"{folder}/record.json"]
        # A file, not a pipe: what the worker starts may outlive it and hold a pipe open.
        process = subprocess.Popen(
            command,
            env=environment.executing(task["spec"]["threads"]),
            stderr=errors,
            start_new_session=True,
            preexec_fn=tied(limit + ALARM_SECONDS),  # noqa: PLW1509 - this process has no thread that matters
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            return failed("timed-out", f"no result after {limit:g} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            errors.seek(0)
            printed = errors.read().decode(errors="replace")
            sys.stderr.write(printed)
        if process.returncode < 0:
            return failed("crashed", ended_by(signal_name(-process.returncode)))
        if process.returncode:
            error = last_error(printed) or f"exit status {process.returncode}"
            if error.startswith("error: "):
                raise UserError(error.removeprefix("error: "))
            return failed("runtime-error", f"the measuring process ended with an error: {error[:300]}")
        return _record(Path(folder, "record.json"))


def _record(path: Path) -> dict[str, Any]:
    """What the worker left, if that is a record."""
    try:
        record = read_json(path)
    except UserError:
        record = None
    if isinstance(record, dict) and record.get("status") in ("ok", "failed"):
        return record
    return failed("runtime-error", "the measuring process ended without an error and left no whole record")


def failed(kind: str, message: str) -> dict[str, Any]:
    """The record's measured part for a worker that left none."""
    return {
        "status": "failed",
        "failure": {"kind": kind, "message": message},
        "parity": None,
        "series": {},
        "flags": [],
        "cold_start_ns": {},
        "imports_ns": {},
        "first_answer_ns": None,
        "memory": None,
        "threads": None,
        "provenance": None,
    }
