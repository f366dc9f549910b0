"""Builds an engine from a typed ONNX graph: one interface over TensorRT 10, TensorRT 11 and TensorRT for RTX.

Precision is in the graph: networks are strongly typed, so the builder adds and removes none; only TF32 for products in
FP32 is a flag. What differs between the generations is named here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings.engines import attention_plugin
from ceilings.engines.catalogue import BUILDERS
from ceilings.engines.library import bindings, make_logger, make_monitor
from ceilings.engines.profiles import Profile
from ceilings.errors import CellFailure, UserError

QUANTIZED = ("int8", "fp8")
HARDWARE_LEVELS = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}
ERRORS_SHOWN = 3

REASONS = (
    (r"within workspace limit|insufficient workspace", "workspace"),
    (r"out of memory|OutOfMemory|allocat\w+ (has )?failed|cannot allocate", "out-of-memory"),
    (r"could not find any implementation|no implementation|not supported|unsupported", "unsupported"),
)
"""What the builder's messages say, and the class of failure that it is; the first that fits."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an engine is built.

    Attributes:
        builder: A name of ``ceilings.engines.catalogue``.
        precision: What the graph computes in, as the study names it.
        profiles: Ranges of shapes, one optimisation profile each.
        tf32: Whether FP32 products may use TF32 matrix units.
        optimization_level: 0 (fastest build) to 5 (longest search).
        workspace_mb: Memory for the layers' scratch space, in units of 2**20 bytes; None: all that the device has.
        version_compatible: Whether later versions of the generation can load it.
        hardware_compatibility: ``none``, or a key of ``HARDWARE_LEVELS``.
        capability: Compute capability to build for by name; None builds for the GPU at hand.
    """

    builder: str
    precision: str
    profiles: Sequence[Profile]
    tf32: bool = False
    optimization_level: int = 3
    workspace_mb: int | None = None
    version_compatible: bool = False
    hardware_compatibility: str = "none"
    capability: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Built:
    """An engine, and what is known of it.

    Attributes:
        engine: The plan, serialised.
        version: Of the library that built it, in full.
        seconds: By stage: ``parse`` and ``build``.
        network_layers: Layers of the network before optimisation.
        layers: The engine's layers as the builder lists them (``text``) or as its inspector does (``json``).
        layers_format: Which of the two.
        timing_cache: What it timed, for the next build; None where the generation keeps none.
        warnings: What the builder warned of, each once.
    """

    engine: bytes
    version: str
    seconds: dict[str, float]
    network_layers: int
    layers: str
    layers_format: str
    timing_cache: bytes | None
    warnings: list[str]


def build(graph: Path | str, settings: Settings, timing_cache: bytes = b"") -> Built:
    """Build an engine.

    Args:
        graph: A typed ONNX file.
        settings: How.
        timing_cache: What an earlier build timed.

    Raises:
        CellFailure: The graph, a profile or the workspace does not allow it.
        UserError: The library is not there, or the timing cache is not its own.
    """
    for index, profile in enumerate(settings.profiles):
        if problem := profile.problem():
            raise CellFailure("invalid-profile", f"profile {index}: {problem}")
    kind = BUILDERS[settings.builder]
    trt = bindings(kind)
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    start = time.monotonic()
    plugin = attention_plugin.register(trt) if attention_plugin.needed(graph) else None
    try:
        network = _parse(trt, builder, logger, graph)
    except CellFailure as failure:
        raise _refused(plugin) or failure from None
    _refuse_unquantized(trt, network, settings.precision)
    parsed = time.monotonic()
    config = builder.create_builder_config()
    _configure(trt, config, settings)
    _add_profiles(builder, network, config, settings.profiles, logger)
    cache = _start_cache(config, timing_cache) if kind.timing_cache else None
    monitor = make_monitor(trt, f"building {Path(graph).parent.name} {settings.precision}")
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refused(plugin) or _failure(logger.errors)
    done = time.monotonic()
    engine = bytes(memoryview(plan))
    layers, layers_format = _layers(trt, logger, engine, settings.capability is None)
    return Built(
        engine,
        trt.__version__,
        {"parse": round(parsed - start, 3), "build": round(done - parsed, 3)},
        network.num_layers,
        layers,
        layers_format,
        bytes(memoryview(config.get_timing_cache().serialize())) if cache is not None else None,
        logger.warnings,
    )


def merge_timing_caches(builder: str, caches: Sequence[bytes]) -> bytes:
    """One timing cache with the entries of several.

    Raises:
        UserError: One was made by another version or on another GPU.
    """
    trt = bindings(BUILDERS[builder])
    config = trt.Builder(make_logger(trt)).create_builder_config()
    merged = config.create_timing_cache(b"")
    for cache in caches:
        if not merged.combine(config.create_timing_cache(cache), False):
            raise UserError("the timing caches were made by different versions or GPUs; delete them and run again")
    config.set_timing_cache(merged, False)
    return bytes(memoryview(config.get_timing_cache().serialize()))


def _parse(trt: Any, builder: Any, logger: Any, graph: Path | str) -> Any:
    """The network of a graph, strongly typed: by a flag in TensorRT 10 and RTX, always in TensorRT 11.

    Raises:
        CellFailure: The parser refuses nodes; the message names them.
    """
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(graph)):
        return network
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = []
    for error in errors[:ERRORS_SHOWN]:
        node = f"{error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
        lines.append(f"{node}{error.desc().strip()}")
    more = f"; and {len(errors) - ERRORS_SHOWN} more" if len(errors) > ERRORS_SHOWN else ""
    scales = any(error.node_operator() in ("QuantizeLinear", "DequantizeLinear") for error in errors)
    raise CellFailure("missing-scales" if scales else "unsupported", f"the parser refuses {'; '.join(lines)}{more}")


def _refuse_unquantized(trt: Any, network: Any, precision: str) -> None:
    """A graph that is called int8 or fp8 and has no Q/DQ would be built in FP32 under a wrong name."""
    if precision in QUANTIZED:
        kinds = (network.get_layer(index).type for index in range(network.num_layers))
        if trt.LayerType.QUANTIZE not in kinds:
            raise CellFailure("missing-scales", f"the {precision} graph has no QuantizeLinear node, so no scales")


def _configure(trt: Any, config: Any, settings: Settings) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = settings.optimization_level
    if settings.hardware_compatibility != "none":
        level = HARDWARE_LEVELS[settings.hardware_compatibility]
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if settings.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mb << 20)
    for flag, wanted in (("TF32", settings.tf32), ("VERSION_COMPATIBLE", settings.version_compatible)):
        if wanted:
            config.set_flag(getattr(trt.BuilderFlag, flag))
        else:
            config.clear_flag(getattr(trt.BuilderFlag, flag))
    if settings.capability is not None:
        name = "SM{}{}".format(*settings.capability)
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)


def _add_profiles(builder: Any, network: Any, config: Any, wanted: Sequence[Profile], logger: Any) -> None:
    """One optimisation profile each; a graph whose axes are all fixed takes none, and only its own shape."""
    inputs = {tensor.name: _dims(tensor) for tensor in map(network.get_input, range(network.num_inputs))}
    dynamic = {name: dims for name, dims in inputs.items() if any(isinstance(dim, str) for dim in dims)}
    for profile in wanted:
        _refuse_unfit(profile, inputs)
        if not dynamic:
            continue
        made = builder.create_optimization_profile()
        for name, dims in dynamic.items():
            made.set_shape(
                name, *(tuple(shape[d] if isinstance(d, str) else d for d in dims) for shape in profile.shapes())
            )
        if config.add_optimization_profile(made) < 0:
            raise CellFailure("invalid-profile", f"the builder refuses {profile}: {'; '.join(logger.errors)}")


def _dims(tensor: Any) -> tuple[str | int, ...]:
    """Dimensions of an input: its axis by name where it is dynamic, else its size."""
    dims: list[str | int] = []
    for index, size in enumerate(tensor.shape):
        name = tensor.get_dimension_name(index) if size < 0 else size
        if not name:
            raise CellFailure("unsupported", f"dimension {index} of {tensor.name} is dynamic and has no name")
        dims.append(name)
    return tuple(dims)


def _refuse_unfit(profile: Profile, inputs: Mapping[str, Sequence[str | int]]) -> None:
    """A profile has a range of every dynamic axis of the graph, and of a fixed one exactly the graph's size."""
    dims = {dim for each in inputs.values() for dim in each}
    for name, each in inputs.items():
        if missing := [dim for dim in each if isinstance(dim, str) and dim not in profile.ranges]:
            raise CellFailure("invalid-profile", f"{profile} has no range of {missing[0]}, an axis of {name}")
    for axis, (low, _, high) in profile.ranges.items():
        if axis not in dims and not (low == high and low in dims):
            known = ", ".join(f"{name} {tuple(each)}" for name, each in inputs.items())
            raise CellFailure("outside-profiles", f"no input of the graph has the {axis} of {profile}: {known}")


