"""Which layer of a TensorRT engine each kernel of a capture belongs to, as far as there is evidence.

docs/budget.md says what counts as evidence. Where two answers fit, there is none: time without a layer is reported, a
layer is never guessed.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ceilings.engines import engine_record, inspect, profiles
from ceilings.traces import calls as kinds
from ceilings.traces.alignment import aligned
from ceilings.traces.capture import KERNEL, Capture, Integers
from ceilings.traces.kernel_classes import kernel_class, short
from ceilings.workload.shape import Shape

EVIDENCE = ("range", "tactic", "name", "between")
"""Best first: an NVTX range of TensorRT's round the launch; the layer's tactic in the kernel's name; the layer's
name in it, where no tactic is known; the only layer without a kernel between two that have one."""

RANGE, TACTIC, NAME, BETWEEN = range(len(EVIDENCE))
UNMATCHED_SHOWN = 10
COPY = "a copy or fill"

_LEAST = 8  # characters of a tactic that names anything
_STUB = "__myelin_CASK_STUB"  # what TensorRT for RTX tells in place of kernels that it chooses on the user's machine
_MYELIN = re.compile(r"_myl\d+_\d+$")  # Myelin numbers its layers, and its kernels' names end with a digest instead
_LAUNCHES_NOTHING = re.compile(r"no_?op|constant|signal|wait|shape", re.IGNORECASE)
_ENDS_PRODUCT = re.compile(r"split_?k_?reduc", re.IGNORECASE)  # adds up what the product launched before left
_PRODUCT_CLASSES = {"gemm", "attention", "unknown"}


class Engine:
    """The layers of one optimisation profile in their order, and which of them a kernel or a range may belong to.

    Args:
        description: What TensorRT says of the engine, as ``engines.inspect.read`` gives it.
        profile: Index of the optimisation profile.
    """

    def __init__(self, description: Mapping[str, Any], profile: int = 0) -> None:
        pairs = zip(inspect.layers(description), description["Layers"], strict=True)
        entries = [(layer, str(entry.get("TacticName", ""))) for layer, entry in pairs if layer.profile == profile]
        self.layers = [layer for layer, _ in entries]
        self._tactics: dict[str, set[int]] = {}
        self._texts: dict[str, set[int]] = {}
        for index, (layer, tactic) in enumerate(entries):
            stem = _MYELIN.sub("", layer.name)
            if tactic != _STUB and len(tactic) >= _LEAST:
                self._tactics.setdefault(tactic, set()).add(index)
            elif stem.startswith("__myl_"):
                self._tactics.setdefault(f"{stem}_0x", set()).add(index)
            self._texts.setdefault(stem, set()).add(index)
        self._texts |= {layer.name: {index} for index, layer in enumerate(self.layers)}
        self.launching = [not _LAUNCHES_NOTHING.search(layer.kind) for layer in self.layers]
        self.of_kernel = functools.cache(self._of_kernel)

    def of_range(self, text: str) -> frozenset[int]:
        """The layers that an NVTX range of this text may stand for; some have Myelin's number, some have not."""
        return frozenset(self._texts.get(text, ()))

    def _of_kernel(self, name: str) -> tuple[frozenset[int], int]:
        """The layers whose tactic the kernel's name holds, from the begin of a word on, and the evidence.

        One tactic may begin as another does: the longest counts.
        """
        held = [tactic for tactic in self._tactics if re.search(rf"(?<!\w){re.escape(tactic)}", name)]
        if not held:
            return frozenset(), TACTIC
        longest = max(held, key=len)
        return frozenset(self._tactics[longest]), NAME if longest.endswith("_0x") else TACTIC


def read(path: Path, cell: Mapping[str, Any] | None) -> Engine:
    """The layers with which an engine runs a cell: those of the optimisation profile that takes its shape.

    Args:
        path: x.layers.json of an engine, with its record x.json beside it.
        cell: With ``shape``; where it is not known, the first profile's.
    """
    engine = path.with_name(path.name.removesuffix(".layers.json") + ".engine")
    description = engine_record.layers(engine)
    if cell is None:
        return Engine(description)
    record = engine_record.load(engine)
    shape = Shape.parse(cell["shape"]).full
    return Engine(description, profiles.covering(profiles.read(record["profiles"]), shape))


