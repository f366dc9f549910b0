"""The measured part of the tables, ready for comparisons."""

from __future__ import annotations

import copy
import functools
import math
from collections import Counter
from collections.abc import Collection, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ceilings.report.analysis.measured_cell import (
    GENERATED,
    AAPair,
    Cell,
    Comparison,
    Groups,
    Judged,
    carries,
    configuration_label,
    equivalence,
    group_by,
    latency_ratio,
    phase_of,
    without_axis,
)
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.keys import KEY, axes_of, key_of, parsed_levers
from ceilings.runtimes.catalogue import PRECISIONS
from ceilings.statistics.decisions import within
from ceilings.statistics.estimands import P50, Estimand
from ceilings.statistics.intervals import contrast, log_contrast, noise_floor, ratio, verdict, widest_difference
from ceilings.statistics.levels import widened
from ceilings.statistics.quantiles import Interval
from ceilings.workload.shape import Shape

__all__ = [
    "Cell",
    "Comparison",
    "Groups",
    "Judged",
    "Measured",
    "carries",
    "configuration_label",
    "equivalence",
    "group_by",
    "growth_exponent",
    "latency_ratio",
    "most_swept",
    "phase_of",
    "without_axis",
]


class Measured:
    """Cells with latencies; the second of an A/A pair apart, since it serves nothing but the noise floor."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        groups = _groups(tables.samples)
        everything = [_cell(row, groups) for row in _records(tables.cells[tables.cells["status"] == "ok"])]
        self.cells = sorted((cell for cell in everything if cell.aa_of is None), key=_order)
        self._seconds = [cell for cell in everything if cell.aa_of is not None]
        self._by_key = {cell.key: cell for cell in self.cells}

    def without(self, gone: Collection[Cell]) -> Measured:
        """The same as if these cells had not been measured: to predict them. The tables stay as they are."""
        left = copy.copy(self)
        for name in ("panels", "common_shapes", "at_common_shape", "axes", "configurations", "_by_stack"):
            vars(left).pop(name, None)
        left.cells = [cell for cell in self.cells if cell not in gone]
        left._by_key = {cell.key: cell for cell in left.cells}
        left._budgets = {key: row for key, row in self._budgets.items() if key in left._by_key}
        return left

    # --- one cell ----------------------------------------------------------------------------------------------------

    def find(self, like: Cell, *, precision: str | None = None, shape: Shape | None = None) -> Cell | None:
        """The measured cell that differs from ``like`` in precision or shape alone."""
        key = (like.device, like.runtime, like.model, precision or like.precision, str(shape or like.shape))
        return self._by_key.get(key)

    def at(self, device: str, model: str, runtime: str, precision: str, shape: Shape) -> Cell | None:
        """The measured cell of these."""
        return self._by_key.get((device, runtime, model, precision, str(shape)))

    def planned_configurations(self, device: str, model: str) -> list[tuple[str, str]]:
        """(runtime, precision) of a panel, measured or not, in the order of the study."""
        planned = self.tables.planned
        rows = planned[(planned["device"] == device) & (planned["model"] == model)]
        return list(dict.fromkeys(zip(rows["runtime"], rows["precision"], strict=True)))

    def find_stack(self, like: Cell, stack: str, levers: Set[str], precision: str | None = None) -> Cell | None:
        """The measured cell of a stack with just these levers, on the device, model and shape of ``like``."""
        wanted = (like.device, like.model, precision or like.precision, like.shape, stack, frozenset(levers))
        return self._by_stack.get(wanted)

    @functools.cached_property
    def _by_stack(self) -> dict[tuple[Any, ...], Cell]:
        by_stack: dict[tuple[Any, ...], Cell] = {}
        for cell in self.cells:
            place = (cell.device, cell.model, cell.precision, cell.shape, cell.stack, cell.levers)
            by_stack.setdefault(place, cell)
        return by_stack

    def runs(self, cell: Cell) -> pd.DataFrame:
        """The rows of a cell's processes."""
        return self._runs.get(cell.key, self.tables.runs.iloc[:0])

    def series(self, cell: Cell, name: str) -> Groups:
        """Latencies in ns of another series (``latency_end_to_end``), one array a process; empty where not measured."""
        return self._series(name).get(cell.key, ())

    def budget(self, cell: Cell) -> dict[str, Any] | None:
        """The row of a cell's latency budget; None where it was not captured."""
        return self._budgets.get(cell.key)

    def counted_kernels(self, cell: Cell) -> list[dict[str, Any]]:
        """The rows of a cell's counted kernels, the longest first; none where they were not counted."""
        return self._counted.get(cell.key, [])

    def hardware_floor(self, cell: Cell) -> dict[str, Any] | None:
        """The row of a cell's hardware floor; None where its device's limits are not known."""
        return self._hardware_floors.get(cell.key)

    @functools.cached_property
    def _runs(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.tables.runs.groupby(KEY, observed=True, sort=False)))

    @functools.cache  # noqa: B019 - lives as long as the tables
    def _series(self, name: str) -> dict[tuple[Any, ...], Groups]:
        return _groups(self.tables.samples, name)

    @functools.cached_property
    def _budgets(self) -> dict[tuple[Any, ...], dict[str, Any]]:
        return {key_of(row): row for row in _records(self.tables.budgets)}

    @functools.cached_property
    def _counted(self) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
        return group_by(_records(self.tables.counted_kernels), key_of)

    @functools.cached_property
    def _hardware_floors(self) -> dict[tuple[Any, ...], dict[str, Any]]:
        return {key_of(row): row for row in _records(self.tables.floors)}

    # --- several -----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def panels(self) -> dict[tuple[str, str], list[Cell]]:
        """Cells by (device, model): latencies are compared within one of these, never across."""
        return group_by(self.cells, lambda cell: (cell.device, cell.model))

    @functools.cached_property
    def several_models(self) -> bool:
        """Whether the study has more than one model, measured or not: sentences then name the model."""
        return self.tables.cells["model"].nunique() > 1

    @functools.cached_property
    def common_shapes(self) -> dict[tuple[str, str], Shape]:
        """The shape that most cells of a panel were measured at; of several, where most sweeps cross."""
        return {panel: _common_shape(cells) for panel, cells in self.panels.items()}

    @functools.cached_property
    def at_common_shape(self) -> list[Cell]:
        """The cells at the common shape of their panel."""
        return [cell for cell in self.cells if self.is_common(cell)]

    def is_common(self, cell: Cell) -> bool:
        """Whether a cell is at the common shape of its panel."""
        return cell.shape == self.common_shapes[cell.device, cell.model]

    @functools.cached_property
    def axes(self) -> tuple[str, ...]:
        """Every axis that a measured shape has, in the order of names of shapes."""
        return axes_of(cell.shape for cell in self.cells)

    @property
    def swept_axes(self) -> tuple[str, ...]:
        """The axes along which sizes are compared: all but the number of generated tokens."""
        return tuple(axis for axis in self.axes if axis != GENERATED)

    @functools.cached_property
    def configurations(self) -> list[tuple[str, str]]:
        """All (runtime, precision), in one order for every picture."""
        return sorted(
            {cell.configuration for cell in self.cells}, key=lambda pair: (pair[0], _precision_order(pair[1]))
        )

    @functools.cached_property
    def aa_pairs(self) -> list[AAPair]:
        """Cells that were measured twice."""
        pairs = []
        for second in self._seconds:
            cell = self._by_key.get((second.device, str(second.aa_of), *second.key[2:]))
            if cell is not None:
                factor = ratio(cell.groups, second.groups)
                pairs.append(AAPair(cell, second, factor, widest_difference(factor)))
        return pairs

    def noise_floor(self, device: str, estimand: Estimand = P50) -> float | None:
        """The widest noise floor of the device's A/A pairs; None where no pair carries the estimand."""
        return self._floors(estimand).get(device)

    @functools.cache  # noqa: B019
    def _floors(self, estimand: Estimand) -> dict[str, float]:
        floors: dict[str, float] = {}
        for pair in self.aa_pairs:
            if carries(pair.cell.groups, estimand) and carries(pair.second.groups, estimand):
                both = (pair.cell.groups, pair.second.groups)
                floor = pair.floor if estimand is P50 else noise_floor(*both, estimand=estimand)
                floors[pair.cell.device] = max(floor, floors.get(pair.cell.device, 0.0))
        return floors

    def compare(self, a: Cell, b: Cell) -> Comparison:
        """Latencies of two cells of one device.

        Without an A/A pair on the device the interval alone decides; the findings say that the pair is missing. Where
        processes changed their level, the interval covers the ratio at either level, so a change decides nothing.
        """
        key = (a.key, b.key)
        if key not in self._compared:
            self._compared[key] = self._compared_by(a, b, latency_ratio(a, b))
        return self._compared[key]

    def compare_per_inference(self, a: Cell, b: Cell) -> Comparison:
        """As ``compare``, for latency over batch."""
        return self._compared_by(a, b, self.compare(a, b).ratio.scaled(b.batch / a.batch))

    def compare_by(self, estimand: Estimand, a: Cell, b: Cell) -> Comparison | None:
        """As ``compare``, for another estimand; None where the iterations do not carry it."""
        if estimand is P50:
            return self.compare(a, b)
        if not (carries(a.groups, estimand) and carries(b.groups, estimand)):
            return None
        factor = ratio(a.groups, b.groups, estimand=estimand)
        return Comparison(**vars(self.judge(a.device, factor, estimand)), a=a, b=b)

    def factor(self, cells: Sequence[Cell], weights: Sequence[float]) -> Judged:
        """A product of the cells' medians to the power of ``weights``, and whether it differs from 1.

        Each pair of cells in it may be off by the noise floor, so a ratio of ratios has it twice.
        """
        product = contrast([cell.groups for cell in cells], weights)
        product = widened(product, [cell.level_bounds for cell in cells], weights)
        return self.judge(cells[0].device, product, pairs=sum(map(abs, weights)) / 2)

    def equivalent(self, a: Cell, b: Cell, margin: float, estimand: Estimand = P50) -> bool:
        """Whether a and b are the same within ``margin``, which must not be finer than the noise floor."""
        if not (carries(a.groups, estimand) and carries(b.groups, estimand)):
            return False
        if (self.noise_floor(a.device, estimand) or 0.0) > margin:
            return False
        return within(equivalence(a, b, estimand), margin)

    def judge(self, device: str, factor: Interval, estimand: Estimand = P50, pairs: float = 1.0) -> Judged:
        """The verdict on a factor in which so many pairs of cells of a device may be off by the noise floor."""
        floor = self.noise_floor(device, estimand)
        if floor is not None:
            floor = math.expm1(math.log1p(floor) * pairs)
        return Judged(factor, verdict(factor, floor or 0.0), floor)

    def _compared_by(self, a: Cell, b: Cell, factor: Interval) -> Comparison:
        return Comparison(**vars(self.judge(a.device, factor)), a=a, b=b)

    @functools.cached_property
    def _compared(self) -> dict[tuple[Any, Any], Comparison]:
        return {}


