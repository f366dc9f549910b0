"""The section on what came of predictions."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ceilings.report import text
from ceilings.report.analysis.advice import Advice
from ceilings.report.analysis.change_bounds import LEAST
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.outcomes import Settled, settled

MOST_ROWS = 12


def predictions(plan: Mapping[str, Any], measured: Measured) -> str:
    """The section, with the newest predictions first; empty where none of the study's cells was predicted."""
    every = settled(measured, plan.get("predictions") or ())
    if not every:
        return ""
    rows = [
        [
            one.prediction["made"][:10],
            f"{one.prediction['model']}: {one.prediction['change']}",
            one.prediction["before"],
            factor(one.prediction["factor"]),
            one.prediction["ground"],
            text.interval(one.ratio, "×") if one.ratio else "n/a",
            f"**{one.outcome}**" if one.outcome == "miss" else one.outcome,
        ]
        for one in every[::-1][:MOST_ROWS]
    ]
    headers = ["made on", "change", "of", "predicted", "ground", "measured", "outcome"]
    return "\n\n".join(["## Predictions and what came", calibration(every), text.table(rows, headers, "lllllll")])


def calibration(every: Sequence[Settled]) -> str:
    """How many of the decided predictions were right."""
    counts = {name: sum(one.outcome == name for one in every) for name in ("hit", "miss", "undecided", "not measured")}
    decided = counts["hit"] + counts["miss"]
    open_ = [f"{text.plural(counts['undecided'], 'prediction')} too coarsely measured to say"] * (
        counts["undecided"] > 0
    )
    open_ += [f"{counts['not measured']} without a latency"] * (counts["not measured"] > 0)
    rest = f"; {text.listed(open_)}" if open_ else ""
    width = statistics.median(one.prediction["factor"][1] / one.prediction["factor"][0] for one in every)
    return (
        f"{counts['hit']} of {text.plural(decided, 'decided prediction')} inside the predicted range{rest}. The high "
        f"end of a range is {text.number(width)} times its low end (the median): a wide range is easily right. Each "
        "was recorded before its cell was measured. A hit: the whole measured interval lies within the range; a miss: "
        "none of it does, and it is off by more than the noise floor. Ratios are latency after / before, per inference "
        "where the batch changes."
    )


def factor(ends: Sequence[float]) -> str:
    """``0.25 to 0.78×``."""
    return f"{text.number(ends[0])} to {text.number(ends[1])}×"


def gain(one: Advice) -> str:
    """The range in words: ``1.2 to 4.0× faster``, ``between 1.1× slower and 2.1× faster``."""
    low, high = 1 / one.factor[1], 1 / one.factor[0]
    if high <= 1:
        return f"{text.number(1 / high)} to {text.number(1 / low)}× slower"
    if low >= 1:
        return f"{text.number(low)} to {text.number(high)}× faster"
    if one.factor[0] <= LEAST:
        return f"gain unknown; up to {text.number(1 / low)}× slower"
    return f"between {text.number(1 / low)}× slower and {text.number(high)}× faster"


def speedup(one: Advice) -> str:
    """The same in a few words, for a table: ``speed-up 1.2 to 4.0×``; of bounds alone ``speed-up at most 4.0×``."""
    low, high = 1 / one.factor[1], 1 / one.factor[0]
    if one.factor[0] <= LEAST:
        return "speed-up unknown"
    ends = f"at most {text.number(high)}×" if one.ground == "bounds" else f"{text.number(low)} to {text.number(high)}×"
    unit = " in tokens/s" if one.cell.phase else one.cell.per_unit
    return f"speed-up {ends}{unit if one.per_inference else ''}"
