"""Simplification by onnxslim, trusted only after a check: the simplified graph must be valid, standard and equal.

One operator that a provider lacks is written with another that gives the same numbers everywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper

from ceilings.graphs import examples, graph, hollow
from ceilings.workload.workload import Workload

TOLERANCE = 1e-4
"""Largest difference of an output relative to its largest size. Folding constants reorders FP32 sums, no more."""

SET_ASIDE_BYTES = 65536
SKIPPED = ["EliminationReshape"]
"""Patterns of onnxslim that are left out. This one merges the reshape after attention with its neighbour: a node less,
and not one attention that ONNX Runtime's fusions would still know."""

TOPK_OPSET = 13
"""First operator set whose Squeeze takes its axes as TopK takes its number: as an input."""

COMPARED = 2
"""Shapes at which a dynamic graph is compared."""


class Rejected(Exception):
    """The simplified graph cannot be trusted. The message says why."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        model: The simplified graph, or the one given.
        simplified: Whether it is the simplified one.
        reason: Why not, else None.
        max_difference: Of any output, relative to its largest size; None if it did not come so far.
    """

    model: onnx.ModelProto
    simplified: bool
    reason: str | None
    max_difference: float | None


def simplify(
    model: onnx.ModelProto,
    workload: Workload,
    slim: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None,
) -> Outcome:
    """Simplify a graph, or keep it with the reason why.

    Args:
        model: As exported.
        workload: The model's; its ``graph`` says what the inputs hold.
        slim: The simplifier; onnxslim if None.
    """
    try:
        candidate = without_integer_argmax((slim or _slim)(model))
        difference = check(model, candidate, workload)
    except Rejected as error:
        return Outcome(model, False, str(error), None)
    except Exception as error:  # a simplifier may raise anything; the unsimplified graph is always there
        return Outcome(model, False, f"the simplifier failed: {type(error).__name__}: {graph.first_line(error)}", None)
    # An input that nothing reads any more is still one that is asked for, and denotations are easily lost.
    graph.copy_interface(candidate, model)
    return Outcome(candidate, True, None, difference)


def without_integer_argmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with each ArgMax of integers as a TopK of one, in place.

    ONNX Runtime's CUDA provider has an integer kernel of TopK alone. CLIP's text towers find their last token with
    ArgMax; one node on the CPU is a fallback, which fails the cell. Of equal values both operators take the first.
    """
    if graph.opset(model) < TOPK_OPSET or not any(node.op_type == "ArgMax" for node in model.graph.node):
        return model
    shaped = hollow.with_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*shaped.input, *shaped.value_info)}
    nodes = list(model.graph.node)
    for index, node in reversed(list(enumerate(nodes))):
        given = {attribute.name: attribute.i for attribute in node.attribute}
        integer = types.get(node.input[0] if node.input else "") in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
        if node.op_type != "ArgMax" or not integer or given.get("select_last_index"):
            continue
        result, axis, keep = node.output[0], given.get("axis", 0), given.get("keepdims", 1)
        constants = {f"{result}_k": 1, f"{result}_axis": axis}
        for name, value in list(constants.items())[: 1 if keep else 2]:
            model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
        indices = result if keep else f"{result}_kept"
        replaced = [
            onnx.helper.make_node(
                "TopK", [node.input[0], f"{result}_k"], [f"{result}_largest", indices], node.name, axis=axis
            )
        ]
        if not keep:
            replaced.append(onnx.helper.make_node("Squeeze", [indices, f"{result}_axis"], [result]))
        nodes[index : index + 1] = replaced
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def check(model: onnx.ModelProto, candidate: onnx.ModelProto, workload: Workload) -> float:
    """Compare a simplified graph with what it was made from, on seeded inputs of two shapes if it is dynamic.

    Returns:
        The largest difference of an output relative to its largest size.

    Raises:
        Rejected: Invalid, of another interface, with operators of other domains, or with other results.
    """
    foreign = {node.domain for node in candidate.graph.node} - {node.domain for node in model.graph.node}
    if foreign - graph.STANDARD_DOMAINS:
        raise Rejected(f"the simplifier introduced operators of the domain {', '.join(sorted(foreign))}")
    for side in ("input", "output"):
        before, after = ([graph.describe(v) for v in getattr(m.graph, side)] for m in (model, candidate))
        if side == "input":
            before = [value for value in before if value in after]  # one that nothing reads may be gone
        if before != after:
            raise Rejected(f"the simplifier changed the {side}s from {before} to {after}")
    with graph.stored(candidate) as path:
        try:
            onnx.checker.check_model(str(path))
        except onnx.checker.ValidationError as error:
            raise Rejected(f"the ONNX checker refuses the simplified graph: {graph.first_line(error)}") from None
        there = graph.session(path)
    here = graph.session(model)
    differences: list[float] = []
    asked = workload.graph
    for seed, shape in enumerate(examples.shapes(model, asked)):
        arrays = examples.make(asked.inputs, shape, seed)
        try:
            expected = here.run(None, examples.feed(model, arrays))
        except Exception as error:  # ONNX Runtime's errors share no class; a size that this model does not take
            refused = graph.first_line(error)
            continue
        found = there.run([value.name for value in model.graph.output], examples.feed(candidate, arrays))
        differences += map(_difference, expected, found)
        if not max(differences) <= TOLERANCE:
            raise Rejected(f"outputs differ by {max(differences):.2g} of their size at {shape}")
        if seed + 1 == COMPARED:
            break
    if not differences:
        raise Rejected(f"the exported graph itself cannot be run on seeded inputs: {refused}")
    return max(differences)


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference relative to the largest size; 0 where both are equal, whatever they hold."""
    if expected.shape != found.shape:
        return np.inf
    if np.array_equal(expected, found, equal_nan=expected.dtype.kind == "f"):
        return 0.0
    left, right = expected.astype(np.float64), found.astype(np.float64)
    largest = float(np.max(np.abs(left)))
    return float(np.max(np.abs(left - right))) / largest if largest else np.inf


def _slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxslim, eight times faster by keeping the weights out of its sight; whole if it turns out to need them."""
    import onnxslim

    def run(given: onnx.ModelProto) -> onnx.ModelProto:
        with contextlib.redirect_stdout(io.StringIO()):
            return onnxslim.slim(given, skip_fusion_patterns=SKIPPED)

    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        shell, aside = hollow.emptied(model, SET_ASIDE_BYTES, matrices=True)
        try:
            return hollow.fill(run(shell), aside)
        except Exception:
            # Something folds a weight (a transposition, say), which needs its values.
            if not graph.fits(model):
                raise
            copy = onnx.ModelProto()  # onnxslim works in place
            copy.CopyFrom(model)
            return run(copy)
    finally:
        logging.disable(level)
