"""Outputs in FP32, of PyTorch or of an imported ONNX file: what every variant and runtime is compared with."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ceilings.errors import CellFailure, UserError
from ceilings.models import pool
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

ELEMENTS = 2
"""How many elements of the pool are compared: two, so that a runtime that answers from a stale buffer is caught."""


def compute(
    weights_dir: Path | str,
    inputs: Path | str,
    threads: int,
    output: Path | str,
    graph: Path | str | None = None,
    *,
    shape: Shape | None = None,
) -> dict[str, tuple[int, ...]]:
    """Run the model on the CPU in FP32 and write its outputs.

    Args:
        weights_dir: The model's weights folder.
        inputs: The pool.
        threads: CPU threads; more of them only reorder sums.
        output: See ``pool.save_outputs``.
        graph: An ONNX file to run as written, by ONNX Runtime. None: the weights, by PyTorch with plain attention.
        shape: Of the inputs. Where a model generates, it says how many tokens; else it need not be given.

    Returns:
        The shape of each output.

    Raises:
        UserError: Damaged weights, inputs or graph.
        CellFailure: The graph does not run on these inputs, or its outputs are such that nothing compares with them.
    """
    arrays = pool.load_pool(inputs)
    elements = pool.elements(arrays)
    workload = Workload.read(weights_dir)
    if workload.task.generates:
        # By name, so that it touches the references of models that generate only.
        if shape is None:
            raise UserError(f"nothing says how many tokens {weights_dir} shall generate; give --shape")
        generating = importlib.import_module("ceilings.models.token_reference")
        outputs = generating.generate(weights_dir, elements[:ELEMENTS], shape, threads)
        pool.save_outputs(output, outputs, pool.digest(arrays))
        return {name: values.shape for name, values in outputs.items()}
    # A size that follows from no axis may follow from values: then it has to be the same in all that is measured.
    if all(isinstance(dim, int) or dim in workload.axes for tensor in workload.outputs for dim in tensor.dims):
        elements = elements[:ELEMENTS]
    if graph is None:
        answers = _by_torch(weights_dir, workload, elements, threads)
    else:
        # By name, so that ONNX Runtime touches the references of ONNX files only.
        by_graph = importlib.import_module("ceilings.models.graph_reference")
        run = by_graph.graph_runner(graph, [tensor.name for tensor in workload.outputs], threads)
        answers = [run(element) for element in elements]
    columns = zip(*answers, strict=True)
    outputs = {
        tensor.name: _stacked(tensor.name, column)[:ELEMENTS]
        for tensor, column in zip(workload.outputs, columns, strict=True)
    }
    pool.save_outputs(output, outputs, pool.digest(arrays))
    return {name: values.shape for name, values in outputs.items()}


def load_for(path: Path | str, inputs: Path | str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the model answers to the first elements of a pool, float32 (elements, *dims) by output; and these elements.

    Raises:
        UserError: They are damaged or do not belong together.
        CellFailure: One of them could not be made.
    """
    arrays = pool.load_pool(inputs)
    outputs = pool.load_outputs(path, pool.digest(arrays))
    count = len(next(iter(outputs.values())))
    return outputs, {name: array[:count] for name, array in arrays.items()}


def _by_torch(
    weights_dir: Path | str, workload: Workload, elements: list[dict[str, np.ndarray]], threads: int
) -> list[list[np.ndarray]]:
    import torch

    from ceilings.models.load import load_module

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    module = load_module(weights_dir, attention="eager")
    with torch.inference_mode():
        return [
            [value.numpy() for value in module(*(torch.from_numpy(element[t.name]) for t in workload.inputs))]
            for element in elements
        ]


def _stacked(name: str, answers: Sequence[np.ndarray]) -> np.ndarray:
    """An output of several elements as one array: float32 (elements, *dims).

    Raises:
        CellFailure: Its size depends on more than the sizes of the inputs, or it is empty.
    """
    first = answers[0].shape
    for answer in answers:
        if answer.shape != first:
            raise CellFailure(
                "unsupported",
                f"output {name} has shape {first} for one input and {answer.shape} for another of the same shape; "
                "outputs whose size depends on values cannot be compared",
            )
    if 0 in first:
        raise CellFailure("unsupported", f"output {name} has shape {first}: nothing to compare")
    return np.stack([np.asarray(answer, np.float32) for answer in answers])
