"""The explanation of a recording: its iterations by groups, what their time consists of, what would shorten them."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.schemas.explanation import CHANGES
from ceilings.statistics.quantiles import quantile_interval
from ceilings.taxonomy import COMMUNICATION, HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES, RECORDING_SHARES, STALLED
from ceilings.traces import calls as kinds
from ceilings.traces.capture import GRAPH, KERNEL, MEMCPY, MEMSET
from ceilings.traces.covered import union
from ceilings.traces.explained import account as parts_of
from ceilings.traces.explained.account import Accounted, Accounts, DeviceSide
from ceilings.traces.explained.drawn import LONGEST_NAME, UNNAMED, path_parts, timeline
from ceilings.traces.explained.iterations import Iterations
from ceilings.traces.explained.remedies import Evidence, levers
from ceilings.traces.explained.soundness import health
from ceilings.traces.explained.untraced import ANY, FASTEST, FITS, FITTED, Fit, fit, untraced
from ceilings.traces.explained.what_if import WAITS, Change, replayed
from ceilings.traces.kernel_classes import kernel_class, short
from ceilings.traces.path import KERNEL as ON_KERNEL
from ceilings.traces.recording import Progress, Recording, Work
from ceilings.traces.verdict import MAJORITY, MEANINGS, verdict

RARE, FOLDED = 0.25, 4
"""Threads that live in less than this share of the iterations are one row, if there are so many of them."""

MOST_ACCOUNTED = 200
"""Iterations of a group that are accounted for, drawn by chance."""

SEED = 1
"""Of the draw."""

MOST_EVENTS = 600_000
"""Operations and calls that the accounted iterations of all groups hold together, about; of each group one at least."""

MOST_REPLAYED = 20
MOST_REPLAYED_EVENTS = 100_000

KERNELS_SHOWN, CALLS_SHOWN, PARTS_SHOWN, PATH_SHOWN, LENGTHS_SHOWN = 40, 20, 12, 30, 2_000
SET_UP_NS = 500_000
"""What a call that sets something up leads to is worth a word from this length on."""

MUCH_STALLED = 0.05
"""Share of an iteration in which launched work does not start, from which on that is a warning."""

MUCH_UNNAMED = 0.2
"""Share of the path in host code without a name from which on that is a note."""

HOW_TO_NAME = {
    "pytorch-profiler": "record with with_stack=True, or mark its parts with record_function",
    "nsight-systems": "mark its parts with NVTX ranges, or record with --trace=cuda,nvtx,osrt (waits of the operating "
    "system) and --python-sampling=true",
}
"""How to record what the host does, by form."""

COMMUNICATES = KERNEL_CLASSES.index(COMMUNICATION)
WHOLE_GRAPH = "CUDA graph, traced as a whole"


def explanation(
    recording: Recording, iterations: Iterations, progress: Progress | None = None, latency: float | None = None
) -> dict[str, Any]:
    """The content of a record of kind ``explanation``, without name, size and digest of the file, and provenance.

    All times are in ns. Shares are of the median iteration; medians need not add up, and ``residual_ns`` says by how
    much they do not.

    Args:
        progress: Called with the share of the iterations that is done.
        latency: Of the median iteration in ns as measured without the recorder. With it all is of the untraced program,
            as far as a replay at another speed of the host explains that latency.
    """
    accounts = Accounts(recording, iterations.overlapping)
    sizes = _members(iterations)
    found = health(accounts)
    chosen = [_spread(accounts, iterations, members, len(sizes)) for members in sizes]
    every, done = sum(len(members) for members in chosen), 0
    fitted: Fit | None = None
    if latency is not None:
        some = [_of(accounts, iterations, _drawn(members, MOST_REPLAYED)) for members in chosen]
        fitted = fit([(each, len(members)) for each, members in zip(some, sizes, strict=True)], latency)
        found.append(_note(fitted.text, "note" if fitted.how == FITTED else "warning"))
        del some
    repeats = len(iterations.begin) > 1 or iterations.by not in {"whole", "interval"}
    groups = []
    total = float((iterations.end - iterations.begin).sum()) or 1.0
    for group, members, picked in zip(iterations.groups, sizes, chosen, strict=True):
        looked_at = picked
        accounted = []
        for number in looked_at.tolist():
            accounted.append(
                accounts.of(*(int(part[number]) for part in (iterations.begin, iterations.end, iterations.thread)))
            )
            done += 1
            if progress:
                progress(done / every)
        lengths = (iterations.end - iterations.begin)[members]
        share, used = float(lengths.sum()) / total, accounts
        if len(looked_at) < len(members):
            found.append(
                _note(
                    f"{group.label}: {len(looked_at):,} of {len(members):,} iterations are looked at, drawn by chance."
                )
            )
        if fitted and fitted.host is not None:
            faster, kept = untraced(accounts, accounted, fitted.host)
            if 2 * len(kept) < len(accounted):
                found.append(
                    _note(f"{group.label}: most iterations cannot be replayed: times are as recorded.", "warning")
                )
            else:
                used, looked_at = faster, looked_at[list(kept)]
                accounted = [faster.of(one.begin, one.end, one.thread) for one in kept.values()]
                lengths = np.array([one.length for one in accounted], np.int64)
        made = _Group(used, accounted, looked_at, lengths, repeats)
        if fitted and fitted.how == ANY:
            fast, spans = untraced(accounts, accounted, FASTEST)
            again = [fast.of(one.begin, one.end, one.thread) for one in spans.values()]
            made.beside = _Group(fast, again, looked_at[list(spans)], lengths, repeats) if again else None
        groups.append(made.record(group.label, len(members), share))
        found += [*_stalls(groups[-1]), *_unnamed(groups[-1], recording.source.format)]
        del accounted
    found += _about(iterations)
    source = recording.source
    return {
        "source": {
            **{"format": source.format, "tool": source.tool, "counts": dict(source.counts), "lacks": list(source.lacks)}
        },
        "health": sorted(found, key=lambda one: ("error", "warning", "note").index(one["level"])),
        **({"untraced": fitted.record()} if fitted else {}),
        "span_ns": _span(recording),
        "devices": _devices(accounts),
        "iterations": {
            **{"by": iterations.by, "name": iterations.name, "count": len(iterations.begin)},
            **{"certainty": float(iterations.certainty), "why": iterations.why},
            **{"inside_ns": int(iterations.inside_ns), "between_ns": int(iterations.between_ns)},
            "others": [{"by": one.by, "name": one.name, "count": one.count} for one in iterations.others if one.count],
        },
        "groups": groups,
    }


def _note(text: str, level: str = "note") -> dict[str, str]:
    return {"level": level, "text": text}


def _stalls(group: dict[str, Any]) -> list[dict[str, str]]:
    """A warning where work of a group is launched and does not start for long."""
    share = group["shares"][STALLED]
    if share < MUCH_STALLED:
        return []
    took = share * group["length_ns"]["median"] / 1e6
    return [
        _note(
            f"{group['label']}: for {took:.3g} ms of an iteration ({share:.0%}) work is launched and does not start, "
            "on a device that is free as far as the recording shows. Other programs may use it, its clocks may have to "
            "rise, a graph may be uploaded, what it waits for may not be recorded, or the clocks of host and device "
            "differ. "
            "It does not count as launches.",
            "warning",
        )
    ]


def _unnamed(group: dict[str, Any], form: str) -> list[dict[str, str]]:
    """A note where much of the path is host code of which the recording has no name, and how to record it."""
    parts = [one for one in group["path"] if one["part"].startswith(UNNAMED)]
    share = sum(one["share"] for one in parts)
    if share < MUCH_UNNAMED:
        return []
    threads = ", ".join(one["part"].removeprefix(UNNAMED) for one in parts[:3])
    how = HOW_TO_NAME.get(form, HOW_TO_NAME["nsight-systems"])
    return [
        _note(
            f"{group['label']}: the recording does not say what {threads} "
            f"{'does' if len(parts) == 1 else 'do'} outside of CUDA calls for {share:.0%} of the critical path: {how}."
        )
    ]


def _about(iterations: Iterations) -> list[dict[str, str]]:
    """What must be said of the iterations."""
    found = [_note(text) for text in iterations.notes]
    if iterations.overlapping:
        found.append(
            _note(
                "The iterations overlap in time: on its path each has the work of its own thread; devices are shared."
            )
        )
    if len(iterations.begin) == 1:
        found.append(_note("There is one iteration: nothing says how much it varies.", "warning"))
    return found


def _members(iterations: Iterations) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(iterations.group == number) for number in range(len(iterations.groups))]


def _spread(accounts: Accounts, iterations: Iterations, members: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """The iterations of a group that are accounted for: drawn by chance: every tenth may be unlike others."""
    sample = _drawn(members, 9)
    size = float(np.mean([accounts.size(int(iterations.begin[one]), int(iterations.end[one])) for one in sample]))
    most = int(np.clip(MOST_EVENTS / groups / max(size, 1), 1, MOST_ACCOUNTED))
    return _drawn(members, most)


def _drawn(members: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of them in their order, the same ones each time."""
    if len(members) <= most:
        return members
    return np.sort(np.random.default_rng(SEED).choice(members, most, replace=False))


