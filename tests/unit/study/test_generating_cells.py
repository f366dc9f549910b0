"""Which shapes of requests a runtime is measured at, before anything runs."""

from __future__ import annotations

from ceilings.runtimes.catalogue import GRAPH, RUNTIMES
from ceilings.study.availability import of_shape
from ceilings.workload.shape import Shape

STEP, PREFILL, SINGLE = (Shape.parse(name) for name in ("b1-p128-g128", "b1-p128-g1", "b1-s128"))


def test_a_prefill_that_is_not_captured_is_no_cell_of_a_runtime_with_a_cuda_graph():
    """Beside the runtime without a graph it would show that a graph buys a prefill nothing, and there was none."""
    (only,) = (entry for entry in RUNTIMES.values() if entry.captures_steps)
    assert GRAPH in only.levers and only.generator
    lacking = of_shape(only, PREFILL)
    assert "of decode steps alone" in str(lacking.reason)
    assert str(lacking.remedy).removeprefix("measure it on ") in RUNTIMES
    for entry in RUNTIMES.values():
        assert of_shape(entry, STEP) and of_shape(entry, SINGLE)
        assert bool(of_shape(entry, PREFILL)) is (entry is not only)
