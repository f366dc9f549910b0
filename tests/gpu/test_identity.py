"""On a real card: what identifies it and an imported package, and a second process beside a measured one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu.known_truth import ITERATIONS, TRUTH
from gpu.tiny_artifacts import Artifacts
from unit.planted_packages import leave_metadata

from ceilings import gpu
from ceilings.environment import executing
from ceilings.errors import UserError
from ceilings.measure.supervisor import supervise
from ceilings.slugs import gpu_name

LOAD = """
import time, torch
matrix = torch.randn(4096, 4096, device="cuda")
matrix @ matrix
torch.cuda.synchronize()
print("up", flush=True)
while True:
    matrix @ matrix
    torch.cuda.synchronize()
"""


def python(code: str, **variables: str) -> str:
    """The last line that a separate process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**executing(1), **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


def asked(**variables: str) -> gpu.Gpu | str:
    """The GPU of a process with these variables, or what is wrong."""
    answer = json.loads(python("from ceilings.gpu import main; main()", **variables))
    return answer["problem"] if "problem" in answer else gpu.from_json(answer["gpus"][0])


@pytest.fixture(scope="module")
def card() -> gpu.Gpu:
    return gpu.visible()


@pytest.fixture
def neighbour():
    """Another process that keeps the GPU busy."""
    process = subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().strip() == "up"
    yield process
    process.kill()
    process.wait()


# --- the device ------------------------------------------------------------------------------------------------------


def test_a_process_of_its_own_gives_the_same_card(card):
    assert gpu.ask_every()[0] == card


def test_cuda_s_runtime_gives_the_same_card(card):
    from ceilings.cuda import device as cuda

    assert cuda.capability() == card.capability
    assert cuda.attribute("MultiProcessorCount") == card.multiprocessors


def test_nvidia_smi_lists_the_same_card(card):
    if shutil.which("nvidia-smi") is None:
        pytest.skip("nvidia-smi is not here")
    fields = "uuid,name,driver_version,memory.total"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    if card.mig:
        pytest.skip("nvidia-smi lists whole cards, and this is a slice")
    (row,) = [row for row in rows if row[0] == card.uuid]
    assert (gpu_name(row[1]), row[2]) == (card.name, card.driver)
    if row[3].isdecimal():
        assert 0.9 < card.memory_bytes / (int(row[3]) << 20) <= 1


@pytest.mark.parametrize("shown", ["whole", "abbreviated"])
def test_a_card_named_by_its_uuid(card, shown):
    chosen = card.uuid if shown == "whole" else card.uuid[: len("GPU-8932f937")]
    if card.mig and shown == "abbreviated":
        pytest.skip("CUDA takes no abbreviated UUID of a slice")
    assert asked(CUDA_VISIBLE_DEVICES=chosen) == card


def test_a_card_that_is_not_there(card):
    problem = asked(CUDA_VISIBLE_DEVICES="GPU-ffffffff")
    assert problem.endswith("CUDA_VISIBLE_DEVICES='GPU-ffffffff'") and "no CUDA-capable device" in problem


@pytest.mark.parametrize("order", ["FASTEST_FIRST", "PCI_BUS_ID"])
def test_the_first_card_in_cuda_s_order_is_the_one_that_pytorch_uses(order):
    code = "import torch; p = torch.cuda.get_device_properties(0); print(p.uuid, p.multi_processor_count)"
    uuid, multiprocessors = python(code, CUDA_DEVICE_ORDER=order).split()
    found = asked(CUDA_DEVICE_ORDER=order)
    assert found.multiprocessors == int(multiprocessors)
    assert found.mig or found.uuid == f"GPU-{uuid.removeprefix('GPU-')}"


# --- a cell ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp("tiny"))


def test_a_cell_of_another_card_is_refused(artifacts):
    task = artifacts.task("torch-cuda-eager")
    task["cell"]["device"] = "nvidia-other-24gb"
    with pytest.raises(UserError, match=r"belongs to nvidia-other-24gb, and this process would use"):
        supervise(task)


