"""Captures of changing shapes on a real card: every request has its shape, and the parts of both sides close."""

from __future__ import annotations

import numpy as np
import pytest
from unit.runtimes import tiny
from unit.runtimes.workloads import ANSWERER, EMBEDDER

from ceilings import gpu
from ceilings.models import pool
from ceilings.report.tables import gates
from ceilings.traces import health, source, store
from ceilings.traces.changing_target import AGAIN, SETTLING
from ceilings.traces.recorder import record
from ceilings.traces.shape_change import change_record
from ceilings.workload.shape import Shape
from ceilings.workload.shape_order import Requests

ITERATIONS = 40


def task_of(folder, workload, recorder, options):
    """The task of a tiny graph whose batch is 2 and 1 in turn."""
    size = "s16" if workload is ANSWERER else "i16"
    requests = Requests.of([Shape.parse(f"b2-{size}"), Shape.parse(f"b1-{size}")] * 5).to_json()
    tiny.export(workload, tiny.module(workload), folder / "fp32.onnx")
    workload.write(folder)
    inputs = {}
    for name in requests["shapes"]:
        elements = [tiny.element(workload, Shape.parse(name).batch, 16, seed) for seed in (0, 1)]
        arrays = {key: np.stack([one[key] for one in elements]) for key in elements[0]}
        seal = np.array(pool.sealed(arrays, "random", 1.0))
        named = {f"{pool.PREFIX}{key}": array for key, array in arrays.items()}
        inputs[name] = str(folder / f"{name}.npz")
        pool.save(inputs[name], **named, sha256=seal, source=np.array("random"), real_share=np.array(1.0))
    card = gpu.visible()
    names = {"runtime": "onnxruntime-cuda", "model": "tiny", "precision": "fp32", "sequence": "two"}
    spec = {"module": "onnxruntime_changing_cuda", "threads": 1, "options": options, "requests": requests}
    protocol = {"warmup_seconds": 0.1, "warmup_max_seconds": 1, "time_limit_seconds": 60}
    return {
        "cell": {"device": card.slug, **names},
        "uuid": card.uuid,
        "spec": {**spec, "source": recorder, "iterations": ITERATIONS, "protocol": protocol},
        "artifact": str(folder / "fp32.onnx"),
        "inputs": inputs,
        "workload": str(folder / "workload.json"),
    }


@pytest.mark.parametrize("recorder", source.SOURCES)
@pytest.mark.parametrize(
    ("workload", "options"),
    [
        pytest.param(ANSWERER, {}, id="text"),
        pytest.param(EMBEDDER, {}, id="convolution"),
        pytest.param(EMBEDDER, {"convolution-search": "heuristic"}, id="convolution-heuristic"),
        pytest.param(EMBEDDER, {"cuda_graph": True}, id="convolution-graph"),
    ],
)
def test_a_change_is_held_against_the_same_shape_again(tmp_path, recorder, workload, options):
    if lacks := source.missing(recorder):
        pytest.skip(lacks)
    print(
        record(task_of(tmp_path, workload, recorder, options), tmp_path / "c.sqlite", "ceilings.traces.changing_target")
    )
    capture = store.read(tmp_path / "c.sqlite")
    assert "failure" not in capture.meta, capture.meta.get("failure")
    health.refuse_unsound(capture, "c.sqlite")
    made = change_record(capture)
    assert made["requests"] == 1 + ITERATIONS + 2 * (SETTLING + AGAIN + 1)
    assert made["changes"]["requests"] >= ITERATIONS and made["changes"]["agains"] == 2 * AGAIN
    assert gates.shape_change(made) is None
    assert made["changes"]["counts"]["kernels"]["again"] > 0
    assert made["first"]["requests"] == 1
    # ONNX Runtime's nodes name the host's time between the calls; a replayed graph runs none.
    operators = [part for part in made["changes"]["host"] if part["part"].startswith("operators")]
    assert bool(operators) == ("cuda_graph" not in options)
    print([(one["name"], round((one["ns"] - one["again_ns"]) / 1e3, 1)) for one in made["changes"]["longer"][:5]])
    print({part["part"]: round(part["cost_ns"] / 1e3, 1) for part in made["changes"]["host"]})
    print([one["name"] for one in made["changes"]["only"]])
