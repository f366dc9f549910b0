"""Waits for events until a set time, more exactly than a poll, which counts in milliseconds.

A timer of the kernel wakes the process up shortly before, and the rest is spun away: a virtual processor needs some
60 us to wake up (measured: median 62 us late, 140 us in one of a hundred), and a client that sends late makes a server
look slow.
"""

from __future__ import annotations

import ctypes
import os
import select
import time

SPIN_NS = 100_000
"""So long before the time the process is awake."""

FAR_NS = 50_000_000
"""From here on a poll's milliseconds do; the timer is set at the next call."""

_TIMER_SLACK = 29  # prctl: PR_SET_TIMERSLACK
_ABSOLUTE = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _Time(ctypes.Structure):
    _fields_ = (("interval", ctypes.c_long * 2), ("seconds", ctypes.c_long), ("ns", ctypes.c_long))


class Alarm:
    """A timer in a set of polled files."""

    def __init__(self, poll: select.epoll) -> None:
        """Args: ``poll``: what is waited on besides."""
        _libc.prctl(_TIMER_SLACK, ctypes.c_ulong(1), 0, 0, 0)  # of the thread; 50 us without
        self._poll = poll
        self.number: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.number < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        poll.register(self.number, select.EPOLLIN | select.EPOLLET)
        self._set_ns = 0

    def wait(self, until_ns: int) -> list[tuple[int, int]]:
        """Events of other files; none, perhaps, when the time is near."""
        left = until_ns - time.perf_counter_ns() - SPIN_NS
        if left <= 0:
            events = self._poll.poll(0)
        elif left > FAR_NS:
            events = self._poll.poll((left - FAR_NS) / 1e9 + 1e-3)
        else:
            self._set(until_ns - SPIN_NS)
            events = self._poll.poll()
        return [event for event in events if event[0] != self.number]

    def _set(self, at_ns: int) -> None:
        if at_ns != self._set_ns:
            self._set_ns = at_ns
            value = _Time((0, 0), *divmod(at_ns, 10**9))
            _libc.timerfd_settime(self.number, _ABSOLUTE, ctypes.byref(value), None)

    def close(self) -> None:
        """Give the timer back."""
        os.close(self.number)
