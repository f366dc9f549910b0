"""The section on captures: what each budget supports, in sentences computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.measure.quantiles import Interval
from ceilings.report import text
from ceilings.report.budgets import REPRODUCED, read_budget
from ceilings.report.measured import configuration_label
from ceilings.report.tables import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES, PATH_SHARES, Tables

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
            "What runs on the device, and in which order, is from captures made apart from all timing; latencies are "
            "the untraced medians. Recording slows the host: so each captured iteration is replayed with a host that "
            "submits as fast as untraced, and its critical path decides. docs/budget.md defines each part."
        )
        records = [read_budget(row["path"], row) for row in rows]
        lines += ["\n".join(f"- {sentence(row)}" for row in rows), _decides(rows)]
        lines.append("As recorded, medians over iterations; both sides sum to the iteration, the residual is printed:")
        lines += [_recorded(rows), *_layers(rows, records), *_warnings(rows, records)]
    failed = [_failed(cell) for cell in plan["cells"] if cell.get("budget") and not _is_row(cell, rows)]
    lines += ["\n".join(failed)] if failed else []
    if len(lines) == 1:
        lines.append("No cell was captured: none of the cells of `traces` can be measured here.")
    return "\n\n".join(lines)


# --- sentences -------------------------------------------------------------------------------------------------------


def sentence(row: Row) -> str:
    """What one budget supports."""
    busy, launches = row["gpu_busy_ms"], row["launches"]
    total, how = (row["untraced_p50_ms"], "") if _known(row["untraced_p50_ms"]) else (row["iteration_ms"], "recorded ")
    submitting = row["host_framework_ms"] + row["host_launch_ms"] if how else row["untraced_enqueue_ms"]
    name = f"**{_label(row)}** {row['model']} {_shape(row)} on `{row['device']}`"
    told, whole = f"{name} is {row['verdict']}", f"{how}{text.number(total)} ms"
    works = f"the device works {text.number(busy)} of {whole} ({text.percent(busy / total)})"
    calls = f"{count(launches)} launch{'' if launches == 1 else 'es'}"
    match row["verdict"]:
        case "launch-bound":
            each = f" of {_us(submitting / launches)} µs each (framework included)" if launches else ""
            told += f": {calls}{each} against {_us(busy)} µs of work on the device, which idles for "
            told += f"{text.percent(1 - busy / total)} of {whole}"
        case "kernel-bound":
            largest = max(KERNEL_CLASSES, key=lambda kind: row[f"gpu_{kind}_ms"])
            told += (
                f": {works}; {count(row['kernels'])} kernels of {text.number(row['kernel_mean_us'])} µs on average; "
            )
            told += f"the largest class is {CLASS_NAMES.get(largest, largest)} with "
            told += f"{text.percent(row[f'gpu_{largest}_ms'] / busy)} of the work"
        case "host-bound":
            told += f": {text.percent(row['path_host'])} of the critical path is code round its {calls} that launches "
            told += f"nothing yet, or nothing more; {works}"
        case "transfer-bound":
            told += f": copies between host and device are {text.percent(row['path_transfer'])} of the critical path "
            told += f"({_us(row['gpu_copy_ms'])} µs on the device, {_us(row['host_copy_ms'])} µs in the calls)"
        case "sync-bound":
            told += f": for {text.percent(row['path_sync'])} of the critical path all is done and the host has not "
            told += "noticed"
        case _:
            told = f"{name} has no single cause for its {whole}: {works}"
    return f"{told}{_levers(row)}."


def _levers(row: Row) -> str:
    """What would remain if one side took no time, as far as a replay explains the latency."""
    if not _explained(row):
        return ""
    return (
        f". If the device's work took no time, {text.number(row['no_work_ms'])} ms would remain; if the host's took "
        f"none, at most {text.number(min(row['no_host_ms'], row['untraced_p50_ms']))}"
    )


def _explained(row: Row) -> bool:
    known = _known(row["replayed_ms"]) and _known(row["untraced_p50_ms"])
    return known and abs(row["replayed_ms"] / row["untraced_p50_ms"] - 1) <= REPRODUCED


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
        f"- {_label(row)} {row['model']} {_shape(row)}: {layers(record['layers'])}"
        for row, record in zip(rows, records, strict=True)
        if record.get("layers")
    ]
    return ["\n".join(["Which layers of an engine (docs/budget.md says how they are found):\n", *told])] if told else []


def _warnings(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row, record in zip(rows, records, strict=True):
        name = f"{_label(row)} {_shape(row)}"
        lines += [f"- {name}: {flag}" for flag in record["flags"]]
        if _known(row["untraced_p50_ms"]) and not _explained(row):
            replay = f"takes {text.number(row['replayed_ms'])} ms" if _known(row["replayed_ms"]) else "is not possible"
            lines.append(
                f"- {name}: the replay {replay}, and the latency is {text.number(row['untraced_p50_ms'])} ms: the "
                "capture does not explain it, and the critical path shown is the recorded iteration's"
            )
        if record["unknown_kernels"]:
            named = text.cut([f"`{kernel['short']}`" for kernel in record["unknown_kernels"]])
            lines.append(f"- {name}: kernels of unknown class: {named}")
        if slow := jitter(record):
            lines.append(f"- {name}: {slow}")
    return ["\n".join(lines)] if lines else []


def _failed(cell: Row) -> str:
    failure = read_budget(cell["budget"], cell)["failure"]
    return f"- {_label(cell)} {cell['model']} {_shape(cell)}: {failure['kind']}: {failure['message']}"


def _is_row(cell: Row, rows: list[dict[str, Any]]) -> bool:
    return any(row["path"] == cell["budget"] for row in rows)


# --- the table -------------------------------------------------------------------------------------------------------


def _decides(rows: list[dict[str, Any]]) -> str:
    headers = ["configuration", "shape", "p50, ms", "replayed, ms", *(f"path: {share}" for share in PATH_SHARES)]
    headers += ["device works, ms", "without its work, ms", "without the host, ms", "verdict"]
    shown = [
        [
            *(_label(row), _shape(row), text.number(row["untraced_p50_ms"]), text.number(row["replayed_ms"])),
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
                *(_label(row), _shape(row), iteration, text.number(row["tracing_ratio"])),
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


def _label(row: Row) -> str:
    return configuration_label(row["runtime"], row["precision"])


def _shape(row: Row) -> str:
    return f"b{row['batch']}-s{row['sequence']}"


def _known(value: float | None) -> bool:
    return value is not None and pd.notna(value)


def _percent(row: Row, column: str) -> str:
    return text.percent(row[column] / row["iteration_ms"])


def _us(value_ms: float) -> str:
    return text.number(value_ms * 1e3)
