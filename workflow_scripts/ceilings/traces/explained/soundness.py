"""What a reader of an explanation must know first: what the recording lost, does not tell, or tells with doubt."""

from __future__ import annotations

import numpy as np

from ceilings.traces import calls as kinds
from ceilings.traces.budget import UNKNOWN
from ceilings.traces.capture import GRAPH, KERNEL
from ceilings.traces.explained.account import Accounts
from ceilings.traces.recording import LOADING

MANY = 0.01
"""Share from which on an oddity is a warning, not a note."""

UNKNOWN_SHARE = 0.05
"""Share of the device's time in kernels of unknown class from which on that is said."""

LATE_NS = 1_000_000
"""A device begins what it has within microseconds; a longer wait is worth a word."""


def health(accounts: Accounts) -> list[dict[str, str]]:
    """Findings about the recording as a whole, worst first: ``level`` and ``text`` of each."""
    recording = accounts.recording
    found = [
        *_lost(accounts),
        *_clocks(accounts),
        *_late(accounts),
        *_unlaunched(accounts),
        *_unserved(accounts),
        *_company(accounts),
    ]
    found += [("warning", problem) for problem in recording.source.problems]
    found += [*_streams(accounts), *_overhead(accounts), *_unknown(accounts), *_failed(accounts)]
    order = {"error": 0, "warning": 1, "note": 2}
    return [{"level": level, "text": text} for level, text in sorted(found, key=lambda one: order[one[0]])]


Findings = list[tuple[str, str]]


def _lost(accounts: Accounts) -> Findings:
    recording = accounts.recording
    found: Findings = []
    if recording.source.dropped:
        found.append(
            ("error", f"The recorder lost {recording.source.dropped:,} records: counts and times are too small.")
        )
    if not len(recording.work.start):
        found.append(
            (
                "error",
                "Nothing ran on a device in this recording: it shows what the host did, not what bounds a device.",
            )
        )
    elif not len(recording.calls.start):
        found.append(
            (
                "warning",
                "The recording holds no CUDA or HIP calls: it shows when the device worked, not why it idled, and "
                "not what the host did.",
            )
        )
    return found


def _clocks(accounts: Accounts) -> Findings:
    work, calls = accounts.recording.work, accounts.recording.calls
    known = np.flatnonzero(work.call >= 0)
    ahead = calls.start[work.call[known]] - work.start[known]
    early = ahead[ahead > 0]
    if not len(early):
        return []
    share = len(early) / len(known)
    return [
        (
            "warning" if share > MANY else "note",
            f"{len(early):,} of {len(known):,} operations begin before their launch, by {np.median(early) / 1e3:.3g} "
            f"us (median), {early.max() / 1e3:.3g} us at most: the clocks of host and device are not aligned. "
            "Times are as recorded.",
        )
    ]


def _late(accounts: Accounts) -> Findings:
    """Work that an idle device had and did not begin: something is not recorded, or the clocks differ by that."""
    work, calls = accounts.recording.work, accounts.recording.calls
    longest = 0
    for device in np.unique(work.device):
        mine = np.flatnonzero(work.device == device)
        free = np.concatenate([[0], np.maximum.accumulate(work.end[mine])[:-1]])
        known = work.call[mine] >= 0
        delivered = calls.end[work.call[mine][known]]
        longest = max(longest, int((work.start[mine][known] - np.maximum(free[known], delivered)).max(initial=0)))
    if longest <= LATE_NS:
        return []
    return [
        (
            "note",
            f"Launched work waited for up to {longest / 1e6:.3g} ms before an idle device began it: the device did "
            "something that is not recorded, or the clocks of host and device differ.",
        )
    ]


def _unlaunched(accounts: Accounts) -> Findings:
    work = accounts.recording.work
    lost = int((work.call < 0).sum())
    said = any("launched" in problem for problem in accounts.recording.source.problems)
    if said or not lost or not len(accounts.recording.calls.start):
        return []
    return [
        (
            "warning" if lost > MANY * len(work.call) else "note",
            f"{lost:,} of {len(work.call):,} operations have no launch in the recording: why the device idled before "
            "them is not known.",
        )
    ]


def _unserved(accounts: Accounts) -> Findings:
    """Launches without anything on the device: what is lost on the way of a trace that was cut short."""
    recording = accounts.recording
    calls, names = recording.calls, recording.names
    if not len(recording.work.start) or not len(calls.start):
        return []
    starts = np.array([number >= 0 and kinds.starts_kernels(names[number]) for number in calls.name.tolist()], bool)
    launches = np.flatnonzero(starts & ~calls.failed)
    unserved = launches[accounts.account.last_end[launches] < 0]
    if not len(unserved):
        return []
    last = recording.work.start.max()
    late = int((calls.start[unserved] > last).sum())
    text = f"{len(unserved):,} of {len(launches):,} launches have nothing on the device"
    text += (
        f", {late:,} of them at the end: the recording stopped before their work." if late else ": records are missing."
    )
    return [("warning" if len(unserved) > MANY * len(launches) else "note", text)]


def _company(accounts: Accounts) -> Findings:
    recording = accounts.recording
    found: Findings = []
    for device in np.unique(recording.work.device):
        processes = np.unique(accounts.process_of_work[recording.work.device == device])
        processes = processes[processes >= 0]
        if len(processes) > 1:
            found.append(
                (
                    "note",
                    f"{len(processes)} processes worked on device {device}: an iteration counts its own process; the "
                    "work of the others is a part with a name of its own.",
                )
            )
    return found


def _streams(accounts: Accounts) -> Findings:
    if len(np.unique(accounts.recording.work.stream)) > 1 and not accounts.dependencies.known:
        return [
            (
                "note",
                "Dependencies between streams are inferred: the recording does not hold them. Work is taken to wait "
                "for what ended last before it began on its device, so a replay may gain less than there is to gain.",
            )
        ]
    return []


def _overhead(accounts: Accounts) -> Findings:
    spans = accounts.recording.spans
    of_profiler = spans.kind == LOADING
    length = int((spans.end - spans.start)[of_profiler].sum())
    every = accounts.recording.calls.end.max(initial=0) - accounts.recording.calls.start.min(initial=0)
    if not length or not every:
        return []
    return [
        (
            "warning" if length > 0.05 * every else "note",
            f"The profiler itself took {length / 1e6:.3g} ms of its threads ({length / every:.1%} of the recording).",
        )
    ]


def _unknown(accounts: Accounts) -> Findings:
    work = accounts.recording.work
    kernels = (work.kind == KERNEL) | (work.kind == GRAPH)
    length = (work.end - work.start)[kernels]
    unknown = length[accounts.account.op_class[kernels] == UNKNOWN].sum()
    if not length.sum() or unknown <= UNKNOWN_SHARE * length.sum():
        return []
    return [("note", f"{unknown / length.sum():.0%} of the kernels' time is in kernels whose name tells no class.")]


def _failed(accounts: Accounts) -> Findings:
    calls = accounts.recording.calls
    failed = np.flatnonzero(calls.failed)
    if not len(failed):
        return []
    return [("warning", f"{len(failed):,} calls returned an error.")]