def _of(accounts: Accounts, iterations: Iterations, chosen: NDArray[np.int64]) -> list[Accounted]:
    parts = (iterations.begin, iterations.end, iterations.thread)
    return [accounts.of(*(int(part[number]) for part in parts)) for number in chosen.tolist()]


def _span(recording: Recording) -> int:
    spans = [part for part in (recording.calls, recording.work, recording.spans) if len(part.start)]
    return int(max(part.end.max() for part in spans) - min(part.start.min() for part in spans)) if spans else 0


def _devices(accounts: Accounts) -> list[dict[str, Any]]:
    """Each device over the whole recording, with the work of all processes."""
    work, rows = accounts.recording.work, []
    for device in np.unique(work.device).tolist():
        mine = np.flatnonzero(work.device == device)
        start, end, kind = work.start[mine], work.end[mine], work.kind[mine]
        over = np.maximum.accumulate(np.concatenate([start[:1], end]))[:-1]
        graphs = np.unique(work.call[mine][work.node[mine] & (work.call[mine] >= 0)])
        processes = np.unique(accounts.process_of_work[mine])
        rows.append(
            {
                "device": device,
                "name": accounts.recording.device_names.get(device),
                "processes": max(int((processes >= 0).sum()), 1),
                "streams": len(np.unique(work.stream[mine])),
                "kernels": int((kind == KERNEL).sum()),
                "copies": int((kind == MEMCPY).sum()),
                "fills": int((kind == MEMSET).sum()),
                "graphs": len(graphs) + int((kind == GRAPH).sum()),
                "busy_ns": int(np.maximum(end - np.maximum(start, over), 0).sum()),
                "span_ns": int(end.max() - start.min()),
            }
        )
    return rows


