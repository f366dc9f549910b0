"""The configuration to take, before any question."""

from __future__ import annotations

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Finding, names, where
from ceilings.report.analysis.findings.selection import panels_at_common_shape
from ceilings.report.analysis.measured import Measured


def fastest(measured: Measured) -> list[Finding]:
    """The configuration with the lowest median at the common shape, and those with no established difference to it."""
    findings = []
    for cells in panels_at_common_shape(measured):
        best, *others = sorted(cells, key=lambda cell: cell.p50.estimate)
        behind = [measured.compare(other, best) for other in others]
        if not behind:
            continue
        tied = [pair for pair in behind if pair.verdict != "slower"]
        sentence = f"{where(measured, best)}: "
        if len(tied) == len(behind):
            sentence += f"no configuration is established as the fastest of {len(cells)}"
            findings.append(Finding("Fastest", sentence + ".", names(cells), None, "undecided"))
            continue
        first = min((pair for pair in behind if pair.verdict == "slower"), key=lambda pair: pair.ratio.estimate)
        if tied:
            group = text.listed(f"**{cell.label}**" for cell in (best, *(pair.a for pair in tied)))
            sentence += f"fastest are {group}, with no established difference; {best.label} has "
        else:
            sentence += f"the fastest is **{best.label}** with "
        sentence += (
            f"a median of {text.interval(best.p50, 'ms')}; next is {first.a.label}, slower by "
            f"{text.interval(first.ratio, '×')}."
        )
        findings.append(Finding("Fastest", sentence, names((best, *others)), first.ratio, "slower"))
    return findings
