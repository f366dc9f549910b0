"""Reads the profile that ONNX Runtime writes of a session (``SessionOptions.enable_profiling``).

Its events are those of ``onnxruntime/core/common/profiler.cc``: of category ``Session`` runs, the executor's part of
them and the initialisation; ``Node``, each with provider, operator and shapes, to older versions also the fences before
and after it; ``Kernel``, what CUDA's and ROCm's providers ran, behind the node that launched them; ``Api``, calls of
theirs. Times are whole microseconds.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ceilings.errors import UserError
from ceilings.traces.kernel_classes import kernel_class, short
from ceilings.traces.readers import own_account
from ceilings.traces.readers.json_stream import Stream
from ceilings.traces.recording import Progress

MOST_EVENTS = 1_000_000
"""Events after which ONNX Runtime records no more."""

MOST_READ, LARGEST_US = 20_000_000, 1e15
MOST_GROUPS = 8
WARM_UP = 2.0
"""A run at the beginning of its group that takes this many times its median is one of warming up."""

MOST_WARM_UPS = 3

SESSION, NODE, KERNEL, API = "Session", "Node", "Kernel", "Api"
RUN, INITIALIZATION = "model_run", "session_initialization"
_EXECUTOR = re.compile(r"Executor::Execute$")
_LOADING = re.compile(r"^model_loading")
_OF_NODE = re.compile(r"^(.*)_(kernel_time|fence_before|fence_after)$", re.DOTALL)
_COPY = re.compile(r"^Memcpy(\w*)$|^Copy(Host|Device)To|^hipMemcpy")
_COPY_NODES = ("MemcpyToHost", "MemcpyFromHost")
_NO_SHAPE = "no inputs"
CPU = "CPUExecutionProvider"


class _Args(msgspec.Struct, gc=False):
    op_name: Any = None
    provider: Any = None
    input_type_shape: msgspec.Raw = msgspec.Raw(b"")
    thread_scheduling_stats: Any = None
    stream: Any = None


class _Event(msgspec.Struct, gc=False):
    cat: Any = None
    name: Any = None
    tid: Any = None
    ts: Any = None
    dur: Any = None
    args: _Args | None = None


@dataclasses.dataclass
class _Node:
    """An execution of a node: begin, end, and its time without that of nodes within it, in ns."""

    name: str
    operator: str
    provider: str
    thread: Any
    begin: int
    end: int
    own: int
    shapes: str
    pool_wait: int


@dataclasses.dataclass
class _Run:
    """A run of the model, and what happened within it."""

    begin: int
    end: int
    thread: Any
    executor: int = 0
    fences: int = 0
    nodes: list[_Node] = dataclasses.field(default_factory=list)
    kernels: list[tuple[str, int, int, int]] = dataclasses.field(default_factory=list)

    @property
    def length(self) -> int:
        return self.end - self.begin


def read(path: Path | str, progress: Progress | None = None) -> dict[str, Any]:
    """What the profile says, as the content of an explanation but for its name, the file's digest and provenance.

    Raises:
        UserError: It is no profile of ONNX Runtime.
    """
    events = _Profile(path)
    stream = Stream(path, _Event, progress)
    for batch in stream.batches():
        events.add(batch)
    if not events.known:
        raise UserError(f"{path} holds no event of ONNX Runtime's profiler; give the file that end_profiling named")
    return events.content(stream)


class _Profile:
    """The events of a profile, sorted into runs."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._runs: list[_Run] = []
        self._nodes: list[_Node] = []
        self._fences: list[tuple[int, int, Any]] = []
        self._executors: list[tuple[int, int, Any]] = []
        self._kernels: list[tuple[int, str, int, int, int]] = []  # the node before it, name, begin, length, stream
        self._streams: dict[Any, int] = {}
        self._apart: collections.Counter[str] = collections.Counter()
        self.counts: collections.Counter[str] = collections.Counter()
        self.known = False

    def add(self, batch: Iterable[_Event]) -> None:
        for event in batch:
            self.counts["events"] += 1
            if self.counts["events"] > MOST_READ:
                raise UserError(f"{self._path} holds more than {MOST_READ:,} events; profile fewer runs")
            begin, length = event.ts, event.dur
            if not (_is_time(begin) and _is_time(length) and isinstance(event.name, str)):
                self.counts["events without sense"] += 1
                continue
            start, end = round(begin * 1000), round((begin + max(0, length)) * 1000)
            if event.cat == SESSION:
                self._session(event.name, start, end, event.tid)
            elif event.cat == NODE:
                self._node(event, start, end)
            elif event.cat == KERNEL:
                stream = None if event.args is None else str(event.args.stream)
                number = self._streams.setdefault(stream, len(self._streams))
                self._kernels.append((len(self._nodes) - 1, event.name, start, end - start, number))
            elif event.cat == API:
                self.counts["calls of a provider"] += 1
            else:
                self.counts["other events"] += 1
                continue
            self.known = True

    def _session(self, name: str, start: int, end: int, thread: Any) -> None:
        if name == RUN:
            self._runs.append(_Run(start, end, thread))
        elif _EXECUTOR.search(name):
            self._executors.append((start, end, thread))
        elif name == INITIALIZATION or _LOADING.match(name):
            self._apart["initialising the session" if name == INITIALIZATION else "loading the model"] += end - start
        else:
            self.counts["other events of the session"] += 1

    def _node(self, event: _Event, start: int, end: int) -> None:
        match = _OF_NODE.match(event.name)
        if match and match[2] != "kernel_time":
            self._fences.append((start, end, event.tid))
            return
        args = event.args or _Args()
        name = match[1] if match else event.name
        operator, provider = (str(value or "unknown") for value in (args.op_name, args.provider))
        shapes, wait = bytes(args.input_type_shape).decode("utf-8", "replace"), _pool_wait(args.thread_scheduling_stats)
        self._nodes.append(_Node(name, operator, provider, event.tid, start, end, end - start, shapes, wait))

    # --- runs ---------------------------------------------------------------------------------------------------------

    def content(self, stream: Stream) -> dict[str, Any]:
        runs = sorted(self._runs, key=lambda run: run.begin)
        health: list[tuple[str, str]] = [*self._oddities(stream)]
        begins = np.array([run.begin for run in runs], np.int64)
        overlapping = any(later.begin < earlier.end for earlier, later in itertools.pairwise(runs))
        of_node = self._assign(runs, begins, overlapping)
        if lost := sum(run is None for run in of_node):
            health.append(("warning", f"{lost:,} executions of nodes lie in no run and are in no group."))
        for node, name, start, length, number in self._kernels:
            of = of_node[node] if node >= 0 else None
            if of is not None:
                of.kernels.append((name, start, length, number))
            else:
                self.counts["kernels in no run"] += 1
        if not runs:
            health.append(("error", f"It holds no {RUN}: nothing says where a run begins and ends."))
        if overlapping:
            health.append(
                ("note", "Runs overlap in time, as those of several threads do: their lengths add up to more.")
            )
        grouped, left = self._groups(runs)
        health += left
        total = sum(run.length for _, of in grouped for run in of)
        groups = [_group(label, of, sum(run.length for run in of) / total if total else 0.0) for label, of in grouped]
        span = runs[-1].end - runs[0].begin if runs else 0
        span = max([span, *(run.end - runs[0].begin for run in runs)])
        inside = _union([(run.begin, run.end) for run in runs])
        counts = {
            **{"events": self.counts.pop("events"), "runs": len(runs), "nodes": len(self._nodes)},
            **{"kernels": len(self._kernels), "fences": len(self._fences), **dict(sorted(self.counts.items()))},
        }
        return own_account.content(
            "onnxruntime-profile",
            "ONNX Runtime",
            counts={name: many for name, many in counts.items() if many},
            lacks=self._lacks(),
            health=[
                *health,
                *(("note", own_account.percentiles("Runs", [run.length for run in runs])) for _ in runs[:1]),
            ],
            groups=groups,
            why="ONNX Runtime marks each run (model_run)",
            span=(inside, span - inside),
            devices=self._devices(),
        )

    def _assign(self, runs: Sequence[_Run], begins: Any, overlapping: bool) -> list[_Run | None]:
        """The run of each node: that of its thread, or, where runs do not overlap, that of its time."""
        by_thread: dict[Any, list[_Run]] = collections.defaultdict(list)
        for run in runs:
            by_thread[run.thread].append(run)
        starts = {thread: [run.begin for run in of] for thread, of in by_thread.items()}

        def find(begin: int, end: int, thread: Any) -> _Run | None:
            candidates = [(by_thread[thread], starts[thread])] if thread in by_thread else []
            if not overlapping:
                candidates.append((list(runs), begins))
            for of, at in candidates:
                place = int(np.searchsorted(at, begin, "right")) - 1
                if place >= 0 and end <= of[place].end:
                    return of[place]
            return None

        found = [find(node.begin, node.end, node.thread) for node in self._nodes]
        for node, of in zip(self._nodes, found, strict=True):
            if of is not None:
                of.nodes.append(node)
        for begin, end, thread in self._fences:
            if around := find(begin, end, thread):
                around.fences += end - begin
        for begin, end, thread in self._executors:
            if around := find(begin, end, thread):
                around.executor = max(around.executor, end - begin)  # those of graphs within nodes are shorter
        for run in runs:
            _take_inner_nodes_off(run.nodes)
        return found

    def _groups(self, runs: Sequence[_Run]) -> tuple[list[tuple[str, list[_Run]]], list[tuple[str, str]]]:
        """Runs by the sizes of their inputs, without those of warming up; and what was left out."""
        sizes: dict[str, list[_Run]] = collections.defaultdict(list)
        for run in runs:
            first = min(run.nodes, key=lambda node: node.begin, default=None)
            sizes[_sizes(first.shapes) if first else _NO_SHAPE].append(run)
        if len(sizes) > MOST_GROUPS:
            by_nodes: dict[str, list[_Run]] = collections.defaultdict(list)
            for of in sizes.values():
                for run in of:
                    by_nodes[f"{len(run.nodes)} nodes, inputs of {len(sizes)} sizes"].append(run)
            sizes = {name: sorted(of, key=lambda run: run.begin) for name, of in by_nodes.items()}
        if len(sizes) > MOST_GROUPS:
            kept = sorted(sizes, key=lambda name: -sum(run.length for run in sizes[name]))[: MOST_GROUPS - 1]
            others = [run for name, of in sizes.items() if name not in kept for run in of]
            sizes = {name: sizes[name] for name in kept} | {"others": others}
        groups, health = [], []
        for name, of in sizes.items():
            label = "all runs" if len(sizes) == 1 else f"first inputs {name}" if "nodes" not in name else name
            label = name if name == "others" else label
            warm = _warm_ups(of)
            if warm:
                time = sum(run.length for run in of[:warm]) / 1e6
                which = f"the first {warm} runs" if warm > 1 else "the first run"
                health.append(("note", f"Left out as warming up: {which} ({label}), {time:.3f} ms."))
            groups.append((label, of[warm:]))
        return sorted(groups, key=lambda one: -sum(run.length for run in one[1])), health

    # --- about the file -----------------------------------------------------------------------------------------------

    def _oddities(self, stream: Stream) -> Iterable[tuple[str, str]]:
        if stream.cut:
            yield (
                "warning",
                f"The file ends before its events do, after {stream.bytes:,} bytes: it was read up to there. Copy it "
                "again, or profile again.",
            )
        if stream.unreadable:
            yield "warning", f"{stream.unreadable:,} events are no JSON and were left out."
        if stream.mended:
            yield "note", f"{stream.mended:,} blocks or events are no JSON as they stand; they were mended and read."
        if many := self.counts["events without sense"]:
            yield "warning", f"{many:,} events have no name or no time and were left out."
        if self.counts["events"] - len(self._kernels) - self.counts["calls of a provider"] >= MOST_EVENTS:
            yield (
                "warning",
                f"ONNX Runtime records no more than {MOST_EVENTS:,} events: the last runs may be incomplete.",
            )
        for what, time in self._apart.items():
            yield "note", f"Apart from the runs: {what}, {time / 1e6:.3f} ms."

    def _lacks(self) -> list[str]:
        on_device = {node.provider for node in self._nodes} - {CPU, "unknown"}
        return [
            *(
                ["It holds no kernels: a node's time is that of its host part."]
                if on_device and not self._kernels
                else []
            ),
            *(
                ["It gives the time of kernels, not which part of a run waits for them."]
                if self._kernels
                else ["It holds no work of a device."] * (not on_device)
            ),
            "Times are whole microseconds: those of short nodes are rounded down.",
            "The time outside nodes includes that of the profiler, which writes an event after each node.",
            "It does not say what other threads or processes did.",
        ]

    def _devices(self) -> list[dict[str, Any]]:
        if not self._kernels:
            return []
        spans = [(begin, begin + length) for _, _, begin, length, _ in self._kernels]
        copies = sum(bool(_COPY.match(name)) for _, name, *_ in self._kernels)
        return [
            {
                **{"device": -1, "name": None, "processes": 1, "streams": len(self._streams)},
                **{"kernels": len(spans) - copies, "copies": copies, "fills": 0, "graphs": 0},
                "busy_ns": _union(spans),
                "span_ns": max(end for _, end in spans) - min(begin for begin, _ in spans),
            }
        ]


