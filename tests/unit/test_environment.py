"""Which variables reach a process that executes a cell, what of them is recorded, and that nothing reports home."""

import doctest
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("onnxruntime")

from unit.measure import tiny_cell

from ceilings import environment
from ceilings.measure import catalogue
from ceilings.measure.supervisor import supervise

NAMED = (
    *("OMP_PROC_BIND", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "CUDA_DEVICE_ORDER"),
    *("NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "ORT_TENSORRT_FP16_ENABLE", "TORCHINDUCTOR_MAX_AUTOTUNE"),
    *(
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        "PYTORCH_CUDA_ALLOC_CONF",
        "KMP_AFFINITY",
        "GOMP_CPU_AFFINITY",
        "MALLOC_ARENA_MAX",
    ),
    *("GLIBC_TUNABLES", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_BIND_NOW", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING"),
    *("TRITON_INTERPRET", "XLA_FLAGS", "CUDNN_LOGINFO_DBG", "CUBLASLT_LOG_LEVEL", "MKL_DYNAMIC", "OMP_WAIT_POLICY"),
    *("OPENBLAS_CORETYPE", "PYTHONMALLOC", "PYTHONOPTIMIZE", "ONEDNN_VERBOSE", "CXX"),
)


@pytest.mark.parametrize("name", NAMED)
def test_what_shapes_a_latency_counts(name):
    assert environment.shapes(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PATH",
            "HOME",
            "CUDA_VISIBLE_DEVICES",
            "NVIDIA_VISIBLE_DEVICES",
            "CONDA_PREFIX",
            "PYTHONPATH",
            "LC_ALL",
            "TMPDIR",
        ),
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "PYTHONHASHSEED", "ORT_DISABLE_TELEMETRY"),
        *(
            "CUDA_VERSION",
            "PYTORCH_VERSION",
            "TORCH_CUDA_ARCH_LIST",
            "HF_TOKEN",
            "ORT_API_KEY",
            "TORCH_TOKEN",
            "LDAP",
            "MY_EDITOR",
        ),
        *("https_proxy", "SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY", "TORCHINDUCTOR_CACHE_DIR", "OMPI_COMM_WORLD_RANK"),
    ],
)
def test_what_shapes_nothing_does_not_count(name):
    assert not environment.shapes(name)


def test_documented_examples_hold():
    assert doctest.testmod(environment).attempted and not doctest.testmod(environment).failed


@pytest.mark.parametrize(
    "value",
    ["/home/me/lib", "~/lib", "a@b.example", "https://user:pw@host", "x" * 101, "$(id)", "<b>", "a\nb", r"C:\me"],
)
def test_no_path_and_nothing_of_a_person_is_recorded(value):
    (shown,) = environment.recorded({"LD_LIBRARY_PATH": value}).values()
    assert shown.startswith("sha256:") and value not in shown
    assert environment.recorded({"A": value}) != environment.recorded({"A": value + " "})


SET = {
    "OMP_PROC_BIND": "close",
    "LD_LIBRARY_PATH": "/nowhere/of/mine",
    "ORT_DISABLE_TELEMETRY": "0",
    "OMP_NUM_THREADS": "7",
    "HF_TOKEN": "hf_secret",
    "https_proxy": "http://user:secret@proxy",
    "MY_EDITOR": "vi",
    "LD_SECRET": "x",
}


