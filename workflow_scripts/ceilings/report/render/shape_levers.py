"""What shortens requests whose shapes change, in words: in short for a table, and in whole for the page of advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ceilings.report import text
from ceilings.report.analysis.measured import Measured, group_by
from ceilings.report.analysis.shape_advice import BUCKETS, NoLever, ShapeAdvice, shape_advice
from ceilings.report.render.prediction_section import factor
from ceilings.statistics.quantiles import Interval

GROUNDS = {
    "this cell": "It rests on this cell's records, process against process.",
    "other cells": "It rests on other cells of this device: what they gained is no bound of what this one gains.",
}


def shape_levers(measured: Measured) -> str:
    """The section of all levers; empty where no shapes change."""
    advice = shape_advice(measured)
    if not advice:
        return ""
    lines = [
        "## Requests whose shapes change",
        "Of each cell what shortens its mean latency over the sequence, the largest gain first. All numbers are of "
        "measured pairs, with intervals of 95%; nothing is modelled.",
    ]
    for (name, device), members in group_by(advice, lambda one: (one.cell.name, one.cell.panel[0])).items():
        lines.append(f"### {name} on `{device}`")
        lines.append("\n".join(_entry(number, one) for number, one in enumerate(members, 1)))
        lines += [f"```yaml\n{one.snippet}```" for one in members if isinstance(one, ShapeAdvice) and one.snippet]
    return "\n\n".join(lines)


def short(advice: Sequence[ShapeAdvice | NoLever]) -> str:
    """The first lever of a cell, for a table."""
    first = advice[0]
    if isinstance(first, NoLever):
        return "–"
    what = "pad to buckets" if first.lever == BUCKETS else first.lever
    expected = f"{text.number(first.estimate)}×" if first.estimate else f"{factor(first.factor)}"
    return f"{what}: {expected}" if first.ground == "this cell" else f"try {what}: {expected}"


def shape_levers_json(measured: Measured) -> list[dict[str, Any]]:
    """The levers for programs; a cell without one has none."""
    return [
        {
            "device": one.cell.panel[0],
            "cell": one.cell.identity,
            "lever": one.lever,
            "change": one.change,
            "factor": [round(end, 4) for end in one.factor],
            "estimate": one.estimate,
            "ground": one.ground,
            "because": one.because,
            "records": list(one.records),
            "snippet": one.snippet,
        }
        for one in shape_advice(measured)
        if isinstance(one, ShapeAdvice)
    ]


def _entry(number: int, one: ShapeAdvice | NoLever) -> str:
    if isinstance(one, NoLever):
        return f"Nothing: {one.because}."
    head = f"{number}. **{one.change[:1].upper()}{one.change[1:]}**: "
    if one.estimate is None:
        expected = f"expected {factor(one.factor)} the mean latency"
    else:
        expected = f"{text.interval(Interval(one.factor[0], one.estimate, one.factor[1]), '×')} the mean latency"
    return f"{head}{expected}; {one.because}. {GROUNDS[one.ground]}"
