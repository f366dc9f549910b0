"""A cell is counted through the program that is on PATH, and however that ends the record says so.

CUDA cannot run here, so ``ncu`` is a double: it takes the options of the real one (which
``test_the_real_program_takes_these_options`` holds them against where it is at hand), runs nothing, and leaves what the
counted process and Nsight Compute would.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from unit.traces.counted import kernel, product, table

from ceilings import records
from ceilings.errors import UserError
from ceilings.provenance import provenance
from ceilings.traces import counters, counting, ncu, source

RESULT = {"iterations": 1, "gpu": {"slug": "nvidia-test"}, "flags": [], "warmup_p50_ns": 1e6, "warmup_stable": True}

DOUBLE = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
options = [word for word in sys.argv[1:] if word.startswith("--")]
with open(here / "asked", "a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
if options == ["--version"]:
    print("NVIDIA (R) Nsight Compute Command Line Profiler\\nVersion 2025.3.1.0 (build 1)")
elif options == ["--query-metrics"]:
    print((here / "offered").read_text())
elif options[0].startswith("--import="):
    assert pathlib.Path(options[0].split("=")[1]).is_file()
    print((here / "table").read_text())
else:
    print((here / "printed").read_text())
    (export,) = [word.split("=")[1] for word in options if word.startswith("--export=")]
    if (here / "result").is_file():
        pathlib.Path(sys.argv[-1]).write_text((here / "result").read_text())
    if (here / "table").is_file():
        pathlib.Path(export + ".ncu-rep").write_bytes(b"report")
"""


@pytest.fixture
def double(tmp_path, monkeypatch):
    """The folder of the double; its files say what it does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ncu").write_text(DOUBLE.format(python=sys.executable))
    (folder / "ncu").chmod(0o755)
    names = [metric.split(".")[0] for metric in counters.COUNTERS.values()]
    (folder / "offered").write_text("\n".join(f"{name}   Counter   cycle   # of things" for name in names))
    (folder / "printed").write_text("==PROF== Connected to process 1")
    (folder / "result").write_text(json.dumps(RESULT))
    (folder / "table").write_text(table([product(128, 768, 768, 5000), kernel("layer_norm")]))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def counted(tmp_path):
    """Counts a cell whose artifact is there; with the record and the words that the program was given."""

    def count(caches="steady"):
        task = {
            "cell": {"device": "nvidia-test", "runtime": "r", "model": "m", "precision": "fp16", "shape": "b1-s8"},
            **{"artifact": str(tmp_path), "inputs": str(tmp_path / "inputs.npz"), "workload": "workload.json"},
            "spec": {"threads": 1, "protocol": {"time_limit_seconds": 5}, "iterations": 1, "caches": caches},
        }
        return counting.count(task, tmp_path / "x.ncu-rep")

    return count


def test_the_kernels_of_an_iteration_are_kept(tmp_path, double, counted):
    record = counted()
    assert record["status"] == "ok" and record["tool"] == "ncu Version 2025.3.1.0 (build 1)" and record["lacking"] == []
    assert [kernel["name"] for kernel in record["kernels"]] == ["nvjet_hsh_128x768_768", "layer_norm"]
    records.write(tmp_path / "x.json", "counters", {**record, "provenance": provenance(())})
    assert "somebodys-host" not in (tmp_path / "x.json").read_text()
    assert (tmp_path / "x.ncu-rep").read_bytes() == b"report"
    assert (tmp_path / "x.ncu-rep").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("caches", "replay", "control"), [("steady", "application", "none"), ("cold", "kernel", "all")]
)
def test_caches_and_replay_go_together(double, counted, caches, replay, control):
    assert counted(caches)["caches"] == caches
    (asked,) = [line for line in map(json.loads, (double / "asked").read_text().splitlines()) if "-m" in line]
    assert {f"--replay-mode={replay}", f"--cache-control={control}", "--clock-control=none"} <= set(asked)
    assert "ceilings.traces.target" in asked


def test_a_counter_that_a_device_lacks_is_named(double, counted):
    names = (double / "offered").read_text().splitlines()
    (double / "offered").write_text("\n".join(name for name in names if "src_fp8" not in name))
    assert counted()["lacking"] == ["sm__ops_path_tensor_src_fp8.sum"]
    assert "src_fp8" not in (double / "asked").read_text()


def failure(record):
    assert record["status"] == "failed" and "kernels" not in record
    return record["failure"]["message"]


def test_a_cell_that_fails_fails_for_its_reason(double, counted):
    (double / "result").write_text(json.dumps({"failure": {"kind": "out-of-memory", "message": "3 GB of 2 GB"}}))
    record = counted()
    assert failure(record) == "3 GB of 2 GB" and record["failure"]["kind"] == "out-of-memory"


def test_without_a_report_the_record_says_what_ncu_said(tmp_path, double, counted):
    (double / "table").unlink()
    (double / "printed").write_text("==PROF== Connected\n==ERROR== Cuda driver is not compatible\n==ERROR== No luck\n")
    assert failure(counted()) == "ncu left no report: Cuda driver is not compatible No luck"
    (double / "printed").write_text("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access counters")
    assert "lets only root read the counters" in failure(counted())
    assert not (tmp_path / "x.ncu-rep").exists()


def test_a_device_whose_counters_cannot_be_named_is_a_failure(double, counted):
    (double / "offered").write_text("==ERROR== Driver could not be loaded.")
    assert failure(counted()) == "ncu does not name its counters: Driver could not be loaded."


def test_without_the_program_there_is_a_reason(monkeypatch, counted):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert source.missing("ncu") == "ncu is not on PATH (install Nsight Compute)"
    with pytest.raises(UserError, match=r"ncu is not on PATH; install Nsight Compute, or leave out what it counts"):
        counted()


@pytest.mark.skipif(shutil.which("ncu") is None, reason="ncu is not on PATH")
@pytest.mark.parametrize("caches", ncu.CACHES)
def test_the_real_program_takes_these_options(tmp_path, caches):
    """Without a GPU it refuses the driver, after it took every option."""
    command = ncu.wrapped(["/bin/true"], tmp_path / "x.ncu-rep", list(counters.METRICS.values()), caches)
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert "unrecogni" not in done.stdout and "invalid" not in done.stdout.lower(), done.stdout
