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
            sentence += f"no configuration is shown to be the fastest of {len(cells)}."
            findings.append(Finding("Fastest", sentence, names(cells), None, "undecided", brief=sentence))
            continue
        first = min((pair for pair in behind if pair.verdict == "slower"), key=lambda pair: pair.ratio.estimate)
        if tied:
            group = text.listed(f"**{cell.label}**" for cell in (best, *(pair.a for pair in tied)))
            sentence += f"{group} are the fastest; no difference between them is shown. {best.label} takes "
        else:
            sentence += f"**{best.label}** is the fastest. It takes "
        sentence += f"{text.interval(best.p50, 'ms')}{best.per}; the next, {first.a.label}, takes "
        sentence += f"{text.interval(first.ratio, '×')} as long."
        brief = (
            f"{where(measured, best)}: {best.label} is {'among the fastest' if tied else 'the fastest'} with "
            f"{text.number(best.p50.estimate)} ms{best.per}."
        )
        findings.append(Finding("Fastest", sentence, names((best, *others)), first.ratio, "slower", brief=brief))
    return findings
