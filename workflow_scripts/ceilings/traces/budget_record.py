"""The budget record of a captured cell: medians over its iterations, what slow ones have more of, one iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.statistics.quantiles import quantile_interval
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES, PATH_SHARES, SELDOM
from ceilings.traces import calls as kinds
from ceilings.traces import steady
from ceilings.traces.budget import Account, Iteration
from ceilings.traces.capture import GRAPH, KERNEL, Capture
from ceilings.traces.kernel_classes import kernel_class, short
from ceilings.traces.path import critical_path
from ceilings.traces.replay import NODE_GAP_NS, Replay
from ceilings.traces.verdict import MAJORITY, MEANINGS, verdict

CLOSING = 0.01
"""A side of the account closes if its residual is no larger than this share of the iteration."""

UNKNOWN = 0.02
"""Share of the busy time in kernels of unknown class from which on the record warns."""

KERNELS_SHOWN = 40
SLOW = 0.01
"""Share of the iterations, at least one, that are called slow."""

FEWEST_FOR_JITTER = 20

HOST_SPEEDS = np.arange(31) * 0.05
"""The replays: the host's own time as recorded, times each of these."""

MOST_REPLAYED = 40
"""Iterations that are replayed, evenly spread."""


def budget_record(capture: Capture, flags: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a budget record that comes from a sound capture.

    All times are in ns. A residual is the median iteration less the sum of the parts' medians.
    """
    account = Account(capture)
    iterations = account.iterations()
    lengths = np.array([one.length for one in iterations], np.float64)
    middle = float(np.median(lengths))
    host = np.array([one.host for one in iterations])
    classes = np.array([one.classes for one in iterations])
    idle = np.array([one.idle for one in iterations])
    shares = np.median([one.shares for one in iterations], axis=0) / middle
    device = np.column_stack([classes, idle])
    residual = {"host": middle - np.median(host, axis=0).sum(), "device": middle - np.median(device, axis=0).sum()}
    warnings = list(flags)
    for side, value in residual.items():
        if abs(value) > CLOSING * middle:
            warnings.append(f"the {side} side leaves {value / middle:+.1%} of the iteration unexplained")
    kernels = _kernels(account)
    busy = float(np.median(classes.sum(axis=1)))
    unknown = [kernel for kernel in kernels if kernel["class"] == "unknown"]
    unknown_ns = sum(kernel["ns"] for kernel in unknown)
    if unknown_ns > UNKNOWN * busy:
        warnings.append(f"{unknown_ns / busy:.1%} of busy time is in kernels of unknown class")
    irregular = steady.irregular(capture)
    warnings += steady.flags(irregular)
    named = dict(zip(PATH_SHARES, shares.tolist(), strict=True))
    bound = verdict(named)
    return {
        "iterations": len(iterations),
        "iteration_ns": _median(lengths),
        "host_ns": _parts(HOST_PARTS, host),
        "other_calls_ns": _median([one.other_calls for one in iterations]),
        "device_ns": {
            "busy": _median(classes.sum(axis=1)),
            "classes": _classes(classes),
            "idle": _parts(IDLE_CAUSES, idle),
            "idle_unexplained": _median([one.unexplained for one in iterations]),
        },
        "residual_ns": residual,
        "counts": {name: _middle(iterations, name) for name in ("launches", "graphs", "kernels")},
        "kernel_mean_ns": _ratio(_middle(iterations, "kernel_ns"), _middle(iterations, "kernels")),
        "submit_ns": _middle(iterations, "submit"),
        "launch_to_start_ns": _launch_to_start(iterations),
        "shares": named,
        "verdict": {"name": bound, "meaning": MEANINGS[bound], "majority": MAJORITY},
        "replays": _replays(account),
        "jitter": _jitter(lengths, host, device),
        "kernels": kernels[:KERNELS_SHOWN],
        "unknown_kernels": unknown,
        "irregular": irregular,
        "timeline": _timeline(account, int(np.argmin(np.abs(lengths - middle)))),
        "flags": warnings,
    }


def _median(values: Sequence[float] | NDArray[Any]) -> dict[str, float | None]:
    """Median with its distribution-free 95% interval, where the number of iterations bounds one."""
    array = np.asarray(values, np.float64)
    interval = quantile_interval(array, 0.5)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {"median": float(np.median(array)), "low": low, "high": high}


def _parts(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, dict[str, float | None]]:
    return {name: _median(values[:, column]) for column, name in enumerate(names)}


def _classes(values: NDArray[np.float64]) -> dict[str, dict[str, float | None]]:
    """Busy time by class. One process on one device has no communication, as a rule: then it is left out."""
    return {name: part for name, part in _parts(KERNEL_CLASSES, values).items() if name not in _absent(values)}


def _absent(values: NDArray[np.float64]) -> set[str]:
    """The classes of ``SELDOM`` without any work, of which values begin with a column a class."""
    return {name for name in SELDOM if not values[:, KERNEL_CLASSES.index(name)].any()}


def _middle(iterations: Sequence[Iteration], name: str) -> float:
    return float(np.median([getattr(one, name) for one in iterations]))


def _ratio(sum_: float, count: float) -> float | None:
    return sum_ / count if count else None


def _launch_to_start(iterations: Sequence[Iteration]) -> float | None:
    """Median over all launches of all iterations."""
    every = np.concatenate([one.launch_to_start for one in iterations])
    return float(np.median(every)) if len(every) else None


def _replays(account: Account) -> dict[str, Any] | None:
    """Medians over replayed iterations, a value for each of the host's speeds; None if they cannot be replayed.

    ``length_ns`` of the iteration, ``submitted_ns`` until all was submitted, ``no_work_ns``: the length if no operation
    of the device took any time; ``shares`` of the critical path. ``closer``: the same with the nodes of CUDA graphs as
    close together as where nobody records them; only where there are such.
    """
    marks = account.capture.marks
    chosen = np.unique(np.linspace(0, len(marks.start) - 1, MOST_REPLAYED).astype(int))
    recorded = [account.recorded(*(int(part[k]) for part in (marks.start, marks.end, marks.thread))) for k in chosen]
    if not all(one.whole for one in recorded):
        return None
    replays = [Replay(one) for one in recorded]
    if any(
        abs(replay.run(1).length - one.length) > CLOSING * one.length
        for replay, one in zip(replays, recorded, strict=True)
    ):
        return None  # something waited for less than all that was submitted
    nodes = any(replay.has_nodes for replay in replays)
    return {
        "iterations": len(replays),
        "host": HOST_SPEEDS.round(2).tolist(),
        **_at_all_speeds(replays, closer=False),
        **({"closer": {"node_gap_ns": NODE_GAP_NS, **_at_all_speeds(replays, closer=True)}} if nodes else {}),
    }


def _at_all_speeds(replays: Sequence[Replay], *, closer: bool) -> dict[str, Any]:
    lengths, submitted, no_work, shares = list[float](), list[float](), list[float](), []
    for speed in HOST_SPEEDS:
        runs = [replay.run(speed, closer=closer) for replay in replays]
        lengths.append(float(np.median([run.length for run in runs])))
        submitted.append(float(np.median([run.submitted for run in runs])))
        no_work.append(float(np.median([replay.run(speed, device=0, closer=closer).length for replay in replays])))
        paths = [critical_path(run.work, run.calls, 0, run.length) for run in runs]
        shares.append(np.median(paths, axis=0) / max(lengths[-1], 1))
    return {
        "length_ns": lengths,
        "submitted_ns": submitted,
        "no_work_ns": no_work,
        "shares": dict(zip(PATH_SHARES, np.array(shares).T.tolist(), strict=True)),
    }


def _jitter(
    lengths: NDArray[np.float64], host: NDArray[np.float64], device: NDArray[np.float64]
) -> dict[str, Any] | None:
    """What the slow iterations have more of than the median ones; None where there are too few to tell."""
    if len(lengths) < FEWEST_FOR_JITTER:
        return None
    count = max(1, round(SLOW * len(lengths)))
    slow = np.argsort(lengths, kind="stable")[-count:]
    extra = {"iteration_ns": float(lengths[slow].mean() - np.median(lengths))}
    sides: dict[str, dict[str, float]] = {}
    for side, names, values in (("host_ns", HOST_PARTS, host), ("device_ns", (*KERNEL_CLASSES, *IDLE_CAUSES), device)):
        more = values[slow].mean(axis=0) - np.median(values, axis=0)
        # A class and a cause may share a name; a prefix distinguishes the causes.
        labels = [
            name if k < len(KERNEL_CLASSES) or side == "host_ns" else f"idle_{name}" for k, name in enumerate(names)
        ]
        sides[side] = dict(zip(labels, more.tolist(), strict=True))
    for name in _absent(device):
        del sides["device_ns"][name]
    return {"slow_iterations": count, **extra, **sides}


def _kernels(account: Account) -> list[dict[str, Any]]:
    """Kernels by name, the longest in sum first, per iteration."""
    capture = account.capture
    operations, marks = capture.operations, capture.marks
    inside = (operations.start >= marks.start[0]) & (operations.start < marks.end[-1])
    # Between two iterations the instrument copies the next input: that work is nobody's.
    at = np.searchsorted(marks.start, operations.start, "right") - 1
    inside &= operations.start < marks.end[np.maximum(at, 0)]
    kernels = inside & (operations.kind == KERNEL)
    count = np.bincount(operations.name[kernels], minlength=len(capture.names))
    total = np.bincount(operations.name[kernels], (operations.end - operations.start)[kernels], len(capture.names))
    n = len(marks.start)
    rows = [
        {
            "name": capture.names[index],
            "short": short(capture.names[index]),
            "class": kernel_class(capture.names[index]),
            "count": count[index] / n,
            "ns": total[index] / n,
        }
        for index in np.argsort(-total, kind="stable")
        if count[index]
    ]
    whole = inside & (operations.kind == GRAPH)
    if whole.any():
        length = float((operations.end - operations.start)[whole].sum() / n)
        name = "CUDA graph, traced as a whole"
        rows.append({"name": name, "short": name, "class": "unknown", "count": whole.sum() / n, "ns": length})
    return sorted(rows, key=lambda kernel: -kernel["ns"])


def _timeline(account: Account, number: int) -> dict[str, Any]:
    """One iteration, times from its start: calls that launch, copy or wait; operations, and when their call began."""
    capture = account.capture
    calls, operations, marks = capture.calls, capture.operations, capture.marks
    start, end, thread = (int(part[number]) for part in (marks.start, marks.end, marks.thread))
    called = account.calls_of(start, end, thread)
    called = called[account.call_kind[called] != kinds.OTHER]
    ops = account.operations_of(start, end)
    return {
        "iteration": number,
        "length": end - start,
        "calls": [
            [int(calls.start[k] - start), int(calls.end[k] - start), kinds.KINDS[account.call_kind[k]]] for k in called
        ],
        "operations": [
            [
                *(
                    int(operations.start[k] - start),
                    int(operations.end[k] - start),
                    KERNEL_CLASSES[account.op_class[k]],
                ),
                *(
                    int(operations.stream[k]),
                    int(calls.start[call] - start) if (call := operations.call[k]) >= 0 else None,
                ),
            ]
            for k in range(ops.start, ops.stop)
        ],
    }
