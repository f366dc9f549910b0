"""The pipeline is ended while it times: nothing goes on, and the next run needs no help."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from tiny import SUMMARY

from ceilings import environment

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

SURVIVAL_SECONDS = 2
LINKS = ("snakemake", "bash", "program", "work", "worker")
RECORD = "onnxruntime-cpu/tiny/fp32/b1-s16/run1.json"


def line(process):
    """The chain from Snakemake to the timed worker."""
    while process:
        yield process
        process = next((child for child in process.children() if child.name() != "git"), None)


def alive(process):
    """Whether a process does anything: a zombie only waits for an init that is slow."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def timing(folder, target):
    """Snakemake while its worker times, and the chain below it by name."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CEILINGS_")}
    clean["CEILINGS_LOCKS"] = str(folder)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", target]
    running = subprocess.Popen(
        command, cwd=folder, env=clean, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            chain = list(line(psutil.Process(running.pid)))
            if len(chain) == len(LINKS) and "ceilings.measure.worker" in chain[-1].cmdline():
                time.sleep(1)
                return running, dict(zip(LINKS, chain, strict=True))
        time.sleep(0.02)
    raise AssertionError("no worker was started")


@pytest.fixture
def long(project):
    """The record of a cell that is at work for minutes, missing: a second pipeline may take long to start.

    It warms up so long: a number of iterations, which a tiny cell reaches within seconds, ends the measuring.
    """
    config = project.folder / "config.yaml"
    text = (
        config.read_text()
        .replace("warmup_seconds: 0.01", "warmup_seconds: 200")
        .replace("warmup_max_seconds: 0.02", "warmup_max_seconds: 250")
        .replace("time_limit_seconds: 60", "time_limit_seconds: 600")
    )
    config.write_text(text)
    record = next((project.folder / "results/benchmarks").rglob(RECORD))
    record.unlink()
    return str(record.relative_to(project.folder))


@pytest.mark.parametrize(
    ("link", "name"),
    [
        *((link, name) for link in ("snakemake", "group") for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")),
        *(("bash", name) for name in ("SIGKILL", "SIGTERM")),
        *(("program", name) for name in ("SIGKILL", "SIGTERM", "SIGINT")),
        ("work", "SIGKILL"),
    ],
)
def test_nothing_goes_on(project, long, link, name):
    running, chain = timing(project.folder, long)
    if link == "group":
        os.killpg(running.pid, signal.Signals[name])
    else:
        chain[link].send_signal(signal.Signals[name])
    deadline = time.monotonic() + SURVIVAL_SECONDS
    while (left := [name for name in LINKS[1:] if alive(chain[name])]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []
    running.wait(20)
    assert not (project.folder / long).exists()


def test_the_next_run_needs_no_help(project, long, tmp_path, monkeypatch):
    """After kill -9: no --unlock, no half-written file."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # each start clears the system's folder, also beside other tests
    running, _ = timing(project.folder, long)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    config = project.folder / "config.yaml"
    config.write_text(
        config.read_text()
        .replace("warmup_seconds: 200", "warmup_seconds: 0.01")
        .replace("warmup_max_seconds: 250", "warmup_max_seconds: 0.02")
    )
    done = project.snakemake(long)
    assert "The last run was killed: removed its lock" in done.stderr
    assert "An earlier run was killed; removed what it left: " in done.stderr
    assert json.loads((project.folder / long).read_text())["status"] == "ok"
    assert not [path for path in (project.folder / "results").rglob(".*") if path.name != ".gitkeep"]


def test_a_whole_study_reports_nothing_and_leaves_nothing_at_home(project):
    """Every program that a study on a CPU takes, with an empty home and a trace of each socket to another machine."""
    strace = shutil.which("strace") or pytest.skip("needs strace")
    home, trace = project.folder / "home", project.folder / "trace"
    home.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CEILINGS_", "XDG_", "MPL"))}
    command = [strace, "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto", "-o", str(trace)]
    command += [sys.executable, "-m", "snakemake", "--cores", "2", "--forceall", SUMMARY, "results/report.html"]
    done = subprocess.run(
        command, cwd=project.folder, env={**clean, "HOME": str(home)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in trace.read_text().splitlines() if "AF_INET" in line] == []
    left = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith(".cache/matplotlib/fontlist-")} == set()


def test_variables_that_shape_a_latency_plan_its_cells_anew(project):
    record = next((project.folder / "results/benchmarks").rglob(RECORD))
    quick = str(record.relative_to(project.folder))
    shaping = {"OMP_PROC_BIND": "close", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    graph = "results/onnx/tiny/int8.onnx"
    assert project.planned(quick, MY_EDITOR="vi", OMP_NUM_THREADS="3", HF_TOKEN="x") == {}
    assert project.planned(graph, **shaping) == {}
    for name, value in shaping.items():
        assert project.planned(quick, **{name: value}) == {"measure_latency": 1}
        assert name in project.snakemake(quick, "--dry-run", **{name: value}).stdout
    project.snakemake(quick, MY_EDITOR="vi", **shaping)
    made = json.loads(record.read_text())
    ran_under = environment.shaping_now() | shaping  # some machines set OPENBLAS_CORETYPE in every shell
    assert made["status"] == "ok" and made["provenance"]["variables"] == environment.recorded(ran_under)
    assert environment.flags(dict(sorted(ran_under.items())))[0] in made["flags"]
    assert project.planned(quick, **shaping) == {}
    assert project.planned(quick) == {"measure_latency": 1}


def test_two_pipelines_take_turns(project, long):
    running, chain = timing(project.folder, long)
    try:
        other = shutil.copytree(
            project.folder, project.folder / "other", ignore=shutil.ignore_patterns(".snakemake", "other")
        )
        command = [sys.executable, "-m", "snakemake", "--cores", "1", long, "--allowed-rules", "measure_latency"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CEILINGS_")}
        clean["CEILINGS_LOCKS"] = str(project.folder)
        with subprocess.Popen(command, cwd=other, env=clean, stderr=subprocess.PIPE, text=True) as second:
            assert second.stderr is not None
            lines = iter(second.stderr.readline, "")
            holder = chain["work"].pid
            assert any(f"Another run times on this machine (pid {holder})" in line for line in lines)
            log = other / long.replace("benchmarks", "logs/measure_latency").replace(".json", ".log")
            deadline = time.monotonic() + 120
            waits = f"waiting for a process that times on this machine (pid {holder})"
            while not (log.exists() and waits in log.read_text()) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert waits in log.read_text()
            os.killpg(running.pid, signal.SIGKILL)
            below = psutil.Process(second.pid)
            while not any("ceilings.measure.worker" in child.cmdline() for child in below.children(recursive=True)):
                assert time.monotonic() < deadline, "the second never got its turn"
                time.sleep(0.05)
            second.kill()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
