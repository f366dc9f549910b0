"""The record of the lessons on a device: what each variant takes, what the hardware counted of it, what it must do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import environment
from ceilings.errors import CellFailure
from ceilings.files import write_task
from ceilings.isolation import last_error
from ceilings.lifetime import temporary_folder, tied
from ceilings.limits.counted import judged
from ceilings.limits.lessons import Lesson, Variant, lessons
from ceilings.limits.roofline import Limits
from ceilings.traces import counters, ncu

SECONDS = 900
"""That all lessons take at most, timed or counted."""

CACHES = "cold"
"""Each kernel stands alone: no other prepares its caches, and its arrays are larger than they are."""

Run = Callable[[bool, Path], dict[str, Any]]


def taught(limits: Limits) -> dict[str, Any]:
    """Run, time and count all lessons on device 0.

    Returns:
        The content of a record of kind ``lessons``, less device and provenance.

    Raises:
        CellFailure: They cannot run, or compute something wrong.
    """
    with temporary_folder() as name:
        timed = _ran(Path(name), [], counted=False)
        tool, kernels, lacking = _counted(Path(name))
    return record(timed, kernels, limits) | {"tool": tool, "lacking": lacking}


def record(timed: Mapping[str, Any], kernels: Sequence[Mapping[str, Any]], limits: Limits) -> dict[str, Any]:
    """What was timed and what was counted, by lesson and variant.

    Args:
        timed: What the process left that timed them.
        kernels: The counted kernels, in the order of their launches.

    Raises:
        CellFailure: The kernels are others than the lessons launch.
    """
    every = lessons(*timed["sizes"])
    launched = [launch.kernel for lesson in every for variant in lesson.variants for launch in variant.launches]
    found = [kernel["name"].split("(")[0] for kernel in kernels]
    if found != launched:
        raise CellFailure("runtime-error", f"ncu counted other kernels than the lessons launch: {', '.join(found)}")
    shown = judged({"kernels": kernels, "iterations": 1}, limits, None)["kernels"]
    pairs = list(zip(kernels, shown, strict=True))
    content = []
    for lesson in every:
        variants = []
        for variant in lesson.variants:
            mine = [pairs.pop(0) for _ in variant.launches]
            times = timed["times_us"][lesson.name][variant.name]
            variants.append(_variant(lesson, variant, times, mine))
        words = {key: getattr(lesson, key) for key in ("name", "title", "varied", "cause", "meaning")}
        content.append({**words, "variants": variants})
    return {"lessons": content}


def _variant(
    lesson: Lesson,
    variant: Variant,
    times: Mapping[str, float],
    counted: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> dict[str, Any]:
    causes = [_cause(kernel["counters"], lesson.cause) for kernel, _ in counted]
    checks = [
        {"kernel": launch.kernel, "what": name, "counted": seen, "expected": must}
        for launch, (kernel, _) in zip(variant.launches, counted, strict=True)
        for name, must in launch.expected.items()
        if (seen := kernel["counters"][name]) is not None
    ]
    return {
        "name": variant.name,
        "us": dict(times),
        "cause": None if None in causes else sum(causes),
        "kernels": [shown for _, shown in counted],
        "checks": checks,
    }


def _cause(values: Mapping[str, float | None], name: str) -> float | None:
    if name != "dram_bytes":
        return values[name]
    read, written = values["dram_read_bytes"], values["dram_write_bytes"]
    return None if read is None or written is None else read + written


def _counted(folder: Path) -> tuple[str, list[dict[str, Any]], list[str]]:
    metrics, lacking = counters.wanted(ncu.offered())
    report = folder / "lessons.ncu-rep"
    _ran(folder, ncu.wrapped([], report, metrics, CACHES), counted=True)
    if not report.is_file():
        raise CellFailure("runtime-error", "ncu left no report of the lessons; see the log")
    return ncu.version(), counters.kernels(ncu.table(report, metrics)), lacking


def _ran(folder: Path, wrapper: Sequence[str], *, counted: bool) -> dict[str, Any]:
    """What a process left that ran all lessons."""
    result = folder / f"{'counted' if counted else 'timed'}.json"
    write_task(folder / "task.json", {"counted": counted, "alarm_seconds": SECONDS})
    command = [sys.executable, "-m", "ceilings.limits.lesson_target", f"{folder}/task.json", str(result)]
    try:
        done = subprocess.run(
            [*wrapper, *command],
            env={**environment.executing(1), "PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=SECONDS,
            preexec_fn=tied(2 * SECONDS),
        )
    except subprocess.TimeoutExpired:
        raise CellFailure("timed-out", f"the lessons took longer than {SECONDS} s") from None
    sys.stderr.write(done.stdout)
    if not result.is_file():
        why = ncu.problem(done.stdout) if "==ERROR==" in done.stdout else last_error(done.stdout)
        raise CellFailure("runtime-error", f"the lessons did not run: {why or f'exit status {done.returncode}'}")
    left: dict[str, Any] = json.loads(result.read_text())
    if "failure" in left:
        raise CellFailure(left["failure"]["kind"], left["failure"]["message"])
    if "error" in left:
        raise CellFailure("runtime-error", left["error"])
    return left
