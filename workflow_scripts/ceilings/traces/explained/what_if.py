"""How long an iteration would be if something took no time: by replay, and only where a replay is the recording."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ceilings.schemas.explanation import CHANGES
from ceilings.traces.explained.account import Accounted
from ceilings.traces.replay import NODE_GAP_NS, Recorded, Replay

CLOSE = 0.01
"""A replay at the recorded speed may differ from the recording by this share of it."""

GRAPH_LAUNCH_NS = 10_000
"""What the launch of one graph takes where the recording has none: CUDA 12 on a server takes 5 to 15 us."""

WAITS = "waits"
"""A change that levers ask for and no page shows: no call waits but the last one."""

FASTER = 0.5
"""Kernels that are twice as fast take this part of their time."""


@dataclasses.dataclass(frozen=True)
class Change:
    """What a change would make of an iteration: its length in ns, or why nobody knows; ``graphs``: how many it has."""

    length: float | None
    why_not: str | None
    graphs: int = 0


def replayed(
    one: Accounted,
    transfer: NDArray[np.bool_],
    communication: NDArray[np.bool_],
    kernel: NDArray[np.bool_],
    graph_launch: float | None,
    *,
    graph_gap: float | None = None,
) -> dict[str, Change]:
    """Each of ``CHANGES``, and ``WAITS``.

    Args:
        transfer, communication, kernel: What each operation of ``one.ops`` is; a kernel that communicates is none.
        graph_launch: Length of a graph's launch in ns in this recording; None where it has none.
        graph_gap: Time between two operations of a graph in ns in this recording; None where it has none.
    """
    if one.recorded is None:
        return dict.fromkeys((*CHANGES, WAITS), Change(None, one.why_not))
    recorded = one.recorded
    replay = Replay(recorded)
    again = replay.run(1).length
    if abs(again - recorded.length) > CLOSE * recorded.length:
        off = again / recorded.length - 1
        return dict.fromkeys(
            (*CHANGES, WAITS), Change(None, f"at the recorded speed the replay is {off:+.0%} of the iteration off")
        )
    ones = np.ones(len(recorded.work.begin))
    changes = {
        "host": Change(replay.run(0).length, None),
        "graph": _graph(recorded, replay, graph_launch, graph_gap),
        WAITS: Change(replay.run(1, waits=False).length, None),
    }
    for name, which, factor, nothing in (
        ("copies", transfer, 0.0, "nothing is copied between host and device"),
        ("kernels", kernel, FASTER, "no kernel runs"),
        ("communication", communication, 0.0, "nothing is communicated between devices"),
    ):
        scaled = np.where(which, factor, ones)
        # What is not copied needs no call: that of pageable memory may take longer than its copy.
        without = _only(recorded, which).tolist() if name == "copies" else None
        found = replay.run(1, scaled, without=without).length if which.any() else None
        changes[name] = Change(found, None if which.any() else nothing)
    return changes


def _only(recorded: Recorded, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Calls that submit some of these operations and no others."""
    calls = len(recorded.calls.begin)
    known = recorded.call >= 0
    some = np.bincount(recorded.call[known & which], minlength=calls) > 0
    return some & (np.bincount(recorded.call[known & ~which], minlength=calls) == 0)


def _graph(recorded: Recorded, replay: Replay, launch: float | None, gap: float | None) -> Change:
    """One launch submits what is between two waits; each wait stays, and what the host does after the last launch."""
    submitting = np.unique(recorded.call[recorded.call >= 0])
    if len(submitting) <= 1:
        return Change(
            None, "one call submits all work already" if len(submitting) else "the host submits ahead of time"
        )
    graphs = replay.as_graphs(
        GRAPH_LAUNCH_NS if launch is None else launch, NODE_GAP_NS if gap is None else min(gap, NODE_GAP_NS)
    )
    if not graphs.count:
        return Change(None, "between each two waits there is one launch: a graph has nothing to gather")
    return Change(graphs.length, None, graphs.count)
