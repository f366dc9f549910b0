"""Attention of our own in ONNX Runtime, through the workflow: placed, built, compared, and built anew alone."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from ceilings import host as hosts
from ceilings import records
from ceilings.host import Gpu

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

GPU = Gpu("nvidia-test", "NVIDIA Test", "GPU-1", "580.1", (9, 0), 80 << 30)
TARGET = "results/parity/tiny/fp16.operator.json"


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_an_operator_is_placed_built_compared_and_built_anew_alone(project, tmp_path):
    steps = {"convert_precision": 1, "fuse_graph": 1, "place_operator": 1, "build_operator": 1, "check_parity": 1}
    assert project.planned(TARGET) == steps
    project.snakemake(TARGET)
    record = records.read(project.folder / TARGET, "parity")
    assert record["status"] == "ok" and record["relative_l2"] < 2e-2
    built = records.read(project.folder / "results/onnx/tiny/fp16.attention.json", "operator-library")
    assert {"cpu float32", "cpu float16"} <= set(built["kernels"])
    assert project.planned(TARGET) == {}
    project.edit("workflow_scripts/ceilings/kernels/attention_on_cpu.h", "/* another kernel */")
    assert project.planned(TARGET) == {"build_operator": 1, "check_parity": 1}

    without = tmp_path / "bin"  # a machine without a C compiler
    without.mkdir()
    for tool in ("bash", "sh", "env", "rm", "mkdir", "git"):
        if found := shutil.which(tool):
            (without / tool).symlink_to(found)
    python = Path(sys.executable).parent
    project.snakemake(TARGET, PATH=f"{python}{os.pathsep}{without}")
    record = records.read(project.folder / TARGET, "parity")
    assert record["status"] == "failed"
    assert record["reason"].startswith(
        "build-failed: attention for ONNX Runtime is built by a C compiler, and PATH has"
    )


def test_cells_of_the_operator_read_its_graph_and_its_library(project):
    host = dataclasses.replace(hosts.detect({}), gpu=GPU, gpu_problem=None)
    run = "results/benchmarks/nvidia-test/onnxruntime-cuda-operator-graph/tiny/fp16/b1-s16/run1.json"
    planned = project.planned(run, **{hosts.PIN: json.dumps(dataclasses.asdict(host))})
    steps = ("convert_precision", "fuse_graph", "place_operator", "build_operator", "measure_latency")
    assert planned == dict.fromkeys(steps, 1)
