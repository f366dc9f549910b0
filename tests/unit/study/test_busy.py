"""A busy machine is said at once: before anything is timed, for each disturbed process, and at the end."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from ceilings.measure.neighbours import Neighbours
from ceilings.study import busy

QUIET = {"others_cores": 0.01, "stolen_cores": 0.0, "throttled_periods": 0, "throttled_seconds": 0.0}


@pytest.fixture
def load():
    """A process that keeps a core busy."""
    process = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_a_busy_process_is_seen_before_anything_is_timed(load):
    line = busy.before(None)
    assert line.startswith("Busy machine: other processes used ") and "\n" not in line
    assert "stop other work on this machine" in line


@pytest.mark.timing
def test_a_process_of_ours_is_no_neighbour():
    with Neighbours() as neighbours:
        sum(range(3_000_000))
    alone = neighbours.others_cores
    with Neighbours() as neighbours:
        subprocess.run([sys.executable, "-c", "sum(range(9_000_000))"], check=True)
    assert neighbours.others_cores <= alone + 0.5


@pytest.mark.parametrize(
    ("record", "reasons"),
    [
        ({"neighbours": QUIET}, []),
        ({"neighbours": None, "gpu": None}, []),  # of a cell that failed
        ({"neighbours": {"others_cores": 0.05, "stolen_cores": None}}, []),  # an earlier record
        ({"neighbours": {**QUIET, "others_cores": 1.72}}, ["other processes used 172% of a core"]),
        ({"neighbours": {**QUIET, "stolen_cores": 0.4}}, ["the hypervisor took 40% of a core"]),
        (
            {"neighbours": {**QUIET, "throttled_periods": 3, "throttled_seconds": 0.12}},
            ["the CPU quota ran out in 3 periods, for 0.12 s"],
        ),
        ({"neighbours": QUIET, "gpu": {"other_processes": {}}}, []),
        ({"neighbours": QUIET, "gpu": {"other_processes": {"7": None}}}, ["another process used the GPU"]),
        (
            {"gpu": {"latency": {"throttled": {"HW thermal slowdown": 0.3}}, "throughput": {"throttled": None}}},
            ["the GPU was throttled (HW thermal slowdown)"],
        ),
    ],
)
def test_what_disturbed_a_process_is_read_from_its_record(record, reasons):
    assert busy.disturbances(record) == reasons


def event(kind, **fields):
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", (), None)
    record.__dict__.update(event=kind, **fields)
    return record


def test_each_disturbed_process_is_named_when_it_ends_and_all_of_them_at_the_end(tmp_path, caplog):
    follower = busy.Disturbances()
    follower.filter(event("run_info", stats={}))
    for number, others in enumerate((0.0, 1.5, 0.3), start=1):
        path = tmp_path / f"run{number}.json"
        path.write_text(json.dumps({"neighbours": {**QUIET, "others_cores": others}}))
        follower.filter(event("job_info", jobid=number, rule_name="measure_latency", output=[str(path)]))
        assert len(caplog.messages) == max(0, number - 2)
        assert follower.filter(event("job_finished", job_id=number))
    assert caplog.messages == [
        f"Busy machine: other processes used {share} of a core while {tmp_path}/run{number}.json was measured."
        for number, share in ((2, "150%"), (3, "30%"))
    ]
    assert follower.conclusion().startswith("Busy machine: 2 of 3 timed processes were disturbed")
    follower.filter(event("run_info", stats={}))  # the next run
    assert follower.conclusion() is None


def test_other_jobs_and_lost_records_pass(tmp_path, caplog):
    follower = busy.Disturbances()
    follower.filter(event("job_info", jobid=1, rule_name="export_onnx", output=["x.onnx"]))
    follower.filter(event("job_info", jobid=2, rule_name="measure_latency", output=[str(tmp_path / "none.json")]))
    for job in (1, 2, 3):
        assert follower.filter(event("job_finished", job_id=job))
    assert follower.timed == 1 and follower.conclusion() is None and not caplog.messages


class Nvml:
    """NVML with processes on the GPU."""

    def __init__(self, users):
        self.users = users

    def nvmlInit(self):
        pass

    nvmlShutdown = nvmlInit

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        if self.users is None:
            raise RuntimeError("not supported")
        return [object()] * self.users


@pytest.mark.parametrize(("users", "said"), [(0, None), (None, None), (1, "1 process uses"), (2, "2 processes use")])
def test_processes_on_the_gpu_are_counted_before_any_of_ours(monkeypatch, users, said):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(users))
    gpu = busy.Gpu("nvidia-test", "NVIDIA Test", "GPU-0", "580.1", (9, 0), 80 << 30)
    line = busy.before(gpu, seconds=0.0)
    assert (f"{said} the GPU" in (line or "")) if said else "the GPU" not in (line or "")
