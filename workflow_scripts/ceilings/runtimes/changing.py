"""What a runner of changing shapes offers: requests of any shape, one after another, in one process.

Mixed into a ``Runner`` (before it, so that its methods win). Its ``shape`` is that of the request at hand: ``at`` sets
it, untimed, before a slot of that shape is made or its outputs are read. ``answer`` is what is timed: one request to
its end, from slots that lie where the runtime wants them.
"""

from __future__ import annotations

from typing import Any

from ceilings.workload.shape import Shape


class Changing:
    """A runner of requests whose shapes change. Subclasses say what else they can count."""

    shape: Shape

    def at(self, shape: Shape) -> None:
        """Make ready to place a slot of a shape, or to read its outputs. Not timed."""
        self.shape = shape

    def answer(self, slot: Any) -> Any:
        """One request to its end; returns what ``outputs`` takes."""
        return self.launch(slot)  # type: ignore[attr-defined]

    def graphs_compiled(self) -> int | None:
        """Graphs compiled or captured so far; None where the runtime compiles none, or nobody can count."""
        return None

    def compiled(self, slot: Any) -> bool | None:
        """Whether compiled code answers a slot of a known shape; None where the runtime compiles none. Not timed."""
        return None

    def device_bytes(self) -> int | None:
        """Memory of the device in use; None on a CPU."""
        return None
