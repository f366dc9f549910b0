"""Cells whose requests change their shapes, ready for comparisons: with each other, padded, and with one shape.

All of it compares mean latencies of a request. Process 1 of a cell runs in the same round as process 1 of another one,
so the processes are paired: each pair gives one ratio.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ceilings.report.analysis.measured import Cell, Judged, Measured, configuration_label, group_by
from ceilings.report.tables.changing_rows import CHANGING_KEY
from ceilings.statistics.estimands import MEAN
from ceilings.statistics.intervals import mean_over_processes
from ceilings.statistics.quantiles import Interval

Means = Mapping[int, float]
"""Mean latency of a request in ms, by the number of the process."""


@dataclass(frozen=True)
class MixedCell:
    """A measured cell of changing shapes.

    Attributes:
        row: Its row of the table.
        sequence: Means over the sequence.
        padded: The same with the requests padded to buckets; empty where that was not measured.
        fixed: The cell of the same configuration at the shape that most cells of its model share; None without one.
    """

    row: Mapping[str, Any] = field(repr=False)
    sequence: Means = field(repr=False)
    padded: Means = field(repr=False)
    fixed: Cell | None

    @property
    def panel(self) -> tuple[str, str]:
        """Device and model: latencies are compared within one."""
        return str(self.row["device"]), str(self.row["model"])

    @property
    def configuration(self) -> tuple[str, str]:
        """Runtime and precision."""
        return str(self.row["runtime"]), str(self.row["precision"])

    @property
    def label(self) -> str:
        """Runtime and precision in words."""
        return configuration_label(*self.configuration)

    @property
    def workload(self) -> tuple[str, str, str]:
        """Device, model and sequence: of cells that answer the same requests."""
        return (*self.panel, str(self.row["sequence"]))

    @property
    def name(self) -> str:
        """What it is, for a sentence."""
        return f"{self.label}, {self.row['model']}, {self.row['sequence']}"

    @property
    def identity(self) -> str:
        """As a study names it."""
        return "/".join(str(self.row[name]) for name in CHANGING_KEY[1:])

    @property
    def record(self) -> str:
        """Its first record, as a path below the results folder."""
        path = str(self.row["path"])
        return path.partition("results/")[2] or path

    @property
    def tax(self) -> Interval | None:
        """Its shape tax; None where one process bounds nothing."""
        return self._interval("tax")

    @property
    def change_cost(self) -> Interval | None:
        """How many times as long requests take after another shape as after their own; None where it is not known."""
        return self._interval("change_cost")

    @property
    def drift(self) -> float:
        """How far its steady latencies drift within a round, either way: a factor from 1 on."""
        ends = [self.row["drift_low"], self.row["drift_high"]]
        low, high = [self.row["drift"]] * 2 if any(map(pd.isna, ends)) else ends
        return max(float(high), 1 / float(low), 1.0)

    def _interval(self, name: str) -> Interval | None:
        if pd.isna(self.row[f"{name}_low"]):
            return None
        return Interval(self.row[f"{name}_low"], self.row[name], self.row[f"{name}_high"])


class MixedShapes:
    """The measured cells of changing shapes of a study."""

    def __init__(self, measured: Measured) -> None:
        self.measured = measured
        self._means: dict[tuple[Any, ...], dict[int, float]] = {}
        for row in measured.tables.changing_runs.to_dict("records"):
            key = (*(row[name] for name in CHANGING_KEY), bool(row["padded"]))
            self._means.setdefault(key, {})[int(row["run"])] = float(row["sequence_ms"])

    @functools.cached_property
    def cells(self) -> list[MixedCell]:
        """In the order of the table."""
        rows = self.measured.tables.changing.to_dict("records")
        return [self._cell(row) for row in rows if row["status"] == "ok"]

    @functools.cached_property
    def workloads(self) -> dict[tuple[str, str, str], list[MixedCell]]:
        """Cells that answer the same requests; none of tables from before there was a row a process."""
        return group_by([cell for cell in self.cells if cell.sequence], lambda cell: cell.workload)

    def published(self, cell: MixedCell) -> Judged | None:
        """The sequence over the fixed cell, whose latency a benchmark of one shape would publish."""
        fixed = self._fixed_means(cell)
        return self._judged(cell, [(cell.sequence, 1), (fixed, -1)], 1) if fixed and cell.sequence else None

    def dearest(self, cell: MixedCell) -> Mapping[str, Any] | None:
        """The pair of shapes that adds most to the mean of the sequence; None of tables from before that was there."""
        mine = self._of(cell, self.measured.tables.transitions)
        known = mine[mine["excess_ms"].notna()]
        return None if known.empty else known.sort_values("excess_ms").iloc[-1].to_dict()

    def shapes(self, cell: MixedCell) -> pd.DataFrame:
        """Its rows of the table of shapes, in the order of their first appearance."""
        return self._of(cell, self.measured.tables.changing_shapes)

    def compare(self, a: MixedCell, b: MixedCell) -> Judged:
        """Latency of ``a`` over that of ``b``, over the sequence."""
        return self._judged(a, [(a.sequence, 1), (b.sequence, -1)], 1)

    def at_one_shape(self, a: MixedCell, b: MixedCell) -> Judged | None:
        """The same at the shape of their fixed cells; None where they have none in common."""
        fixed = self._both_fixed(a, b)
        return self._judged(a, [(fixed[0], 1), (fixed[1], -1)], 1) if fixed else None

    def turned(self, a: MixedCell, b: MixedCell) -> Judged | None:
        """Their ratio over the sequence over their ratio at one shape; each may be off by the noise floor."""
        if (fixed := self._both_fixed(a, b)) is None:
            return None
        parts = [(a.sequence, 1), (b.sequence, -1), (fixed[0], -1), (fixed[1], 1)]
        return self._judged(a, parts, 2)

    def padding(self, cell: MixedCell) -> Judged | None:
        """The sequence with its requests padded to buckets over the sequence as it is; None where not measured."""
        return self._judged(cell, [(cell.padded, 1), (cell.sequence, -1)], 1) if cell.padded else None

    def _of(self, cell: MixedCell, table: pd.DataFrame) -> pd.DataFrame:
        return table[(table[CHANGING_KEY] == [cell.row[name] for name in CHANGING_KEY]).all(axis=1)]

    def _both_fixed(self, a: MixedCell, b: MixedCell) -> tuple[Means, Means] | None:
        fixed = self._fixed_means(a), self._fixed_means(b)
        same = a.fixed is not None and b.fixed is not None and a.fixed.shape == b.fixed.shape
        return fixed if same and all(fixed) else None

    def _fixed_means(self, cell: MixedCell) -> dict[int, float]:
        if cell.fixed is None:
            return {}
        rows = self.measured.runs(cell.fixed).to_dict("records")
        return {int(row["run"]): float(row["mean_ms"]) for row in rows if not pd.isna(row["mean_ms"])}

    def _judged(self, cell: MixedCell, parts: Sequence[tuple[Means, int]], pairs: float) -> Judged:
        """A product of means, one of each process that all parts have, and whether it differs from 1."""
        runs = sorted(set.intersection(*(set(means) for means, _ in parts)))
        if not runs:
            raise ValueError("the processes that are compared have no number in common")
        products = []
        for run in runs:
            product = 1.0
            for means, power in parts:
                product *= means[run] ** power
            products.append(product)
        return self.measured.judge(cell.panel[0], mean_over_processes(products), MEAN, pairs)

    def _cell(self, row: Mapping[str, Any]) -> MixedCell:
        key = tuple(row[name] for name in CHANGING_KEY)
        shape = self.measured.common_shapes.get((row["device"], row["model"]))
        fixed = shape and self.measured.at(row["device"], row["model"], row["runtime"], row["precision"], shape)
        return MixedCell(row, self._means.get((*key, False), {}), self._means.get((*key, True), {}), fixed or None)
