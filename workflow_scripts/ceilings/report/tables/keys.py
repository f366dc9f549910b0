"""The columns that name a cell, and those beside them that say what its shape is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ceilings.workload.shape import Shape

KEY = ["device", "runtime", "model", "precision", "shape"]
"""The columns that name a cell."""

LEVERS_SEPARATOR = ";"

ONNX_FILE = "ONNX file"
"""A model that is a graph alone: no PyTorch runtime executes it."""


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What names the cell of a row."""
    return tuple(row[name] for name in KEY)


def axes_of(shapes: Iterable[Shape]) -> tuple[str, ...]:
    """Every axis of the shapes, in the order of names of shapes."""
    return Shape.of({axis: 1 for shape in shapes for axis in shape.axes}).axes


def with_axes(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with a column for each axis that occurs in it, behind the column ``shape``."""
    if frame.empty:
        return frame
    names = frame["shape"].astype(str)
    shapes = {name: Shape.parse(name) for name in names.unique()}
    axes = axes_of(shapes.values())
    behind = list(frame.columns).index("shape") + 1
    columns = {
        axis: names.map({name: shape.get(axis) for name, shape in shapes.items()}).astype("Int64") for axis in axes
    }
    return pd.concat([frame.iloc[:, :behind], pd.DataFrame(columns, index=frame.index), frame.iloc[:, behind:]], axis=1)


def joined_levers(levers: Iterable[str]) -> str:
    """Levers as the column holds them."""
    return LEVERS_SEPARATOR.join(sorted(levers))


def parsed_levers(value: object) -> frozenset[str]:
    """Of the column; what is missing is none."""
    return frozenset(value.split(LEVERS_SEPARATOR)) if isinstance(value, str) and value else frozenset()
