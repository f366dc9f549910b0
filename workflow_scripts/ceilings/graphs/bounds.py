"""Which sizes of its axes a model takes, as its weights folder says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ceilings.models import weights_folder


@dataclasses.dataclass(frozen=True)
class Bounds:
    """``limits``: the largest size of an axis; ``fixed``: its only size. Axes without a bound are in neither."""

    limits: Mapping[str, int]
    fixed: Mapping[str, int]

    def size(self, axis: str, wanted: int) -> int:
        """The size nearest to a wanted one."""
        return self.fixed.get(axis, min(wanted, self.limits.get(axis, wanted)))


def bounds(weights_dir: Path | str) -> Bounds:
    """The bounds of a model."""
    known = weights_folder.limits(weights_dir)
    return Bounds(
        {axis: high for axis, (low, high) in known.items() if low < high},
        {axis: high for axis, (low, high) in known.items() if low == high},
    )
