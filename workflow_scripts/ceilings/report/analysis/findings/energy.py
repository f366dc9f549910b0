"""What an inference costs in energy, and at which clocks it ran."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Finding, configuration, named, names, short, where
from ceilings.report.analysis.findings.selection import panels_at_common_shape, sweeps
from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.statistics.intervals import mean_over_processes
from ceilings.statistics.quantiles import Interval

TOPIC = "Energy and clocks"

BELOW_CLOCK = 0.97
"""A median SM clock below this share of the highest possible is mentioned."""

REGIMES = ("latency", "throughput")


def energy(measured: Measured) -> list[Finding]:
    """Energy an inference: least and most at the common shape, and along the batch.

    Energy is time times power, so a difference is given as both factors: whether a stack saves energy because it is
    done earlier or because it draws less.
    """
    findings = []
    for cells in panels_at_common_shape(measured):
        known = {cell: used for cell in cells if (used := joules(measured, cell))}
        if len(known) > 1:
            findings.append(_extremes(measured, known))
    longest = group_by(sweeps(measured, "batch"), lambda sweep: (sweep[0].device, sweep[0].model))
    for sweep in (
        min(members, key=lambda sweep: (-len(sweep), sweep[-1].p50.estimate)) for members in longest.values()
    ):
        known = {cell: used for cell in sweep if (used := joules(measured, cell))}
        if len(known) > 1:
            first, last = next(iter(known)), list(known)[-1]
            sentence = (
                f"{configuration(measured, first)}: {_used(known, first, measured)}; {_used(known, last, measured)}"
            )
            ends = sorted((known[first], known[last]), key=lambda used: used.estimate)
            sentence += _factors(known, last, first)
            sentence += "" if _apart(*ends) else ": no difference in energy is shown"
            findings.append(Finding(TOPIC, f"{sentence}.", names(known), known[last], measure="J", absolute=True))
    return findings


def _extremes(measured: Measured, known: dict[Cell, Interval]) -> Finding:
    """The least and the most energy, where their intervals lie apart, and which intervals reach the least."""
    least = min(known, key=lambda cell: known[cell].estimate)
    most = max(known, key=lambda cell: known[cell].estimate)
    if not _apart(known[least], known[most]):
        sentence = (
            f"{where(measured, least)}: no difference in energy is shown between {len(known)} configurations. The "
            f"estimates go from {_used(known, least, measured)} to {_used(known, most, measured)}."
        )
        return Finding(TOPIC, sentence, names(known))
    near = [cell.label for cell in known if cell is not least and not _apart(known[least], known[cell])]
    each = "a token" if least.phase else "an inference"
    sentence = f"{where(measured, least)}: the least energy {each} takes {_used(known, least, measured)}"
    sentence += f" ({text.cut(near, 3)} may take as little)" if near else ""
    sentence += f"; the most takes {_used(known, most, measured)}{_factors(known, least, most)}."
    factor = text.number(known[most].estimate / known[least].estimate)
    brief = f"{where(measured, least)}: {least.label} takes the least energy; {most.label} takes {factor}× as much."
    return Finding(TOPIC, sentence, names([least, most]), known[least], measure="J", absolute=True, brief=brief)


def _apart(less: Interval, more: Interval) -> bool:
    """Whether the interval of the smaller one ends below that of the larger one."""
    return less.high < more.low


def clocks(measured: Measured) -> list[Finding]:
    """Cells whose SM clock stayed below what the device can do, and why if NVML says so."""
    loops = [(cell, regime, clock(measured, cell, regime)) for cell in measured.cells for regime in REGIMES]
    low = [loop for loop in loops if loop[2]]
    if not low:
        return []
    shown = (f"{named(measured, cell)} {regime} {at}" for cell, regime, at in low)
    sentence = f"{len(low)} of the measured loops ran below {BELOW_CLOCK:.0%} of the SM clock: {text.cut(shown)}."
    return [Finding(TOPIC, sentence, names(cell for cell, *_ in low))]


def clock(measured: Measured, cell: Cell, regime: str) -> str:
    """``1,740 of 1,980 MHz (SW power cap)`` where a loop ran below ``BELOW_CLOCK``; empty elsewhere, or unknown."""
    records = _records(measured, cell, "gpu")
    medians = [one[regime]["sm_mhz"]["median"] for one in records if (one.get(regime) or {}).get("sm_mhz")]
    highest = [one["max_sm_mhz"] for one in records if one.get("max_sm_mhz")]
    if not (medians and highest and min(medians) < BELOW_CLOCK * max(highest)):
        return ""
    why = sorted({name for one in records for name in ((one.get(regime) or {}).get("throttled") or {})})
    return f"{min(medians):,.0f} of {max(highest):,.0f} MHz{f' ({text.listed(why)})' if why else ''}"


def joules(measured: Measured, cell: Cell) -> Interval | None:
    """Energy of one inference in the closed loop; None unless every process knows it."""
    return _mean(measured, cell, "joules_per_inference")


def watts(measured: Measured, cell: Cell) -> Interval | None:
    """Mean power over the closed loop."""
    return _mean(measured, cell, "mean_watts")


def _mean(measured: Measured, cell: Cell, field: str) -> Interval | None:
    """The mean over the processes, within what their counters bound it by at least."""
    records = [record.get("latency") or {} for record in _records(measured, cell, "energy")]
    # The counter is refreshed slowly: a loop that it did not notice reads 0, which is no energy but none known.
    known = [float(value) for record in records if (value := record.get(field))]
    if not known or len(known) < len(records):
        return None
    mean = mean_over_processes(known)
    error = sum(value * record.get("uncertainty", 0.0) for value, record in zip(known, records, strict=True)) / len(
        known
    )
    return Interval(min(mean.low, mean.estimate - error), mean.estimate, max(mean.high, mean.estimate + error))


def _records(measured: Measured, cell: Cell, column: str) -> list[dict[str, Any]]:
    runs = measured.runs(cell)
    if column not in runs:
        return []
    return [json.loads(value) if pd.notna(value) else {} for value in runs[column]]


def _used(known: dict[Cell, Interval], cell: Cell, measured: Measured) -> str:
    power = watts(measured, cell)
    at = f" at {text.number(power.estimate)} W" if power else ""
    limits = [limit for record in _records(measured, cell, "gpu") if (limit := record.get("power_limit_w"))]
    if power and limits and power.estimate > max(limits):
        at += f" (above the limit of {max(limits):.0f} W, which acts on an average: a loop this short has few readings)"
    used = known[cell]
    shown = text.interval(used, "J") if used.estimate >= 0.1 else text.interval(used.scaled(1e3), "mJ")
    return f"{short(cell)}, {shown}{at}"


def _factors(known: dict[Cell, Interval], a: Cell, b: Cell) -> str:
    """How the two differ: energy = time x power, per inference."""
    whole = known[b].estimate / known[a].estimate
    time = b.p50_per_inference.estimate / a.p50_per_inference.estimate
    return f" ({text.number(whole)}× the energy: {text.number(time)}× the time, {text.number(whole / time)}× the power)"
