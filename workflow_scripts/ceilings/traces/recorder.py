"""Captures a cell: starts the process, has it recorded, refuses what is not sound, keeps what is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ceilings import environment, turns
from ceilings.artifacts import refuse_failed
from ceilings.errors import CellFailure, UserError
from ceilings.files import atomic, read_json, write_task
from ceilings.isolation import ended_by, last_error, signal_name
from ceilings.lifetime import temporary_folder, tied
from ceilings.measure.setup import artifact_file
from ceilings.measure.supervisor import ALARM_SECONDS
from ceilings.traces import capture, health, host_nodes, nsys, store
from ceilings.traces.source import SOURCES

TOOLS = {"cupti": "CUPTI activity records", "torch": "PyTorch's profiler", "onnxruntime": "ONNX Runtime's profiler"}
"""What records within the process, by source."""

EXTRA_TIME = 4
"""Recording and writing a capture takes this many times a benchmark's limit at most."""


def record(task: dict[str, Any], output: Path, module: str = "ceilings.traces.target") -> str:
    """Capture a cell in a fresh process.

    Args:
        task: ``cell``, ``uuid`` of the GPU, ``spec`` (a slice of the study, with ``source`` and ``iterations``), and
            the paths ``artifact``, ``inputs`` and ``workload``.
        module: What the process runs.
        output: The capture to keep. Beside it stays what Nsight Systems wrote, which is never to be published.

    Returns:
        One line about what was captured.

    Raises:
        UserError: There is no sound capture; the message says why.
    """
    source = task["spec"]["source"]
    report = output.with_suffix(".nsys-rep")
    report.unlink(missing_ok=True)
    with turns.turn(task.get("uuid")), temporary_folder() as name:
        folder = Path(name)
        raw = folder / "raw.sqlite"
        result, log = run_target({**task, "source": source, "raw": str(raw)}, folder, source, module)
        meta: dict[str, Any] = {
            "source": source,
            "tool": nsys.version() if source == "nsys" else TOOLS[source],
            "cell": task["cell"],
            **result,
        }
        if "failure" in result:
            store.write(output, empty(meta))
            return f"the cell failed: {result['failure']['kind']}: {result['failure']['message']}"
        if source == "nsys":
            nsys.export(folder / "raw.nsys-rep", raw, environment.executing(task["spec"]["threads"]), log)
        kept = capture.trimmed(store.read(raw))
        # Of an engine the layers' names are what is looked for, of a CPU the ranges are all that there is.
        if Path(task["artifact"]).suffix != ".engine" and source in SOURCES:
            kept = capture.without_ranges(kept)
        if (nodes := folder / host_nodes.FILE).is_file():
            kept = host_nodes.joined(kept, store.read(nodes))
        kept.meta.update({**kept.meta, **meta})
        if source in SOURCES:
            health.refuse_unsound(kept, output)
        else:
            health.refuse_cut_short(kept, output)
        if source == "nsys":
            with atomic(report) as temporary:
                shutil.copy(folder / "raw.nsys-rep", temporary)
                temporary.chmod(0o600)
        store.write(output, kept)
    held = {"operations": kept.operations.start, "calls": kept.calls.start, "ranges": kept.ranges.start}
    counted = ", ".join(f"{len(each):,} {name}" for name, each in held.items() if len(each))
    return f"{result['iterations']} iterations: {counted}, by {meta['tool']}"


def run_target(
    task: dict[str, Any],
    folder: Path,
    source: str,
    module: str = "ceilings.traces.target",
    wrapped: Callable[[list[str]], list[str]] | None = None,
) -> tuple[dict[str, Any], str]:
    """Run the process; what it left, and what it and the profiler printed.

    Args:
        module: What it runs; ``inputs`` of the task is a file, or a file for each shape.
        wrapped: Its command under a profiler that the source does not name.

    Raises:
        UserError: It met something that the user can mend.
    """
    try:
        inputs = task["inputs"]
        refuse_failed(artifact_file(task), *(inputs.values() if isinstance(inputs, dict) else [inputs]))
    except CellFailure as failure:
        return _failure(failure.kind, str(failure)), ""
    limit = EXTRA_TIME * task["spec"]["protocol"]["time_limit_seconds"]
    write_task(folder / "task.json", {**task, "alarm_seconds": limit + ALARM_SECONDS})
    command = [sys.executable, "-m", module, f"{folder}/task.json", f"{folder}/result.json"]
    if source == "nsys":
        command = nsys.wrapped(command, folder / "raw.nsys-rep")
    command = wrapped(command) if wrapped else command
    process = subprocess.Popen(
        command,
        env=environment.executing(task["spec"]["threads"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=tied(limit + ALARM_SECONDS),  # noqa: PLW1509 - this process has no thread that matters
    )
    try:
        log = process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return _failure(
            "timed-out", f"no capture after {limit:g} s; fewer iterations or more time_limit_seconds do"
        ), ""
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    sys.stderr.write(log)
    if not (folder / "result.json").is_file():
        if process.returncode < 0:
            return _failure("crashed", ended_by(signal_name(-process.returncode))), log
        error = last_error(log) or f"exit status {process.returncode}"
        return _failure("runtime-error", f"the captured process left no result: {error[:300]}"), log
    result = read_json(folder / "result.json")
    if "error" in result:
        raise UserError(result["error"])
    return result, log


def _failure(kind: str, message: str) -> dict[str, Any]:
    return {"failure": {"kind": kind, "message": message}}


def empty(meta: dict[str, Any]) -> capture.Capture:
    """A capture of nothing: it holds why there is none."""
    rows = {
        table: np.empty((0, len(capture.COLUMNS[table])), np.int64) for table in (capture.RUNTIME, *capture.OPERATIONS)
    }
    return capture.assemble(rows, {}, [], meta, "an empty capture")