def most_swept(cells: list[Cell], axis: str) -> Shape:
    """The rest of the shape at which the most sizes along an axis were measured; of several, the smallest.

    Of a generating model that of decode steps, if several sizes of them were measured.
    """
    counts = Counter(without_axis(shape, axis) for shape in {cell.shape for cell in cells})
    several = max(counts.values()) > 1
    return min(
        counts, key=lambda rest: (counts[rest] < 2 and several, phase_of(rest) == "prefill", -counts[rest], rest)
    )


def growth_exponent(cells: Sequence[Cell], sizes: Sequence[int]) -> Interval:
    """The exponent e of latency ~ size^e by least squares on the log medians, with its interval (may be negative)."""
    x = np.log(np.asarray(sizes, dtype=np.float64))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    return log_contrast([cell.groups for cell in cells], weights.tolist())


def _precision_order(precision: str) -> int:
    return PRECISIONS.index(precision) if precision in PRECISIONS else len(PRECISIONS)


def _order(cell: Cell) -> tuple[Any, ...]:
    return cell.device, cell.model, cell.runtime, _precision_order(cell.precision), cell.precision, cell.shape


def _common_shape(cells: Sequence[Cell]) -> Shape:
    """Of a generating model a decode step where there is one: of a request that is what is repeated."""
    decoding = [cell for cell in cells if cell.phase == "decode"]
    cells = decoding or cells
    shapes = Counter(cell.shape for cell in cells)
    sizes = Counter(item for cell in cells for item in cell.shape.sizes)
    return min(shapes, key=lambda shape: (-shapes[shape], -sum(sizes[item] for item in shape.sizes), shape))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    if frame.empty:
        return []
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _groups(samples: pd.DataFrame, series: str = "latency") -> dict[tuple[Any, ...], Groups]:
    latency = samples[samples["series"] == series]
    by_cell: dict[tuple[Any, ...], list[NDArray[np.int64]]] = {}
    for key, values in latency.groupby([*KEY, "run"], observed=True, sort=False)["latency_ns"]:
        by_cell.setdefault(tuple(key)[:-1], []).append(values.to_numpy())  # type: ignore[arg-type]
    return {key: tuple(groups) for key, groups in by_cell.items()}


def _cell(row: dict[str, Any], groups: dict[tuple[Any, ...], Groups]) -> Cell:
    return Cell(
        device=row["device"],
        runtime=row["runtime"],
        model=row["model"],
        precision=row["precision"],
        shape=Shape.parse(row["shape"]),
        stack=row["stack"],
        levers=parsed_levers(row["levers"]),
        artifact=row["artifact"],
        aa_of=row["aa_of"] if isinstance(row["aa_of"], str) and row["aa_of"] else None,
        row=row,
        groups=groups[key_of(row)],
    )
