"""The rows that quality is evaluated on: inputs one row a text or image, labels if there are any. Reading only.

An ``.npz`` with ``input/{name}`` (rows, *dims without the batch), ``labels`` (rows,), ``truncated`` (rows,), ``facts``
(JSON) and ``sha256`` of all of it. Beside it lies what FP32 PyTorch answers: ``output/{name}`` (rows, *dims).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings import records
from ceilings.errors import CellFailure, UserError
from ceilings.models import pool
from ceilings.workload.shape import Shape
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

Arrays = dict[str, NDArray[Any]]

INPUT = "input/"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Rows of a model.

    Attributes:
        inputs: By tensor, (rows, *dims without the batch).
        labels: int64 classes or float64 numbers, (rows,); None where nobody knows the right answers.
        truncated: Whether a text was longer than the sequence, (rows,).
        facts: Where they come from: ``source`` (file, corpus, random or spectrum), ``file``, ``text``, ``label``,
            ``available`` rows, ``seed``, and ``weights`` (the source of the model's).
    """

    inputs: Arrays
    labels: NDArray[Any] | None
    truncated: NDArray[np.bool_]
    facts: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.truncated)

    @property
    def sha256(self) -> str:
        """Of all that shapes an answer or its score: inputs, labels, what was cut, and where they come from."""
        labels = {} if self.labels is None else {"labels": self.labels}
        facts = np.array(json.dumps(dict(self.facts), sort_keys=True))
        named = {f"{INPUT}{name}": values for name, values in self.inputs.items()}
        return pool.digest({**named, **labels, "truncated": self.truncated, "facts": facts})

    def batches(self, size: int) -> Iterator[tuple[Arrays, int]]:
        """Elements of ``size`` rows, and how many of them count: the last is filled up with rows from the start."""
        for start in range(0, len(self), size):
            chosen = np.arange(start, start + size) % len(self)
            element = {name: values[chosen] for name, values in self.inputs.items()}
            yield element, min(size, len(self) - start)

    def save(self, path: Path | str) -> None:
        """Write the ``.npz``."""
        labels = {} if self.labels is None else {"labels": self.labels}
        facts = json.dumps(dict(self.facts), sort_keys=True)
        inputs = {f"{INPUT}{name}": values for name, values in self.inputs.items()}
        digest = np.array(self.sha256)
        pool.save(path, **inputs, **labels, truncated=self.truncated, facts=np.array(facts), sha256=digest)


def load(path: Path | str) -> Dataset:
    """Read a dataset.

    Raises:
        UserError: Missing, damaged, of another kind, or changed since it was written.
    """
    content = pool.load(path)
    if {"truncated", "facts", "sha256"} - set(content):
        raise UserError(f"{path} holds no rows to evaluate; {records.anew(path)}")
    try:
        facts = dict(records.parsed(str(content["facts"]).encode()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged (its facts: {error}); {records.anew(path)}") from None
    inputs = {name.removeprefix(INPUT): values for name, values in content.items() if name.startswith(INPUT)}
    rows = Dataset(inputs, content.get("labels"), content["truncated"], facts)
    if not inputs or rows.sha256 != str(content["sha256"]):
        raise UserError(f"{path} does not match its sha256 {str(content['sha256'])[:12]}; {records.anew(path)}")
    return rows


def save_outputs(path: Path | str, outputs: Mapping[str, NDArray[Any]], rows: Dataset) -> None:
    """Write what a model answers to the rows, (rows, *dims) float32 by output."""
    pool.save_outputs(path, outputs, rows.sha256)


def load_outputs(path: Path | str, rows: Dataset) -> Arrays:
    """Read what a model answered.

    Raises:
        UserError: Missing, damaged, or answers to other rows.
    """
    return pool.load_outputs(path, rows.sha256)


def rows_at_once(workload: Workload, shape: Shape) -> int:
    """How many rows one inference takes.

    Raises:
        CellFailure: The first dimension of some input or output is not the rows'.
    """
    sizes = [_first(tensor, shape) for tensor in (*workload.inputs, *workload.outputs)]
    for tensor, size in zip((*workload.inputs, *workload.outputs), sizes, strict=True):
        if size is None or size != sizes[0]:
            raise CellFailure("unsupported", f"the first dimension of {tensor.name} at {shape} is not that of rows")
    assert sizes[0] is not None
    return sizes[0]


def _first(tensor: TensorSpec, shape: Shape) -> int | None:
    """Size of a tensor's first dimension; None where it has none, or its axis follows from no input."""
    if not tensor.dims:
        return None
    return shape.get(tensor.dims[0]) if isinstance(tensor.dims[0], str) else tensor.dims[0]
