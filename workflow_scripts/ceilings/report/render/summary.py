"""The summary: Markdown that a busy engineer reads in two minutes, computed from the tables and the evidence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from ceilings.quantity import Quantity
from ceilings.report import text
from ceilings.report.analysis.findings import findings
from ceilings.report.analysis.measured import Cell, Measured, configuration_label, group_by
from ceilings.report.catalogue import PLOTS
from ceilings.report.render import engine_section as engines
from ceilings.report.render import quality_section
from ceilings.report.render.axes import axis_cells, axis_headers
from ceilings.report.render.conclusions import claims_of_others, conclusions, in_short
from ceilings.report.render.conditions import environment, is_onnx_file, limits, method, named, reference
from ceilings.report.render.hardware_distance import distance
from ceilings.report.render.prediction_section import predictions
from ceilings.report.render.time_account import where_time_goes
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.keys import axes_of
from ceilings.report.tables.product_counts import counted
from ceilings.report.tables.quantities import (
    BY_COLUMN,
    MEASURED,
    known,
    legend,
    results_heading,
    show,
    show_interval,
)
from ceilings.workload.shape import Shape

Plan = Mapping[str, Any]

COARSE = 0.25
"""A noise floor from which on the page warns at its top: levers are often worth less."""

MOST_ROWS = 200
"""Larger result tables show the common shape only; the CSV holds all."""

LAYERS_SHOWN = 5

NOTHING_TO_SHOW: dict[str, Callable[[Tables], bool]] = {
    "latency_budget": lambda tables: tables.budgets.empty,
    "iteration_timeline": lambda tables: tables.budgets.empty,
    "roofline": lambda tables: tables.floors.empty,
    "launch_to_kernel_map": lambda tables: bool(tables.cells["enqueue_p50_ms"].isna().all()),
    "precision_crossover": lambda tables: tables.cells["precision"].nunique() < 2,
    "batch_sweep": lambda tables: not swept(tables, lambda axis: axis == "batch"),
    "sequence_sweep": lambda tables: not swept(tables, lambda axis: axis != "batch"),
}
"""Plots that stay empty without captures, without a GPU or without a sweep: the summary leaves them out."""

LEFT_OUT = {"mean_ms", "p95_ms", "p99_9_ms", "cold_p50_ms", "energy_j", "power_w"}
"""What is measured and has no column in the results: the tables and the report have it."""

ALWAYS = {"p50_ms", "p90_ms", "p99_ms", "inferences_per_s", "saturated_per_s"}
"""Columns of every table of results; others where a cell has a value."""


def swept(tables: Tables, which: Callable[[str], bool]) -> bool:
    """Whether a model was asked for at several sizes along one of the axes."""
    for _, names in tables.cells.groupby("model")["shape"]:
        shapes = [Shape.parse(name) for name in names.unique()]
        if any(len({shape.get(axis) for shape in shapes}) > 1 for axis in axes_of(shapes) if which(axis)):
            return True
    return False


def summary(plan: Plan, tables: Tables, evidence: Evidence, plots: str) -> str:
    """The whole page.

    Args:
        plots: Folder of the pictures, relative to the page.
    """
    measured = Measured(tables)
    observed = findings(tables)
    parts = [
        f"# Inference latency: study `{plan['study']}`",
        introduction(plan, tables, measured, evidence),
        in_short(observed),
        conclusions(observed, measured.common_shapes),
        results(measured),
        predictions(plan, measured),
        distance(measured),
        where_time_goes(plan, tables),
        pictures(plots, tables),
        claims_of_others(measured, evidence),
        not_run(plan, tables),
        quality_section.section(plan, tables),
        parity(plan, evidence),
        graphs(evidence),
        engines.section(evidence),
        limits(evidence),
        environment(plan, tables),
        method(plan, tables),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# --- what was measured on what ---------------------------------------------------------------------------------------


def introduction(plan: Plan, tables: Tables, measured: Measured, evidence: Evidence) -> str:
    counts = Counter(tables.planned["status"])
    devices = sorted({cell.device for cell in measured.cells})
    on = f" on {text.listed(named(plan, tables, slug) for slug in devices)}" if devices else ""
    models = text.listed(plan["models"])
    pairs = f", with {text.plural(len(measured.aa_pairs), 'A/A pair')}" if measured.aa_pairs else ""
    sentence = (
        f"{counts['ok']} of {text.plural(len(tables.planned), 'planned cell')} measured{on}{pairs}"
        f" ({counts['unavailable']} not available here, {counts['failed']} failed). "
        f"Models: {models}. {len(tables.runs)} processes, {tables.iterations:,} timed iterations of the closed loop."
    )
    weights = [_weights(model, plan["models"][model], evidence.weights.get(model)) for model in plan["models"]]
    return "\n\n".join([sentence, *filter(None, (_noisy(measured, slug) for slug in devices)), *weights])


def _noisy(measured: Measured, device: str) -> str:
    floor = measured.noise_floor(device)
    if floor is None or floor <= COARSE:
        return ""
    if not math.isfinite(floor):
        return (
            f"> **No difference is established on `{device}`**: with one process a cell the noise floor is unknown. "
            "Raise `protocol.processes`."
        )
    return (
        f"> **Comparisons on `{device}` are coarse**: the noise floor is {floor:.0%}, and no smaller difference is "
        "claimed. End other work on the machine, or raise `protocol.processes`."
    )


def _weights(model: str, planned: Mapping[str, Any], record: Mapping[str, Any] | None) -> str:
    if is_onnx_file(planned):
        return f"Weights of {model}: those of the ONNX file."
    if record is None:
        return f"Weights of {model}: no record of where they came from."
    if record.get("status") == "failed":
        return f"> **Weights of {model} cannot be used**: {record['failure']['message']}."
    why = f" ({record['why']})" if record.get("why") else ""
    ids = f" Texts are random token ids: {record['random_ids']}." if record.get("random_ids") else ""
    if record["source"] == "random":
        return (
            f"> **Weights of {model} are random**{why}. Latencies are valid: the work does not depend on the values "
            f"(at the power cap the clock may, a little); accuracy, and agreement of the top class, mean nothing.{ids}"
        )
    where = f", {record['hub']}" if isinstance(record.get("hub"), str) else ""
    return f"Weights of {model}: {record['source']}{where}{why}.{ids}"


# --- results ---------------------------------------------------------------------------------------------------------


def results(measured: Measured) -> str:
    if not measured.cells:
        return "## Results\n\nNo cell was measured."
    cells = measured.cells
    note = ""
    if len(cells) > MOST_ROWS:
        cells = measured.at_common_shape
        note = f" The {len(cells)} cells at the common shape; all {len(measured.cells)} are in `tables/cells.csv`."
    lines = [
        "## Results",
        "Latency of one request, closed loop. The legend below the tables says what each column is." + note,
    ]
    columns = _columns(cells)
    for (device, model), members in group_by(cells, lambda cell: (cell.device, cell.model)).items():
        lines += [f"### {model} on `{device}`", _result_table(members, columns)]
    quantized = [BY_COLUMN["quantized_products"]] if any(counted(cell.row) for cell in cells) else []
    return "\n\n".join([*lines, legend([*columns, *quantized, BY_COLUMN["relative_l2"]])])


def _columns(cells: Sequence[Cell]) -> list[Quantity]:
    """What the results show: what any cell has a value of, and what is always shown."""
    columns = (one for one in MEASURED if one.column not in LEFT_OUT)
    return [one for one in columns if one.column in ALWAYS or any(known(one, cell.row) for cell in cells)]


def _result_table(cells: list[Cell], every: Sequence[Quantity]) -> str:
    columns = [one for one in _columns(cells) if one in every]
    axes = axis_headers(cell.shape for cell in cells)
    quantized, error = any(counted(cell.row) for cell in cells), BY_COLUMN["relative_l2"]
    headers = ["configuration", *axes, *map(results_heading, columns)]
    headers += [*([BY_COLUMN["quantized_products"].label] if quantized else []), error.label]
    rows, before = [], ""
    for cell in cells:
        row = cell.row
        rows.append(
            [
                cell.label if cell.label != before else "",
                *axis_cells(cell.shape, axes),
                *(show_interval(one, row) if one.column == "p50_ms" else show(one, row) for one in columns),
                *([counted(row)] if quantized else []),
                show(error, row),
            ]
        )
        before = cell.label
    return text.table(rows, headers, "l" + "r" * (len(headers) - 1))


def pictures(folder: str, tables: Tables) -> str:
    """PNG in the page, SVG behind it: not every Markdown viewer shows SVG, and SVG text is lost on a dark page."""
    empty = {name for name, nothing in NOTHING_TO_SHOW.items() if nothing(tables)}
    shown = {name: what for name, what in PLOTS.items() if name not in empty}
    return "\n\n".join(
        ["## Pictures", *(f"[![{what}]({folder}/{name}.png)]({folder}/{name}.svg)" for name, what in shown.items())]
    )


# --- not run ---------------------------------------------------------------------------------------------------------


def not_run(plan: Plan, tables: Tables) -> str:
    lines = ["## Not run, and why"]
    unavailable = tables.planned[tables.planned["status"] == "unavailable"]
    failed = tables.cells[tables.cells["status"] == "failed"]
    if unavailable.empty and failed.empty:
        lines.append("Every planned cell was measured.")
    if not unavailable.empty:
        rows = []
        for (reason, remedy), members in unavailable.groupby(["reason", "remedy"], dropna=False, sort=True):
            models = f" of {text.listed(members['model'].unique())}" if len(plan["models"]) > 1 else ""
            cells = ", ".join(
                f"{label} ({len(same)})"
                for label, same in members.groupby(
                    members.apply(lambda row: configuration_label(str(row["runtime"]), str(row["precision"])), axis=1)
                )
            )
            rows.append([reason, len(members), f"{cells}{models}", remedy if pd.notna(remedy) else ""])
        lines += [text.table(rows, ["reason", "cells", "which (shapes)", "remedy"], "lrll")]
    if not failed.empty:
        rows = [
            [
                f"{configuration_label(row.runtime, row.precision)} {row.model} {row.shape} on {row.device}",
                row.failure_kind,
                str(row.reason).removeprefix(f"{row.failure_kind}: "),
                f"`{row.log}`" if pd.notna(row.log) else "",
            ]
            for row in failed.itertuples()
        ]
        lines += ["Failed:", text.table(rows, ["cell", "class", "message", "log"], "llll")]
    return "\n\n".join([*lines, *_left_out(plan)])


def _left_out(plan: Plan) -> list[str]:
    """Precisions of sweeps that a runtime does not have: there are no cells of these. Old plans do not name them."""
    by_runtime = group_by(plan.get("left_out", ()), lambda pair: pair[0])
    if not by_runtime:
        return []
    listed = (f"{runtime} ({', '.join(precision for _, precision in pairs)})" for runtime, pairs in by_runtime.items())
    return [f"No cells, since the runtime does not have the precision: {', '.join(listed)}."]


# --- parity and graphs -----------------------------------------------------------------------------------------------


def parity(plan: Plan, evidence: Evidence) -> str:
    if not evidence.parity:
        return ""
    rows, layers = [], []
    for (model, graph), record in sorted(evidence.parity.items()):
        top1 = record.get("top1_agreement")
        rows.append(
            [
                model,
                graph,
                record.get("status", "n/a"),
                *(text.powers(record.get(name)) for name in ("max_abs", "max_rel", "relative_l2")),
                f"{record['cosine']:.6f}" if record.get("cosine") is not None else "n/a",
                text.percent(top1) if top1 is not None else "n/a",
                record.get("reason") or "",
            ]
        )
        worst = sorted(record.get("layers") or [], key=lambda layer: layer["sqnr_db"])[:LAYERS_SHOWN]
        if worst:
            named = "; ".join(f"`{layer['node']}` {layer['sqnr_db']:.1f} dB" for layer in worst)
            layers.append(f"- {model} {graph}: layers with the lowest signal-to-quantisation-noise: {named}.")
    headers = ["model", "graph", "status", "max abs", "max rel", "rel. L2", "lowest cosine", "same top class", "note"]
    lines = [
        "## Parity with the FP32 reference",
        f"{reference(plan)} Of several outputs the worst counts; the lowest cosine is that of any row.",
        text.table(rows, headers, "lllrrrrrl"),
    ]
    random = [model for model, record in evidence.weights.items() if record.get("source") == "random"]
    if random:
        lines.append(
            f"The weights of {text.listed(random)} are random: agreement of the top class means nothing there."
        )
    return "\n\n".join([*lines, *(["\n".join(layers)] if layers else [])])


def graphs(evidence: Evidence) -> str:
    """The plain values of each report."""
    if not evidence.graphs:
        return ""
    rows = [
        [model, graph, "; ".join(_plain(record)) or "no details"] for (model, graph), record in evidence.graphs.items()
    ]
    return "## Graphs\n\n" + text.table(sorted(rows), ["model", "graph", "report"], "lll")


def _plain(record: Mapping[str, Any]) -> list[str]:
    hidden = {"schema_version", "provenance", "sources"}
    return [
        f"{name.replace('_', ' ')} {f'{value:.2g}' if isinstance(value, float) else value}"
        for name, value in record.items()
        if name not in hidden and not name.endswith("sha256") and isinstance(value, str | int | float)
    ]
