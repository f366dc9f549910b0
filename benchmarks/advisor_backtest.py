#!/usr/bin/env python3
"""Hold the advisor against published studies: hide what it would advise, let it predict, compare with the measured.

A trial is a pair of measured cells that differ in one change. Three times something is hidden before the range is made:
the cell alone, all cells of its model that have the change, and all cells of the device that have it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))

from ceilings.report import text
from ceilings.report.analysis.changes import BATCH, PRECISION, STACK, Change, Place, change_between
from ceilings.report.analysis.forecast import Forecast, forecast
from ceilings.report.analysis.measured import Cell, Measured
from ceilings.report.analysis.outcomes import Outcome, outcome
from ceilings.report.tables.frames import Tables, read_tables
from ceilings.report.tables.keys import KEY
from ceilings.runtimes.catalogue import OPERATOR, RUNTIMES
from ceilings.statistics.quantiles import Interval

STUDIES = Path(__file__).parents[1] / "docs/studies"
PUBLISHED = {
    "H200": "nvidia-h200/tables",
    "H200, captured": "nvidia-h200/budgets/tables",
    "H100, towers": "nvidia-h100/openclip/tables",
    "H100, graphs": "nvidia-h100/openclip/graphs/tables",
    "CPU": "cpu-amd-epyc/tables",
}
"""The studies with published tables, by the name that the table of trials gives them."""

HIDDEN = ("cell", "model", "device")
"""What of the change is hidden: one cell, all of its model, all of its device."""


@dataclass(frozen=True)
class Trial:
    """One prediction, and what was measured."""

    study: str
    hidden: str
    change: Change
    before: Cell
    after: Cell
    forecast: Forecast
    measured: Interval
    outcome: Outcome

    @property
    def inside(self) -> bool:
        """Whether the estimate lies within the range."""
        return self.forecast.low <= self.measured.estimate <= self.forecast.high


def published(folder: Path) -> Tables:
    """The tables of a folder, of CSV too: there a process has one sample, its median."""
    if (folder / "samples.parquet").is_file():
        return read_tables(folder)
    read = {name: pd.read_csv(folder / f"{name}.csv") for name in ("cells", "runs")}
    runs = read["runs"][read["runs"]["status"] == "ok"]
    samples = runs[[*KEY, "run"]].assign(series="latency", latency_ns=(runs["p50_ms"] * 1e6).astype("int64"))
    beside = {name: pd.read_csv(folder / f"{name}.csv") for name in ("budgets", "floors") if _is_there(folder, name)}
    return Tables(**read, samples=samples, **beside)


def _is_there(folder: Path, name: str) -> bool:
    return (folder / f"{name}.csv").is_file()


def trials(study: str, tables: Tables) -> Iterator[Trial]:
    """Every pair of cells that differ in one change, under each way of hiding."""
    whole = Measured(tables)
    for cells in whole.panels.values():
        for before in cells:
            for after in cells:
                change = change_between(before, after)
                if change is None or (change.kind == STACK and not best_of_stack(after)):
                    continue
                for hidden in HIDDEN:
                    gone = [one for one in whole.cells if one is after or _hidden(one, after, change, hidden)]
                    left = whole.without(gone)
                    if before in gone or (change.kind == STACK and not _best(left, before)):
                        continue
                    place = Place(after.runtime, after.precision, after.shape)
                    range_ = forecast(left, before, place)
                    if range_ is not None:
                        compare = whole.compare_per_inference if change.kind == BATCH else whole.compare
                        judged = compare(after, before)
                        result = outcome((range_.low, range_.high), judged.ratio, judged.floor)
                        yield Trial(study, hidden, change, before, after, range_, judged.ratio, result)


def best_of_stack(cell: Cell) -> bool:
    """Whether no runtime of its stack has all its levers and more: the advisor proposes no other of another stack."""
    return not any(
        one.stack == cell.stack and cell.levers < one.levers and cell.precision in one.precisions
        for one in RUNTIMES.values()
        if OPERATOR not in one.levers
    )


def _best(left: Measured, cell: Cell) -> bool:
    """Whether nothing that is left on its panel is faster at its shape: the advisor starts from no other."""
    same = [one for one in left.panels[cell.device, cell.model] if one.shape == cell.shape]
    return min(same, key=lambda one: one.p50.estimate) is cell


def _hidden(one: Cell, after: Cell, change: Change, hidden: str) -> bool:
    if hidden == "cell" or one.device != after.device or (hidden == "model" and one.model != after.model):
        return False
    if change.kind == BATCH:
        return one.batch >= after.batch
    if change.kind == STACK:
        return one.stack == after.stack
    if change.kind == PRECISION:
        return one.precision == after.precision
    return change.kind in one.levers


def all_trials() -> list[Trial]:
    """Of every published study."""
    return [one for study, path in PUBLISHED.items() for one in trials(study, published(STUDIES / path))]


# --- tables ----------------------------------------------------------------------------------------------------------


def score(members: Sequence[Trial]) -> list[str]:
    """Trials, decided ones inside, estimates inside, median width and the median gain of the middle's distance."""
    hits = sum(one.outcome == "hit" for one in members)
    misses = sum(one.outcome == "miss" for one in members)
    inside = sum(one.inside for one in members)
    width = statistics.median(one.forecast.width for one in members)
    off = statistics.median(abs(math.log(one.measured.estimate / one.forecast.middle)) for one in members)
    return [
        str(len(members)),
        str(hits),
        str(misses),
        str(len(members) - hits - misses),
        f"{inside} ({inside / len(members):.0%})",
        f"{width:.2f}×",
        f"{math.exp(off):.2f}×",
    ]


HEADERS = ["trials", "hit", "miss", "undecided", "estimate inside", "width", "off by"]


def grouped(every: Sequence[Trial], *by: str) -> str:
    """A row for each group; ``by`` names what the groups differ in."""
    keys = {
        "study": lambda one: one.study,
        "hidden": lambda one: one.hidden,
        "ground": lambda one: one.forecast.ground,
        "change": lambda one: one.change.kind,
    }
    groups: dict[tuple[str, ...], list[Trial]] = {}
    for one in every:
        groups.setdefault(tuple(keys[name](one) for name in by), []).append(one)
    rows = [[*key, *score(members)] for key, members in sorted(groups.items())]
    return text.table(rows, [*by, *HEADERS], "l" * len(by) + "r" * len(HEADERS))


def missed(every: Sequence[Trial]) -> str:
    """Every miss."""
    rows = [
        [
            one.study,
            one.hidden,
            _name(one.change),
            f"{one.before.model} {one.before.label} {one.before.shape}",
            f"{one.after.label} {one.after.shape}",
            f"{one.forecast.low:.3g} to {one.forecast.high:.3g}",
            one.forecast.ground,
            text.interval(one.measured),
        ]
        for one in every
        if one.outcome == "miss"
    ]
    headers = ["study", "hidden", "change", "before", "after", "predicted", "ground", "measured"]
    return text.table(rows, headers, "l" * len(headers))


def _name(change: Change) -> str:
    return f"{change.kind} {change.before} to {change.after}" if change.after else change.kind


def tables(every: Sequence[Trial]) -> list[str]:
    """What docs/advisor.md shows."""
    return [
        grouped(every, "ground", "hidden"),
        grouped(every, "change", "hidden"),
        grouped(every, "study", "hidden"),
        missed(every),
    ]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("\n\n".join(tables(all_trials())))
