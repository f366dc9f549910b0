"""What a change of the shape costs beside the same shape again, by parts, from a capture whose requests have shapes.

Each instant of a request belongs to one part of the host thread, and to one part of the device. So the parts of each
side sum to the request, and their differences to the cost of the change. Costs are means, since means add up.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.errors import UserError
from ceilings.traces import calls as kinds
from ceilings.traces.capture import GRAPH, KERNEL, Capture, Integers
from ceilings.traces.covered import union
from ceilings.traces.kernel_classes import kernel_class, short

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

CALLS = (
    ("loading modules", re.compile(r"(Module|Library)(Load|Unload|Get)|cuLink")),
    (
        "allocating and freeing",
        re.compile(
            r"Malloc|Free|(Mem|Host)Alloc|Host(Reg|Unreg)ister|Mem(Create|Map|Unmap|Release|Pool|Address|SetAccess)"
        ),
    ),
    ("building graphs", re.compile(r"Graph(?!Launch)|StreamBeginCapture|StreamEndCapture")),
)
"""Calls that prepare, by what for; the first pattern that occurs in the name decides. Others go by their kind."""

KINDS = {kinds.LAUNCH: "launching", kinds.COPY: "copying", kinds.OTHER: "other calls"}
WAITS = ("waiting for kernels of changes only", "waiting for other work", "waiting while the device idles")

RANGES = (
    ("compiling", re.compile(r"dynamo_timed|frame_compile|_compile|compile_fx|codegen|^dynamo$|GraphLowering")),
    ("checking guards", re.compile(r"TorchDynamo Cache Lookup")),
    ("operators that grow the arena", re.compile(r"^grows the arena: ")),
    ("operators", re.compile(r"^(?!Torch-Compiled Region|.*CompiledFxGraph|Pregraph bytecode)")),
    ("compiled code", re.compile(r"")),
)
"""Ranges of a framework outside of CUDA calls; an instant within several belongs to the first of these."""

CODE = "other code"
HOST_SIDE = (
    *(*(name for name, _ in CALLS), *KINDS.values(), *WAITS),
    *(*(name for name, _ in RANGES), CODE),
)
DEVICE_SIDE = ("kernels of changes only", "other kernels", "copies and fills", "idle")

Z = 1.96
NAMED = 30
"""Names of a list, those that make the largest difference."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """Which requests of a capture are what.

    Attributes:
        shapes: Names of the shapes.
        previous, shape: Of each request, indices of the shape before it and of its own.
        first: Whether its shape was never seen before it.
        change: Whether it was seen, and the shape before it is another one.
        again: Whether it has the shape of the requests before it, and more than ``settling`` follow the last change.
    """

    shapes: tuple[str, ...]
    previous: Integers
    shape: Integers
    first: Flags
    change: Flags
    again: Flags

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Labels:
        """Of what the capturing process says.

        Args:
            facts: ``shapes``, their names; ``order`` and ``previous``, the index of each request's and of that before
                it; ``first``: so many requests at the beginning are first appearances; ``settling``.

        >>> facts = {"shapes": ["a", "b"], "order": [1, 0, 1, 1, 1], "previous": [0, 1, 0, 1, 1]}
        >>> labels = Labels.of(facts | {"first": 1, "settling": 1})
        >>> labels.first.tolist(), labels.change.tolist(), labels.again.tolist()
        ([True, False, False, False, False], [False, True, True, False, False], [False, False, False, False, True])
        """
        shape, previous = (np.array(facts[name], np.int64) for name in ("order", "previous"))
        number = np.arange(len(shape))
        changed = shape != previous
        last = np.maximum.accumulate(np.where(changed, number, 0))  # what was before the capture counts as a change
        first = number < facts["first"]
        again = ~changed & ~first & (number - last > facts["settling"])
        return cls(tuple(facts["shapes"]), previous, shape, first, changed & ~first, again)


def labels_of(capture: Capture) -> Labels:
    """The shapes of a capture's requests.

    Raises:
        UserError: It is none of changing shapes, or names another number of requests than it holds.
    """
    facts = capture.meta.get("requests")
    if not facts:
        raise UserError("the capture says no shapes of its iterations; make it with capture_changing.py")
    if len(facts["order"]) != len(capture.marks.start):
        raise UserError(
            f"the capture holds {len(capture.marks.start)} iterations and the shapes of {len(facts['order'])}; "
            "delete it and run again to capture it anew"
        )
    return Labels.of(facts)


def change_record(capture: Capture) -> dict[str, Any]:
    """The part of a shape-change record that comes from a sound capture. All times are in ns, means a request.

    ``changes`` compares requests whose shape differs from the one before with the same shape again, ``first`` first
    appearances (None where there are none). ``taken_ns`` is of these, ``again_ns`` of as many requests of the same
    shapes again. Shapes without both are left out, and named.

    Raises:
        UserError: It has no changes, or no shape again.
    """
    labels = labels_of(capture)
    weights, firsts = _Weights(labels, labels.change), _Weights(labels, labels.first)
    if not weights.paired:
        raise UserError(
            "no shape of the capture comes both after another one and again; capture a sequence with several shapes"
        )
    account = _Account(capture, labels)
    lengths = account.lengths
    changes = _comparison(account, weights)
    flags = []
    if changes["left_out"]:
        flags.append(
            f"left out, since they come never again or never after another shape: {', '.join(changes['left_out'])}"
        )
    low = changes["cost_ns"]["low"]
    if low is None or low <= 0:
        flags.append("what a change costs is not larger than requests of one shape differ")
    return {
        "requests": len(lengths),
        "changes": changes,
        "first": _comparison(account, firsts) if firsts.paired else None,
        "settling_ns": weights.beyond(lengths, ~labels.first & ~labels.change & ~labels.again),
        "transitions": _transitions(labels, weights, lengths),
        "flags": flags,
    }


def _comparison(account: _Account, weights: _Weights) -> dict[str, Any]:
    """What some requests take beside the same shape again."""
    lengths = account.lengths
    cost, half = weights.cost(lengths), weights.half_width(lengths)
    low, high = (None, None) if half is None else (cost - half, cost + half)
    names = account.names(weights)
    return {
        "requests": weights.requests,
        "agains": weights.agains,
        "left_out": weights.left_out,
        "taken_ns": weights.taken(lengths),
        "again_ns": weights.again(lengths),
        "cost_ns": {"mean": cost, "low": low, "high": high},
        "host": _side(weights, HOST_SIDE, account.host),
        "device": _side(weights, DEVICE_SIDE, account.device) if account.works else [],
        "counts": {name: {"taken": weights.taken(of), "again": weights.again(of)} for name, of in account.counts()},
        "only": [one for one in names if not one["again"]][:NAMED],
        "more": [one for one in names if one["again"] and one["count"] > one["again"]][:NAMED],
        "longer": [one for one in names if one["again"] >= one["count"] and one["ns"] > one["again_ns"]][:NAMED],
    }


class _Weights:
    """How means are taken over some requests, and over as many of the same shapes again."""

    def __init__(self, labels: Labels, taken: Flags) -> None:
        count = len(labels.shapes)
        some = np.bincount(labels.shape[taken], minlength=count)
        agains = np.bincount(labels.shape[labels.again], minlength=count)
        self._labels = labels
        self.paired = np.flatnonzero((some > 0) & (agains > 0)).tolist()
        self.left_out = [name for shape, name in enumerate(labels.shapes) if some[shape] and not agains[shape]]
        self._at = [taken & (labels.shape == shape) for shape in self.paired]
        self._again = [labels.again & (labels.shape == shape) for shape in self.paired]
        self.requests, self.agains = int(some[self.paired].sum()), int(agains[self.paired].sum())
        self._share = some[self.paired] / max(self.requests, 1)

    def taken(self, values: Floats) -> float:
        return float(sum(share * values[at].mean() for share, at in zip(self._share, self._at, strict=True)))

    def again(self, values: Floats) -> float:
        return float(sum(share * values[at].mean() for share, at in zip(self._share, self._again, strict=True)))

    def cost(self, values: Floats) -> float:
        return self.taken(values) - self.again(values)

    def half_width(self, values: Floats) -> float | None:
        """Of the 95% interval of the cost, by the normal distribution; None where a shape comes again only once.

        A single request of a shape varies as that shape again does.
        """
        total = 0.0
        for share, at, again in zip(self._share, self._at, self._again, strict=True):
            if again.sum() < 2:
                return None
            around = values[again].var(ddof=1)
            taken = values[at].var(ddof=1) if at.sum() > 1 else around
            total += share**2 * (taken / at.sum() + around / again.sum())
        return Z * math.sqrt(total)

    def beyond(self, values: Floats, which: Flags) -> float | None:
        """Mean of other requests beyond those of their shapes again; None where there are none."""
        some = [(which & (self._labels.shape == each), again) for each, _, again in self.groups()]
        parts = [values[of] - values[again].mean() for of, again in some if of.any()]
        return float(np.concatenate(parts).mean()) if parts else None

    def groups(self) -> list[tuple[int, Flags, Flags]]:
        """Each shape that has both: the requests, and it again."""
        return list(zip(self.paired, self._at, self._again, strict=True))


class _Account:
    """Each request's time by parts, and what occurs in it."""

    def __init__(self, capture: Capture, labels: Labels) -> None:
        self._capture, self._labels = capture, labels
        calls, operations, ranges, marks = capture.calls, capture.operations, capture.ranges, capture.marks
        self.lengths = (marks.end - marks.start).astype(np.float64)
        self.works = len(operations.start) > 0
        of_thread = calls.thread == (marks.thread[0] if len(marks.thread) else 0)
        part_of = np.array([_call_part(name) for name in capture.names] + [len(CALLS) + kinds.OTHER], np.int64)
        self._part = part_of[calls.name]
        self._calls = _Placed(marks.start, marks.end, calls.start, calls.end, of_thread)
        self._ops = _Placed(marks.start, marks.end, operations.start, operations.end)
        self._ranges = _Placed(marks.start, marks.end, ranges.start, ranges.end, ranges.thread == marks.thread[0])
        self._range_part = np.array([_range_part(text) for text in ranges.text], np.int64)
        self._novel = self._novelty()
        rows = range(len(marks.start))
        self.host = np.array([self._host_of(k) for k in rows])
        self.device = np.array([self._device_of(k) for k in rows])

    def _novelty(self) -> Flags:
        """Of each operation, whether it is a kernel whose name no request of this shape again has."""
        operations, labels = self._capture.operations, self._labels
        at = self._ops.begun
        kernels = (operations.kind == KERNEL) & (at >= 0)
        novel = np.zeros(len(at), bool)
        for shape in range(len(labels.shapes)):
            mine = np.flatnonzero(kernels)
            mine = mine[labels.shape[at[mine]] == shape]
            if (labels.again & (labels.shape == shape)).any():
                again = labels.again[at[mine]]
                novel[mine] = ~np.isin(operations.name[mine], operations.name[mine[again]])
        return novel

    def _host_of(self, number: int) -> Floats:
        capture = self._capture
        begin, end = int(capture.marks.start[number]), int(capture.marks.end[number])
        called, (start, finish) = self._calls.of(number)
        part = self._part[called]
        parts = np.zeros(len(HOST_SIDE))
        prepares, other = len(CALLS), len(CALLS) + len(KINDS)
        by_kind = np.bincount(part, finish - start, prepares + len(kinds.KINDS))
        parts[:prepares] = by_kind[:prepares]
        parts[prepares:other] = [by_kind[prepares + kind] for kind in KINDS]
        waits = part == prepares + kinds.SYNC
        ops, (ran, done) = self._ops.of(number)
        novel = self._novel[ops]
        for_novel = union(ran[novel], done[novel]).within(start[waits], finish[waits]).sum()
        for_any = union(ran, done).within(start[waits], finish[waits]).sum()
        parts[other : other + len(WAITS)] = (
            for_novel,
            for_any - for_novel,
            by_kind[prepares + kinds.SYNC] - for_any,
        )
        spans, (opened, closed) = self._ranges.of(number)
        kind = self._range_part[spans]
        known = _length(start, finish)
        for place in range(len(RANGES)):
            upto = kind <= place
            covered = _length(np.concatenate([start, opened[upto]]), np.concatenate([finish, closed[upto]]))
            parts[other + len(WAITS) + place] = covered - known
            known = covered
        parts[-1] = (end - begin) - known
        return parts

    def _device_of(self, number: int) -> Floats:
        capture = self._capture
        ops, (start, finish) = self._ops.of(number)
        copies = ~np.isin(capture.operations.kind[ops], (KERNEL, GRAPH))
        order = np.where(copies, 2, np.where(self._novel[ops], 0, 1))
        parts, known = [], 0
        for place in range(len(DEVICE_SIDE) - 1):
            upto = order <= place
            covered = _length(start[upto], finish[upto])
            parts.append(covered - known)
            known = covered
        return np.array([*parts, int(capture.marks.end[number] - capture.marks.start[number]) - known], np.float64)

    # --- what occurs --------------------------------------------------------------------------------------------------

    def counts(self) -> list[tuple[str, Floats]]:
        """How many of each kind a request has: calls by their part, and kernels."""
        size = len(self._labels.shape)
        named = [*(name for name, _ in CALLS), *(KINDS.get(kind, "waiting") for kind in range(len(kinds.KINDS)))]
        found = []
        for part, name in enumerate(named):
            at = self._calls.begun[self._part == part]
            found.append((name, np.bincount(at[at >= 0], minlength=size).astype(np.float64)))
        at = self._ops.begun[self._capture.operations.kind == KERNEL]
        found.append(("kernels", np.bincount(at[at >= 0], minlength=size).astype(np.float64)))
        return [(name, of) for name, of in found if of.any()]

    def names(self, weights: _Weights) -> list[dict[str, Any]]:
        """Kernels, calls and outermost ranges of some requests by name, those that take most more than again first."""
        capture = self._capture
        calls, operations, ranges = capture.calls, capture.operations, capture.ranges
        kernels = operations.kind == KERNEL
        texts, text = np.unique(ranges.text.astype(str), return_inverse=True)
        outer = self._ranges.outermost()
        ran, took = operations.end - operations.start, ranges.end - ranges.start
        placed = (
            ("kernel", capture.names, (operations.name[kernels], self._ops.begun[kernels], ran[kernels])),
            ("call", capture.names, (calls.name, self._calls.begun, calls.end - calls.start)),
            ("range", tuple(texts.tolist()), (text[outer], self._ranges.begun[outer], took[outer])),
        )
        rows = [row for what, names, columns in placed for row in self._by_name(weights, what, names, columns)]
        return sorted(rows, key=lambda one: -(one["ns"] - one["again_ns"]))

    def _by_name(
        self, weights: _Weights, what: str, names: Sequence[str], columns: tuple[Integers, Integers, Integers]
    ) -> list[dict[str, Any]]:
        """A row a name; ``columns``: its index, the iteration and the time of each occurrence."""
        name, at, took = columns
        size = len(self._labels.shape)
        rows = []
        for index in np.unique(name[(name >= 0) & (at >= 0)]).tolist():
            mine = (name == index) & (at >= 0)
            count = np.bincount(at[mine], minlength=size).astype(np.float64)
            time = np.bincount(at[mine], took[mine], minlength=size).astype(np.float64)
            having = sum(int(np.count_nonzero(count[at_shape])) for _, at_shape, _ in weights.groups())
            if not having:
                continue
            label = short(names[index]) if what == "kernel" else kinds.plain(names[index]) if what == "call" else None
            rows.append(
                {
                    **{"what": what, "name": label or names[index]},
                    "class": kernel_class(names[index]) if what == "kernel" else None,
                    **{"requests": having, "count": weights.taken(count), "again": weights.again(count)},
                    **{"ns": weights.taken(time), "again_ns": weights.again(time)},
                }
            )
        return rows


