"""The runtimes that a study can name. Standard library only: read while the workflow is parsed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ceilings import plugins
from ceilings.engines.catalogue import BUILDERS
from ceilings.errors import UserError
from ceilings.runtimes import settings
from ceilings.runtimes.settings import GRAPH_PER_SHAPE, MARKED_AXES, SYMBOLIC_SIZES
from ceilings.workload.task import Task

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
"""Every precision that a study can name. tf32 is fp32's graph with TF32 matrix units allowed."""

MINIMUM_CAPABILITY = {"tf32": (8, 0), "bf16": (8, 0), "fp8": (8, 9)}
"""CUDA compute capability from which on a precision has hardware; absent: any."""

ENVIRONMENTS = Path(__file__).parents[3] / "envs"
"""Where the environments lie."""

GRAPH, FUSION, IO_BINDING, STATIC = "CUDA graph", "fusion", "IO binding", "static axes"
COMPILATION, AUTOTUNING = "compilation", "autotuning"
OVERLAP, OPERATOR, PERSISTENT = "overlapped kernels", "attention operator", "persistent kernel"
PROJECTED = "attention with its projection"
LEVERS = (
    *(GRAPH, FUSION, IO_BINDING, STATIC, COMPILATION, AUTOTUNING),
    *(GRAPH_PER_SHAPE, SYMBOLIC_SIZES, MARKED_AXES, OVERLAP, OPERATOR, PERSISTENT, PROJECTED),
)
"""What can be done to a stack beside choosing a precision."""

PYTORCH, PYTORCH_GROWING, VLLM = "PyTorch", "PyTorch, growing cache", "vLLM"
FUSED = "ceilings-fused"
ORT_CPU, ORT_CUDA, ORT_TENSORRT = "onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-tensorrt"
TENSORRT, TENSORRT_RTX, ORT_TENSORRT_RTX = "tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt-rtx"
"""Stacks."""

DEFAULT_LEVERS = frozenset({IO_BINDING, STATIC})
"""Levers that a stack which knows them has, unless a runtime is there to show what they bring."""

Artifact = Literal["weights", "plain", "fused", "operator", "engine", "engine-cache"]

REWRITTEN = ("fused", "operator")
"""Artifacts that are a rewritten form of a plain graph: their names end with it, and their work is the plain one's."""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """One way to execute a model.

    Attributes:
        name: As the study, the paths and the tables call it.
        stack: What executes, whatever is done to it: runtimes of one stack are compared by their levers.
        levers: What is done to it, of ``LEVERS`` and by settings; precision apart.
        device: Where it runs.
        module: The module below ``ceilings.runtimes`` that holds its ``RUNNER`` of one inference; empty where it only
            generates.
        artifact: ``weights`` (a PyTorch module), ``plain``, ``fused`` or ``operator`` (an ONNX variant; the last with
            our operators), ``engine`` (built from a plain variant), ``engine-cache`` (a plain variant, with the
            engine that the runtime itself built and kept).
        environment: The environment of ``envs/`` that has its packages.
        precisions: The precisions that it can run.
        packages: Distributions that it needs, ``a|b`` for either; their versions are part of what is measured.
        note: What it is, for the documentation.
        options: Passed to the runner as they are.
        builder: What builds the engine, a name of ``ceilings.engines.catalogue``; None where there is none.
        engine: Which engine: ``static`` (of exactly the cell's shape), ``profile`` (the first of the study's named
            profiles that takes the shape), ``external`` (one that the study names with its digest).
        floats: What the part of an int8 or fp8 model that is not quantised computes in; always fp16 in engines.
        library: Shared library that must be loadable, by its soname; None where a package's presence says it all.
        capabilities: CUDA compute capabilities that it runs on, as patterns such as ``12.*``; empty: any.
        generator: The module that holds its ``RUNNER`` of tasks that generate; empty where it does not.
        generates: Of its precisions those in which it generates.
        prefills_as: Of tasks that generate, the runtime whose prefill it has: it differs in decode steps alone. Empty
            where its prefill differs too.
        changing: The module that holds its ``RUNNER`` of requests whose shapes change; empty where it has none.
        settings: What a study may set of it, in its name; the runner gets what is set as options of these names.
    """

    name: str
    stack: str
    levers: frozenset[str]
    device: Literal["cpu", "cuda"]
    module: str
    artifact: Artifact
    environment: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    note: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    builder: str | None = None
    engine: Literal["static", "profile", "external"] = "static"
    floats: Literal["fp32", "fp16"] = "fp32"
    library: str | None = None
    capabilities: tuple[str, ...] = ()
    generator: str = ""
    generates: tuple[str, ...] = ("fp32", "tf32", "fp16", "bf16")
    prefills_as: str = ""
    changing: str = ""
    settings: tuple[settings.Setting, ...] = ()

    def module_of(self, task: Task) -> str:
        """The module that runs a task; empty where none does."""
        return self.generator if task.generates else self.module

    def set_as(self, chosen: Mapping[str, str]) -> Runtime:
        """The same with values of its settings, each of which is a lever."""
        given = [one for one in self.settings if one.name in chosen]
        levers = {one.lever(chosen[one.name]) for one in given}
        words = ", ".join(f"{key} {value}" for key, value in chosen.items())
        return dataclasses.replace(
            self,
            name=settings.joined(self.name, chosen, self.settings),
            levers=self.levers | levers,
            note=f"{self.note}; {words}",
            options={**self.options, **chosen},
            generator=self.generator if all(one.generates for one in given) else "",
        )


