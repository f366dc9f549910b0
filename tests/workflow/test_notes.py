"""What is asked for by name beside the summary: the lab note, and a comparison with an earlier tree."""

import shutil

import pytest
from test_rebuilds import changed

pytestmark = pytest.mark.workflow

TARGETS = ("results/summary_table.md", "results/engineering_observations.md", "results/comparison.md")


def test_notes_and_comparison_with_an_earlier_tree(project):
    missing = project.snakemake("results/comparison.md", "--dry-run", check=False)
    assert "add compare: {before: FOLDER}" in missing.stdout + missing.stderr

    shutil.copytree(project.folder / "results/tables", project.folder / "earlier/tables")
    project.configure(changed(compare={"before": "earlier"}))
    project.snakemake(*TARGETS)
    table, observations, comparison = ((project.folder / target).read_text() for target in TARGETS)
    assert "onnxruntime-cpu" in table and "torch-eager" in table
    assert "## Open, and what would decide it" in observations
    assert "6 cells on both sides, by p50: 0 slower, 0 faster" in comparison  # the same records
    assert (project.folder / "results/comparison.html").exists()
    assert project.planned(" ".join(TARGETS[:1])) == {}
