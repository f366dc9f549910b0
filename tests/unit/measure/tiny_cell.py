"""A cell that is measured in milliseconds: an ONNX model of two inputs and two outputs, on ONNX Runtime's kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from ceilings.models import pool
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.availability import installed
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

RUNTIME = RUNTIMES["onnxruntime-cpu"]
SHAPE = Shape.parse("b2-s4")
WORKLOAD = Workload(
    TASKS["tensors"],
    (
        TensorSpec("left", "float32", ("batch", "sequence"), "reals"),
        TensorSpec("right", "float32", ("batch", "sequence"), "reals"),
    ),
    (TensorSpec("sum", "float32", ("batch", "sequence")), TensorSpec("product", "float32", ("batch", "sequence"))),
)
PROTOCOL = {
    "warmup_seconds": 0.01,
    "warmup_max_seconds": 0.2,
    "min_iterations": 20,
    "min_seconds": 0.02,
    "max_seconds": 0.2,
    "precision": 0.5,
    "saturated_seconds": 0.05,
    "concurrency": 1,
    "time_limit_seconds": 100,
}


def make(folder: Path, measurements: list[list[str]], error: float = 0.0) -> dict:
    """The task of the cell, its files below a folder.

    Args:
        folder: For the graph, the inputs, the reference and the workload.
        measurements: As the task lists them.
        error: Added to the second output of the reference.
    """
    dims = ["batch", "sequence"]
    tensors = [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, dims) for t in WORKLOAD.inputs]
    results = [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, dims) for t in WORKLOAD.outputs]
    nodes = [
        helper.make_node("Add", ["left", "right"], ["sum"]),
        helper.make_node("Mul", ["left", "right"], ["product"]),
    ]
    graph = helper.make_graph(nodes, "tiny", tensors, results)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "fp32.onnx")
    random = np.random.default_rng(0)
    arrays = {t.name: random.standard_normal((3, *t.sizes(SHAPE))).astype(np.float32) for t in WORKLOAD.inputs}
    named = {f"{pool.PREFIX}{name}": array for name, array in arrays.items()}
    seal = np.array(pool.sealed(arrays, "random", 1.0))
    pool.save(folder / "inputs.npz", **named, sha256=seal, source=np.array("random"), real_share=np.array(1.0))
    left, right = (arrays[name][:2] for name in ("left", "right"))
    reference = {"sum": left + right, "product": left * right + np.float32(error)}
    pool.save_outputs(folder / "reference.npz", reference, pool.digest(arrays))
    WORKLOAD.write(folder)
    return {
        "cell": {
            "device": "cpu-here",
            "runtime": RUNTIME.name,
            "model": "tiny",
            "precision": "fp32",
            "shape": str(SHAPE),
        },
        "spec": {
            "module": RUNTIME.module,
            "options": dict(RUNTIME.options),
            "packages": installed(RUNTIME.packages),
            "threads": 1,
            "tolerance": 1e-3,
            "protocol": PROTOCOL,
            "measurements": measurements,
        },
        "artifact": str(folder / "fp32.onnx"),
        "inputs": str(folder / "inputs.npz"),
        "reference": str(folder / "reference.npz"),
        "workload": str(folder / "workload.json"),
    }
