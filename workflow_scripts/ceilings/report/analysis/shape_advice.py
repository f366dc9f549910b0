"""For each cell of changing shapes: which lever shortens its requests, by how much, and what that rests on.

Every number is of measured pairs: of this cell, or of other cells of the device that had the same change. Nothing is
modelled.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import yaml

from ceilings.report import text
from ceilings.report.analysis.advice import MOST, WORTH
from ceilings.report.analysis.findings.finding import no_claim
from ceilings.report.analysis.measured import Judged, Measured
from ceilings.report.analysis.mixed_shapes import MixedCell, MixedShapes
from ceilings.statistics.quantiles import Interval
from ceilings.workload.padded import can_pad
from ceilings.workload.shape import Shape

Ground = Literal["this cell", "other cells"]

BUCKETS = "buckets"
"""The lever of padding; that of another runtime is the runtime's name."""

SEQUENCE = "sequence"
"""The axis that buckets are sizes of, unless a study says otherwise."""


@dataclass(frozen=True)
class ShapeAdvice:
    """One lever of a cell of changing shapes.

    Attributes:
        lever: ``BUCKETS``, or the runtime to change to.
        change: What to do, in words.
        factor: (low, high) of the ratio mean latency after / before over the sequence; below 1 is faster.
        estimate: The ratio as measured of this cell; None where only other cells have it.
        because: One sentence with its numbers.
        ground: Whose measurements it rests on.
        records: These, as paths below the results folder.
        snippet: The entries of a study that would measure it, as YAML; empty where it was measured.
    """

    cell: MixedCell
    lever: str
    change: str
    factor: tuple[float, float]
    estimate: float | None
    because: str
    ground: Ground
    records: tuple[str, ...]
    snippet: str = ""

    @property
    def middle(self) -> float:
        """What it is ranked by."""
        return self.estimate or math.sqrt(self.factor[0] * self.factor[1])


@dataclass(frozen=True)
class NoLever:
    """That no lever is known to shorten a cell's requests, and why."""

    cell: MixedCell
    because: str


def shape_advice(measured: Measured) -> list[ShapeAdvice | NoLever]:
    """At most ``MOST`` levers a cell: what was measured of it, the largest gain first, then what others gained."""
    mixed = MixedShapes(measured)
    return [one for cell in mixed.cells for one in _of_cell(mixed, cell)]


def _of_cell(mixed: MixedShapes, cell: MixedCell) -> list[ShapeAdvice | NoLever]:
    tried = list(_tried(mixed, cell))
    decided = [(one, judged) for one, judged in tried if judged.verdict == "faster"]
    levers = sorted((one for one, _ in decided), key=lambda one: one.middle)
    levers += sorted(_untried(mixed, cell), key=lambda one: one.middle)
    return list(levers[:MOST]) or [NoLever(cell, _why_none(tried))]


def _why_none(tried: list[tuple[ShapeAdvice, Judged]]) -> str:
    if not tried:
        return "no lever was measured of it, nor of another cell of this device"
    parts = [f"{one.change}: {no_claim(judged) if not judged.decided else 'slower'}" for one, judged in tried]
    shown = [f"{part} ({text.interval(judged.ratio, '×')})" for part, (_, judged) in zip(parts, tried, strict=True)]
    return f"no measured lever shortens it; {'; '.join(shown)}"


# --- measured of this cell -------------------------------------------------------------------------------------------


def _tried(mixed: MixedShapes, cell: MixedCell) -> Iterator[tuple[ShapeAdvice, Judged]]:
    """Padding, and the runtimes that answered the same requests at the same precision."""
    if padded := mixed.padding(cell):
        buckets = str(cell.row["bucket_shapes"]).split(";")
        because = (
            f"measured with its requests padded: {text.number(cell.row['padded_ms'])} instead of "
            f"{text.number(cell.row['sequence_ms'])} ms in the mean, shape tax {text.number(cell.row['padded_tax'])}× "
            f"instead of {text.number(cell.row['tax'])}×"
        )
        yield _measured(cell, BUCKETS, f"pad to {text.cut(buckets)}", padded.ratio, because), padded
    for other in mixed.workloads.get(cell.workload, []):
        if other is not cell and other.configuration[1] == cell.configuration[1]:
            judged = mixed.compare(other, cell)
            because = (
                f"measured with the same requests: {text.number(other.row['sequence_ms'])} instead of "
                f"{text.number(cell.row['sequence_ms'])} ms in the mean, shape tax {text.number(other.row['tax'])}× "
                f"instead of {text.number(cell.row['tax'])}×"
            )
            change = f"run on {other.configuration[0]}"
            made = _measured(cell, other.configuration[0], change, judged.ratio, because)
            yield dataclasses.replace(made, records=(cell.record, other.record)), judged


