"""Says that the machine is busy: before the first timed job, when a timed job was disturbed, and at the end.

Standard library only. What is measured of a disturbed process is in its record (``flags``); here it is said while
somebody can still do something about it.
"""

from __future__ import annotations

import importlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ceilings.gpu import Gpu
from ceilings.measure.neighbours import Neighbours

LOOK_SECONDS = 0.5
"""How long the machine is watched before anything is timed."""

RULES = ("measure_colocation", "measure_latency", "measure_overlap", "measure_serving")
"""Whose jobs are timed."""

REMEDY = "stop other work on this machine"


class Disturbances(logging.Filter):
    """Follows Snakemake's log events and says which timed jobs were disturbed; passes everything on.

    Attributes:
        timed: Timed jobs that have ended.
        disturbed: Records of those that were disturbed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running: dict[int, str] = {}
        self.timed = 0
        self.disturbed: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Follow one log event."""
        fields = record.__dict__
        match fields.get("event"):
            case "run_info":
                self.timed, self.disturbed = 0, []
            case "job_info" if fields["rule_name"] in RULES:
                self.running[fields["jobid"]] = str(next(iter(fields["output"]), ""))
            case "job_finished" if fields["job_id"] in self.running:
                self._look_at(self.running.pop(fields["job_id"]))
        return True

    def _look_at(self, path: str) -> None:
        self.timed += 1
        try:
            reasons = disturbances(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return  # its reader says what is wrong with it
        if reasons:
            self.disturbed.append(path)
            _logger().warning(f"Busy machine: {'; '.join(reasons)} while {path} was measured.")

    def conclusion(self) -> str | None:
        """One line at the end of a run; None where nothing was disturbed."""
        if not self.disturbed:
            return None
        return (
            f"Busy machine: {len(self.disturbed)} of {self.timed} timed processes were disturbed: their intervals are "
            f"wide. To measure again, {REMEDY}, delete the records named above and run again (-R {' '.join(RULES)}: "
            "all of them)."
        )


def disturbances(record: Mapping[str, Any]) -> list[str]:
    """What disturbed a timed process, a clause each, from its record."""
    neighbours = Neighbours.from_json(record.get("neighbours") or {})
    gpu = record.get("gpu") or {}
    others = ["another process used the GPU"] if gpu.get("other_processes") else []
    slowed = {reason for part in ("latency", "throughput") for reason in (gpu.get(part) or {}).get("throttled") or {}}
    return [*neighbours.flags(), *others, *(f"the GPU was throttled ({reason})" for reason in sorted(slowed))]


def before(gpu: Gpu | None, seconds: float = LOOK_SECONDS) -> str | None:
    """One line where the machine is busy before anything is timed; else None.

    Args:
        gpu: The GPU that will be measured.
        seconds: How long to look.
    """
    with Neighbours() as neighbours:
        time.sleep(seconds)
    reasons = [*neighbours.flags(), *_gpu_users(gpu)]
    if not reasons:
        return None
    return f"Busy machine: {'; '.join(reasons)} before the first job. Timings will be disturbed: {REMEDY} first."


def show() -> Disturbances:
    """Follow the log of the Snakemake process that calls this, once however often it parses the workflow."""
    known = next((one for one in _logger().filters if isinstance(one, Disturbances)), None)
    if known is None:
        _logger().addFilter(known := Disturbances())
    return known


def say(line: str | None) -> None:
    """Put a line among Snakemake's warnings, unless there is none."""
    if line:
        _logger().warning(line)


def _logger() -> logging.Logger:
    return logging.getLogger("snakemake.logging")


def _gpu_users(gpu: Gpu | None) -> Iterable[str]:
    """A clause where processes compute on the GPU: none of them is ours, before any job."""
    if gpu is None:
        return []
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        try:
            users = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByUUID(gpu.uuid))
        finally:
            nvml.nvmlShutdown()
    except Exception:  # NVML may be missing, or refuse any call; the records of the cells say so
        return []
    return [f"{len(users)} {'process uses' if len(users) == 1 else 'processes use'} the GPU"] if users else []
