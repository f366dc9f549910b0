"""ONNX Runtime with changing shapes on a real card: outputs in any order of shapes, also from captured graphs."""

from __future__ import annotations

import numpy as np
import pytest
from gpu.tiny_artifacts import Artifacts
from unit.runtimes import tiny
from unit.runtimes.workloads import ANSWERER, EMBEDDER

from ceilings.errors import CellFailure
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.runtimes.onnxruntime_changing_cuda import RUNNER
from ceilings.runtimes.onnxruntime_session import cuda_settings
from ceilings.runtimes.settings import OF_ORT_CUDA
from ceilings.workload.shape import Shape

ORDER = (1, 2, 1, 4, 2, 2, 1)
"""Batches, so that each of three shapes comes back after another one."""

NAMES = [
    "onnxruntime-cuda",
    "onnxruntime-cuda-graph",
    *(f"onnxruntime-cuda+{one.name}={value}" for one in OF_ORT_CUDA for value in one.values[1:]),
    "onnxruntime-cuda+convolution-search=default+arena=next-power-of-two+memory-pattern=off+prepacking=off",
]


CASES = [
    pytest.param(name, workload, id=f"{name}-{kind}")
    for name in NAMES
    for kind, workload in (("text", ANSWERER), ("convolution", EMBEDDER))
    if (name, kind) != ("onnxruntime-cuda-graph", "text")
]
"""The text graph asks for its sizes on the host, which ONNX Runtime captures in no CUDA graph."""


def test_a_graph_that_asks_for_its_sizes_on_the_host_is_captured_by_none(tmp_path):
    tiny.export(ANSWERER, tiny.module(ANSWERER), tmp_path / "fp32.onnx")
    options = RUNTIMES["onnxruntime-cuda-graph"].options
    runner = RUNNER(tmp_path / "fp32.onnx", "fp32", ANSWERER, Shape.parse("b1-s16"), 1, options)
    with pytest.raises(CellFailure, match="cannot use the graph capture feature") as caught:
        runner.load()
    assert caught.value.kind == "fallback"


@pytest.mark.parametrize(("name", "workload"), CASES)
def test_outputs_are_those_of_each_shape_whatever_came_before(tmp_path, workload, name):
    module = tiny.module(workload)
    tiny.export(workload, module, tmp_path / "fp32.onnx")
    size = "s16" if workload is ANSWERER else "i16"
    shape = Shape.parse(f"b1-{size}")
    runner = RUNNER(tmp_path / "fp32.onnx", "fp32", workload, shape, 1, RUNTIMES[name].options)
    runner.load()
    slots = {}
    for batch in sorted(set(ORDER)):
        runner.at(shape.with_sizes(batch=batch))
        inputs = [tiny.element(workload, batch, 16, seed) for seed in (0, 1)]
        slots[batch] = [(one, runner.place(one)) for one in inputs]
    for turn, batch in enumerate(ORDER * 2):
        inputs, slot = slots[batch][turn % 2]
        runner.at(shape.with_sizes(batch=batch))
        outputs = runner.outputs(runner.answer(slot))
        for key, value in tiny.expected(workload, module, inputs).items():
            np.testing.assert_allclose(outputs[key], value, rtol=1e-3, atol=1e-4)
    assert runner.device_bytes() > 0  # of the whole card, so others change it too
    facts, chosen = runner.describe(), RUNTIMES[name].options
    for key, value in cuda_settings(chosen).items():
        assert facts["provider_options"][key] == value
    assert facts["session"]["memory_pattern"] == (chosen.get("memory-pattern") != "off")
    assert facts["session"]["prepacking"] == (chosen.get("prepacking") != "off")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("name", [NAMES[-1], "onnxruntime-cuda-graph+arena=next-power-of-two+prepacking=off"])
def test_settings_hold_for_one_shape_too(artifacts, name):
    runner = artifacts.loaded(name)
    assert runner.describe()["provider_options"].items() >= cuda_settings(RUNTIMES[name].options).items()


def test_the_catalogue_s_runtimes_of_this_card_name_the_runner():
    names = [name for name, one in RUNTIMES.items() if one.changing == "onnxruntime_changing_cuda"]
    assert {"onnxruntime-cuda", "onnxruntime-cuda-dynamic", "onnxruntime-cuda-graph"} <= set(names)
