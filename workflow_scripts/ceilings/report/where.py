"""The section on captures: what each budget supports, in sentences computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.measure.quantiles import Interval
from ceilings.report import text
from ceilings.report.budgets import read_budget
from ceilings.report.measured import configuration_label
from ceilings.report.tables import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES, Tables

Row = Mapping[str, Any]

CLASS_NAMES = {"gemm": "GEMM", "gather": "embedding and gather", "copy": "copies and layout changes"}
CAUSE_NAMES = {
    "starved": "the host was not in a launch yet",
    "launching": "the host was in the launch call",
    "queued": "the work was launched and had not started",
    "sync": "everything was done and the host had not noticed",
}
LAYERS_SHOWN, NAME_SHOWN = 3, 80
PART_NAMES = {"framework": "framework code", "launch": "launch calls", "copy": "copy calls", "sync": "waiting"}


def where_time_goes(plan: Mapping[str, Any], tables: Tables) -> str:
    """The section; empty where the study asks for no capture and has none."""
    asked = plan.get("traces") or {}
    if tables.budgets.empty and not asked.get("cells"):
        return ""
    lines = ["## Where the time goes"]
    if asked.get("reason"):
        lines.append(f"Nothing can be captured here: {asked['reason']}.")
    rows = tables.budgets.sort_values(["device", "model", "batch", "sequence", "iteration_ms"]).to_dict("records")
    if rows:
        lines.append(
            "Captured apart from all timing; recording makes an iteration longer, and traced over untraced says by how "
            "much. docs/budget.md defines each part; medians over iterations."
        )
        records = [read_budget(row["path"], row) for row in rows]
        told = [f"- {sentence(row, record)}" for row, record in zip(rows, records, strict=True)]
        lines += ["\n".join(told), _table(rows), *_layers(rows, records), *_warnings(rows, records)]
    failed = [_failed(cell) for cell in plan["cells"] if cell.get("budget") and not _is_row(cell, rows)]
    lines += ["\n".join(failed)] if failed else []
    if len(lines) == 1:
        lines.append("No cell was captured: none of the cells of `traces` can be measured here.")
    return "\n\n".join(lines)


# --- sentences -------------------------------------------------------------------------------------------------------


def sentence(row: Row, record: Mapping[str, Any]) -> str:
    """What one budget supports."""
    total, busy = row["iteration_ms"], row["gpu_busy_ms"]
    where = f"{row['model']} b{row['batch']}-s{row['sequence']} on `{row['device']}`"
    name = f"**{configuration_label(row['runtime'], row['precision'])}** {where}"
    told, whole = f"{name} is {row['verdict']}", f"{_us(total)} µs"
    launches = f"{count(row['launches'])} launch{'' if row['launches'] == 1 else 'es'}"
    match row["verdict"]:
        case "launch-bound":
            submitting = row["host_framework_ms"] + row["host_launch_ms"]
            each = f" of {_us(submitting / row['launches'])} µs each (framework included)" if row["launches"] else ""
            return (
                f"{told}: {launches}{each} against {_us(busy)} µs of work on the device; in {whole} the device is idle "
                f"for {text.percent(1 - busy / total)}."
            )
        case "kernel-bound":
            largest = max(KERNEL_CLASSES, key=lambda kind: row[f"gpu_{kind}_ms"])
            return (
                f"{told}: of {whole} the device is busy for {_percent(row, 'gpu_busy_ms')}, and for "
                f"{_percent(row, 'idle_queued_ms')} between what is queued; {count(row['kernels'])} kernels of "
                f"{text.number(row['kernel_mean_us'])} µs on average; the largest class is "
                f"{CLASS_NAMES.get(largest, largest)} with {text.percent(row[f'gpu_{largest}_ms'] / busy)} of the work."
            )
        case "host-bound":
            return (
                f"{told}: for {_percent(row, 'idle_starved_ms')} of {whole} the device waits and the host is in no "
                f"launch call; {_us(row['host_framework_ms'])} µs of framework code round {launches}, "
                f"{_us(busy)} µs of work on the device."
            )
        case "transfer-bound":
            return (
                f"{told}: copies between host and device take most of {whole} ({_us(row['gpu_copy_ms'])} µs on the "
                f"device, {_us(row['host_copy_ms'])} µs in the calls)."
            )
        case "sync-bound":
            return f"{told}: for {_percent(row, 'idle_sync_ms')} of {whole} all is done and the host has not noticed."
        case _:
            shares = sorted(record["shares"].items(), key=lambda share: -share[1])
            parts = text.listed(f"{share} {text.percent(value)}" for share, value in shares if value >= 0.05)
            return f"{name} has no single cause for its {whole}: {parts}."


def count(value: float) -> str:
    """A median of counts: a whole number or a half."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def jitter(record: Mapping[str, Any]) -> str:
    """What slow iterations have more of; empty where that is not known."""
    found = record["jitter"]
    if not found or found["iteration_ns"] <= 0:
        return ""
    host = max(found["host_ns"], key=lambda part: found["host_ns"][part])
    device = max(found["device_ns"], key=lambda part: found["device_ns"][part])
    named = CAUSE_NAMES.get(device.removeprefix("idle_"), device) if device.startswith("idle_") else f"{device} kernels"
    return (
        f"the slowest {text.plural(found['slow_iterations'], 'iteration')} of {record['iterations']} took "
        f"{found['iteration_ns'] / 1e3:,.0f} µs longer: on the host {found['host_ns'][host] / 1e3:+,.0f} µs "
        f"{PART_NAMES[host]}, on the device {found['device_ns'][device] / 1e3:+,.0f} µs ({named})"
    )


