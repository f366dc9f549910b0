"""For each model and device: which change would move its best cell most, how far, why, and what would test it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import yaml

from ceilings.report import text
from ceilings.report.analysis.changes import BATCH, PRECISION, STACK, Change, Place, change_between
from ceilings.report.analysis.findings.finding import more_processes
from ceilings.report.analysis.forecast import Forecast, Ground, forecast
from ceilings.report.analysis.machine import UNKNOWN, Machine
from ceilings.report.analysis.measured import Cell, Measured, phase_of, without_axis
from ceilings.report.analysis.stack_levers import takes
from ceilings.runtimes.catalogue import AUTOTUNING, COMPILATION, FUSION, GRAPH, OPERATOR, PRECISIONS, RUNTIMES
from ceilings.workload.shape import Shape

NOTHING = "nothing"
"""The lever of the advice where no change is worth measuring."""

NOTHING_LEFT = "nothing left that this study can see: next change the model or the hardware"

TOO_NOISY = "end other work on this machine and measure again, noise hides what is left"

PROCESSES = "processes"
"""The lever of the advice where noise hides which of two measured cells is the faster."""

MOST = 3
"""Pieces of advice for a model and device."""

MOST_NOISE = 0.25
"""A noise floor counts as no more: one of several times would hide every change for good."""

WORTH = 0.97
"""A change whose middle is above this, after the noise floor, is not worth measuring."""

HOPED = 0.25
"""Bounds that allow more than 4 times are no reason to expect it: they would rank first what is known least."""

FEARED = 2.0
"""Nor is a loss beyond that a reason not to try: what is slower is not deployed."""

BATCHES, LARGEST_BATCH = 4, 256
"""How many times larger the next batch is, and the largest."""

WORDS = {
    GRAPH: "capture the iteration in a CUDA graph",
    FUSION: "fuse attention, normalisation and activations into single operators",
    COMPILATION: "compile the model with torch.compile",
    AUTOTUNING: "choose the kernels by timing them (max-autotune)",
}


@dataclass(frozen=True)
class Advice:
    """One change to try.

    Attributes:
        cell: The measured cell that the change starts from: the lowest latency of the model and device; for a batch,
            the lowest latency per inference.
        lever: Name of a lever of the catalogue, a precision, ``batch``, ``stack``, ``processes``, or ``nothing``.
        change: What to do, in words.
        short: The same in a few words, for a table.
        factor: (low, high) of the ratio latency after / before; below 1 is faster. Per inference for a batch.
        because: One sentence with its number.
        ground: What the range rests on: ``bounds``, ``budget`` or ``neighbour``.
        evidence: Names of the measured cells that it rests on.
        snippet: The entry of a study that would measure it, as YAML.
        cells: What that measures, as ``runtime/model/precision/shape``; empty where nothing is to be measured.
        missing: What must be installed or had first, or "".
    """

    model: str
    device: str
    cell: Cell
    lever: str
    change: str
    short: str
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
    def hoped(self) -> float:
        """What it is ranked by: the middle; of bounds alone, as if they ended at ``HOPED`` and ``FEARED``."""
        low, high = self.factor
        return math.sqrt(max(low, HOPED) * min(high, FEARED)) if self.ground == "bounds" else self.middle

    @property
    def per_inference(self) -> bool:
        """Whether the ratio is of latencies over their batches."""
        return self.lever == BATCH

    @property
    def to_measure(self) -> bool:
        """Whether this machine can measure it as a new cell."""
        return bool(self.cells) and not self.missing and self.lever != PROCESSES


def advise(measured: Measured, machine: Machine = UNKNOWN) -> list[Advice]:
    """At most ``MOST`` pieces of advice a model and device, the largest expected gain first.

    What cannot run here comes after the rest, and before it what rests on bounds alone: bounds say what is possible,
    not what is likely.
    """
    return [advice for cells in measured.panels.values() for advice in _of_panel(measured, cells, machine)]


def best_cell(measured: Measured, cells: list[Cell]) -> Cell:
    """The lowest median at the common shape of the panel."""
    return min((cell for cell in cells if measured.is_common(cell)), key=lambda cell: cell.p50.estimate)


def _of_panel(measured: Measured, cells: list[Cell], machine: Machine) -> Iterator[Advice]:
    best = best_cell(measured, cells)
    candidates, hidden, noise = [], False, _noise(measured, best)
    for base, target in [*_other_runtimes(measured, best), *_larger_batch(measured, best, machine)]:
        range_ = forecast(measured, base, target)
        if range_ is None:
            continue
        middle = math.sqrt(range_.low * min(range_.high, FEARED))
        hidden = hidden or WORTH / (1 + noise) <= middle < WORTH
        if middle < WORTH / (1 + noise):
            candidates.append(_advice(base, target, range_, machine, measured))
    candidates.sort(key=lambda one: (bool(one.missing), one.ground == "bounds", one.hoped))
    unknown = [one for one in candidates if one.lever == STACK and one.ground == "bounds"]
    candidates = [
        one for one in candidates if one not in unknown[1:]
    ]  # of stacks that nobody measured here, one at a time
    candidates = (candidates + _undecided(measured, best, cells))[:MOST]
    yield from candidates or [_nothing(best, noise if hidden else 0.0)]


def _noise(measured: Measured, cell: Cell) -> float:
    """The noise floor, as far as it is known, and ``MOST_NOISE`` at most."""
    floor = measured.noise_floor(cell.device) or 0.0
    return min(floor, MOST_NOISE)


# --- what could be measured ------------------------------------------------------------------------------------------


def _other_runtimes(measured: Measured, best: Cell) -> Iterator[tuple[Cell, Place]]:
    """What is one lever, precision or stack away from the best cell and was never asked of it."""
    known = RUNTIMES.get(best.runtime)
    if known is None or best.precision not in PRECISIONS:
        return
    tried = _tried(measured, best, best.shape)
    stacks = {cell.stack for cell in measured.panels[best.device, best.model]}
    for spec in RUNTIMES.values():
        if spec.device != known.device or spec.engine != "static":
            continue
        if spec.stack != known.stack and (spec.stack in stacks or not _has_all_levers(spec.name)):
            continue  # of another stack only what makes the most of it, and only while nothing of it was measured
        for precision in spec.precisions:
            if not takes(spec, generating=best.phase is not None, precision=precision):
                continue
            # BF16 computes as fast as FP16: worth trying for its range, not for its speed.
            alike = precision == "bf16" and "fp16" in spec.precisions and precision != best.precision
            if (spec.name, precision) not in tried and not alike:
                yield best, Place(spec.name, precision, best.shape)


def _has_all_levers(runtime: str) -> bool:
    """Whether its stack has none with more levers. An operator of ours is a step within a stack, not a way into it."""
    spec = RUNTIMES[runtime]
    alike = (one for one in RUNTIMES.values() if one.stack == spec.stack and one.device == spec.device)
    return OPERATOR not in spec.levers and not any(
        spec.levers < one.levers for one in alike if OPERATOR not in one.levers
    )


def _larger_batch(measured: Measured, best: Cell, machine: Machine) -> Iterator[tuple[Cell, Place]]:
    """The next batch of the cell with the lowest latency per inference, of those that differ from the best in it."""
    if BATCH not in best.shape.axes or best.runtime not in RUNTIMES:
        return
    rest = without_axis(best.shape, BATCH)
    row = [cell for cell in measured.panels[best.device, best.model] if without_axis(cell.shape, BATCH) == rest]
    cheapest = min(row, key=lambda cell: cell.p50_per_inference.estimate)
    most = machine.largest.get((best.model, BATCH), LARGEST_BATCH)
    batch = min(cheapest.batch * BATCHES, most)
    larger = [cell.batch for cell in row if cell.configuration == cheapest.configuration and cell.batch >= batch]
    if batch > cheapest.batch and not larger and cheapest.runtime in RUNTIMES:
        shape = cheapest.shape.with_sizes(batch=batch)
        if cheapest.configuration not in _tried(measured, best, shape):
            yield cheapest, Place(cheapest.runtime, cheapest.precision, shape)


def _tried(measured: Measured, best: Cell, shape: Shape) -> set[tuple[str, str]]:
    """(runtime, precision) measured or failed at a shape, on the model and device of the best cell."""
    rows = measured.tables.planned
    here = rows[(rows["device"] == best.device) & (rows["model"] == best.model) & (rows["status"] != "unavailable")]
    here = here[here["shape"].astype(str) == str(shape)]
    return set(zip(here["runtime"], here["precision"], strict=True))


# --- words -----------------------------------------------------------------------------------------------------------


def _advice(base: Cell, target: Place, range_: Forecast, machine: Machine, measured: Measured) -> Advice:
    change = change_between(base, target)
    assert change is not None
    only = " (range from bounds only)" if range_.ground == "bounds" else ""
    return Advice(
        model=base.model,
        device=base.device,
        cell=base,
        lever=change.after if change.kind == PRECISION else change.kind,
        change=_words(change, target),
        short=_short(change, target),
        factor=(range_.low, range_.high),
        because=f"{range_.because[:1].upper()}{range_.because[1:]}{only}.",
        ground=range_.ground,
        evidence=tuple(cell.name for cell in range_.cells),
        snippet=snippet(base.model, target),
        cells=(f"{target.runtime}/{base.model}/{target.precision}/{target.shape}",),
        missing=_missing(base, target, machine, measured),
    )


def _missing(base: Cell, target: Place, machine: Machine, measured: Measured) -> str:
    if machine.devices and base.device not in machine.devices:
        return f"measure it on a machine with {base.device}"
    known = machine.lacking.get((target.runtime, base.model, target.precision))
    if known is not None or machine.devices:
        return known or ""
    return _reasons(measured).get((target.runtime, base.model, target.precision), "")


def _reasons(measured: Measured) -> dict[tuple[str, str, str], str]:
    """Why the study could not run what it asked for, with the remedy: by runtime, model and precision."""
    rows = measured.tables.planned
    rows = rows[rows["status"] == "unavailable"]
    keys = zip(rows["runtime"], rows["model"], rows["precision"], strict=True)
    reasons = ("; ".join(filter(pd.notna, pair)) for pair in zip(rows["reason"], rows["remedy"], strict=True))
    return dict(zip(keys, reasons, strict=True))


def _words(change: Change, target: Place) -> str:
    if change.kind == PRECISION:
        return f"run in {change.after.upper()} ({target.runtime})"
    if change.kind == BATCH:
        what = "requests" if phase_of(target.shape) else "inputs"
        return f"answer {target.shape.batch} {what} at once ({target.runtime} {target.precision})"
    if change.kind == STACK:
        return f"run on {target.runtime}"
    return f"{WORDS.get(change.kind, f'use {change.kind}')} ({target.runtime})"


def _short(change: Change, target: Place) -> str:
    if change.kind == PRECISION:
        return f"{change.after.upper()} ({target.runtime})"
    if change.kind == BATCH:
        return f"batch {target.shape.batch}"
    return target.runtime


def snippet(model: str, target: Place) -> str:
    """A sweep of a study with one cell."""
    parts = {"models": model, "runtimes": target.runtime, "precisions": target.precision, "shapes": str(target.shape)}
    sweep = {"sweeps": {"next": {key: [value] for key, value in parts.items()}}}
    return yaml.safe_dump(sweep, default_flow_style=None, sort_keys=False)


def _undecided(measured: Measured, best: Cell, cells: list[Cell]) -> list[Advice]:
    """Measured cells that may be the faster ones, if noise had not hidden it: the nearest."""
    others = [cell for cell in cells if cell.shape == best.shape and cell is not best]
    if not others:
        return []
    second = min(others, key=lambda cell: cell.p50.estimate)
    compared = measured.compare(second, best)
    if compared.verdict != "undecided" or compared.ratio.low > WORTH:
        return []
    processes = max(len(best.groups), len(second.groups))
    more = more_processes(processes)
    high = compared.ratio.high
    interval = text.interval(compared.ratio, "×")
    return [
        Advice(
            model=best.model,
            device=best.device,
            cell=best,
            lever=PROCESSES,
            change=f"measure {more} processes a cell: {second.label} may be the faster one",
            short=f"{more} processes a cell",
            factor=(max(compared.ratio.low, 0.02), high if math.isfinite(high) else 50.0),
            because=f"{second.label} has {interval} the latency of {best.label}: {_undecided_by(processes)}.",
            ground="bounds",
            evidence=(best.name, second.name),
            snippet=f"protocol:\n  processes: {more}\n",
            cells=tuple("/".join(cell.key[1:]) for cell in (best, second)),
        )
    ]


def _nothing(best: Cell, noise: float) -> Advice:
    """That no change is worth measuring; with the noise floor where only that hides one."""
    because = f"No change of the catalogue that was not measured is expected to be worth {1 - WORTH:.0%} here."
    if noise:
        counted = f" (it counts as {noise:.0%} at most)" if noise == MOST_NOISE else f", {noise:.0%}"
        because = f"Changes that are left are expected to be worth less than the noise{counted}."
    return Advice(
        model=best.model,
        device=best.device,
        cell=best,
        lever=NOTHING,
        change=TOO_NOISY if noise else NOTHING_LEFT,
        short="hidden by noise" if noise else "nothing left in this study",
        factor=(1.0, 1.0),
        because=because,
        ground="bounds",
        evidence=(best.name,),
        snippet="",
        cells=(),
    )


def _undecided_by(processes: int) -> str:
    return "one process does not decide" if processes == 1 else f"{processes} processes do not decide"
