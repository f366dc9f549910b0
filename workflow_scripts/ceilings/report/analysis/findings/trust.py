"""How far to believe the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.bottleneck import Bound, bound
from ceilings.report.analysis.findings.finding import Finding, named, names, panel_of
from ceilings.report.analysis.findings.selection import on_gpu
from ceilings.report.analysis.measured import Cell, Measured, configuration_label, group_by
from ceilings.report.tables.keys import KEY


def noise(measured: Measured) -> list[Finding]:
    """The A/A pairs, and their absence."""
    findings = [
        Finding(
            "Noise",
            f"{named(measured, pair.cell)} on {pair.cell.device}, measured twice as an A/A pair: ratio "
            f"{text.interval(pair.ratio)}. {_floor(pair.floor)}",
            names((pair.cell, pair.second)),
            pair.ratio,
        )
        for pair in measured.aa_pairs
    ]
    for device in sorted({cell.device for cell in measured.cells}):
        if measured.noise_floor(device) is None:
            cell = next(cell for cell in measured.cells if cell.device == device)
            entry = f"noise_cells: [{cell.runtime}/{cell.model}/{cell.precision}/{cell.shape}]"
            sentence = (
                f"No A/A pair was measured on {device}, so its noise floor is unknown. Differences rest on their "
                f"intervals alone. Add `{entry}`."
            )
            findings.append(Finding("Noise", sentence, ()))
    return [*findings, *_spread(measured)]


def _floor(floor: float) -> str:
    if math.isfinite(floor):
        return f"The noise floor is **{text.noise(floor)}**: a smaller difference counts as none."
    return (
        "With one process each the noise floor is unknown, so no difference is shown. Set `protocol: {processes: 3}`."
    )


def _spread(measured: Measured) -> list[Finding]:
    """How much the processes of a cell differ, by what decides its latency: a quiet A/A pair knows of one kind only."""
    findings = []
    for members in group_by(filter(on_gpu, measured.cells), lambda cell: cell.device).values():
        several = [cell for cell in members if len(cell.groups) > 1 and pd.notna(cell.row["enqueue_p50_ms"])]
        kinds = group_by(several, lambda cell: bound(measured, cell))
        spreads = [
            f"{text.percent(median(cell.row['process_spread'] for cell in kinds[kind]))} in the median of "
            f"{len(kinds[kind])} {kind} cells"
            for kind in SPREAD_KINDS
            if kind in kinds
        ]
        if len(spreads) < 2:
            continue
        pairs = [pair for pair in measured.aa_pairs if pair.cell.device == members[0].device]
        note = ""
        if pairs and (kind := bound(measured, pairs[0].cell)) in SPREAD_KINDS:
            note = f" The A/A pair is {kind}; the intervals hold what other cells vary more."
        text_ = f"The slowest process of a cell takes longer than its fastest by {text.listed(spreads)}.{note}"
        findings.append(Finding("Noise", text_, names(cell for kind in SPREAD_KINDS for cell in kinds.get(kind, []))))
    return findings


SPREAD_KINDS: tuple[Bound, ...] = ("host-bound", "device-bound")


def warnings(measured: Measured) -> list[Finding]:
    """What a reader should hold against the numbers."""
    cells = measured.cells
    causes: list[tuple[str, Callable[[Cell], bool]]] = [
        ("rest on one process, so they have no interval", lambda cell: len(cell.groups) < 2),
        ("did not reach a steady state in the warm-up", lambda cell: cell.row["warmup_stable"] is False),
        ("stopped at the time limit before the asked precision", lambda cell: "cap" in str(cell.row["stop_reasons"])),
        (
            "have processes that differ by more than 10%",
            lambda cell: cell.row["process_spread"] > 0.1,
        ),
    ]
    findings = []
    for sentence, holds in causes:
        hit = [cell for cell in cells if holds(cell)]
        if hit:
            where = "" if len(hit) == len(cells) else f" ({text.cut((named(measured, cell) for cell in hit), 3)})"
            findings.append(
                Finding("Warnings", f"{len(hit)} of {len(cells)} measured cells {sentence}{where}.", names(hit))
            )
    flags = measured.tables.runs.loc[measured.tables.runs["flags"].fillna("") != "", [*KEY, "run", "flags"]]
    flags = flags.assign(flag=flags["flags"].str.split("; ")).explode("flag")
    # Two flags that differ by a number only are one kind: "used 35% of a core".
    flags["kind"] = flags["flag"].str.replace(r"\d+(\.\d+)?", "…", regex=True)
    for _, members in flags.groupby("kind", sort=True):
        hit_runs = (
            f"{panel_of(measured, row['model'], row['device'])}{configuration_label(row['runtime'], row['precision'])} "
            f"{row['shape']} run {row['run']}"
            for row in members.to_dict("records")
        )
        example = "" if len(members) == 1 else ", for example"
        sentence = (
            f"{text.plural(len(members), 'run')} flagged{example}: {members['flag'].iloc[0]} ({text.cut(hit_runs, 3)})."
        )
        findings.append(Finding("Warnings", sentence, ()))
    return findings
