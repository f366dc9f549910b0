"""The command that builds the same engine with NVIDIA's own tool, every flag explicit."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from ceilings.engines.profiles import PARTS, Profile
from ceilings.workload.shape import Shape


def command(
    builder: str,
    graph: str,
    engine: str,
    inputs: Mapping[str, Sequence[str | int]],
    profiles: Sequence[Profile],
    *,
    tf32: bool,
    optimization_level: int,
    workspace_mb: int | None,
    version_compatible: bool,
    hardware_compatibility: str,
    timing_cache: str | None,
    capability: tuple[int, int] | None,
) -> str:
    """A shell command: ``trtexec`` of the builder's own version, or ``tensorrt_rtx``, as RTX's is called.

    Args:
        builder: A name of ``ceilings.engines.catalogue``.
        graph, engine: Paths.
        inputs: Dimensions of the graph's inputs, each an axis or a fixed size.
        profiles: In the engine's order; of a graph whose axes are all fixed they are left out.
        tf32, optimization_level, workspace_mb, version_compatible, hardware_compatibility: As in ``Settings``.
        timing_cache: Path; None where the builder keeps none.
        capability: Compute capability that RTX builds for.
    """
    words = ["tensorrt_rtx" if builder == "tensorrt-rtx" else "trtexec", f"--onnx={graph}"]
    if builder == "tensorrt10":
        words.append("--stronglyTyped")  # always on in TensorRT 11 and RTX
    dynamic = {name: dims for name, dims in inputs.items() if any(isinstance(dim, str) for dim in dims)}
    for index, profile in enumerate(profiles if dynamic else ()):
        words += [f"--profile={index}"] if len(profiles) > 1 else []
        for part, shape in zip(PARTS, profile.shapes(), strict=True):
            words.append(f"--{part}Shapes={','.join(_shape(name, dims, shape) for name, dims in dynamic.items())}")
    words.append(f"--builderOptimizationLevel={optimization_level}")
    words += [] if tf32 else ["--noTF32"]
    words += [] if workspace_mb is None else [f"--memPoolSize=workspace:{workspace_mb}M"]
    words += ["--versionCompatible"] if version_compatible else []
    levels = {"ampere-plus": "ampere+", "same-compute-capability": "sameComputeCapability"}
    if hardware_compatibility in levels:
        words.append(f"--hardwareCompatibilityLevel={levels[hardware_compatibility]}")
    words += [] if timing_cache is None else [f"--timingCacheFile={timing_cache}"]
    words += [] if capability is None else ["--computeCapabilities={}{}".format(*capability)]
    words += ["--profilingVerbosity=detailed", "--skipInference", f"--saveEngine={engine}"]
    return shlex.join(words)


def _shape(name: str, dims: Sequence[str | int], shape: Shape) -> str:
    """An input at a shape; ``?`` for an axis of which the profile has no range, with which no engine can be built."""
    known = dict(shape.sizes)
    sizes = (known.get(dim, "?") if isinstance(dim, str) else dim for dim in dims)
    return f"{name}:{'x'.join(map(str, sizes))}"
