"""The programs that need no GPU, by hand: from counters to verdicts, and both pictures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from unit.record_samples import SAMPLES

from ceilings import records

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"


def program(name, **options):
    words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_counters_to_pictures(tmp_path):
    counters, lessons, peaks = (SAMPLES[kind](tmp_path) for kind in ("counters", "lessons", "peaks"))
    limits = tmp_path / "made.ncu.json"
    printed = program("judge_kernels", counters=counters, peaks=peaks, output=limits)
    assert "latency-limited 100%" in printed
    made = records.read(limits, "kernel-limits")
    assert [kernel["verdict"] for kernel in made["kernels"]] == ["latency-limited"] * 2 and made["checks"] == []
    for name, source in (("draw_kernel_roofline", {"limits": limits}), ("draw_lessons", {"lessons": lessons})):
        program(name, **source, output_svg=tmp_path / f"{name}.svg", output_png=tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
