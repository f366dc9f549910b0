"""Whether a capture can carry an account: what is missing from one says nothing, rather than something false."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ceilings.errors import UserError
from ceilings.traces import calls as kinds
from ceilings.traces.capture import GRAPH, KERNEL, Capture

AGAIN = "delete it and run again to capture it anew"

MANY = 0.01
"""Share of kernels from which on an oddity is reported."""


def refuse_unsound(capture: Capture, where: Path | str) -> list[str]:
    """What a reader should know about a sound capture.

    Raises:
        UserError: It is empty, cut short, lost records, or holds kernels that no recorded call launched.
    """
    refuse_cut_short(capture, where)
    calls, operations, marks = capture.calls, capture.operations, capture.marks
    if capture.meta.get("dropped"):
        raise UserError(f"{where} lost {capture.meta['dropped']:,} records; lower traces.iterations and run again")

    first, last = marks.start[0], marks.end[-1]
    inside = (operations.end > first) & (operations.start < last)
    kernels = inside & ((operations.kind == KERNEL) | (operations.kind == GRAPH))
    count = int(kernels.sum())
    if not count:
        raise UserError(f"{where} is empty: no kernel ran during its {len(marks.start)} iterations; {AGAIN}")
    orphans = int((kernels & (operations.call < 0)).sum())
    if orphans:
        raise UserError(
            f"{where} is incomplete: {orphans:,} of {count:,} kernels have no launch among the recorded calls; {AGAIN}"
        )
    answered = np.zeros(len(calls.start), bool)
    answered[operations.call[operations.call >= 0]] = True
    launches = (calls.start >= first) & (calls.end <= last) & kinds.served(calls, capture.names, answered)
    lost = int((launches & ~answered).sum())
    if lost:
        raise UserError(
            f"{where} is incomplete: {lost:,} of {int(launches.sum()):,} launches have nothing on the device, so "
            f"records were dropped; {AGAIN}"
        )
    early = int((kernels & (operations.start < calls.start[operations.call])).sum())
    flags = [*capture.meta.get("flags", ()), *_company(capture)]
    if early > MANY * count:
        flags.append(f"{early:,} of {count:,} kernels begin before their launch call: the two clocks are not aligned")
    return flags


def refuse_cut_short(capture: Capture, where: Path | str) -> None:
    """Refuse a capture whose iterations are not all there, or not one after another.

    Raises:
        UserError: It is such a one.
    """
    marks = capture.marks
    if not len(marks.start):
        raise UserError(f"{where} holds no iteration: no NVTX range with the text 'iteration'; {AGAIN}")
    wanted = capture.meta.get("iterations")
    if wanted is not None and len(marks.start) < wanted:
        raise UserError(f"{where} was cut short: {len(marks.start)} of {wanted} iterations; {AGAIN}")
    if len(np.unique(marks.thread)) > 1 or (marks.start[1:] < marks.end[:-1]).any():
        raise UserError(f"{where} holds iterations that overlap; capture one closed loop")


def _company(capture: Capture) -> list[str]:
    """Flags for work that is not, or not surely, the iterations' own."""
    calls, operations, marks = capture.calls, capture.operations, capture.marks
    flags = []
    if others := capture.meta.get("others"):
        flags.append(
            f"{others['operations']:,} operations of {others['processes']} other processes ran on the GPU from the "
            f"first iteration to the last, {others['share']:.1%} of the time: not counted, but it may slow the cell"
        )
    if contexts := capture.meta.get("contexts"):
        flags.append(f"the process worked in {contexts} CUDA contexts: the work of all of them is counted")
    edges = np.sort(np.concatenate([marks.start, marks.end]))
    begun, over = np.searchsorted(edges, operations.start, "right"), np.searchsorted(edges, operations.end)
    inside = (begun % 2 == 1) | (over > begun)
    other = inside & (operations.call >= 0)
    if len(calls.thread):
        other &= calls.thread[operations.call] != marks.thread[0]
    if other.any():
        flags.append(
            f"{int(other.sum()):,} of {int(inside.sum()):,} operations were launched by other threads of the process: "
            "they are counted"
        )
    if (reaching := int((over > begun).sum())) > MANY * len(marks.start):
        flags.append(
            f"{reaching:,} operations reach over an iteration's begin or end: what lies within the iteration is counted"
        )
    return flags
