"""Sessions of ONNX Runtime: how one is opened, and whether its graph has the workload's inputs and outputs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import onnxruntime

from ceilings import records
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import operator_library
from ceilings.workload.shape import Shape
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

ELEMENT_TYPES = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
"""ONNX Runtime's names of element types, and NumPy's."""

ONNX_NUMBERS = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "bfloat16": 16,
}
"""onnx.TensorProto's numbers of element types; as numbers, because numpy has no bfloat16."""


POWERS, EXACT = "next-power-of-two", "same-as-requested"
STRATEGIES = {POWERS: "kNextPowerOfTwo", EXACT: "kSameAsRequested"}
"""Our names of how an arena grows, and ONNX Runtime's; it numbers them in this order."""

SEARCHES = {"exhaustive": "EXHAUSTIVE", "heuristic": "HEURISTIC", "default": "DEFAULT"}
"""Our names of how the CUDA provider chooses a convolution's algorithm, and its."""

OFF = "off"

WITHOUT_PREPACKING, SHARED_ARENA = "session.disable_prepacking", "session.use_env_allocators"


def session_options(
    threads: int, shape: Shape | None = None, chosen: Mapping[str, Any] = MappingProxyType({})
) -> onnxruntime.SessionOptions:
    """Options to use ``threads`` threads within an operator, and to fix the axes to ``shape`` if one is given.

    Axes are found by name: the symbolic dimensions of a graph's inputs are called as the workload's axes.

    Args:
        chosen: A runner's options, of which the settings are read that are the session's whatever the provider.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for axis, size in shape.sizes if shape else ():
        options.add_free_dimension_override_by_name(axis, size)
    options.enable_mem_pattern = chosen.get("memory-pattern") != OFF
    if chosen.get("prepacking") == OFF:
        options.add_session_config_entry(WITHOUT_PREPACKING, "1")
    return options


def cpu_session_options(threads: int, chosen: Mapping[str, Any]) -> onnxruntime.SessionOptions:
    """The same for the CPU provider, with its arena; axes stay symbolic."""
    options = session_options(threads, chosen=chosen)
    options.enable_cpu_mem_arena = chosen.get("arena") != OFF
    if chosen.get("arena") == EXACT:
        _register_exact_arena()
        options.add_session_config_entry(SHARED_ARENA, "1")
    return options


@functools.cache
def _register_exact_arena() -> None:
    """Have the sessions of this process that ask for it share an arena: a session's own grows by powers of two."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    strategy = list(STRATEGIES).index(EXACT)
    defaults = {"max_mem": 0, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    arena = onnxruntime.OrtArenaCfg({"arena_extend_strategy": strategy, **defaults})
    onnxruntime.create_and_register_allocator(memory, arena)


def cuda_settings(chosen: Mapping[str, Any]) -> dict[str, str]:
    """The CUDA provider's options that a runner's settings say."""
    return {
        "arena_extend_strategy": STRATEGIES[chosen.get("arena", EXACT)],
        "cudnn_conv_algo_search": SEARCHES[chosen.get("convolution-search", "exhaustive")],
    }


def applied(session: onnxruntime.InferenceSession) -> dict[str, bool]:
    """What a session has of the settings that it keeps itself, as it says."""
    options = session.get_session_options()
    return {
        "memory_pattern": options.enable_mem_pattern,
        "cpu_arena": options.enable_cpu_mem_arena,
        "shared_arena": _entry(options, SHARED_ARENA) == "1",
        "prepacking": _entry(options, WITHOUT_PREPACKING) != "1",
    }


def _entry(options: onnxruntime.SessionOptions, key: str) -> str:
    """An entry of a session's configuration; empty where it is not set."""
    with contextlib.suppress(RuntimeError):
        return str(options.get_session_config_entry(key))
    return ""


def open_session(
    graph: Any,
    options: onnxruntime.SessionOptions,
    providers: list[Any],
    without: list[str] | None = None,
    retry: bool = True,
) -> onnxruntime.InferenceSession:
    """Open a session; what a runtime cannot run becomes a CellFailure, what is damaged a UserError.

    Args:
        graph: Its path; if it has our operators, their library lies beside it.
        without: Names of ORT's optimizers to leave out.
        retry: Whether ORT may open it with its own choice of providers if these fail, which it says on stdout only.
    """
    operator_library.register(options, graph)
    try:
        return onnxruntime.InferenceSession(
            str(graph), options, providers=providers, disabled_optimizers=without, enable_fallback=int(retry)
        )
    except Exception as error:  # ORT's exceptions share no base class but Exception
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = type(error).__name__
        if kind in ("NotImplemented", "InvalidGraph") or "NOT_IMPLEMENTED" in message:
            raise CellFailure("unsupported", message) from error
        if kind in ("InvalidProtobuf", "NoSuchFile"):
            raise UserError(f"{graph} is damaged ({message}); {records.anew(graph)}") from error
        if "memory" in message.lower() and "alloc" in message.lower():
            raise CellFailure("out-of-memory", message) from error
        raise


def inputs_of(session: Any, workload: Workload) -> tuple[TensorSpec, ...]:
    """Those of the workload's inputs that the graph reads, in the workload's order.

    Raises:
        CellFailure: It reads another tensor, or one as another type.
    """
    read = {value.name: ELEMENT_TYPES.get(value.type, value.type) for value in session.get_inputs()}
    known = {tensor.name: tensor for tensor in workload.inputs}
    if unknown := [name for name in read if name not in known]:
        raise CellFailure("unsupported", f"the graph reads {', '.join(unknown)}; the inputs are {', '.join(known)}")
    for name, kind in read.items():
        if kind != known[name].dtype:
            raise CellFailure("unsupported", f"the graph reads {name} as {kind}; the inputs are {known[name].dtype}")
    return tuple(tensor for tensor in workload.inputs if tensor.name in read)


def output_types(session: Any, workload: Workload) -> tuple[str, ...]:
    """Element types of the workload's outputs as the graph writes them: NumPy's names, or ``bfloat16``.

    Raises:
        CellFailure: It does not write one, or as a type that cannot be read.
    """
    written = {value.name: value.type for value in session.get_outputs()}
    kinds = []
    for output in workload.outputs:
        if output.name not in written:
            raise CellFailure("unsupported", f"the graph writes {', '.join(written)}, and not {output.name}")
        if (kind := written[output.name]) not in ELEMENT_TYPES:
            raise CellFailure("unsupported", f"the graph's {output.name} is {kind}; known: {', '.join(ELEMENT_TYPES)}")
        kinds.append(ELEMENT_TYPES[kind])
    return tuple(kinds)
