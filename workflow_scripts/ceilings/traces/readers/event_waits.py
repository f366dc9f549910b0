"""Which record of a CUDA event a stream waits for: an event may be recorded again and again."""

from __future__ import annotations

import numpy as np

from ceilings.traces.capture import Integers, places


def latest_records(wait: tuple[Integers, Integers], record: tuple[Integers, Integers]) -> Integers:
    """Index of the record that each wait waits for; -1 where it was recorded before the trace began, or never.

    Args:
        wait: Of each wait, a number of its event and the index of the call that waits. Calls are in the order of time.
        record: Of each record, a number of its event and the index of the call that recorded it; those that no call
            made (-1) are waited for by nothing.
    """
    (event, call), (recorded, maker) = wait, record
    known = np.flatnonzero(maker >= 0)
    order = known[np.lexsort((maker[known], recorded[known]))]
    if not len(order):
        return np.full(len(event), -1, np.int64)
    events = np.unique(recorded[order])
    width = max(int(call.max(initial=0)), int(maker.max(initial=0))) + 2
    made = places(events, recorded[order]) * width + maker[order]
    at = np.searchsorted(made, places(events, event) * width + call, "right") - 1
    latest = order[at]
    return np.where((at >= 0) & (call >= 0) & (recorded[latest] == event), latest, -1)


def named_records(wait: Integers, record: Integers) -> Integers:
    """Index of the record with the same number as each wait; -1 where there is none, or the wait has no number."""
    order = np.argsort(record, kind="stable")
    at = places(record[order], wait)
    return np.where((at >= 0) & (wait > 0), order[at] if len(order) else -1, -1)
