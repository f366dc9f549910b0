"""Question 4: where latency turns from orchestration-bound to kernel-bound.

A capture's verdict decides where there is one. Else the host's time in the submitting calls does; the span between two
events does not tell: it holds the time in which the GPU waits for the next launch, so it is close to the latency in
either case.
"""

from __future__ import annotations

from typing import Literal

import pandas as pd

from ceilings.report import text
from ceilings.report.findings.finding import (
    Finding,
    Status,
    configuration,
    names,
    sweep_entry,
    traces_entry,
    where,
)
from ceilings.report.findings.selection import on_gpu, panels_at_common_shape, sweeps
from ceilings.report.measured import Cell, Measured, group_by

TOPIC = "Host or device"

HOST_BOUND_SHARE = 0.9
"""Of the latency, spent by the host in submitting: from here on the GPU has nothing to do but to wait for it."""

DEVICE_BOUND_SHARE = 0.5
"""Up to here the host is done early, and the latency is the device's."""

Bound = Literal["host-bound", "between", "device-bound", "waits"]

BOUND: dict[Bound, str] = {
    "host-bound": f"**host-bound**, submitting takes at least {HOST_BOUND_SHARE:.0%} of the latency",
    "between": "between the two, neither the host nor the device alone",
    "device-bound": f"**device-bound**, the host is done within {DEVICE_BOUND_SHARE:.0%} of the latency",
    "waits": "not decided, the submitting call itself waits for the device",
}

ORCHESTRATION = {"host-bound", "launch-bound", "sync-bound", "transfer-bound"}
KERNELS = {"device-bound", "kernel-bound"}

CLAIM = "Latency turns from orchestration-bound to kernel-bound within the sizes measured"


def bottleneck(measured: Measured) -> list[Finding]:
    """What decides each latency at the common shape, and the batch or sequence at which that changes."""
    cells = [cell for cell in measured.cells if on_gpu(cell)]
    if not cells:
        wanted = sweep_entry(measured, ("onnxruntime-cuda",), ("fp16",), (1, 8, 64))
        told = "no cell of a GPU was measured."
        return [Finding(TOPIC, told, (), question=4, claim=CLAIM, status="not decidable", missing=(wanted,))]
    turns = [*_turns(measured, "batch"), *_turns(measured, "sequence")]
    return [*_shares(measured), *(turns or [_no_sweep(measured, cells)])]


def bound(cell: Cell) -> Bound:
    """Read from the host's share of the latency."""
    if pd.isna(cell.row["e2e_p50_ms"]):  # no boundary on the device: the call copies and waits
        return "waits"
    share = cell.row["enqueue_p50_ms"] / cell.p50.estimate
    return "host-bound" if share >= HOST_BOUND_SHARE else "device-bound" if share <= DEVICE_BOUND_SHARE else "between"


def decides(measured: Measured, cell: Cell) -> str:
    """A capture's verdict, else the host's share's; ``waits`` and ``between`` decide nothing."""
    budget = measured.budget(cell)
    if budget and isinstance(budget["verdict"], str):
        return budget["verdict"]
    return bound(cell) if pd.notna(cell.row["enqueue_p50_ms"]) else "unknown"


def _shares(measured: Measured) -> list[Finding]:
    found = []
    for cells in panels_at_common_shape(measured):
        shown = [cell for cell in cells if pd.notna(cell.row["enqueue_p50_ms"])]
        for kind, own in group_by(shown, bound).items():
            listed = text.listed(
                f"{cell.label} ({text.number(cell.row['enqueue_p50_ms'])} of {text.number(cell.p50.estimate)} ms)"
                for cell in own
            )
            told = f"{where(measured, own[0])}: {BOUND[kind]}: {listed}."
            found.append(Finding(TOPIC, told, names(own), question=4))
        captured = [cell for cell in cells if measured.budget(cell)]
        for kind, own in group_by(captured, lambda cell: decides(measured, cell)).items():
            told = f"{where(measured, own[0])}: captured and **{kind}**: {text.listed(c.label for c in own)}."
            found.append(Finding(TOPIC, told, names(own), question=4))
    return found


def _turns(measured: Measured, axis: Literal["batch", "sequence"]) -> list[Finding]:
    found = []
    for sweep in sweeps(measured, axis):
        if not on_gpu(sweep[0]):
            continue
        kinds = {cell: decides(measured, cell) for cell in sweep}
        known = [cell for cell in sweep if kinds[cell] in ORCHESTRATION | KERNELS]
        places = {
            kind: text.listed(str(getattr(cell, axis)) for cell in own)
            for kind, own in group_by(sweep, kinds.__getitem__).items()
        }
        fixed = "sequence" if axis == "batch" else "batch"
        told = (
            f"{configuration(measured, sweep[0])} at {fixed} {getattr(sweep[0], fixed)}: "
            f"{'; '.join(f'{kind} at {axis} {sizes}' for kind, sizes in places.items())}"
        )
        sides = ["kernels" if kinds[cell] in KERNELS else "host" for cell in known]
        status: Status
        if len(known) < 2:
            status = "not decidable"
        elif sides == sorted(sides, key=("host", "kernels").index):
            status = "supported" if len(set(sides)) == 2 else "refuted"
        else:
            status = "not decidable"
            told += "; back and forth, so no turning point"
        if status == "supported":
            last, first = known[sides.index("kernels") - 1], known[sides.index("kernels")]
            told += f". It turns between {axis} {getattr(last, axis)} and {getattr(first, axis)}"
        undecided = [cell for cell in sweep if cell not in known]
        missing = (traces_entry(undecided or sweep),) if status == "not decidable" else ()
        found.append(Finding(TOPIC, f"{told}.", names(sweep), question=4, claim=CLAIM, status=status, missing=missing))
    return found


def _no_sweep(measured: Measured, cells: list[Cell]) -> Finding:
    wanted = sweep_entry(measured, {cell.runtime for cell in cells}, {cell.precision for cell in cells}, (1, 8, 64))
    told = "each configuration was measured at one size, so nothing can turn."
    return Finding(TOPIC, told, names(cells), question=4, claim=CLAIM, status="not decidable", missing=(wanted,))
