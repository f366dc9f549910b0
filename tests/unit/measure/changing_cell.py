"""Cells of changing shapes that are measured in a second: the tiny model at three shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from unit.measure import tiny_cell
from unit.measure.tiny_cell import WORKLOAD

from ceilings.models import pool
from ceilings.workload.shape import Shape
from ceilings.workload.shape_order import Requests

ORDER = ("b1-s4", "b2-s4", "b1-s4", "b1-s8", "b2-s4", "b2-s4")


def make(folder: Path, wrong: str = "") -> dict:
    """The task of a sequence; the reference of the shape ``wrong`` is another one's."""
    base = tiny_cell.make(folder, [])
    requests = Requests.of(map(Shape.parse, ORDER)).to_json()
    random = np.random.default_rng(0)
    pools = {}
    for name in requests["shapes"]:
        shape = Shape.parse(name)
        arrays = {t.name: random.standard_normal((3, *t.sizes(shape))).astype(np.float32) for t in WORKLOAD.inputs}
        named = {f"{pool.PREFIX}{key}": array for key, array in arrays.items()}
        seal = np.array(pool.sealed(arrays, "random", 1.0))
        paths = {part: str(folder / f"{part}.{name}.npz") for part in ("inputs", "reference")}
        pool.save(paths["inputs"], **named, sha256=seal, source=np.array("random"), real_share=np.array(1.0))
        left, right = (arrays[key][:2] for key in ("left", "right"))
        outputs = {"sum": left + right, "product": left * right + np.float32(name == wrong)}
        pool.save_outputs(paths["reference"], outputs, pool.digest(arrays))
        pools[name] = paths
    cell = {name: value for name, value in base["cell"].items() if name != "shape"} | {"sequence": "mixed"}
    spec = {key: value for key, value in base["spec"].items() if key != "measurements"}
    return {
        "cell": cell,
        "spec": spec | {"module": "onnxruntime_changing_cpu", "requests": requests},
        "artifact": base["artifact"],
        "workload": base["workload"],
        "pools": pools,
    }
