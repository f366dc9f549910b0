"""How axes of shapes are shown: as columns of tables, as titles of a plot's axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ceilings.report.tables.keys import axes_of
from ceilings.workload.shape import Shape

LENGTHS = "lengths"

NAMES = {
    "batch": "batch size",
    "sequence": "sequence length",
    "prompt": "prompt length",
    "generated": "generated tokens",
    "image": "image size",
    "samples": "recording length",
}
UNITS = {"sequence": "tokens", "prompt": "tokens", "image": "pixels along an edge", "samples": "samples"}
"""Of axes that have a name or a unit."""


def axis_headers(shapes: Iterable[Shape]) -> list[str]:
    """Columns that show what the shapes of a table are: its axes, and the lengths where inputs have any."""
    known = list(shapes)
    return [*axes_of(known), *([LENGTHS] if any(shape.lengths for shape in known) else [])]


def axis_cells(shape: Shape, headers: Sequence[str]) -> list[str]:
    """One shape in these columns; empty where it has no such axis."""
    return [shape.lengths if name == LENGTHS else str(shape.get(name) or "") for name in headers]


def name(axis: str) -> str:
    """What an axis is called in a sentence."""
    return NAMES.get(axis, f"size along {axis}")


def log_title(axis: str) -> str:
    """What a log axis of a plot is called."""
    return f"{name(axis)} ({', '.join(filter(None, (UNITS.get(axis), 'log scale')))})"
