"""The end of what the pipeline starts: with the pipeline, whatever ends it and wherever in the chain.

Snakemake starts bash, bash a program, the program its work in a child process, and that a worker. Snakemake's identity
stands in ``CEILINGS_PIPELINE`` of all of them (:func:`announce`). Each program keeps a process that does nothing but
wait (:func:`outlive`): it sees the end of any process between it and Snakemake, and then ends everything below it.
If it is killed itself, the kernel ends the work and its workers (:func:`tied`). What is left even so, the next start
finds by the identity of a pipeline that has ended (:mod:`ceilings.leftovers`). Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

PIPELINE = "CEILINGS_PIPELINE"
"""Environment variable with the identity of the Snakemake process on which a process depends."""

PATIENCE_SECONDS = 3.0
"""So long it is tried to end processes; one that waits in the kernel for a device may take longer."""

OLD_KERNEL_MS = 500
"""Linux before 5.3 wakes nobody at the end of a process that is no child: then it is looked for this often."""

SHARED_MEMORY = "/dev/shm"
"""Where Linux keeps shared memory that has a name."""

ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals by which users and batch systems end a process."""

_DEATH_SIGNAL, _SUBREAPER = 1, 36  # prctl: PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
IDENTITY = r"\d+-\d+-[0-9a-f]{8}"
"""Pattern of :func:`identity`."""


# ---- who a process is ------------------------------------------------------------------------------------------------


def identity(pid: int | None = None) -> str:
    """A process as no other one is called: number, start time, and a digest of this boot and container.

    Empty for one that has ended.

    Args:
        pid: The process; None is this one.
    """
    pid = os.getpid() if pid is None else pid
    fields = stat(pid)
    return "" if fields is None else f"{pid}-{fields[19]}-{_system()}"


def ended(name: str) -> bool:
    """Whether the process with an identity has ended, as far as that can be known: False for one of another system."""
    return name.endswith(_system()) and identity(_pid(name)) != name


def _pid(name: str) -> int:
    return int(name.partition("-")[0])


def stat(pid: int) -> list[str] | None:
    """Fields of ``/proc/PID/stat`` from the state on; None for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if not fields or fields[0] in "ZX" else fields


@functools.cache
def _system() -> str:
    """A digest of this boot of the machine and of the container's numbering of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        boot = ""
    return hashlib.sha256(f"{boot} {numbering('self')}".encode()).hexdigest()[:8]


def numbering(pid: int | str) -> str:
    """What tells the numbers of a process's container from those of other containers."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


# ---- the pipeline and what it started --------------------------------------------------------------------------------


def announce() -> None:
    """Have everything that this process starts depend on it, or on the pipeline that started it."""
    pipeline = os.environ.get(PIPELINE, "")
    if not (pipeline and _up_to(pipeline)):
        os.environ[PIPELINE] = identity()


def above() -> list[str]:
    """Identities of the processes from this one's parent up to the pipeline; none where no pipeline started this one.

    Ends this process if one of them has ended.
    """
    pipeline = os.environ.get(PIPELINE, "")
    if not pipeline.endswith(_system()):  # started by hand, or in a container that numbers processes anew
        return []
    chain = _up_to(pipeline)
    if not chain:
        print("error: the pipeline that started this program has ended", file=sys.stderr)
        os._exit(128 + signal.SIGTERM)
    return chain


def _up_to(pipeline: str) -> list[str]:
    """Identities of the processes from this one's parent up to the pipeline; empty where it is not above."""
    chain = []
    pid = os.getppid()
    while fields := stat(pid):
        chain.append(identity(pid))
        if chain[-1] == pipeline:
            return chain
        pid = int(fields[1])
    return []


def outlive(child: int, watched: list[str], pipe: int) -> tuple[int, bytes]:
    """Wait for a child process, and end everything below this one when it, or one of ``watched``, has ended.

    Call :func:`adopt` before the fork. A signal that ends this process ends everything below it first.

    Args:
        child: Its number.
        watched: Of :func:`above`. If one ends, this process does not return.
        pipe: What the child writes.

    Returns:
        The child's exit code, negative for a signal, and what it wrote.
    """

    def leave(number: int, _frame: object = None) -> NoReturn:
        end_descendants()
        clean_folders()
        os._exit(128 + number)

    for number in ENDINGS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, leave)
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    os.set_blocking(pipe, False)
    wakers = [waker(pid) for pid in (child, *(_pid(name) for name in watched))]
    for descriptor in wakers:
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
    written = b""
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if any(map(ended, watched)):
            leave(signal.SIGTERM)
        poll.poll(OLD_KERNEL_MS if None in wakers else None)
        written += _available(pipe, poll)
    end_descendants()
    clean_folders()
    return os.waitstatus_to_exitcode(done[1]), written + _available(pipe, poll)


