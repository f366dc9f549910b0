"""One iteration of a recording as a picture needs it, and the labels of its critical path."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.taxonomy import COMMUNICATION, KERNEL_CLASSES, RECORDING_SHARES, STALLED
from ceilings.traces import calls as kinds
from ceilings.traces.capture import Integers
from ceilings.traces.explained.account import Accounted, Accounts
from ceilings.traces.path import HOST, LAUNCH, SYNC, TRANSFER
from ceilings.traces.path import KERNEL as ON_KERNEL
from ceilings.traces.recording import Recording

TIMELINE_SHOWN = 4_000
"""Operations, and calls, of the iteration that is drawn: the longest."""

LONGEST_NAME = 2_000

UNNAMED = "host: code of "
"""How the label of host code begins of which the recording has no name."""


def timeline(accounts: Accounts, one: Accounted, number: int) -> dict[str, Any]:
    """An iteration to be drawn, times from its begin: calls, operations, and the path as segments."""
    recording, account = accounts.recording, accounts.account
    calls, work = recording.calls, recording.work
    shown_calls = one.called[account.call_kind[one.called] != kinds.OTHER]
    shown_calls = _longest(shown_calls, calls.end[shown_calls] - calls.start[shown_calls])
    shown_ops = _longest(one.ops, work.end[one.ops] - work.start[one.ops])
    threads = list(dict.fromkeys([*([one.thread] if one.thread >= 0 else []), *calls.thread[shown_calls].tolist()]))
    streams = np.unique(work.stream[shown_ops]).tolist()
    on_path = set(shown_ops[np.isin(shown_ops, one.path.work)].tolist())
    calls_on_path = set(shown_calls[np.isin(shown_calls, one.path.call)].tolist())
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
            for begin, end, label in labelled(accounts, one, TIMELINE_SHOWN)
        ],
    }


def _longest(which: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The longest ones, in their order."""
    if len(which) <= TIMELINE_SHOWN:
        return which
    return which[np.sort(np.argsort(-lengths, kind="stable")[:TIMELINE_SHOWN])]


def labelled(accounts: Accounts, one: Accounted, most: int | None = None) -> list[tuple[int, int, str]]:
    """The critical path in its order: begin, end and label of each segment; of a long path about ``most``.

    To that end short segments that follow each other are one, with the label of the longest.
    """
    begin, end, code, labels = _labels(accounts, one)
    order = np.lexsort((end, begin))
    begin, end, code = begin[order], end[order], code[order]
    of = np.arange(len(begin))
    if most is not None and len(begin) > most:
        width = max(2 * one.length // most, 1)
        short, place = end - begin < width, (begin - one.begin) // width
        joins = short[1:] & short[:-1] & (place[1:] == place[:-1])
        of = np.concatenate([[0], np.cumsum(~joins)])
    first, count = np.unique(of, return_index=True, return_counts=True)[1:]
    longest = np.lexsort((end - begin, of))[first + count - 1]
    named = zip(code[longest].tolist(), (count - 1).tolist(), strict=True)
    shown = [f"{labels[k]}{f' and {more:,} shorter' if more else ''}" for k, more in named]
    return list(zip(begin[first].tolist(), end[first + count - 1].tolist(), shown, strict=True))


def _labels(accounts: Accounts, one: Accounted) -> tuple[Integers, Integers, Integers, list[str]]:
    """Begin, end and the label's number of each segment of the path, and the labels."""
    path, hosts = one.path, one.host_names
    kept = np.flatnonzero((path.line < 0) | (path.share != HOST))
    share, line, work, call = (values[kept] for values in (path.share, path.line, path.work, path.call))
    # What a label depends on: of the host its thread, of a kernel its class.
    thread_of_line = {number: thread for thread, number in reversed(one.lines.of_thread.items())}
    lines = np.array([thread_of_line.get(k, one.thread) for k in range(int(line.max(initial=-1)) + 1)] + [-1], np.int64)
    calls = accounts.recording.calls.thread
    thread = np.where(call >= 0, np.append(calls, -1)[call], lines[line])
    of_class = np.where((line < 0) & (work >= 0), np.append(accounts.account.op_class, -1)[work], -1)
    between, following = path.between_launches[kept], np.append(path.call[1:], -1)[kept]
    thread = np.where(between & (following >= 0), np.append(calls, -1)[following], thread)
    where = np.where(line < 0, -1, thread)
    device = np.column_stack([share, line < 0, where, of_class, path.gap[kept], between])
    seen, numbers = _distinct(device)
    labels = [_label(accounts.recording, row) for row in seen.tolist()]
    spoken, host_numbers = _distinct(hosts[:, 2:])
    labels_of_host = [_host_label(accounts, *row) for row in spoken.tolist()]
    return (
        np.concatenate([path.begin[kept], hosts[:, 0]]),
        np.concatenate([path.end[kept], hosts[:, 1]]),
        np.concatenate([numbers, host_numbers + len(labels)]),
        labels + labels_of_host,
    )


def _distinct(rows: NDArray[np.int64]) -> tuple[Integers, Integers]:
    """Distinct rows, and the number of each row among them."""
    number = np.zeros(len(rows), np.int64)
    for column in rows.T:  # sorting whole rows takes ten times as long
        values, place = np.unique(column, return_inverse=True)
        number = number * max(len(values), 1) + place
    _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
    return rows[first], inverse


def _label(recording: Recording, row: list[int]) -> str:
    share, on_device, thread, kernel, gap, between = row
    if between:
        return f"launch: host code between launches of {_where(recording, thread)}"
    if not on_device:
        return f"{_OF_CALL[share]}{_where(recording, thread)}"
    if gap:
        return _GAPS.get(share, "communication: gaps before it")
    return f"kernel: {KERNEL_CLASSES[kernel]}" if share == ON_KERNEL else _ON_DEVICE[share]


def _host_label(accounts: Accounts, thread: int, name: int) -> str:
    if name >= 0 and name in accounts.spans.data:
        return "host: data loading"
    return f"host: {accounts.spans.label(name)}" if name >= 0 else f"{UNNAMED}{_where(accounts.recording, thread)}"


def _where(recording: Recording, thread: int) -> str:
    return recording.threads[thread].label if thread >= 0 else "the host"


_OF_CALL = {LAUNCH: "launch: calls of ", TRANSFER: "transfer: calls of ", SYNC: "sync: "}
_ON_DEVICE = {
    LAUNCH: "launch: until the work starts",
    SYNC: "sync: until the host notices",
    TRANSFER: "transfer",
    RECORDING_SHARES.index(COMMUNICATION): COMMUNICATION,
    RECORDING_SHARES.index(STALLED): "stalled: launched, and does not start",
}
_GAPS = {ON_KERNEL: "kernel: gaps between work", TRANSFER: "transfer: gaps before it"}


def path_parts(accounts: Accounts, one: Accounted) -> dict[str, float]:
    """Time on the path by label, in ns."""
    begin, end, code, labels = _labels(accounts, one)
    sums = np.bincount(code, end - begin, len(labels)).tolist()
    parts: defaultdict[str, float] = defaultdict(float)
    for label, ns in zip(labels, sums, strict=True):
        parts[label] += ns
    return parts
