"""What a budget supports, in sentences computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.tables.budget_rows import explains
from ceilings.taxonomy import KERNEL_CLASSES

Row = Mapping[str, Any]

CLASS_NAMES = {"gemm": "GEMM", "gather": "embedding and gather", "copy": "copies and layout changes"}
CAUSE_NAMES = {
    "host": "the host had not launched yet",
    "launching": "the host was in the launch call",
    "queued": "the work was launched and had not started",
    "sync": "the device was done and the host still waited",
}
LAYERS_SHOWN, NAME_SHOWN = 3, 80
PART_NAMES = {"framework": "framework code", "launch": "launch calls", "copy": "copy calls", "sync": "waiting"}


def sentence(row: Row, record: Mapping[str, Any]) -> str:
    """What one budget supports."""
    busy, launches = row["gpu_busy_ms"], row["launches"]
    total, how = row["untraced_p50_ms"], ""
    if pd.isna(total):
        total, how = row["iteration_ms"], "recorded "
    replayed = pd.notna(row["replayed_ms"])
    submitting = row["untraced_enqueue_ms"] if replayed else row["host_framework_ms"] + row["host_launch_ms"]
    name = f"**{label(row)}** {row['model']} {row['shape']} on `{row['device']}`"
    words, whole = f"{name} is {row['verdict']}", f"{how}{text.number(total)} ms"
    works = f"the device works {text.number(busy)} of {whole} ({text.percent(busy / total)})"
    calls = f"{count(launches)} launch{'' if launches == 1 else 'es'}"
    match row["verdict"]:
        case "launch-bound":
            included = f"framework included{'' if replayed else ', recorded'}"
            each = f" of {_us(submitting / launches)} µs each ({included})" if launches else ""
            words += f": {calls}{each} against {_us(busy)} µs of work on the device, which idles for "
            words += f"{text.percent(1 - busy / total)} of {whole}"
        case "kernel-bound":
            largest = max(KERNEL_CLASSES, key=lambda kind: row[f"gpu_{kind}_ms"])
            words += (
                f": {works}; {count(row['kernels'])} kernels of {text.number(row['kernel_mean_us'])} µs on average; "
            )
            words += f"the largest class is {CLASS_NAMES.get(largest, largest)} with "
            words += f"{text.percent(row[f'gpu_{largest}_ms'] / busy)} of the work{_longest(record, largest)}"
        case "host-bound":
            words += f": {text.percent(row['path_host'])} of the critical path is host code outside its {calls}; "
            words += works
        case "transfer-bound":
            words += f": copies between host and device are {text.percent(row['path_transfer'])} of the critical path "
            words += f"({_us(row['gpu_copy_ms'])} µs on the device, {_us(row['host_copy_ms'])} µs in the calls)"
        case "sync-bound":
            words += f": for {text.percent(row['path_sync'])} of the critical path the device is done and the host "
            words += "still waits"
        case "unexplained":
            words = f"{name} is not explained by its capture: {works}"
        case _:
            words = f"{name} has no single bound for its {whole}: {works}"
    return f"{words}{_levers(row)}."


def _longest(record: Mapping[str, Any], kind: str) -> str:
    """The kernel of a class that takes most."""
    same = [kernel for kernel in record["kernels"] if kernel["class"] == kind]
    if not same:
        return ""
    first = max(same, key=lambda kernel: kernel["ns"])
    each = text.number(first["ns"] / first["count"] / 1e3)
    return f", first `{first['short']}` ({count(first['count'])} of {each} µs)"


def _levers(row: Row) -> str:
    """What would remain if one side took no time, where a replay explains the latency."""
    if not pd.notna(row["no_work_ms"]):
        return ""
    return (
        f". Without the device's work {text.number(row['no_work_ms'])} ms would remain, without the host's time at "
        f"most {text.number(row['no_host_ms'])} ms"
    )


def doubt(row: Row) -> str:
    """Why a critical path may not be that of the latency; empty where a replay is as long as the latency."""
    latency, replay = row["untraced_p50_ms"], row["replayed_ms"]
    if not pd.notna(latency):
        return ""
    length = replay if pd.notna(replay) else row["iteration_ms"]
    taken = "the replay takes" if pd.notna(replay) else "it cannot be replayed; recorded it takes"
    words = f"{taken} {text.number(length)} ms, and the latency is {text.number(latency)} ms"
    if not explains(length, latency):
        return f"{words}: the capture does not explain it, and the critical path shown is the recorded iteration's"
    if pd.notna(row.get("node_gap_us")):
        return (
            f"{words}: replayed with at most {text.number(row['node_gap_us'])} µs between the nodes of the CUDA graph, "
            "which the recorder draws apart"
        )
    return "" if pd.notna(replay) else f"{words}: the critical path shown is the recorded iteration's"


def count(value: float) -> str:
    """A median of counts: a whole number or a half."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def jitter(record: Mapping[str, Any]) -> str:
    """What slow iterations have more of; empty where that is not known."""
    slow = record["jitter"]
    if not slow or slow["iteration_ns"] <= 0:
        return ""
    host = max(slow["host_ns"], key=lambda part: slow["host_ns"][part])
    device = max(slow["device_ns"], key=lambda part: slow["device_ns"][part])
    named = CAUSE_NAMES.get(device.removeprefix("idle_"), device) if device.startswith("idle_") else f"{device} kernels"
    return (
        f"the slowest {text.plural(slow['slow_iterations'], 'iteration')} of {record['iterations']} took "
        f"{slow['iteration_ns'] / 1e3:,.0f} µs longer than the median: on the host "
        f"{slow['host_ns'][host] / 1e3:+,.0f} µs "
        f"{PART_NAMES[host]}, on the device {slow['device_ns'][device] / 1e3:+,.0f} µs ({named})"
    )


def layers(matched: Mapping[str, Any]) -> str:
    """Which layers of an engine take the most, and how much of the time has a layer at all, by which evidence."""
    evidence = [f"{kind} {text.percent(share)}" for kind, share in matched["evidence_shares"].items() if share]
    words = f"{text.percent(matched['matched_share'])} of the time in kernels and copies has a layer"
    if matched["in_order_share"] < 1:
        words += f", and {text.percent(matched['in_order_share'])} of the iterations ran in the order of the layers"
    if not evidence:
        return f"{words}."
    longest = sorted((one for one in matched["each"] if one["ns"]), key=lambda one: -one["ns"])[:LAYERS_SHOWN]
    named = [
        f"`{_cut(one['name'])}` ({one['type']}, {one['precision'] or 'no numbers'}) {text.number(one['ns'] / 1e3)} µs"
        + (f", by the profiler {text.number(one['profiler_ratio'])} times that" if one["profiler_ratio"] else "")
        for one in longest
    ]
    return f"{words} (by {', '.join(evidence)}); the longest: {'; '.join(named)}."


def label(row: Row) -> str:
    """Runtime and precision, as everywhere."""
    return configuration_label(row["runtime"], row["precision"])


def _cut(name: str) -> str:
    return name if len(name) <= NAME_SHOWN else f"{name[:NAME_SHOWN]}…"


def _us(value_ms: float) -> str:
    return text.number(value_ms * 1e3)