def _group(label: str, runs: Sequence[_Run], share: float) -> dict[str, Any]:
    """The account of some runs: nodes by provider, what lies outside nodes, kernels, and what speaks for a change."""
    lengths = [run.length for run in runs]
    providers = list(dict.fromkeys(node.provider for run in runs for node in run.nodes))
    in_nodes = [_union([(node.begin, node.end) for node in run.nodes]) for run in runs]
    executor = [
        max(run.executor, inside) if run.executor else run.length for run, inside in zip(runs, in_nodes, strict=True)
    ]
    parts = {
        **{
            f"nodes of {provider}": [sum(node.own for node in run.nodes if node.provider == provider) for run in runs]
            for provider in providers
        },
        "fences": [run.fences for run in runs],
        "executor, outside nodes": [
            max(0, whole - inside - run.fences) for run, whole, inside in zip(runs, executor, in_nodes, strict=True)
        ],
        "outside the executor": [run.length - whole for run, whole in zip(runs, executor, strict=True)],
        "within nodes: waiting for threads of the pool": [sum(node.pool_wait for node in run.nodes) for run in runs],
        "kernels on the device": [
            _union([(begin, begin + length) for _, begin, length, _ in run.kernels]) for run in runs
        ],
    }
    medians = {name: float(np.median(values)) for name, values in parts.items()}
    kernels = _kernels(runs)
    return own_account.group(
        label,
        lengths,
        share,
        {name: ns for name, ns in medians.items() if ns or name.startswith(("nodes", "executor"))},
        counts={
            "nodes": float(np.median([len(run.nodes) for run in runs])),
            **({"kernels": float(np.median([len(run.kernels) for run in runs]))} if kernels else {}),
        },
        kernels=kernels,
        layers=_layers(runs, len(providers) > 1),
        levers=_levers(runs, medians, float(np.median(lengths)), providers),
    )


