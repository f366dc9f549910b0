"""Requests padded up to buckets: which shape runs in place of which, and what that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ceilings.errors import CellFailure
from ceilings.statistics.buckets import Choice, Size, bucket_of, choose, curve
from ceilings.workload.shape import Shape


def grouped(shapes: Sequence[Shape], axis: str) -> list[list[Shape]]:
    """The shapes in groups that differ along ``axis`` only, ascending along it.

    >>> shapes = [Shape.parse(name) for name in ("b1-s8", "b2-s8", "b1-s4")]
    >>> [[str(one) for one in group] for group in grouped(shapes, "sequence")]
    [['b1-s4', 'b1-s8'], ['b2-s8']]

    Raises:
        CellFailure: A shape has no such axis.
    """
    groups: dict[Shape, list[Shape]] = {}
    for shape in shapes:
        if shape.get(axis) is None:
            raise CellFailure("unsupported", f"{shape} has no axis {axis} that could be padded")
        groups.setdefault(shape.with_sizes(**{axis: 1}), []).append(shape)
    return [sorted(groups[key], key=lambda shape: shape[axis]) for key in sorted(groups)]


def can_pad(shapes: Sequence[Shape], axis: str) -> bool:
    """Whether two shapes differ along ``axis`` only, so that one could run in place of the other.

    >>> can_pad([Shape.parse("b1-s8"), Shape.parse("b2-s8"), Shape.parse("b2-s4")], "sequence")
    True
    >>> can_pad([Shape.parse("b1-s8"), Shape.parse("b2-s8")], "sequence")
    False
    """
    return all(axis in shape.axes for shape in shapes) and any(len(group) > 1 for group in grouped(shapes, axis))


def choice_record(
    requests: Mapping[str, Any],
    latency_ms: Sequence[float],
    memory_bytes: Sequence[float],
    limits: Mapping[str, Any],
) -> dict[str, Any]:
    """What ``buckets.json`` says of the best choice: the buckets, which shape runs at which, and what is predicted.

    Args:
        requests: ``shapes`` and ``order`` of the sequence.
        latency_ms: Steady latency of each shape.
        memory_bytes: That each shape adds.
        limits: ``axis`` that is padded, ``most`` buckets, ``memory_mb`` of them all or None.

    Raises:
        CellFailure: No choice keeps the limits.
    """
    shapes = [Shape.parse(name) for name in requests["shapes"]]
    counts, axis = Counter(requests["order"]), limits["axis"]
    index = {shape: number for number, shape in enumerate(shapes)}
    groups = grouped(shapes, axis)
    sizes = [
        [Size(shape[axis], counts[index[shape]], latency_ms[index[shape]], memory_bytes[index[shape]]) for shape in one]
        for one in groups
    ]
    memory = None if limits["memory_mb"] is None else limits["memory_mb"] * 1e6
    best = choose(sizes, limits["most"], memory)
    if best is None:
        raise CellFailure(
            "unsupported",
            f"no choice keeps {limits['most']} buckets"
            + ("" if memory is None else f" and {limits['memory_mb']:g} MB")
            + f": each of {len(groups)} groups of shapes needs one that holds its largest; raise the limit",
        )
    total = len(requests["order"])
    return {
        "axis": axis,
        "runs_at": _runs_at(groups, best, axis),
        "buckets": _buckets(groups, best, axis),
        "candidates": [
            {
                "shape": str(shape),
                "requests": counts[number],
                "latency_ms": latency_ms[number],
                "memory_bytes": memory_bytes[number],
            }
            for number, shape in enumerate(shapes)
        ],
        "predicted_ms": best.time / total,
        "unpadded_ms": sum(latency_ms[number] for number in requests["order"]) / total,
        "memory_bytes": best.memory,
        "curve": [
            {
                "buckets": number,
                "shapes": _buckets(groups, one, axis),
                "predicted_ms": one.time / total,
                "memory_bytes": one.memory,
            }
            for number, one in curve(sizes, min(limits["most"], len(shapes)), memory)
        ],
    }


def padding_share(chosen: Mapping[str, Any]) -> float:
    """Of all that runs along the padded axis, the share that is padding.

    >>> one = {"shape": "b3-s8", "requests": 1}
    >>> padding_share({"axis": "batch", "runs_at": {"b3-s8": "b4-s8"}, "candidates": [one]})
    0.25
    """
    asked = runs = 0
    for one in chosen["candidates"]:
        asked += one["requests"] * Shape.parse(one["shape"])[chosen["axis"]]
        runs += one["requests"] * Shape.parse(chosen["runs_at"][one["shape"]])[chosen["axis"]]
    return 1 - asked / runs


def _runs_at(groups: Sequence[Sequence[Shape]], best: Choice, axis: str) -> dict[str, str]:
    return {
        str(shape): str(shape.with_sizes(**{axis: bucket_of(shape[axis], sizes)}))
        for group, sizes in zip(groups, best.buckets, strict=True)
        for shape in group
    }


def _buckets(groups: Sequence[Sequence[Shape]], best: Choice, axis: str) -> list[str]:
    """The names of the shapes that run."""
    each = zip(groups, best.buckets, strict=True)
    return [str(group[0].with_sizes(**{axis: size})) for group, sizes in each for size in sizes]
