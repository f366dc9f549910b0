"""ONNX Runtime with changing shapes on a real card: outputs in any order of shapes, also from captured graphs."""

from __future__ import annotations

import numpy as np
import pytest
from unit.runtimes import tiny
from unit.runtimes.workloads import ANSWERER, EMBEDDER

from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.runtimes.onnxruntime_changing_cuda import RUNNER
from ceilings.workload.shape import Shape

ORDER = (1, 2, 1, 4, 2, 2, 1)
"""Batches, so that each of three shapes comes back after another one."""


@pytest.mark.parametrize("workload", [ANSWERER, EMBEDDER], ids=["text", "convolution"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"provider": {"cudnn_conv_algo_search": "HEURISTIC"}},
        {"provider": {"cudnn_conv_algo_search": "DEFAULT", "arena_extend_strategy": "kNextPowerOfTwo"}},
        {"memory_pattern": False},
        {"cuda_graph": True},
    ],
    ids=["default", "heuristic", "power-of-two", "no-pattern", "graph"],
)
def test_outputs_are_those_of_each_shape_whatever_came_before(tmp_path, workload, options):
    module = tiny.module(workload)
    tiny.export(workload, module, tmp_path / "fp32.onnx")
    size = "s16" if workload is ANSWERER else "i16"
    shape = Shape.parse(f"b1-{size}")
    runner = RUNNER(tmp_path / "fp32.onnx", "fp32", workload, shape, 1, options)
    runner.load()
    before = runner.device_bytes()
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
    assert runner.device_bytes() >= before
    applied = runner.describe()["provider_options"]
    for key, value in options.get("provider", {}).items():
        assert applied[key] == value


def test_the_catalogue_s_runtimes_of_this_card_name_the_runner():
    names = [name for name, one in RUNTIMES.items() if one.changing == "onnxruntime_changing_cuda"]
    assert {"onnxruntime-cuda", "onnxruntime-cuda-dynamic", "onnxruntime-cuda-graph"} <= set(names)