def _median(values: Sequence[float] | NDArray[Any]) -> dict[str, float | None]:
    array = np.asarray(values, np.float64)
    interval = quantile_interval(array, 0.5)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {"median": float(np.median(array)), "low": low, "high": high}


def _parts(names: Sequence[str], values: Any) -> dict[str, dict[str, float | None]]:
    array = np.array(values, np.float64)
    return {name: _median(array[:, column]) for column, name in enumerate(names)}


_NOTHING = DeviceSide(np.zeros(len(KERNEL_CLASSES)), np.zeros(len(IDLE_CAUSES)), 0.0, 0.0, 0.0, 0.0)


class _Group:
    """A group's accounted iterations, to be put together.

    Attributes:
        beside: The same with a host that takes nearly no time, where its speed is not known.
    """

    beside: _Group | None = None

    def __init__(
        self,
        accounts: Accounts,
        accounted: Sequence[Accounted],
        numbers: NDArray[np.int64],
        lengths: NDArray[np.int64],
        repeats: bool,
    ) -> None:
        self._repeats, self._graphs = repeats, 0.0
        self._accounts, self._recording = accounts, accounts.recording
        self._every, self._numbers, self._lengths = accounted, numbers, lengths
        self._length = float(np.median([one.length for one in accounted]))

    def record(self, label: str, count: int, share: float) -> dict[str, Any]:
        """The group's part of the record."""
        accounts, lengths = self._accounts, _median(self._lengths)
        middle = int(np.argmin([abs(one.length - self._length) for one in self._every]))
        shares = self._shares()
        bound = verdict(shares)
        changes = self._what_if()
        if self.beside:
            changes = [_agreed(*both) for both in zip(changes, self.beside._what_if(), strict=True)]
        kernels, calls, path = self._kernels(), self._calls(), self._path()
        devices, host = self._device_sides(), self._hosts()
        shown = self._lengths[np.unique(np.linspace(0, len(self._lengths) - 1, LENGTHS_SHOWN).astype(int))]
        return {
            "label": label,
            "count": count,
            "share": share,
            "length_ns": {**lengths, "least": int(self._lengths.min()), "most": int(self._lengths.max())},
            "verdict": {"name": bound, "meaning": self._meaning(bound), "majority": MAJORITY},
            "shares": shares,
            "path": path,
            "host": host,
            "devices": devices,
            "parts": self._named_parts(),
            "residual_ns": self._residual(host, devices),
            "counts": self._counts(),
            "kernels": kernels[:KERNELS_SHOWN],
            "calls": calls[:CALLS_SHOWN],
            "layers": [],
            "what_if": [one for one in changes if one["change"] != WAITS],
            "levers": [dataclasses.asdict(one) for one in levers(self._evidence(shares, changes, calls, kernels))],
            "lengths_ns": [float(one) for one in shown],
            "timeline": timeline(accounts, self._every[middle], int(self._numbers[middle])),
        }

    def _shares(self) -> dict[str, float]:
        """The critical path, as shares of the median iteration."""
        shares = np.median([one.path.shares() / max(one.length, 1) for one in self._every], axis=0)
        return dict(zip(RECORDING_SHARES, shares.tolist(), strict=True))

    def _meaning(self, bound: str) -> str:
        """What a verdict means; of launches which part is calls, and which is code that prepares them."""
        if bound != "launch-bound":
            return MEANINGS[bound]
        every = [(one.path.end - one.path.begin, one.path, max(one.length, 1)) for one in self._every]
        calls = np.median([took[path.calls_that_launch].sum() / length for took, path, length in every])
        between = np.median([took[path.between_launches].sum() / length for took, path, length in every])
        return (
            f"{MEANINGS[bound]}; launch calls are {calls:.0%} of the critical path, "
            f"host code between launches {between:.0%}"
        )

    def _hosts(self) -> list[dict[str, Any]]:
        """Threads that launch or wait: that which waits for the iteration first, then by launches."""
        threads = Counter[int]()
        for one in self._every:
            threads.update({number: side.launches for number, side in one.hosts.items()})
        total = sum(threads.values())
        main = Counter(one.thread for one in self._every if one.thread >= 0)
        lives = Counter(number for one in self._every for number in one.hosts)
        rare = {number for number, lived in lives.items() if lived < RARE * len(self._every)}
        rare = rare if len(rare) >= FOLDED else set()
        rows = []
        for number in sorted(threads.keys() - rare, key=lambda number: (-main[number], -threads[number], number)):
            label = self._recording.threads[number].label
            rows.append(self._host_row(label, [number], threads[number] / total if total else 0.0))
        if rare:
            label = f"{len(rare)} others, in each iteration the busiest"
            launched = sum(threads[number] for number in rare)
            rows.append(self._host_row(label, sorted(rare), launched / total if total else 0.0))
        return rows

    def _host_row(self, label: str, numbers: list[int], launches: float) -> dict[str, Any]:
        """What a thread does in an iteration; of several, the one that launches most in it."""
        sides = []
        for one in self._every:
            here = [one.hosts[number] for number in one.hosts.keys() & set(numbers)]
            sides.append(max(here, key=lambda side: side.launches).parts if here else _idle(one.length))
        return {"thread": label, "parts": _parts(HOST_PARTS, sides), "launches": launches}

    def _device_sides(self) -> list[dict[str, Any]]:
        rows = []
        for device in sorted({device for one in self._every for device in one.devices}):
            sides = [one.devices.get(device) or _without_work(one) for one in self._every]
            rows.append(
                {
                    "device": device,
                    "busy_ns": _median([side.classes.sum() for side in sides]),
                    "classes": _parts(KERNEL_CLASSES, [side.classes for side in sides]),
                    "idle": _parts(IDLE_CAUSES, [side.idle for side in sides]),
                    "idle_unexplained_ns": _median([side.unexplained for side in sides]),
                    "overlap_ns": _median([side.overlap for side in sides]),
                    "hidden_transfer_ns": _median([side.hidden_transfer for side in sides]),
                    "hidden_communication_ns": _median([side.hidden_communication for side in sides]),
                }
            )
        return rows

    def _residual(self, host: list[dict[str, Any]], devices: list[dict[str, Any]]) -> dict[str, float]:
        """The median iteration less the sum of medians, of the side that is farthest off."""

        def worst(left: Iterable[float]) -> float:
            return max(left, key=abs, default=0.0)

        def sums(*tables: dict[str, dict[str, Any]]) -> float:
            return sum(part["median"] for table in tables for part in table.values())

        return {
            "host": worst(self._length - sums(one["parts"]) for one in host),
            "device": worst(
                self._length - sums(one["classes"], one["idle"], {"lost": one["idle_unexplained_ns"]})
                for one in devices
            ),
        }

    def _named_parts(self) -> list[dict[str, Any]]:
        """What the sides do not show; then framework time by operator, the longest first."""
        names = {name for one in self._every for name in one.parts}
        middle = {name: float(np.median([one.parts.get(name, 0.0) for one in self._every])) for name in names}
        ordered = sorted(((name, ns) for name, ns in middle.items() if ns > 0), key=lambda part: -part[1])
        framework = [part for part in ordered if part[0].startswith(parts_of.FRAMEWORK)]
        rest = [part for part in ordered if not part[0].startswith(parts_of.FRAMEWORK)]
        return [self._part(name, ns) for name, ns in [*rest, *framework[:PARTS_SHOWN]]]

    def _part(self, name: str, ns: float) -> dict[str, Any]:
        return {"part": name[:LONGEST_NAME], "ns": ns, "share": ns / max(self._length, 1)}

    def _counts(self) -> dict[str, float]:
        return {name: float(np.median([one.counts[name] for one in self._every])) for name in self._every[0].counts}

    def _path(self) -> list[dict[str, Any]]:
        """The path by finer parts: means, so that they sum to the mean iteration, scaled to the median."""
        sums: defaultdict[str, float] = defaultdict(float)
        for one in self._every:
            for label, ns in path_parts(self._accounts, one).items():
                sums[label] += ns / max(one.length, 1)
        ordered = sorted(sums.items(), key=lambda part: -part[1])
        scale = self._length / len(self._every)
        shown = [self._part(name, share * scale) for name, share in ordered[:PATH_SHOWN]]
        if rest := sum(share for _, share in ordered[PATH_SHOWN:]):
            shown.append(self._part(f"{len(ordered) - PATH_SHOWN:,} smaller parts", rest * scale))
        return shown

    def _kernels(self) -> list[dict[str, Any]]:
        """Kernels by name with time, and their time on the path, of a mean iteration; the longest in sum first."""
        recording, names = self._recording, self._recording.names
        work = recording.work
        columns: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for one in self._every:
            kernels = one.ops[(work.kind[one.ops] == KERNEL) | (work.kind[one.ops] == GRAPH)]
            ran = np.minimum(work.end[kernels], one.end) - np.maximum(work.start[kernels], one.begin)
            starts = work.start[kernels] >= one.begin
            on = one.path.work >= 0
            path = np.zeros(len(names) + 1)
            is_kernel = np.isin(work.kind[one.path.work[on]], (KERNEL, GRAPH))
            np.add.at(path, work.name[one.path.work[on]][is_kernel], (one.path.end - one.path.begin)[on][is_kernel])
            for name in np.unique(work.name[kernels]).tolist():
                mine = work.name[kernels] == name
                column = columns[name]
                column[0] += float(starts[mine].sum())
                column[1] += float(ran[mine].sum())
                column[2] += float(path[name])
        n = len(self._every)
        rows = [
            {
                "name": (names[name] if name >= 0 else WHOLE_GRAPH)[:LONGEST_NAME],
                "short": short(names[name]) if name >= 0 else WHOLE_GRAPH,
                "class": self._class(name),
                **{"count": max(count, 1.0) / n, "ns": ns / n, "path_ns": on_path / n},
            }
            for name, (count, ns, on_path) in columns.items()
        ]
        return sorted(rows, key=lambda row: -row["ns"])

    def _class(self, name: int) -> str:
        return kernel_class(self._recording.names[name]) if name >= 0 else "unknown"

    def _calls(self) -> list[dict[str, Any]]:
        """Calls by name with time, and their time on the path, of a mean iteration; the longest in sum first."""
        calls, names, account = self._recording.calls, self._recording.names, self._accounts.account
        columns: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, kinds.OTHER])
        for one in self._every:
            on = one.path.call >= 0
            path = np.zeros(len(names) + 1)
            np.add.at(path, calls.name[one.path.call[on]], (one.path.end - one.path.begin)[on])
            # A wait that is on the path by the work that it waited for: what is left of it is its own.
            took = np.minimum(calls.end[one.called], one.end) - np.maximum(calls.start[one.called], one.begin)
            for name in np.unique(calls.name[one.called]).tolist():
                mine = calls.name[one.called] == name
                column = columns[kinds.plain(names[name]) if name >= 0 else "a call without a name"]
                column[0] += float(mine.sum())
                column[1] += float(took[mine].sum())
                column[2] += float(path[name])
                column[3] = float(account.call_kind[one.called[mine][0]])
        n = len(self._every)
        rows = [
            {
                "name": name[:LONGEST_NAME],
                "kind": kinds.KINDS[int(kind)],
                **{"count": count / n, "ns": ns / n, "path_ns": None if kind == kinds.OTHER else on_path / n},
            }
            for name, (count, ns, on_path, kind) in columns.items()
        ]
        return sorted(rows, key=lambda row: -row["ns"])

    def _what_if(self) -> list[dict[str, Any]]:
        """Each change: its median length over replayed iterations, and what share of theirs goes."""
        changes: dict[str, list[tuple[Change, int]]] = {name: [] for name in (*CHANGES, WAITS)}
        graph_launch, graph_gap = self._graph_launch(), self._graph_gap()
        for one in self._replayed():
            work = self._recording.work
            ops = np.arange(0) if one.recorded is None else one.followed
            kernels = np.isin(work.kind[ops], (KERNEL, GRAPH))
            communicates = self._accounts.account.op_class[ops] == COMMUNICATES
            transfers = self._accounts.account.op_transfer[ops]
            found = replayed(one, transfers, communicates, kernels & ~communicates, graph_launch, graph_gap=graph_gap)
            for name, change in found.items():
                changes[name].append((change, one.length))
        rows: list[dict[str, Any]] = []
        for name, found_ in changes.items():
            known = [(change.length, length) for change, length in found_ if change.length is not None]
            if 2 * len(known) < len(found_) or not known:
                why = next((change.why_not for change, _ in found_ if change.why_not), "no iteration can be replayed")
                rows.append({"change": name, "ns": None, "gain": None, "why_not": why})
                continue
            ns, length = (float(np.median(values)) for values in zip(*known, strict=True))
            left = ns / max(length, 1)
            rows.append({"change": name, "ns": left * self._length, "gain": 1 - left, "why_not": None})
            self._graphs = (
                float(np.median([change.graphs for change, _ in found_])) if name == "graph" else self._graphs
            )
        return rows

    def _replayed(self) -> list[Accounted]:
        size = float(np.mean([len(one.ops) + len(one.called) for one in self._every]))
        most = int(np.clip(MOST_REPLAYED_EVENTS / max(size, 1), 1, MOST_REPLAYED))
        return [self._every[place] for place in _drawn(np.arange(len(self._every)), most).tolist()]

    def _graph_launch(self) -> float | None:
        """Median length of a graph's launch in these iterations."""
        calls = self._recording.calls
        launches = np.concatenate([one.called[self._accounts.account.call_graph[one.called]] for one in self._every])
        return float(np.median(calls.end[launches] - calls.start[launches])) if len(launches) else None

    def _graph_gap(self) -> float | None:
        """Median time between two operations of a graph in these iterations."""
        work, gaps = self._recording.work, [np.zeros(0, np.int64)]
        for one in self._every:
            nodes = one.ops[work.node[one.ops] & (work.call[one.ops] >= 0)]
            same = work.call[nodes[1:]] == work.call[nodes[:-1]]
            gaps.append(np.maximum(work.start[nodes[1:]] - work.end[nodes[:-1]], 0)[same])
        every = np.concatenate(gaps)
        return float(np.median(every)) if len(every) else None

    def _evidence(
        self,
        shares: dict[str, float],
        changes: list[dict[str, Any]],
        calls: list[dict[str, Any]],
        kernels: list[dict[str, Any]],
    ) -> Evidence:
        accounts, work, n = self._accounts, self._recording.work, len(self._every)
        classes: defaultdict[str, float] = defaultdict(float)
        operators: defaultdict[str, float] = defaultdict(float)
        columns = defaultdict[str, list[float]](list)
        for one in self._every:
            on = (one.path.work >= 0) & np.isin(one.path.share, (ON_KERNEL, RECORDING_SHARES.index(COMMUNICATION)))
            sums = np.bincount(
                accounts.account.op_class[one.path.work[on]], (one.path.end - one.path.begin)[on], len(KERNEL_CLASSES)
            )
            for kind, ns in zip(KERNEL_CLASSES, sums.tolist(), strict=True):
                classes[kind] += ns / n
            length = max(one.length, 1)
            spoken, took = one.host_names[:, 3], one.host_names[:, 1] - one.host_names[:, 0]
            data = float(took[accounts.spans.loads(spoken)].sum())
            for name in np.unique(spoken[spoken >= 0]).tolist():
                operators[self._recording.names[name]] += float(took[spoken == name].sum()) / length / n
            columns["loads"].append(data / length)
            columns["allocations"].append(self._allocating(one) / length)
            columns["set-up"].append(self._setting_up(one) / length)
            transfers = one.ops[accounts.account.op_transfer[one.ops]]
            communicates = one.ops[accounts.account.op_class[one.ops] == COMMUNICATES]
            computing = one.ops[work.kind[one.ops] == KERNEL]
            columns["transfers"].append(_taken(work, transfers, one))
            columns["communication"].append(_taken(work, communicates, one))
            columns["hidden transfers"].append(sum(side.hidden_transfer for side in one.devices.values()))
            columns["hidden communication"].append(sum(side.hidden_communication for side in one.devices.values()))
            columns["apart"].append(
                float(len(transfers) > 0 and not np.isin(work.stream[transfers], work.stream[computing]).any())
            )
            if work.pageable is not None:
                pageable = one.ops[work.pageable[one.ops]]
                columns["pageable"].append(float(len(pageable)))
                columns["pageable ns"].append(self._pageable(one, pageable))
        middle = {name: float(np.median(values)) for name, values in columns.items()}
        lengths = np.concatenate(
            [(work.end - work.start)[one.ops[work.kind[one.ops] == KERNEL]] for one in self._every]
        )
        waiting = [call["name"] for call in calls if call["kind"] == "sync" and "Query" not in call["name"]]
        ordered = sorted(operators.items(), key=lambda part: -part[1])
        computes = [row for row in kernels if row["class"] != COMMUNICATION]
        return Evidence(
            length=self._length,
            shares=shares,
            gains={row["change"]: row["gain"] for row in changes},
            counts=self._counts(),
            classes=classes,
            calls=waiting,
            transfers=(middle["transfers"], middle["hidden transfers"]),
            communication=(middle["communication"], middle["hidden communication"]),
            kernel_ns=float(lengths.mean()) if len(lengths) else None,
            loads=float(np.mean(columns["loads"])),
            allocations=float(np.mean(columns["allocations"])),
            sometimes=self._sometimes(),
            repeats=self._repeats,
            graphs=self._graphs,
            set_up=middle["set-up"],
            apart=middle["apart"] > 0,
            pageable=(middle.get("pageable", 0.0), middle.get("pageable ns", 0.0) / max(self._length, 1)),
            operators=ordered[:3],
            kernels=sorted(((row["short"], row["path_ns"]) for row in computes), key=lambda row: -row[1]),
        )

    def _pageable(self, one: Accounted, pageable: NDArray[np.int64]) -> float:
        """Time on the path of copies of pageable memory, and in the calls that make them."""
        calls = self._recording.work.call[pageable]
        on = np.isin(one.path.work, pageable) | ((one.path.call >= 0) & np.isin(one.path.call, calls))
        return float((one.path.end - one.path.begin)[on].sum())

    def _setting_up(self, one: Accounted) -> float:
        """Time on the path in which a thread sets up a library or loads code: from the launch before to the next."""
        calls, accounts = self._recording.calls, self._accounts
        begin, end = list[int](), list[int]()
        for thread in one.hosts:
            mine = one.called[calls.thread[one.called] == thread]
            known = accounts.account.call_kind[mine] != kinds.OTHER
            edges = [one.begin, *calls.end[mine[known]].tolist()], [*calls.start[mine[known]].tolist(), one.end]
            of = np.unique(np.cumsum(known)[accounts.sets_up[mine]])  # between which of the calls that we know
            for k in of[np.isin(of, np.arange(len(edges[0])))].tolist():
                if edges[1][k] - edges[0][k] >= SET_UP_NS:
                    begin.append(edges[0][k])
                    end.append(edges[1][k])
            long = mine[~known & ~accounts.allocates[mine] & (calls.end[mine] - calls.start[mine] >= SET_UP_NS)]
            begin += calls.start[long].tolist()
            end += calls.end[long].tolist()
        on = one.path.line >= 0
        stretches = union(np.array(begin, np.int64), np.array(end, np.int64))
        return float(stretches.common(union(one.path.begin[on], one.path.end[on])))

    def _allocating(self, one: Accounted) -> float:
        """Time on the path in calls of the waiting thread that allocate or free."""
        calls = self._recording.calls
        mine = one.called[self._accounts.allocates[one.called] & (calls.thread[one.called] == one.thread)]
        on = (one.path.line == 0) & (one.path.call < 0)
        return union(calls.start[mine], calls.end[mine]).common(union(one.path.begin[on], one.path.end[on]))

    def _sometimes(self) -> list[tuple[str, float]]:
        """Kernels that run in fewer than half of the iterations, with their time of a mean iteration; longest first."""
        n, work = len(self._every), self._recording.work
        if n < 5:
            return []
        ran, ns = Counter[int](), Counter[int]()
        for one in self._every:
            kernels = one.ops[(work.kind[one.ops] == KERNEL) & (work.start[one.ops] >= one.begin)]
            names = work.name[kernels]
            ran.update(np.unique(names).tolist())
            for name, length in zip(names.tolist(), (work.end - work.start)[kernels].tolist(), strict=True):
                ns[name] += length
        rare = [(short(self._recording.names[name]), ns[name] / n) for name, count in ran.items() if 2 * count < n]
        return sorted(rare, key=lambda one: -one[1])


