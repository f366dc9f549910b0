"""What a study asks for that cannot be, each with its place in the study and its remedy."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ceilings.errors import UserError
from ceilings.measure.catalogue import MEASUREMENTS
from ceilings.runtimes.catalogue import PRECISIONS, RUNTIMES
from ceilings.study import (
    batch_searches,
    changing_captures,
    changing_cells,
    colocations,
    deployments,
    overlaps,
    user_files,
)
from ceilings.study.config import SCHEMA, nearest, no_cell
from ceilings.study.engines import Engines
from ceilings.study.machines import unknown_resources
from ceilings.study.study_models import StudyModels
from ceilings.study.sweeps import FULL, SHORTHANDS, Asked, asked, asked_shapes, sizes
from ceilings.workload import generation
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS

LARGEST: int = SCHEMA["$defs"]["count"]["maximum"]
"""The largest size of an axis."""


def refuse_the_impossible(config: Mapping[str, Any], models: StudyModels, engines: Engines, results: str) -> None:
    """Raise UserError that names everything at once that a study asks for and cannot be."""
    problems = [
        *unknown_names(config),
        *impossible_protocol(config["protocol"]),
        *impossible_models(config, models),
        *impossible_sweeps(config),
    ]
    if not problems:
        problems = [*impossible_shapes(config, models)]
    if not problems:
        cells = list(asked(config, models))
        problems = [
            *unknown_noise_cells(config, cells),
            *unknown_baselines(config, cells),
            *unknown_traces(config, cells),
            *unknown_quality(config, models, cells),
            *changing_cells.problems(config, models, cells),
            *changing_captures.problems(config, cells),
            *batch_searches.problems(config, models, cells),
            *deployments.problems(config, models, cells),
            *colocations.problems(config, models, cells),
            *overlaps.problems(config, models, cells),
            *engines.problems((cell.sweep, RUNTIMES[cell.runtime], cell.model, cell.precision) for cell in cells),
            *user_files.problems(config, models, cells, results),
        ]
    if problems:
        raise UserError("the study asks for what cannot be:\n" + "\n".join(f"  {p}" for p in dict.fromkeys(problems)))


def unknown_names(config: Mapping[str, Any]) -> Iterator[str]:
    """Names of models, runtimes, precisions and measurements that nobody knows."""
    known: dict[str, Collection[str]] = {
        "models": list(config["models"]),
        "runtimes": RUNTIMES,
        "precisions": list(PRECISIONS),
    }
    for name, sweep in config["sweeps"].items():
        for key, names in known.items():
            for value in sweep[key]:
                if value not in names:
                    why = RUNTIMES.misnamed(value) if key == "runtimes" else None
                    yield f"sweeps.{name}.{key}: {value!r} {why or f'is unknown, {nearest(value, names)}'}"
        for runtime in sweep["runtimes"]:
            can = RUNTIMES[runtime].precisions if runtime in RUNTIMES else sweep["precisions"]
            if not set(can) & set(sweep["precisions"]) and set(sweep["precisions"]) <= set(PRECISIONS):
                yield (
                    f"sweeps.{name}.runtimes: {runtime!r} runs none of {', '.join(sweep['precisions'])}; "
                    f"it runs {', '.join(can)}: name one of these, or another runtime"
                )
    for place, name, resources in unknown_resources(config):
        hint = nearest(name, resources)
        further = "list in node_resources what only your executor takes"
        yield f"{place}: the resource {name!r} is unknown, {hint} ({further})"
    for value in config["protocol"].get("measurements", ()):
        if value not in MEASUREMENTS:
            yield f"protocol.measurements: {value!r} is unknown, {nearest(value, MEASUREMENTS)}"


def impossible_protocol(protocol: Mapping[str, Any]) -> Iterator[str]:
    """Times of a run that leave no room for each other."""
    for low, high in (
        ("warmup_seconds", "warmup_max_seconds"),
        ("min_seconds", "max_seconds"),
        ("max_seconds", "time_limit_seconds"),
    ):
        if protocol[low] > protocol[high]:
            yield (
                f"protocol.{low}: {protocol[low]} is more than {high}, {protocol[high]}; lower the first or raise the "
                "second"
            )


def impossible_models(config: Mapping[str, Any], models: StudyModels) -> Iterator[str]:
    """Models of which nothing, or a contradiction, is said; what a plan needs is read of those in sweeps only."""
    swept = {model for sweep in config["sweeps"].values() for model in sweep["models"]}
    for model in config["models"]:
        try:
            definition = models.definition(model)
            broken = list(user_files.of_model(definition)) if model in swept else []
            yield from broken
            if model in swept and not broken:
                models.outline(model)
        except UserError as error:
            yield f"models.{model}: {str(error).removeprefix(f'model {model!r}: ')}"


def impossible_sweeps(config: Mapping[str, Any]) -> Iterator[str]:
    """Sweeps that say two things of one axis, or name what is not defined."""
    lengths = config["inputs"]["lengths"]
    if FULL in lengths:
        yield f"inputs.lengths.{FULL}: that name stands for inputs that fill their rows; choose another"
    for name, sweep in config["sweeps"].items():
        where = f"sweeps.{name}"
        for key, axis in SHORTHANDS.items():
            if key in sweep and axis in sweep.get("axes", {}):
                yield f"{where}: {key} and axes.{axis} say the same; keep one of the two"
        beside = [key for key in (*SHORTHANDS, "axes", "lengths") if key in sweep]
        if "shapes" in sweep and beside:
            yield f"{where}: shapes stands alone, but {beside[0]} is there too; keep one of the two"
        if "shapes" not in sweep and not sizes(sweep):
            yield f"{where}: says no shape; add batches: [SIZES] and sequences: [SIZES], axes, or shapes"
        asked_lengths = list(sweep.get("lengths", []))
        for shape in sweep.get("shapes", []):
            try:
                asked_lengths += filter(None, [Shape.parse(shape).lengths])
                if huge := [size for _, size in Shape.parse(shape).sizes if size > LARGEST]:
                    yield f"{where}.shapes: {shape} has the size {huge[0]}; give sizes up to {LARGEST}"
            except UserError as error:
                yield f"{where}.shapes: {error}"
        for value in asked_lengths:
            if value not in (FULL, *lengths):
                yield f"{where}: the lengths {value!r} are unknown, {nearest(value, [FULL, *lengths])}"


def impossible_shapes(config: Mapping[str, Any], models: StudyModels) -> Iterator[str]:
    """Axes that no model has, and sizes that a model does not take."""
    swept = dict.fromkeys(model for sweep in config["sweeps"].values() for model in sweep["models"])
    everywhere = sorted({axis for model in swept for axis in models.outline(model).axes})
    for axis in config["export"]["axes"] if config["export"]["axes"] != "dynamic" else ():
        if axis not in everywhere:
            yield f"export.axes: no model has the axis {axis!r}, {nearest(axis, everywhere)}"
    for name, sweep in config["sweeps"].items():
        axes = {axis for model in sweep["models"] for axis in models.outline(model).axes}
        named = {axis for shape in sweep.get("shapes", []) for axis in Shape.parse(shape).axes}
        for axis in sorted({*sizes(sweep), *named} - axes):
            yield f"sweeps.{name}: no model of it has the axis {axis!r}, {nearest(axis, sorted(axes))}"
        if "sequence" not in axes and set(sweep.get("lengths", [])) - {FULL}:
            yield f"sweeps.{name}.lengths: no model of it has a sequence that could be padded; leave it out"
        for model in sweep["models"]:
            outline, fixed = models.outline(model), models.fixed_axes(model)
            try:
                shapes = asked_shapes(sweep, outline.axes, fixed)
            except UserError as error:
                yield f"sweeps.{name} {error} (for {model!r})"
                continue
            if outline.forgets:
                yield (
                    f"sweeps.{name}: {model!r} {outline.forgets}, and text is generated with models alone whose cache "
                    "keeps every token; leave it out, or set max_position_embeddings to at most the window in config "
                    "(weights: random)"
                )
            if (positions := outline.positions) is not None:
                for shape in shapes:
                    if generation.context(shape) > positions:
                        yield f"sweeps.{name}: {generation.too_long(repr(model), shape, positions)}"
            for axis, size in dict.fromkeys(pair for shape in shapes for pair in shape.sizes):
                limit = outline.limits.get(axis)
                if axis in outline.fixed and size != outline.fixed[axis]:
                    yield (
                        f"sweeps.{name}: {axis} {size} is not the only size that {model!r} takes, "
                        f"{outline.fixed[axis]}; leave {axis} out, or sweep that model apart"
                    )
                elif size < outline.least.get(axis, 1):
                    yield f"sweeps.{name}: {axis} {size} is less than {model!r} needs, {outline.least[axis]}; raise it"
                elif limit is not None and size > limit:
                    yield f"sweeps.{name}.{_key(axis)}: {size} is {_beyond(axis, model, limit)}"
                elif axis in fixed and size != fixed[axis]:
                    yield (
                        f"sweeps.{name}: {axis} {size} cannot run on a graph exported with {axis} fixed to "
                        f"{fixed[axis]}; set export.axes to dynamic"
                    )


def unknown_noise_cells(config: Mapping[str, Any], cells: list[Asked]) -> Iterator[str]:
    """Cells to be measured twice that are none of the study."""
    identities = sorted({cell.identity for cell in cells})
    for wanted in config.get("noise_cells", ()):
        if wanted not in identities:
            yield f"noise_cells: {no_cell(wanted, identities)}"


def unknown_baselines(config: Mapping[str, Any], cells: list[Asked]) -> Iterator[str]:
    """Configurations to hold speed-ups against that are none of the study."""
    known = sorted({f"{cell.runtime}/{cell.precision}" for cell in cells})
    for wanted in config["baseline"]:
        if wanted not in known:
            yield f"baseline: {wanted!r} is no configuration of the study, {nearest(wanted, known)}"


def unknown_traces(config: Mapping[str, Any], cells: list[Asked]) -> Iterator[str]:
    """Patterns of cells to capture or to count that fit none on a GPU."""
    known = sorted({cell.identity for cell in cells if RUNTIMES[cell.runtime].device == "cuda"})
    elsewhere = {cell.identity for cell in cells} - {*known}
    patterns = [("traces", "captured", pattern) for pattern in config["traces"]["cells"]]
    patterns += [("traces.counters", "counted", pattern) for pattern in config["traces"]["counters"]["cells"]]
    for key, done, pattern in patterns:
        if fnmatch.filter(known, pattern):
            continue
        if fnmatch.filter(elsewhere, pattern):
            yield (
                f"{key}.cells: {pattern!r} fits only cells on a CPU, and only cells on a GPU are {done}; remove it, "
                "or add a runtime of a GPU. To explain a trace of a CPU, record it and name it in captures: "
                "docs/explain.md"
            )
        else:
            hint = nearest(pattern, known) if known else "which has none there; remove it, or add a runtime of a GPU"
            yield f"{key}.cells: {pattern!r} fits no cell of the study on a GPU, {hint}"


def unknown_quality(config: Mapping[str, Any], models: StudyModels, cells: list[Asked]) -> Iterator[str]:
    """Patterns of evaluated cells that fit none, or only cells that generate."""
    named = {f"{cell.runtime}/{cell.model}/{cell.precision}": cell.model for cell in cells}
    known = sorted(name for name, model in named.items() if not TASKS[models.outline(model).task].generates)
    for pattern in config["quality"]["cells"]:
        if not fnmatch.filter(known, pattern) and fnmatch.filter(named, pattern):
            yield (
                f"quality.cells: {pattern!r} fits only models that generate text, whose quality is not evaluated: "
                "every run compares their tokens with FP32's; remove it"
            )
        elif not fnmatch.filter(known, pattern):
            yield f"quality.cells: {pattern!r} fits no cell of the study, {nearest(pattern, known)}"


def _key(axis: str) -> str:
    return next((key for key, short in SHORTHANDS.items() if short == axis), f"axes.{axis}")


def _beyond(axis: str, model: str, limit: int) -> str:
    if axis == "sequence":
        return (
            f"longer than the {limit} positions of {model!r}; shorten it, or set "
            f"models.{model}.config.max_position_embeddings with weights: random"
        )
    return f"more than the {limit} that {model!r} takes; choose a smaller one"
