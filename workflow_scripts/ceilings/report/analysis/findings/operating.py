"""Question 8: latency against throughput; the best stack for a limit, for a target, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Finding, Status, names, panel, processes_entry, sweep_entry
from ceilings.report.analysis.measured import Cell, Measured, group_by, without_axis
from ceilings.report.tables.quantities import BY_COLUMN
from ceilings.statistics.quantiles import Interval

TOPIC = "Latency or throughput"
CLAIM = "One configuration is the best for every latency limit and every throughput target"


def operating_points(measured: Measured) -> list[Finding]:
    """The Pareto set of each device and model at the common size of an input, the highest throughput, and its cost."""
    findings = []
    for panel_, cells in measured.panels.items():
        common = without_axis(measured.common_shapes[panel_], "batch")
        same = [cell for cell in cells if without_axis(cell.shape, "batch") == common]
        findings.append(_pareto(measured, same))
        findings += _throughput(measured, same)
    return findings


def pareto(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that no other one beats in both latency and inferences a second (closed loop), fastest first."""
    kept: list[Cell] = []
    for cell in sorted(cells, key=lambda cell: (cell.p50.estimate, -_rate(cell))):
        if not kept or _rate(cell) > _rate(kept[-1]):
            kept.append(cell)
    return kept


def cost_per_million(cell: Cell) -> Interval | None:
    """Price of a million inferences with requests queued, or tokens, in the study's currency; None without a price."""
    price = cell.row["price_per_hour"]
    # Of a generating cell the closed loop is all there is: a token follows from the one before it.
    rate = cell.p50.inverted(cell.batch * 1e3) if cell.phase else saturated(cell)
    return rate.inverted(price / 3600 * 1e6) if pd.notna(price) and rate else None


def saturated(cell: Cell) -> Interval | None:
    """Inferences a second with requests queued."""
    if pd.isna(cell.row["saturated_per_s"]):
        return None
    low, high = cell.row["saturated_low_per_s"], cell.row["saturated_high_per_s"]
    bounded = pd.notna(low) and pd.notna(high)
    return Interval(low if bounded else 0.0, cell.row["saturated_per_s"], high if bounded else math.inf)


def as_high(best: Cell, cells: Sequence[Cell]) -> list[Cell]:
    """The cells whose throughput with requests queued may be as high as that of the best one: intervals overlap."""
    most = saturated(best)
    rates = [(saturated(cell), cell) for cell in cells if cell is not best]
    return [cell for rate, cell in rates if most and rate and rate.high >= most.low]


def _input(cell: Cell, after: str = ": ") -> str:
    """The size of an input in words, and what follows it; empty where a shape is a batch alone."""
    words = text.sizes(without_axis(cell.shape, "batch"))
    return words + after if words else ""


def _per_s(cell: Cell) -> str:
    return f"{text.number(_rate(cell) * 1e3)}{' tokens' if cell.phase else ''}/s"


def _rate(cell: Cell) -> float:
    return cell.batch / cell.p50.estimate


def _pareto(measured: Measured, cells: list[Cell]) -> Finding:
    kept = pareto(cells)
    points = []
    for cell in kept:
        rivals = [one for one in cells if one.batch == cell.batch and one is not cell]
        tied = [one.label for one in rivals if measured.compare(one, cell).verdict != "slower"]
        also = f" (as fast, within noise: {text.cut(tied, 2)})" if tied else ""
        p99 = f", p99 {text.number(cell.row['p99_ms'])}" if pd.notna(cell.row["p99_ms"]) else ""
        points.append(
            f"{text.number(cell.p50.estimate)} ms{p99}: {cell.label} at batch {cell.batch}{also}, {_per_s(cell)}"
        )
    sentence = (
        f"{panel(measured, cells[0])}{_input(cells[0])}the Pareto front of median latency and throughput (closed "
        f"loop): {'; '.join(points)}. Measured there: {_rivals(cells)}."
    )
    where = f"{panel(measured, cells[0])}{_input(cells[0])}"
    ends = [f"{text.number(cell.p50.estimate)} ms at {_per_s(cell)}" for cell in (kept[0], kept[-1])]
    brief = f"{where}the Pareto front goes from {ends[0]} to {ends[1]}." if len(kept) > 1 else ""
    status = _one_for_all(measured, cells, kept)
    subject = text.cut(dict.fromkeys(cell.label for cell in kept), 3)
    missing: tuple[str, ...] = ()
    if status == "not decidable":
        runtimes = {cell.runtime for cell in cells}
        missing = (
            (processes_entry(cells),)
            if len({cell.batch for cell in cells}) > 1
            else (sweep_entry(measured, sorted(runtimes), {c.precision for c in cells}, (1, 8, 32)),)
        )
    return Finding(
        *(TOPIC, sentence, names(kept)),
        question=8,
        claim=CLAIM,
        subject=subject,
        status=status,
        missing=missing,
        brief=brief,
    )


def _rivals(cells: list[Cell]) -> str:
    """How many configurations each batch has: a winner without rivals has won little."""
    counts = group_by(sorted({cell.batch for cell in cells}), lambda batch: sum(one.batch == batch for one in cells))
    return text.listed(f"{count} at batch {text.listed(batches)}" for count, batches in counts.items())


def _one_for_all(measured: Measured, cells: list[Cell], kept: list[Cell]) -> Status:
    """Refuted where each of two configurations provably wins at another batch."""
    winners, sure = set(), True
    for batch in {cell.batch for cell in cells}:
        members = sorted((cell for cell in cells if cell.batch == batch), key=lambda cell: cell.p50.estimate)
        if any(measured.compare(other, members[0]).verdict != "slower" for other in members[1:]):
            sure = False
        elif len(members) > 1 and members[0] in kept:
            winners.add(members[0].configuration)
    if len(winners) > 1:
        return "refuted"
    one = {cell.configuration for cell in kept} == winners
    return "supported" if sure and one and len({cell.batch for cell in cells}) > 1 else "not decidable"


def _throughput(measured: Measured, cells: list[Cell]) -> list[Finding]:
    known = [(rate, cell) for cell in cells if (rate := saturated(cell))]
    if not known:
        return []
    rate, best = max(known, key=lambda pair: pair[0].estimate)
    near = as_high(best, cells)
    sentence = (
        f"{panel(measured, best)}{_input(best, ', ')}requests queued: the highest throughput is "
        f"**{text.interval(rate, 'inferences/s')}**, {best.label} at batch {best.batch}"
    )
    brief = (
        f"{panel(measured, best)}{best.label} at batch {best.batch} has the highest throughput, "
        f"{text.number(rate.estimate)}/s."
    )
    if near:
        sentence += f" (as high, within noise: {text.cut((f'{c.label} b{c.batch}' for c in near), 3)})"
    cost = cost_per_million(best)
    if cost:
        sentence += f". A million inferences cost {text.interval(cost)} there, in the currency of the study"
    else:
        sentence += ". For a cost, give `price_per_hour`"
    return [
        Finding(
            *(TOPIC, f"{sentence}.", names([best, *near]), rate),
            question=8,
            measure=BY_COLUMN["inferences_per_s"].label,
            absolute=True,
            brief=brief,
        )
    ]
