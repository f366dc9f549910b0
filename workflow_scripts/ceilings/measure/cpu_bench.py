"""The bench of a CPU: work that is done when its call returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ceilings.measure.bench import Bench
from ceilings.measure.loop import closed_loop, saturated


class CpuBench(Bench):
    """Measures a :class:`ceilings.runtimes.base.Runner`."""

    def closed_loop(
        self, submit: Callable[[Any], Any] | None = None, *, items: Sequence[Any] | None = None, main: bool = False
    ) -> dict[str, Any]:
        protocol = self.protocol if main else self.shorter
        launch = submit or self.runner.launch
        if items is not None:
            return closed_loop(launch, items, protocol)
        warmed = self.runner.runs_ns[1:] if main else ()
        every = self.runner.iterations(self.slots)
        return closed_loop(launch, every, protocol, warmed, prepare=self.runner.activate, whole=self.whole)

    def saturated(self) -> dict[str, Any]:
        return saturated(self.runner.launch, self.slots, self.protocol, self.batch)


BENCH = CpuBench
