"""A busy machine is said at the start, beside the job that it disturbed, and at the end."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def load():
    """Two processes that keep a core busy each."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for process in processes:
        process.kill()
        process.wait()


def test_a_run_beside_other_work_says_so_at_once_and_at_the_end(project, load):
    record = next(iter(sorted((project.folder / "results/benchmarks").rglob("run1.json"))))
    record.unlink()
    target = str(record.relative_to(project.folder))
    lines = project.snakemake(target).stderr.splitlines()
    said = [(number, line) for number, line in enumerate(lines) if line.startswith("Busy machine: ")]
    (before, first), (during, second), (after, third) = said
    assert "before the first job" in first and target in second and "1 of 1 timed processes" in third
    timing = next(number for number, line in enumerate(lines) if ": Timing " in line)
    finished = next(number for number, line in enumerate(lines) if "1 of 1 steps" in line)
    assert before < timing < during < finished < after


def test_nothing_is_said_where_nothing_is_timed(project, load):
    (project.folder / "results/summary.md").unlink()
    assert "Busy machine" not in project.snakemake("results/summary.md").stderr