_TORCH = ("torch", "transformers", "safetensors")
_TORCH_CUDA = (*_TORCH, "cuda-bindings")
_ORT_CPU = ("onnxruntime|onnxruntime-gpu",)
_ORT_CUDA = ("onnxruntime-gpu", "cuda-bindings")
_FLOATS = ("fp32", "tf32", "fp16", "bf16")
_GRAPHS = ("fp32", "tf32", "fp16", "bf16", "int8")
_FUSABLE = ("fp32", "tf32", "fp16")
_FUSED_DECODERS = ("fp16",)  # of grouped-query attention the CUDA provider has kernels for half precision alone
_ORT_GENERATOR = "onnxruntime_generating_cuda"
_LIBRARIES = {
    "tensorrt10": "libnvinfer.so.10",
    "tensorrt11": "libnvinfer.so.11",
    "tensorrt-rtx": "libtensorrt_rtx.so.1",
}
_FUSED_CAPABILITIES = ("9.0",)  # what their tiles were compiled for and held against
_RTX_CAPABILITIES = ("8.0", "8.6", "8.9", "12.*")
_NONE = frozenset[str]()


def _torch(name: str, levers: frozenset[str], note: str, **options: Any) -> Runtime:
    """PyTorch on a GPU; of tasks that generate with a static cache."""
    return Runtime(
        name,
        PYTORCH,
        levers,
        "cuda",
        "torch_cuda",
        "weights",
        "gpu",
        _FLOATS,
        _TORCH_CUDA,
        note,
        options,
        generator="torch_generating_cuda",
        changing="torch_changing_cuda",
        settings=settings.OF_TORCH_COMPILE if COMPILATION in levers else (),
    )


def _ort(
    name: str,
    levers: frozenset[str],
    note: str,
    precisions: tuple[str, ...] = _GRAPHS,
    artifact: Artifact = "plain",
    *,
    generates: tuple[str, ...] = (),
    **options: Any,
) -> Runtime:
    """ONNX Runtime on a GPU."""
    return Runtime(
        name,
        ORT_CUDA,
        levers,
        "cuda",
        "onnxruntime_cuda",
        artifact,
        "gpu",
        precisions,
        _ORT_CUDA,
        note,
        options,
        generator=_ORT_GENERATOR if generates else "",
        generates=generates or _FLOATS,
        prefills_as=name.removesuffix("-graph") if generates and options.get("cuda_graph") else "",
        changing="onnxruntime_changing_cuda" if options.get("io_binding", True) else "",
        settings=settings.OF_ORT_CUDA,
    )