def test_a_run_record_says_what_ran_where(artifacts, card):
    record = supervise(artifacts.task("onnxruntime-cuda"))
    assert record["status"] == "ok", record["failure"]
    assert {name: record["gpu"][name] for name in ("slug", "uuid", "name")} == {
        "slug": card.slug,
        "uuid": card.uuid,
        "name": card.name,
    }
    module = record["provenance"]["modules"]["onnxruntime-gpu"]
    assert module["package"] == "onnxruntime-gpu" and module["library"]["file"].endswith(".so")
    assert not [flag for flag in record["flags"] if flag.startswith("planned with")]


def test_leftover_metadata_names_no_version(tmp_path):
    """The metadata of two versions that are gone, before the real ones on the path."""
    leave_metadata(tmp_path, "onnxruntime", "1.18.0", {"onnxruntime/__init__.py": "old"})
    leave_metadata(tmp_path, "onnxruntime-gpu", "1.30.0", {"onnxruntime/__init__.py": "older"})
    code = (
        "import json, onnxruntime, torch; from pathlib import Path; from ceilings.provenance import provenance; "
        "r = provenance(['onnxruntime-gpu', 'torch']); "
        "n = r['modules']['onnxruntime-gpu']['library']['file']; "
        "p = str(next(Path(onnxruntime.__file__).parent.rglob(n))); "
        "print(json.dumps([r, onnxruntime.__version__, torch.__version__, p]))"
    )
    path = os.pathsep.join([executing(1)["PYTHONPATH"], str(tmp_path)])
    record, onnxruntime, torch, library = json.loads(python(code, PYTHONPATH=path))
    assert record["packages"] == {
        "onnxruntime-gpu": onnxruntime,
        "torch": torch.partition("+")[0],  # a distribution may leave the label of its build out
    }
    digest = hashlib.sha256(Path(library).read_bytes()).hexdigest()
    assert record["modules"]["onnxruntime-gpu"]["library"]["sha256"] == digest
    assert record["modules"]["torch"]["library"]["file"].startswith("libtorch")


# --- a second process ------------------------------------------------------------------------------------------------


def test_cupti_records_its_own_process_alone(neighbour, tmp_path):
    from ceilings.traces import capture, health, store
    from ceilings.traces.budget import Account

    pytest.importorskip("cupti.cupti")
    raw = tmp_path / "raw.sqlite"
    command = [sys.executable, str(Path(__file__).with_name("known_truth.py")), "--cupti", str(raw)]
    done = subprocess.run(command, env=executing(1), capture_output=True, text=True, timeout=300, check=False)
    assert raw.is_file(), done.stderr[-2000:]
    assert neighbour.poll() is None
    found = capture.trimmed(store.read(raw))
    print(health.refuse_unsound(found, raw))
    kernels = {found.names[name] for name in found.operations.name if name >= 0}
    assert kernels and all(re.match("truth_", name) for name in kernels)
    iterations = Account(found).iterations()
    assert len(iterations) == ITERATIONS and {one.kernels for one in iterations} == {TRUTH["kernels"]}


def test_a_neighbour_is_flagged_while_timing_and_while_recording(neighbour, artifacts, card):
    from ceilings.cuda import device as cuda
    from ceilings.cuda import monitor
    from ceilings.traces import target

    cuda.initialise()
    listed = monitor.Device(card.uuid).processes()
    if not listed or len(listed) == 1:
        pytest.skip(f"NVML lists {listed} here, with two processes on the GPU")
    assert target.neighbours(card)[0].startswith("another process uses the GPU: pid ")
    with monitor.Monitor(card.uuid) as watching:
        watching.wait_for_samples(2 * monitor.PROCESSES_EVERY)
    assert len(watching.processes) > 1
    record = supervise(artifacts.task("torch-cuda-eager"))
    assert record["gpu"]["other_processes"]
    assert [flag for flag in record["flags"] if flag.startswith("another process uses the GPU")]


def test_a_neighbour_that_has_gone_is_none(card):
    from ceilings.traces import target

    time.sleep(1)
    flags = target.neighbours(card)
    if flags:
        pytest.skip(f"somebody else is on this GPU: {flags[0]}")
