"""Question 11, a deployment alone: what a server adds, when requests queue, how much it answers, the best load."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ceilings.report import text
from ceilings.report.analysis.findings.finding import MARGIN, Finding, Status, change, times
from ceilings.report.analysis.findings.selection import on_gpu
from ceilings.report.analysis.findings.serving_noise import noise_between
from ceilings.report.analysis.findings.serving_pairs import compared
from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.report.analysis.served import Line, Served, ServedLoads, named, panel, records_of
from ceilings.report.tables.served_quantities import PARTS
from ceilings.statistics.decisions import equivalence_interval, within
from ceilings.statistics.intervals import ratio

OVER_BARE, QUEUE, SATURATION, LIMIT = (
    *("Serving: over the bare runtime", "Serving: queue", "Serving: throughput", "Serving: below a limit"),
)

CHEAP = f"Behind a server a request takes at most {MARGIN:.0%} longer than in a loop of the bare runtime"
DOMINATES = "At the heaviest measured load a request waits longer in the server's queue than the server works on it"
GROWS = f"The heaviest closed loop answers over {MARGIN:.0%} more than the one before it"
MEETS = "A load meets the limit with its 99th percentile"

QUEUED, EXECUTED = ("queue_ms",), ("input_ms", "infer_ms", "output_ms")

DISTURBED = "each of its loads was disturbed, or its queue grew: none has a latency to compare"
UNFLAGGED = "the same deployment with a client that keeps up, and rates that the server sustains"


def serving(measured: Measured) -> list[Finding]:
    """What servers cost and buy; none where a study has no deployment that was measured."""
    loads = ServedLoads(measured)
    findings: list[Finding] = []
    for rule in (_over_bare, _queue, _saturation):
        findings += [finding for line in loads.lines if (finding := rule(loads, line))]
    return [*findings, *_limits(loads), *compared(loads), *noise_between(loads)]


# --- over the bare runtime -------------------------------------------------------------------------------------------


def _over_bare(loads: ServedLoads, line: Line) -> Finding | None:
    one, who = line.lightest, named(loads, line.head)
    if line.head.row["round_trip_ms"]:
        return None  # what a set round trip adds is no finding
    if one is None:
        return _open(OVER_BARE, f"{who}: {DISTURBED}", CHEAP, UNFLAGGED, line.loads)
    account = f"Of its mean of {text.number(one.known('client_ms'))} ms: {parts(one)}{_added(one)}"
    if one is not line.loads[0]:  # at more clients requests wait for each other, whatever the server costs
        why = "was disturbed" if line.loads[0].row["flagged"] else "grew"
        sentence = f"{who}: the lightest load, {line.loads[0].load}, {why}, and a heavier one does not say what the "
        sentence += f"server costs. {one.load}: a request takes {text.interval(one.p50, 'ms')}. {account}"
        return _open(OVER_BARE, sentence, CHEAP, UNFLAGGED, [one])
    cell = loads.bare(one)
    if cell is None:
        sentence = (
            f"{who}, {one.load}: a request takes {text.interval(one.p50, 'ms')}. {account}. Bare it was not measured"
        )
        return _open(OVER_BARE, sentence, CHEAP, f"the cell {one.cell} on {one.device}", [one])
    threads, alone = one.known("threads"), loads.bare_threads(cell)
    if threads and alone and alone != {threads} and not on_gpu(cell):
        sentence = f"{who} computes with {text.plural(int(threads), 'thread')}, and as a bare cell with "
        sentence += f"{text.listed(sorted(alone))}: what differs is not the server alone. {account}"
        return _open(OVER_BARE, sentence, CHEAP, f"cpu_threads: {int(threads)}", [one])
    bare = loads.bare_groups(cell)
    pair = loads.judge(one, ratio(one.groups, bare))
    costs = f"{who}, {one.load}: a request takes {text.interval(pair.ratio, '×')} the latency of the bare runtime"
    costs += f" ({text.number(one.p50.estimate)} ms against {text.number(_median(cell))} ms)"
    costs += "" if pair.decided else f", {change(pair)}"
    status: Status = "refuted" if pair.verdict == "slower" else "not decidable"
    if within(equivalence_interval(one.groups, bare), MARGIN) or pair.verdict == "faster":
        status = "supported"
    brief = f"{who}, {one.load}: a request takes {text.number(pair.ratio.estimate)}× the latency of the bare runtime"
    brief += f"; {_largest_addition(one)}." if _largest_addition(one) else "."
    return Finding(
        *(OVER_BARE, f"{costs}. {account}.", (cell.name,), pair.ratio, pair.verdict, 11, CHEAP),
        subject=f"{one.label} behind {one.deployment}",
        status=status,
        missing=_more(one) if status == "not decidable" else (),
        records=(one.record,),
        brief=brief if pair.decided else "",
    )


def _median(cell: Cell) -> float:
    """Of the series that a server is held against."""
    end_to_end = cell.row.get("e2e_p50_ms")
    known = end_to_end is not None and not text.absent(end_to_end)
    return float(end_to_end) if known else cell.p50.estimate  # type: ignore[arg-type]


def parts(one: Served) -> str:
    """The account of a request in words; what the server does not count is left out."""
    known = [(part.label, one.known(part.column)) for part in PARTS]
    shown = [f"{label} {text.number(value)}" for label, value in known if value is not None]
    return text.listed(shown) if shown else "the server counts none of its parts"


def _added(one: Served) -> str:
    bare, added = one.known("bare_ms"), one.known("added_ms")
    if bare is None or added is None:
        return ""
    return f"; the bare runtime takes {text.number(bare)} ms at the batch sizes formed"


def _largest_addition(one: Served) -> str:
    """What adds most to the bare execution; empty where the server does not say."""
    known = {part.label: one.known(part.column) for part in PARTS if part.column != "infer_ms"}
    known["the execution's addition to the bare runtime"] = one.known("added_ms")
    present = {label: value for label, value in known.items() if value is not None}
    if not present:
        return ""
    label = max(present, key=lambda name: present[name])
    return f"most is {label}, {text.number(present[label])} ms in the mean"


# --- the queue -------------------------------------------------------------------------------------------------------


def _queue(loads: ServedLoads, line: Line) -> Finding | None:
    """From which load on the queue takes longer than the execution, apart for closed and open loops."""
    steady = [one for one in line.loads if one.steady]
    shares = [(one, share) for one in steady if (share := one.over_servers(QUEUED, EXECUTED))]
    who = named(loads, line.head)
    if not shares:
        if not steady:
            return _open(QUEUE, f"{who}: {DISTURBED}", DOMINATES, UNFLAGGED, line.loads)
        sentence = f"{who}: the server does not count how long requests queue"
        return _open(
            QUEUE, sentence, DOMINATES, "a deployment whose server counts its queue: embedded or triton", steady
        )
    shown = "; ".join(f"{one.load} {text.interval(share, '×')}" for one, share in shares)
    sentence = f"{who}: time in the queue over that of input, execution and output: {shown}"
    firsts = [
        first
        for closed in (True, False)
        if (first := next((one.load for one, share in shares if one.closed is closed and share.low > 1), None))
    ]
    sentence += f". From {' and '.join(firsts)} on the queue takes longer" if firsts else ""
    one, last = (
        shares[-1]
        if not line.closed
        else max(
            ((one, share) for one, share in shares if one.closed), key=lambda pair: pair[0].clients, default=shares[-1]
        )
    )
    status: Status = "not decidable"
    if last.bounded and last.low > 1:
        status = "supported"
    elif last.bounded and last.high < 1:
        status = "refuted"
    brief = (
        f"{who}: from {firsts[0]} on a request waits longer in the queue than the server works on it." if firsts else ""
    )
    return Finding(
        *(QUEUE, f"{sentence}.", (), last),
        question=11,
        claim=DOMINATES,
        subject=f"{one.label} behind {one.deployment}, {one.load}",
        status=status,
        missing=_more(one) if status == "not decidable" else (),
        measure="queue over execution",
        records=(one.record,),
        brief=brief,
    )


# --- throughput ------------------------------------------------------------------------------------------------------


def _saturation(loads: ServedLoads, line: Line) -> Finding | None:
    """The highest throughput of the closed loops, where it flattens, and which rates the server sustains."""
    closed, who = [one for one in line.closed if not one.row["flagged"]], named(loads, line.head)
    steps = [(a, b, loads.more(b, a)) for a, b in itertools.pairwise(closed)]
    if not steps:
        sentence = f"{who}: fewer than two closed loops without a fault{_rates(line)}"
        wanted = UNFLAGGED if len(line.closed) > 1 else "concurrency: [1, 2, 4, 8]"
        return _open(SATURATION, sentence, GROWS, wanted, line.loads)
    most = max(closed, key=lambda one: one.throughput.estimate)
    flat = next((a for a, _, pair in steps if 1 / pair.ratio.estimate < 1 + MARGIN), None)
    last = steps[-1][2].ratio.inverted()
    status: Status = "not decidable"
    if last.bounded and last.low > 1 + MARGIN:
        status = "supported"
    elif last.bounded and last.high < 1 + MARGIN:
        status = "refuted"
    grows = most is closed[-1] and status == "supported"
    answers = f"{who} answers at most" if status == "refuted" else f"{who} answers"
    sentence = f"{answers} {text.interval(most.throughput)} requests a second, at {most.load}"
    sentence += f" ({text.number(closed[0].throughput.estimate)} at {closed[0].load})"
    sentence += (
        f"; beyond {flat.load} it gains less than {MARGIN:.0%} a step" if flat and flat is not closed[-1] else ""
    )
    sentence += ", and more clients may get more" if grows else ""
    sentence += _rates(line)
    whole = loads.more(most, closed[0]) if most is not closed[0] else None
    brief = f"{answers} {text.number(most.throughput.estimate)} requests a second"
    brief += "" if status == "refuted" else f" at {most.load}"
    brief += f", {times(whole).replace(' faster', '')} those of {closed[0].load}" if whole and whole.decided else ""
    brief += "; more clients may get more." if grows else "."
    if grows and line.head.row["round_trip_ms"]:
        brief = ""  # few clients across a set round trip leave the server idle: their throughput follows from the trip
    return Finding(
        *(SATURATION, f"{sentence}.", (), whole.ratio.inverted() if whole else None),
        question=11,
        claim=GROWS,
        subject=f"{most.label} behind {most.deployment}",
        status=status,
        missing=_more(most) if status == "not decidable" else (),
        measure="throughput",
        records=(most.record,),
        brief=brief,
    )


def _rates(line: Line) -> str:
    """Which rates of open loops are sustained, and from which on the queue grows."""
    sustained = [one for one in line.open if one.steady]
    beyond = [one for one in line.open if one.overloaded]
    words = f". It sustains {text.listed(map(_rate, sustained))}" if sustained else ""
    if beyond:
        words += f". At {text.listed(map(_rate, beyond))} the queue grows: no steady state, so no latency"
    if short := [one for one in line.open if one.short]:
        seconds = math.ceil(max(one.window_seconds for one in short))
        words += (
            f". At {text.listed(map(_rate, short))} the windows end before the queue has settled; "
            f"`protocol.serving.window_seconds: {seconds}` would do"
        )
    return words


def _rate(one: Served) -> str:
    rate = one.known("rate_per_s")
    asked = f" ({one.load})" if one.load != f"{rate:g}/s" else ""
    return f"{text.number(rate)}/s{asked}"


# --- a limit ---------------------------------------------------------------------------------------------------------


def _limits(loads: ServedLoads) -> list[Finding]:
    """Of each device and model the load that answers most with its p99 below the study's limit."""
    findings = []
    limited = [one for line in loads.lines for one in line.loads if one.known("limit_ms")]
    for same in group_by(limited, lambda one: (one.device, one.model, one.shape)).values():
        findings.append(_best(loads, same))
    return findings


