"""Triton's model repository: for each model a folder with ``config.pbtxt`` and one version. No server here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings.errors import CellFailure
from ceilings.files import write_task, write_text
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

ENGINE_PRECISIONS = {"fp32": "FP32", "tf32": "FP32", "fp16": "FP16", "int8": "INT8"}
"""TensorRT's precisions within ONNX Runtime's backend, by the cell's."""


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


def write(folder: Path, served: Served, backend: str = "python", engine_cache: Path | None = None) -> Path:
    """Write one model's folder.

    Args:
        folder: The repository.
        served: The model.
        backend: One of ``BACKENDS``.
        engine_cache: Where ONNX Runtime's backend keeps TensorRT's engines; None: it executes with CUDA or the CPU.

    Returns:
        The model's folder.

    Raises:
        CellFailure: The backend cannot serve it.
    """
    serves(served.task, served.batching)
    model, artifact = folder / served.name, Path(served.task["artifact"])
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

    Outputs of other backends than Python stand in the graph or the engine, in types that Triton reads there.
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
    kind = "KIND_GPU" if served.on_device and backend != "python" else "KIND_CPU"
    fields.append(f"instance_group {{ count: {served.instances} kind: {kind} }}")
    if batching:
        preferred = "".join(f"preferred_batch_size: {size} " for size in batching.preferred)
        delay = round(batching.delay_ms * 1000)
        fields.append(f"dynamic_batching {{ {preferred}max_queue_delay_microseconds: {delay} }}")
    if backend == "onnxruntime":
        threads = served.task["spec"]["threads"]
        parameters = {**(parameters or {}), "intra_op_thread_count": str(threads), "inter_op_thread_count": "1"}
        if served.on_device and engine_cache is not None:
            fields.append(_accelerator(served.task["cell"]["precision"], engine_cache))
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


def _accelerator(precision: str, engine_cache: Path) -> str:
    if precision not in ENGINE_PRECISIONS:
        raise CellFailure("unsupported", f"TensorRT within Triton's ONNX Runtime has no precision {precision}")
    parameters = {
        "precision_mode": ENGINE_PRECISIONS[precision],
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engine_cache),
    }
    listed = " ".join(f"parameters {{ key: {_text(key)} value: {_text(to)} }}" for key, to in parameters.items())
    return f'optimization {{ execution_accelerators {{ gpu_execution_accelerator {{ name: "tensorrt" {listed} }} }} }}'


def _text(value: str) -> str:
    """A string of protobuf's text format; JSON's escapes of ASCII are among its own."""
    return json.dumps(value) if value.isascii() else '"' + "".join(f"\\{byte:03o}" for byte in value.encode()) + '"'
