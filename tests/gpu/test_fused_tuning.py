"""The tuner of the fused kernels' tiles on a real card, for some seconds; PyTorch, Triton and pytest are enough."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from ceilings.kernels import tiles

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "fused_tiles.py"


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_it_ends_in_time_and_leaves_tiles_that_are_no_slower(tmp_path, precision):
    account, output, began = tmp_path / "account.json", tmp_path / "tiles.json", time.monotonic()
    command = [sys.executable, PROGRAM, "--precision", precision, "--seconds", "30"]
    subprocess.run([*command, "--account", account, "--output", output], check=True, timeout=120)
    assert time.monotonic() - began < 60
    record = json.loads(account.read_text())
    entries = record["account"]
    chosen = [entry["us"] for entry in entries if entry.get("chosen")]
    refused = [entry for entry in entries if "refused" in entry]
    print(f"{entries[0]['us']:.1f} us, then {chosen}; {len(entries)} tiles, {len(refused)} of them refused")
    assert len(entries) > 20 and all(us < entries[0]["us"] * 1.1 for us in chosen)
    assert not any(entry["refused"] == "another answer" for entry in refused), refused
    assert tiles.kept(record["device"], record["size"], output)