def of_worker(found):
    """Waits for a worker below this process; keeps its environment, as the kernel has it, and its threads."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not found:
        for child in psutil.Process().children():
            if "ceilings.measure.worker" not in child.cmdline():  # before it is one, the environment is this process's
                continue
            if text := Path(f"/proc/{child.pid}/environ").read_bytes().decode():
                found |= dict(entry.split("=", 1) for entry in text.split("\0") if entry)
        time.sleep(0.005)


def test_a_worker_runs_in_a_known_environment(tmp_path, monkeypatch):
    of_machine = environment.shaping_now()  # some set OPENBLAS_CORETYPE in every shell
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(environment.PIN, raising=False)
    task = tiny_cell.make(tmp_path, catalogue.task_entries("cpu", ["closed-loop"]))
    task["spec"]["variables"] = {"KMP_AFFINITY": "compact", **environment.recorded(environment.shaping())}
    found = {}
    watcher = threading.Thread(target=of_worker, args=(found,))
    watcher.start()
    record = supervise(task)
    watcher.join()
    assert record["status"] == "ok", record["failure"]
    assert found["OMP_PROC_BIND"] == "close" and found["LD_LIBRARY_PATH"] == "/nowhere/of/mine"
    assert found["ORT_DISABLE_TELEMETRY"] == found["OMP_NUM_THREADS"] == "1"
    assert not {"HF_TOKEN", "https_proxy", "MY_EDITOR", "LD_SECRET"} & set(found)
    known = {*environment.PINNED, *SET, *of_machine}
    assert not [name for name in found if not (environment.passes(name) or name in known or "_NUM_THREADS" in name)]
    recorded = record["provenance"]["variables"]
    assert recorded["OMP_PROC_BIND"] == "close" and recorded["LD_LIBRARY_PATH"].startswith("sha256:")
    named = ", ".join(f"{name}={value}" for name, value in sorted({**of_machine, "OMP_PROC_BIND": "close"}.items()))
    assert f"the environment sets {named}" in record["flags"]
    assert "planned with another KMP_AFFINITY" in record["flags"]
    assert not any(secret in json.dumps(record) for secret in ("nowhere", "hf_secret", "MY_EDITOR"))


def test_what_the_planning_process_had_reaches_the_worker_past_its_program(monkeypatch):
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    monkeypatch.delenv(environment.PIN, raising=False)
    environment.pin()
    monkeypatch.setenv("OMP_PROC_BIND", "spread")
    assert environment.executing(2)["OMP_PROC_BIND"] == "close"
    assert environment.executing(2)["OMP_NUM_THREADS"] == "2"
    assert "OMP_PROC_BIND" not in environment.known()
    monkeypatch.delenv(environment.PIN)
    monkeypatch.delenv(environment.DROPPED)


def test_the_shell_of_a_job_drops_what_is_unknown(monkeypatch):
    for name, value in {**SET, "BASH_FUNC_f%%": "() { :; }"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(environment.PIN, raising=False)
    environment.pin()
    done = subprocess.run(["bash", "-c", f"{environment.PREFIX} env -0"], capture_output=True, text=True, check=True)
    monkeypatch.delenv(environment.PIN)
    monkeypatch.delenv(environment.DROPPED)
    seen = {entry.partition("=")[0] for entry in done.stdout.split("\0")}
    assert not {"OMP_PROC_BIND", "MY_EDITOR", "LD_SECRET"} & seen
    assert {"LD_LIBRARY_PATH", "HF_TOKEN", "https_proxy", "PATH", "HOME"} <= seen


# ---- nothing reports home --------------------------------------------------------------------------------------------

SESSION = """
import os, sys
{first}
looked = []
names = ("socket.getaddrinfo", "socket.connect", "socket.gethostbyname")
sys.addaudithook(lambda event, arguments: looked.append(str(arguments)) if event in names else None)
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
onnxruntime.InferenceSession({graph!r}, options, providers=["CPUExecutionProvider"])
print(len(os.listdir("/proc/self/task")), looked)
"""


def session(folder, first):
    """Threads of a process with one session, what it looked up, and the files that it left in an empty home."""
    tiny_cell.make(folder, [])
    home = folder / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    variables = {
        **kept,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": str(environment.SCRIPTS),
    }
    code = SESSION.format(first=first, graph=str(folder / "fp32.onnx"))
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    threads, looked = done.stdout.split(maxsplit=1)
    return int(threads), looked.strip(), [path.name for path in home.rglob("*") if path.is_file()]


def test_onnx_runtime_reports_nothing(tmp_path):
    for name in ("on", "off"):
        (tmp_path / name).mkdir()
    threads, _, files = session(tmp_path / "on", "")
    if "deviceid" not in files:
        pytest.skip("this build of ONNX Runtime has no telemetry")  # then the rest would show nothing
    quiet, looked, left = session(tmp_path / "off", "import ceilings")
    assert quiet == threads - 1 and left == [] and looked == "[]"
