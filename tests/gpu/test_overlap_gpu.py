"""Copies beside compute on a real card: right answers, copies that are hidden, and a buffer used too early."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from gpu.tiny_artifacts import Artifacts, program

from ceilings import gpu, records
from ceilings.errors import CellFailure
from ceilings.measure.lanes import Lanes, Pipeline
from ceilings.measure.schedules import AFTER, PAGEABLE, THREE, Schedule, elements_used, schedules
from ceilings.measure.setup import make_runner, read_pool
from ceilings.measure.supervisor import supervise
from ceilings.statistics.pipelining import log_gains, parts
from ceilings.traces.hidden_copies import accounts
from ceilings.traces.recorder import record
from ceilings.traces.source import choose
from ceilings.traces.store import read

PROTOCOL = {"warmup_seconds": 0.2, "warmup_max_seconds": 2, "min_seconds": 0.4, "time_limit_seconds": 300}
RUNTIMES = ("torch-cuda-eager", "torch-cudagraph", "onnxruntime-cuda", "onnxruntime-cuda-graph")
STREAMS = [2, 8]
LARGE = {"architecture": "vit", "task": "image-embedding", "weights": "random", "seed": 1, "name": "large"}
"""A real image encoder: 32 images of 0.6 MB are copies that take a third of a millisecond."""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The task of an image encoder with large inputs, on PyTorch's CUDA graph."""
    folder = tmp_path_factory.mktemp("large")
    small = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 768}
    program("fetch_weights", "--model", json.dumps({**LARGE, "config": small}), "--output-dir", folder / "weights")
    given, wanted = ("--weights-dir", folder / "weights"), json.dumps({"pool": 5, "seed": 0, "lengths": None})
    shape, inputs = "b32-i224", folder / "inputs.npz"
    program("make_inputs", *given, "--shape", shape, "--inputs", wanted, "--output", inputs)
    program("compute_reference", *given, "--inputs", inputs, "--threads", "8", "--output", folder / "reference.npz")
    return {
        "cell": {
            **{"device": gpu.visible().slug, "runtime": "torch-cudagraph", "model": "large"},
            **{"precision": "fp16", "shape": shape},
        },
        "spec": {
            **{"module": "torch_cuda", "options": {"mode": "cudagraph"}, "packages": {}, "threads": 2},
            **{"tolerance": 2e-2, "protocol": PROTOCOL},
        },
        **{"artifact": str(folder / "weights"), "inputs": str(inputs), "reference": str(folder / "reference.npz")},
        "workload": str(folder / "weights" / "workload.json"),
    }


def of(task):
    spec = {key: value for key, value in task["spec"].items() if key not in ("protocol", "measurements")}
    return {
        **task,
        "gpu": gpu.visible().uuid,
        "streams": STREAMS,
        "spec": {**spec, "protocol": PROTOCOL, "streams": STREAMS, "variables": None},
    }


def measured(task):
    found = supervise(of(task), "ceilings.measure.overlap_worker")
    print(task["cell"], found["status"], found["failure"], found["flags"])
    assert found["status"] == "ok", found["failure"]
    content = {key: found[key] for key in found if key not in ("cell", "run", "log")}
    sealed = records.sealed(
        "overlap", {**content, "cell": task["cell"], "run": 1, "log": None, "streams": STREAMS, "protocol": PROTOCOL}
    )
    for one in sealed["schedules"][1:]:
        print(one["name"], np.exp(log_gains(sealed, one["name"])))
    print(parts(sealed))
    return sealed


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_answer_of_every_schedule_is_that_of_the_request_alone(artifacts, runtime):
    found = measured(artifacts.task(runtime))
    assert found["checked"] > sum(len(one["latency_ns"]) for one in found["windows"])
    assert [one["name"] for one in found["schedules"]] == [one.name for one in schedules(STREAMS)]


def test_large_copies_are_hidden_by_three_streams_and_not_by_pageable_memory(large):
    found = measured(large)
    gain, expected = float(np.exp(log_gains(found, THREE).mean())), parts(found).gain
    print("gain", gain, "predicted", expected)
    assert gain > 1.05
    assert gain < 1.1 * expected
    assert float(np.exp(log_gains(found, PAGEABLE).mean())) < gain


def test_the_capture_says_how_much_is_hidden(large, tmp_path):
    source, reason = choose("auto")
    if source is None:
        pytest.skip(str(reason))
    task = of(large)
    print(
        record(
            {**task, "uuid": task["gpu"], "spec": {**task["spec"], "source": source}},
            tmp_path / "c.sqlite",
            "ceilings.traces.overlap_target",
        )
    )
    by_name = {one["name"]: one for one in accounts(read(tmp_path / "c.sqlite"))}
    for one in by_name.values():
        print({key: value for key, value in one.items() if key != "timeline"})
        assert one["own_ns"] < 0.02 * one["copy_in_ns"]
        assert one["copy_in_ns"] > 100_000
    assert by_name["sequential"]["hidden_share"] < 0.02
    assert by_name["one-stream"]["hidden_share"] < 0.02
    assert by_name[THREE]["hidden_share"] > 0.5


class Unguarded(Schedule):
    """Three streams without a wait: a buffer is filled while it is read, or emptied before it is written."""

    def steps(self, number):
        return [step for step in super().steps(number) if step.do != AFTER]


def test_a_buffer_that_is_used_too_early_is_seen(large):
    task, elements = of(large), read_pool(large)
    every = schedules([])
    three = next(one for one in every if one.name == THREE)
    faulty = Unguarded(**{field.name: getattr(three, field.name) for field in dataclasses.fields(three)})
    lanes = Lanes(task, every, elements[: elements_used(len(elements))])
    lanes.load(make_runner(task))
    Pipeline(three, lanes).window(0.2, 100)
    with pytest.raises(CellFailure, match="a buffer was used before"):
        Pipeline(faulty, lanes).window(0.2, 100)
