"""What imports cost this process, by package, wherever they happen. Standard library only.

A library imports further parts of itself and of others when it is first used. Such a time is no loading of weights and
no compilation, so every import is timed where it is asked for: ``import`` statements and ``importlib.import_module``.
"""

from __future__ import annotations

import builtins
import importlib
import os
import threading
import time
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "onnxruntime", "tensorrt", "numpy", "cuda", "ceilings")
"""Packages with a time of their own. What else one of these imports counts as its own time."""

OTHER = "other"

_FUNCTIONS = (builtins.__import__, importlib.import_module)


class _Clock:
    """Hands each moment of an import to the innermost of ``PACKAGES`` that is being imported."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        self.stack: list[str] = []
        self.since = 0
        self.thread = threading.get_ident()

    def turn(self) -> None:
        """Account what has passed since the last turn to the innermost package."""
        now = time.perf_counter_ns()
        if self.stack:
            self.spent[self.stack[-1]] = self.spent.get(self.stack[-1], 0) + now - self.since
        self.since = now

    def timed(self, name: str, function: Any, *arguments: Any, **named: Any) -> Any:
        """The function's result; its time counts for the package of ``name``."""
        top = name.partition(".")[0]
        inner = self.stack[-1] if self.stack else None
        package = top if top in PACKAGES else inner or OTHER
        if package == inner or threading.get_ident() != self.thread:
            return function(*arguments, **named)
        self.turn()
        self.stack.append(package)
        try:
            return function(*arguments, **named)
        finally:
            self.turn()
            self.stack.pop()


_clock: _Clock | None = None


def start() -> None:
    """Time imports from now on; nothing where it does already."""
    global _clock  # noqa: PLW0603 - a process has one import system
    if _clock is not None:
        return
    _clock = clock = _Clock()
    statement, function = _FUNCTIONS

    def timed_statement(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        whose = (globals or {}).get("__package__") or "" if level else name
        return clock.timed(whose, statement, name, globals, locals, fromlist, level)

    def timed_function(name: str, package: str | None = None) -> Any:
        return clock.timed(package or "" if name.startswith(".") else name, function, name, package)

    builtins.__import__ = timed_statement
    importlib.import_module = timed_function


def spent_ns() -> int:
    """Nanoseconds that imports have taken so far; 0 where none are timed."""
    if _clock is None:
        return 0
    _clock.turn()
    return sum(_clock.spent.values())


def stop() -> dict[str, int]:
    """Nanoseconds by package, and no import is timed any more; empty where none was."""
    global _clock
    builtins.__import__, importlib.import_module = _FUNCTIONS
    clock, _clock = _clock, None
    return dict(clock.spent) if clock else {}


def age_ns() -> int | None:
    """Nanoseconds since the kernel started this process, to 10 ms; None where it does not say."""
    try:
        # The name of the program stands in parentheses and may hold anything.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        ticks = int(fields[19])
        if not ticks:  # a kernel that does not keep it; no process is as old as the machine
            return None
        return int((time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")) * 1e9)
    except (OSError, AttributeError, IndexError, ValueError):
        return None
