"""Triton's model repository: for each model a folder with ``config.pbtxt`` and one version. No server here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings.errors import CellFailure
from ceilings.files import read_json, write_task, write_text
from ceilings.serving.batching import Batching
from ceilings.serving.executor import serves
from ceilings.workload.shape import Shape
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}
"""Triton's names of element types by NumPy's."""

BACKENDS = ("python", "onnxruntime", "tensorrt")

MODEL = '''"""Hands Triton the executor of the pipeline."""

from ceilings.serving.servers.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''

KEPT_ENGINE = ".cache.json"
"""End of the record of an engine that ONNX Runtime's TensorRT provider kept; it names the graph."""


@dataclasses.dataclass(frozen=True)
class Served:
    """One model as a server serves it.

    Attributes:
        name: As requests name it.
        task: Its cell's: ``cell``, ``spec``, and the paths ``artifact`` and ``workload``; the shape is one request's.
        batching: How requests are joined; None: each is a batch.
        instances: How many execute side by side.
    """

    name: str
    task: Mapping[str, Any]
    batching: Batching | None = None
    instances: int = 1

    @property
    def workload(self) -> Workload:
        """What it reads and writes."""
        return Workload.read(self.task["workload"])

    @property
    def shape(self) -> Shape:
        """Of one request."""
        return Shape.parse(self.task["cell"]["shape"])

    @property
    def on_device(self) -> bool:
        """Whether a GPU executes it, as its device's name says."""
        return not str(self.task["cell"]["device"]).startswith("cpu")

    @property
    def by_tensorrt(self) -> bool:
        """Whether the bare cell is TensorRT's, by itself or within ONNX Runtime."""
        return "tensorrt" in self.task["cell"]["runtime"]

    @property
    def tf32(self) -> bool:
        """Whether products of FP32 may be of TF32."""
        return bool(self.task["cell"]["precision"] == "tf32")

    @property
    def graph(self) -> Path:
        """What ONNX Runtime reads; of an engine that it kept, the graph that this was made of."""
        artifact = Path(self.task["artifact"])
        return Path(read_json(artifact)["plan"]["graph"]) if artifact.name.endswith(KEPT_ENGINE) else artifact


def write(folder: Path, served: Served, backend: str = "python", engine_cache: Path | None = None) -> Path:
    """Write one model's folder.

    Args:
        folder: The repository.
        served: The model.
        backend: One of ``BACKENDS``.
        engine_cache: Where ONNX Runtime's backend keeps TensorRT's engines, of each model in a folder of its name.

    Returns:
        The model's folder.

    Raises:
        CellFailure: The backend cannot serve it.
    """
    serves(served.task, served.batching)
    model = folder / served.name
    artifact = served.graph if backend == "onnxruntime" else Path(served.task["artifact"])
    version = model / "1"
    version.mkdir(parents=True)
    parameters = {}
    if backend == "python":
        write_text(version / "model.py", MODEL)
        content = {
            "task": dict(served.task),
            "batching": served.batching.to_json() if served.batching else None,
            "facts": str(folder.parent / f"executor-{served.name}"),
        }
        write_task(folder.parent / f"{served.name}.json", content)
        parameters["task"] = str(folder.parent / f"{served.name}.json")
    else:
        suffix = {"onnxruntime": ".onnx", "tensorrt": ".plan"}[backend]
        if backend == "onnxruntime" and artifact.suffix != suffix:
            raise CellFailure("unsupported", f"Triton's {backend} backend reads ONNX graphs, not {artifact.name}")
        if served.batching and served.batching.pad:
            raise CellFailure("unsupported", f"Triton's {backend} backend does not pad batches")
        name = f"model{suffix}"
        (version / name).symlink_to(artifact.absolute())
        if (external := Path(f"{artifact}.data")).is_file():  # the graph names it, beside itself
            (version / external.name).symlink_to(external.absolute())
    write_text(model / "config.pbtxt", config(served, backend, parameters, engine_cache))
    return model


