"""The summary: one screen that says what to deploy, what bounds it and what to try next; all else is linked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ceilings import foreign
from ceilings.report import text
from ceilings.report.analysis.advice import advise
from ceilings.report.analysis.cautions import alarms, cautions
from ceilings.report.analysis.decision import decided
from ceilings.report.analysis.findings import Finding, findings
from ceilings.report.analysis.machine import machine_of
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.ranking import most_consequential
from ceilings.report.render import (
    batch_section,
    change_cost_section,
    colocation_section,
    decision_table,
    overlap_section,
    shapes_section,
    transfer_section,
)
from ceilings.report.render.explained_section import explained
from ceilings.report.render.generation_section import generated
from ceilings.report.render.introduction import counted
from ceilings.report.render.marking import marked
from ceilings.report.render.not_run import MOST_ROWS, not_run
from ceilings.report.render.notes import anchors
from ceilings.report.render.pictures import picture
from ceilings.report.render.prediction_section import predictions
from ceilings.report.render.results_table import results
from ceilings.report.render.serving_section import served
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import Tables

Plan = Mapping[str, Any]

MOST_DECISIONS = 10
MOST_REASONS = 4
MOST_FINDINGS = 8
MOST_CAUTIONS = 8

NOTE = "engineering_observations.md"
"""The lab note beside the summary: what the summary leaves out is there."""


def summary(plan: Plan, tables: Tables, evidence: Evidence, plots: str) -> str:
    """The whole page: at most 150 lines, whatever the number of cells.

    Args:
        plots: Folder of the pictures, relative to the page.
    """
    plan, tables, evidence = marked(plan, tables, evidence)
    measured = Measured(tables)
    observed = findings(tables)
    parts = [
        f"# Inference latency: study `{plan['study']}`",
        counted(plan, tables, measured),
        "\n\n".join(f"> {line}" for line in alarms(measured)),
        decision(plan, measured),
        picture(plots, tables),
        results(measured, plan),
        generated(measured, plan),
        shapes_section.section(measured, shapes_section.MOST_ROWS),
        change_cost_section.section(tables, shapes_section.MOST_ROWS),
        batch_section.section(tables, batch_section.MOST_ROWS),
        colocation_section.section(tables, colocation_section.MOST_ROWS),
        overlap_section.section(tables, overlap_section.MOST_ROWS),
        transfer_section.section(tables, transfer_section.MOST_ROWS),
        served(measured),
        conclusions(observed),
        predictions(plan, measured),
        explained(evidence),
        not_run(plan, tables, MOST_ROWS),
        read_with_care(cautions(measured, observed, evidence)),
        MORE,
    ]
    return foreign.markdown("\n\n".join(part for part in parts if part) + "\n")


def decision(plan: Plan, measured: Measured) -> str:
    """The section with the decision table."""
    made = decided(measured, plan)
    if not made:
        return "## Decision\n\nNothing: no cell was measured."
    advice = advise(measured, machine_of(plan))
    shown = decision_table.rows(made, advice)
    hidden = len(shown) - MOST_DECISIONS
    more = f"{hidden} more models and devices are in [the lab note]({NOTE}#decision)." if hidden > 0 else ""
    if len(made) > MOST_REASONS:
        more = " ".join(
            filter(None, (more, f"Reasons for rows after the first {MOST_REASONS}: [the lab note]({NOTE}#decision)."))
        )
    failed = decision_table.all_failed(measured)
    note = decision_table.would_decide(made[:MOST_DECISIONS])
    why = "\n".join(f"- {line}" for line in decision_table.reasons(made[:MOST_REASONS], advice))
    parts = ("## Decision", decision_table.markdown(shown[:MOST_DECISIONS]), more, failed, why, note)
    return "\n\n".join(filter(None, parts))


def conclusions(observed: Sequence[Finding]) -> str:
    """The findings of the largest consequence, a sentence each with a link to its proof."""
    chosen = most_consequential(observed, MOST_FINDINGS)
    if not chosen:
        return "## Findings\n\nNone: no comparison of this study is decided." if observed else ""
    at = anchors(observed)
    lines = [f"{i}. {finding.brief} [proof]({NOTE}#{at[id(finding)]})" for i, finding in enumerate(chosen, 1)]
    rest = len(at) - len(chosen)
    more = [f"{text.plural(rest, 'more finding')} in [the lab note]({NOTE})."] if rest > 0 else []
    return "\n\n".join(["## Findings", "\n".join(lines), *more])


def read_with_care(lines: Sequence[str]) -> str:
    """The section of warnings, one line each."""
    if not lines:
        return ""
    shown = [f"- {line}" for line in lines[:MOST_CAUTIONS]]
    if len(lines) > len(shown):
        shown.append(f"- {len(lines) - len(shown)} more in [the lab note]({NOTE}#read-with-care).")
    return "\n".join(["## Read with care", "", *shown])


MORE = (
    "More: [every cell](summary_table.md) · "
    f"[every finding with intervals, captures, floors, parity, environment and method]({NOTE}) · "
    "[tables](tables/cells.csv) · `report.html`: all of it to filter and open "
    "(`snakemake --cores 1 results/report.html`)"
)
