"""Our steps beside the libraries' on a real card, at batch 1; PyTorch, Triton and pytest are enough."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "beside_libraries.py"


@pytest.mark.usefixtures("hopper")
def test_it_ends_in_time_with_right_answers_and_steps_that_add_up(tmp_path):
    output, began = tmp_path / "beside.json", time.monotonic()
    subprocess.run([sys.executable, PROGRAM, "--batch", "1", "--output", output], check=True, timeout=150)
    assert time.monotonic() - began < 90
    (batch,) = json.loads(output.read_text())["batches"]
    steps = {step["step"]: {one["name"]: one for one in step["contenders"]} for step in batch["steps"]}
    for title, contenders in steps.items():
        ours = [one for name, one in contenders.items() if name.startswith("ours")]
        theirs = [one for name, one in contenders.items() if not name.startswith("ours")]
        assert [one["refused"] for one in ours] == [None, None], title
        assert any(one["refused"] is None for one in theirs), theirs
        assert all(len(one["us"]) == 11 for one in (*ours, *theirs) if one["refused"] is None)
        assert all(one["off"] < 2e-3 for one in ours)
    for kind in ("overlapped", "one after the other"):
        took = {title: statistics.median(step[f"ours, {kind}"]["us"]) for title, step in steps.items()}
        parts = [took[step] for step in ("qkv", "attention, mask", "out", "up", "down")]
        print(f"{kind}: steps {sum(parts):.1f} us together, the layer {took['layer, mask']:.1f}")
        assert 0.5 * sum(parts) < took["layer, mask"] < 1.5 * sum(parts)
