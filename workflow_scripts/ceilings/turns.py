"""Timed processes of this machine take turns, whichever pipeline, folder or user starts them: two at once disturb each
other. Within one pipeline Snakemake sees to that; between pipelines locks do, of the processor, of all GPUs, of each.

Who comes second waits. Refusing would fail a study in the middle of the night for what is over in seconds; and a
process that times ends at its limit, so nobody waits for ever. The kernel drops a lock with its holder. Standard
library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ceilings.errors import UserError
from ceilings.schemas.side_by_side import ALLOWED, UNDECIDED

FOLDER = "CEILINGS_LOCKS"
"""Environment variable with the folder of the locks; ``/tmp`` without it, which all users of a machine share."""


SIDE_BY_SIDE = "CEILINGS_SIDE_BY_SIDE"
"""Environment variable: ``allowed`` where a measured check says that GPUs of this host do not disturb each other."""


def pin(side_by_side: bool) -> None:
    """Hand to every job that this process starts whether timed blocks on several GPUs may run beside each other."""
    os.environ[SIDE_BY_SIDE] = ALLOWED if side_by_side else UNDECIDED


@contextlib.contextmanager
def turn(gpus: str | Sequence[str] | None, timed: bool = True) -> Iterator[None]:
    """Wait until nothing disturbs the block, and keep others from disturbing it.

    Args:
        gpus: UUID of the GPU that it uses, or of several; None for the processor, which a timed block has for itself.
            A timed block on one GPU runs beside one on another GPU only where ``SIDE_BY_SIDE`` allows it, one on
            several GPUs beside none, and no block on a GPU beside one that times the processor.
        timed: Whether its times are results. Else it shares the processor.
    """
    uuids = [gpus] if isinstance(gpus, str) else sorted(gpus or ())
    beside = not timed or (len(uuids) == 1 and os.environ.get(SIDE_BY_SIDE) == ALLOWED)
    with contextlib.ExitStack() as locks:
        # Always in this order, so that no two wait for each other.
        locks.enter_context(_locked("cpu", fcntl.LOCK_SH if uuids or not timed else fcntl.LOCK_EX))
        if uuids:
            locks.enter_context(_locked("gpus", fcntl.LOCK_SH if beside else fcntl.LOCK_EX))
        for uuid in uuids:
            locks.enter_context(_locked(uuid, fcntl.LOCK_EX))
        yield


def taken() -> list[int]:
    """Numbers of the processes that have a turn now, of any GPU or the processor."""
    return sorted({pid for path in _folder().glob("ceilings-*.lock") for pid in _holders(path)} - {os.getpid()})


@contextlib.contextmanager
def _locked(name: str, how: int) -> Iterator[None]:
    path = _folder() / f"ceilings-{name}.lock"
    while True:
        file = _opened(path)
        try:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
            except BlockingIOError:
                pids = ", ".join(map(str, _holders(path))) or "of another container"
                print(f"waiting for a process that times on this machine (pid {pids})", file=sys.stderr, flush=True)
                fcntl.flock(file, how)
            if not _still(path, file):
                continue  # something tidied the folder meanwhile, and others lock a new file
            yield
            return
        finally:
            os.close(file)


def _opened(path: Path) -> int:
    """The file, made if need be. Reading is enough to lock it, so that whose it is does not matter.

    Raises:
        UserError: It cannot be made or read.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o444))
    except OSError as error:
        raise UserError(f"{path} cannot be opened ({error.strerror}); name a writable folder in {FOLDER}") from None


def _still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _holders(path: Path) -> list[int]:
    """Numbers of the processes that hold a lock on a file, as far as this container sees them."""
    try:
        found = path.stat()
        lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    fields = [line.split() for line in lines if "->" not in line]  # with an arrow: those that wait
    return sorted({int(entry[4]) for entry in fields if entry[1] == "FLOCK" and entry[5] == place and entry[4] != "0"})


def _folder() -> Path:
    return Path(os.environ.get(FOLDER, "/tmp"))
