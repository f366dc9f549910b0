"""What several GPUs of one host do in windows of a co-location on separate cards, and whether others use them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from ceilings.measure.gpu_watch import GpuWatch


class CardsWatch:
    """Context that watches each card as :class:`GpuWatch` does.

    Args:
        pids: By the UUID of a card the process that computes on it.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._watches = {uuid: GpuWatch(uuid, {os.getpid(), pid}) for uuid, pid in pids.items()}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> CardsWatch:
        for watch in self._watches.values():
            self._stack.enter_context(watch)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, tb)

    def begin(self) -> None:
        """A window opens."""
        for watch in self._watches.values():
            watch.begin()

    def end(self) -> None:
        """A window closes. No number of one card stands for all of them, so a window has none."""
        for watch in self._watches.values():
            watch.end()

    def flags(self) -> list[str]:
        """Warnings that belong beside the numbers, each with its card."""
        return [f"card {n}: {flag}" for n, watch in enumerate(self._watches.values(), 1) for flag in watch.flags()]

    def facts(self) -> dict[str, Any]:
        """What does not change while measuring, of each card, and what NVML refused."""
        return {"cards": [{"uuid": uuid, **watch.facts()} for uuid, watch in self._watches.items()]}