def layers(found: Mapping[str, Any]) -> str:
    """Which layers of an engine take the most, and how much of the time has a layer at all, by which evidence."""
    evidence = [f"{kind} {text.percent(share)}" for kind, share in found["evidence_shares"].items() if share]
    told = f"{text.percent(found['matched_share'])} of the time in kernels and copies has a layer"
    if found["in_order_share"] < 1:
        told += f", and {text.percent(found['in_order_share'])} of the iterations ran in the order of the layers"
    if not evidence:
        return f"{told}."
    longest = sorted((one for one in found["each"] if one["ns"]), key=lambda one: -one["ns"])[:LAYERS_SHOWN]
    named = [
        f"`{_cut(one['name'])}` ({one['type']}, {one['precision'] or 'no numbers'}) {text.number(one['ns'] / 1e3)} µs"
        + (f", by the profiler {text.number(one['profiler_ratio'])} times that" if one["profiler_ratio"] else "")
        for one in longest
    ]
    return f"{told} (by {', '.join(evidence)}); the longest: {'; '.join(named)}."


def _cut(name: str) -> str:
    return name if len(name) <= NAME_SHOWN else f"{name[:NAME_SHOWN]}…"


def _layers(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> list[str]:
    told = [
        f"- {configuration_label(row['runtime'], row['precision'])} {row['model']} b{row['batch']}-s{row['sequence']}: "
        f"{layers(record['layers'])}"
        for row, record in zip(rows, records, strict=True)
        if record.get("layers")
    ]
    return ["\n".join(["Which layers of an engine (docs/budget.md says how they are found):\n", *told])] if told else []


def _warnings(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row, record in zip(rows, records, strict=True):
        name = configuration_label(row["runtime"], row["precision"])
        lines += [f"- {name}: {flag}" for flag in record["flags"]]
        if record["unknown_kernels"]:
            named = text.cut([f"`{kernel['short']}`" for kernel in record["unknown_kernels"]])
            lines.append(f"- {name}: kernels of unknown class: {named}")
        if slow := jitter(record):
            lines.append(f"- {name}: {slow}")
    return ["\n".join(lines)] if lines else []


def _failed(cell: Row) -> str:
    failure = read_budget(cell["budget"], cell)["failure"]
    name = configuration_label(cell["runtime"], cell["precision"])
    return f"- {name} {cell['model']} b{cell['batch']}-s{cell['sequence']}: {failure['kind']}: {failure['message']}"


def _is_row(cell: Row, rows: list[dict[str, Any]]) -> bool:
    return any(row["path"] == cell["budget"] for row in rows)


# --- the table -------------------------------------------------------------------------------------------------------


def _table(rows: list[dict[str, Any]]) -> str:
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
                configuration_label(row["runtime"], row["precision"]),
                f"b{row['batch']}-s{row['sequence']}",
                iteration,
                text.number(row["tracing_ratio"]),
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


def _percent(row: Row, column: str) -> str:
    return text.percent(row[column] / row["iteration_ms"])


def _us(value_ms: float) -> str:
    return text.number(value_ms * 1e3)
