"""What changes the conclusions that a reader may draw, one line each with what to do about it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings import Finding
from ceilings.report.analysis.findings.finding import processes_entry
from ceilings.report.analysis.findings.serving_noise import unmeasured
from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.report.analysis.narrow_products import float_only
from ceilings.report.analysis.served import ServedLoads
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.keys import KEY
from ceilings.statistics.levels import CHANGED
from ceilings.statistics.returning import Returning, returning
from ceilings.workload.generation import is_request

COARSE = 0.25
"""A noise floor from which on the pages alarm: levers are often worth less."""

MEASURE_AGAIN = "`snakemake --cores 1 results/summary.md -R measure_latency`"

SPREAD = 0.1
"""Processes of a cell that differ by more make its interval wide."""

BUSY = re.compile(r"(other processes used|the hypervisor took) (\d+)% of a core")
QUOTA = "the CPU quota ran out"
"""How flags of a busy machine begin."""


def alarms(measured: Measured) -> list[str]:
    """Of a device whose noise hides most differences, one line with what to do: it belongs above all numbers."""
    others = _others(measured)
    busy = f"; {others}" if others else ""
    return [
        f"**`{device}` is noisy**: one cell measured twice may differ by {text.noise(floor)}{busy}. End other work and "
        f"measure again: {MEASURE_AGAIN}."
        for device, floor in _coarse(measured).items()
    ]


def cautions(measured: Measured, findings: Sequence[Finding], evidence: Evidence) -> list[str]:
    """The lines beside the alarms, those that concern most of the numbers first."""
    return [
        *_busy(measured),
        *_busy_company(measured),
        *_noise(measured),
        *_noise_of_servers(measured),
        *_undecided(measured, findings),
        *_processes(measured),
        *_returning(measured),
        *_below_floor(measured),
        *_float_products(measured),
        *_captures(measured),
        *_weights(evidence),
        *_other_flags(measured),
        *_served(measured),
        *_colocated(measured),
        *_overlapped(measured),
    ]


def _flags(measured: Measured) -> list[list[str]]:
    """The flags of each run that has any."""
    return [str(flags).split("; ") for flags in measured.tables.runs["flags"].fillna("") if flags]


def _others(measured: Measured) -> str:
    """How much of the machine other processes and the hypervisor took; empty where that was little."""
    shares: dict[str, list[int]] = {}
    for flags in _flags(measured):
        for flag in flags:
            if match := BUSY.match(flag):
                shares.setdefault(match[1], []).append(int(match[2]))
    runs = len(measured.tables.runs)
    parts = [
        f"{who} up to {max(values)}% of a core in {len(values)} of {runs} processes" for who, values in shares.items()
    ]
    stopped = sum(any(flag.startswith(QUOTA) for flag in flags) for flags in _flags(measured))
    return text.listed([*parts, *([f"{QUOTA} in {stopped} of {runs} processes"] if stopped else [])])


def _busy(measured: Measured) -> list[str]:
    others = _others(measured)
    if not others or alarms(measured):
        return []
    return [f"**The machine was busy**: {others}. End other work and measure again: {MEASURE_AGAIN}."]


def _busy_company(measured: Measured) -> list[str]:
    """How many co-locations had other processes for company."""
    rows = [row for row in measured.tables.colocation.to_dict("records") if row["status"] == "ok"]
    disturbed = sum(any(map(BUSY.match, str(row["flags"]).split("; "))) for row in rows)
    if not disturbed:
        return []
    again = "`snakemake --cores 1 results/summary.md -R measure_colocation`"
    return [
        f"**{disturbed} of {text.plural(len(rows), 'co-location')} had other processes for company**: gains and "
        f"slowdowns hold what these cost. End other work and measure again: {again}."
    ]


def _coarse(measured: Measured) -> dict[str, float]:
    """Noise floors that are known and too high, by device."""
    floors = {device: measured.noise_floor(device) for device in sorted({cell.device for cell in measured.cells})}
    return {
        device: floor
        for device, floor in floors.items()
        if floor is not None and floor > COARSE and math.isfinite(floor)
    }


def _noise(measured: Measured) -> list[str]:
    lines = []
    for device in sorted({cell.device for cell in measured.cells}):
        floor = measured.noise_floor(device)
        if floor is None:
            cell = next(cell for cell in measured.cells if cell.device == device)
            entry = f"noise_cells: [{cell.runtime}/{cell.model}/{cell.precision}/{cell.shape}]"
            lines.append(f"The noise of `{device}` was not measured: add `{entry}`.")
        elif not math.isfinite(floor):
            lines.append(
                f"**One process a cell on `{device}`**: no difference can be shown. Set `protocol: {{processes: 3}}`."
            )
    return lines


def _noise_of_servers(measured: Measured) -> list[str]:
    missing = unmeasured(ServedLoads(measured)) if len(measured.tables.serving) else ()
    return [
        f"The noise between deployments on `{device}` was not measured: add `{entry}`." for device, entry in missing
    ]


def _undecided(measured: Measured, findings: Sequence[Finding]) -> list[str]:
    """All comparisons that decide nothing, in one line; captures and other cells that are missing are no noise."""
    unsure = [finding for finding in findings if finding.undecided_by_noise]
    if not unsure:
        return []
    floors = [floor for pair in measured.aa_pairs if math.isfinite(floor := pair.floor)]
    at = f": the A/A pair may differ by {text.noise(max(floors))}" if floors else ""
    more = processes_entry(measured.cells)
    return [
        f"{text.plural(len(unsure), 'comparison')} decide{'s' if len(unsure) == 1 else ''} nothing at this noise{at}. "
        f"`{more}` narrows the intervals."
    ]


def _host(measured: Measured, spread: Sequence[Cell]) -> str:
    """In how many cells the slower process had the slower host; empty where no process says."""
    factors = []
    for cell in spread:
        runs = measured.runs(cell)
        if "host_us" in runs and runs["host_us"].notna().all():
            slow, fast = runs.loc[runs["p50_ms"].idxmax()], runs.loc[runs["p50_ms"].idxmin()]
            factors.append(float(slow["host_us"] / fast["host_us"]))
    if not factors:
        return ""
    slower = [factor for factor in factors if factor >= 1 + CHANGED]
    if not slower:
        return " A thread of the host was as fast in the slow processes as in the fast ones: its speed is not why."
    return (
        f" In {len(slower)} of {len(factors)} the host was slower in the slow process too: fixed work took "
        f"{text.ratio(float(np.median(slower)))}× as long there."
    )


def _processes(measured: Measured) -> list[str]:
    cells = measured.cells
    every = len(cells)
    lines = []
    if single := [cell for cell in cells if len(cell.groups) < 2]:
        lines.append(f"{len(single)} of {every} cells have one process, so no interval.")
    if spread := [cell for cell in cells if cell.row["process_spread"] > SPREAD]:
        lines.append(
            f"{len(spread)} of {every} cells have processes that differ by more than {SPREAD:.0%}."
            f"{_host(measured, spread)}"
        )
    if unstable := [cell for cell in cells if cell.row["warmup_stable"] is False]:
        lines.append(f"{len(unstable)} of {every} cells did not reach a steady state in the warm-up.")
    if capped := [cell for cell in cells if "cap" in str(cell.row["stop_reasons"])]:
        lines.append(
            f"{len(capped)} of {every} cells stopped at the time limit before the asked precision: their intervals are "
            "wider. Raise `protocol.max_seconds`."
        )
    return lines


def _returning(measured: Measured) -> list[str]:
    """Cells of which every n-th iteration is slower, in all processes: a median hides it, and it is no steady state."""
    periodic: list[tuple[Cell, Returning]] = []
    for cell in measured.cells:
        if is_request(cell.shape):  # the steps of a request differ, and come again with each
            continue
        first = returning(cell.groups[0]) if cell.groups else None
        if first and all((one := returning(group)) and one.period == first.period for group in cell.groups[1:]):
            periodic.append((cell, first))
    if not periodic:
        return []
    (cell, turn), *_ = periodic
    shown = f"{cell.label}: one of {turn.period} takes {text.number(turn.ratio)} times the others"
    shown += ", for example" if len(periodic) > 1 else ""
    return [
        f"**{text.plural(len(periodic), 'cell')} with a slower iteration in a fixed turn** ({shown}): the p50 hides "
        "it. Inputs take turns too: compare `inputs.pool`."
    ]


def _below_floor(measured: Measured) -> list[str]:
    below = [cell for cell in measured.cells if (row := measured.hardware_floor(cell)) and row["gap"] < 1]
    if not below:
        return []
    return [
        f"**{text.plural(len(below), 'cell')} below the hardware floor** ({text.cut((c.label for c in below), 2)}): a "
        "limit was measured too low. Do not read the gaps of this device; measure `results/hosts/*/peaks.json` anew."
    ]


def _float_products(measured: Measured) -> list[str]:
    without = [cell for cell in measured.cells if float_only(cell)]
    lines = []
    for precision, cells in group_by(without, lambda cell: cell.precision.upper()).items():
        runtimes = text.cut(dict.fromkeys(cell.runtime for cell in cells), 3)
        lines.append(
            f"**{precision} of {runtimes} computes nothing in {precision}**: its latency is no {precision} latency."
        )
    return lines


def _captures(measured: Measured) -> list[str]:
    rows = measured.tables.budgets.to_dict("records")
    lines = []
    if unlike := [row for row in rows if pd.notna(row["irregular"]) and row["irregular"]]:
        lines.append(
            f"{len(unlike)} of {len(rows)} captures have iterations that are not alike, or prepare something in each: "
            "the lab note names what."
        )
    if unexplained := [row for row in rows if pd.notna(row["untraced_p50_ms"]) and pd.isna(row["replayed_ms"])]:
        lines.append(
            f"{len(unexplained)} of {len(rows)} captures could not be replayed: their bound is that of the recording."
        )
    return lines


def _weights(evidence: Evidence) -> list[str]:
    random = [model for model, record in evidence.weights.items() if record.get("source") == "random"]
    ids = [model for model, record in evidence.weights.items() if record.get("random_ids")]
    lines = []
    if random:
        lines.append(
            f"Weights of {text.listed(random)} are random: latencies are valid, accuracy and agreement mean nothing."
        )
    if ids:
        lines.append(f"Texts of {text.listed(ids)} are random token ids.")
    unusable = [model for model, record in evidence.weights.items() if record.get("status") == "failed"]
    lines += [
        f"**Weights of {model} cannot be used**: {evidence.weights[model]['failure']['message']}." for model in unusable
    ]
    return lines


def _other_flags(measured: Measured) -> list[str]:
    """Flags of another kind than a busy machine or an unsteady warm-up, a line a kind."""
    kinds: dict[str, list[str]] = {}
    for flags in _flags(measured):
        for flag in flags:
            if not BUSY.match(flag) and not flag.startswith((QUOTA, "warm-up ended")):
                kinds.setdefault(text.kind(flag), []).append(flag)
    return [f"{text.plural(len(same), 'process')} flagged: {text.example(same)}." for same in kinds.values()]


def _served(measured: Measured) -> list[str]:
    """Loads behind servers that carry no claim, and the kinds of what was noticed of them and of their servers."""
    rows = [row for row in measured.tables.serving.to_dict("records") if row["status"] == "ok"]
    lines = []
    if disturbed := sum(bool(row["flagged"]) for row in rows):
        lines.append(
            f"**{disturbed} of {len(rows)} loads behind servers were disturbed**: no finding rests on them. Mend what "
            f"the lines below say and measure again: `snakemake --cores 1 results/summary.md -R measure_serving`."
        )
    return lines + _kinds(rows, "load", " behind servers")


def _colocated(measured: Measured) -> list[str]:
    """The kinds of what was noticed of co-locations."""
    rows = [row for row in measured.tables.colocation.to_dict("records") if row["status"] == "ok"]
    return _kinds(rows, "co-location")


def _overlapped(measured: Measured) -> list[str]:
    """The kinds of what was noticed of cells whose copies run beside their compute."""
    rows = measured.tables.overlap
    return _kinds(
        rows[rows["status"] == "ok"].drop_duplicates(KEY).to_dict("records"), "cell", ", copies beside compute"
    )


def _kinds(rows: Sequence[Mapping[str, Any]], noun: str, where: str = "") -> list[str]:
    """A line for each kind of flag of a table's rows: how many have it, and one of them."""
    noticed = [str(row["flags"]).split("; ") for row in rows if isinstance(row["flags"], str) and row["flags"]]
    kinds: dict[str, dict[int, str]] = {}  # by kind the rows, each with the first flag of it
    for row, flags in enumerate(noticed):
        for flag in flags:
            # How often it was, in brackets at the end, is another number in each row.
            what = re.sub(r" \(\d+ of \d+ \w+\)$", "", flag)
            kinds.setdefault(text.kind(what.removesuffix(text.EXAMPLE)), {}).setdefault(row, what)
    return [f"{text.plural(len(same), noun)}{where}: {text.example(list(same.values()))}." for same in kinds.values()]
