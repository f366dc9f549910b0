"""Whether a runtime can run on a host, and if not, why and what would help. Standard library only."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable

from ceilings import packages
from ceilings.engines import libraries
from ceilings.engines.catalogue import BUILDERS, Builder
from ceilings.host import Host
from ceilings.models.catalogue import FAMILIES
from ceilings.models.outline import Outline
from ceilings.runtimes.catalogue import MINIMUM_CAPABILITY, REWRITTEN, Runtime
from ceilings.workload.generation import is_request, phase
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS

NOT_QUANTISED = "models that generate are not quantised here"
"""Why a runtime that quantises otherwise does not quantise these."""

TITLES = {"tensorrt10": "TensorRT 10", "tensorrt11": "TensorRT 11", "tensorrt-rtx": "TensorRT for RTX"}


@dataclasses.dataclass(frozen=True)
class Availability:
    """Whether a runtime can run here; if not, why and what would help."""

    reason: str | None = None
    remedy: str | None = None

    def __bool__(self) -> bool:
        return self.reason is None


def availability(runtime: Runtime, precision: str, host: Host) -> Availability:
    """Whether ``runtime`` can run ``precision`` on ``host``, with the reason and the remedy if not."""
    if runtime.device == "cuda":
        if host.gpu is None:
            return Availability(host.gpu_problem, "run on a machine with an NVIDIA GPU and its driver")
        needed = MINIMUM_CAPABILITY.get(precision, (0, 0))
        if host.gpu.capability < needed:
            return Availability(
                f"{host.gpu.name} has compute capability {_dotted(host.gpu.capability)}; {precision} needs "
                f"{_dotted(needed)}",
                "run on a newer GPU or drop the precision",
            )
        have = _dotted(host.gpu.capability)
        if runtime.capabilities and not any(fnmatch.fnmatch(have, pattern) for pattern in runtime.capabilities):
            return Availability(
                f"{host.gpu.name} has compute capability {have}; {runtime.name} runs on "
                f"{', '.join(runtime.capabilities).replace('*', 'x')} only",
                "run on such a GPU, or measure another runtime here",
            )
    if runtime.builder and not (missing := _generation(BUILDERS[runtime.builder])):
        return missing
    for package, version in installed(runtime.packages).items():
        if version is None:
            return Availability(f"package {package} is not installed", f"pip install {package}")
        if runtime.device == "cuda" and version.endswith("+cpu"):
            return Availability(f"{package} {version} is a CPU build", f"install a CUDA build of {package}")
    if runtime.library and not libraries.find(runtime.library):
        return Availability(
            f"{runtime.library} is neither where the dynamic linker looks nor in an installed package",
            f"install TensorRT's libraries ({_package_of(runtime.library)}), or name their folder in LD_LIBRARY_PATH",
        )
    return Availability()


def of_model(runtime: Runtime, model: str, outline: Outline, precision: str) -> Availability:
    """Whether a model has what ``runtime`` executes in a precision, wherever it runs; with reason and remedy if not."""
    if outline.family:
        for package, version in installed(FAMILIES[outline.family].packages).items():
            if version is None:
                reason = f"package {package} is not installed, which models of the family {outline.family} need"
                return Availability(reason, f"pip install {package}")
    task = TASKS[outline.task]
    if not runtime.module_of(task):
        if task.generates:
            remedy = "measure it on a runtime that does"
            if runtime.builder and runtime.engine == "static":
                path = f"engines/DEVICE/{runtime.builder}/{model}/{precision}/SHAPE.engine"
                remedy += f"; the engine of its forward passes can be built: snakemake --cores 1 results/{path}"
            return Availability(f"{runtime.name} generates no text", remedy)
        return Availability(
            f"{runtime.name} only generates text, and {model} does not", "measure it on another runtime"
        )
    if task.generates and precision not in runtime.generates:
        can = [one for one in runtime.precisions if one in runtime.generates]
        return Availability(
            f"{runtime.name} generates no text in {precision}: "
            + (NOT_QUANTISED if precision in ("int8", "fp8") else "it has no attention with a cache in that type"),
            f"measure it in {', '.join(can)}" if can else "measure it on another runtime",
        )
    if runtime.artifact == "weights" and not outline.has_weights:
        return Availability(
            f"{model} is an ONNX file, and {runtime.name} executes PyTorch modules",
            "name the checkpoint that it was exported from (hub or path) as a model of its own",
        )
    if runtime.artifact in REWRITTEN and outline.fusion is None:
        of = f"the architecture {outline.architecture}" if outline.architecture else f"{model}, an ONNX file"
        return Availability(f"no fusion of {of} is known", "measure it on a runtime without fusion")
    return Availability()


def of_shape(runtime: Runtime, shape: Shape) -> Availability:
    """Whether ``runtime`` does at a shape what its levers say, with reason and remedy if not."""
    if runtime.prefills_as and is_request(shape) and phase(shape) == "prefill":
        return Availability(
            f"{runtime.name} differs from {runtime.prefills_as} in decode steps alone: its prefill is that one's",
            f"measure it on {runtime.prefills_as}",
        )
    return Availability()


def _generation(builder: Builder) -> Availability:
    """Whether a generation of TensorRT is installed: two of them cannot be, in one environment."""
    if builder.installed():
        return Availability()
    others = {name: version for name, version in packages.versions(builder.distributions).items() if version}
    remedy = f"run in an environment with it: envs/{builder.name}.yaml"
    for name, version in others.items():
        return Availability(f"{name} is {version}; {builder.name} needs {builder.major}.x", remedy)
    return Availability(f"{TITLES[builder.name]} is not installed", remedy)


def _package_of(library: str) -> str:
    """The vendor's package that brings a library."""
    major = library.rsplit(".", 1)[1]
    return "tensorrt-rtx" if "rtx" in library else f"tensorrt-cu13-libs=={major}.*"


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def installed(needed: Iterable[str]) -> dict[str, str | None]:
    """Version of each package; of ``a|b`` the first one that is installed, else ``a``. None: not installed."""
    found = [packages.versions(package.split("|")) for package in needed]
    return dict(next((pair for pair in either.items() if pair[1]), next(iter(either.items()))) for either in found)
