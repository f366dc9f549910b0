"""Windows of load: closed loops, in which an answer lets the next request go, and open loops, which wait for nobody.

A latency counts from the time at which the request was to be sent, not from when it was: else a server that stops for
a while would delay the requests that were to find that out, and look fast (coordinated omission). A closed loop cannot
see it, since its users wait; it shows what a server can do, and an open loop what users get.
"""

from __future__ import annotations

import heapq
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from ceilings.measure.loop import undisturbed
from ceilings.serving import processor_wait
from ceilings.serving.transports import Done, Driver, clock

NS = 10**9

PAUSE_NS = 20_000_000
"""In a closed loop a user whose request failed waits so long, so that a dead server is not asked without end."""

MESSAGES = 20
"""Different failures that a window tells apart."""

KEPT_BYTES = 1 << 28
"""Answers of a window that are kept until its end, to be looked at; further ones count by their status alone."""

Check = Callable[[int, bytes | bytearray], str | None]
"""Says of an element of the pool and an answer to it why that is no answer; None where it is one."""


def closed_window(
    driver: Driver, pool: Sequence[bytes], concurrency: int, seconds: float, check: Check | None = None
) -> dict[str, Any]:
    """A window with so many users, each of whom sends the next request when the last one is answered.

    A latency counts from the sending; ``late_ns`` is how long the client took to send after the answer before. Of
    ``answered_inside`` a request counts by the share of its time that lies in the window: each user has one in flight
    from its begin to its end, and whole requests alone would lose one latency of every window.

    Args:
        driver: Sends them.
        pool: Prepared requests; they go out in turn.
        concurrency: Users.
        seconds: Requests are sent for so long, and then the answers to all are waited for.
        check: Looks at the answers when the window is over; one that is none has failed.
    """
    window = _Window(driver, pool, check, shares=True)
    with undisturbed():
        window.begin(seconds)
        ready = [window.began_ns] * concurrency  # a heap: when each user who waits for nothing has become ready
        while True:
            now = clock()
            if now >= window.ended_ns:
                if not window.in_flight:
                    break
                window.poll(now + NS)
                continue
            if ready and ready[0] <= now:
                window.send(now, late_ns=now - heapq.heappop(ready))
                continue
            for done in window.poll(min(ready[0], window.ended_ns) if ready else window.ended_ns):
                heapq.heappush(ready, done.ended_ns + (PAUSE_NS if done.error is not None else 0))
    return window.record()


def open_window(
    driver: Driver,
    pool: Sequence[bytes],
    due_ns: Sequence[int],
    seconds: float,
    *,
    connections: int,
    timeout: float,
    check: Check | None = None,
) -> dict[str, Any]:
    """A window in which requests are sent at set times, answered or not.

    Args:
        driver: Sends them.
        pool: Prepared requests; they go out in turn.
        due_ns: When each is to be sent, from the window's begin; sorted.
        seconds: Length of the window.
        connections: So many may be in flight; others wait here, and are counted.
        timeout: Seconds after which one that waits here is given up: it is not sent.
        check: Looks at the answers when the window is over; one that is none has failed.
    """
    window = _Window(driver, pool, check)
    waiting: deque[int] = deque()
    with undisturbed():
        window.begin(seconds)
        due = [window.began_ns + int(offset) for offset in due_ns]
        limit = int(timeout * NS)
        following = 0
        while (now := clock()) < window.ended_ns or following < len(due) or waiting or window.in_flight:
            while following < len(due) and due[following] <= now:
                if waiting or window.in_flight >= connections:
                    waiting.append(due[following])
                    window.exhausted += 1
                else:
                    window.send(due[following])
                following += 1
            while waiting and (window.in_flight < connections or waiting[0] + limit <= now):
                first = waiting.popleft()
                if first + limit <= now:
                    window.unsent += 1
                else:
                    window.send(first)
            until = now + NS if now >= window.ended_ns else window.ended_ns
            until = due[following] if following < len(due) else until
            window.poll(min(until, waiting[0] + limit) if waiting else until)
    return window.record()


class _Window:
    """What becomes of a window's requests."""

    def __init__(self, driver: Driver, pool: Sequence[bytes], check: Check | None, *, shares: bool = False) -> None:
        self._shares = shares
        self._driver, self._pool, self._check = driver, pool, check
        self._answers: dict[int, bytes | bytearray] = {}
        self._kept_bytes = 0 if check else KEPT_BYTES
        self._opened = _opened(driver)
        self._intended: list[int] = []
        self._late: list[int] = []
        self._latency: dict[int, int] = {}
        self._failed: Counter[str] = Counter()
        self._peak = 0
        self.in_flight = self.exhausted = self.unsent = 0

    def begin(self, seconds: float) -> None:
        self._waited = processor_wait.waited_ns()
        self._cpu = time.process_time_ns()
        self.began_ns = clock()
        self.ended_ns = self.began_ns + int(seconds * NS)

    @property
    def sent(self) -> int:
        return len(self._intended)

    def send(self, intended_ns: int, late_ns: int | None = None) -> None:
        """Send the next request now; its latency counts from ``intended_ns``."""
        tag = len(self._intended)
        self._intended.append(intended_ns)
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)
        self._late.append(clock() - intended_ns if late_ns is None else late_ns)
        self._driver.submit(self._pool[tag % len(self._pool)], tag)

    def poll(self, until_ns: int) -> list[Done]:
        over = self._driver.poll(until_ns)
        for done in over:
            self.in_flight -= 1
            if done.error is not None:
                self._fail(done.error)
                continue
            self._latency[done.tag] = done.ended_ns - self._intended[done.tag]
            if self._kept_bytes < KEPT_BYTES:
                self._kept_bytes += len(done.answer)
                self._answers[done.tag] = done.answer
        return over

    def _fail(self, why: str) -> None:
        known = why in self._failed or len(self._failed) < MESSAGES
        self._failed[why if known else "other failures"] += 1

    def _look(self) -> None:
        """Look at the answers: one that is none has failed."""
        for tag, answer in self._answers.items():
            if self._check and (why := self._check(tag % len(self._pool), answer)):
                del self._latency[tag]
                self._fail(why)

    @property
    def _inside(self) -> float:
        """Requests answered in the window; where ``shares``, those on its end count by their share of it."""
        counted = 0.0
        for tag, took in self._latency.items():
            after = self._intended[tag] + took - self.ended_ns
            counted += 1 if after < 0 else 1 - after / took if self._shares else 0
        return counted

    def record(self) -> dict[str, Any]:
        """The window as records have it."""
        drained_ns = clock()
        cpu = time.process_time_ns() - self._cpu
        waited = processor_wait.since(self._waited)
        self._look()
        return {
            "began_ns": self.began_ns,
            "ended_ns": self.ended_ns,
            "drained_ns": drained_ns,
            "latency_ns": [self._latency[tag] for tag in sorted(self._latency)],
            "late_ns": self._late,
            "sent": self.sent,
            "unsent": self.unsent,
            "answered": len(self._latency),
            "answered_inside": self._inside,
            "failed": dict(self._failed),
            "connections": self._peak,
            "connections_opened": _opened(self._driver) - self._opened,
            "exhausted": self.exhausted,
            "client_waited_ns": waited,
            "client_cores": cpu / (drained_ns - self.began_ns),
            "client_cores_allowed": len(os.sched_getaffinity(0)),
        }


def _opened(driver: Driver) -> int:
    opened: int = getattr(driver, "opened", 0)
    return opened
