"""A tiny ONNX model that a server serves, the task of its cell, and requests; nothing of it is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ceilings.serving.transports import transport
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

WIDTH = 4
WEIGHTS = np.arange(WIDTH * 3, dtype=np.float32).reshape(WIDTH, 3) / 10


def workload(rowed: bool = True) -> Workload:
    """Numbers in, numbers out, and a mask that shifts them; without a batch axis where not ``rowed``."""
    first: tuple[str | int, ...] = ("batch",) if rowed else (1,)
    inputs = (
        TensorSpec("x", "float32", (*first, WIDTH), "reals"),
        TensorSpec("shift", "int64", (*first, 1), "integers", 0, 3),
    )
    return Workload(TASKS["tensors"], inputs, (TensorSpec("y", "float32", (*first, 3)),))


def expected(x: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What the model gives."""
    return x @ WEIGHTS + shift.astype(np.float32)


def graph(rowed: bool = True) -> onnx.ModelProto:
    """The model."""
    rows = "batch" if rowed else 1
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Cast", ["shift"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["product", "real"], ["y"]),
    ]
    made = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, WIDTH]),
            helper.make_tensor_value_info("shift", TensorProto.INT64, [rows, 1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def task(folder: Path, shape: str = "b1", rowed: bool = True) -> dict[str, Any]:
    """Write the model below a folder; the task of its cell."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(graph(rowed), str(folder / "tiny.onnx"))
    workload(rowed).write(folder)
    return {
        "cell": {
            "device": "cpu-test",
            "runtime": "onnxruntime-cpu",
            "model": "tiny",
            "precision": "fp32",
            "shape": shape,
        },
        "spec": {"module": "onnxruntime_cpu", "threads": 1, "options": {}},
        "artifact": str(folder / "tiny.onnx"),
        "workload": str(folder / "workload.json"),
    }


def element(seed: int, rows: int = 1) -> dict[str, np.ndarray]:
    """Inputs of a request."""
    random = np.random.default_rng(seed)
    return {
        "x": random.standard_normal((rows, WIDTH)).astype(np.float32),
        "shift": random.integers(0, 4, (rows, 1)).astype(np.int64),
    }


def ask(kind: str, address: str, model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The answer of a server to one request over a transport."""
    by = transport(kind, address)
    try:
        return by.decode(by.send(by.prepare(model, inputs)))
    finally:
        by.close()
