"""What a program says of its iterations itself, as the content of an explanation: no device is watched from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.statistics.quantiles import minimum_samples, quantile_interval

Values = Sequence[float] | NDArray[np.float64]

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
MOST_LENGTHS = 2000
"""Lengths of iterations that a record holds; of more, evenly spread ones."""

MOST_LAYERS, LONGEST_NAME = 500, 4000


def content(
    form: str,
    tool: str,
    *,
    counts: Mapping[str, int],
    lacks: Sequence[str],
    health: Sequence[tuple[str, str]],
    groups: Sequence[dict[str, Any]],
    why: str,
    span: tuple[float, float] = (0.0, 0.0),
    devices: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """An explanation without its name, provenance, and size and digest of the file.

    Args:
        health: Level and text of each remark.
        why: How the iterations were made out.
        span: Time inside iterations and between them, in ns.
    """
    inside, between = span
    iterations = {"by": "run", "name": None, "count": sum(group["count"] for group in groups)}
    iterations |= {"certainty": 1.0 if groups else 0.0, "why": why, "others": []}
    return {
        "source": {"format": form, "tool": tool, "counts": dict(counts), "lacks": list(lacks)},
        "health": [{"level": level, "text": text} for level, text in health],
        "span_ns": inside + between,
        "devices": list(devices),
        "iterations": iterations | {"inside_ns": inside, "between_ns": between},
        "groups": list(groups),
    }


def group(
    label: str,
    lengths: Sequence[float],
    share: float,
    parts: Mapping[str, float],
    *,
    verdict: dict[str, Any] | None = None,
    counts: Mapping[str, float] | None = None,
    kernels: Sequence[dict[str, Any]] = (),
    layers: Sequence[tuple[str, str, float, float]] = (),
    what_if: Sequence[dict[str, Any]] = (),
    levers: Sequence[tuple[str, str, float | None]] | Sequence[tuple[str, str, float]] = (),
) -> dict[str, Any]:
    """A group of iterations.

    Args:
        lengths: Of its iterations in their order, in ns; at least one.
        share: Of the time of all iterations.
        parts: Name and median of each part of an iteration, in ns.
        layers: Name, kind, how often an iteration runs it, and its median, in ns.
        levers: Name, reason, and the share of an iteration that goes at most.
    """
    middle = float(np.median(lengths))
    least, most = max(1.0, float(min(lengths))), max(1.0, float(max(lengths)))
    shown = list(layers[:MOST_LAYERS])
    if rest := layers[MOST_LAYERS:]:
        count, ns = sum(one[2] for one in rest), sum(one[3] for one in rest)
        shown.append((f"{len(rest):,} others", "others", count, ns))
    return {
        **{"label": label, "count": len(lengths), "share": share, "verdict": verdict, "shares": None, "path": []},
        "length_ns": median(lengths, 1.0) | {"least": least, "most": most},
        **{"host": [], "devices": [], "calls": [], "timeline": None, "residual_ns": None},
        "parts": [{"part": name, "ns": ns, "share": ns / middle if middle else 0.0} for name, ns in parts.items()],
        "counts": dict(counts or {}),
        "kernels": [one | {"name": one["name"][:LONGEST_NAME]} for one in kernels],
        "layers": [
            {"name": name[:LONGEST_NAME], "kind": kind[:LONGEST_NAME], "count": count, "ns": ns}
            for name, kind, count, ns in shown
        ],
        "what_if": list(what_if),
        "levers": [{"lever": name, "why": why, "gain": gain} for name, why, gain in levers[:3]],
        "lengths_ns": spread(lengths),
    }


def median(values: Values, low: float = 0.0) -> dict[str, float | None]:
    """A median with its interval; no value is below ``low``."""
    interval = quantile_interval(values, 0.5)
    middle = max(low, float(np.median(values)))
    if interval is None:
        return {"median": middle, "low": None, "high": None}
    return {"median": middle, "low": max(low, interval.low), "high": max(low, interval.high)}


def spread(values: Sequence[float]) -> list[float]:
    """At most ``MOST_LENGTHS`` of some values, evenly spread."""
    step = -(-len(values) // MOST_LENGTHS) or 1
    return [float(value) for value in values[::step]]


def percentiles(what: str, values: Values) -> str:
    """The percentiles of some times in ns that their number supports, and from which number on the others are."""
    array = np.asarray(values, float)
    said = [f"p{100 * q:g} {np.quantile(array, q) / 1e6:.4g} ms" for q in QUANTILES if len(array) >= minimum_samples(q)]
    missing = next((q for q in QUANTILES if len(array) < minimum_samples(q)), None)
    text = (
        f"{what} of {len(array):,}: {', '.join(said)}" if said else f"{what}: {len(array):,} are too few for a median"
    )
    return f"{text}." if missing is None else f"{text}; p{100 * missing:g} needs {minimum_samples(missing):,}."


def change(name: str, now: float, then: float | None, why_not: str | None = None) -> dict[str, Any]:
    """What an iteration would take after a change, or why nobody knows."""
    gain = None if then is None or not now else 1 - then / now
    return {"change": name, "ns": then, "gain": gain, "why_not": why_not}
