"""Simplification by onnxslim, trusted only after a check: the simplified graph must be valid, standard and equal."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from ceilings.graphs import graph

TOLERANCE = 1e-4
"""Largest difference of the logits relative to their largest size. Folding constants reorders FP32 sums, no more."""

SET_ASIDE_BYTES = 65536
SKIPPED = ["EliminationReshape"]
"""Patterns of onnxslim that are left out. This one merges the reshape after attention with its neighbour: a node less,
and not one attention that ONNX Runtime's fusions would still know."""

SHAPES = ((2, 16), (3, 9))


class Rejected(Exception):
    """The simplified graph cannot be trusted. The message says why."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        model: The simplified graph, or the one given.
        simplified: Whether it is the simplified one.
        reason: Why not, else None.
        max_difference: Of the logits, relative to their largest size; None if it did not come so far.
    """

    model: onnx.ModelProto
    simplified: bool
    reason: str | None
    max_difference: float | None


def simplify(model: onnx.ModelProto, slim: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None) -> Outcome:
    """Simplify a graph, or keep it with the reason why.

    Args:
        model: As exported.
        slim: The simplifier; ``slim`` of this module if None.
    """
    try:
        candidate = (slim or _slim)(model)
        difference = check(model, candidate)
    except Rejected as error:
        return Outcome(model, False, str(error), None)
    except Exception as error:  # a simplifier may raise anything; the unsimplified graph is always there
        return Outcome(model, False, f"the simplifier failed: {type(error).__name__}: {graph.first_line(error)}", None)
    return Outcome(candidate, True, None, difference)


def check(model: onnx.ModelProto, candidate: onnx.ModelProto) -> float:
    """Compare a simplified graph with what it was made from, on seeded inputs of two shapes if it is dynamic.

    Returns:
        The largest difference of the logits relative to their largest size.

    Raises:
        Rejected: Invalid, of another interface, with operators of other domains, or with other results.
    """
    try:
        onnx.checker.check_model(candidate)
    except onnx.checker.ValidationError as error:
        raise Rejected(f"the ONNX checker refuses the simplified graph: {graph.first_line(error)}") from None
    foreign = {node.domain for node in candidate.graph.node} - graph.STANDARD_DOMAINS
    if foreign:
        raise Rejected(f"the simplifier introduced operators of the domain {', '.join(sorted(foreign))}")
    for side in ("input", "output"):
        before, after = ([graph.describe(v) for v in getattr(m.graph, side)] for m in (model, candidate))
        if before != after:
            raise Rejected(f"the simplifier changed the {side}s from {before} to {after}")
    sessions = [graph.session(each) for each in (model, candidate)]
    worst = 0.0
    for seed, shape in enumerate(SHAPES[:1] if len(graph.fixed_axes(model)) == 2 else SHAPES):
        feed = graph.example(model, _vocabulary(model), shape, seed)
        expected, found = (each.run([graph.OUTPUT], feed)[0] for each in sessions)
        difference = float(np.max(np.abs(expected - found)) / np.max(np.abs(expected)))
        if not difference <= TOLERANCE:
            raise Rejected(f"the logits differ by {difference:.2g} of their size at shape {feed['input_ids'].shape}")
        worst = max(worst, difference)
    return worst


def _vocabulary(model: onnx.ModelProto) -> int:
    """Rows of the table that ``input_ids`` are looked up in; 2 if it is not found, which every vocabulary has."""
    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Gather" and node.input[1] == "input_ids" and node.input[0] in sizes:
            return int(sizes[node.input[0]][0])
    return 2


def _slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxslim, eight times faster by keeping the weights out of its sight; whole if it turns out to need them."""
    import onnxslim

    def run(given: onnx.ModelProto) -> onnx.ModelProto:
        with contextlib.redirect_stdout(io.StringIO()):
            return onnxslim.slim(given, skip_fusion_patterns=SKIPPED)

    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        hollow, aside = _set_aside(model)
        try:
            return _put_back(run(hollow), aside)
        except Exception:
            # Something folds a weight (a transposition, say), which needs its values.
            return run(_copy(model))
    finally:
        logging.disable(level)


def _set_aside(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A copy without the values of large weights: shape inference serialises the whole graph dozens of times, and
    weights are nine tenths of that time. Marked as lying elsewhere, each still compares equal only to itself."""
    hollow, aside = _copy(model), {}
    for tensor in hollow.graph.initializer:
        if len(tensor.dims) >= 2 and len(tensor.raw_data) >= SET_ASIDE_BYTES:
            aside[tensor.name] = tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=tensor.name)
    return hollow, aside


def _put_back(model: onnx.ModelProto, aside: dict[str, Any]) -> onnx.ModelProto:
    """Undo ``_set_aside`` on the simplified graph, whatever the weights are called there."""
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.raw_data = aside[tensor.external_data[0].value]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return model


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxslim works in place."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
