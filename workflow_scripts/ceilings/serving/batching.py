"""How a server joins requests, and the batches that follow. Standard library only: plans are made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Batching:
    """How a server joins requests.

    Attributes:
        largest: Rows of a batch at most. A row is one input: a request of batch 4 has four.
        delay_ms: How long a request may wait for others.
        preferred: Batches that are executed without waiting any longer.
        pad: Whether a batch is filled up to the next of ``preferred`` and ``largest``.
    """

    largest: int
    delay_ms: float = 0.0
    preferred: tuple[int, ...] = ()
    pad: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Batching:
        """Of a study's or a task's entry."""
        return cls(**{**value, "preferred": tuple(value.get("preferred", ()))})

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` takes it."""
        return {**dataclasses.asdict(self), "preferred": list(self.preferred)}


def batches(rows: int, batching: Batching | None) -> tuple[int, ...]:
    """The batches that are executed for requests of so many rows.

    >>> batches(1, None), batches(2, Batching(largest=8)), batches(1, Batching(8, preferred=(4,), pad=True))
    ((1,), (2, 4, 6, 8), (4, 8))
    """
    if batching is None:
        return (rows,)
    if batching.pad:
        return tuple(sorted({size for size in (*batching.preferred, batching.largest) if size >= rows}))
    return tuple(range(rows, batching.largest + 1, rows))
