"""What grew between two explained traces: the iteration, its parts, its kernels and its calls.

Lengths are medians over iterations. The interval of their ratio comes from the two medians' distribution-free
intervals, each at 97.5%, so that both hold together with 95%. It covers the iterations of these two traces: two runs of
the same program can differ by more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ceilings.statistics.quantiles import Interval, quantile_interval

Record = Mapping[str, Any]
Group = Mapping[str, Any]

CONFIDENCE = 0.975
"""Of each median's interval."""

IDLE = "idle: "
"""What the name of a cause of idle time begins with, so that it is no class of work."""

CHANGED = 0.02
"""Of a kernel or a call, a change of its time by less than this share of the iteration is none."""


@dataclass(frozen=True)
class Share:
    """A part on both sides, in ns of an iteration; None where a side does not have it.

    Attributes:
        name: How both sides call it.
        before, after: Its time.
        counts: How many of it an iteration has, before and after.
    """

    name: str
    before: float | None
    after: float | None
    counts: tuple[float | None, float | None] = (None, None)

    @property
    def growth(self) -> float:
        """After less before, in ns."""
        return (self.after or 0.0) - (self.before or 0.0)

    @property
    def change(self) -> str:
        """``new``, ``gone``, ``more of it``, ``fewer of it``, ``longer`` or ``shorter``."""
        if self.before is None or self.after is None:
            return "new" if self.before is None else "gone"
        before, after = self.counts
        if before is not None and after is not None and before != after:
            return "more of it" if after > before else "fewer of it"
        return "longer" if self.growth > 0 else "shorter" if self.growth < 0 else "the same"


@dataclass(frozen=True)
class Growth:
    """One group of iterations on both sides.

    Attributes:
        before, after: The groups.
        ratio: Length after over before; its ends are infinite and 0 where a side has too few iterations.
        path, host, device, kernels, calls: Parts on both sides, what changed most first.
    """

    before: Group
    after: Group
    ratio: Interval
    path: list[Share]
    host: list[Share]
    device: list[Share]
    kernels: list[Share]
    calls: list[Share]

    @property
    def verdict(self) -> str:
        """``longer``, ``shorter``, ``undecided``; ``not decidable`` where a side has too few iterations."""
        if not self.ratio.bounded:
            return "not decidable"
        return "longer" if self.ratio.low > 1 else "shorter" if self.ratio.high < 1 else "undecided"


def growths(before: Record, after: Record) -> list[Growth]:
    """A comparison for each label that both sides have; of the largest groups where no label is on both sides."""
    ours = {group["label"]: group for group in before["groups"]}
    pairs = [(ours[group["label"]], group) for group in after["groups"] if group["label"] in ours]
    if not pairs and before["groups"] and after["groups"]:
        pairs = [(_largest(before), _largest(after))]
    return [_growth(*pair) for pair in sorted(pairs, key=lambda pair: -pair[1]["share"])]


def unpaired(before: Record, after: Record) -> tuple[list[str], list[str]]:
    """Labels of groups that one side alone has: before, after."""
    paired = growths(before, after)
    return (
        [group["label"] for group in before["groups"] if all(group is not one.before for one in paired)],
        [group["label"] for group in after["groups"] if all(group is not one.after for one in paired)],
    )


def cautions(before: Record, after: Record) -> Iterator[str]:
    """Why a difference may come from something else than the program, a sentence each."""
    formats = [record["source"]["format"] for record in (before, after)]
    if formats[0] != formats[1]:
        yield (
            f"The traces are of two recorders ({formats[0]}, {formats[1]}): each slows the host down in its way, and "
            "names of kernels can differ."
        )
    devices = [sorted({one["name"] or "unknown" for one in record["devices"]}) for record in (before, after)]
    if devices[0] != devices[1] and all(devices):
        yield f"The devices differ: {', '.join(devices[0])} before, {', '.join(devices[1])} after."
    made = [record["iterations"] for record in (before, after)]
    if made[0]["by"] != made[1]["by"]:
        yield (
            f"Iterations are made out by {made[0]['by']} before and by {made[1]['by']} after: they may not be the same "
            "piece of work."
        )
    unsure = [side for side, one in zip(("before", "after"), made, strict=True) if one["certainty"] < 0.9]
    if unsure:
        yield f"It is not sure what an iteration is ({' and '.join(unsure)}); name a range to be sure."


def _growth(before: Group, after: Group) -> Growth:
    sides = (before, after)
    return Growth(
        before,
        after,
        _ratio(before, after),
        path=_ranked(*(_path(group) for group in sides)),
        host=_ranked(*(_host(group) for group in sides)),
        device=_ranked(*(_device(group) for group in sides)),
        kernels=_counted(before, after, "kernels"),
        calls=_counted(before, after, "calls"),
    )


def _ratio(before: Group, after: Group) -> Interval:
    estimate = after["length_ns"]["median"] / before["length_ns"]["median"]
    first, second = (quantile_interval(group["lengths_ns"], 0.5, CONFIDENCE) for group in (before, after))
    if first is None or second is None or not first.low:
        return Interval(0.0, estimate, float("inf"))
    return Interval(second.low / first.high, estimate, second.high / first.low)


def _path(group: Group) -> dict[str, float]:
    length = group["length_ns"]["median"]
    return {name: share * length for name, share in (group["shares"] or {}).items()}


def _host(group: Group) -> dict[str, float]:
    """Of all threads together."""
    return _summed((name, value["median"]) for one in group["host"] for name, value in one["parts"].items())


def _device(group: Group) -> dict[str, float]:
    """Work by class and idle time by cause, of all devices together."""
    work = [(name, value["median"]) for one in group["devices"] for name, value in one["classes"].items()]
    idle = [(f"{IDLE}{name}", value["median"]) for one in group["devices"] for name, value in one["idle"].items()]
    return _summed([*work, *idle])


def _summed(parts: Iterable[tuple[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, ns in parts:
        total[name] = total.get(name, 0.0) + ns
    return total


def _ranked(before: Mapping[str, float], after: Mapping[str, float]) -> list[Share]:
    if not before or not after:  # one side's file does not say
        return []
    shares = [Share(name, before.get(name, 0.0), after.get(name, 0.0)) for name in dict.fromkeys((*before, *after))]
    return sorted((one for one in shares if one.before or one.after), key=lambda one: -abs(one.growth))


def _counted(before: Group, after: Group, kind: str) -> list[Share]:
    """Kernels or calls by name; those that neither came nor went nor changed are left out."""
    ours, theirs = ({one["name"]: one for one in group[kind]} for group in (before, after))
    if not ours or not theirs:
        return []
    least = CHANGED * min(before["length_ns"]["median"], after["length_ns"]["median"])
    shares = []
    for name in dict.fromkeys((*theirs, *ours)):
        first, second = ours.get(name), theirs.get(name)
        shown = (second or first or {}).get("short", name)
        times = (first["ns"] if first else None, second["ns"] if second else None)
        share = Share(shown, *times, (first["count"] if first else None, second["count"] if second else None))
        if share.change not in ("longer", "shorter", "the same") or abs(share.growth) > least:
            shares.append(share)
    return sorted(shares, key=lambda one: -abs(one.growth))


def _largest(record: Record) -> Group:
    return max(record["groups"], key=lambda group: group["share"])
