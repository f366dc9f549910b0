"""Records that contradict each other: work at once in one stream, stretches without records, wrong links.

What a reader can tell by rows alone it leaves out itself (:mod:`ceilings.traces.readers.impossible`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ceilings.traces import calls as kinds
from ceilings.traces.capture import GRAPH, KERNEL, MEMCPY, MEMSET, Integers
from ceilings.traces.recording import CUT, Recording

Findings = list[tuple[str, str]]

MANY, FEWEST = 0.01, 20
"""Share and number from which on an oddity is damage, and not the edge of a recording."""

SLACK_NS = 1_000
"""By so much the ends of two operations may be off: some recorders round to microseconds."""


def overlapping(recording: Recording) -> Findings:
    """Work that lies within other work of its stream.

    A kernel may begin before the one before it has ended (programmatic dependent launch), but ends after it. Branches
    of a graph have the number of one stream in some recordings, so nodes are not looked at.
    """
    work = recording.work
    looked = np.flatnonzero(~work.node & (work.kind != GRAPH))
    order = looked[np.lexsort((-work.end[looked], work.start[looked], work.stream[looked]))]
    if len(order) < 2:
        return []
    stream, start, end = work.stream[order], work.start[order], work.end[order]
    # Ends of one stream are lifted over those of the streams before it, so that one pass takes the latest of each.
    lift = stream * (int(work.end.max()) + 1)
    latest = np.maximum.accumulate(end + lift)[:-1] - lift[1:]
    shared = np.where(stream[1:] == stream[:-1], np.minimum(latest, end[1:]) - start[1:], 0)
    within = (shared > 0) & (end[1:] + SLACK_NS < latest)
    across = (shared > SLACK_NS) & ~within
    found: Findings = []
    if many := int(within.sum()):
        found.append(
            (
                "warning" if many > MANY * len(order) else "note",
                f"{many:,} of {len(order):,} operations ({shared[within].sum() / 1e6:.3g} ms) lie within another one "
                "of their stream, which runs one at a time: records are wrong, or one number stands for several "
                "streams. All are counted.",
            )
        )
    if many := int(across.sum()):
        found.append(
            (
                "warning" if 2 * shared.sum() > (end - start).sum() else "note",
                f"{many:,} of {len(order):,} operations begin before the one before them in their stream has ended, by "
                f"{shared[across].sum() / 1e6:.3g} ms in sum: so does programmatic dependent launch, and work of two "
                "streams under one number.",
            )
        )
    return found


def missing(recording: Recording, launches: Integers, last_end: Integers, process: Integers) -> Findings:
    """Stretches in which nothing of a device, or nothing of the host, was kept while the other side went on.

    Args:
        launches: Calls after which something must run on a device.
        last_end: Of each call, when the last of what it launched ended; -1 where nothing did.
        process: Of each call.
    """
    found: Findings = []
    calls, work = recording.calls, recording.work
    if not len(work.start) or not len(calls.start):
        return found
    processes = np.unique(process[launches])
    for one in processes.tolist():
        mine = launches[process[launches] == one]
        whose = f"launches of process {one}" if len(processes) > 1 else "launches"
        for run in _runs(last_end[mine] < 0):
            if max(FEWEST, MANY * len(mine)) <= run[1] - run[0] < len(mine):
                found.append(("error", _stretch(recording, mine, run, last_end, whose)))
    kept = max(int(calls.end.max()), int(work.end.max()))
    host = int(recording.spans.start.max(initial=0))
    if any(CUT in problem for problem in recording.source.problems) and host - kept > MANY * host:
        found.append(
            (
                "error",
                f"Calls and device records end at {kept / 1e6:.4g} ms, ranges and operators at {host / 1e6:.4g} ms: "
                f"the rest was cut off. No call and no kernel is known after {kept / 1e6:.4g} ms.",
            )
        )
    linked = np.flatnonzero(work.call >= 0)
    behind = len(work.start) - 1 - int(linked[-1]) if len(linked) else 0
    if behind >= max(FEWEST, MANY * len(work.start)) and work.start[linked[-1] + 1] >= calls.start.max():
        ended = f"{calls.end.max() / 1e6:.4g} ms"
        found.append(
            (
                "error",
                f"Calls end at {ended}, device records at {work.end.max() / 1e6:.4g} ms ({behind:,} operations without "
                f"a launch): records were lost or the file was cut. Nothing is known of the host after {ended}.",
            )
        )
    return found


def _stretch(recording: Recording, launches: Integers, run: tuple[int, int], last_end: Integers, whose: str) -> str:
    """What is said of a run of a process's launches after which nothing ran."""
    first, last = run
    calls, work = recording.calls, recording.work
    count = f"({last - first:,} {whose} in a row have nothing on the device): records were lost or the file was cut."
    until = f"{last_end[launches[:first]].max(initial=0) / 1e6:.4g} ms"
    if last == len(launches):
        return (
            f"Device records end at {until}, calls at {calls.end.max() / 1e6:.4g} ms {count} No kernel is known after "
            f"{until}."
        )
    since = f"{work.start[work.call >= launches[last]].min() / 1e6:.4g} ms"
    if first == 0:
        return (
            f"Device records begin at {since}, calls at {calls.start.min() / 1e6:.4g} ms {count} No kernel is known "
            f"before {since}."
        )
    return f"Device records are missing from {until} to {since} {count}"


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end of each run of true ones."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def misleading_links(recording: Recording) -> Findings:
    """Work whose launch cannot be the call that the recording names."""
    calls, work = recording.calls, recording.work
    linked = np.flatnonzero((work.call >= 0) & ~work.node & (work.kind != GRAPH))
    if not len(linked):
        return []
    call = work.call[linked]
    kind_of = np.array([kinds.kind(name) for name in recording.names] or [kinds.OTHER])
    of_graph = np.array([kinds.launches_graph(name) for name in recording.names] or [False])
    called, whole = kind_of[calls.name[call]], of_graph[calls.name[call]]
    copies = np.isin(work.kind[linked], (MEMCPY, MEMSET))
    # HIP copies by kernels, so a kernel may be of a call that copies; no copy is of a call that launches a kernel.
    strange = copies & (called == kinds.LAUNCH) & ~whole
    strange |= (work.kind[linked] == KERNEL) & (called == kinds.SYNC)
    # A stream keeps the order of its calls: one that had ended before another began, comes first.
    order = np.lexsort((work.start[linked], work.stream[linked]))
    launched, stream = call[order], work.stream[linked][order]
    turned = (stream[1:] == stream[:-1]) & (calls.end[launched[1:]] < calls.start[launched[:-1]])
    strange[order[1:][turned]] = True
    many = int(strange.sum())
    if many < max(FEWEST, MANY * len(linked)):
        return []
    delay = work.start[linked] - calls.start[call]
    return [
        (
            "error",
            f"{many:,} of {len(linked):,} operations cannot be of the call that the recording links them to (a copy of "
            "the launch of a kernel, or against the order of their stream). They begin from "
            f"{delay.min() / 1e3:,.0f} to {delay.max() / 1e3:,.0f} us after it: the links are wrong, not the clocks. "
            "What rests on launches means nothing: iterations, idle causes, the critical path, what would be gained.",
        )
    ]
