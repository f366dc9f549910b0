"""What the pages about a trace call its parts, and how they write times and shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ceilings.report import text

FORMATS = {
    "nsight-systems": "Nsight Systems",
    "pytorch-profiler": "PyTorch profiler",
    "ceilings": "a capture of this project",
    "onnxruntime-profile": "ONNX Runtime profile",
    "trtexec-times": "trtexec --exportTimes",
    "trtexec-profile": "trtexec --exportProfile",
    "trtexec-layers": "trtexec --exportLayerInfo",
}

BOUND_BY = {
    "kernel-bound": "kernels",
    "launch-bound": "launches",
    "host-bound": "host code",
    "transfer-bound": "copies between host and device",
    "communication-bound": "communication",
    "sync-bound": "synchronisation",
    "mixed": "no single part",
}
"""What follows "bound by" for each verdict."""

PATH = {
    "kernel": "kernels",
    "launch": "launches",
    "host": "host code",
    "transfer": "copies, host and device",
    "communication": "communication",
    "sync": "synchronisation",
}

HOST = {"framework": "framework code", "launch": "launch calls", "copy": "copy calls", "sync": "waiting"}

CLASSES = {
    "gemm": "GEMM",
    "normalization": "normalisation",
    "gather": "embedding, gather",
    "copy": "copies, layout",
    "other": "other kernels",
    "unknown": "kernels of unknown class",
}

IDLE = {
    "host": "no launch yet",
    "launching": "in the launch call",
    "queued": "launched, not started",
    "sync": "done, host still waits",
}

BY = {
    "range": "the named range",
    "step": "the profiler's steps",
    "graph": "launches of one CUDA graph",
    "period": "the period of the kernels",
    "interval": "the given interval of time",
    "run": "runs that the program counts",
    "whole": "nothing: the whole recording counts as one",
}
"""How iterations were made out."""

CHANGES = {
    "host": "the host takes no time",
    "graph": "one CUDA graph launch submits everything",
    "copies": "copies between host and device take no time",
    "kernels": "kernels take half the time",
    "communication": "communication takes no time",
}

LONGEST_NAME = 100
"""Letters of a name in a table."""

NO_GAIN = 0.0005
"""A share that shows as 0.0%."""


@dataclass(frozen=True)
class Unit:
    """A unit of time: its symbol, and how many ns it has."""

    symbol: str
    ns: float

    def number(self, ns: float | None) -> str:
        """A time in this unit, without the symbol."""
        return text.number(None if ns is None else ns / self.ns)

    def time(self, ns: float | None) -> str:
        """A time in this unit, with the symbol."""
        return "n/a" if ns is None else f"{self.number(ns)} {self.symbol}"


MICROSECONDS, MILLISECONDS, SECONDS = Unit("µs", 1e3), Unit("ms", 1e6), Unit("s", 1e9)


def unit_of(ns: float) -> Unit:
    """The unit in which parts of so long a time are shown."""
    return MICROSECONDS if ns < 1e6 else MILLISECONDS if ns < 1e10 else SECONDS


def time(ns: float | None) -> str:
    """A time in the unit of its size.

    >>> time(2_240_000), time(812_000), time(12_920_244_000)
    ('2.24 ms', '812 µs', '12.9 s')
    """
    return "n/a" if ns is None else unit_of(ns).time(ns)


def share(ns: float | None, of: float) -> str:
    """A part of a time in percent."""
    return "n/a" if ns is None or not of else text.percent(ns / of)


def gain(share: float | None) -> str:
    """A part of the iteration that goes: ``−62%``; what rounds to nothing is none."""
    if share is None:
        return ""
    return "none" if abs(share) < NO_GAIN else f"{'−' if share > 0 else '+'}{text.percent(abs(share))}"


def median(value: Mapping[str, Any]) -> str:
    """A median with its interval, where there is one: ``2.24 ms [2.20, 2.29]``."""
    unit, (low, high) = unit_of(value["median"]), (value["low"], value["high"])
    bounds = "" if low is None or high is None else f" [{unit.number(low)}, {unit.number(high)}]"
    return f"{unit.time(value['median'])}{bounds}"


def cut(name: str) -> str:
    """A name in few letters; its middle goes, since names differ at their ends."""
    tail = LONGEST_NAME // 3
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - tail - 1]}…{name[-tail:]}"


def count(value: float) -> str:
    """A median of counts, or a mean: a whole number, or with what follows the point."""
    return f"{value:,.0f}" if value == int(value) else text.number(value)
