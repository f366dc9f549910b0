"""Trees of two machines, merged: nothing of them is planned, and the summary shows both."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tiny import PROJECT, STUDY, SUMMARY, Project

sys.path.insert(0, str(PROJECT / "tests" / "unit" / "report"))
import planted_study as planted

FIRST, SECOND = "nvidia-h100", "nvidia-h200"


@pytest.fixture
def merged(tmp_path: Path) -> Project:
    """A checkout whose results came from two machines, one as a folder and one as an archive."""
    for name in ("Snakefile", "rules", "workflow_scripts", "envs", "docs"):
        (tmp_path / name).symlink_to(PROJECT / name)
    for seed, device in enumerate((FIRST, SECOND)):
        maker = planted.StudyMaker(tmp_path / device, runs=2, seed=seed)
        maker.measure(device, [("onnxruntime-cuda", "fp32"), ("torch-cuda-eager", "fp16")], [(1, 16), (8, 16)])
    with tarfile.open(tmp_path / "second.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / SECOND / "results", "results")
    command = [sys.executable, str(PROJECT / "workflow_scripts" / "merge_results.py"), str(tmp_path / FIRST)]
    done = subprocess.run(
        [*command, "second.tar.gz", "--into", "results"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"devices: [auto, {FIRST}, {SECOND}]" in done.stdout
    project = Project(tmp_path)
    named = {"models": {planted.TEXT: STUDY["models"]["tiny"]}}
    sweep = STUDY["sweeps"]["one"] | {
        "models": [planted.TEXT],
        "runtimes": ["onnxruntime-cuda", "torch-cuda-eager"],
        "precisions": ["fp32", "fp16"],
    }
    project.configure(STUDY | named | {"devices": [FIRST, SECOND], "sweeps": {"one": sweep}})
    return project


def test_nothing_of_the_other_machines_is_planned(merged):
    planned = merged.planned()
    assert not {"measure_latency", "export_onnx", "fetch_weights", "measure_peaks"} & set(planned)
    assert planned["collect_cells"] == planned["write_summary"] == 1


@pytest.mark.slow
def test_the_summary_shows_both(merged):
    merged.snakemake(SUMMARY, "results/report.html")
    summary = (merged.folder / SUMMARY).read_text()
    assert FIRST in summary and SECOND in summary
    assert (merged.folder / "results" / "report.html").stat().st_size > 1e6
    assert not merged.planned(SUMMARY)