def _ort_operator(name: str, levers: frozenset[str], note: str, **options: Any) -> Runtime:
    """ONNX Runtime on a GPU, with attention as an operator of our own."""
    made = _ort(name, DEFAULT_LEVERS | {FUSION, OPERATOR} | levers, note, ("fp16",), "operator", **options)
    return dataclasses.replace(made, packages=(*_ORT_CUDA, "triton"), capabilities=_FUSED_CAPABILITIES)


def _tensorrt(
    name: str,
    stack: str,
    builder: str,
    note: str,
    *,
    engine: Literal["static", "profile", "external"] = "static",
    cuda_graph: bool = False,
) -> Runtime:
    """TensorRT, natively."""
    return Runtime(
        name,
        stack,
        frozenset({GRAPH}) if cuda_graph else _NONE,
        "cuda",
        "tensorrt_native",
        "engine",
        builder,  # each generation of TensorRT needs an environment of its own
        PRECISIONS,
        ("|".join(BUILDERS[builder].distributions), "pycuda", "cuda-bindings"),
        note,
        {"builder": builder, **({"cuda_graph": True} if cuda_graph else {})},
        builder=builder,
        engine=engine,
        floats="fp16",
        library=_LIBRARIES[builder],
        capabilities=_RTX_CAPABILITIES if builder == "tensorrt-rtx" else (),
        changing="" if engine == "static" else "tensorrt_changing_cuda",
        settings=() if engine == "static" else settings.OF_TENSORRT,
    )


def _ort_tensorrt(name: str, levers: frozenset[str], note: str, **options: Any) -> Runtime:
    """ONNX Runtime on its TensorRT EP."""
    return Runtime(
        name,
        ORT_TENSORRT,
        levers,
        "cuda",
        "onnxruntime_tensorrt",
        "engine-cache",
        "tensorrt10",
        PRECISIONS,
        _ORT_CUDA,
        note,
        options,
        floats="fp16",
        library=_LIBRARIES["tensorrt10"],
    )


def _vllm(name: str, levers: frozenset[str], note: str, mode: str) -> Runtime:
    """vLLM's offline engine."""
    return Runtime(
        name,
        VLLM,
        levers,
        "cuda",
        "",  # it only generates
        "weights",
        "vllm",
        _FLOATS,
        ("vllm", *_TORCH_CUDA),
        note,
        {"mode": mode},
        generator="vllm_generating",
        settings=settings.OF_VLLM if GRAPH in levers else (),
    )


def _fused(name: str, levers: frozenset[str], note: str, **options: Any) -> Runtime:
    """Kernels of our own, in a CUDA graph."""
    return Runtime(
        name,
        FUSED,
        levers,
        "cuda",
        "ceilings_fused",
        "weights",
        "gpu",
        ("fp16", "fp8"),
        (*_TORCH_CUDA, "triton"),
        note,
        {"mode": "cudagraph", **options},
        floats="fp16",
        capabilities=_FUSED_CAPABILITIES,
        generator="ceilings_fused_generating",
        generates=("fp16",),
        prefills_as="torch-cudagraph",
    )


def _fused_encoder(name: str, levers: frozenset[str], note: str, **options: Any) -> Runtime:
    """Kernels of our own that FP16 encoders alone have."""
    made = _fused(name, levers, note, **options)
    return dataclasses.replace(made, precisions=("fp16",), generator="", prefills_as="")


def _operator(name: str, levers: frozenset[str], note: str, **options: Any) -> Runtime:
    """PyTorch, with attention as an operator of our own."""
    return Runtime(
        name,
        PYTORCH,
        levers | {OPERATOR},
        "cuda",
        "torch_operator_cuda",
        "weights",
        "gpu",
        ("fp16",),
        (*_TORCH_CUDA, "triton"),
        note,
        options,
        capabilities=_FUSED_CAPABILITIES,
    )


def _torch_compiled_cpu(name: str, levers: frozenset[str], note: str, **options: Any) -> Runtime:
    """PyTorch on a CPU, compiled."""
    return Runtime(
        name,
        PYTORCH,
        frozenset({COMPILATION}) | levers,
        "cpu",
        "torch_compile_cpu",
        "weights",
        "cpu",
        ("fp32", "bf16"),
        _TORCH,
        note,
        options,
        changing="torch_compile_changing_cpu",
    )


