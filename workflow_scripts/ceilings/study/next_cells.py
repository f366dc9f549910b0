"""The cells that predictions add to a study: what is proposed while it is asked for, and what was begun for good."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.paths import Paths
from ceilings.study.prediction_log import Prediction

RUN = "run"
"""The value of ``next`` that measures what is proposed."""

SWEEP = "next"
"""What the sweeps of these cells are called, with a number."""

NAMING_CELLS = (*("noise_cells", "noise_deployments", "traces", "quality", "sequences", "changing", "serving", "next"),)
"""Sections that may name cells or deployments which a study of a few cells has not."""


def with_next_cells(
    config: Mapping[str, Any], predictions: Sequence[Prediction], devices: Set[str], paths: Paths
) -> dict[str, Any]:
    """The study with a sweep for each predicted cell that belongs to it.

    A cell belongs to it once a first process of it was recorded, so that it stays in the tables; before, only where the
    study says ``next: run`` and the last round proposes it.

    Args:
        predictions: The last of each cell, of this study.
        devices: Slugs of what measures.
    """
    extended = copy.deepcopy(dict(config))
    number = 0
    for one in predictions:
        runtime, model, precision, shape = one["cell"].split("/")
        known = model in config["models"] and runtime in RUNTIMES and precision in RUNTIMES[runtime].precisions
        if not known or one["device"] not in devices:
            continue
        begun = Path(paths.run(one["device"], runtime, model, precision, shape, process=1)).is_file()
        if begun or (one["proposed"] and config["next"] == RUN):
            while (name := f"{SWEEP}-{(number := number + 1)}") in config["sweeps"]:
                pass
            sweep = {"models": [model], "runtimes": [runtime], "precisions": [precision], "shapes": [shape]}
            extended["sweeps"][name] = sweep
    return extended


def next_study(config: Mapping[str, Any], cells: Sequence[str]) -> dict[str, Any]:
    """A study of its own of these cells (``runtime/model/precision/shape``), with all else as in ``config``."""
    taken = copy.deepcopy(dict(config))
    models = dict.fromkeys(cell.split("/")[1] for cell in cells)
    taken["models"] = {name: value for name, value in taken["models"].items() if name in models}
    taken["sweeps"] = {}
    for number, cell in enumerate(dict.fromkeys(cells), 1):
        runtime, model, precision, shape = cell.split("/")
        sweep = {"models": [model], "runtimes": [runtime], "precisions": [precision], "shapes": [shape]}
        taken["sweeps"][f"{SWEEP}-{number}"] = sweep
    for key in NAMING_CELLS:
        taken.pop(key, None)
    return taken
