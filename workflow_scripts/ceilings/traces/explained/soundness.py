"""What a reader of an explanation must know first: what the recording lost, does not tell, or tells with doubt."""

from __future__ import annotations

import re

import numpy as np

from ceilings.traces import calls as kinds
from ceilings.traces.budget import UNKNOWN
from ceilings.traces.capture import GRAPH, KERNEL, Integers
from ceilings.traces.explained.account import Accounts
from ceilings.traces.explained.damage import misleading_links, missing, overlapping
from ceilings.traces.recording import AMBIGUOUS, LOADING

MANY = 0.01
"""Share from which on an oddity is a warning, not a note."""

UNKNOWN_SHARE = 0.05
"""Share of the device's time in kernels of unknown class from which on that is said."""

FEWEST = 20
"""Fewer launches say nothing of a clock or a recorder."""

SOON, AT_ONCE_NS, GRAPH_AT_ONCE_NS = 0.05, 12_000, 15_000
"""An idle device begins a kernel within some microseconds, if not always: this share within this time; graphs later."""

FEWEST_WAITS, NOTICED_NS = 10, 15_000
"""The host notices within some microseconds that work is done, if it polls: the same share of so many waits."""

SLOW_LAUNCH_NS = 6_000
"""A launch call that is longer, as a median, is a recorder's, or of a slow host."""

WHOLE, SYNCHRONIZE = re.compile(r"(Device|Ctx)Synchronize"), re.compile(r"(Device|Ctx|Stream)Synchronize")

LATE_NS = 1_000_000
"""A device begins what it has within microseconds; a longer wait is worth a word."""

NOTHING_RAN = "Nothing ran on a device in this recording: it shows what the host did, not what bounds a device."
CUT = "The file was cut off before the first work of a device: copy it again, or export it again."


def health(accounts: Accounts) -> list[dict[str, str]]:
    """Findings about the recording as a whole, worst first: ``level`` and ``text`` of each."""
    recording = accounts.recording
    launches = _launches(accounts)
    links = misleading_links(recording)
    # Of two processes with the same correlations one has all the work: nothing is missing then.
    merged = any(AMBIGUOUS in problem for problem in recording.source.problems)
    halves = [] if merged else missing(recording, launches, accounts.account.last_end, accounts.process_of_call)
    found = [
        *_lost(accounts),
        *halves,
        *links,
        *overlapping(recording),
        *([] if links else [*_clocks(accounts), *_shifted(accounts), *_late(accounts)]),
        *_unlaunched(accounts),
        *([] if halves or merged else _unserved(accounts)),
        *_company(accounts),
    ]
    found += _problems(accounts)
    found += [*_streams(accounts), *_overhead(accounts), *_slowed(accounts), *_unknown(accounts), *_failed(accounts)]
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
        cut = any("ends before its events" in problem for problem in recording.source.problems)
        found.append(("error", CUT if cut else NOTHING_RAN))
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