def _start_cache(config: Any, content: bytes) -> Any:
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise UserError(
            "engines.timing_cache was made by another version of TensorRT or on another GPU; remove the key, or "
            "name one that this builder merged"
        )
    return cache


def _layers(trt: Any, logger: Any, engine: bytes, gpu: bool) -> tuple[str, str]:
    """The layers from the inspector, which needs the GPU that the engine is for; else from the builder's own list."""
    if gpu:
        loaded = trt.Runtime(logger).deserialize_cuda_engine(engine)
        if loaded is not None:
            inspector = loaded.create_engine_inspector()
            return inspector.get_engine_information(trt.LayerInformationFormat.JSON), "json"
    return logger.layers or "", "text"


def _refused(plugin: Any) -> CellFailure | None:
    """What a plug-in cannot read of the graph; None: nothing, or there is none."""
    return CellFailure("unsupported", plugin.refusals[0]) if plugin and plugin.refusals else None


def _failure(errors: Sequence[str]) -> CellFailure:
    """The class and the message of a build that gave nothing."""
    reasons = [error for error in errors if "catchCudaError" not in error] or ["it gave no reason"]
    text = " ".join("; ".join(reasons[:ERRORS_SHOWN]).split())[:600]
    for pattern, kind in REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            return CellFailure(kind, f"the builder gave up: {text}")
    return CellFailure("build-failed", f"the builder gave up: {text}")
