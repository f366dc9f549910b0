"""A lab note of a study: every cell in one table, and what was observed, each with its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ceilings import foreign
from ceilings.quantity import Quantity
from ceilings.report import text
from ceilings.report.analysis.advice import advise
from ceilings.report.analysis.cautions import alarms, cautions
from ceilings.report.analysis.decision import decided
from ceilings.report.analysis.findings import QUESTIONS, Finding, findings
from ceilings.report.analysis.findings.energy import joules
from ceilings.report.analysis.findings.operating import cost_per_million
from ceilings.report.analysis.limiter import limiter
from ceilings.report.analysis.machine import machine_of
from ceilings.report.analysis.measured import Cell, Measured, group_by, phase_of
from ceilings.report.render import (
    change_cost_section,
    colocation_section,
    decision_table,
    kernels_section,
    overlap_section,
    quality_section,
    shapes_section,
    transfer_section,
)
from ceilings.report.render import engine_section as engines
from ceilings.report.render.axes import axis_cells, axis_headers
from ceilings.report.render.conclusions import (
    VERDICTS,
    claims_of_others,
    evidence_links,
    undecided,
    undecided_by_noise,
)
from ceilings.report.render.conditions import environment, limits, method
from ceilings.report.render.generation_section import ITERATION
from ceilings.report.render.hardware_distance import distance
from ceilings.report.render.introduction import introduction
from ceilings.report.render.marking import marked
from ceilings.report.render.not_run import not_run
from ceilings.report.render.parity_section import graphs, parity
from ceilings.report.render.pictures import pictures
from ceilings.report.render.prediction_section import predictions
from ceilings.report.render.serving_section import served
from ceilings.report.render.time_account import where_time_goes
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.keys import key_of
from ceilings.report.tables.product_counts import counted
from ceilings.report.tables.quantities import (
    BY_COLUMN,
    MEASURED,
    known,
    legend,
    of_tokens,
    results_heading,
    show,
    show_interval,
)
from ceilings.workload.shape import Shape

Plan = Mapping[str, Any]


def summary_table(plan: Plan, tables: Tables) -> str:
    """Every planned cell, measured or not, in one Markdown table a device and model."""
    plan, tables, _ = marked(plan, tables)
    measured = Measured(tables)
    by_name = {cell.name: cell for cell in measured.cells}
    columns = [one for one in SHOWN if one.column in ALWAYS or any(known(one, cell.row) for cell in measured.cells)]
    lines = [
        f"# Summary table: study `{plan['study']}`",
        "Latency of one request, closed loop. The legend at the end says what each column is. What was not measured "
        "has its status in place of numbers."
        f"{f' {ITERATION}' if any(cell.phase for cell in measured.cells) else ''}",
    ]
    rows = tables.planned.to_dict("records")
    for (device, model), members in group_by(rows, lambda row: (row["device"], row["model"])).items():
        lines.append(f"## {model} on {device if isinstance(device, str) else 'no device of this machine'}")
        shapes = [Shape.parse(row["shape"]) for row in members]
        axes = axis_headers(shapes)
        tokens = any(phase_of(shape) for shape in shapes)
        values = [results_heading(of_tokens(one) if tokens else one) for one in columns]
        values += [f"J/{'token' if tokens else 'inference'}", *BEHIND_HEADERS]
        headers = ["runtime", "precision", *axes, *values]
        shown = []
        for row, shape in zip(members, shapes, strict=True):
            head = [row["runtime"], row["precision"], *axis_cells(shape, axes)]
            cell = by_name.get("/".join(map(str, key_of(row))))
            empty = [row["status"], *[""] * (len(values) - 1)]
            shown.append([*head, *(empty if cell is None else _values(measured, cell, columns))])
        used = [i for i in range(len(headers)) if any(row[i] not in ("", "n/a") for row in shown)]
        lines.append(
            text.table(
                [[row[i] for i in used] for row in shown],
                [headers[i] for i in used],
                "".join("l" if i < 2 else "r" for i in used),
            )
        )
    without = set() if any(counted(row) for row in rows) else {PRODUCTS}
    without |= set() if len(tables.floors) else {BY_COLUMN["gap"]}
    named = [of_tokens(one) for one in columns] if all(cell.phase for cell in measured.cells) else columns
    lines.append(legend([*named, *(one for one in BEHIND if one not in without)]))
    return foreign.markdown("\n\n".join(lines) + "\n")


LEFT_OUT = {"p99_9_ms", "energy_j", "power_w"}
"""What is measured and has no column: too rare, or shown as a mean over the processes behind the others."""

ALWAYS = {"p50_ms", "p90_ms", "p99_ms", "inferences_per_s", "saturated_per_s"}
"""Columns of every table; others where a cell has a value."""

SHOWN = tuple(one for one in MEASURED if one.column not in LEFT_OUT)

PRODUCTS = BY_COLUMN["quantized_products"]

MADE_OF = ("energy_j", "price_per_hour", "peak_device_mb", "peak_rss_mb", "gap", "relative_l2", "cosine")

BEHIND = (*(BY_COLUMN[name] for name in MADE_OF), PRODUCTS)
"""What the columns behind them are made of."""

BEHIND_HEADERS = [
    *("cost/million", "memory, MB", "bound by", "gap to floor", PRODUCTS.label),
    *(BY_COLUMN[name].label for name in ("relative_l2", "cosine")),
]


def _values(measured: Measured, cell: Cell, columns: Sequence[Quantity]) -> list[str]:
    row = cell.row
    energy, cost = joules(measured, cell), cost_per_million(cell)
    floor, bound = measured.hardware_floor(cell), limiter(measured, cell)
    return [
        *(show_interval(one, row) if one.column == "p50_ms" else show(one, row) for one in columns),
        text.number(energy.estimate) if energy else "n/a",
        text.number(cost.estimate) if cost else "n/a",
        text.number(row["peak_device_mb"] if pd.notna(row["peak_device_mb"]) else row["peak_rss_mb"]),
        bound.name if bound.known else "",
        f"{text.number(floor['gap'])}×" if floor else "",
        counted(row),
        show(BY_COLUMN["relative_l2"], row),
        show(BY_COLUMN["cosine"], row),
    ]


def anchors(observed: Sequence[Finding]) -> dict[int, str]:
    """Where the lab note holds each finding that it numbers, by the finding's ``id``."""
    return {id(finding): f"observation-{number}" for number, finding in enumerate(_seen(observed), 1)}


