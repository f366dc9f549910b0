"""What shapes a latency or a capture is what is imported for it: no catalogue, and nothing that makes inputs."""

from __future__ import annotations

import pytest
from unit.test_rooms import PACKAGE, imports

FORBIDDEN = ("catalogue", "models.inputs", "models.reference", "models.load", "models.families", "study", "report")


def module_of(name):
    """The module that a dotted name is or lies in, and its file; None for a name that is no module of ours."""
    for parts in (name.split("."), name.split(".")[:-1]):
        base = PACKAGE.joinpath(*parts)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if parts and path.is_file():
                return ".".join(parts), path
    return None


def reached(*modules):
    """All modules of ours that these import, at any remove."""
    waiting, seen = list(modules), set()
    while waiting:
        known = module_of(waiting.pop())
        if known and known[0] not in seen:
            seen.add(known[0])
            waiting += imports(known[1])
    return seen


@pytest.mark.parametrize(
    "modules",
    [
        ("measure.supervisor", "measure.worker", "measure.cpu_bench", "measure.measurements.saturated"),
        ("measure.cuda_bench", "measure.measurements.boundaries", "measure.measurements.cold_cache"),
        ("traces.target", "traces.recorder", "traces.cupti", "traces.arguments"),
        ("traces.budget_record", "traces.engine_layers", "traces.health", "traces.store", "traces.perfetto"),
    ],
    ids=["cpu", "cuda", "capture", "budget"],
)
def test_a_new_model_runtime_or_plot_makes_nothing_anew(modules):
    every = reached(*modules)
    assert set(modules) <= every
    wrong = {name for name in every for part in FORBIDDEN if name.startswith(part) or name.endswith(part)}
    assert wrong == set()


def test_a_cell_on_a_cpu_depends_on_nothing_of_cuda():
    every = reached("measure.supervisor", "measure.worker", "measure.cpu_bench", "measure.measurements.closed_loop")
    assert not {name for name in every if "cuda" in name or "gpu" in name}
