"""For each model and device: which change would move its best cell most, how far, why, and what would test it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from ceilings.report.analysis.forecast import BATCH, STACK, Change, Forecast, Ground, Place, change_between, forecast
from ceilings.report.analysis.measured import Cell, Measured, without_axis
from ceilings.runtimes.catalogue import (
    AUTOTUNING,
    COMPILATION,
    FUSION,
    GRAPH,
    IO_BINDING,
    PRECISIONS,
    RUNTIMES,
    STATIC,
)

NOTHING = "nothing"
"""The lever of the advice where no change is worth its measuring."""

NOTHING_LEFT = "nothing left that this study can see: next change the model or the hardware"

MORE_PROCESSES = "processes"
"""The lever of the advice where noise hides whether a measured cell is the better one."""

MOST = 3
"""Pieces of advice for a model and device."""

WORTH = 0.97
"""A change whose middle is above this is not worth its measuring."""

BATCHES = 4
"""How many times larger the next batch is."""

LARGEST_BATCH = 256

WORDS = {
    GRAPH: "capture the iteration in a CUDA graph",
    FUSION: "fuse attention, normalisation and activations into single operators",
    COMPILATION: "compile the model with torch.compile",
    AUTOTUNING: "choose the kernels by timing them (max-autotune)",
    IO_BINDING: "bind inputs and outputs on the device",
    STATIC: "fix the axes of the graph",
}

Unavailable = Mapping[tuple[str, str, str], tuple[str, str]]
"""(runtime, model, precision) to the reason and the remedy, of what cannot run on this machine."""


@dataclass(frozen=True)
class Advice:
    """One change to try.

    Attributes:
        cell: The best measured cell of the model and device, which the change starts from.
        lever: Name of a lever of the catalogue, a precision, ``batch``, ``stack``, ``processes``, or ``nothing``.
        change: What to do, in words.
        factor: (low, high) of the ratio latency after / before; below 1 is faster. Per inference for a batch.
        because: One sentence with its number.
        ground: What the range rests on: ``bounds``, ``budget`` or ``neighbour``.
        evidence: Names of the measured cells that it rests on.
        snippet: The entry of a study that would measure it, as YAML.
        cells: What that measures, as ``runtime/model/precision/shape``; empty where there is nothing to measure.
        missing: What must be installed first, or "".
    """

    model: str
    device: str
    cell: Cell
    lever: str
    change: str
    factor: tuple[float, float]
    because: str
    ground: Ground
    evidence: tuple[str, ...]
    snippet: str
    cells: tuple[str, ...]
    missing: str = ""

    @property
    def middle(self) -> float:
        """Geometric middle of the range."""
        return math.sqrt(self.factor[0] * self.factor[1])

    @property
    def per_inference(self) -> bool:
        """Whether the ratio is of latencies over their batches."""
        return self.lever == BATCH


def advise(measured: Measured, unavailable: Unavailable | None = None) -> list[Advice]:
    """At most ``MOST`` pieces of advice a model and device, the largest expected gain first.

    Ranges that rest on bounds alone come after the others: they say what is possible, not what is likely.

    Args:
        unavailable: What cannot run on the machine that was measured; None: what the study itself could not run.
    """
    lacking = {**_not_run(measured), **(unavailable or {})}
    return [advice for cells in measured.panels.values() for advice in _of_panel(measured, cells, lacking)]


def best_cell(measured: Measured, cells: Iterable[Cell]) -> Cell:
    """The lowest median at the common shape of the panel."""
    return min((cell for cell in cells if measured.is_common(cell)), key=lambda cell: cell.p50.estimate)


def _of_panel(measured: Measured, cells: list[Cell], lacking: Unavailable) -> Iterator[Advice]:
    best = best_cell(measured, cells)
    if best.runtime not in RUNTIMES:
        return
    found = []
    for target in _targets(measured, best):
        range_ = _toward(measured, best, target)
        if range_ and range_.middle < WORTH / (1 + _noise(measured, best)) and range_.low < 1:
            found.append(_advice(best, target, range_, lacking))
    found.sort(key=lambda one: (bool(one.missing), one.ground == "bounds", one.middle))
    found = list({(one.lever, one.cells): one for one in found}.values())
    yield from found[:MOST] or [_nothing(measured, best)]


def _noise(measured: Measured, cell: Cell) -> float:
    floor = measured.noise_floor(cell.device) or 0.0
    return floor if math.isfinite(floor) else 0.0


# --- what could be measured ------------------------------------------------------------------------------------------


def _targets(measured: Measured, best: Cell) -> Iterator[Place]:
    """What is one change away from the best cell and was not measured; one for each change."""
    device = RUNTIMES[best.runtime].device
    tried = _tried(measured, best)
    for spec in RUNTIMES.values():
        if spec.device != device or spec.engine != "static":
            continue
        for precision in spec.precisions:
            place = Place(spec.name, precision, best.shape)
            if (spec.name, precision, str(best.shape)) not in tried and _lower(best, place):
                yield place
    larger = min(best.batch * BATCHES, LARGEST_BATCH)
    if BATCH in best.shape.axes and larger > best.batch:
        place = Place(best.runtime, best.precision, best.shape.with_sizes(batch=larger))
        if all(one.batch < larger for one in _row(measured, best)):
            yield place


def _lower(best: Cell, place: Place) -> bool:
    """Whether a target keeps the precision or lowers it."""
    if best.precision not in PRECISIONS:
        return False
    index = PRECISIONS.index
    if index(place.precision) < index(best.precision):
        return False
    # BF16 computes as fast as FP16: worth trying for its range, not for its speed.
    return place.precision == best.precision or place.precision != "bf16" or "fp16" not in place.spec.precisions


def _row(measured: Measured, best: Cell) -> list[Cell]:
    rest = without_axis(best.shape, BATCH)
    same = (cell for cell in measured.panels[best.device, best.model] if cell.configuration == best.configuration)
    return [cell for cell in same if without_axis(cell.shape, BATCH) == rest]


def _tried(measured: Measured, best: Cell) -> set[tuple[str, str, str]]:
    """What the study measured or saw fail on the panel of the best cell."""
    rows = measured.tables.planned
    here = rows[(rows["device"] == best.device) & (rows["model"] == best.model) & (rows["status"] != "unavailable")]
    return set(zip(here["runtime"], here["precision"], here["shape"].astype(str), strict=True))


def _not_run(measured: Measured) -> dict[tuple[str, str, str], tuple[str, str]]:
    rows = measured.tables.planned
    rows = rows[rows["status"] == "unavailable"]
    return {
        (row.runtime, row.model, row.precision): (str(row.reason), str(row.remedy) if pd.notna(row.remedy) else "")
        for row in rows.itertuples()
    }


def _toward(measured: Measured, best: Cell, target: Place) -> Forecast | None:
    """The range of the target's latency over the best cell's."""
    return forecast(measured, best, target)


# --- words -----------------------------------------------------------------------------------------------------------


def _advice(best: Cell, target: Place, range_: Forecast, lacking: Unavailable) -> Advice:
    change = change_between(best, target)
    assert change is not None
    reason, remedy = lacking.get((target.runtime, best.model, target.precision), ("", ""))
    missing = "; ".join(filter(None, (reason, remedy)))
    only = ", range from bounds only" if range_.ground == "bounds" else ""
    return Advice(
        model=best.model,
        device=best.device,
        cell=best,
        lever=change.after if change.kind == "precision" else change.kind,
        change=words_of(change, target),
        factor=(range_.low, range_.high),
        because=f"{range_.because[:1].upper()}{range_.because[1:]}{only}.",
        ground=range_.ground,
        evidence=tuple(cell.name for cell in range_.cells),
        snippet=snippet(best.model, target),
        cells=(f"{target.runtime}/{best.model}/{target.precision}/{target.shape}",),
        missing=missing,
    )


def words_of(change: Change, target: Place) -> str:
    """What to do."""
    if change.kind == "precision":
        return f"run in {change.after.upper()} ({target.runtime})"
    if change.kind == BATCH:
        return f"answer {target.shape.batch} inputs at once"
    if change.kind == STACK:
        return f"run on {target.runtime}"
    return f"{WORDS.get(change.kind, change.kind)} ({target.runtime})"


def snippet(model: str, target: Place) -> str:
    """A sweep of a study with one cell."""
    return (
        "sweeps:\n"
        "  next:\n"
        f"    models: [{model}]\n"
        f"    runtimes: [{target.runtime}]\n"
        f"    precisions: [{target.precision}]\n"
        f"    shapes: [{target.shape}]\n"
    )


def _nothing(measured: Measured, best: Cell) -> Advice:
    return Advice(
        model=best.model,
        device=best.device,
        cell=best,
        lever=NOTHING,
        change=NOTHING_LEFT,
        factor=(1.0, 1.0),
        because=f"No change that the catalogue knows is expected to be worth more than {1 - WORTH:.0%} here.",
        ground="bounds",
        evidence=(best.name,),
        snippet="",
        cells=(),
    )
