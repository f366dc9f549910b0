"""Cells as combinations of levers: what a configuration has, and which cells differ in one lever alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ceilings.report.analysis.measured import Cell, Judged, Measured
from ceilings.report.analysis.measured_cell import REFERENCE
from ceilings.report.analysis.stack_levers import base_levers
from ceilings.runtimes.catalogue import IO_BINDING
from ceilings.statistics.intervals import contrast

END_TO_END = "latency_end_to_end"


@dataclass(frozen=True)
class Recipe:
    """A stack, and the levers that are pulled on it (precision among them, unless FP32)."""

    stack: str
    levers: frozenset[str]


def recipe(cell: Cell) -> Recipe:
    """The stack and the levers of its runtime, and its precision."""
    precision = frozenset() if cell.precision == REFERENCE else frozenset({cell.precision.upper()})
    return Recipe(cell.stack, cell.levers | precision)


def distance(one: Recipe) -> int:
    """How many levers lie between a recipe and its stack as it is."""
    return len(one.levers ^ base_levers(one.stack))


@dataclass(frozen=True)
class Step(Judged):
    """Latency of a cell with a lever over that of one without it, which differs in nothing else."""

    lever: str
    without: Cell
    with_: Cell
    others: frozenset[str]


def steps(measured: Measured, cells: Sequence[Cell]) -> dict[str, list[Step]]:
    """Every pair of cells of one stack that differ in one lever; by lever, closest to the stack as it is first."""
    recipes = {recipe(cell): cell for cell in cells}
    by_lever: dict[str, list[Step]] = {}
    for one, cell in recipes.items():
        for lever in one.levers:
            base = recipes.get(Recipe(one.stack, one.levers - {lever}))
            if base is None:
                continue
            judged = _step(measured, lever, base, cell)
            if judged is not None:
                step = Step(judged.ratio, judged.verdict, judged.floor, lever, base, cell, one.levers - {lever})
                by_lever.setdefault(lever, []).append(step)
    return {
        lever: sorted(every, key=lambda step: (distance(recipe(step.with_)), sorted(step.others)))
        for lever, every in by_lever.items()
    }


def _step(measured: Measured, lever: str, base: Cell, cell: Cell) -> Judged | None:
    if lever != IO_BINDING:
        return measured.compare(cell, base)
    # Without it each call copies, so it is held against the series with copies.
    copied = measured.series(cell, END_TO_END)
    if not copied:
        return None
    return measured.judge(cell.device, contrast([copied, base.groups], [1.0, -1.0]))


@dataclass(frozen=True)
class Factorial:
    """All combinations of several levers on one stack.

    Attributes:
        cells: By the levers (of ``levers``) that each has.
    """

    levers: tuple[str, ...]
    cells: dict[frozenset[str], Cell]

    def effect(self, measured: Measured, *levers: str) -> Judged:
        """A lever's factor, averaged over the others on a log scale; of two, the factor of their interaction.

        The log-additive model: log latency is a sum of one term a lever, one a pair of levers and so on, each a
        contrast of all cells. An interaction is how many times the one's factor is with the other what it is without:
        above 1 each takes from the other's gain.
        """
        signs = [1 if sum(lever not in has for lever in levers) % 2 == 0 else -1 for has in self.cells]
        share = 2 ** (len(self.levers) - len(levers))
        return measured.factor(list(self.cells.values()), [sign / share for sign in signs])


def factorial(cells: Sequence[Cell]) -> Factorial | None:
    """The largest full factorial of two levers or more among the cells of one stack; None if there is none."""
    recipes = {recipe(cell).levers: cell for cell in cells}
    levers = sorted(frozenset().union(*recipes))
    for size in range(len(levers), 1, -1):
        for chosen in itertools.combinations(levers, size):
            if sum(lever in PRECISION_LEVERS for lever in chosen) > 1 or IO_BINDING in chosen:
                continue  # two precisions exclude each other; IO binding changes what is timed
            # What the cells have beside the chosen levers must be the same for all: the most common set.
            for fixed in sorted({has - set(chosen) for has in recipes}, key=lambda has: (-len(has), sorted(has))):
                combinations = [frozenset(part) for k in range(size + 1) for part in itertools.combinations(chosen, k)]
                if all(fixed | part in recipes for part in combinations):
                    return Factorial(chosen, {part: recipes[fixed | part] for part in combinations})
    return None


PRECISION_LEVERS = {"TF32", "FP16", "BF16", "INT8", "FP8"}