class _Placed:
    """Intervals, and which iterations they lie in.

    Attributes:
        begun: Of each interval the iteration in which it began; -1 for none.
    """

    def __init__(
        self,
        begin: Integers,
        end: Integers,
        start: Integers,
        finish: Integers,
        counted: Flags | None = None,
    ) -> None:
        self._begin, self._end, self._start, self._finish = begin, end, start, finish
        self._counted = np.ones(len(start), bool) if counted is None else counted
        self._latest = np.maximum.accumulate(finish) if len(finish) else finish
        at = np.searchsorted(begin, start, "right") - 1
        inside = self._counted & (at >= 0) & (start < end[np.maximum(at, 0)])
        self.begun = np.where(inside, at, -1)

    def of(self, number: int) -> tuple[Integers, tuple[Integers, Integers]]:
        """Those that overlap an iteration, and their begins and ends within it."""
        begin, end = self._begin[number], self._end[number]
        first, last = np.searchsorted(self._latest, begin, "right"), np.searchsorted(self._start, end)
        some = np.arange(first, last)
        some = some[self._counted[some] & (self._finish[some] > begin)]
        return some, (np.maximum(self._start[some], begin), np.minimum(self._finish[some], end))

    def outermost(self) -> Flags:
        """Those within no other one."""
        if not len(self._start):
            return np.zeros(0, bool)
        order = np.lexsort((-self._finish, self._start))
        latest = np.concatenate([[-1], np.maximum.accumulate(self._finish[order])[:-1]])
        outer = np.zeros(len(order), bool)
        outer[order] = self._finish[order] > latest
        return outer & self._counted


