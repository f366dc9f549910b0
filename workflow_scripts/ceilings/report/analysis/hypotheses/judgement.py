"""What the cells say of a claim, and the words and verdicts that the judges share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ceilings.report.analysis.findings.finding import Finding, Status, combined, processes_entry, sweep_entry
from ceilings.report.analysis.measured import Cell, Judged, Measured, group_by
from ceilings.statistics.quantiles import Interval


@dataclass(frozen=True)
class Judgement:
    """What the cells say of a claim.

    Attributes:
        ours: Our reading, in a line; empty where there is none.
        missing: What would decide it: entries of a study, or what the pipeline does not measure at all.
    """

    verdict: Status
    ours: str = ""
    missing: tuple[str, ...] = ()


def by_stack(measured: Measured) -> list[list[Cell]]:
    """Cells that may differ in levers alone."""
    groups = group_by(measured.cells, lambda cell: (cell.device, cell.model, cell.shape, cell.stack))
    return list(groups.values())


def unknown(
    measured: Measured, runtimes: Sequence[str], precisions: Sequence[str], batches: Sequence[int] | None = None
) -> Judgement:
    """Nothing measured: the sweep that would decide."""
    return Judgement("not decidable", "", (sweep_entry(measured, runtimes, precisions, batches),))


def joined(related: Sequence[Finding]) -> str:
    return " ".join(finding.text for finding in related)


def turned_out(pair: Judged, wanted: str) -> Status:
    """Of the claim that a comparison ends as ``wanted``."""
    if pair.verdict == wanted:
        return "supported"
    return "not decidable" if pair.verdict == "undecided" else "refuted"


def happens(examples: Iterable[Status]) -> Status:
    """Of a claim that something happens: one example supports it; only all examples that refute it refute it."""
    statuses = set(examples)
    if "supported" in statuses:
        return "supported"
    return "refuted" if statuses == {"refuted"} else "not decidable"


def concluded(
    parts: Iterable[Status], lines: Iterable[str], cells: Iterable[Cell], missing: Sequence[str] = ()
) -> Judgement:
    """What the parts of a claim say together.

    Args:
        parts: Statuses of what must all hold.
        lines: Our reading.
        cells: What the parts rest on.
        missing: What would decide it; empty: more processes of the cells.
    """
    verdict = combined(parts)
    wanted = tuple(missing) or (processes_entry(list(cells)),)
    return Judgement(verdict, "; ".join(lines), wanted if verdict == "not decidable" else ())


def in_range(factor: Interval, low: float, high: float) -> Status:
    """Of the claim that a factor lies between the two."""
    if low <= factor.low and factor.high <= high:
        return "supported"
    return "refuted" if factor.high < low or factor.low > high else "not decidable"