_BOUND = DEFAULT_LEVERS
"""What ONNX Runtime's entries on a GPU do unless their note says otherwise."""

_ALL = (
    Runtime(
        "torch-eager",
        PYTORCH,
        _NONE,
        "cpu",
        "torch_cpu",
        "weights",
        "cpu",
        ("fp32", "bf16"),
        _TORCH,
        "PyTorch, operator by operator; text with a cache that grows",
        generator="torch_generating_cpu",
        changing="torch_changing_cpu",
    ),
    Runtime(
        "torch-int8-dynamic",
        PYTORCH,
        _NONE,
        "cpu",
        "torch_cpu",
        "weights",
        "cpu",
        ("int8",),
        _TORCH,
        "PyTorch, linear layers in INT8 with activation ranges taken at run time",
        {"quantize": "dynamic"},
        changing="torch_changing_cpu",
    ),
    _torch_compiled_cpu("torch-compile-cpu", _NONE, "torch.compile on a CPU: a second shape makes sizes symbolic"),
    _torch_compiled_cpu(
        "torch-compile-cpu-static",
        frozenset({GRAPH_PER_SHAPE}),
        "torch.compile on a CPU with a graph for each shape",
        sizes=settings.CONSTANT,
    ),
    _torch_compiled_cpu(
        "torch-compile-cpu-dynamic",
        frozenset({SYMBOLIC_SIZES}),
        "torch.compile on a CPU with symbolic sizes from the first shape on",
        sizes=settings.SYMBOLIC,
    ),
    _torch_compiled_cpu(
        "torch-compile-cpu-marked",
        frozenset({MARKED_AXES}),
        "torch.compile on a CPU with symbolic sizes along the model's axes alone",
        sizes=settings.MARKED,
    ),
    Runtime(
        "onnxruntime-cpu",
        ORT_CPU,
        _NONE,
        "cpu",
        "onnxruntime_cpu",
        "plain",
        "cpu",
        ("fp32", "int8"),
        _ORT_CPU,
        "ORT's CPU EP",
        generator="onnxruntime_generating_cpu",
        changing="onnxruntime_changing_cpu",
        settings=settings.OF_ORT_CPU,
    ),
    Runtime(
        "onnxruntime-cpu-fused",
        ORT_CPU,
        frozenset({FUSION}),
        "cpu",
        "onnxruntime_cpu",
        "fused",
        "cpu",
        ("fp32",),
        _ORT_CPU,
        "ORT's CPU EP on fused operators",
        generator="onnxruntime_generating_cpu",
        changing="onnxruntime_changing_cpu",
        settings=settings.OF_ORT_CPU,
    ),
    _torch("torch-cuda-eager", _NONE, "PyTorch, kernel by kernel", mode="eager"),
    _torch("torch-compile", frozenset({COMPILATION}), "torch.compile", mode="compile", compile_mode="default"),
    _torch(
        "torch-compile-reduce-overhead",
        frozenset({COMPILATION, GRAPH}),
        "torch.compile with CUDA graphs",
        mode="compile",
        compile_mode="reduce-overhead",
    ),
    _torch(
        "torch-compile-max-autotune",
        frozenset({COMPILATION, GRAPH, AUTOTUNING}),
        "torch.compile with CUDA graphs and kernels chosen by timing",
        mode="compile",
        compile_mode="max-autotune",
    ),
    _torch(
        "torch-cudagraph",
        frozenset({GRAPH}),
        "PyTorch's eager kernels, captured into one CUDA graph",
        mode="cudagraph",
    ),
    _operator(
        "torch-compile-operator",
        frozenset({COMPILATION}),
        "torch.compile (Inductor), attention of encoders as an operator of our own",
        mode="compile",
        compile_mode="default",
    ),
    _operator(
        "torch-cudagraph-operator",
        frozenset({GRAPH}),
        "PyTorch's eager kernels but for attention of encoders, an operator of our own, in one CUDA graph",
        mode="cudagraph",
    ),
    Runtime(
        "torch-cuda-eager-dynamic",
        PYTORCH_GROWING,
        _NONE,
        "cuda",
        "",
        "weights",
        "gpu",
        _FLOATS,
        _TORCH_CUDA,
        "PyTorch, kernel by kernel; text with a cache that grows, as Transformers generates by itself",
        {"mode": "eager", "cache": "growing"},
        generator="torch_generating_cuda",
    ),
    _ort("onnxruntime-cuda", _BOUND, "ORT's CUDA EP with IO binding", generates=_FLOATS),
    _ort("onnxruntime-cuda-noio", frozenset({STATIC}), "ORT's CUDA EP called with host arrays", io_binding=False),
    _ort(
        "onnxruntime-cuda-dynamic",
        frozenset({IO_BINDING}),
        "ORT's CUDA EP with symbolic axes, after other shapes have run",
        dynamic=True,
    ),
    _ort("onnxruntime-cuda-graph", _BOUND | {GRAPH}, "ORT's CUDA EP replaying a CUDA graph", cuda_graph=True),
    _ort(
        "onnxruntime-cuda-fused",
        _BOUND | {FUSION},
        "ORT's CUDA EP on fused operators",
        _FUSABLE,
        "fused",
        generates=_FUSED_DECODERS,
    ),
    _ort(
        "onnxruntime-cuda-fused-graph",
        _BOUND | {FUSION, GRAPH},
        "ORT's CUDA EP on fused operators, replaying a CUDA graph",
        _FUSABLE,
        "fused",
        generates=_FUSED_DECODERS,
        cuda_graph=True,
    ),
    _ort_operator("onnxruntime-cuda-operator", _NONE, "ORT's CUDA EP on fused operators, attention as our operator"),
    _ort_operator(
        "onnxruntime-cuda-operator-graph",
        frozenset({GRAPH}),
        "ORT's CUDA EP on fused operators, attention as our operator, replaying a CUDA graph",
        cuda_graph=True,
    ),
    _fused(
        "ceilings-fused",
        frozenset({GRAPH, OVERLAP}),
        "BERT, DistilBERT and GPT-2's decode steps on our kernels, a CUDA graph, each kernel started early",
    ),
    _fused(
        "ceilings-fused-serial",
        frozenset({GRAPH}),
        "BERT, DistilBERT and GPT-2's decode steps on our kernels, a CUDA graph, one kernel after the other",
        overlapped=False,
    ),
    _fused_encoder(
        "ceilings-fused-projected",
        frozenset({GRAPH, OVERLAP, PROJECTED}),
        "BERT and DistilBERT as ceilings-fused, attention and its output projection in one kernel",
        projected=True,
    ),
    _fused_encoder(
        "ceilings-fused-persistent",
        frozenset({GRAPH, PERSISTENT}),
        "BERT and DistilBERT: one persistent kernel computes embedding and layers; replayed from a CUDA graph",
        overlapped=False,
        persistent=True,
    ),
    _vllm("vllm", frozenset({COMPILATION, GRAPH}), "vLLM's offline engine with its defaults", "default"),
    _vllm("vllm-compile", frozenset({COMPILATION}), "vLLM's offline engine without CUDA graphs", "compile"),
    _vllm("vllm-eager", _NONE, "vLLM's offline engine, neither compiled nor captured", "eager"),
    _tensorrt("tensorrt", "tensorrt", "tensorrt11", "TensorRT 11, an engine for the shape"),
    _tensorrt("tensorrt-graph", "tensorrt", "tensorrt11", "TensorRT 11, replaying a CUDA graph", cuda_graph=True),
    _tensorrt(
        "tensorrt-profile",
        "tensorrt-profile",
        "tensorrt11",
        "TensorRT 11, an engine for a range of shapes",
        engine="profile",
    ),
    _tensorrt(
        "tensorrt-trtexec",
        "tensorrt-trtexec",
        "tensorrt11",
        "TensorRT 11, an engine that trtexec built",
        engine="external",
    ),
    _tensorrt(
        "tensorrt10",
        "tensorrt10",
        "tensorrt10",
        "TensorRT 10, an engine for the shape: what ORT's TensorRT EP runs inside",
    ),
    _tensorrt("tensorrt10-graph", "tensorrt10", "tensorrt10", "TensorRT 10, replaying a CUDA graph", cuda_graph=True),
    _ort_tensorrt("onnxruntime-tensorrt", _BOUND, "ORT's TensorRT EP with IO binding"),
    _ort_tensorrt(
        "onnxruntime-tensorrt-graph",
        _BOUND | {GRAPH},
        "ORT's TensorRT EP replaying a CUDA graph",
        cuda_graph=True,
    ),
    _tensorrt("tensorrt-rtx", "tensorrt-rtx", "tensorrt-rtx", "TensorRT for RTX, an engine for the shape"),
    _tensorrt(
        "tensorrt-rtx-graph",
        "tensorrt-rtx",
        "tensorrt-rtx",
        "TensorRT for RTX, replaying a CUDA graph",
        cuda_graph=True,
    ),
    _tensorrt(
        "tensorrt-rtx-profile",
        "tensorrt-rtx-profile",
        "tensorrt-rtx",
        "TensorRT for RTX, an engine for a range of shapes",
        engine="profile",
    ),
    Runtime(
        "onnxruntime-tensorrt-rtx",
        ORT_TENSORRT_RTX,
        _BOUND,
        "cuda",
        "onnxruntime_tensorrt_rtx",
        "plain",
        "onnxruntime-tensorrt-rtx",
        PRECISIONS,
        (
            "onnxruntime|onnxruntime-gpu",
            "onnxruntime-ep-nv-tensorrt-rtx-cu13|onnxruntime-ep-nv-tensorrt-rtx-cu12",
            "cuda-bindings",
        ),
        "ORT with the TensorRT RTX plugin EP",
        floats="fp16",
        capabilities=("8.6", "8.9", "12.*"),
    ),
)


