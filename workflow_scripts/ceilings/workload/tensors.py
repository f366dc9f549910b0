"""What a model reads and writes: name, type and named dimensions of each tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ceilings.workload.shape import Shape

ITEM_BYTES = {"bool": 1, "uint8": 1, "int8": 1, "float16": 2, "int32": 4, "float32": 4, "int64": 8, "float64": 8}
"""Element types of inputs and outputs, as NumPy names them, and bytes an element."""

CONTENTS = {
    "tokens": "ids of a vocabulary",
    "mask": "1 for what counts, 0 for padding",
    "zeros": "0 everywhere, such as the segment of a single text",
    "pixels": "a normalised image",
    "integers": "whole numbers from low to high",
    "reals": "standard normal numbers",
}
"""What an input holds, so how one is made."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model's interface.

    Attributes:
        name: As the model's signature or the graph calls it.
        dtype: Element type, a key of ``ITEM_BYTES``.
        dims: Each an axis's name or a fixed size: ``("batch", 3, "image", "image")``.
        content: Of an input, a key of ``CONTENTS``; empty for an output.
        low, high: Of ``tokens`` and ``integers``, the smallest and largest value, both included.
    """

    name: str
    dtype: str
    dims: tuple[str | int, ...]
    content: str = ""
    low: int = 0
    high: int = 0

    def sizes(self, shape: Shape) -> tuple[int, ...]:
        """Its dimensions at a shape.

        >>> TensorSpec("pixel_values", "float32", ("batch", 3, "image", "image")).sizes(Shape.parse("b2-i224"))
        (2, 3, 224, 224)
        """
        return tuple(shape[dim] if isinstance(dim, str) else dim for dim in self.dims)

    def nbytes(self, shape: Shape) -> int:
        """Its bytes at a shape."""
        total = ITEM_BYTES[self.dtype]
        for size in self.sizes(shape):
            total *= size
        return total

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` takes it."""
        return {**dataclasses.asdict(self), "dims": list(self.dims)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TensorSpec:
        """Of a JSON object."""
        return cls(**{**value, "dims": tuple(value["dims"])})
