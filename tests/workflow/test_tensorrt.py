"""TensorRT's cells in the real pipeline: why they cannot run here, and what would run where they can."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
from tiny import STUDY, SUMMARY
from unit.planted_packages import install

from ceilings import host as hosts

H200 = hosts.Gpu("nvidia-h200", "NVIDIA H200", "GPU-1", "580.1", (9, 0), 141 << 30)
RUNTIMES = [
    "tensorrt",
    "tensorrt-graph",
    "tensorrt10",
    "onnxruntime-tensorrt",
    "onnxruntime-tensorrt-graph",
    "tensorrt-rtx",
]


def study():
    config = copy.deepcopy(STUDY)
    config["sweeps"]["tensorrt"] = {
        "models": ["tiny"],
        "runtimes": RUNTIMES,
        "precisions": ["fp32", "tf32", "fp16"],
        "batches": [1],
        "sequences": [16],
    }
    return config


def with_gpu():
    """This machine as if it had a GPU: what is planned is the same, and nothing that needs one is run."""
    host = dataclasses.replace(hosts.detect({}), gpu=H200, gpu_problem=None)
    return {hosts.PIN: json.dumps(dataclasses.asdict(host))}


REASONS = (
    "TensorRT 11 is not installed",
    "TensorRT 10 is not installed",
    "package onnxruntime-gpu is not installed",
    "NVIDIA H200 has compute capability 9.0; tensorrt-rtx runs on 8.0, 8.6, 8.9, 12.x only",
)


def test_the_plan_says_why_cells_cannot_run_and_names_no_run_of_theirs(project):
    project.configure(study())
    project.snakemake("results/plan.json", **with_gpu())
    planned = json.loads((project.folder / "results/plan.json").read_text())["cells"]
    cells = [cell for cell in planned if cell["runtime"] in RUNTIMES]
    assert {cell["runtime"] for cell in cells} == set(RUNTIMES)
    assert not any(cell["available"] or cell["runs"] for cell in cells)
    for reason in REASONS:
        assert any(reason in cell["reason"] for cell in cells), reason


@pytest.mark.slow
def test_cells_say_why_they_cannot_run_and_get_no_number(project):
    project.configure(study())
    project.snakemake(SUMMARY, **with_gpu())
    summary = (project.folder / SUMMARY).read_text()
    for reason in REASONS:
        assert reason in summary, reason
    assert not (project.folder / "results/benchmarks/nvidia-h200").exists()
    assert not (project.folder / "results/engines/nvidia-h200").exists()


@pytest.mark.slow
def test_where_tensorrt_10_is_there_its_engines_are_built_and_timed(project, tmp_path):
    packages = {"onnxruntime-gpu": "1.31.1", "pycuda": "1", "cuda-bindings": "13.3.1", "tensorrt": "10.16.1.11"}
    for name, version in packages.items():
        install(tmp_path, name, version)
    (tmp_path / "libnvinfer.so.10").touch()
    project.configure(study())
    place = {"PYTHONPATH": str(tmp_path), "LD_LIBRARY_PATH": str(tmp_path), **with_gpu()}
    planned = project.planned(SUMMARY, **place)
    processes = STUDY["protocol"]["processes"]
    assert planned["build_engine"] == 3  # an engine each for fp32, tf32 and fp16
    assert planned["build_engine_cache"] == 3  # shared by the provider's two runtimes
    cells = 3 * 3 + 1  # tensorrt10 and the provider's two, and the second of the noise cell's A/A pair
    cells += 5 + 2  # on the CPU: ONNX Runtime's, which is now onnxruntime-gpu; PyTorch's, for LD_LIBRARY_PATH counts
    assert planned["measure_latency"] == processes * cells
    assert planned["convert_precision"] == 2  # fp16, and fp32 anew by another ONNX Runtime; tf32's graph is fp32's
