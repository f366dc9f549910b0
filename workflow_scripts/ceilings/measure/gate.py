"""The gate before any speed number: outputs that are wrong get none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ceilings.errors import CellFailure
from ceilings.graphs import token_parity
from ceilings.graphs.parity import compare, too_far
from ceilings.runtimes.base import Runner
from ceilings.workload.workload import Workload

Arrays = Mapping[str, np.ndarray]


def stacked(elements: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of single elements as one array a name, (elements, *dims)."""
    return {name: np.stack([element[name] for element in elements]) for name in elements[0]}


def gate(
    workload: Workload,
    elements: list[dict[str, np.ndarray]],
    outputs: Arrays,
    reference: Arrays,
    tolerance: float,
    *,
    precision: str = "",
) -> dict[str, Any]:
    """Compare all outputs with the FP32 reference; wrong ones get no speed number.

    Args:
        workload: Says how outputs are compared, and which input is the mask.
        elements: The elements of the pool that were run.
        outputs: (elements, *dims) by name.
        reference: The same.
        tolerance: Largest relative L2 difference.
        precision: Of the cell; of text it says what rounding explains.

    Raises:
        CellFailure: The difference is larger, hides what outputs differ by between inputs, or cannot be said. Of
            text, the logits of the first tokens alone are judged here, and the rest by ``text_judge``.
    """
    if workload.task.compared == "tokens":
        return _gate_tokens(outputs, reference, tolerance, precision)
    mask, masked = None, set[str]()
    if workload.mask:
        dims = workload.mask.dims
        mask = np.stack([element[workload.mask.name] for element in elements])
        masked = {output.name for output in workload.outputs if output.dims[: len(dims)] == dims}
    try:
        compared = compare(outputs, reference, workload.task.compared, mask, masked)
    except ValueError as error:  # another shape than the reference's, or nothing to compare
        raise CellFailure("parity", str(error)) from None
    parity = {**compared.to_json(), "tolerance": tolerance}
    if reason := too_far(parity, tolerance):
        raise CellFailure("parity", reason)
    return parity


def _gate_tokens(outputs: Arrays, reference: Arrays, tolerance: float, precision: str) -> dict[str, Any]:
    try:
        parity = {**token_parity.compare(outputs, reference, precision), "tolerance": tolerance}
    except ValueError as error:
        raise CellFailure("parity", str(error)) from None
    if reason := token_parity.logits_too_far(parity, tolerance):
        raise CellFailure("parity", reason)
    return parity


def constant(elements: list[dict[str, np.ndarray]], reference: Arrays) -> list[str]:
    """A flag where nothing shows that outputs follow from inputs: one input, or the same outputs for all of them."""
    inputs = {tuple(array.tobytes() for array in element.values()) for element in elements}
    if len(inputs) == 1:
        return ["parity saw one input, so a runtime that ignores its inputs would pass; inputs.pool above 1 shows more"]
    if "tokens" in reference and "probes" in reference:
        return token_parity.says_little(reference["tokens"])
    if all((array == array[:1]).all() for array in reference.values()):
        return ["the reference gives the same outputs for different inputs, so parity confirms little"]
    return []


def coarse(runner: Runner, parity: dict[str, Any]) -> list[str]:
    """Flags of generated tokens: a runner in FP32 that computes some products in less, and what parity cannot see."""
    if not runner.workload.task.generates:
        return []
    return [
        *token_parity.is_coarse(parity, runner.precision),
        *token_parity.rounds_more(parity),
        *token_parity.unseen(parity, parity["tolerance"]),
    ]