def _measured(cell: MixedCell, lever: str, change: str, ratio: Interval, because: str) -> ShapeAdvice:
    ends = (ratio.low, ratio.high)
    return ShapeAdvice(cell, lever, change, ends, ratio.estimate, because, "this cell", (cell.record,))


# --- measured of others ----------------------------------------------------------------------------------------------


def _untried(mixed: MixedShapes, cell: MixedCell) -> Iterator[ShapeAdvice]:
    """Levers that this cell lacks and its configuration had with other requests: their range, where it is a gain."""
    others = [one for one in mixed.cells if one.panel[0] == cell.panel[0] and one.workload != cell.workload]
    alike = [one for one in others if one.configuration == cell.configuration]
    if _could_pad(mixed, cell):
        pairs = [(one, judged) for one in alike if (judged := mixed.padding(one))]
        yield from _elsewhere(mixed, cell, BUCKETS, "pad to buckets", pairs)
    asked = mixed.measured.tables.changing
    here = asked[(asked[["device", "model", "sequence"]] == list(cell.workload)).all(axis=1)]
    known = set(zip(here["runtime"], here["precision"], strict=True))
    swaps: dict[str, list[tuple[MixedCell, Judged]]] = {}
    for one in alike:
        for other in mixed.workloads.get(one.workload, []):
            if other.configuration[1] == cell.configuration[1] and other.configuration not in known:
                swaps.setdefault(other.configuration[0], []).append((one, mixed.compare(other, one)))
    for runtime, pairs in swaps.items():
        yield from _elsewhere(mixed, cell, runtime, f"run on {runtime}", pairs)


def _could_pad(mixed: MixedShapes, cell: MixedCell) -> bool:
    """Whether nothing of it was padded, and its shapes differ along the axis of buckets."""
    untried = pd.isna(cell.row["predicted_ms"]) and pd.isna(cell.row["padded_reason"])
    return untried and can_pad([Shape.parse(name) for name in mixed.shapes(cell)["shape"]], SEQUENCE)


def _elsewhere(
    mixed: MixedShapes, cell: MixedCell, lever: str, change: str, pairs: list[tuple[MixedCell, Judged]]
) -> Iterator[ShapeAdvice]:
    """The advice to try a change, from what it brought elsewhere."""
    bounded = [(one, judged.ratio) for one, judged in pairs if judged.ratio.bounded]
    if not bounded:
        return
    low, high = min(ratio.low for _, ratio in bounded), max(ratio.high for _, ratio in bounded)
    floor = min(mixed.measured.noise_floor(cell.panel[0]) or 0.0, 0.25)
    if math.sqrt(low * high) >= WORTH / (1 + floor):
        return
    brought = "; ".join(f"{one.name} {text.interval(ratio, '×')}" for one, ratio in bounded[:MOST])
    because = f"not measured of it; on this device it brought {brought}"
    records = tuple(dict.fromkeys(one.record for one, _ in bounded))
    yield ShapeAdvice(
        cell, lever, change, (low, high), None, because, "other cells", records, _snippet(mixed, cell, lever)
    )


def _snippet(mixed: MixedShapes, cell: MixedCell, lever: str) -> str:
    """The entries that a study lacks; a list in it is to be added to the study's."""
    _, model, precision, sequence = cell.identity.split("/")
    if lever == BUCKETS:
        return "changing:\n  buckets: {most: 4}\n"
    content: dict[str, dict[str, Any]] = {"changing": {"cells": [f"{lever}/{model}/{precision}/{sequence}"]}}
    cells = mixed.measured.tables.cells
    swept = cells[(cells[["runtime", "model", "precision"]] == [lever, model, precision]).all(axis=1)]
    if swept.empty and cell.fixed is not None:
        parts = {"models": model, "runtimes": lever, "precisions": precision, "shapes": str(cell.fixed.shape)}
        content["sweeps"] = {"next": {key: [value] for key, value in parts.items()}}
    return yaml.safe_dump(content, default_flow_style=None, sort_keys=False)