def _layers(runs: Sequence[_Run], several: bool) -> list[tuple[str, str, float, float]]:
    """Nodes with their operator, those that take longest first."""
    times: dict[tuple[str, str, str], dict[int, int]] = collections.defaultdict(dict)
    count: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for number, run in enumerate(runs):
        for node in run.nodes:
            key = (node.name, node.operator, node.provider)
            times[key][number] = times[key].get(number, 0) + node.own
            count[key] += 1
    rows = []
    for (name, operator, provider), of in times.items():
        values = [*of.values(), *[0] * (len(runs) - len(of))]
        kind = f"{operator} ({provider})" if several else operator
        rows.append((name, kind, count[name, operator, provider] / len(runs), float(np.median(values))))
    return sorted(rows, key=lambda row: -row[3])


def _kernels(runs: Sequence[_Run]) -> list[dict[str, Any]]:
    times: collections.Counter[str] = collections.Counter()
    count: collections.Counter[str] = collections.Counter()
    for run in runs:
        for name, _, length, _ in run.kernels:
            times[name] += length
            count[name] += 1
    return [
        {
            **{"name": name, "short": short(name), "class": "copy" if _COPY.match(name) else kernel_class(name)},
            **{"count": count[name] / len(runs), "ns": time / len(runs), "path_ns": None},
        }
        for name, time in times.most_common()
        if count[name]
    ]


