"""What the sweeps of a study ask for: shapes of each model, and cells. Standard library only."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ceilings.errors import UserError
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.study_models import StudyModels
from ceilings.workload.shape import Shape

FULL = "full"
"""How sweeps call inputs that fill their rows."""

SHORTHANDS = {"batches": "batch", "sequences": "sequence"}
"""Keys of a sweep that give the sizes of one axis."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """One thing that a sweep asks for."""

    sweep: str
    runtime: str
    model: str
    precision: str
    shape: Shape

    @property
    def identity(self) -> str:
        """As a study names it: without its device."""
        return f"{self.runtime}/{self.model}/{self.precision}/{self.shape}"


def sizes(sweep: Mapping[str, Any]) -> dict[str, list[int]]:
    """The sizes that a sweep gives of each axis, its shorthands included; empty where it names shapes."""
    short = {axis: sweep[key] for key, axis in SHORTHANDS.items() if key in sweep}
    return {**sweep.get("axes", {}), **short}


def asked_shapes(sweep: Mapping[str, Any], axes: Sequence[str], fixed: Mapping[str, int]) -> list[Shape]:
    """The shapes that a sweep asks of a model.

    A model takes of a sweep the axes that it has; an axis of which it has one size only need not be given.

    Args:
        sweep: A sweep of the study.
        axes: The axes of the model.
        fixed: Its axes of one size only.

    Raises:
        UserError: The sweep says nothing of an axis of the model, or names no shape. Unlike everything else that a
            sweep may get wrong, that leaves nothing to check further.
    """
    if "shapes" in sweep:
        named = [Shape.parse(name) for name in sweep["shapes"]]
        given = [(dict(shape.sizes), shape.lengths) for shape in named]
    else:
        offered = sizes(sweep)
        known = [axis for axis in axes if axis in offered]
        lengths = ["" if name == FULL else name for name in sweep.get("lengths", [FULL])]
        products = itertools.product(lengths, *(offered[axis] for axis in known))
        given = [(dict(zip(known, values, strict=True)), name) for name, *values in products]
    shapes = []
    for offer, name in given:
        taken = {**fixed, **{axis: size for axis, size in offer.items() if axis in axes}}
        if missing := [axis for axis in axes if axis not in taken]:
            if "shapes" in sweep:
                one, all_axes = Shape.of(offer, name), Shape.of(dict.fromkeys(axes, 1))
                raise UserError(f"names the shape {one} without {' and '.join(missing)}; write shapes like {all_axes}")
            further = [axis for axis in missing if axis not in SHORTHANDS.values()]
            if len(further) > 1:
                wanted = ", ".join(f"{axis}: [SIZES]" for axis in further)
                raise UserError(f"says no size of the axes {' and '.join(map(repr, further))}; add axes: {{{wanted}}}")
            raise UserError(f"says no size of the axis {missing[0]!r}; add {_key(missing[0])}")
        # Without a sequence there is nothing to pad.
        shapes.append(Shape.of(taken, name if "sequence" in axes else ""))
    return list(dict.fromkeys(shapes))


def asked(config: Mapping[str, Any], models: StudyModels) -> Iterator[Asked]:
    """Every thing that the sweeps ask for; precisions that a runtime does not know are left out."""
    for name, sweep in config["sweeps"].items():
        for runtime in sweep["runtimes"]:
            for model in sweep["models"]:
                shapes = asked_shapes(sweep, models.outline(model).axes, models.fixed_axes(model))
                for precision in sweep["precisions"]:
                    if precision in RUNTIMES[runtime].precisions:
                        for shape in shapes:
                            yield Asked(name, runtime, model, precision, shape)


def left_out(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(runtime, precision) that a sweep names together and that the runtime does not have, each once."""
    pairs = {
        (runtime, precision): None
        for sweep in config["sweeps"].values()
        for runtime in sweep["runtimes"]
        for precision in sweep["precisions"]
        if precision not in RUNTIMES[runtime].precisions
    }
    return list(pairs)


def smallest_sizes(config: Mapping[str, Any], models: StudyModels, model: str) -> dict[str, int]:
    """The smallest size that any sweep asks of each axis of a model."""
    smallest: dict[str, int] = {}
    for sweep in config["sweeps"].values():
        if model in sweep["models"]:
            for shape in asked_shapes(sweep, models.outline(model).axes, models.fixed_axes(model)):
                for axis, size in shape.sizes:
                    smallest[axis] = min(size, smallest.get(axis, size))
    return smallest


def _key(axis: str) -> str:
    short = {axis: key for key, axis in SHORTHANDS.items()}
    return f"{short[axis]}: [SIZES]" if axis in short else f"axes: {{{axis}: [SIZES]}}"
