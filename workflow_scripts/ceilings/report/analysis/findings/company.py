"""Co-location: where instances that share a device do more than taking turns, and where they only queue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.measure.colocation import CARDS
from ceilings.report import text
from ceilings.report.analysis.findings.finding import MARGIN, Finding, Status
from ceilings.report.analysis.measured import Measured
from ceilings.schemas.side_by_side import ALLOWED, FORBIDDEN, UNDECIDED
from ceilings.statistics.quantiles import Interval
from ceilings.statistics.separate_cards import APART

TOPIC = "Co-location"
CLAIM = "Instances that share a device do more than instances that take turns"
MEASURE = "throughput in company to throughput alone, summed over the instances"

IDLE = 0.7
"""Below this share of use alone, that of other processes included, what is idle then is named beside a gain."""


def company(measured: Measured) -> list[Finding]:
    """A finding a co-location: the gain of company over taking turns, held against what references differ by."""
    rows = [row for row in measured.tables.colocation.to_dict("records") if row["status"] == "ok"]
    return [_apart(row, measured) if row["how"] == CARDS else _finding(row, measured) for row in rows]


def sharing(row: Mapping[str, Any]) -> str:
    """How instances share their device, in words."""
    return text.SHARED_AS[row["how"]] + (", each on cores of its own" if row["cores"] == "split" else "")


UNDISTURBED = "Cells on separate cards of one host do not disturb each other"

VERDICTS: dict[str, tuple[Status, str]] = {
    ALLOWED: ("supported", f"that is within {APART:.0%}, so cells of these cards may run side by side"),
    FORBIDDEN: ("refuted", "so cells of these cards must take turns"),
    UNDECIDED: ("not decidable", "undecided: until that is known, cells of these cards take turns"),
}
"""Of the table's verdict what becomes of the claim, and what follows."""


def _apart(row: Mapping[str, Any], measured: Measured) -> Finding:
    """Whether busy cards of one host disturb each other, and what all of them do at once."""
    worst = _members(row, measured).sort_values("slowdown", ascending=False).iloc[0]
    status, follows = VERDICTS[row["side_by_side"]]
    bounded = not pd.isna(worst["slowdown_low"])
    low, high = (worst["slowdown_low"], worst["slowdown_high"]) if bounded else (0.0, math.inf)
    slowdown = Interval(low, worst["slowdown"], high)
    count = int(row["instances"])
    sentence = (
        f"{row['group']}, {sharing(row)}: while the others are busy, a request of {worst['model']} "
        f"({worst['runtime']}, {worst['precision']}, {worst['shape']}) takes **{text.interval(slowdown, '×')}** as "
        f"long as alone: {follows}. {text.plural(count, 'card')} at once do {text.number(row['together_per_s'])} "
        f"inferences/s, {text.number(row['gain'])}× what one does in the mean."
    )
    brief = {
        "supported": f"{row['group']}: {count} cards do {text.number(row['gain'])}× what one does, undisturbed.",
        "refuted": f"{row['group']}: a busy card beside it slows a request {text.number(worst['slowdown'])}×.",
    }
    processes = 2 * int(row["processes"]) if bounded else 3
    return Finding(
        TOPIC,
        sentence,
        (),
        slowdown if bounded else None,
        claim=UNDISTURBED,
        subject=f"{row['group']} on {row['device']}",
        status=status,
        missing=(f"protocol: {{processes: {processes}}}",) if status == "not decidable" else (),
        measure="time of a request beside busy cards to that alone",
        records=_records(row),
        brief=brief.get(status, ""),
    )


def _records(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (str(row["path"]).partition("results/")[2] or str(row["path"]),)


def _members(row: Mapping[str, Any], measured: Measured) -> pd.DataFrame:
    """The rows of its instances."""
    instances = measured.tables.colocated
    key = ["device", "group", "how", "cores"]
    return instances[(instances[key] == [row[name] for name in key]).all(axis=1)]


def _finding(row: Mapping[str, Any], measured: Measured) -> Finding:
    name = f"{row['group']}, {sharing(row)}"
    if measured.tables.colocation["device"].nunique() > 1:
        name += f", on {row['device']}"
    common: dict[str, Any] = {
        "claim": CLAIM,
        "subject": name,
        "measure": MEASURE,
        "records": _records(row),
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
    worst = _members(row, measured).sort_values("slowdown", ascending=False).iloc[0]
    return (
        f" A request of {worst['model']} ({worst['runtime']}, {worst['precision']}, {worst['shape']}) takes "
        f"{text.number(worst['slowdown'])}× as long as alone."
    )
