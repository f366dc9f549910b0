"""The measured loads of deployments, ready for comparisons."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ceilings.report import text
from ceilings.report.analysis.measured import Cell, Judged, Measured, configuration_label, group_by
from ceilings.report.tables.quantities import interval_of
from ceilings.report.tables.served_columns import CELL, SERVED, WINDOW_COLUMNS
from ceilings.report.tables.served_quantities import BY_COLUMN, PARTS, SETTINGS
from ceilings.report.tables.served_windows import GROWS, SHORT, STEADY, needed_requests
from ceilings.statistics.decisions import equivalence_interval, within
from ceilings.statistics.intervals import (
    mean_over_processes,
    paired_over_processes,
    ratio,
    verdict,
    widest_difference,
)
from ceilings.statistics.quantiles import Interval
from ceilings.workload.shape import Shape

Groups = tuple[NDArray[np.int64], ...]
Windows = Mapping[str, NDArray[np.float64]]

COUNTED = ("n", "answered_per_s", "request_ms", *(part.column for part in PARTS if part.column in WINDOW_COLUMNS))
"""Columns of windows that claims rest on."""

FREE = {"server_version", "server_cores", "client_cores"}
"""Settings that no study asks for: they follow from the machine, and deployments on one have the same."""


@dataclass(frozen=True, eq=False)
class Served:
    """A cell behind a deployment at one load.

    Attributes:
        row: Its row of the table of serving.
        groups: Latencies in ns, one array a fresh server.
        windows: Columns of its windows by name, one set a fresh server.
    """

    row: dict[str, Any] = field(repr=False)
    groups: Groups = field(repr=False)
    windows: tuple[Windows, ...] = field(repr=False)

    @property
    def device(self) -> str:
        return str(self.row["device"])

    @property
    def deployment(self) -> str:
        return str(self.row["deployment"])

    @property
    def model(self) -> str:
        return str(self.row["model"])

    @property
    def cell(self) -> str:
        """Runtime, model, precision and shape of one request, as the study names it."""
        return "/".join(str(self.row[name]) for name in CELL)

    @property
    def label(self) -> str:
        return configuration_label(self.row["runtime"], self.row["precision"])

    @property
    def shape(self) -> Shape:
        return Shape.parse(self.row["shape"])

    @property
    def load(self) -> str:
        """The load in words."""
        return str(self.row["load"])

    @property
    def closed(self) -> bool:
        return bool(self.row["kind"] == "closed")

    @property
    def clients(self) -> int:
        """Of a closed loop: requests in flight."""
        return int(self.row["concurrency"])

    @property
    def steady(self) -> bool:
        """Whether its latency is one: no window with a fault, and no queue that grew. Nothing else carries a claim."""
        return not self.row["flagged"] and self.settled

    @property
    def settled(self) -> bool:
        """Whether its queue came to a steady state: else there is no latency."""
        return bool(self.row["state"] == STEADY)

    @property
    def overloaded(self) -> bool:
        """Whether the queue of an open loop grew."""
        return bool(self.row["state"] == GROWS)

    @property
    def short(self) -> bool:
        """Whether the windows of an open loop ended before its queue had settled."""
        return bool(self.row["state"] == SHORT)

    @property
    def window_seconds(self) -> float:
        """Windows of so many seconds would do for an open loop."""
        return needed_requests(self.known("share")) / float(self.row["rate_per_s"])

    @property
    def p50(self) -> Interval:
        return self.interval("p50_ms")

    @property
    def throughput(self) -> Interval:
        return self.interval("answered_per_s")

    def interval(self, column: str) -> Interval:
        """A quantity with its interval, unbounded where one server was measured."""
        known = interval_of(BY_COLUMN[column], self.row)
        return known or Interval(0.0, float(self.row[column]), math.inf)

    def known(self, column: str) -> float | None:
        """A number of its row; None where there is none."""
        value = self.row.get(column)
        return None if value is None or pd.isna(value) else float(value)

    @property
    def formed(self) -> dict[int, float]:
        """Share of the executions by batch size; empty where the server does not count them."""
        given = self.row.get("batch_sizes")
        return {int(size): share for size, share in json.loads(given).items()} if isinstance(given, str) else {}

    @property
    def record(self) -> str:
        """The path of its first record below the results folder."""
        return f"serving/{self.device}/{self.deployment}/run1.json"

    def over_servers(self, top: Iterable[str], bottom: Iterable[str]) -> Interval | None:
        """Sums of columns of the windows over each other, with the interval over servers; None where one is not known.

        Windows weigh by their requests.
        """
        values = []
        for same in self.windows:
            above, below = (_mean(same, tuple(columns)) for columns in (top, bottom))
            if above is None or not below:
                return None
            values.append(max(above, TINY * below) / below)
        return mean_over_processes(values) if values else None

    def mean(self, *columns: str) -> Interval | None:
        """The mean of a request's sum of columns of the windows, in ms, with the interval over servers."""
        values = [_mean(same, columns) for same in self.windows]
        known = [value for value in values if value]
        return mean_over_processes(known) if known and len(known) == len(values) else None


