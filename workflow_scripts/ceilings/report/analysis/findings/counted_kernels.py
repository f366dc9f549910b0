"""Question 9 as well: what limits the kernels of a cell, by hardware counters."""

from __future__ import annotations

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Finding, names, where
from ceilings.report.analysis.measured import Measured

TOPIC = "Kernels"


def counted_kernels(measured: Measured) -> list[Finding]:
    """What part of the time of each counted cell's kernels has which limit."""
    findings = []
    for cell in measured.cells:
        rows = measured.counted_kernels(cell)
        if not rows:
            continue
        shares: dict[str, float] = {}
        for row in rows:
            shares[row["verdict"]] = shares.get(row["verdict"], 0.0) + row["share"]
        ranked = sorted(shares.items(), key=lambda item: -item[1])
        longest, (first, share) = rows[0], ranked[0]
        parts = text.listed(f"{text.percent(part)} {name}" for name, part in ranked)
        sentence = (
            f"{where(measured, cell)}: of the time of the kernels of **{cell.label}**, by hardware counters, {parts}. "
            f"The longest, `{longest['kernel']}`, takes {text.percent(longest['share'])}: {longest['verdict']}, "
            f"{longest['why']}."
        )
        brief = f"{where(measured, cell)}: {text.percent(share)} of the kernels' time of {cell.label} is {first}."
        findings.append(Finding(TOPIC, sentence, names([cell]), question=9, brief=brief))
    return findings
