"""What the CPU runtime says of itself, on real quantised graphs."""

from __future__ import annotations

import pytest
from unit.engines.variants import Variants

from ceilings.graphs import graph, quantize
from ceilings.runtimes import placement
from ceilings.runtimes.base import example
from ceilings.runtimes.onnxruntime_cpu import OnnxRuntimeCpu
from ceilings.runtimes.onnxruntime_session import open_session, session_options
from ceilings.workload.shape import Shape

SHAPE = Shape.parse("b2-s32")


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    return Variants(tmp_path_factory.mktemp("distilbert"))


@pytest.fixture(scope="module")
def quantised(variants):
    """The tiny model's ``int8.cpu`` graph."""
    path = variants.folder / "int8.cpu.onnx"
    done = quantize.quantize(variants.model, variants.ranges, "int8", quantize.Quantization())
    graph.save(quantize.unsigned(done.model), path)
    return path


def products(found):
    return sum(found["int8_products"].values()), sum(found["float_products"].values())


def test_integer_products_of_a_run_are_those_of_the_optimised_graph(variants, quantised):
    runner = OnnxRuntimeCpu(quantised, "int8", variants.workload, SHAPE, 1, {})
    runner.load()
    kernels = quantize.integer_kernels(graph.load(quantised))
    integer, floating = products(runner.describe()["placement"])
    attention = 4  # two products of activations in each of two layers
    assert (integer, floating - attention) == (kernels["integer"], kernels["float"])
    assert integer > floating
    runner.precision = "fp32"  # others are not looked at: a session and an inference for nothing
    assert "placement" not in runner.describe()


def test_without_integer_kernels_none_is_counted(variants, quantised):
    """Axes fixed beforehand: ORT merges products and biases before it looks for integer kernels."""
    feed = example(variants.workload, SHAPE)
    found = placement.summary(
        placement.profile(
            session_options(1, SHAPE), lambda options: open_session(quantised, options, [placement.CPU]), feed
        )
    )
    assert products(found)[0] == 0 and found["operators"]["DequantizeLinear"] > 0
