"""Co-location: where instances that share a device do more than taking turns, and where they only queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import MARGIN, Finding
from ceilings.report.analysis.measured import Measured
from ceilings.statistics.quantiles import Interval

TOPIC = "Co-location"
CLAIM = "Instances that share a device do more than instances that take turns."
MEASURE = "throughput in company to throughput alone, summed over the instances"

IDLE = 0.7
"""Below this share of use alone, that of other processes included, what is idle then is named beside a gain."""


def company(measured: Measured) -> list[Finding]:
    """A finding a co-location: the gain of company over taking turns, held against what references differ by."""
    rows = measured.tables.colocation.to_dict("records")
    return [_finding(row, measured) for row in rows if row["status"] == "ok"]


def sharing(row: Mapping[str, Any]) -> str:
    """How instances share their device, in words."""
    return text.SHARED_AS[row["how"]] + (", each on cores of its own" if row["cores"] == "split" else "")


def _finding(row: Mapping[str, Any], measured: Measured) -> Finding:
    name = f"{row['group']}, {sharing(row)}"
    if measured.tables.colocation["device"].nunique() > 1:
        name += f", on {row['device']}"
    common: dict[str, Any] = {
        "claim": CLAIM,
        "subject": name,
        "measure": MEASURE,
        "records": (str(row["path"]).partition("results/")[2] or str(row["path"]),),
    }
    if pd.isna(row["gain_low"]):
        sentence = f"{name}: together {text.number(row['gain'])}× what taking turns does; undecided, one process."
        common["missing"] = ("protocol: {processes: 3}",)
        return Finding(TOPIC, sentence, (), status="not decidable", **common)
    gain = Interval(row["gain_low"], row["gain"], row["gain_high"])
    shown, noise = text.interval(gain, "×"), float(row["noise"])
    if gain.low > 1 and gain.estimate > 1 + noise:
        sentence = (
            f"{name}: together {text.plural(int(row['instances']), 'instance')} do **{shown}** what taking turns does."
        )
        brief = f"{name}: together the instances do {text.number(gain.estimate)}× what taking turns does."
        return Finding(
            *(TOPIC, f"{sentence}{_idle(row)}{_slowed(row, measured)}", (), gain),
            status="supported",
            brief=brief,
            **common,
        )
    if gain.high < 1 and gain.estimate < 1 / (1 + noise):
        sentence = (
            f"{name}: in company the instances do **{shown}** what taking turns does: they cost each other more than "
            "their time."
        )
        brief = f"{name}: in company the instances do only {text.number(gain.estimate)}× what taking turns does."
        return Finding(
            *(TOPIC, f"{sentence}{_slowed(row, measured)}", (), gain), status="refuted", brief=brief, **common
        )
    if gain.low > 1 / (1 + MARGIN) and gain.high < 1 + MARGIN:
        sentence = f"{name}: the instances only queue: in company they do {shown} what taking turns does."
        return Finding(*(TOPIC, f"{sentence}{_slowed(row, measured)}", (), gain), status="refuted", **common)
    sentence = (
        f"{name}: undecided: in company the instances do {shown} what taking turns does, and references differ by up "
        f"to {text.percent(noise)}."
    )
    common["missing"] = (f"protocol: {{processes: {2 * int(row['processes'])}}}",)
    return Finding(*(TOPIC, sentence, (), gain), status="not decidable", **common)


def _idle(row: Mapping[str, Any]) -> str:
    """What one instance at work alone leaves idle, where that was measured and is much."""
    alone, together, others = row["use_alone"], row["use_together"], row["use_others"]
    busy = alone + (0 if pd.isna(others) else others)
    if pd.isna(busy) or pd.isna(together) or busy >= IDLE or together <= alone:
        return ""
    return (
        f" Alone an instance has {text.percent(alone)} in use ({row['use_of']}), so that there is room; together it is "
        f"{text.percent(together)}."
    )


def _slowed(row: Mapping[str, Any], measured: Measured) -> str:
    """Who pays most."""
    instances = measured.tables.colocated
    of = (instances[["device", "group", "how", "cores"]] == [row[k] for k in ("device", "group", "how", "cores")]).all(
        axis=1
    )
    worst = instances[of].sort_values("slowdown", ascending=False).iloc[0]
    return (
        f" A request of {worst['model']} ({worst['runtime']}, {worst['precision']}, {worst['shape']}) takes "
        f"{text.number(worst['slowdown'])}× as long as alone."
    )
