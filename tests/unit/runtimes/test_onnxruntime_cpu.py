"""What the CPU runtime says of itself, on real quantised graphs."""

from __future__ import annotations

import numpy as np
import pytest
from unit.graphs.conftest import CALIBRATION, Tiny

from ceilings.graphs import calibration, graph, quantize
from ceilings.runtimes import placement
from ceilings.runtimes.onnxruntime_cpu import INPUTS, OnnxRuntimeCpu, open_session, session_options

SHAPE = (2, 32)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """The tiny model's ``int8.cpu`` graph."""
    tiny = Tiny("distilbert", tmp_path_factory.mktemp("distilbert"))
    ranges = calibration.calibrate(tiny.simplified, tiny.weights, CALIBRATION, 1)[0]
    path = tiny.folder / "int8.cpu.onnx"
    done = quantize.quantize(tiny.model, ranges, "int8", quantize.Quantization())
    graph.save(quantize.unsigned(done.model), path)
    return path


def products(found):
    return sum(found["int8_products"].values()), sum(found["float_products"].values())


def test_integer_products_of_a_run_are_those_of_the_optimised_graph(quantised):
    runner = OnnxRuntimeCpu(quantised, "int8", SHAPE, 1, {})
    runner.load()
    kernels = quantize.integer_kernels(graph.load(quantised))
    integer, floating = products(runner.describe()["placement"])
    attention = 4  # two products of activations in each of two layers
    assert (integer, floating - attention) == (kernels["integer"], kernels["float"])
    assert integer > floating
    runner.precision = "fp32"  # others are not looked at: a session and an inference for nothing
    assert "placement" not in runner.describe()


def test_without_integer_kernels_none_is_counted(quantised):
    """Axes fixed beforehand: ORT merges products and biases before it looks for integer kernels."""
    feed = dict.fromkeys(INPUTS, np.ones(SHAPE, np.int64))
    found = placement.summary(
        placement.profile(
            session_options(1, SHAPE), lambda options: open_session(quantised, options, [placement.CPU]), feed
        )
    )
    assert products(found)[0] == 0 and found["operators"]["DequantizeLinear"] > 0
