"""Seeded inputs for a graph that is only to be run, not measured: made from what a workload says of each tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx

from ceilings.graphs import graph
from ceilings.workload.shape import Shape
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

SIZES = (
    {"batch": 2, "sequence": 16, "image": 64, "samples": 2000, "tokens": 5, "past": 3, "present": 8},
    {"batch": 3, "sequence": 9, "image": 96, "samples": 1600, "tokens": 4, "past": 0, "present": 4},
    {"batch": 2, "sequence": 4, "image": 224, "samples": 4000, "tokens": 2, "past": 6, "present": 8},
)
"""Sizes of dynamic axes, the usual ones first. None is 1: exporters and optimisers take that for a constant. A decoder
reads several tokens after others, and several after none."""

OTHER = (8, 5, 4)
"""Of axes that have no usual size."""


def make(inputs: Iterable[TensorSpec], shape: Shape, seed: int) -> dict[str, np.ndarray]:
    """Inputs by name; of a mask the last quarter is 0 in every row but the first."""
    rng = np.random.default_rng(seed)
    return {spec.name: _make(spec, spec.sizes(shape), rng) for spec in inputs}


def feed(model: onnx.ModelProto, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those that a graph reads."""
    return {value.name: arrays[value.name] for value in model.graph.input}


def shapes(model: onnx.ModelProto, workload: Workload) -> Iterator[Shape]:
    """Shapes that a graph may take: its fixed axes as they are, the others at sizes that most models take.

    An axis has a size even where the graph does not say so: a workload may have more inputs than the graph.
    """
    fixed, seen = graph.fixed_axes(model), set()
    for sizes, other in zip(SIZES, OTHER, strict=True):
        shape = Shape.of({axis: fixed.get(axis, sizes.get(axis, other)) for axis in workload.axes})
        if shape not in seen:
            seen.add(shape)
            yield shape


def _make(spec: TensorSpec, sizes: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    kind = np.dtype(spec.dtype)
    if spec.content == "mask":
        mask = np.ones(sizes, kind)
        mask[1:, ..., sizes[-1] - sizes[-1] // 4 :] = 0
        return mask
    if spec.content == "zeros":
        return np.zeros(sizes, kind)
    if spec.content in ("tokens", "integers"):
        return rng.integers(spec.low, spec.high, sizes, endpoint=True).astype(kind)
    return rng.standard_normal(sizes).astype(kind)