def _best(loads: ServedLoads, same: Sequence[Served]) -> Finding:
    limit = same[0].known("limit_ms")
    assert limit is not None
    steady = [one for one in same if one.steady and one.known("p99_ms") is not None]
    where = f"{panel(loads, same[0])}p99 at most {text.number(limit)} ms"
    meeting = [one for one in steady if _bounded(one) and one.interval("p99_ms").high <= limit]
    if not meeting:
        near = [one for one in steady if not _bounded(one) or one.interval("p99_ms").low <= limit]
        if not steady or near:
            why = "no load has requests enough for a p99" if not steady else "no load meets it for certain"
            wanted = _more(near[0]) if near else ("protocol: {serving: {window_seconds: 10}}",)
            return _open(LIMIT, f"{where}: {why}", MEETS, wanted[0], same)
        least = min(steady, key=lambda one: one.interval("p99_ms").estimate)
        sentence = f"{where}: no load meets it; the lowest p99 is {text.interval(least.interval('p99_ms'), 'ms')}, "
        sentence += f"{least.label} behind {least.deployment} at {least.load}"
        records = records_of([least])
        return Finding(LIMIT, f"{sentence}.", (), question=11, claim=MEETS, status="refuted", records=records)
    best = max(meeting, key=lambda one: one.throughput.estimate)
    rivals = [one for one in meeting if one is not best and not loads.more(best, one).decided]
    formed = f", batches of {text.number(mean)} in the mean" if (mean := best.known("batch_mean")) else ""
    sentence = f"{where}: most is answered by {best.label} behind {best.deployment} at {best.load}: "
    sentence += (
        f"{text.interval(best.throughput)} requests a second, p99 {text.interval(best.interval('p99_ms'), 'ms')}"
    )
    sentence += formed
    also = text.cut((f"{one.label} behind {one.deployment} at {one.load}" for one in rivals), 2)
    sentence += f"; as many within the noise: {also}" if rivals else ""
    brief = f"{where}: {best.label} behind {best.deployment} at {best.load} answers most, "
    brief += f"{text.number(best.throughput.estimate)} requests a second."
    return Finding(
        *(LIMIT, f"{sentence}.", (), best.throughput),
        question=11,
        claim=MEETS,
        subject=f"{best.label} behind {best.deployment}",
        status="supported",
        measure="requests a second",
        absolute=True,
        records=records_of([best]),
        brief=brief,
    )


def _bounded(one: Served) -> bool:
    return one.interval("p99_ms").bounded


# --- words -----------------------------------------------------------------------------------------------------------


def _more(one: Served) -> tuple[str, ...]:
    """Twice the servers."""
    return (f"protocol: {{processes: {2 * len(one.groups)}}}",)


def _open(topic: str, sentence: str, claim: str, wanted: str, loads: Sequence[Served]) -> Finding:
    return Finding(
        *(topic, f"{sentence}.", ()),
        question=11,
        claim=claim,
        status="not decidable",
        subject=text.cut(dict.fromkeys(f"{one.label} behind {one.deployment}" for one in loads), 3),
        missing=(wanted,),
        records=records_of(loads),
    )
