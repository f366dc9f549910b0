"""What shapes a latency or a capture is what is imported for it: no catalogue, and nothing that makes inputs."""

from __future__ import annotations

import ast
import sys

import pytest
from unit.test_rooms import PACKAGE, imports

from ceilings.runtimes.catalogue import RUNTIMES

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
        ("measure.changing_worker",),
        ("measure.colocation_worker", "measure.instance", "measure.gpu_watch"),
        ("measure.overlap_worker", "measure.lanes", "measure.schedules", "measure.gpu_watch"),
        ("traces.overlap_target", "measure.lanes", "traces.cupti"),
        ("traces.target", "traces.recorder", "traces.cupti", "traces.arguments"),
        ("traces.budget_record", "traces.engine_layers", "traces.health", "traces.store", "traces.perfetto"),
    ],
    ids=["cpu", "cuda", "changing", "colocation", "overlap", "overlap capture", "capture", "budget"],
)
def test_a_new_model_runtime_or_plot_makes_nothing_anew(modules):
    every = reached(*modules)
    assert set(modules) <= every
    wrong = {name for name in every for part in FORBIDDEN if name.startswith(part) or name.endswith(part)}
    assert wrong == set()


def test_a_cell_on_a_cpu_depends_on_nothing_of_cuda():
    every = reached("measure.supervisor", "measure.worker", "measure.cpu_bench", "measure.measurements.closed_loop")
    assert not {name for name in every if "cuda" in name or "gpu" in name}


def test_a_co_location_on_a_cpu_depends_on_nothing_of_cuda_either():
    every = reached("measure.supervisor", "measure.colocation_worker", "measure.instance", "measure.cpu_bench")
    assert not {name for name in every if "cuda" in name or "gpu" in name}


LIBRARIES = {
    "ceilings_fused": {"torch", "triton"},
    "ceilings_fused_generating": {"torch", "triton"},
    "onnxruntime_changing_cpu": {"onnxruntime"},
    "onnxruntime_changing_cuda": {"onnxruntime"},
    "onnxruntime_cpu": {"onnxruntime"},
    "onnxruntime_cuda": {"onnxruntime"},
    "onnxruntime_generating_cpu": {"onnxruntime"},
    "onnxruntime_generating_cuda": {"onnxruntime"},
    "onnxruntime_tensorrt": {"onnxruntime"},
    "onnxruntime_tensorrt_rtx": {"onnxruntime", "onnxruntime_ep_nv_tensorrt_rtx"},
    "tensorrt_changing_cuda": set(),
    "tensorrt_native": set(),  # by name, of its generation
    "torch_changing_cpu": {"torch"},
    "torch_changing_cuda": {"torch"},
    "torch_compile_changing_cpu": {"torch"},
    "torch_compile_cpu": {"torch"},
    "torch_cpu": {"torch"},
    "torch_cuda": {"torch"},
    "torch_generating_cpu": {"torch"},
    "torch_generating_cuda": {"torch"},
    "torch_operator_cuda": {"torch", "triton"},
    "vllm_generating": set(),  # when its engine starts
}
"""By module of a runtime, what its process may import at once beside NumPy and CUDA's bindings."""


def libraries(path):
    """Third-party top-level packages that a module imports when it is imported."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        found |= {name.partition(".")[0] for name in names}
    return found - set(sys.stdlib_module_names) - {"ceilings"}


@pytest.mark.parametrize("module", LIBRARIES)
def test_a_process_imports_only_the_libraries_of_its_runtime(module):
    device = "cuda" if any(part in module for part in ("cuda", "fused", "tensorrt", "vllm")) else "cpu"
    measurements = ("closed_loop", "saturated", *(("boundaries", "cold_cache") if device == "cuda" else ()))
    worker = "changing_worker" if "changing" in module else "worker"
    parts = (f"runtimes.{module}", f"measure.{worker}", f"measure.{device}_bench")
    every = reached(*parts, *(f"measure.measurements.{name}" for name in measurements))
    found = set().union(*(libraries(module_of(name)[1]) for name in every))
    allowed = {"numpy", *({"cuda", "pycuda"} if device == "cuda" else ())}
    assert found - allowed <= LIBRARIES[module]


def test_every_runtime_s_module_has_its_libraries():
    modules = {module for one in RUNTIMES.values() for module in (one.module, one.generator, one.changing) if module}
    assert modules == set(LIBRARIES)