def _problem(runtime: Runtime) -> str | None:
    """What is wrong with a plug-in's runtime."""
    known = {
        "precisions": (runtime.precisions, PRECISIONS),
        "levers": (runtime.levers, LEVERS),
        "environment": ([runtime.environment], sorted(path.stem for path in ENVIRONMENTS.glob("*.yaml"))),
        "builder": ([runtime.builder] if runtime.builder else [], tuple(BUILDERS)),
    }
    for key, (given, allowed) in known.items():
        if unknown := [value for value in given if value not in allowed]:
            return f"{key} with {unknown[0]!r}, which is none of {', '.join(allowed)}; correct it"
    if not runtime.precisions:
        return f"no precisions; give some of {', '.join(PRECISIONS)}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", runtime.name):
        return "a name that cannot stand in a path; use lower-case letters, digits and hyphens"
    return None


class Runtimes(dict[str, Runtime]):
    """Runtimes by name, also by names with settings; of the latter there are many, and iteration leaves them out."""

    def __missing__(self, name: str) -> Runtime:
        plain, chosen = settings.split(name)
        if not chosen or not super().__contains__(plain) or settings.problem(name, self[plain].settings):
            raise KeyError(name)
        return self[plain].set_as(chosen)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """The runtime of a name; ``default`` where there is none."""
        try:
            return self[name]
        except KeyError:
            return default

    def misnamed(self, name: str) -> str | None:
        """What is wrong with the settings in a name whose runtime is known, as what follows it; None: nothing."""
        plain = settings.split(name)[0]
        wrong = name != plain and super().__contains__(plain)
        return settings.problem(name, self[plain].settings) if wrong else None


def _by_name() -> Runtimes:
    """The package's runtimes, and after them the plug-ins'."""
    known = Runtimes({runtime.name: runtime for runtime in _ALL})
    for runtime in plugins.entries("RUNTIMES", Runtime, _problem):
        if runtime.name in known:
            raise UserError(f"plugins: there is a runtime {runtime.name!r} already; give the plug-in's another name")
        known[runtime.name] = runtime
    return known


RUNTIMES = _by_name()
"""Every runtime by name."""

TENSORRT_STACKS = frozenset(one.stack for one in _ALL if one.builder) | {ORT_TENSORRT, ORT_TENSORRT_RTX}
"""Everything that executes what TensorRT built."""

TENSORRT_PACKAGES = "tensorrt"
"""What the names of distributions with TensorRT's libraries begin with."""
