"""Under which conditions a study was measured: what its devices allow, its environment, its method."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ceilings.report import text
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.quantities import PERCENTILES
from ceilings.statistics.quantiles import Interval, minimum_samples

Plan = Mapping[str, Any]


def named(plan: Plan, tables: Tables, slug: str) -> str:
    """A device by its full name: the plan's if it was this machine's, else as its runs recorded it."""
    device = next((device for device in plan["devices"] if device["slug"] == slug), None) or _recorded(tables, slug)
    if not device.get("name"):
        return f"`{slug}`"
    details = [f"{device['cores']} cores"] if "cores" in device else []
    details += [f"driver {device['driver']}"] if device.get("driver") else []
    return f"**{device['name']}** ({', '.join([f'`{slug}`', *details])})"


def _recorded(tables: Tables, slug: str) -> dict[str, Any]:
    runs = tables.runs[tables.runs["device"] == slug]["environment"].dropna()
    return next((gpu for run in runs if (gpu := json.loads(run).get("gpu"))), {})


def reference(plan: Plan) -> str:
    """What answers are held against: of an ONNX file there is no PyTorch module."""
    files = [name for name, model in plan["models"].items() if is_onnx_file(model)]
    others = [name for name in plan["models"] if name not in files]
    parts = [f"FP32 PyTorch on the CPU{f' for {text.listed(others)}' if files else ''}"] if others else []
    parts += [f"ONNX Runtime's CPU provider in FP32 for {text.listed(files)} (ONNX files)"] if files else []
    return f"The FP32 reference is {text.listed(parts)}."


def is_onnx_file(model: Mapping[str, Any]) -> bool:
    """Whether a model of the plan is an ONNX file."""
    return isinstance(model.get("weights"), Mapping) and "onnx" in model["weights"]


def limits(evidence: Evidence) -> str:
    """What the devices were measured to allow, each with its range over repeats."""
    lines = []
    for device, record in sorted(evidence.peaks.items()):
        rows = []
        for name, peak in record["peaks"].items():
            if peak.get("median") is None:
                rows.append([name, "n/a", peak.get("unit", ""), peak.get("reason", "")])
                continue
            shown = text.interval(Interval(peak["low"], peak["median"], peak["high"]))
            rows.append([name, shown, peak["unit"], peak["method"]])
        lines += [
            f"`{device}`, median and range over repeats:",
            text.table(rows, ["limit", "", "unit", "method"], "lrll"),
        ]
        lines += [f"- {flag}" for flag in record["flags"]]
    return "\n\n".join(["## Hardware limits, measured", *lines]) if lines else ""


def environment(plan: Plan, tables: Tables) -> str:
    """One table a device: every value that its runs recorded, with all versions if they differ."""
    lines = ["## Environment"]
    for device, runs in tables.runs.groupby("device", observed=True, sort=True):
        values: dict[str, dict[str, None]] = {}
        for recorded in runs["environment"].dropna().unique():
            record = json.loads(recorded)
            packages = record.pop("packages", None) or {}
            record.pop("protocol", None)
            flat = _flat(record) | {name: value for name, value in packages.items() if value is not None}
            for name, value in flat.items():
                values.setdefault(name, {})[str(value)] = None
        rows = [[name, "; ".join(each)] for name, each in values.items()]
        lines += [f"{named(plan, tables, str(device))}:", text.table(rows, ["what", "value"], "ll")]
    return "\n\n".join(lines) if len(lines) > 1 else ""


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name} ")
        elif isinstance(value, list):
            flat[label] = ", ".join(map(str, value))
        elif value is not None:
            flat[label] = value
    return flat


def method(plan: Plan, tables: Tables) -> str:
    protocol = ", ".join(f"{name} {value}" for name, value in _flat(plan["protocol"]).items())
    bounds = ", ".join(f"{name.replace('_', '.')} {minimum_samples(q):,}" for name, q in PERCENTILES.items())
    processes = sorted(set(tables.cells.loc[tables.cells["status"] == "ok", "processes"]))
    count = f" ({text.listed(processes)} here)" if processes else ""
    lines = [
        "## Method in brief",
        f"- Protocol: {protocol}.",
        f"- Each cell runs in new processes{count}, in rounds over all cells. Its interval is the wider of two: a "
        "hierarchical bootstrap, and a t interval over the medians of the processes. Each interval covers 95% alone; "
        "of many, a few miss.",
        "- A cell is faster or slower only where two things hold: the interval of the ratio excludes 1, and the ratio "
        "is beyond the noise floor. An A/A pair (one cell measured twice) gives the noise floor.",
        f"- A percentile needs enough iterations that two lie beyond it with 99% confidence: {bounds}. Below that the "
        "table shows n/a and the n.",
        "- A process stops once the median is precise enough, or at a time limit; `tables/cells.csv` has the reason. "
        "Loading and first runs are timed apart.",
    ]
    reasons: Counter[str] = Counter(tables.runs["stop_reason"].dropna())
    if reasons:
        lines.append(f"- Stop reasons of the runs: {', '.join(f'{name} {n}' for name, n in sorted(reasons.items()))}.")
    return "\n".join([lines[0], "", *lines[1:]])
