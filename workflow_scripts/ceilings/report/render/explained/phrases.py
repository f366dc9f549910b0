"""What the pages about a trace call its parts, and how they write times and shares."""

from __future__ import annotations

from collections.abc import Mapping
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
    "stall-bound": "launched work that does not start",
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
    "stalled": "launched, does not start",
}

HOST = {"framework": "framework code", "launch": "launch calls", "copy": "copy calls", "sync": "waiting"}

CLASSES = {
    "gemm": "GEMM",
    "normalization": "normalisation",
    "gather": "embedding, gather",
    "copy": "copies, layout",
    "sampling": "choice of tokens",
    "other": "other kernels",
    "unknown": "kernels of unknown class",
}

IDLE = {
    "host": "no launch yet",
    "launching": "in the launch call",
    "queued": "launched, not started",
    "sync": "done, host waits",
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
    "graph": "one CUDA graph launch between each two waits",
    "copies": "copies between host and device take no time",
    "kernels": "kernels take half the time",
    "communication": "communication takes no time",
}

LONGEST_NAME = 100
"""Letters of a name in a table."""

NO_GAIN = 0.0005
"""A share that shows as 0.0%."""


def capitalised(words: str) -> str:
    """With a capital letter first; the others stay."""
    return f"{words[:1].upper()}{words[1:]}"


def time(ns: float | None) -> str:
    """A time in the unit of its size.

    >>> time(2_240_000), time(812_000), time(12_920_244_000)
    ('2.24 ms', '812 µs', '12.9 s')
    """
    if not ns:
        return "n/a" if ns is None else "0"
    symbol, size = unit_of(ns)
    return f"{text.number(ns / size)} {symbol}"


def unit_of(ns: float) -> tuple[str, float]:
    """The unit in which a time is shown, and how many ns it has."""
    size = abs(ns)
    return ("µs", 1e3) if size < 1e6 else ("ms", 1e6) if size < 1e10 else ("s", 1e9)


def share(ns: float | None, whole: float) -> str:
    """A part of a time in percent."""
    return "n/a" if ns is None or not whole else text.percent(ns / whole)


def gain(share: float | None) -> str:
    """A part of the iteration that goes: ``−62%``; what rounds to nothing is none."""
    if share is None:
        return ""
    return "none" if abs(share) < NO_GAIN else f"{'−' if share > 0 else '+'}{text.percent(abs(share))}"


def signed(ns: float, plus: bool = False) -> str:
    """A time that may be negative; ``plus`` marks a positive one too."""
    return f"{'−' if ns < 0 else '+' if plus and ns > 0 else ''}{time(abs(ns))}"


def signed_share(ns: float, whole: float) -> str:
    """A growth in percent of a time, with its sign: ``+3.2%``."""
    return f"{'−' if ns < 0 else '+' if ns > 0 else ''}{share(abs(ns), whole)}"


def median(value: Mapping[str, Any]) -> str:
    """A median with its interval, where there is one: ``2.24 ms [2.20, 2.29]``."""
    (_, size), (low, high) = unit_of(value["median"]), (value["low"], value["high"])
    bounds = "" if low is None or high is None else f" [{text.number(low / size)}, {text.number(high / size)}]"
    return f"{time(value['median'])}{bounds}"


def cut(name: str, longest: int = LONGEST_NAME) -> str:
    """A name in few letters; its middle goes, since names differ at their ends."""
    tail = longest // 3
    return name if len(name) <= longest else f"{name[: longest - tail - 1]}…{name[-tail:]}"


def count(value: float) -> str:
    """A median of counts, or a mean: a whole number, or with what follows the point."""
    return f"{value:,.0f}" if value == int(value) else text.number(value)
