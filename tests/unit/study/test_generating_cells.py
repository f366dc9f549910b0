"""Which shapes of requests a runtime is measured at, before anything runs."""

from __future__ import annotations

from ceilings.runtimes.catalogue import GRAPH, RUNTIMES
from ceilings.study.availability import of_shape
from ceilings.workload.shape import Shape

STEP, PREFILL, SINGLE = (Shape.parse(name) for name in ("b1-p128-g128", "b1-p128-g1", "b1-s128"))


def test_a_prefill_that_is_another_runtime_s_is_no_cell():
    """Beside that runtime it would show that a graph or our kernels buy a prefill nothing, and there were none."""
    alike = {name: entry.prefills_as for name, entry in RUNTIMES.items() if entry.prefills_as}
    assert alike == {
        "onnxruntime-cuda-fused-graph": "onnxruntime-cuda-fused",
        "ceilings-fused": "torch-cudagraph",
        "ceilings-fused-serial": "torch-cudagraph",
    }
    for name, entry in RUNTIMES.items():
        assert of_shape(entry, STEP) and of_shape(entry, SINGLE)
        lacking = of_shape(entry, PREFILL)
        assert bool(lacking) is (name not in alike)
        if name in alike:
            other = RUNTIMES[alike[name]]
            assert GRAPH in entry.levers and entry.generator and of_shape(other, PREFILL)
            assert lacking.remedy == f"measure it on {other.name}" and "in decode steps alone" in str(lacking.reason)
