"""The section on captures: what each budget supports, what decides each latency, and the recorded iterations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings import foreign
from ceilings.report import text
from ceilings.report.render.budget_sentences import count, doubt, jitter, label, layers, sentence
from ceilings.report.tables.budget_rows import read_budget
from ceilings.report.tables.frames import Tables, in_order
from ceilings.statistics.quantiles import Interval
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, PATH_SHARES

Row = Mapping[str, Any]


def where_time_goes(plan: Mapping[str, Any], tables: Tables) -> str:
    """The section; empty where the study asks for no capture and has none."""
    asked = plan.get("traces") or {}
    if tables.budgets.empty and not asked.get("cells"):
        return ""
    lines = ["## Where the time goes"]
    if asked.get("reason"):
        lines.append(f"Nothing can be captured here: {asked['reason']}.")
    rows = in_order(tables.budgets).to_dict("records")
    if rows:
        lines.append(
            "Captures are made apart from all timing; latencies are untraced medians. Recording slows the host. So "
            "each captured iteration is replayed with the speed of the untraced host, and the critical path of the "
            "replay gives the bound. docs/budget.md defines each part."
        )
        records = [foreign.marked(read_budget(row["path"], row)) for row in rows]
        sentences = [f"- {sentence(row, record)}" for row, record in zip(rows, records, strict=True)]
        lines += ["\n".join(sentences), _decides(rows)]
        lines.append(
            "As recorded: medians over iterations, parts in percent of the iteration. The host's parts sum to 100%, "
            "and so do the device's (busy and idle). Medians need not; the residual is the rest:"
        )
        lines += [_recorded(rows), _alike(rows), *_layers(rows, records), *_warnings(rows, records)]
    failed = [_failed(cell) for cell in plan["cells"] if cell.get("budget") and not _is_row(cell, rows)]
    lines += ["\n".join(failed)] if failed else []
    if len(lines) == 1:
        lines.append("No cell was captured: none of the cells of `traces` can be measured here.")
    return "\n\n".join(lines)


def _alike(rows: list[dict[str, Any]]) -> str:
    """Of how many captures all iterations do the same; where they do not, what that takes."""
    checked = [row for row in rows if pd.notna(row["irregular"])]
    unlike = [row for row in checked if row["irregular"]]
    alike, every = len(checked) - len(unlike), text.plural(len(checked), "checked capture")
    words = f"Steady state: in {alike} of {every} each iteration has the same kernels, copies and calls, and none "
    words += "prepares anything."
    if older := len(rows) - len(checked):
        words += f" Older than the check: {text.plural(older, 'capture')}."
    if not unlike:
        return words
    shown = []
    for row in unlike:
        calls, works, whole = (_us(row, name) for name in ("irregular_host_ms", "irregular_gpu_ms", "iteration_ms"))
        shown.append(
            f"- {label(row)} {row['model']} {row['shape']}: {text.plural(int(row['irregular']), 'name')}, a mean of "
            f"{calls} in calls and {works} on the device, of {whole}"
        )
    return "\n".join([f"{words} In the others, by what is named below:\n", *shown])


def _layers(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"- {label(row)} {row['model']} {row['shape']}: {layers(record['layers'])}"
        for row, record in zip(rows, records, strict=True)
        if record.get("layers")
    ]
    return (
        ["\n".join(["Which layers of an engine (docs/budget.md says how they are matched):\n", *lines])]
        if lines
        else []
    )


def _warnings(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row, record in zip(rows, records, strict=True):
        name = f"{label(row)} {row['model']} {row['shape']}"
        lines += [f"- {name}: {flag}" for flag in record["flags"]]
        if doubtful := doubt(row):
            lines.append(f"- {name}: {doubtful}")
        if record["unknown_kernels"]:
            named = text.cut([f"`{kernel['short']}`" for kernel in record["unknown_kernels"]])
            lines.append(f"- {name}: kernels of unknown class: {named}")
        if slow := jitter(record):
            lines.append(f"- {name}: {slow}")
    return ["\n".join(lines)] if lines else []


def _failed(cell: Row) -> str:
    failure = foreign.marked(read_budget(cell["budget"], cell)["failure"])
    return f"- {label(cell)} {cell['model']} {cell['shape']}: {failure['kind']}: {failure['message']}"


def _is_row(cell: Row, rows: list[dict[str, Any]]) -> bool:
    return any(row["path"] == cell["budget"] for row in rows)


# --- the table -------------------------------------------------------------------------------------------------------


def _decides(rows: list[dict[str, Any]]) -> str:
    headers = ["configuration", "shape", "p50, ms", "replayed, ms", *(f"path: {share}" for share in PATH_SHARES)]
    headers += ["device works, ms", "if that took no time, ms", "if the host took none, at most, ms", "verdict"]
    shown = [
        [
            *(label(row), row["shape"], text.number(row["untraced_p50_ms"]), text.number(row["replayed_ms"])),
            *(text.percent(row[f"path_{share}"]) for share in PATH_SHARES),
            *(text.number(row[name]) for name in ("gpu_busy_ms", "no_work_ms", "no_host_ms")),
            row["verdict"],
        ]
        for row in rows
    ]
    return text.table(shown, headers, "ll" + "r" * (len(headers) - 3) + "l")


def _recorded(rows: list[dict[str, Any]]) -> str:
    headers = ["configuration", "shape", "iteration, ms", "traced/untraced", "launches", "kernels", "mean, µs"]
    headers += [f"host: {part}" for part in HOST_PARTS] + ["busy"] + [f"idle: {cause}" for cause in IDLE_CAUSES]
    headers += ["residual host, device", "source"]
    shown = []
    for row in rows:
        low, high = row["iteration_low_ms"], row["iteration_high_ms"]
        bounded = pd.notna(low) and pd.notna(high)
        iteration = (
            text.interval(Interval(low, row["iteration_ms"], high)) if bounded else text.number(row["iteration_ms"])
        )
        shown.append(
            [
                *(label(row), row["shape"], iteration, text.number(row["tracing_ratio"])),
                *(count(row[name]) for name in ("launches", "kernels")),
                text.number(row["kernel_mean_us"]),
                *(_percent(row, f"host_{part}_ms") for part in HOST_PARTS),
                _percent(row, "gpu_busy_ms"),
                *(_percent(row, f"idle_{cause}_ms") for cause in IDLE_CAUSES),
                f"{_percent(row, 'host_residual_ms')}, {_percent(row, 'gpu_residual_ms')}",
                row["source"],
            ]
        )
    return text.table(shown, headers, "ll" + "r" * (len(headers) - 3) + "l")


def _us(row: Row, column: str) -> str:
    return f"{text.number(row[column] * 1e3)} µs"


def _percent(row: Row, column: str) -> str:
    return text.percent(row[column] / row["iteration_ms"])
