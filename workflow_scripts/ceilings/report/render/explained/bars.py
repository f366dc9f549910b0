"""An iteration as bars: the critical path, the threads of the host and the devices, each cut into its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ceilings.report.render.explained import phrases

Group = Mapping[str, Any]

MOST_THREADS, MOST_DEVICES = 3, 4

MOST_TOTAL = 1.05
"""Parts that sum to more of an iteration than this run beside each other, and have a bar each."""

PALETTE = {
    **{"gemm": "#2b6cb0", "attention": "#63a4e0", "normalization": "#2f9e6a", "elementwise": "#45b3c4"},
    **{"gather": "#8bbf4a", "copy": "#c774a8", "communication": "#7b5ea7", "other": "#a39bd6", "unknown": "#8a6d5a"},
    "sampling": "#d2694b",
    **{"framework": "#e69f00", "host": "#e69f00", "launch": "#b3400f", "transfer": "#c774a8", "kernel": "#2b6cb0"},
    **{"sync": "#9aa5b4", "stalled": "#6b7280"},
}
"""Colours for a light page and a dark one, by class of kernel, part of the host, share of the path."""

IDLE = {"host": "#8c95a430", "launching": "#8c95a458", "queued": "#8c95a480", "sync": "#8c95a4a8"}
"""Idle time by its cause: greys, so that work stands out."""

PALE = "#8c95a418"
"""Of idle time without a cause."""

PLAIN = "#9aa5b4"
"""Of a part that the palette does not know."""


@dataclass(frozen=True)
class Part:
    """A part of a bar.

    Attributes:
        label: How pages call it.
        colour: For CSS and SVG.
        share: Of the iteration.
        ns: Its median.
        idle: Whether nothing happens in it.
    """

    label: str
    colour: str
    share: float
    ns: float
    idle: bool = False


@dataclass(frozen=True)
class Bar:
    """A bar: what it is of, its parts in their order, and how many times an iteration its parts are long."""

    label: str
    parts: tuple[Part, ...]

    @property
    def total(self) -> float:
        return sum(part.share for part in self.parts)


def bars(group: Group) -> list[Bar]:
    """Those that the file has: the critical path, the threads that launch most, the devices; else its own parts."""
    length = group["length_ns"]["median"]

    def bar(label: str, parts: list[tuple[str, str, float, bool]]) -> Bar:
        return Bar(
            label, tuple(Part(name, colour, ns / length, ns, idle) for name, colour, ns, idle in parts if ns > 0)
        )

    drawn = []
    if group["shares"]:
        shares = group["shares"].items()
        drawn.append(bar("critical path", [(phrases.PATH.get(k, k), _colour(k), v * length, False) for k, v in shares]))
    for one in sorted(group["host"], key=lambda one: -one["launches"])[:MOST_THREADS]:
        host = one["parts"].items()
        drawn.append(
            bar(f"host, {one['thread']}", [(phrases.HOST.get(k, k), _colour(k), v["median"], False) for k, v in host])
        )
    for one in group["devices"][:MOST_DEVICES]:
        work = [(phrases.CLASSES.get(k, k), _colour(k), v["median"], False) for k, v in one["classes"].items()]
        work += [
            (f"idle: {phrases.IDLE.get(k, k)}", IDLE.get(k, PALE), v["median"], True) for k, v in one["idle"].items()
        ]
        work.append(("idle: not explained", PALE, one["idle_unexplained_ns"]["median"], True))
        drawn.append(bar(f"device {one['device']}", work))
    if not drawn:  # what one program says of itself
        colours = list(dict.fromkeys(PALETTE.values()))
        timed = [(one["part"], colours[k % len(colours)], one["ns"], False) for k, one in enumerate(group["parts"])]
        beside = sum(ns for _, _, ns, _ in timed) > MOST_TOTAL * length
        drawn += [bar(part[0], [part]) for part in timed] if beside else [bar("an iteration", timed)]
    return [one for one in drawn if one.parts]


def hidden(group: Group) -> str:
    """Which threads and devices are not drawn; empty where all are."""
    threads, devices = len(group["host"]) - MOST_THREADS, len(group["devices"]) - MOST_DEVICES
    words = [f"{threads} more threads"] if threads > 0 else []
    words += [f"{devices} more devices"] if devices > 0 else []
    return f"Not drawn: {' and '.join(words)}." if words else ""


def _colour(name: str) -> str:
    return PALETTE.get(name, PLAIN)
