"""Time left, from Snakemake's own log events."""

import dataclasses
import logging
from pathlib import Path

import pytest
import yaml

from ceilings import packages
from ceilings.host import Gpu, Host
from ceilings.serving.batching import Batching, batches
from ceilings.study import deployments, progress
from ceilings.study.progress import TimeLeft
from ceilings.study.study import Study

DEFAULT = Path(__file__).parents[3] / "config.yaml"
GPU = Gpu("nvidia-test", "NVIDIA Test", "GPU-0", "580.1", (9, 0), 80 << 30)


def event(kind, **fields):
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", (), None)
    record.__dict__.update(event=kind, **fields)
    return record


def test_the_line_of_progress_gains_the_time_that_is_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    time_left = TimeLeft({"slow": 40.0})
    time_left.filter(event("run_info", stats={"fast": 3, "slow": 2, "total": 5}))
    lines = []
    for done, (rule, seconds) in enumerate((("fast", 10), ("slow", 100)), start=1):
        time_left.filter(event("job_info", jobid=done, rule_name=rule))
        now[0] += seconds
        time_left.filter(event("job_finished", job_id=done))
        progress = event("progress", done=done, total=5)
        assert time_left.filter(progress) and progress.event is None
        lines.append(progress.msg)
    # Two more fast jobs at 10 s, as seen, and two slow ones at 40 s, as guessed; then at 100 s, as seen.
    assert lines == [
        "1 of 5 steps (20%) done, about 1 min 40 s left",
        "2 of 5 steps (40%) done, about 2 min left",
    ]


def test_a_plan_says_how_long_it_would_take_and_with_what():
    stats = {"timed": 30, "served": 4, "short": 10, "total": 44}
    guesses = {"timed": 10.0, "served": 60.0, "short": 1.0}
    for planning, said in ((True, True), (False, False)):
        record = event("run_info", stats=stats)
        record.msg = "Job stats:"
        TimeLeft(guesses, lambda planning=planning: planning).filter(record)
        line = "This will take about 9 min 10 s: timed 5 min (30), served 4 min (4), the rest 10 s."
        assert record.msg == (f"Job stats:\n{line}\n" if said else "Job stats:")
    short = event("run_info", stats={"short": 10})
    short.msg = "Job stats:"
    TimeLeft(guesses, lambda: True).filter(short)
    assert short.msg == "Job stats:"


def test_the_serving_study_is_planned_to_fit_a_loan_of_a_gpu(monkeypatch):
    """22 minutes with graphs, references, limits of the hardware, tables and the report."""
    monkeypatch.setattr(packages, "versions", lambda names: dict.fromkeys(names, "1.0"))
    monkeypatch.setattr(deployments, "_lacking", lambda package: None)
    monkeypatch.setattr(deployments, "_no_namespaces", lambda: None)
    given = yaml.safe_load((DEFAULT.parent / "studies/serving.yaml").read_text())
    study = Study(given, Host("cpu-test", "Test CPU", 16, GPU, None))
    assert all(one.runs for one in study.deployed) and all(cell.runs for cell in study.targets.measured)
    assert [one.name for one in study.deployed if one.to_json()["aa_of"]] == ["http.aa"]
    bare = {(cell.runtime, cell.precision, cell.shape.batch) for cell in study.targets.measured}
    for one in study.deployed:  # every batch that a server can form has a bare cell
        batching = Batching.from_json(one.deployment.batching) if one.deployment.batching else None
        for runtime, _, precision, _ in (cell.split("/") for cell in one.deployment.cells):
            assert {(runtime, precision, size) for size in batches(1, batching)} <= bare
    seconds = study.expected_seconds
    timed = len(study.targets.runs) * seconds["measure_latency"]
    served = len(study.targets.served_runs) * seconds["measure_serving"]
    assert (len(study.targets.runs), len(study.targets.served_runs)) == (39, 18)
    assert timed + served + 210 <= 22 * 60


def test_other_messages_pass_unchanged():
    record = event(None)
    record.msg = "Building DAG of jobs..."
    assert TimeLeft({}).filter(record) and record.msg == "Building DAG of jobs..."


@pytest.mark.parametrize(("gpu", "processes", "minutes"), [(None, 27, 6), (GPU, 33, 8)])
def test_the_default_study_is_planned_to_end_in_minutes(monkeypatch, gpu, processes, minutes):
    monkeypatch.setattr(packages, "versions", lambda names: dict.fromkeys(names, "1.0"))
    study = Study(yaml.safe_load(DEFAULT.read_text()), Host("cpu-test", "Test CPU", 2, gpu, None if gpu else "none"))
    assert len(study.targets.runs) == processes
    assert len({cell.device for cell in study.targets.measured}) == 1
    (second,) = (cell for cell in study.targets.measured if cell.aa_of)
    # Graphs, captures, limits of the hardware and the report come on top.
    rest = 110 if gpu is None else 60 + 3 * progress.RULES["capture_trace"] + progress.RULES["measure_peaks"]
    assert len(study.targets.runs) * study.expected_seconds["measure_latency"] + rest <= minutes * 60
    assert second.runs


def test_a_process_that_compiles_is_expected_to_take_longer():
    protocol = {
        "processes": 3,
        "warmup_seconds": 0.2,
        "min_seconds": 0.25,
        "max_seconds": 0.5,
        "saturated_seconds": 0.2,
    }
    host = Host("cpu-test", "Test CPU", 2, GPU, None)
    config = yaml.safe_load(DEFAULT.read_text())
    expected = {}
    for runtime in ("onnxruntime-cuda", "torch-cuda-eager", "torch-compile", "torch-compile-max-autotune"):
        config["sweeps"] = {"gpu": {**config["sweeps"]["gpu"], "runtimes": [runtime]}}
        cells = [cell for cell in Study({**config, "traces": {"cells": []}}, host).cells if cell.runtime == runtime]
        with_runs = [dataclasses.replace(cell, runs=("run1.json",)) for cell in cells]
        expected[runtime] = progress.expected_seconds(protocol, with_runs)["measure_latency"]
    assert list(expected.values()) == sorted(set(expected.values()))
