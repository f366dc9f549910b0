"""One iteration of a recording as a picture needs it, and the labels of its critical path."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.taxonomy import COMMUNICATION, KERNEL_CLASSES, RECORDING_SHARES
from ceilings.traces import calls as kinds
from ceilings.traces.explained.account import Accounted, Accounts
from ceilings.traces.path import HOST, LAUNCH, SYNC, TRANSFER
from ceilings.traces.path import KERNEL as ON_KERNEL
from ceilings.traces.recording import Recording

TIMELINE_SHOWN = 4_000
"""Operations, and calls, of the iteration that is drawn: the longest."""

LONGEST_NAME = 2_000


def timeline(accounts: Accounts, one: Accounted, number: int) -> dict[str, Any]:
    """An iteration to be drawn, times from its begin: calls, operations, and the path as segments."""
    recording, account = accounts.recording, accounts.account
    calls, work = recording.calls, recording.work
    shown_calls = one.called[account.call_kind[one.called] != kinds.OTHER]
    shown_calls = _longest(shown_calls, calls.end[shown_calls] - calls.start[shown_calls])
    shown_ops = _longest(one.ops, work.end[one.ops] - work.start[one.ops])
    threads = list(dict.fromkeys([*([one.thread] if one.thread >= 0 else []), *calls.thread[shown_calls].tolist()]))
    streams = np.unique(work.stream[shown_ops]).tolist()
    on_path = set(one.path.work.tolist()) | {-1}
    calls_on_path = set(one.path.call.tolist())
    several = len(np.unique(work.device)) > 1
    return {
        "iteration": number,
        "length": max(one.length, 1),
        "calls": [
            [
                *(
                    int(calls.start[k]) - one.begin,
                    int(calls.end[k]) - one.begin,
                    kinds.KINDS[account.call_kind[k]],
                ),
                *(threads.index(int(calls.thread[k])), k in calls_on_path),
            ]
            for k in shown_calls.tolist()
        ],
        "operations": [
            [
                *(
                    int(work.start[k]) - one.begin,
                    int(work.end[k]) - one.begin,
                    KERNEL_CLASSES[account.op_class[k]],
                ),
                streams.index(int(work.stream[k])),
                int(calls.start[work.call[k]]) - one.begin if work.call[k] >= 0 else None,
                k in on_path,
            ]
            for k in shown_ops.tolist()
        ],
        "threads": [recording.threads[number].label for number in threads],
        "streams": [
            f"device {recording.streams[k].device}, stream {recording.streams[k].number}"
            if several
            else f"stream {recording.streams[k].number}"
            for k in streams
        ],
        "path": [
            [begin - one.begin, end - one.begin, label[:LONGEST_NAME]]
            for begin, end, label in labelled(accounts, one)[:TIMELINE_SHOWN]
        ],
    }


def _longest(which: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The longest ones, in their order."""
    if len(which) <= TIMELINE_SHOWN:
        return which
    return which[np.sort(np.argsort(-lengths, kind="stable")[:TIMELINE_SHOWN])]


def labelled(accounts: Accounts, one: Accounted) -> list[tuple[int, int, str]]:
    """The critical path in its order: begin, end and label of each segment."""
    recording, path = accounts.recording, one.path
    names = recording.names
    thread_of_line = {line: number for number, line in reversed(one.lines.of_thread.items())}
    rows = list[tuple[int, int, str]]()
    columns = (path.begin, path.end, path.share, path.work, path.call, path.line, path.gap)
    for begin, end, share, work, call, line, gap in zip(*(column.tolist() for column in columns), strict=True):
        if line >= 0 and share != HOST:
            thread = int(recording.calls.thread[call]) if call >= 0 else thread_of_line.get(line, one.thread)
            rows.append((begin, end, f"{_OF_CALL[share]}: {_where(recording, thread)}"))
        elif gap:
            rows.append((begin, end, _GAPS.get(share, "communication: gaps before it")))
        elif share == ON_KERNEL:
            rows.append((begin, end, f"kernel: {KERNEL_CLASSES[accounts.account.op_class[work]]}"))
        elif line < 0:
            rows.append((begin, end, _ON_DEVICE[share]))
    for begin, end, thread, name in one.host_names:
        if name >= 0 and name in accounts.spans.data:
            rows.append((begin, end, "host: data loading"))
        else:
            rows.append((begin, end, f"host: {names[name] if name >= 0 else f'code of {_where(recording, thread)}'}"))
    return sorted(rows)


def _where(recording: Recording, thread: int) -> str:
    return recording.threads[thread].label if thread >= 0 else "the host"


_OF_CALL = {LAUNCH: "launch", TRANSFER: "transfer: calls", SYNC: "sync"}
_ON_DEVICE = {
    LAUNCH: "launch: until the work starts",
    SYNC: "sync: until the host notices",
    TRANSFER: "transfer",
    RECORDING_SHARES.index(COMMUNICATION): COMMUNICATION,
}
_GAPS = {ON_KERNEL: "kernel: gaps between work", TRANSFER: "transfer: gaps before it"}


def path_parts(accounts: Accounts, one: Accounted) -> dict[str, float]:
    """Time on the path by label, in ns."""
    sums: defaultdict[str, float] = defaultdict(float)
    for begin, end, label in labelled(accounts, one):
        sums[label] += end - begin
    return sums
