"""What our code calls on TensorRT, against the real bindings of three generations."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
import real_bindings
from real_bindings import WHEELS, committed

PACKAGE = Path(__file__).parents[3] / "workflow_scripts" / "ceilings"
RUNNING = {"trt": None, "runtime": "Runtime", "engine": "ICudaEngine", "context": "IExecutionContext"}
BUILDING = {
    "trt": None,
    "builder": "Builder",
    "network": "INetworkDefinition",
    "tensor": "ITensor",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "error": "ParserError",
    "made": "IOptimizationProfile",
    "merged": "ITimingCache",
    "loaded": "ICudaEngine",
    "inspector": "EngineInspector",
}
HOLDS = {
    "runtimes/tensorrt_native.py": RUNNING,
    "runtimes/tensorrt_changing_cuda.py": RUNNING,
    "runtimes/layer_times.py": RUNNING,
    "engines/library.py": {"trt": None},
    "engines/builder.py": BUILDING,
}
"""What the names in each module hold through which it speaks to TensorRT: a class of it, or the module (None)."""

RTX_ONLY = {
    (None, "ComputeCapability"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}
"""Used only where a builder can name the capability that it builds for."""


@pytest.fixture(scope="session")
def folder(pytestconfig):
    return Path(pytestconfig.cache.mkdir("bindings"))


def offered(generation, folder, classes=real_bindings.CLASSES):
    try:
        return real_bindings.surface(generation, folder, tuple(classes))
    except real_bindings.NotFetched as error:
        pytest.skip(str(error))


def used(module: str) -> set[tuple[str | None, str, int | None, tuple[str, ...]]]:
    """(class, attribute, positional arguments or None if it is not called, named arguments) of a module's source."""
    tree, holds = ast.parse((PACKAGE / module).read_text()), HOLDS[module]
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := _last_name(node.value)) in holds:
            call = calls.get(id(node))
            count = len(call.args) if call and not any(isinstance(a, ast.Starred) for a in call.args) else None
            named = tuple(keyword.arg or "**" for keyword in call.keywords) if call else ()
            found.add((holds[name], node.attr, count, named))
    return found


def _last_name(node: ast.expr) -> str | None:
    """``engine`` of ``engine``, of ``self.engine`` and of ``runner.engine``."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


@pytest.mark.parametrize("generation", list(WHEELS))
def test_the_committed_surface_is_that_of_the_real_bindings(generation, folder):
    real = offered(generation, folder)
    kept = committed()[generation]
    assert kept == {"version": real["version"], "classes": real["classes"]}, (
        "look again: python tests/unit/runtimes/real_bindings.py FOLDER"
    )


@pytest.mark.parametrize("generation", list(WHEELS))
def test_every_call_of_ours_is_one_that_the_real_bindings_have(generation, folder):
    seen = set().union(*map(used, HOLDS))
    classes = sorted({owner for owner, *_ in seen if owner})
    real = offered(generation, folder, classes)
    assert {("IExecutionContext", "execute_async_v3"), ("Runtime", "deserialize_cuda_engine")} <= {s[:2] for s in seen}
    wrong = []
    for owner, attribute, count, named in sorted(seen, key=str):
        if generation != "rtx" and (owner, attribute) in RTX_ONLY:
            continue
        if owner is None:
            if attribute not in (*real["names"], "__version__"):
                wrong.append(f"the module has no {attribute}")
            continue
        offers = real["classes"][owner]
        if attribute in offers["properties"]:
            if count is not None:
                wrong.append(f"{owner}.{attribute} is a property and is called")
        elif attribute not in offers["methods"]:
            wrong.append(f"{owner} has no {attribute}")
        elif count is not None and not any(_takes(form, count, named) for form in offers["methods"][attribute]):
            wrong.append(f"{owner}.{attribute} does not take {count} arguments and {named}")
    assert not wrong


def _takes(form, count, named):
    required = {name for name, needed in form[count:] if needed}
    return count <= len(form) and required <= set(named) <= {name for name, _ in form[count:]}


WITHOUT_LIBRARY = """
import sys
sys.path.insert(0, sys.argv[2])
import importlib, types
for name in ("pycuda", "pycuda.driver"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["pycuda"].driver = sys.modules["pycuda.driver"]
from ceilings.runtimes import tensorrt_native
from ceilings.errors import CellFailure
trt = importlib.import_module(sys.argv[1])
runner = tensorrt_native.RUNNER("x.engine", "fp16", None, None, 1, {})
runner.trt, runner.log = trt, tensorrt_native.make_logger(trt)
runner.log.log(trt.ILogger.Severity.INFO, "unheard")
runner.log.log(trt.ILogger.Severity.ERROR, "no CUDA-capable device")
try:
    runner._runtime()
except CellFailure as failure:
    print(failure.kind, failure)
"""


@pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="cuda.bindings is not installed")
@pytest.mark.parametrize("generation", ["10", "11"])
def test_the_real_bindings_take_our_logger_and_what_they_raise_is_understood(generation, folder):
    """With the empty library no runtime is made: the bindings raise, and our logger's words are the reason."""
    offered(generation, folder)
    scripts = str(PACKAGE.parent)
    told = real_bindings.run(generation, folder, WITHOUT_LIBRARY, WHEELS[generation][1], scripts)
    assert told.startswith("runtime-error making a runtime (") and told.rstrip().endswith("no CUDA-capable device")