def _length(begin: Integers, end: Integers) -> int:
    """How much intervals cover."""
    if not len(begin):
        return 0
    order = np.argsort(begin, kind="stable")
    before = np.concatenate([[begin.min()], np.maximum.accumulate(end[order])[:-1]])
    return int(np.maximum(end[order] - np.maximum(begin[order], before), 0).sum())


def _call_part(name: str) -> int:
    """The place of a call's part: of ``CALLS``, behind them its kind."""
    prepares = next((place for place, (_, pattern) in enumerate(CALLS) if pattern.search(name)), None)
    return len(CALLS) + kinds.kind(name) if prepares is None else prepares


def _range_part(text: str) -> int:
    return next(place for place, (_, pattern) in enumerate(RANGES) if pattern.search(text))


def _side(weights: _Weights, names: Sequence[str], parts: Floats) -> list[dict[str, Any]]:
    """The parts that occur, those that make the largest difference first."""
    rows = [
        {"part": name, "taken_ns": weights.taken(of), "again_ns": weights.again(of), "cost_ns": weights.cost(of)}
        for name, of in zip(names, parts.T, strict=True)
    ]
    return sorted((row for row in rows if row["taken_ns"] or row["again_ns"]), key=lambda row: -abs(row["cost_ns"]))


def _transitions(labels: Labels, weights: _Weights, lengths: Floats) -> list[dict[str, Any]]:
    rows = []
    for shape, changed, again in weights.groups():
        steady = float(lengths[again].mean())
        for previous in np.unique(labels.previous[changed]).tolist():
            mine = lengths[changed & (labels.previous == previous)]
            rows.append(
                {
                    **{"previous": labels.shapes[previous], "shape": labels.shapes[shape], "count": len(mine)},
                    **{"taken_ns": float(mine.mean()), "again_ns": steady},
                }
            )
    return sorted(rows, key=lambda row: row["again_ns"] - row["taken_ns"])