TINY = 1e-4
"""Of a whole: a smaller part counts as this, so that it has a logarithm."""


def _mean(windows: Windows, columns: tuple[str, ...]) -> float | None:
    values = np.sum([windows[column] for column in columns], axis=0)
    mean = float(np.average(values, weights=windows["n"]))
    return None if math.isnan(mean) else mean


@dataclass(frozen=True)
class Line:
    """A cell behind a deployment, at all of its loads: closed loops by clients, then open loops by rate."""

    loads: tuple[Served, ...]

    @property
    def head(self) -> Served:
        return self.loads[0]

    @property
    def closed(self) -> list[Served]:
        return [one for one in self.loads if one.closed]

    @property
    def open(self) -> list[Served]:
        return [one for one in self.loads if not one.closed]

    @property
    def lightest(self) -> Served | None:
        """The steady load with the least queueing: the fewest clients of a closed loop, else the lowest rate."""
        return next((one for one in (*self.closed, *self.open) if one.steady), None)

    @property
    def batches(self) -> bool:
        """Whether its deployment forms batches, and the server counts their sizes."""
        return bool(self.head.row.get("batching")) and any(one.formed for one in self.loads)

    def at(self, other: Served) -> Served | None:
        """The same load as another line's."""
        return next((one for one in self.loads if one.load == other.load), None)


@dataclass(frozen=True)
class ServerPair:
    """An A/A pair of servers: a cell behind two deployments that differ in their names alone, load by load.

    Attributes:
        line, second: The cell behind the one and behind the other.
        latency: Ratios of median latencies, of loads at which both are steady.
        throughput: Ratios of the throughputs of closed loops.
    """

    line: Line
    second: Line
    latency: Mapping[str, Interval]
    throughput: Mapping[str, Interval]

    @property
    def floors(self) -> tuple[float | None, float | None]:
        """The widest differences of latencies and of throughputs that may be noise; None of what carries no claim."""
        latency, throughput = (
            max(map(widest_difference, ratios.values()), default=None) for ratios in (self.latency, self.throughput)
        )
        return latency, throughput


