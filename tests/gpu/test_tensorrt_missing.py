"""On a GPU without TensorRT: its runtimes give a reason, and never a number of another provider."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ceilings import host as hosts
from ceilings.engines import libraries
from ceilings.errors import CellFailure
from ceilings.runtimes.base import example
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.availability import availability
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

SHAPE = Shape.parse("b2-s8")
TOKENS = ("batch", SHAPE["sequence"])
WORKLOAD = Workload(
    TASKS["sequence-classification"],
    (
        TensorSpec("input_ids", "int64", TOKENS, "tokens", 1, 9),
        TensorSpec("attention_mask", "int64", TOKENS, "mask"),
    ),
    (TensorSpec("logits", "float32", ("batch", 2)),),
)


@pytest.fixture
def graph(tmp_path):
    """Logits that are sums of the unmasked tokens, from inputs with dynamic axes."""
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["values", "weight"], ["logits"]),
    ]
    rows = SHAPE["sequence"]
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [rows, 2], np.ones(2 * rows, np.float32))
    inputs = [helper.make_tensor_value_info(one.name, TensorProto.INT64, TOKENS) for one in WORKLOAD.inputs]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    made = helper.make_graph(nodes, "g", inputs, [output], [weight])
    path = tmp_path / "fp32.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.skipif(libraries.find("libnvinfer.so.10") is not None, reason="TensorRT 10 is here")
def test_the_provider_that_cannot_load_fails_the_build_and_gives_no_number(graph, tmp_path, capfd):
    """In a separate process, as the rule does it. ONNX Runtime alone would go on, on the CPU."""
    from ceilings.engines.cache import Plan
    from ceilings.measure.supervisor import supervise

    plan = Plan(str(graph), str(tmp_path / "b2-s8.cache"), str(tmp_path / "timing"), 3, None)
    task = {
        "cell": {"precision": "fp32", "shape": str(SHAPE)},
        "spec": {"threads": 1, "protocol": {"time_limit_seconds": 300}},
        "plan": plan.to_json(),
        "workload": str(tmp_path / "workload.json"),
    }
    WORKLOAD.write(tmp_path)
    found = supervise(task, "ceilings.runtimes.tensorrt_cache_worker")
    print(found["failure"], found["cold_start_ns"])
    assert found["status"] == "failed" and found["failure"]["kind"] == "fallback"
    assert "TensorRT" in found["failure"]["message"] or "nvinfer" in found["failure"]["message"]
    assert found["files"] == {}


def test_what_this_machine_says_of_each_tensorrt_runtime():
    host = hosts.detect({})
    assert host.gpu is not None
    for name, runtime in RUNTIMES.items():
        if "tensorrt" in name:
            found = availability(runtime, "fp16", host)
            print(f"{name}: {found.reason or 'available'}; {found.remedy or ''}")
            assert bool(found) or (found.reason and found.remedy)
    rtx = availability(RUNTIMES["tensorrt-rtx"], "fp16", host)
    if host.gpu.capability == (9, 0):
        assert rtx.reason is not None and "compute capability 9.0" in rtx.reason


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx") is None, reason="no RTX plugin here")
def test_the_rtx_plugin_runs_on_rtx_cards_only(graph):
    from ceilings.cuda import device as cuda
    from ceilings.runtimes import onnxruntime_tensorrt_rtx

    runner = onnxruntime_tensorrt_rtx.RUNNER(graph, "fp32", WORKLOAD, SHAPE, 1, {})
    if cuda.capability() != (9, 0):
        runner.load()
        outputs = runner.outputs(runner.run(runner.place(example(WORKLOAD, SHAPE))))
        assert (outputs["logits"] == SHAPE["sequence"]).all()
        return
    with pytest.raises(CellFailure) as caught:
        runner.load()
    print(caught.value.kind, caught.value)
    assert caught.value.kind in ("unsupported", "fallback")
