"""Which inputs of an ONNX graph are places in a table, and how large the table is."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

SMALL = 1024
"""Elements up to which a constant keeps its value: shapes may depend on it."""

LOOKUPS = {
    "Gather": ((0, 1),),
    "GatherElements": ((0, 1),),
    "GatherND": ((0, 1),),
    "EmbedLayerNormalization": ((2, 0), (4, 1), (3, 8)),
}
"""Operators that look places up: (input that is the table, input that is the places)."""

PASSING = {
    **dict.fromkeys(("Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose"), (0,)),
    **dict.fromkeys(("Expand", "Tile", "Slice", "Split", "Gather", "GatherElements", "GatherND", "Pad"), (0,)),
    "Where": (1, 2),
}
"""Operators whose outputs hold values of these inputs and no others. Concat: of every input."""


def tables(model: Any, inputs: Iterable[str]) -> dict[str, int]:
    """The number of rows of the smallest table that each input indexes; inputs without one are left out.

    An index is followed through operators that pass values on, and into the graphs inside of nodes. A table need not be
    constant, if only its size is.

    Args:
        model: An ONNX model, which loses the values of its large weights.
        inputs: Names of inputs.
    """
    import onnx
    import onnx.inliner
    import onnx.shape_inference

    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > SMALL:
            _forget_values(tensor)
    # What cannot be inferred is not known, and the study is asked for it.
    with contextlib.suppress(Exception):
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    trace = _Trace(inputs)
    trace.follow(model.graph)
    return trace.rows


class _Trace:
    """Follows inputs through a graph.

    Attributes:
        rows: Of the smallest table of each input that has one.
    """

    def __init__(self, inputs: Iterable[str]) -> None:
        self.rows: dict[str, int] = {}
        self.sources: dict[str, set[str]] = {name: {name} for name in inputs}
        self.sizes: dict[str, list[int | None]] = {}

    def follow(self, graph: Any) -> None:
        """Read a graph from its first node to its last, and the graphs inside of it in their places."""
        self.sizes |= dict(_sizes(graph))
        for node in graph.node:
            for table, places in LOOKUPS.get(node.op_type, ()):
                if max(table, places) < len(node.input):
                    self._look_up(node, node.input[table], node.input[places])
            passing = range(len(node.input)) if node.op_type == "Concat" else PASSING.get(node.op_type, ())
            for index in passing:
                if index < len(node.input):
                    for name in node.output:
                        self._pass(node.input[index], name)
            self._follow_inside(node)

    def _look_up(self, node: Any, table: str, places: str) -> None:
        sizes = self.sizes.get(table)
        if not sizes:
            return
        given = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type == "GatherND":
            # Each place has a number for each of the next dimensions; which, is not followed.
            used = sizes[given.get("batch_dims", 0) :]
        else:
            axis = given.get("axis", 0)
            used = sizes[axis : axis + 1 or None] if -len(sizes) <= axis < len(sizes) else []
        known = [size for size in used if size]
        for source in self.sources.get(places, ()) if len(known) == len(used) and known else ():
            self.rows[source] = min(*known, self.rows.get(source, known[0]))

    def _pass(self, giver: str, taker: str) -> None:
        if giver in self.sources and taker:
            self.sources.setdefault(taker, set()).update(self.sources[giver])

    def _follow_inside(self, node: Any) -> None:
        skipped = 2 if node.op_type == "Loop" else 0  # the number of rounds and the condition
        for attribute in node.attribute:
            if not attribute.HasField("g"):
                continue
            inside = attribute.g
            for name, value in zip(node.input[skipped:], inside.input[skipped:], strict=False):
                self._pass(name, value.name)
            self.follow(inside)
            for value, name in zip(inside.output[1 if skipped else 0 :], node.output, strict=False):
                self._pass(value.name, name)


def _forget_values(tensor: Any) -> None:
    """Mark the values of a tensor as lying elsewhere, in place: inference then has less to carry."""
    kept = {"name", "dims", "data_type"}
    for field, _ in tensor.ListFields():
        if field.name not in kept:
            tensor.ClearField(field.name)
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="location", value=tensor.name)


def _sizes(graph: Any) -> Iterator[tuple[str, list[int | None]]]:
    """Dimensions of the tensors of a graph that have a known number of them; None for what is dynamic."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        yield (
            value.name,
            [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim],
        )
    for tensor in graph.initializer:
        yield tensor.name, list(tensor.dims)
