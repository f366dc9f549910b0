"""A lab note of a study: every cell in one table, and what was observed, each with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings import QUESTIONS, Finding, findings
from ceilings.report.analysis.findings.energy import joules
from ceilings.report.analysis.findings.operating import cost_per_million
from ceilings.report.analysis.measured import Measured, group_by
from ceilings.report.render.conclusions import claims_of_others, evidence_links
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import PERCENTILES, Tables
from ceilings.statistics.quantiles import Interval

Plan = Mapping[str, Any]


def summary_table(plan: Plan, tables: Tables) -> str:
    """Every planned cell, measured or not, in one Markdown table a device and model."""
    measured = Measured(tables)
    by_name = {cell.name: cell for cell in measured.cells}
    lines = [
        f"# Summary table: study `{plan['study']}`",
        "Latency of one request in ms, closed loop. p50: median over processes with its 95% interval. Inferences/s: "
        "requests queued. What was not measured has its status in place of numbers.",
    ]
    rows = tables.cells[tables.cells["twin_of"].isna()].to_dict("records")
    for (device, model), own in group_by(rows, lambda row: (row["device"], row["model"])).items():
        lines.append(f"## {model} on {device if isinstance(device, str) else 'no device of this machine'}")
        shown = []
        for row in own:
            head = [row["runtime"], row["precision"], row["batch"], row["sequence"]]
            name = f"{device}/{row['runtime']}/{model}/{row['precision']}/b{row['batch']}-s{row['sequence']}"
            cell = by_name.get(name)
            if cell is None:
                shown.append([*head, row["status"], *[""] * (len(HEADERS) - len(head) - 1)])
                continue
            energy, cost = joules(measured, cell), cost_per_million(cell)
            shown.append(
                [
                    *head,
                    text.interval(cell.p50),
                    text.number(row["mean_ms"]),
                    *(text.percentile(row[f"{q}_ms"], row["n"], PERCENTILES[q]) for q in ("p90", "p95", "p99")),
                    text.number(row["e2e_p50_ms"]),
                    text.number(row["e2e_pageable_p50_ms"]),
                    text.number(row["saturated_per_s"]),
                    text.number(energy.estimate) if energy else "n/a",
                    text.number(cost.estimate) if cost else "n/a",
                    text.number(row["peak_device_mb"] if pd.notna(row["peak_device_mb"]) else row["peak_rss_mb"]),
                    f"{row['cosine']:.6f}" if pd.notna(row["cosine"]) else "n/a",
                ]
            )
        lines.append(text.table(shown, HEADERS, "ll" + "r" * (len(HEADERS) - 2)))
    return "\n\n".join(lines) + "\n"


HEADERS = [
    *("runtime", "precision", "batch", "seq.", "p50 [95%]", "mean", "p90", "p95", "p99"),
    *("end to end", "pageable", "inferences/s", "J/inference", "cost/million", "memory, MB", "cosine"),
]


def observations(plan: Plan, tables: Tables, evidence: Evidence) -> str:
    """Numbered observations: what was seen, how sure, on which cells; then what is open, and the claims of others."""
    measured = Measured(tables)
    lines = [f"# Engineering observations: study `{plan['study']}`"]
    found = findings(tables)
    if not found:
        return lines[0] + "\n\nNothing was measured, so nothing was observed.\n"
    lines.append(
        "Generated from the tables. Each observation names the claim that was put to the data, what became of it, the "
        "effect with its 95% interval (unless it says otherwise) and the cells it rests on."
    )
    seen = [finding for finding in found if finding.cells]
    for number, finding in enumerate(seen, 1):
        lines.append(_observation(number, finding))
    wanted = [finding for finding in found if finding.status == "not decidable"]
    if wanted:
        items = (
            f"- {finding.claim}{f' ({finding.subject})' if finding.subject else ''}: "
            f"{'; '.join(f'`{entry}`' for entry in finding.missing) or 'nothing in a study decides it'}"
            for finding in wanted
        )
        lines.append("## Open, and what would decide it\n\n" + "\n".join(dict.fromkeys(items)))
    lines.append(claims_of_others(measured, evidence))
    return "\n\n".join(lines) + "\n"


def _observation(number: int, finding: Finding) -> str:
    about = QUESTIONS[finding.question] if finding.question else finding.topic
    lines = [f"## {number}. {about}", finding.text]
    facts = []
    if finding.claim:
        facts.append(f"- Claim: {finding.claim}. **{(finding.status or 'not decidable').capitalize()}**.")
    if finding.effect is not None and finding.effect.bounded:
        facts.append(f"- Effect: {_effect(finding.effect)}.")
    facts.append(f"- Evidence:{evidence_links(finding.cells)}")
    return "\n\n".join([*lines, "\n".join(facts)])


def _effect(effect: Interval) -> str:
    return text.interval(effect)
