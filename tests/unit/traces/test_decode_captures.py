"""Decode steps of GPT-2 Medium on an H100, cut from real captures: a replayed graph, and eager PyTorch."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from ceilings.traces import health, store
from ceilings.traces.budget_record import budget_record
from ceilings.traces.kernel_classes import kernel_class, short

DATA = Path(__file__).parent / "data"
GRAPH, EAGER = "onnxruntime-cuda-fused-graph", "torch-cuda-eager"
LAYERS = 24

CLASSES = {
    GRAPH: {
        "gemm": 5 * LAYERS + 1,  # four products a layer, one of which is split and summed; and the logits
        "attention": 3 * LAYERS,  # the product, what unpacks for it and appends to the cache, and its lengths
        "normalization": 2 * LAYERS + 1,
        "elementwise": 2 * LAYERS + 2,  # a bias and a GELU a layer; the position, and the logits' cast
        "gather": 4,
        "sampling": 1,
        "copy": 1,  # by the driver, for a copy within the graph
    },
    EAGER: {
        "gemm": 5 * LAYERS + 1,
        "attention": LAYERS,
        "normalization": 2 * LAYERS + 1,
        "copy": 2 * LAYERS,  # keys and values into the cache
        "gather": 2,
        "sampling": 1,
        "elementwise": 394,
    },
}
"""Kernels of one step."""


def path_of(stack: str) -> Path:
    return DATA / f"decode-{stack}.cupti.sqlite"


@pytest.fixture(scope="module", params=[GRAPH, EAGER])
def stack(request):
    return request.param


@pytest.fixture(scope="module")
def record(stack):
    capture = store.read(path_of(stack))
    return budget_record(capture, health.refuse_unsound(capture, path_of(stack)))


def test_every_kernel_of_a_step_has_the_class_of_its_work(stack, record):
    counts: dict[str, float] = {}
    for kernel in record["kernels"]:
        counts[kernel["class"]] = counts.get(kernel["class"], 0) + kernel["count"]
    assert counts == CLASSES[stack] and record["unknown_kernels"] == []
    assert record["counts"]["kernels"] == sum(counts.values())


def test_the_classes_times_are_those_of_the_file(stack, record):
    """Summed by SQL over the rows of the kernels."""
    with contextlib.closing(sqlite3.connect(path_of(stack))) as database:
        rows = database.execute(
            "SELECT value, sum(end - start), count(*) FROM CUPTI_ACTIVITY_KIND_KERNEL JOIN StringIds "
            "ON id = demangledName GROUP BY value"
        ).fetchall()
        (marks,) = database.execute("SELECT count(*) FROM NVTX_EVENTS WHERE text = 'iteration'").fetchone()
    assert record["iterations"] == marks
    for kind in CLASSES[stack]:
        expected = sum(total for name, total, _ in rows if kernel_class(name) == kind) / marks
        assert sum(one["ns"] for one in record["kernels"] if one["class"] == kind) == pytest.approx(expected)


def test_what_chooses_the_token_is_not_unknown(stack, record):
    (chosen,) = (one["name"] for one in record["kernels"] if one["class"] == "sampling")
    assert (
        short(chosen) == {GRAPH: "arg_min_max_last_axis_cooperative_kernel", EAGER: "reduce_kernel<ArgMaxOps>"}[stack]
    )


def test_a_graph_is_one_launch_and_eager_one_a_kernel(stack, record):
    launches, bound = {GRAPH: (1, "kernel-bound"), EAGER: (639, "launch-bound")}[stack]
    assert record["counts"]["launches"] == launches and record["counts"]["graphs"] == int(stack == GRAPH)
    assert record["verdict"]["name"] == bound and record["flags"] == []
    assert sum(record["shares"].values()) == pytest.approx(1, abs=0.01)
    for residual in record["residual_ns"].values():
        assert abs(residual) < 0.01 * record["iteration_ns"]["median"]


def test_a_fixture_holds_no_host():
    for stack in (GRAPH, EAGER):
        meta = store.read(path_of(stack)).meta
        assert meta.keys() == {
            "source",
            "dropped",
            "tool",
            "cell",
            "iterations",
            "warmup_p50_ns",
            "warmup_stable",
            "flags",
        }
