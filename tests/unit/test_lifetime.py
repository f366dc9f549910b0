"""A chain like the pipeline's (a process that announces itself, bash, a program, its work, a worker that hangs and has
started a process which left its session) is ended at each link by each signal: nothing of it may live on."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ceilings import leftovers, lifetime

SCRIPTS = Path(__file__).parents[2] / "workflow_scripts"
FILES = {
    "pipeline.py": """
import subprocess
from ceilings import lifetime
lifetime.announce()
subprocess.run(["bash", "-c", "set -euo pipefail; $PYTHON program.py > log 2>&1; true"])
""",
    "program.py": """
import argparse
from ceilings.measure.supervisor import supervise
from ceilings.program import main
spec = {"threads": 1, "protocol": {"time_limit_seconds": LIMIT}}
main(lambda _: print(supervise({"spec": spec}, "sleeper")), argparse.ArgumentParser())
""",
    "sleeper.py": """
import os, subprocess, time
subprocess.Popen(["bash", "-c", "setsid sleep 300 & echo $! > stray"]).wait()
open("started", "w").close()
time.sleep(300)
""",
}
LINKS = ("pipeline", "bash", "program", "work", "worker")
SURVIVAL_SECONDS = 2


class Chain:
    """The chain, running in a folder; ``links`` by name, ``stray`` beside them."""

    def __init__(self, folder: Path, limit: float = 300, before: tuple[str, ...] = ()) -> None:
        for name, text in FILES.items():
            (folder / name).write_text(text.replace("LIMIT", str(limit)))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CEILINGS_")}
        environment = {**clean, "PYTHONPATH": f"{SCRIPTS}:{folder}", "PYTHON": sys.executable, "TMPDIR": str(folder)}
        environment["CEILINGS_LOCKS"] = str(folder)
        command = [*before, sys.executable, "pipeline.py"]
        self.folder = folder
        self.first = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
        deadline = time.monotonic() + 60
        while not (folder / "started").exists():
            assert time.monotonic() < deadline and self.first.poll() is None, (folder / "log").read_text()
            time.sleep(0.01)
        self.links = dict(zip(LINKS, self._line(psutil.Process(self.first.pid)), strict=True))
        self.stray = psutil.Process(int((folder / "stray").read_text()))

    def _line(self, process):
        while process:
            yield process
            process = next((child for child in process.children() if child.name() != "sleep"), None)

    def survivors(self, *but):
        """Names of what lives on; the pipeline is the test's child and is waited for."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.first.wait(SURVIVAL_SECONDS)
        everything = {**self.links, "stray": self.stray}
        _, alive = psutil.wait_procs(everything.values(), timeout=SURVIVAL_SECONDS)
        return [name for name, process in everything.items() if process in alive and name not in but]

    def clear(self):
        for process in (*self.links.values(), self.stray):
            with contextlib.suppress(psutil.Error):
                process.kill()


@pytest.fixture
def chain(tmp_path, monkeypatch):
    monkeypatch.setenv("CEILINGS_LOCKS", str(tmp_path))  # starts of other tests beside this one clear nothing of it
    chain = Chain(tmp_path)
    yield chain
    chain.clear()


SIGNALS = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")
CASES = [
    (link, name) for link in LINKS for name in SIGNALS if (link, name) != ("bash", "SIGINT")
]  # waits, as bash does


@pytest.mark.parametrize(
    ("link", "name"),
    [
        case if case in (("pipeline", "SIGKILL"), ("bash", "SIGTERM")) else pytest.param(*case, marks=pytest.mark.slow)
        for case in CASES
        if case != ("program", "SIGKILL")
    ],
)
def test_everything_ends_with_any_link(chain, link, name):
    chain.links[link].send_signal(signal.Signals[name])
    assert chain.survivors() == []
    assert not list(chain.folder.glob("ceilings-*"))  # nor its temporary folder


