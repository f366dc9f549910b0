"""The section on counted kernels: what limits each, and the hardware's counts against ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ceilings import foreign
from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.tables.counted_rows import read_counted
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.kernel_groups import Group, groups
from ceilings.taxonomy import KERNEL_VERDICTS

CACHES = {
    "steady": "each kernel found in the caches what the kernels before it left there",
    "cold": "each kernel found empty caches, so it read from DRAM what an iteration may find in L2",
}

SHOWN = 8
"""Kernels of a cell with a row, the longest ones; the tables have all."""

HEADERS = ["kernel", "launches", "µs", "of the time", "limit", "why", "DRAM", "L2", "tensor pipe"]
HEADERS += ["occupancy", "waves", "registers", "waits for"]


def section(plan: Mapping[str, Any], tables: Tables) -> str:
    """The section; empty where the study asks for no counters and has none."""
    asked = (plan.get("traces") or {}).get("counters") or {}
    counted = [cell for cell in plan["cells"] if cell.get("counters")]
    if not counted and not asked.get("cells"):
        return ""
    lines = ["## What limits each kernel"]
    if asked.get("reason"):
        lines.append(f"Nothing is counted here: {asked['reason']}.")
    if not tables.counted_kernels.empty:
        meanings = "; ".join(f"*{name}*: {meaning}" for name, meaning in KERNEL_VERDICTS.items())
        lines.append(
            "Hardware counters of one iteration, by Nsight Compute, apart from all timing. Each kernel runs alone "
            "there, and the clocks are not locked: these times are no latencies. The limits, whose thresholds are "
            f"in docs/nsight_compute.md: {meanings}."
        )
    for cell in counted:
        lines += _cell(cell, foreign.marked(read_counted(cell["counters"], cell)))
    if len(lines) == 1:
        lines.append("No kernel was counted: none of the cells of `traces.counters` can be measured here.")
    return "\n\n".join(lines)


def _cell(cell: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    name = f"{configuration_label(cell['runtime'], cell['precision'])} {cell['model']} {cell['shape']}"
    if record["status"] != "ok":
        return [f"- {name}: {record['failure']['kind']}: {record['failure']['message']}"]
    every = groups(record)
    whole = sum(record["verdicts"].values()) or 1
    shares = [f"{text.percent(ns / whole)} {verdict}" for verdict, ns in record["verdicts"].items()]
    lines = [
        f"**{name}**, {text.plural(len(record['kernels']), 'kernel')}, {text.number(whole / 1e6)} ms in sum: "
        f"{text.listed(shares)}. Caches: {CACHES[record['caches']]}. [Roofline of its kernels]({_picture(cell)}).",
        text.table([_row(group) for group in every[:SHOWN]], HEADERS, "lrrrllrrrrrrl"),
    ]
    if rest := every[SHOWN:]:
        lines.append(f"{text.plural(len(rest), 'other')} take {text.percent(sum(group.share for group in rest))}.")
    if record["checks"]:
        lines.append(f"Counted by the hardware against the graph: {'; '.join(map(_check, record['checks']))}.")
    lines += [f"- {flag}" for flag in record["flags"]]
    if record["lacking"]:
        lines.append(f"- this device has no counter {text.cut(record['lacking'])}")
    return lines


def _picture(cell: Mapping[str, Any]) -> str:
    """The hierarchical roofline, from the results folder."""
    folders = "/".join(cell[name] for name in ("device", "runtime", "model", "precision"))
    return f"traces/{folders}/{cell['shape']}.ncu.svg"


def _row(group: Group) -> list[object]:
    kernel = group.first
    levels, occupancy = kernel["levels"], kernel["occupancy"]
    return [
        *(f"`{kernel['short']}`", len(group.launches), text.number(group.duration_ns / 1e3), text.percent(group.share)),
        *(group.verdict, kernel["why"], _share(levels["dram"]["share"]), _share(levels["l2"]["share"])),
        _share(kernel["tensor_pipe"]),
        f"{_share(occupancy['achieved'])} of {_share(occupancy['theoretical'])}",
        text.number(kernel["waves"]),
        "n/a" if kernel["registers"] is None else f"{kernel['registers']:.0f}",
        next(iter(kernel["stalls"]), ""),
    ]


def _share(value: float | None) -> str:
    return "n/a" if value is None else text.percent(value)


def _check(check: Mapping[str, Any]) -> str:
    return f"{check['what']} {text.number(check['ratio'])}× ({check['counted']:.4g} for {check['expected']:.4g})"
