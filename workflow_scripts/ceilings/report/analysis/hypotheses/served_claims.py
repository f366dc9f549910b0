"""Claims about models behind a server: the network, the first start, and batches of changing sizes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Status, change, combined
from ceilings.report.analysis.findings.serving_pairs import besides, hidden
from ceilings.report.analysis.hypotheses import stacks
from ceilings.report.analysis.hypotheses.judgement import Judgement
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.served import Line, Served, ServedLoads, named
from ceilings.report.tables.evidence import Evidence
from ceilings.runtimes.catalogue import ORT_CUDA, ORT_TENSORRT, TENSORRT_STACKS
from ceilings.statistics.quantiles import Interval

TWO_ROUND_TRIPS = "a deployment of two cells with round_trip_ms above 0, and the same without it"
MIXED_BATCHES = (
    "deployments with dynamic batching of the CUDA provider and of TensorRT, and bare cells at the sizes formed"
)

MIXED = 0.05
"""Of the executions, the share of a second batch size from which on sizes change."""

REDONE, NOT_REDONE = 2.0, 1.25
"""Execution behind the server over the bare runtime's at the same sizes: something is redone, or nothing is."""

THEIR_TRIP_MS = 105.0
"""Half of the shortest that their client saw."""

FIRST_S, WARM_S = (60.0, 600.0), (15.0, 60.0)
"""Theirs, 2 to 5 minutes and about 30 s, from half of it to twice as much."""


def network(measured: Measured, _: Evidence) -> Judgement:
    """Every pair of cells behind a deployment across a round trip."""
    loads = ServedLoads(measured)
    every = besides(loads)
    statuses: list[Status] = []
    lines = []
    for pair in every:
        if not pair.a.row["round_trip_ms"]:
            continue
        differ = bool(pair.server and pair.server.decided)
        status = hidden(loads, pair, differ)
        # A shorter round trip than theirs that hides nothing says nothing of theirs.
        short = status == "refuted" and pair.a.row["round_trip_ms"] < THEIR_TRIP_MS
        statuses.append("not decidable" if short else status)
        server = f", {change(pair.server)} at the server" if pair.server else ""
        lines.append(
            f"{pair.subject} across {text.number(pair.a.row['round_trip_ms'])} ms {change(pair.client)} at the "
            f"client{server}"
        )
    if not statuses:
        return Judgement("not decidable", "", (TWO_ROUND_TRIPS,))
    verdict = combined(statuses)
    wanted = f"a round trip of {THEIR_TRIP_MS:g} ms or more, or more servers"
    return Judgement(verdict, "; ".join(lines), (wanted,) if verdict == "not decidable" else ())


def tensorrt_behind_server(measured: Measured, evidence: Evidence) -> Judgement:
    """What bare cells say, and beside it the means that a server counts of both, as theirs were read."""
    bare = stacks.clip_tensorrt(measured, evidence)
    loads = ServedLoads(measured)
    lines = []
    for line in loads.lines:
        if _stack(loads, line) != ORT_TENSORRT or line.head.row["precision"] != "fp16":
            continue
        for other in loads.lines:
            alike = (other.head.device, other.head.model, other.head.shape) == _place(line)
            if not alike or _stack(loads, other) != ORT_CUDA or other.head.row["precision"] != "fp32":
                continue
            both = [(one, like) for one in line.loads if one.steady and (like := other.at(one)) and like.steady]
            lines += [_means(*pair) for pair in both[:1] if None not in _counted(pair)]
    return replace(bare, ours="; ".join(filter(None, [bare.ours, *lines])))


def _place(line: Line) -> tuple[object, ...]:
    return line.head.device, line.head.model, line.head.shape


def _counted(pair: tuple[Served, Served]) -> list[float | None]:
    return [one.known(column) for column in ("infer_ms", "request_ms") for one in pair]


def _means(a: Served, b: Served) -> str:
    shown = [text.number(value) for value in _counted((a, b))]
    return (
        f"{a.label} behind {a.deployment} against {b.label} behind {b.deployment}, {a.load}: execution {shown[0]} "
        f"against {shown[1]} ms, request {shown[2]} against {shown[3]} ms (precision and runtime differ together)"
    )


def first_start(measured: Measured, evidence: Evidence) -> Judgement:
    """First and warm start of servers that build engines; without one, what loads of bare cells say."""
    loads = ServedLoads(measured)
    lines, statuses = list[str](), list[Status]()
    for one in _once(line.head for line in loads.lines if _stack(loads, line) in TENSORRT_STACKS):
        starts = [one.known(name) for name in ("first_ready_ms", "warm_ready_ms")]
        if None in starts:
            continue
        first, warm = (one.interval(name).scaled(1e-3) for name in ("first_ready_ms", "warm_ready_ms"))
        lines.append(f"{one.deployment} ready after {text.interval(first, 's')}, warm {text.interval(warm, 's')}")
        statuses += [_between(first, *FIRST_S), _between(warm, *WARM_S)]
    if not statuses:
        return stacks.engine_build(measured, evidence)
    verdict = combined(statuses)
    return Judgement(verdict, "; ".join(lines), ("more servers",) if verdict == "not decidable" else ())


def _between(value: Interval, low: float, high: float) -> Status:
    if low <= value.estimate <= high:
        return "supported"
    return "refuted"


def _once(loads: Iterable[Served]) -> list[Served]:
    """The first of each deployment."""
    return list({(one.device, one.deployment): one for one in reversed(list(loads))}.values())


def executions(measured: Measured) -> tuple[list[str], dict[bool, list[Status]]]:
    """Execution in batches of changing size over the bare runtime's at these sizes.

    Returns:
        Our reading, and whether something is redone, as claimed: of the CUDA provider (False) and of TensorRT (True).
    """
    loads = ServedLoads(measured)
    statuses: dict[bool, list[Status]] = {False: [], True: []}
    lines: list[str] = []
    for line in loads.lines:
        stack = _stack(loads, line)
        if stack != ORT_CUDA and stack not in TENSORRT_STACKS:
            continue
        for one in line.loads:
            bare = one.known("bare_ms")
            executed = one.mean("infer_ms")
            if not one.row["flagged"] and _changes(one) and executed and bare:
                factor = executed.scaled(1 / bare)
                lines.append(f"{named(loads, one)}, {one.load} {text.interval(factor, '×')} the bare execution")
                statuses[stack in TENSORRT_STACKS].append(_redone(factor, hoped=stack == ORT_CUDA))
    return lines, statuses


def _redone(factor: Interval, hoped: bool) -> Status:
    if factor.bounded and factor.low > REDONE:
        return "supported" if hoped else "refuted"
    if factor.bounded and factor.high < NOT_REDONE:
        return "refuted" if hoped else "supported"
    return "not decidable"


def _changes(one: Served) -> bool:
    """Whether the server formed batches of more than one size, the second not seldom."""
    shares = one.row.get("batch_sizes")
    sizes = json.loads(shares) if isinstance(shares, str) else {}
    return len(sizes) > 1 and sorted(sizes.values())[-2] >= MIXED


def _stack(loads: ServedLoads, line: Line) -> str | None:
    """What executes, by the bare cell of any shape."""
    row = line.head.row
    cells = loads.measured.tables.cells
    same = cells[(cells["runtime"] == row["runtime"]) & (cells["model"] == row["model"])]
    return str(same["stack"].iloc[0]) if len(same) else None
