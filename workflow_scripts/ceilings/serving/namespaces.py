"""Network namespaces of Linux that nobody has to remove: without a name, they end with the last process in them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNET = 0x40000000
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1


def problem() -> str | None:
    """Why this process cannot make a network namespace whose loopback is up; None where it can."""
    child = os.fork()
    if child == 0:
        try:
            make()
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if code == 0 else f"no network namespace can be made here ({os.strerror(code)}); it needs root"


def make() -> int:
    """Move this thread into a new namespace with loopback up; a descriptor of the namespace before."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if _libc.unshare(CLONE_NEWNET):
        os.close(before)
        raise OSError(ctypes.get_errno(), "no network namespace can be made here; it needs root")
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(any_socket, _GET_FLAGS, request))[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh22x", b"lo", flags | _UP))
    return before


def current() -> int:
    """A descriptor of this thread's namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(where: str | int) -> None:
    """Move this thread into a namespace, by a path or a descriptor; sockets that it has stay where they are."""
    number = os.open(where, os.O_RDONLY | os.O_CLOEXEC) if isinstance(where, str) else where
    try:
        if _libc.setns(number, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot enter the network namespace")
    finally:
        if isinstance(where, str):
            os.close(number)
