"""What ``torch.compile`` makes of sizes, on any device: how it is told, how many graphs it made, which shapes run them.

``sizes``, an option of the runners that compile, is one of the values of the setting of that name. ``automatic``, as
PyTorch is by default: the first shape gets a graph of its own, the second one a graph whose sizes are symbols where
both differ. ``constant``: each shape gets a graph. ``symbolic``: sizes are symbols from the first on. ``marked``: the
axes of the workload alone are, as ``mark_dynamic`` says it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ceilings.workload.workload import Workload

AUTOMATIC, CONSTANT, SYMBOLIC, MARKED = "automatic", "constant", "symbolic", "marked"
DYNAMIC = {AUTOMATIC: None, CONSTANT: False, SYMBOLIC: True, MARKED: None}
"""The argument of ``torch.compile`` of that name."""

REGION = "Torch-Compiled Region"
"""What PyTorch's profiler calls a call of compiled code."""


def sizes_of(options: Mapping[str, Any]) -> str:
    """What a runner's options say of sizes."""
    return str(options.get("sizes", AUTOMATIC))


def mark(workload: Workload, slot: Sequence[torch.Tensor], options: Mapping[str, Any]) -> None:
    """Mark the axes of a slot's tensors as symbols, where the options ask for it."""
    if sizes_of(options) != MARKED:
        return
    for tensor, value in zip(workload.inputs, slot, strict=True):
        for index, dim in enumerate(tensor.dims):
            if isinstance(dim, str):  # a size of 1 stays a constant: of a symbol PyTorch would refuse it
                torch._dynamo.maybe_mark_dynamic(value, index)


def compilations() -> int:
    """Graphs that this process compiled so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def runs_compiled(answer: Callable[[], Any]) -> bool:
    """Whether compiled code answers a call. Beyond its limit PyTorch compiles no more and says so in its log only.

    By the profiler's events: no counter tells a graph that serves a new shape from none that does.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        answer()
    return any(event.name.startswith(REGION) for event in profile.events() or ())


def facts(options: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs beside the numbers of a compiled cell."""
    from torch._dynamo.utils import counters

    return {
        "sizes": sizes_of(options),
        "graphs": compilations(),
        "graph_breaks": sum(counters["graph_break"].values()),
        "recompile_limit": torch._dynamo.config.recompile_limit,
    }
