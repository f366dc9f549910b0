"""The page that proposes what to measure next: sentences, ranges, snippets, cells and the time they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ceilings.report import text
from ceilings.report.analysis.advice import NOTHING, PROCESSES, Advice, best_cell
from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.report.render.prediction_section import factor, gain, predictions
from ceilings.report.render.shape_levers import shape_levers
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.progress import duration, process_seconds

GROUNDS = {
    "bounds": "Bounds say what is possible, not what is likely.",
    "budget": "The range rests on this cell's budget: a capture says where its time goes.",
    "neighbour": "The range rests on the same change on other cells of this study, within the bounds of this one.",
}

RUN = "snakemake --cores 1 results/next.md --config next=run"


def next_page(plan: Mapping[str, Any], measured: Measured, advice: Sequence[Advice], *, planned: bool) -> str:
    """The page.

    Args:
        planned: Whether these predictions were recorded; else the page only looks ahead.
    """
    lines = ["# What to measure next", _head(plan, advice, planned=planned)]
    for (device, model), members in group_by(advice, lambda one: (one.device, one.model)).items():
        lines.append(f"## {model} on `{device}`")
        lines.append(_start(best_cell(measured, measured.panels[device, model])))
        lines += [_entry(number, one, plan) for number, one in enumerate(members, 1)]
    lines += [shape_levers(measured), predictions(plan, measured)]
    return "\n\n".join(line for line in lines if line) + "\n"


def _head(plan: Mapping[str, Any], advice: Sequence[Advice], *, planned: bool) -> str:
    cells = proposed(advice)
    if not cells:
        return "There is no cell that this machine could measure next."
    time = duration(sum(seconds(plan, one) for one in advice if one.to_measure))
    what = f"{text.plural(len(cells), 'cell')}, about {time} (graphs that must be made first are not counted)"
    if planned:
        return (
            f"Proposed: {what}. The ranges below are recorded in `results/predictions.json`. To measure these "
            f"cells, and nothing else that is up to date:\n\n```sh\n{RUN}\n```\n\n"
            "The summary then says how good the predictions were. `results/next.yaml` is a study of these cells and of "
            "those that they are compared with."
        )
    return (
        f"What could come next: {what}. These ranges are not recorded yet. The first command records them, and the "
        "second measures the cells:\n\n"
        f"```sh\nsnakemake --cores 1 results/next.md\n{RUN}\n```"
    )


def _start(best: Cell) -> str:
    return f"Best so far: `{best.label}` at {best.shape}, p50 {text.number(best.p50.estimate)} ms{best.per}."


def _entry(number: int, one: Advice, plan: Mapping[str, Any]) -> str:
    if one.lever == NOTHING:
        return f"**{one.change[:1].upper()}{one.change[1:]}.** {one.because}"
    quantity = f"latency{one.cell.per_unit}" if one.per_inference else "latency"
    lines = [f"### {number}. {one.change[:1].upper()}{one.change[1:]}"]
    if one.lever == PROCESSES:  # what noise leaves open is no gain to expect
        lines.append(one.because)
    else:
        lines.append(
            f"Expected: **{factor(one.factor)}** the {quantity} of `{one.cell.label}` at {one.cell.shape} "
            f"({gain(one)}). {one.because}"
        )
        lines.append(GROUNDS[one.ground])
    if one.missing:
        lines.append(f"**Not possible here yet**: {one.missing}.")
    elif one.lever == PROCESSES:
        lines.append("`next=run` does not do this, since it adds processes to every cell. Change the study:")
    else:
        lines.append(f"Measures `{one.cells[0]}`, about {duration(seconds(plan, one))}.")
    return "\n\n".join([*lines, f"```yaml\n{one.snippet}```"])


def proposed(advice: Sequence[Advice]) -> list[str]:
    """The cells that this machine can measure, as a study names them."""
    return list(dict.fromkeys(cell for one in advice if one.to_measure for cell in one.cells))


def seconds(plan: Mapping[str, Any], one: Advice) -> float:
    """About how long its processes take."""
    protocol, runtimes = plan["protocol"], [RUNTIMES[cell.split("/")[0]] for cell in one.cells]
    return sum(float(protocol["processes"]) * process_seconds(protocol, spec) for spec in runtimes)


def to_json(advice: Sequence[Advice]) -> list[dict[str, Any]]:
    """The advice as JSON, for programs."""
    return [
        {
            "model": one.model,
            "device": one.device,
            "before": "/".join(one.cell.key[1:]),
            "before_p50_ms": one.cell.p50.estimate,
            "lever": one.lever,
            "change": one.change,
            "factor": [round(end, 4) for end in one.factor],
            "per_inference": one.per_inference,
            "ground": one.ground,
            "because": one.because,
            "evidence": list(one.evidence),
            "cells": list(one.cells),
            "missing": one.missing,
            "snippet": one.snippet,
        }
        for one in advice
    ]


PREDICTED = ("model", "device", "before", "lever", "change", "factor", "per_inference", "ground", "because")
"""What a prediction takes over from the advice."""


def to_predict(advice: Sequence[Advice]) -> list[dict[str, Any]]:
    """The predictions of the cells that this machine can measure."""
    known = zip(advice, to_json(advice), strict=True)
    return [
        {"cell": cell, **{name: record[name] for name in PREDICTED}}
        for one, record in known
        if one.to_measure
        for cell in one.cells
    ]
