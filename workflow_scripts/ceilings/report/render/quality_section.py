"""The section of the summary on quality: accuracy where there are labels, agreement with FP32 where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis import quality_words as words
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.render.conditions import reference
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.quality_rows import LABELLED, METRICS

Row = Mapping[str, Any]

HEADERS = ["configuration", "metric", "value [95%]", "to FP32 [95%]", "p", "agreement", "rows", "truncated", "labels"]


def section(plan: Mapping[str, Any], tables: Tables) -> str:
    """The section; empty where nothing was evaluated."""
    rows = tables.quality.to_dict("records")
    if not rows:
        return ""
    lines = [
        "## Quality",
        "Each configuration's answers to the same rows. To FP32: its value minus the FP32 reference's, p by McNemar's "
        "exact test (of correlations Williams'). Agreement: share of answers equal to the reference's; of vectors, "
        "share of each row's ten nearest that are the reference's too. Intervals count rows. All in "
        "`tables/quality.csv`.",
        reference(plan),
    ]
    for (model, device), members in tables.quality.groupby(["model", "device"], sort=True):
        lines.append(f"### Quality of {model} on `{device}`")
        measured = [row for row in members.to_dict("records") if row["status"] == "ok"]
        if measured:
            lines.append(text.table([_row(row) for row in measured], HEADERS, "llrrrrrrl"))
            lines += _notes(str(model), measured)
        failed = [row for row in members.to_dict("records") if row["status"] != "ok"]
        lines += [
            f"- {configuration_label(row['runtime'], row['precision'])} was not evaluated: {row['reason']}."
            for row in failed
        ]
    return "\n\n".join(lines)


def _row(row: Row) -> list[Any]:
    metric = row["metric"]
    if metric in ("accuracy", "agreement"):
        value = words.share(row, "value", "low", "high")
    elif metric == "cosine":
        value = f"{row['cosine_median']:.6f} (lowest {row['cosine_min']:.6f})"
    else:
        value = words.decimal(row, "value", "low", "high")
    difference, p_value = "", ""
    if pd.notna(row["difference"]):
        ends = ("difference", "difference_low", "difference_high")
        difference = words.points(row) if metric == "accuracy" else words.decimal(row, *ends)
        p_value = words.probability(row["p_value"])
    agreement = next((name for name in ("agreement", "neighbour_overlap") if pd.notna(row[name])), None)
    return [
        configuration_label(row["runtime"], row["precision"]),
        metric,
        value,
        difference,
        p_value,
        words.share(row, agreement, f"{agreement}_low", f"{agreement}_high") if agreement else "",
        int(row["rows"]),
        int(row["truncated"]),
        f"{row['source']}, column {row['labels']}" if pd.notna(row["labels"]) else "none",
    ]


def _notes(model: str, rows: list[Row]) -> list[str]:
    used = dict.fromkeys(row["metric"] for row in rows)
    notes = [f"{text.listed(f'{name}: {METRICS[name]}' for name in used)}."]
    if not any(name in LABELLED for name in used):
        sources = text.listed(dict.fromkeys(str(row["source"]) for row in rows))
        notes.append(
            f"No labels (rows: {sources}), so this is agreement with the FP32 reference and no accuracy: a model that "
            "is wrong in FP32 may agree with itself."
        )
    if any(row["answers"] == 1 for row in rows):
        notes.append(f"> **Agreement of {model} shows little**: {words.ONE_ANSWER}.")
    if any(row["weights"] == "random" for row in rows):
        notes.append(
            f"> **The weights of {model} are random**: accuracy means nothing here, and agreement says little of a "
            "trained model, whose answers are further apart."
        )
    return notes
