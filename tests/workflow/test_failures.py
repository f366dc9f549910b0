"""Cells that cannot run are results; interrupted jobs leave nothing that a later run trusts."""

import json

import pytest
from tiny import SUMMARY

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

STAGES = {
    "fetch_weights": "results/models/tiny/weights/model.safetensors",
    "make_inputs": "results/models/tiny/inputs/b8-s16.npz",
    "compute_reference": "results/models/tiny/reference/b8-s16.npz",
    "export_onnx": "results/onnx/tiny/exported.onnx",
    "simplify_onnx": "results/onnx/tiny/simplified.onnx",
    "calibrate_ranges": "results/calibration/tiny/minmax.json",
    "quantize_graph": "results/onnx/tiny/int8.onnx",
    "check_parity": "results/parity/tiny/fp32.json",
    "measure_latency": None,
    "collect_cells": "results/tables/cells.csv",
    "draw_plot": "results/plots/batch_sweep.svg",
    "write_summary": SUMMARY,
}

# Kills its own process group half-way through the first file that it puts in place.
HALF_WRITTEN = """
import ceilings.files as files, contextlib, os, signal
_atomic = files.atomic
@contextlib.contextmanager
def atomic(path):
    with _atomic(path) as temporary:
        yield temporary
        content = temporary.read_bytes() if temporary.is_file() else b""
        temporary.write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
files.atomic = atomic
"""

WRONG = """
_outputs = OnnxRuntimeCpu.outputs
OnnxRuntimeCpu.outputs = lambda self, launched: {name: value + 1 for name, value in _outputs(self, launched).items()}
"""


def run_record(project):
    return next((project.folder / "results/benchmarks").rglob("onnxruntime-cpu/tiny/fp32/b1-s16/run1.json"))


@pytest.mark.parametrize("rule", STAGES)
def test_killed_in_the_middle_of_a_write(project, rule):
    """The program dies with a half-written file; the target keeps its old content or is absent, never half."""
    target = project.folder / (STAGES[rule] or run_record(project).relative_to(project.folder))
    whole = target.read_bytes()
    site = project.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"import os, sys\nif any('{rule}.py' in a for a in sys.orig_argv):\n"
        f"    sys.path.insert(0, {str(project.folder / 'workflow_scripts')!r})\n"
        + "\n".join("    " + line for line in HALF_WRITTEN.strip().splitlines())
    )
    relative = str(target.relative_to(project.folder))
    done = project.snakemake("--force", relative, check=False, PYTHONPATH=str(site))
    assert done.returncode != 0
    assert not target.exists() or target.read_bytes() == whole
    project.snakemake(relative)
    assert target.exists() and (len(target.read_bytes()) > len(whole) // 2)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "ended by SIGSEGV"),
        ("import time; time.sleep(100)", "timed-out", "no result after 3 s"),
        ("raise MemoryError('cannot allocate')", "out-of-memory", "cannot allocate"),
    ],
)
def test_cell_that_fails_is_recorded_and_the_study_goes_on(project, fault, kind, message):
    runtime = "workflow_scripts/ceilings/runtimes/onnxruntime_cpu.py"
    project.edit(runtime, f"def _fault(self, slot):\n    {fault}\n\n\nOnnxRuntimeCpu.launch = _fault")
    config = project.folder / "config.yaml"
    config.write_text(config.read_text().replace("time_limit_seconds: 60", "time_limit_seconds: 3"))
    record = run_record(project)
    project.snakemake(str(record.relative_to(project.folder)))
    failure = json.loads(record.read_text())["failure"]
    assert failure["kind"] == kind and message in failure["message"]


def test_wrong_outputs_get_no_speed_number(project):
    runtime = "workflow_scripts/ceilings/runtimes/onnxruntime_cpu.py"
    project.edit(runtime, WRONG)
    project.snakemake(SUMMARY)
    record = json.loads(run_record(project).read_text())
    assert record["status"] == "failed" and record["failure"]["kind"] == "parity" and record["series"] == {}
    summary = (project.folder / SUMMARY).read_text()
    assert "parity" in summary and "relative L2 difference from the FP32 reference" in summary


def test_results_of_cells_that_cannot_run_here_are_in_the_summary(finished):
    summary = (finished.folder / SUMMARY).read_text()
    assert "AMD" in summary or "cpu-" in summary
    assert "seeded" in summary or "random" in summary
