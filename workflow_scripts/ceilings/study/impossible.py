"""What a study asks for that cannot be, each with its place in the study and its remedy."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ceilings.errors import UserError
from ceilings.models.catalogue import ARCHITECTURES
from ceilings.runtimes.catalogue import PRECISIONS, RUNTIMES
from ceilings.study.cell import Shape
from ceilings.study.config import nearest
from ceilings.study.engines import Engines


def asked_cells(config: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, Shape]]:
    """Every (sweep, runtime, model, precision, shape); precisions that a runtime does not know are left out."""
    for name, sweep in config["sweeps"].items():
        for runtime in sweep["runtimes"]:
            for model in sweep["models"]:
                for precision in sweep["precisions"]:
                    if precision in RUNTIMES[runtime].precisions:
                        for batch in sweep["batches"]:
                            for sequence in sweep["sequences"]:
                                yield name, runtime, model, precision, Shape(batch, sequence)


def refuse_the_impossible(config: Mapping[str, Any], engines: Engines) -> None:
    problems = [
        *unknown_names(config),
        *impossible_shapes(config),
        *unknown_noise_cells(config),
        *unknown_traces(config),
        *impossible_engines(config, engines),
    ]
    if problems:
        raise UserError("the study asks for what cannot be:\n" + "\n".join(f"  {p}" for p in dict.fromkeys(problems)))


def unknown_names(config: Mapping[str, Any]) -> Iterator[str]:
    known = {"models": list(config["models"]), "runtimes": list(RUNTIMES), "precisions": list(PRECISIONS)}
    for name, sweep in config["sweeps"].items():
        for key, names in known.items():
            for value in sweep[key]:
                if value not in names:
                    yield f"sweeps.{name}.{key}: {value!r} is unknown, {nearest(value, names)}"
        for runtime in sweep["runtimes"]:
            can = RUNTIMES[runtime].precisions if runtime in RUNTIMES else sweep["precisions"]
            if not set(can) & set(sweep["precisions"]):
                yield (
                    f"sweeps.{name}.runtimes: {runtime!r} runs none of {', '.join(sweep['precisions'])}; "
                    f"it runs {', '.join(can)}"
                )


def impossible_shapes(config: Mapping[str, Any]) -> Iterator[str]:
    positions = {name: _positions(config, name) for name in config["models"]}
    fixed = config["export"]["axes"]
    for name, sweep in config["sweeps"].items():
        for model in sweep["models"]:
            for sequence in sweep["sequences"]:
                if sequence > positions.get(model, sequence):
                    yield (
                        f"sweeps.{name}.sequences: {sequence} is longer than the {positions[model]} positions of "
                        f"{model!r}; shorten it, or set models.{model}.config.max_position_embeddings with "
                        "weights: random"
                    )
            if "int8" in sweep["precisions"] and config["calibration"]["sequence"] > positions.get(model, 1 << 30):
                yield (
                    f"calibration.sequence: {config['calibration']['sequence']} is longer than the "
                    f"{positions[model]} positions of {model!r}; shorten it"
                )
        if fixed != "dynamic":
            for axis, sizes in (("batch", sweep["batches"]), ("sequence", sweep["sequences"])):
                for size in sizes:
                    if axis in fixed and size != fixed[axis]:
                        yield (
                            f"sweeps.{name}: {axis} {size} cannot run on a graph exported with {axis} fixed to "
                            f"{fixed[axis]}; set export.axes to dynamic"
                        )


def unknown_noise_cells(config: Mapping[str, Any]) -> Iterator[str]:
    if "noise_cells" not in config or list(unknown_names(config)):
        return
    identities = {
        f"{runtime}/{model}/{precision}/{shape}" for _, runtime, model, precision, shape in asked_cells(config)
    }
    for wanted in config["noise_cells"]:
        if wanted not in identities:
            yield f"noise_cells: {wanted!r} is no cell of the study, {nearest(wanted, sorted(identities))}"


def unknown_traces(config: Mapping[str, Any]) -> Iterator[str]:
    if list(unknown_names(config)):
        return
    known = {
        f"{runtime}/{model}/{precision}/{shape}"
        for _, runtime, model, precision, shape in asked_cells(config)
        if RUNTIMES[runtime].device == "cuda"
    }
    for pattern in config["traces"]["cells"]:
        if not fnmatch.filter(known, pattern):
            hint = nearest(pattern, sorted(known)) if known else "it has none on a GPU"
            yield f"traces.cells: {pattern!r} fits no cell of the study on a GPU, {hint}"


def impossible_engines(config: Mapping[str, Any], engines: Engines) -> Iterator[str]:
    if not list(unknown_names(config)):
        asked = (
            (sweep, RUNTIMES[runtime], model, precision) for sweep, runtime, model, precision, _ in asked_cells(config)
        )
        yield from engines.problems(asked)


def _positions(config: Mapping[str, Any], model: str) -> int:
    """The longest sequence that a model takes: of its own configuration file, if it comes from a folder."""
    definition = config["models"][model]
    weights = definition.get("weights", config["weights"])
    config = dict(definition.get("config", {}))
    if isinstance(weights, dict):
        folder = Path(weights["path"])
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"models.{model}.weights.path: {folder} holds no readable config.json ({error}); name a folder "
                "with config.json and model.safetensors"
            ) from None
    return ARCHITECTURES[definition["architecture"]].positions(config)