def config(
    served: Served, backend: str, parameters: Mapping[str, str] | None = None, engine_cache: Path | None = None
) -> str:
    """The text of a model's ``config.pbtxt``.

    Outputs of other backends than Python stand in the graph or the engine, in types that Triton reads there. A GPU's
    instances are on its first one, as the bare cell is; without ``gpus`` each GPU would get as many.
    """
    workload, batching = served.workload, served.batching
    rowed = all(tensor.dims[:1] == ("batch",) for tensor in (*workload.inputs, *workload.outputs))
    largest = 0 if not rowed else batching.largest if batching else served.shape.batch
    fields = [f"name: {_text(served.name)}"]
    if backend == "onnxruntime":
        fields.append('platform: "onnxruntime_onnx"')
    elif backend == "tensorrt":
        fields.append('platform: "tensorrt_plan"')
    else:
        fields.append(f"backend: {_text(backend)}")
    fields.append(f"max_batch_size: {largest}")
    fields += [f"input {_tensor(tensor, tensor.dtype, largest, served.shape)}" for tensor in workload.inputs]
    if backend == "python":  # runners give float32 whatever they compute in
        fields += [f"output {_tensor(tensor, 'float32', largest, served.shape)}" for tensor in workload.outputs]
    own = served.on_device and backend != "python"  # Triton's Python places nothing: the runner is on the first GPU
    group = f"count: {served.instances} kind: {'KIND_GPU gpus: [ 0 ]' if own else 'KIND_CPU'}"
    fields.append(f"instance_group {{ {group} }}")
    if batching:
        preferred = "".join(f"preferred_batch_size: {size} " for size in batching.preferred)
        delay = round(batching.delay_ms * 1000)
        fields.append(f"dynamic_batching {{ {preferred}max_queue_delay_microseconds: {delay} }}")
    if backend == "onnxruntime":
        threads = served.task["spec"]["threads"]
        parameters = {**(parameters or {}), "intra_op_thread_count": str(threads), "inter_op_thread_count": "1"}
        if served.on_device:
            fields.append(_accelerators(served, engine_cache))
    for key, value in (parameters or {}).items():
        fields.append(f"parameters {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}")
    return "\n".join(fields) + "\n"


def _tensor(tensor: TensorSpec, dtype: str, largest: int, shape: Shape) -> str:
    """A tensor's entry; without the batch axis, along which Triton joins. Sizes that no input gives are free."""
    dims = tensor.dims[1:] if largest else tensor.dims
    sizes = [dim if isinstance(dim, int) else shape.get(dim) or -1 for dim in dims]
    if not sizes:  # a number for each row: Triton wants an axis, and takes it away again
        return f"{{ name: {_text(tensor.name)} data_type: {TYPES[dtype]} dims: [ 1 ] reshape {{ shape: [ ] }} }}"
    return f"{{ name: {_text(tensor.name)} data_type: {TYPES[dtype]} dims: [ {', '.join(map(str, sizes))} ] }}"


def _accelerators(served: Served, engine_cache: Path | None) -> str:
    """The providers of ONNX Runtime as the bare cell has them.

    The CUDA provider computes FP32 in TF32 unless that is off. TensorRT's is asked for no precision: as in the bare
    cell, the typed graph says what computes in which type.

    Raises:
        CellFailure: TensorRT's engines have no place.
    """
    accelerators = {"cuda": {"use_tf32": str(int(served.tf32))}}
    if served.by_tensorrt:
        if engine_cache is None:
            raise CellFailure("unsupported", f"{served.name} executes TensorRT's engines, which have no folder here")
        folder = engine_cache / served.name
        folder.mkdir(parents=True, exist_ok=True)
        kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
        accelerators = {"tensorrt": kept, **accelerators}
    listed = " ".join(
        f"gpu_execution_accelerator {{ name: {_text(name)} {_listed(parameters)} }}"
        for name, parameters in accelerators.items()
    )
    return f"optimization {{ execution_accelerators {{ {listed} }} }}"


def _listed(parameters: Mapping[str, str]) -> str:
    return " ".join(f"parameters {{ key: {_text(key)} value: {_text(value)} }}" for key, value in parameters.items())


def _text(value: str) -> str:
    """A string of protobuf's text format; JSON's escapes of ASCII are among its own."""
    return json.dumps(value) if value.isascii() else '"' + "".join(f"\\{byte:03o}" for byte in value.encode()) + '"'