def waker(pid: int) -> int | None:
    """What a poll sees the end of a process by; None where it has ended already, or the kernel has no such thing."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _available(pipe: int, poll: select.poll) -> bytes:
    """What was written to a pipe that does not block."""
    chunks = []
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(pipe, 1 << 16):
            chunks.append(chunk)
        with contextlib.suppress(KeyError):
            poll.unregister(pipe)  # its writers have closed it
    return b"".join(chunks)


def adopt() -> None:
    """Become the parent of every process below this one whose own parent ends."""
    _prctl(_SUBREAPER, 1)


def end_descendants() -> None:
    """Kill every process below this one, and wait for their ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (below := _descendants()) and time.monotonic() < deadline:
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.002)


def _descendants() -> list[int]:
    """Numbers of the living processes below this one."""
    parents = {pid: int(fields[1]) for pid in pids() if (fields := stat(pid))}
    below, level = [], {os.getpid()}
    while level := {pid for pid, parent in parents.items() if parent in level}:
        below += sorted(level)
    return below


def pids() -> Iterator[int]:
    """Numbers of all processes that this one sees."""
    with contextlib.suppress(OSError):
        yield from (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def tied(seconds: float | None = None) -> Callable[[], None]:
    """A ``preexec_fn``: the new process ends with this one, and after ``seconds`` at the latest.

    The kernel sees to both, so that they hold when everything above is gone; neither costs the process any time.
    """
    parent = os.getpid()

    def bind() -> None:
        die_with(parent)
        if seconds is not None:
            end_after(seconds)

    return bind


def end_after(seconds: float) -> None:
    """Have the kernel end this process after so long, also in whatever program it then is."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, seconds)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    _prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(128 + signal.SIGKILL)


_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def end_jobs_on_signal() -> None:
    """Have a signal that ends this Snakemake end its running jobs too, at once; it then ends in its own order.

    By itself it waits for running jobs after SIGTERM and SIGINT, longer than batch systems do, and leaves them, its
    lock and half its messages behind after SIGHUP.
    """
    graceful = signal.getsignal(signal.SIGTERM)
    for number in ENDINGS:
        before = signal.getsignal(number)
        follow = graceful if number == signal.SIGHUP else before
        if before != signal.SIG_IGN and callable(follow):
            signal.signal(number, functools.partial(_end_jobs, follow))


def _end_jobs(follow: Callable[..., object], number: int, frame: object) -> None:
    for pid in pids():
        fields = stat(pid)
        if fields and int(fields[1]) == os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
    follow(number, frame)


def cancel_jobs_on_signal() -> None:
    """Have every signal that ends this Snakemake act as Ctrl-C does, on which it cancels its jobs in a batch system.

    By itself it waits for running jobs after SIGTERM, and leaves them in their queues after SIGHUP.
    """
    for number in ENDINGS:
        if number != signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


# ---- files that say whose they are -----------------------------------------------------------------------------------


def temporary_folder(parent: Path | str | None = None) -> tempfile.TemporaryDirectory[str]:
    """A folder for a ``with`` block; its name says whose it is, so that it goes even if its owner is killed.

    Args:
        parent: Where it lies; made where it is absent. None is the system's place for such. In any other it is hidden.
    """
    if parent is not None:
        Path(parent).mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(
        prefix=f"{'.' if parent else ''}ceilings-{identity()}-", dir=parent, ignore_cleanup_errors=True
    )


def temporary_name(path: Path) -> Path:
    """The hidden name beside ``path`` under which this process writes it."""
    # The suffix stays last: numpy and matplotlib choose a format, or append one, by it.
    return path.with_name(f".{path.stem}.{identity()}{path.suffix}")


def clean_folders() -> int:
    """Remove the temporary folders and the shared memory of processes that have ended; how many there were."""
    return remove_ended(
        path for parent in (tempfile.gettempdir(), SHARED_MEMORY) for path in Path(parent).glob("ceilings-*")
    )


def remove_ended(paths: Iterable[Path]) -> int:
    """Remove those of ``paths`` that are named after a process that has ended; how many there were."""
    removed = 0
    for path in paths:
        owner = re.search(rf"[.-]({IDENTITY})(?:[.-]|$)", path.name)
        if owner and ended(owner[1]):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                removed += 1
    return removed