def _levers(
    runs: Sequence[_Run], parts: dict[str, float], length: float, providers: Sequence[str]
) -> list[tuple[str, str, float]]:
    """What the profile speaks for, each with its reason and the share of a run that goes at most."""
    nodes = [node for run in runs for node in run.nodes]
    copies = sum(node.own for node in nodes if node.operator in _COPY_NODES) / len(runs)
    strays = [node for node in nodes if node.provider == CPU and node.operator not in _COPY_NODES]
    on_cpu = (sum(node.own for node in strays) / len(runs) + copies) if len(providers) > 1 and strays else 0.0
    operators = ", ".join(name for name, _ in collections.Counter(node.operator for node in strays).most_common(4))
    outside = parts["executor, outside nodes"] + parts["outside the executor"]
    waits = parts["within nodes: waiting for threads of the pool"]
    found = (
        (
            on_cpu,
            0.0,
            "run all nodes on one provider",
            f"{len(strays) / len(runs):.3g} nodes a run are on the CPU ({operators}), with the copies that it takes",
        ),
        (
            outside,
            0.2,
            "fewer and larger nodes",
            f"{outside / max(1.0, length):.0%} of a run lies outside its {len(nodes) / len(runs):.0f} nodes: fuse them "
            "(graph optimisation level, onnxruntime.transformers), and bind inputs and outputs (io_binding)",
        ),
        (
            waits,
            0.1,
            "another number of threads",
            f"nodes wait {waits / max(1.0, length):.0%} of a run for other threads of the pool (intra_op_num_threads)",
        ),
    )
    chosen = [(name, why, min(1.0, ns / length)) for ns, least, name, why in found if length and ns > least * length]
    return sorted(chosen, key=lambda lever: -lever[2])


