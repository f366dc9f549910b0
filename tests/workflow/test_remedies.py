"""Every remedy that a damaged file or a failed cell prints is followed to the letter, and the flaw is gone."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess

import pandas as pd
import pytest
from tiny import SUMMARY

from ceilings.artifacts import made
from ceilings.errors import CellFailure

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

DAMAGED = {
    "results/benchmarks/*/onnxruntime-cpu/tiny/fp32/b1-s16/run1.json": "collect_cells",
    "results/tables/cells.parquet": "write_summary",
    "results/plan.json": "write_summary",
    "results/parity/tiny/int8.cpu.json": "write_summary",
    "results/onnx/tiny/int8.onnx": "offset_activations",
    "results/onnx/tiny/simplified.onnx": "convert_precision",
    "results/calibration/tiny/minmax.json": "quantize_graph",
    "results/models/tiny/inputs/b8-s16.npz": "compute_reference",
    "results/models/tiny/reference/b8-s16.npz": "check_parity",
    "results/models/tiny/weights/config.json": "make_inputs",
    "results/models/tiny/weights/workload.json": "make_inputs",
    "results/models/tiny/weights/model.safetensors": "compute_reference",
}


@pytest.mark.parametrize("pattern", DAMAGED)
def test_the_remedy_of_a_damaged_file(project, pattern):
    path = next(project.folder.glob(pattern))
    file = str(path.relative_to(project.folder))
    content, state = path.read_bytes(), path.stat()
    path.write_bytes(content[: len(content) // 2])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    done = project.snakemake(SUMMARY, "-R", DAMAGED[pattern], check=False)
    said = next(line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: "))
    assert file in said or str(path.parent.relative_to(project.folder)) in said
    made_anew = follow(project, said, file)
    planned = project.planned()
    assert planned["write_summary"] == 1 and (made_anew or sum(planned.values()) > 1), said
    if planned["measure_latency"] < 5:  # else it takes a minute, and the plan says it
        project.snakemake(SUMMARY)
        assert project.planned() == {}
        assert len(path.read_bytes()) > len(content) // 2


def follow(project, said, file):
    """Do what a message says: delete the file, or the folder of weights, and run the command if there is one.

    Returns: whether there was a command, after which the file must be whole again.
    """
    if re.search(r"delete (it|the calibration|results/\S+) and run", said):
        (project.folder / file).unlink()
    else:
        assert re.search(r"delete the (weights )?folder and run again", said), said
        shutil.rmtree((project.folder / file).parent)
    if command := re.search(r"`snakemake (.*?)`", said):
        project.snakemake(*shlex.split(command[1]))
        assert (project.folder / file).exists()
    return bool(command)


def test_the_remedy_of_a_failed_cell_tries_again_what_could_not_be_made(project):
    """Its graph could not be made, so the cell failed; the cause is mended, and nobody names the graph."""
    graph = project.folder / "results/onnx/tiny/int8.cpu.onnx"
    with made(graph.with_suffix(".json"), [graph], "graph"):
        raise CellFailure("unsupported", "planted")
    runs = sorted(project.folder.glob("results/benchmarks/*/onnxruntime-cpu/tiny/int8/b8-s16/run*.json"))
    project.snakemake("--force", *(str(run.relative_to(project.folder)) for run in runs))
    project.snakemake(SUMMARY)
    failed = failures(project)
    assert set(failed["reason"]) == {"unsupported: planted"}  # of every cell on that graph
    remedy = re.search(r"then `(rm -r results/benchmarks/\S+)` and run again$", failed["remedy"].iloc[0])
    subprocess.run(shlex.split(remedy[1]), cwd=project.folder, check=True)
    project.snakemake(SUMMARY)
    assert failures(project).empty and project.planned() == {}
    assert "planted" not in (project.folder / SUMMARY).read_text()


def failures(project):
    cells = pd.read_csv(project.folder / "results/tables/cells.csv")
    return cells[cells["status"] == "failed"]