class ServedLoads:
    """All measured loads of a study, with what they are compared with.

    Attributes:
        lines: The cells behind each deployment of the study.
        seconds: Those behind the second deployments of A/A pairs, of which nothing is said but the noise.
    """

    def __init__(self, measured: Measured) -> None:
        self.measured = measured
        tables = measured.tables
        measured_rows = tables.serving[tables.serving["status"] == "ok"]
        groups = _groups(tables.serving_samples)
        windows = _windows(tables.serving_windows)
        loads = [
            Served(row, groups[key], windows[key])
            for row in _records(measured_rows)
            if (key := tuple(str(row[name]) for name in (*SERVED, "load"))) in groups
        ]
        by_line = group_by(loads, lambda one: (one.device, one.deployment, one.cell))
        lines = [Line(tuple(same)) for same in by_line.values()]
        self.lines = [line for line in lines if text.absent(line.head.row.get("aa_of"))]
        self.seconds = [line for line in lines if line not in self.lines]

    def bare(self, one: Served) -> Cell | None:
        """The cell that a deployment serves, in a loop of its own."""
        row = one.row
        return self.measured.at(one.device, row["model"], row["runtime"], row["precision"], one.shape)

    def bare_groups(self, cell: Cell) -> Groups:
        """Its latencies: end to end where that was measured, since a server gets its inputs from a client."""
        return self.measured.series(cell, END_TO_END) or cell.groups

    def bare_threads(self, cell: Cell) -> set[int]:
        """Threads of a cell's processes in loops of their own; empty where no record says."""
        known = self.measured.runs(cell)["threads"].dropna()
        return {int(one) for text_ in known if (one := json.loads(text_).get("intra_op"))}

    def judge(self, one: Served, factor: Interval) -> Judged:
        """The verdict on a ratio of latencies at a load, beyond the wider noise of the device's cells and servers."""
        return _judged(factor, self.measured.noise_floor(one.device), self.noise_floor(one))

    def compare(self, a: Served, b: Served) -> Judged:
        """Median latency of ``a`` over that of ``b``; of two cells behind the same servers, within each of these."""
        return self.within_servers(a, b, a.groups, b.groups) or self.judge(a, ratio(a.groups, b.groups))

    def within_servers(
        self, a: Served, b: Served, of_a: Sequence[ArrayLike], of_b: Sequence[ArrayLike]
    ) -> Judged | None:
        """The verdict on a ratio that each server gives, of medians; None of cells that do not take turns on servers.

        What makes one server slower than the next falls on both cells, so the noise of servers is no part of it.

        Args:
            of_a: Numbers of ``a``, one array a server.
            of_b: Those of ``b``.
        """
        if (a.device, a.deployment) != (b.device, b.deployment) or len(of_a) != len(of_b):
            return None
        logs = [
            np.log([np.median(np.asarray(one)) / np.median(np.asarray(other))])
            for one, other in zip(of_a, of_b, strict=True)
        ]
        return _judged(paired_over_processes(logs), self.measured.noise_floor(a.device))

    def equal(self, a: Served, b: Served, margin: float) -> bool:
        """Whether their median latencies are equal within ``margin``, finer than which no noise of servers may be.

        Two cells of one deployment take turns on the same servers, whose noise falls on both.
        """
        if a.deployment != b.deployment and (self.noise_floor(a) or 0.0) > margin:
            return False
        return within(equivalence_interval(a.groups, b.groups), margin)

    def more(self, a: Served, b: Served) -> Judged:
        """Throughput of ``b`` over that of ``a``, so that "faster" says that ``a`` answers more."""
        servers = _wider(*(self._noise_at(one, lambda pair: pair.throughput) for one in (a, b)))
        bare = self.measured.noise_floor(a.device) if servers is None else None
        return _judged(ratio(_rates(b), _rates(a)), bare, servers)

    def noise_floor(self, one: Served) -> float | None:
        """The largest difference of latencies that two equal deployments may have at a load; None if no pair says."""
        return self._noise_at(one, lambda pair: pair.latency)

    @functools.cached_property
    def aa_pairs(self) -> list[ServerPair]:
        """Every A/A pair of servers: the planned ones, and deployments that the study has under two names."""
        return [_server_pair(a, b) for a, b in self._differing(set(), [*self.lines, *self.seconds])]

    def _noise_at(self, one: Served, ratios_of: Callable[[ServerPair], Mapping[str, Interval]]) -> float | None:
        """The widest difference within the device's A/A pairs: at that load, or of all loads where they lack it."""
        pairs = [ratios_of(pair) for pair in self.aa_pairs if pair.line.head.device == one.device]
        here = [ratios[one.load] for ratios in pairs if one.load in ratios]
        every = [value for ratios in pairs for value in ratios.values()]
        return max(map(widest_difference, here or every), default=None)

    def pairs(self, differing: set[str]) -> list[tuple[Line, Line]]:
        """Lines of one cell whose deployments differ in just these settings, each pair once, in the study's order."""
        return self._differing(differing, self.lines)

    def _differing(self, settings: set[str], among: Sequence[Line]) -> list[tuple[Line, Line]]:
        made = []
        for lines in group_by(among, lambda line: (line.head.device, line.head.cell)).values():
            for index, a in enumerate(lines):
                made += [(a, b) for b in lines[index + 1 :] if differences(a.head, b.head) == settings]
        return made


