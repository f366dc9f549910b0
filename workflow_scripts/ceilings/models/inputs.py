"""Making the input pool that every runtime is measured with. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ceilings.errors import CellFailure, UserError
from ceilings.models import images, pool, tokens, weights_folder
from ceilings.workload.shape import Shape
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which inputs: ``pool`` distinct ones, drawn with ``seed``, that follow ``lengths`` (see ``tokens.sample``).

    A benchmark walks round them, so that no cache sees one input twice in a row.
    """

    pool: int
    seed: int
    lengths: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Sample:
    """Inputs of one shape.

    Attributes:
        arrays: By tensor name: (count, *dims).
        source: Where they come from: ``corpus``, ``random``, ``texts`` (of a file) or ``spectrum`` (images).
        real_share: Mean share of the tokens that are no padding; 1 where nothing is padded.
    """

    arrays: dict[str, np.ndarray]
    source: str
    real_share: float


def sample(
    weights_dir: Path | str, shape: Shape, count: int, seed: int, lengths: Mapping[str, Any] | None = None
) -> Sample:
    """Distinct inputs of a model.

    Args:
        weights_dir: The model's weights folder.
        shape: Of each input.
        count: How many.
        seed: Same seed, same inputs.
        lengths: How much of each row is real: see ``tokens.sample``.

    Raises:
        UserError: The model cannot take the shape.
        CellFailure: It could not be made, or it allows no ``count`` distinct inputs, or no such lengths.
    """
    if count < 1:
        raise UserError(f"cannot make {count} inputs; ask for at least 1")
    workload = Workload.read(weights_dir)
    if missing := [axis for axis in workload.axes if shape.get(axis) is None]:
        raise UserError(f"shape {shape} lacks the axis {missing[0]!r}; {weights_dir} has {', '.join(workload.axes)}")
    weights_folder.refuse_impossible(weights_dir, shape)
    texts = [tensor for tensor in workload.inputs if tensor.content == "tokens"]
    if lengths and not texts:
        raise CellFailure("unsupported", f"{weights_dir} reads no tokens, so that no lengths apply to it")
    if lengths and (other := next((tensor for tensor in texts if tensor.dims[-1:] != ("sequence",)), None)):
        raise CellFailure(
            "unsupported", f"{other.name} has its tokens along another dimension than the last: no lengths"
        )
    rows: dict[tuple[int, ...], tokens.Rows] = {}
    arrays: dict[str, np.ndarray] = {}
    for tensor in texts:
        sizes = (count, *tensor.sizes(shape))
        drawn = tokens.sample(
            weights_dir, tensor, (int(np.prod(sizes[:-1])), sizes[-1]), seed=seed + len(rows), lengths=lengths
        )
        rows.setdefault(sizes, drawn)
        arrays[tensor.name] = drawn.ids.reshape(sizes).astype(tensor.dtype)
    for index, tensor in enumerate(workload.inputs):
        if tensor.name not in arrays:
            arrays[tensor.name] = _other(weights_dir, tensor, (count, *tensor.sizes(shape)), (seed, index), rows)
    arrays = {tensor.name: arrays[tensor.name] for tensor in workload.inputs}
    if len({pool.digest(element) for element in pool.elements(arrays)}) < count:
        raise CellFailure(
            "unsupported",
            f"cannot make {count} distinct inputs of {shape}; use a larger shape, fewer inputs, or more texts",
        )
    if not rows:
        source = "spectrum" if any(tensor.content == "pixels" for tensor in workload.inputs) else "random"
        return Sample(arrays, source, 1.0)
    first = next(iter(rows.values()))
    return Sample(arrays, first.source, float(first.mask.mean()))


def make_inputs(weights_dir: Path | str, shape: Shape, wanted: Wanted, output: Path | str) -> Sample:
    """Write a pool of distinct inputs. Same arguments, same bytes.

    Args:
        weights_dir: The model's weights folder.
        shape: Of each input.
        wanted: Which inputs.
        output: An ``.npz`` with ``input/{name}`` (pool, *dims) for each input, ``source``,
            ``real_share``, and ``sha256`` of all of it.

    Raises:
        UserError, CellFailure: See ``sample``.
    """
    if bool(shape.lengths) != bool(wanted.lengths):
        raise UserError(
            f"shape {shape} {'names' if shape.lengths else 'names no'} lengths, but --inputs has lengths "
            f"{wanted.lengths!r}; make them agree"
        )
    made = sample(weights_dir, shape, wanted.pool, wanted.seed, wanted.lengths)
    pool.save(
        output,
        **{pool.PREFIX + name: array for name, array in made.arrays.items()},
        sha256=np.array(pool.sealed(made.arrays, made.source, made.real_share)),
        source=np.array(made.source),
        real_share=np.array(made.real_share),
    )
    return made


def _other(
    weights_dir: Path | str,
    tensor: TensorSpec,
    sizes: tuple[int, ...],
    seed: tuple[int, int],
    rows: Mapping[tuple[int, ...], tokens.Rows],
) -> np.ndarray:
    """An input that holds no tokens."""
    rng = np.random.default_rng(seed)
    if tensor.content == "mask":
        values = rows[sizes].mask.reshape(sizes) if sizes in rows else np.ones(sizes)
    elif tensor.content == "zeros":
        values = np.zeros(sizes)
    elif tensor.content == "pixels" and len(sizes) > 3:
        values = images.sample(weights_dir, sizes, seed[0])
    elif tensor.content == "integers":
        values = rng.integers(tensor.low, tensor.high + 1, sizes)
    else:
        values = rng.standard_normal(sizes)
    return values.astype(tensor.dtype)