def _taken(work: Work, ops: NDArray[np.int64], one: Accounted) -> float:
    """Time of an iteration in which at least one of some operations runs."""
    begin, end = np.maximum(work.start[ops], one.begin), np.minimum(work.end[ops], one.end)
    taken = union(begin, np.maximum(begin, end))
    return float(taken.within(np.array([one.begin]), np.array([one.end]))[0]) if len(ops) else 0.0


def _agreed(recorded: dict[str, Any], fast: dict[str, Any]) -> dict[str, Any]:
    """What a change leads to if that hardly depends on the host's speed."""
    if recorded["ns"] is None or fast["ns"] is None or recorded["ns"] - fast["ns"] <= FITS * recorded["ns"]:
        return recorded
    least, most = fast["ns"] / 1e6, recorded["ns"] / 1e6
    why = f"then the host decides, whose speed without the recorder is not known: {least:.3g} to {most:.3g} ms"
    return {**recorded, "ns": None, "gain": None, "why_not": why}


def _idle(length: int) -> NDArray[np.float64]:
    """A thread that does nothing in an iteration."""
    return np.array([length, *[0.0] * (len(HOST_PARTS) - 1)])


def _without_work(one: Accounted) -> DeviceSide:
    """A device that has nothing to do in an iteration: it waits for the host."""
    idle = np.zeros(len(IDLE_CAUSES))
    idle[IDLE_CAUSES.index("host")] = one.length
    return dataclasses.replace(_NOTHING, idle=idle)