def _judged(factor: Interval, *floors: float | None) -> Judged:
    """The verdict on a ratio beyond the widest of the noise floors that are known."""
    floor = _wider(*floors)
    return Judged(factor, verdict(factor, floor or 0.0), floor)


def _wider(*floors: float | None) -> float | None:
    return max((floor for floor in floors if floor is not None), default=None)


def _server_pair(line: Line, second: Line) -> ServerPair:
    both = [(one, other) for one in line.loads if (other := second.at(one))]
    return ServerPair(
        line,
        second,
        {one.load: ratio(one.groups, other.groups) for one, other in both if one.steady and other.steady},
        {
            one.load: ratio(_rates(one), _rates(other))
            for one, other in both
            if one.closed and not one.row["flagged"] and not other.row["flagged"]
        },
    )


TAILS = (("p99_ms", "p99"), ("p95_ms", "p95"), ("p90_ms", "p90"), ("p50_ms", "median"))


def tail_of(loads: Sequence[Served]) -> tuple[str, str]:
    """Column and name of the highest percentile that all of these loads have requests enough for."""
    return next(
        (column, name)
        for column, name in TAILS
        if column == "p50_ms" or all(one.known(column) is not None for one in loads)
    )


END_TO_END = "latency_end_to_end"
"""The series of a cell with the copies of inputs and outputs."""


def differences(a: Served, b: Served) -> set[str]:
    """The settings in which the deployments of two loads differ."""
    return {
        one.column
        for one in SETTINGS
        if one.column not in FREE and not _equal(a.row.get(one.column), b.row.get(one.column))
    } | ({"server_version"} if not _equal(a.row["server_version"], b.row["server_version"]) else set())


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b) or (text.absent(a) and text.absent(b))


def _rates(one: Served) -> list[NDArray[np.float64]]:
    """Requests answered a second, an array of windows a server."""
    return [same["answered_per_s"] for same in one.windows]


def _windows(table: pd.DataFrame) -> dict[tuple[str, ...], tuple[Windows, ...]]:
    """Windows with answers, by what names a load; a set of arrays a server."""
    table = table[table["n"] > 0]
    columns = {name: table[name].to_numpy(np.float64, na_value=np.nan) for name in COUNTED}
    places: dict[tuple[str, ...], dict[int, list[int]]] = {}
    for place, (*key, run) in enumerate(table[[*SERVED, "load", "run"]].itertuples(index=False, name=None)):
        places.setdefault(tuple(map(str, key)), {}).setdefault(run, []).append(place)
    return {
        key: tuple({name: column[at] for name, column in columns.items()} for at in runs.values())
        for key, runs in places.items()
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _groups(samples: pd.DataFrame) -> dict[tuple[Any, ...], Groups]:
    by_load: dict[tuple[Any, ...], list[NDArray[np.int64]]] = {}
    for key, values in samples.groupby([*SERVED, "load", "run"], observed=True, sort=False)["latency_ns"]:
        by_load.setdefault(tuple(map(str, key))[:-1], []).append(values.to_numpy(np.int64))  # type: ignore[arg-type]
    return {key: tuple(groups) for key, groups in by_load.items()}


def panel(loads: ServedLoads, one: Served) -> str:
    """Names the model and the device of a load only where there are several to confuse."""
    models = {line.head.model for line in loads.lines}
    devices = {line.head.device for line in loads.lines}
    words = [*([one.model] if len(models) > 1 else []), *([one.device] if len(devices) > 1 else [])]
    return f"{', '.join(words)}: " if words else ""


def named(loads: ServedLoads, one: Served) -> str:
    """A cell behind a deployment."""
    return f"{panel(loads, one)}{one.label} behind {one.deployment}"


def records_of(loads: Sequence[Served]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.record for one in loads))
