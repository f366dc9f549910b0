"""Advice on the next lever, as the pages show it."""

from __future__ import annotations

from typing import Protocol

NOTHING = "nothing"
"""The lever of advice where no change is worth its measuring."""

SURELY = 1.005
"""A gain below this is none."""


class NextLever(Protocol):
    """A change that is expected to move the best cell of a model and device.

    Attributes:
        lever: Its name; ``NOTHING`` where no change is worth its measuring.
        change: What to do, in words.
        factor: Lowest and highest predicted ratio of the latency after over that before.
        because: Why, in a sentence.
        snippet: YAML of the study that would test it.
        per_inference: Whether the ratio is of latencies over their batches.
    """

    @property
    def model(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def lever(self) -> str: ...
    @property
    def change(self) -> str: ...
    @property
    def factor(self) -> tuple[float, float]: ...
    @property
    def because(self) -> str: ...
    @property
    def snippet(self) -> str: ...
    @property
    def per_inference(self) -> bool: ...


def gain(one: NextLever) -> str:
    """``expected 1.2 to 1.5× faster``; a range that holds 1 is ``up to``; empty where nothing is left to change."""
    if one.lever == NOTHING:
        return ""
    low, high = 1 / max(one.factor), 1 / min(one.factor)
    if high <= SURELY:
        return "no gain expected"
    shown = f"up to {high:.2g}×" if low <= SURELY else f"{low:.2g} to {high:.2g}×"
    return f"expected {shown} faster{' per inference' if one.per_inference else ''}"