def _shifted(accounts: Accounts) -> Findings:
    """A device that begins nothing at once, and waits that return before what they wait for: clocks that differ."""
    found: Findings = []
    work, calls, account = accounts.recording.work, accounts.recording.calls, accounts.account
    delays, graphs = [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    for device in np.unique(work.device):
        mine = np.flatnonzero(work.device == device)
        free = np.concatenate([[0], np.maximum.accumulate(work.end[mine])[:-1]])
        known = np.append(account.call_kind, kinds.OTHER)[work.call[mine]] == kinds.LAUNCH
        call = work.call[mine][known]
        first = np.zeros(len(call), bool)
        first[np.unique(call, return_index=True)[1]] = True
        at_once = first & (free[known] <= calls.end[call])
        delays.append((work.start[mine][known] - calls.end[call])[at_once])
        graphs.append(account.call_graph[call][at_once])
    every, of_graph = np.concatenate(delays), np.concatenate(graphs)
    for these, usual in ((~of_graph, AT_ONCE_NS), (of_graph, GRAPH_AT_ONCE_NS)):
        soonest = float(np.quantile(every[these], SOON)) if these.sum() >= FEWEST else 0.0
        if soonest > usual:
            found.append(
                (
                    "warning",
                    f"An idle device begins launched work after {soonest / 1e3:.3g} us at the soonest; microseconds "
                    "are usual: its clock seems to be late by about that, or something holds the work up.",
                )
            )
            break
    one_stream = len(np.unique(work.stream)) == 1
    pattern = SYNCHRONIZE if one_stream else WHOLE
    whole = np.array([*(bool(pattern.search(name)) for name in accounts.recording.names), False], bool)[calls.name]
    waits = np.flatnonzero(whole & ~calls.failed)
    launched = np.flatnonzero(account.last_end >= 0)
    if not len(waits) or not len(launched):
        return found
    of_process = accounts.process_of_call
    early, waited = np.zeros(len(waits), np.int64), np.zeros(len(waits), bool)
    for process in np.unique(of_process[waits]):
        mine, own = np.flatnonzero(of_process[waits] == process), launched[of_process[launched] == process]
        over = np.concatenate([[0], np.maximum.accumulate(account.last_end[own])])
        done = over[np.searchsorted(calls.start[own], calls.start[waits[mine]])]
        early[mine], waited[mine] = done - calls.end[waits[mine]], calls.start[waits[mine]] < done
    devices = len(np.unique(work.device))
    if devices == 1 and (early > 0).sum() > MANY * len(waits):
        found.append(
            (
                "warning",
                f"{int((early > 0).sum()):,} of {len(waits):,} waits for the device return before its work ends, by "
                f"{np.median(early[early > 0]) / 1e3:.3g} us (median): the clocks of host and device are not aligned.",
            )
        )
    noticed = float(np.quantile(-early[waited], SOON)) if waited.sum() >= FEWEST_WAITS else 0.0
    if devices == 1 and noticed > NOTICED_NS:
        found.append(
            (
                "warning",
                f"A wait for the device returns {noticed / 1e3:.3g} us after the work at the soonest; microseconds "
                "are usual: its clock seems to be early by about that, or the program waits without polling "
                "(cudaDeviceScheduleBlockingSync).",
            )
        )
    return found


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


def _launches(accounts: Accounts) -> Integers:
    """Calls after which something must run on a device."""
    recording = accounts.recording
    return np.flatnonzero(kinds.served(recording.calls, recording.names, accounts.account.last_end >= 0))


def _problems(accounts: Accounts) -> Findings:
    """What the reader says. That something may be missing is a note where nothing is."""
    launches = _launches(accounts)
    whole = len(launches) and not (accounts.account.last_end[launches] < 0).any()
    found: Findings = []
    for problem in accounts.recording.source.problems:
        if AMBIGUOUS in problem:
            found.append(("error", problem))
        elif "begin before the call that launched them" in problem:
            continue  # the clocks are looked at here
        elif whole and "may be missing" in problem:
            whole_too = f"{problem.removesuffix('.')}; every launch has its work."
            found.append(("note", whole_too if "CUDA" in problem else problem))
        else:
            found.append(("warning", problem))
    return found


def _unserved(accounts: Accounts) -> Findings:
    """Launches without anything on the device: what is lost on the way of a trace that was cut short."""
    recording = accounts.recording
    calls = recording.calls
    if not len(recording.work.start) or not len(calls.start):
        return []
    launches = _launches(accounts)
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
                    "work of the others is a separate named part.",
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
            f"The profiler itself took {length / 1e6:.3g} ms of all threads ({length / every:.1%} of the recording).",
        )
    ]


def _slowed(accounts: Accounts) -> Findings:
    """Launch calls as long as a recorder makes them."""
    calls, account = accounts.recording.calls, accounts.account
    launches = _launches(accounts)
    launches = launches[~account.call_graph[launches]]
    usual = float(np.median(calls.end[launches] - calls.start[launches])) if len(launches) >= FEWEST else 0.0
    if usual <= SLOW_LAUNCH_NS:
        return []
    return [
        (
            "note",
            f"A launch call takes {usual / 1e3:.3g} us (median); without a recorder it takes 2 to 5 us. The recorder "
            "slowed the host down, so a host that decides here may not decide without it: give the latency that was "
            "measured without it (--latency).",
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
