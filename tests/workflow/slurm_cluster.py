#!/usr/bin/env python3
"""A real Slurm on one machine, for as long as a command runs: ``slurm_cluster.py COMMAND...``.

Debian's slurmctld and four slurmd, with two GPU kinds and two processor kinds, in a mount namespace of their own: the
rest of the machine stays as it is. What is not real: a GPU is a file for Slurm, and a library that answers CUDA's
questions for what it is and no other; the second processor is another ``/proc/cpuinfo``. Needs root, a C compiler, and
Debian's slurmctld, slurmd, slurm-client and munge.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "workflow_scripts")]
from unit.test_gpu import DRIVER  # noqa: E402

from ceilings.lifetime import tied  # noqa: E402

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "cc")
NODES = {"gpu-a": "h200", "gpu-b": "h100", "cpu-a": None, "cpu-b": None}
"""Nodes with the type of their GPU as Slurm has it; the others have their name as a feature."""

CARDS = {"gpu-a": ("NVIDIA H200", 150_110_000_000), "gpu-b": ("NVIDIA H100 80GB HBM3", 84_900_000_000)}
PROCESSOR = "Imaginary 9000"
"""What the node cpu-b says of itself."""

MEMORY_MB = 4000
SECONDS = 900
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
TaskProlog={folder}/prolog
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
KillWait=2
MinJobAge=3600
GresTypes=gpu
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
PROLOG = """#!/bin/sh
[ -e {folder}/$SLURMD_NODENAME/libcuda.so.1 ] && echo "export LD_LIBRARY_PATH={folder}/$SLURMD_NODENAME"
exit 0
"""


def missing() -> str | None:
    """What this machine lacks, in one line; None if nothing."""
    if os.geteuid():
        return "a Slurm of our own needs root"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else None


def command(*words: str) -> list[str]:
    """A command that runs another one in a cluster of its own."""
    return ["unshare", "--mount", sys.executable, __file__, *words]


def main() -> int:
    """Start the cluster, run the command in it, end both; the command's exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # its jobs are no children: cancel them
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as name:
        folder = Path(name)
        configure(folder)
        bind(folder / "etc", Path("/etc/slurm"))
        with contextlib.ExitStack() as daemons:
            munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket"]
            munged += [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
            daemons.enter_context(daemon(folder, *munged))
            await_file(folder / "munge.socket")
            daemons.enter_context(daemon(folder, "slurmctld", "-D", "-c"))
            for node in NODES:
                own = ["unshare", "--mount", "sh", "-c", f"mount --bind {folder}/cpuinfo /proc/cpuinfo && exec $0 $@"]
                daemons.enter_context(daemon(folder, *(own if node == "cpu-b" else ()), "slurmd", "-D", "-N", node))
            await_nodes()
            try:
                return subprocess.run(sys.argv[1:], check=False, preexec_fn=tied(SECONDS)).returncode
            finally:
                subprocess.run(["scancel", "--user", "root"], check=False)
                time.sleep(1)


def configure(folder: Path) -> None:
    """Write what the daemons read."""
    for name in ("etc", "state", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir()
    folder.chmod(0o755)  # munged looks at it
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    host, ports = socket.gethostname().split(".")[0], free_ports(len(NODES) + 1)
    lines, gres = [CONFIGURATION.format(folder=folder, host=host, port=ports.pop())], []
    cores = os.cpu_count() or 1
    for node, gpu in NODES.items():
        what = f"Gres=gpu:{gpu}:1" if gpu else f"Feature={node}"
        lines.append(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports.pop()} CPUs={cores} "
            f"RealMemory={MEMORY_MB} {what} State=UNKNOWN"
        )
        if gpu:
            (folder / node).mkdir()
            (folder / node / "device").touch()
            gres.append(f"NodeName={node} Name=gpu Type={gpu} File={folder}/{node}/device\n")
            make_driver(folder / node, *CARDS[node])
    lines.sort(key=lambda line: line.startswith("NodeName"))
    head, _, partition = lines[0].rstrip().rpartition("\n")
    (folder / "etc/slurm.conf").write_text("\n".join([head, *lines[1:], partition, ""]))
    (folder / "etc/gres.conf").write_text("".join(gres))
    (folder / "prolog").write_text(PROLOG.format(folder=folder))
    (folder / "prolog").chmod(0o755)
    text = Path("/proc/cpuinfo").read_text()
    names = {line for line in text.splitlines() if line.startswith("model name")}
    for line in names:
        text = text.replace(line, f"model name\t: {PROCESSOR}")
    (folder / "cpuinfo").write_text(text)


def make_driver(folder: Path, name: str, memory: int) -> None:
    """A ``libcuda.so.1`` that answers what its device is, and nothing else."""
    source = DRIVER.replace('getenv("NAME")', f'"{name}"').replace('number("MEMORY")', f"{memory}L")
    (folder / "cuda.c").write_text(source.replace('number("SMS")', "132"))
    library = ["cc", "-shared", "-fPIC", "-w", "-o", folder / "libcuda.so.1", folder / "cuda.c"]
    subprocess.run(library, check=True)


def bind(folder: Path, place: Path) -> None:
    """Put a folder in the place of another, for this process and its children alone."""
    subprocess.run(["mount", "--make-rprivate", "/"], check=False)
    subprocess.run(["mount", "--bind", folder, place], check=True)


@contextlib.contextmanager
def daemon(folder: Path, *words: str) -> Iterator[None]:
    """A process for the time of a block."""
    with open(folder / "daemons.log", "ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, preexec_fn=tied(SECONDS))  # noqa: PLW1509 - no thread here
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_file(path: Path) -> None:
    """Wait until there is a file."""
    for _ in range(100):
        if path.exists():
            return
        time.sleep(0.1)
    sys.exit(f"error: no {path.name} after 10 s: {(path.parent / 'daemons.log').read_text()[-2000:]}")


def await_nodes() -> None:
    """Wait until every node can take jobs."""
    for _ in range(150):
        shown = subprocess.run(["sinfo", "-N", "-h", "-o", "%N %T"], capture_output=True, text=True, check=False).stdout
        if sorted(shown.split()[::2]) == sorted(NODES) and set(shown.split()[1::2]) == {"idle"}:
            return
        time.sleep(0.2)
    sys.exit(f"error: the nodes are not idle after 30 s: {shown}")


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listens on now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    sys.exit(main())
