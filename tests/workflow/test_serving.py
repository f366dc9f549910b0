"""Deployments in the real pipeline: two servers with two cells, their records, and what is made anew."""

from __future__ import annotations

import copy

import pytest
from tiny import STUDY

from ceilings import host, records
from ceilings.serving import server_python

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

FP32, INT8 = (f"onnxruntime-cpu/tiny/{precision}/b1-s16" for precision in ("fp32", "int8"))
DEPLOYMENTS = {
    "http": {"server": "embedded", "cells": [FP32, INT8], "concurrency": [1, 2], "rates": ["0.5x"]},
    "grpc": {
        "server": "triton",
        "cells": [FP32, INT8],
        "transport": "grpc",
        "batching": {"largest": 4, "delay_ms": 1},
        "concurrency": [4],
        "rates": [30],
    },
}
SHORT = {"window_seconds": 0.3, "rounds": 2, "warmup_seconds": 0.1}
DEVICE = host.detect({}).cpu_slug
RUNS = {name: f"results/serving/{DEVICE}/{name}/run1.json" for name in DEPLOYMENTS}


def with_servers(change=lambda study: None):
    study = copy.deepcopy(STUDY) | {"serving": copy.deepcopy(DEPLOYMENTS)}
    study["protocol"] |= {"processes": 1, "serving": dict(SHORT)}
    change(study)
    return study


@pytest.fixture
def served(project, monkeypatch):
    """The project with both deployments measured once."""
    for package in ("mlserver", "pytriton"):
        if problem := server_python.problem(package):
            pytest.skip(problem)
    project.configure(with_servers())
    project.snakemake(*RUNS.values(), **servers())
    return project


def servers():
    return {"OMP_PROC_BIND": "false", server_python.FOLDER: str(server_python.packages())}


def test_deployments_are_measured_and_made_anew_each_by_itself(served):
    found = {name: records.read(served.folder / path, "serving") for name, path in RUNS.items()}
    for name, record in found.items():
        assert record["status"] == "ok", record["failure"]
        assert record["provenance"]["variables"]["OMP_PROC_BIND"] == "false", "those that the server executed under"
        assert not [flag for flag in record["flags"] if "planned with another" in flag]
        hold_loads(record, DEPLOYMENTS[name])
        hold_counts(record)
        assert record["server"]["first_start_ns"]["ready"] > 0 < record["server"]["warm_start_ns"]["ready"]
        for cell in record["cells"].values():
            assert cell["parity"]["relative_l2"] <= cell["parity"]["tolerance"] and cell["at_once"]["elements"] == 2
    assert found["http"]["server"]["kind"] == "embedded" and found["grpc"]["server"]["kind"] == "triton"
    assert found["grpc"]["cells"][FP32]["warmed"] == [1, 2, 3, 4]
    sizes = {size for window in found["grpc"]["windows"] for size in window["server"]["batch_sizes"]}
    assert sizes & {"2", "3", "4"}, "no batch was formed"
    hold_what_is_made_anew(served)


def hold_loads(record, deployment):
    """Each round has every load of every cell once, and shares of a throughput follow from it."""
    loads = [(w["round"], w["cell"], w["concurrency"], w["asked"]) for w in record["windows"]]
    asked = [(users, None) for users in deployment["concurrency"]] + [(None, str(one)) for one in deployment["rates"]]
    expected = {(number, cell, *load) for number in (1, 2) for cell in (FP32, INT8) for load in asked}
    assert len(loads) == len(expected) and set(loads) == expected
    for cell in (FP32, INT8):
        windows = [one for one in record["windows"] if one["cell"] == cell]
        closed = [one for one in windows if one["kind"] == "closed" and one["round"] == 1]
        seconds = [(one["ended_ns"] - one["began_ns"]) / 1e9 for one in closed]
        highest = max(one["answered_inside"] / length for one, length in zip(closed, seconds, strict=True))
        for one in windows:
            if one["asked"] == "0.5x":
                assert one["rate"] == pytest.approx(highest / 2)


def hold_counts(record):
    """Client and server count the same requests, and every request is accounted for."""
    for one in record["windows"]:
        counted = one["server"]
        assert one["answered"] == len(one["latency_ns"]) == one["sent"] == counted["requests"]
        assert not one["failed"] and not counted["failures"]
        assert counted["inferences"] == one["answered"]
        assert sum(int(size) * count for size, count in counted["batch_sizes"].items()) == counted["inferences"]
        assert sum(counted["batch_sizes"].values()) == counted["executions"]


def hold_what_is_made_anew(project):
    """Snakemake's plans after changes of the study; nothing runs."""

    def planned(change):
        project.configure(with_servers(change))
        jobs = project.planned(RUNS["http"], RUNS["grpc"], **servers())
        return {rule: count for rule, count in jobs.items() if count}

    assert planned(lambda study: None) == {}
    assert planned(lambda study: study["protocol"]["serving"].update(limit_ms=20)) == {}
    assert planned(lambda study: study["protocol"].update(min_seconds=0.03)) == {}
    assert planned(lambda study: study["serving"]["http"].update(concurrency=[1, 3])) == {"measure_serving": 1}
    assert planned(lambda study: study["protocol"]["serving"].update(rounds=3)) == {"measure_serving": 2}
