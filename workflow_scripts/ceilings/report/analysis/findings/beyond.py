"""What else a latency holds: copies, cold caches, the first answer."""

from __future__ import annotations

import pandas as pd

from ceilings.measure.catalogue import STAGES
from ceilings.report import text
from ceilings.report.analysis.findings.finding import Finding, names, where
from ceilings.report.analysis.findings.selection import panels_at_common_shape
from ceilings.report.analysis.measured import Cell, Measured
from ceilings.statistics.intervals import mean_over_processes
from ceilings.statistics.quantiles import Interval

SHOWN = 3
"""Of the quickest starts; the slowest one beside them."""


def other_boundaries(measured: Measured) -> list[Finding]:
    """End to end and cold caches against the closed loop, where they were measured."""
    findings = []
    for column, base, what in (
        ("e2e_p50_ms", "p50_ms", "with copies to and from pinned memory, against the closed loop"),
        ("e2e_pageable_p50_ms", "e2e_p50_ms", "with copies through pageable memory, against pinned memory"),
        ("cold_p50_ms", "p50_ms", "with cold caches, against the closed loop"),
    ):
        for panel in panels_at_common_shape(measured):
            cells = [cell for cell in panel if pd.notna(cell.row[column]) and pd.notna(cell.row[base])]
            if not cells:
                continue
            clear = []
            for cell in cells:
                members = measured.runs(cell)
                factor = mean_over_processes(members[column] / members[base])
                if factor.bounded and not factor.low <= 1 <= factor.high:
                    added = (members[column] - members[base]).median() * 1e3
                    clear.append(f"{cell.label} {text.interval(factor, '×')}, {added:+.3g} µs")
            sentence = (
                f"{where(measured, cells[0])}: {what} (ratio within each process): "
                f"{'; '.join(clear) or 'no difference shown'}"
                f"{f'; no difference shown for {len(cells) - len(clear)} others' if clear else ''}."
            )
            findings.append(Finding("Beyond the closed loop", sentence, names(cells)))
    return findings


def cold_start(measured: Measured) -> list[Finding]:
    """Time to the first answer of a fresh process: all stages, the CUDA context and libraries among them."""
    findings = []
    for cells in panels_at_common_shape(measured):
        prices, cached = dict[Cell, Interval](), dict[Cell, Interval | None]()
        for cell in cells:
            members = measured.runs(cell)
            # Tables may be older than a stage.
            total = members.reindex(columns=[f"{stage}_ms" for stage in STAGES]).sum(axis=1)
            if len(total) and (total > 0).all():
                prices[cell], cached[cell] = _by_cache(total, members["compile_cache"])
        if not prices:
            continue
        ranked = sorted(prices, key=lambda cell: prices[cell].estimate)
        shown = ranked if len(ranked) <= SHOWN + 1 else [*ranked[:SHOWN], ranked[-1]]
        sentence = "; ".join(
            f"{cell.label} {_seconds(prices[cell])} (as long as {prices[cell].estimate / cell.p50.estimate:,.0f} "
            f"steady {'tokens' if cell.phase else 'requests'}"
            f"{f'; {_seconds(again)} with what the first process compiled' if again else ''})"
            for cell, again in ((cell, cached[cell]) for cell in shown)
        )
        sentence += f"; {len(ranked) - len(shown)} between these" if len(ranked) > len(shown) else ""
        sentence = f"{where(measured, ranked[0])}: time from the start of a process to its first answer: {sentence}."
        first, last = ranked[0], ranked[-1]
        slowest = f" to {_rounded(prices[last])} ({last.label})" if last is not first else ""
        brief = (
            f"{where(measured, first)}: a new process answers after {_rounded(prices[first])} ({first.label}){slowest}."
        )
        findings.append(
            Finding("Cold start", sentence, names(ranked), prices[first], measure="ms", absolute=True, brief=brief)
        )
    return findings


def _by_cache(total: pd.Series, caches: pd.Series) -> tuple[Interval, Interval | None]:
    """The start of processes that find no compiled code, and of those that do: no mean is taken over both."""
    cold = caches == "cold"
    if cold.any() and not cold.all():
        return mean_over_processes(total[cold]), mean_over_processes(total[~cold])
    return mean_over_processes(total), None


def _rounded(value: Interval) -> str:
    return f"{text.number(value.estimate)} ms" if value.estimate < 1000 else f"{text.number(value.estimate / 1e3)} s"


def _seconds(value: Interval) -> str:
    return text.interval(value, "ms") if value.estimate < 1000 else text.interval(value.scaled(1e-3), "s")