def join(capture: Capture, engine: Engine, times: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The layers with the time of their kernels, and the time that has no layer.

    Args:
        times: What TensorRT's profiler said of each layer (``runtimes.layer_times``), if it was asked.

    Returns:
        Times in ns of an iteration, medians; shares of the summed lengths of all kernels, copies and fills, which
        overlaps make longer than the device's busy time.
    """
    operations, marks = capture.operations, capture.marks
    range_of_call = _range_of_calls(capture, engine)
    known: dict[tuple[tuple[Step, ...], bool], tuple[Integers, Integers, bool]] = {}
    in_order = 0
    count, length = (np.zeros((len(marks.start), len(engine.layers) + 1)) for _ in range(2))
    evidence = np.zeros((len(engine.layers), len(EVIDENCE)))
    lost: dict[str, float] = defaultdict(float)
    for number, (start, end) in enumerate(zip(marks.start, marks.end, strict=True)):
        ops = np.arange(*np.searchsorted(operations.start, (start, end)))
        # As they were launched: the order of the layers. The nodes of a graph have one launch, and the device's order.
        ops = ops[np.lexsort((operations.start[ops], operations.call[ops]))]
        key = steps, one_stream = _steps(capture, ops, range_of_call), len(np.unique(operations.stream[ops])) == 1
        if key not in known:
            known[key] = _assigned(steps, engine, one_stream)
        at, why, ordered = known[key]  # no layer: -1, the last column
        in_order += ordered
        ns = (operations.end - operations.start)[ops]
        np.add.at(count[number], at, 1)
        np.add.at(length[number], at, ns)
        placed = at >= 0
        np.add.at(evidence, (at[placed], why[placed]), ns[placed])
        for place in np.flatnonzero(~placed):
            lost[steps[place][0]] += float(ns[place])
    total, iterations = length.sum(), len(marks.start)
    profiled = {one["name"]: one["median_ns"] for one in (times or {}).get("layers", [])}
    each = []
    for index, layer in enumerate(engine.layers):
        matched = bool(evidence[index].any())
        took = float(np.median(length[:, index])) if matched else None
        profiler = profiled.get(layer.name)
        about = {
            "name": layer.name,
            "type": layer.kind,
            "precision": layer.precision,
            "nodes": list(layer.nodes),
            "evidence": EVIDENCE[evidence[index].argmax()] if matched else None,
            "kernels": float(np.median(count[:, index])),
            "ns": took,
            "share": float(length[:, index].sum() / total),
            "profiler_ns": profiler,
            "profiler_ratio": profiler / took if profiler is not None and took else None,
        }
        each.append(about)
    return {
        "matched_share": float(length[:, :-1].sum() / total),
        "evidence_shares": dict(zip(EVIDENCE, (evidence.sum(axis=0) / total).tolist(), strict=True)),
        "in_order_share": in_order / iterations,
        "operations_ns": float(np.median(length.sum(axis=1))),
        "unmatched_ns": float(np.median(length[:, -1])),
        "unmatched": [
            {"name": short(name), "ns": lost[name] / iterations}
            for name in sorted(lost, key=lambda name: -lost[name])[:UNMATCHED_SHOWN]
        ],
        "profiler_sum_ns": (times or {}).get("layers_sum_ns"),
        "each": each,
    }


Step = tuple[str, str | None, bool]
"""Of an operation: its kernel's name, the text of the range round its launch, whether it goes on what came before."""


def _range_of_calls(capture: Capture, engine: Engine) -> Integers:
    """For each call the innermost range round it that names a layer; -1 where none does, and for a graph's launch."""
    calls, ranges = capture.calls, capture.ranges
    innermost = np.full(len(calls.start), -1, np.int64)
    named = np.array([bool(engine.of_range(text)) for text in ranges.text], bool)
    for index in sorted(np.flatnonzero(named).tolist(), key=lambda k: ranges.start[k] - ranges.end[k]):  # longest first
        inside = slice(*np.searchsorted(calls.start, (ranges.start[index], ranges.end[index])))
        innermost[inside][calls.thread[inside] == ranges.thread[index]] = index
    graph = np.array([kinds.launches_graph(name) for name in capture.names] + [False])
    return np.where(graph[calls.name], -1, innermost)


def _steps(capture: Capture, ops: Integers, range_of_call: Integers) -> tuple[Step, ...]:
    """What an iteration ran, as far as it decides on layers: equal for nearly all iterations."""
    operations = capture.operations
    steps: list[Step] = []
    before, stream = -1, -1
    for op in ops.tolist():
        call = operations.call[op]
        named = int(range_of_call[call]) if call >= 0 else -1
        name = capture.names[operations.name[op]] if operations.kind[op] == KERNEL else COPY
        goes_on = named >= 0 and named == before
        if steps and named in (-1, before) and operations.stream[op] == stream and _ENDS_PRODUCT.search(name):
            goes_on = kernel_class(steps[-1][0]) == "gemm"
        steps.append((name, str(capture.ranges.text[named]) if named >= 0 else None, goes_on))
        before, stream = named, int(operations.stream[op])
    return tuple(steps)


def _assigned(steps: Sequence[Step], engine: Engine, one_stream: bool) -> tuple[Integers, Integers, bool]:
    """Layer of each operation, -1 for none, and by which evidence; whether they came in the order of the layers.

    Where they did not, or on several streams cannot be known to, a layer has only what is nobody else's.
    """
    heads = [at for at, (_, _, goes_on) in enumerate(steps) if not goes_on]
    unit = np.cumsum([not goes_on for _, _, goes_on in steps], dtype=np.int64) - 1
    fits: list[frozenset[int]] = []
    why = np.zeros(len(heads), np.int64)
    for place, at in enumerate(heads):
        name, text, _ = steps[at]
        by_kernel, evidence = engine.of_kernel(name)
        by_range = engine.of_range(text) if text else frozenset()
        fits.append(by_range & by_kernel or by_range or by_kernel)
        why[place] = RANGE if by_range else evidence
    in_order = aligned(fits, len(engine.layers)) if one_stream else None
    layer = np.array([next(iter(fit)) if len(fit) == 1 else -1 for fit in fits], np.int64)
    if in_order is not None:
        layer = in_order
        for first, last, left in _between(layer, fits, engine):
            classes = {kernel_class(steps[at][0]) for at in heads[first:last] if steps[at][0] != COPY}
            if classes & _PRODUCT_CLASSES or not engine.layers[left].product:
                layer[first:last], why[first:last] = left, BETWEEN
    return layer[unit], why[unit], in_order is not None


def _between(layer: Integers, fits: Sequence[frozenset[int]], engine: Engine) -> list[tuple[int, int, int]]:
    """Runs of units (first, behind the last) without a layer, between two with one, and the only layer that is left.

    A kernel that bears the tactic of some layer is of that one, wherever it stands, and of none that is left.
    """
    anchors = np.flatnonzero(layer >= 0)
    runs = []
    for before, after in itertools.pairwise(anchors.tolist()):
        run = range(before + 1, after)
        left = [index for index in range(layer[before] + 1, layer[after]) if engine.launching[index]]
        if run and len(left) == 1 and left[0] not in layer and not any(fits[place] for place in run):
            runs.append((before + 1, after, left[0]))
    return runs