@pytest.mark.parametrize(
    "name", [name if name == "SIGKILL" else pytest.param(name, marks=pytest.mark.slow) for name in SIGNALS]
)
def test_everything_ends_with_the_process_group(chain, name):
    os.killpg(chain.first.pid, signal.Signals[name])
    assert chain.survivors("stray") == []
    leftovers.end_processes()  # of what left its session, if that is still there
    assert chain.survivors() == []


def test_what_the_kernel_cannot_end_goes_at_the_next_start(chain):
    """Work and worker end with a program that is killed itself; what left their sessions does not."""
    chain.links["program"].kill()
    assert chain.survivors("stray") == []
    assert chain.stray.is_running() and list(chain.folder.glob("ceilings-*"))
    assert leftovers.end_processes() == [chain.stray.pid]
    assert chain.survivors() == []


def test_a_living_pipeline_keeps_what_it_started(chain):
    assert leftovers.end_processes() == []
    assert all(process.is_running() for process in chain.links.values())


def test_nohup_stays_nohup(tmp_path):
    chain = Chain(tmp_path, before=("nohup",))
    try:
        os.killpg(chain.first.pid, signal.SIGHUP)
        time.sleep(0.5)
        assert all(process.is_running() for process in chain.links.values())
    finally:
        os.killpg(chain.first.pid, signal.SIGKILL)
        chain.clear()


def test_a_process_has_its_own_alarm():
    """Held by the kernel: it ends what has stopped looking at anything."""
    start = time.monotonic()
    done = subprocess.run(["bash", "-c", "while :; do :; done"], preexec_fn=lifetime.tied(0.3), check=False)
    assert done.returncode == -signal.SIGALRM and 0.3 <= time.monotonic() - start < 5


def test_a_program_whose_pipeline_has_ended_does_not_start(tmp_path):
    (tmp_path / "program.py").write_text(
        "import argparse\nfrom ceilings.program import main\n"
        "main(lambda _: open('made', 'w').close(), argparse.ArgumentParser())"
    )
    gone = subprocess.Popen(["sleep", "10"])
    name = lifetime.identity(gone.pid)
    gone.kill()
    gone.wait()

    def start(pipeline):
        environment = {"PYTHONPATH": str(SCRIPTS), "PATH": "", lifetime.PIPELINE: pipeline}
        command = [sys.executable, "program.py"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = start(name)
    assert done.returncode == 143 and "has ended" in done.stderr and not (tmp_path / "made").exists()
    elsewhere = f"{name.rpartition('-')[0]}-00000000"  # of another machine: nothing is known of it
    for pipeline in (lifetime.identity(), elsewhere, ""):
        done = start(pipeline)
        assert done.returncode == 0 and (tmp_path / "made").exists(), done.stderr
        (tmp_path / "made").unlink()


def test_identity_is_of_one_process():
    here = lifetime.identity()
    assert here == lifetime.identity(os.getpid()) and not lifetime.ended(here)
    number, start, system = here.split("-")
    assert lifetime.ended(f"{number}-{int(start) - 1}-{system}")  # an earlier one of that number
    assert not lifetime.ended(f"{number}-{int(start) - 1}-00000000")  # of another machine: not known
    assert lifetime.identity(2**22 + 1) == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_on_a_head_node_is_an_interrupt(number):
    """On which Snakemake cancels its jobs in a batch system."""
    code = "import os, time; from ceilings.lifetime import cancel_jobs_on_signal; cancel_jobs_on_signal()\n"
    code += f"try: os.kill(os.getpid(), {int(number)}); time.sleep(20)\nexcept KeyboardInterrupt: print('interrupted')"
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "interrupted"


def test_a_folder_whose_parents_are_not_there_yet_is_made(tmp_path):
    with lifetime.temporary_folder(tmp_path / "not/there/yet") as folder:
        assert folder.startswith(f"{tmp_path}/not/there/yet/.ceilings-")
    assert not any((tmp_path / "not/there/yet").iterdir())
