"""The workload of a module: inputs as its family says, outputs as they come out when it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ceilings.errors import CellFailure
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

if TYPE_CHECKING:
    import torch

OUTPUTS = {
    "question-answering": ("start_logits", "end_logits"),
    "sentence-embedding": ("embedding",),
    "image-embedding": ("embedding",),
    "speech-embedding": ("embedding",),
}
"""Names of the outputs of a task; of the others: ``logits``."""


def describe(
    module: torch.nn.Module,
    task: str,
    inputs: Sequence[TensorSpec],
    *,
    family: str,
    architecture: str,
    fixed: Mapping[str, int] | None = None,
) -> Workload:
    """The workload of a wrapped module, which is run at small sizes to see what its outputs' dimensions follow.

    Args:
        module: Takes the inputs in their order and returns the tuple of outputs.
        task: A key of ``TASKS``.
        inputs: What it reads.
        family: Its module below ``ceilings.models.families``.
        architecture: ``model_type`` of its configuration.
        fixed: Axes that have one size only.

    Raises:
        CellFailure: The module does not run on such inputs, or a dimension of an output follows an axis in another way
            than by being its size.
    """
    fixed = fixed or {}
    draft = Workload(TASKS[task], tuple(inputs), (), family, architecture)
    # A short sequence, which fits the shortest of models, and a quarter of a second.
    smallest = {"image": 64, "sequence": 2, "samples": 4000}
    base = {axis: fixed.get(axis, smallest.get(axis, 4)) for axis in draft.axes}
    names = OUTPUTS.get(task, ("logits",))
    sizes = _run(module, draft, base)
    dims: list[list[str | int]] = [list(size) for size in sizes]
    for axis in draft.axes:
        if axis in fixed:
            continue
        other = base[axis] * 2
        for output, (before, after) in enumerate(zip(sizes, _run(module, draft, {**base, axis: other}), strict=True)):
            for index, (small, large) in enumerate(zip(before, after, strict=True)):
                if small == large:
                    continue
                if (small, large) != (base[axis], other):
                    raise CellFailure(
                        "unsupported",
                        f"output {names[output]} of {architecture} has {small} and {large} along dimension {index} at "
                        f"{axis} {base[axis]} and {other}; only sizes of axes and fixed sizes are known",
                    )
                dims[output][index] = axis
    outputs = tuple(TensorSpec(name, "float32", tuple(dim)) for name, dim in zip(names, dims, strict=True))
    return Workload(TASKS[task], tuple(inputs), outputs, family, architecture)


def token_inputs(vocabulary: int, with_mask: bool) -> tuple[TensorSpec, ...]:
    """Inputs of a model of texts: ids and, where it takes one, the mask of what is no padding.

    Segment ids are left out: of a single text they are zero, which is what models take where none are given.
    """
    ids = TensorSpec("input_ids", "int64", ("batch", "sequence"), "tokens", 0, vocabulary - 1)
    mask = TensorSpec("attention_mask", "int64", ("batch", "sequence"), "mask")
    return (ids, mask) if with_mask else (ids,)


def pixel_input(channels: int, size: int | Sequence[int] | None) -> tuple[TensorSpec, dict[str, int]]:
    """The input of a model of images, and the axes of one size: square images have an axis ``image``."""
    if isinstance(size, Sequence) and len(set(size)) > 1:
        return TensorSpec("pixel_values", "float32", ("batch", channels, *size), "pixels"), {}
    edge = size[0] if isinstance(size, Sequence) else size
    spec = TensorSpec("pixel_values", "float32", ("batch", channels, "image", "image"), "pixels")
    return spec, {} if edge is None else {"image": edge}


def _run(module: torch.nn.Module, workload: Workload, axes: Mapping[str, int]) -> list[tuple[int, ...]]:
    """Sizes of the outputs at a shape."""
    import torch

    shape = Shape.of(axes)
    inputs = [torch.ones(tensor.sizes(shape), dtype=getattr(torch, tensor.dtype)) for tensor in workload.inputs]
    try:
        with torch.inference_mode():
            outputs = module.eval()(*inputs)
    except Exception as error:  # each class of a model checks its inputs in its own way
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise CellFailure(
            "unsupported",
            f"{workload.architecture} does not do {workload.task.name} of {shape}, one forward pass over any ids, "
            f"pixels or waveform: {line}; leave it out, or correct its config",
        ) from None
    return [tuple(output.shape) for output in outputs]
