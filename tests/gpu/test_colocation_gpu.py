"""Instances that share a real card: as threads with a stream each, as processes in turn, and under MPS."""

from __future__ import annotations

import subprocess

import pytest
from gpu.tiny_artifacts import Artifacts

from ceilings import gpu
from ceilings.cuda import mps
from ceilings.measure.colocation import ROUNDS, company, placed
from ceilings.measure.supervisor import supervise
from ceilings.statistics.interference import log_gains, references

PROTOCOL = {"warmup_seconds": 0.2, "warmup_max_seconds": 2, "min_seconds": 1, "time_limit_seconds": 300}
RUNTIMES = ("torch-cuda-eager", "onnxruntime-cuda", "onnxruntime-cuda-graph")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp("tiny"))


def task(artifacts, how, runtimes, error=False):
    made = []
    for runtime in runtimes:
        one = artifacts.task(runtime)
        spec = {key: value for key, value in one["spec"].items() if key not in ("protocol", "measurements")}
        made.append({**one, "spec": spec, "processors": [], "member": True, "batch": artifacts.shape.batch})
    instances = placed(["/".join(list(one["cell"].values())[1:]) for one in made], "shared", 1, [(0,)])
    if error:
        made[-1]["spec"]["tolerance"] = 1e-12
    return {
        **{"device": made[0]["cell"]["device"], "gpu": gpu.visible().uuid, "how": how, "instances": made},
        **{"company": company(instances), "physical_cores": 1, "protocol": PROTOCOL},
        "spec": {"threads": 1, "variables": None, "protocol": {"time_limit_seconds": 300}},
    }


def measured(*arguments, **options):
    return supervise(task(*arguments, **options), "ceilings.measure.colocation_worker")


@pytest.mark.parametrize("how", ["threads", "processes", "mps"])
@pytest.mark.parametrize("runtimes", [RUNTIMES[:1] * 2, RUNTIMES[1:], RUNTIMES[2:] * 4], ids=["twins", "pair", "four"])
def test_instances_are_measured_alone_and_in_company(artifacts, how, runtimes):
    if how == "mps" and (lack := mps.problem()):
        pytest.skip(lack[0])
    mode = compute_mode()
    record = measured(artifacts, how, runtimes)
    print(how, runtimes, record["flags"], record["failure"])
    assert record["status"] == "ok", record["failure"]
    everyone = tuple(range(len(runtimes)))
    assert all(len(references(record, at)) == ROUNDS + 1 for at in everyone)
    gains = log_gains(record, everyone, {at: at for at in everyone})
    print("gain", gains, [w["gpu"]["activity"] for w in record["windows"]])
    assert len(gains) == ROUNDS
    for window in record["windows"]:
        assert window["gpu"]["samples"] > 0 and 0 <= window["gpu"]["utilisation"]["median"] <= 1
        activity = window["gpu"]["activity"]
        if activity is None:
            assert "sm_activity" in record["gpu"]["refused"]
        else:
            assert 0 <= activity["sm"] <= activity["busy"] + 0.02 <= 1.02
    assert compute_mode() == mode
    assert not left_over()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_instances_on_separate_cards_are_measured_side_by_side(artifacts, runtime):
    uuids = [one.uuid for one in gpu.ask_every()][:2]
    if len(uuids) < 2:
        pytest.skip("one card is visible")
    record = supervise(task(artifacts, "cards", [runtime] * 2) | {"cards": uuids}, "ceilings.measure.colocation_worker")
    print(runtime, record["flags"], record["failure"])
    assert record["status"] == "ok", record["failure"]
    gains = log_gains(record, (0, 1), {0: 0, 1: 1})
    print("gain", gains, [references(record, at) for at in (0, 1)])
    assert len(record["gpu"]["cards"]) == 2 and len(gains) == ROUNDS
    assert min(gains) > 0  # two cards do more than one


def test_wrong_answers_in_company_end_the_run(artifacts):
    record = measured(artifacts, "threads", RUNTIMES[:2], error=True)
    assert record["failure"]["kind"] == "parity" and "instance 2" in record["failure"]["message"]


def test_a_process_without_the_service_is_no_result_of_it(artifacts, tmp_path):
    if lack := mps.problem():
        pytest.skip(lack[0])
    with mps.Mps(gpu.visible().uuid, tmp_path) as service:
        assert service.clients() == 0
        with pytest.raises(Exception, match="MPS computes for 0 of 1 processes"):
            service.refuse_without(1)
    assert not left_over()


def compute_mode():
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetComputeMode(pynvml.nvmlDeviceGetHandleByUUID(gpu.visible().uuid))


def left_over():
    """Programs of MPS that still run."""
    return subprocess.run(
        ["pgrep", "-f", "nvidia-cuda-mps"], capture_output=True, text=True, check=False
    ).stdout.split()