def _seen(observed: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in observed if finding.has_evidence and not finding.undecided_by_noise]


def observations(plan: Plan, tables: Tables, evidence: Evidence, plots: str) -> str:
    """Numbered observations: what was seen, how sure, on which cells; then what is open, and all that they rest on.

    Args:
        plots: Folder of the pictures, relative to the page.
    """
    plan, tables, evidence = marked(plan, tables, evidence)
    measured = Measured(tables)
    title = f"# Engineering observations: study `{plan['study']}`"
    observed = findings(tables)
    if not observed:
        page = f"{title}\n\nNothing was measured, so nothing was observed.\n\n{not_run(plan, tables)}\n"
        return foreign.markdown(page)
    made, advice = decided(measured, plan), advise(measured, machine_of(plan))
    why = "\n".join(f"- {line}" for line in decision_table.reasons(made, advice))
    lines = [
        title,
        "All that the [summary](summary.md) leaves out. Each observation names the claim that was tested, the verdict, "
        "the effect with its 95% interval (unless it says otherwise) and the cells it rests on.",
        introduction(plan, tables, measured, evidence),
        # Of an endpoint elsewhere, no cell need be measured here: then there is nothing to decide.
        f"## Decision\n\n{decision_table.markdown(decision_table.rows(made, advice))}\n\n{why}" if made else "",
        decision_table.all_failed(measured),
        *(_observation(number, finding) for number, finding in enumerate(_seen(observed), 1)),
        _noted([finding for finding in observed if not finding.has_evidence and finding.status is None]),
        predictions(plan, measured),
        undecided_by_noise([finding for finding in observed if finding.has_evidence and finding.undecided_by_noise]),
        undecided(observed),
        claims_of_others(measured, evidence),
        served(measured, whole=True),
        shapes_section.section(measured),
        change_cost_section.section(tables),
        colocation_section.section(tables),
        overlap_section.section(tables),
        transfer_section.section(tables),
        where_time_goes(plan, tables),
        kernels_section.section(plan, tables),
        distance(measured),
        pictures(plots, tables),
        not_run(plan, tables),
        quality_section.section(plan, tables),
        parity(plan, evidence),
        graphs(evidence),
        engines.section(evidence),
        limits(evidence),
        _care([*alarms(measured), *cautions(measured, observed, evidence)]),
        environment(plan, tables),
        method(plan, tables),
    ]
    return foreign.markdown("\n\n".join(line for line in lines if line) + "\n")


def _noted(findings: Sequence[Finding]) -> str:
    """What was noticed of runs and devices, and rests on no cell alone."""
    lines = [f"- {finding.text}" for finding in findings]
    return "\n".join(["## Noticed", "", *lines]) if lines else ""


def _care(lines: Sequence[str]) -> str:
    return "\n".join(["## Read with care", "", *(f"- {line}" for line in lines)]) if lines else ""


def _observation(number: int, finding: Finding) -> str:
    about = QUESTIONS[finding.question] if finding.question else finding.topic
    heading = finding.brief.removesuffix(".") or about
    lines = [f'<a id="observation-{number}"></a>', f"## {number}. {heading}", finding.text]
    facts = [] if finding.question is None else [f"- Question: {about}"]
    if finding.claim:
        facts.append(f"- Claim: {finding.claim}. **{VERDICTS[finding.status or 'not decidable']}**.")
    if finding.effect_in_words:
        facts.append(f"- Effect: {finding.effect_in_words}.")
    facts.append(f"- Evidence:{evidence_links(finding)}")
    return "\n\n".join([*lines, "\n".join(facts)])