def _take_inner_nodes_off(nodes: list[_Node]) -> None:
    """Let the time of nodes with graphs within them be what the nodes of these do not take."""
    open_nodes: dict[Any, list[_Node]] = collections.defaultdict(list)
    for node in sorted(nodes, key=lambda node: (node.begin, -node.end)):
        around = open_nodes[node.thread]
        while around and around[-1].end <= node.begin and not node.begin == node.end == around[-1].end:
            around.pop()
        while around and around[-1].end < node.end:
            around.pop()
        if around and around[-1].operator in ("If", "Loop", "Scan"):
            around[-1].own = max(0, around[-1].own - (node.end - node.begin))
        if node.operator in ("If", "Loop", "Scan"):
            around.append(node)


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST_US


def _warm_ups(runs: Sequence[_Run]) -> int:
    """How many runs at the beginning are those of warming up."""
    if len(runs) < 4:
        return 0
    limit = WARM_UP * float(np.median([run.length for run in runs]))
    return next((number for number, run in enumerate(runs[: MOST_WARM_UPS + 1]) if run.length <= limit), 0)


def _sizes(shapes: str) -> str:
    """The inputs of a node as a short text: ``float[8,64], int64[1]``."""
    try:
        listed = json.loads(shapes)
        return ", ".join(
            f"{kind}{json.dumps(size, separators=(',', ':'))}" for one in listed for kind, size in one.items()
        )
    except (ValueError, AttributeError, TypeError):
        return _NO_SHAPE


def _pool_wait(stats: Any) -> int:
    """How long the main thread of a node waited for others of the pool, in ns."""
    main = stats.get("main_thread") if isinstance(stats, dict) else None
    values = [main.get(key) for key in ("Wait", "WaitRevoke")] if isinstance(main, dict) else []
    return sum(round(value * 1000) for value in values if isinstance(value, int | float) and value > 0)


def _union(spans: Sequence[tuple[int, int]]) -> int:
    """Length of the time that at least one span covers."""
    covered, last = 0, None
    for begin, end in sorted(spans):
        covered += end - begin if last is None or begin >= last else max(0, end - last)
        last = end if last is None else max(last, end)
    return covered
