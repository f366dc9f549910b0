"""The tables of an explanation: what each part takes, as rows of texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ceilings.report import text
from ceilings.report.render.explained import answer, phrases

Group = Mapping[str, Any]
Record = Mapping[str, Any]

MOST = 10
"""Kernels, calls and layers that are shown."""

MOST_PARTS = 15
"""Parts of the critical path that are shown."""

REST = "smaller parts"
"""How the account calls those that it takes together, behind their number."""

FRAMEWORK = "framework: "
"""How the name of a part begins that is in the account, as framework code."""

WHAT_IF = "What if"

BESIDE = {
    "overlap_ns": "at least two operations at once",
    "hidden_transfer_ns": "copies hidden beside kernels",
    "hidden_communication_ns": "communication hidden beside other work",
}
"""What of the work runs beside other work, by its key in a record."""


_PER_ITERATION = "Means over the iterations. *On the path*: what of it lies on the critical path, and so lengthens it."
_COSTS = ("count", "each", "all", "of the iteration", "on the path")


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        title: Its heading.
        note: What the reader must know of it, in a sentence or two.
        headers: Of its columns.
        align: l or r for each column.
        rows: Texts; none where the file does not say.
        below: A sentence below it.
    """

    title: str
    note: str
    headers: tuple[str, ...]
    align: str
    rows: list[list[str]]
    below: str = ""

    @property
    def says(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.rows or self.below)

    def markdown(self, level: int = 2) -> str:
        """Heading, note, table and what stands below it."""
        shown = [self.note, text.table(self.rows, self.headers, self.align)] if self.rows else []
        return "\n\n".join(filter(None, [f"{'#' * level} {self.title}", *shown, self.below]))


def critical_path(group: Group) -> Table:
    """What the length of an iteration consists of."""
    length = group["length_ns"]["median"]
    shares = group["shares"] or {}
    parts = [(one["part"], one["ns"]) for one in group["path"]]
    parts = parts or [(phrases.PATH.get(name, name), share * length) for name, share in shares.items()]
    rows = [[name, phrases.time(ns), phrases.share(ns, length)] for name, ns in _largest(parts)]
    note = (
        "The chain of host code and device work that the iteration's length consists of. What is not on it did not "
        "lengthen it."
    )
    return Table("Critical path", note, ("part", "time", "of the iteration"), "lrr", rows)


def idle(group: Group) -> Table:
    """Why each device is idle."""
    length = group["length_ns"]["median"]
    devices = group["devices"]
    causes = devices[0]["idle"] if devices else ()
    rows = _by_device(group, [(phrases.IDLE.get(c, c), [one["idle"][c] for one in devices]) for c in causes])
    rows += _by_device(group, [("not explained", [one["idle_unexplained_ns"] for one in devices])])
    total = [sum(value["median"] for value in one["idle"].values()) for one in devices]
    note = f"Idle for {text.listed(phrases.share(ns, length) for ns in total)} of the iteration." if devices else ""
    return Table("Idle time by cause", note, _device_headers(group, "cause"), _device_align(group), rows)


def busy(group: Group) -> Table:
    """What each device works on, and what runs beside what."""
    devices = group["devices"]
    classes = devices[0]["classes"] if devices else ()
    rows = _by_device(group, [(phrases.CLASSES.get(c, c), [one["classes"][c] for one in devices]) for c in classes])
    rows += _by_device(group, [(label, [one[key] for one in devices]) for key, label in BESIDE.items()])
    return Table("Work of the device", "", _device_headers(group, "class"), _device_align(group), rows)


def host(group: Group) -> Table:
    """What the threads of the host do."""
    length = group["length_ns"]["median"]
    rows = [
        [
            one["thread"],
            *(_with_share(value["median"], length) for value in one["parts"].values()),
            text.percent(one["launches"]),
        ]
        for one in group["host"]
    ]
    names = group["host"][0]["parts"] if group["host"] else ()
    headers = ("thread", *(phrases.HOST.get(name, name) for name in names), "of all launches")
    return Table("Threads of the host", "", headers, "l" + "r" * (len(headers) - 1), rows)


def kernels(group: Group, most: int = MOST) -> Table:
    """The kernels that take most."""
    length = group["length_ns"]["median"]
    rows = [
        [
            f"`{phrases.cut(one['short'])}`",
            phrases.CLASSES.get(one["class"], one["class"]),
            *_costs(one, length),
        ]
        for one in _first(group["kernels"], most)
    ]
    title = f"Kernels: the {len(rows)} that take most" if len(rows) < len(group["kernels"]) else "Kernels"
    return Table(title, _PER_ITERATION, ("kernel", "class", *_COSTS), "ll" + "r" * 5, rows)


def calls(group: Group, most: int = MOST) -> Table:
    """The CUDA calls that take most."""
    length = group["length_ns"]["median"]
    rows = [
        [f"`{phrases.cut(one['name'])}`", one["kind"], *_costs(one, length)] for one in _first(group["calls"], most)
    ]
    title = f"CUDA calls: the {len(rows)} that take most" if len(rows) < len(group["calls"]) else "CUDA calls"
    return Table(title, _PER_ITERATION, ("call", "kind", *_COSTS), "ll" + "r" * 5, rows)


def layers(group: Group, most: int = MOST) -> Table:
    """The layers or nodes that take most, and all others as one; no rows where the file has none."""
    length = group["length_ns"]["median"]
    ranked = sorted(group["layers"], key=lambda one: -one["ns"])
    rows = [
        [
            f"`{phrases.cut(one['name'])}`",
            f"`{phrases.cut(one['kind'])}`",
            phrases.count(one["count"]),
            phrases.time(one["ns"]),
            phrases.share(one["ns"], length),
        ]
        for one in ranked[:most]
    ]
    if rest := ranked[most:]:
        count, ns = (sum(one[key] for one in rest) for key in ("count", "ns"))
        rows.append([f"{len(rest):,} others", "", phrases.count(count), phrases.time(ns), phrases.share(ns, length)])
    headers = ("layer or node", "kind", "count", "time", "of the iteration")
    return Table("Layers", "", headers, "llrrr", rows)


def operators(group: Group) -> Table:
    """The layers or nodes by their type; no rows where all types differ."""
    length = group["length_ns"]["median"]
    ranked = sorted(answer.by_kind(group), key=lambda kind: -kind["ns"])
    first, rest = ranked[:MOST_PARTS], ranked[MOST_PARTS:]
    rows = [
        [
            f"`{phrases.cut(one['kind'])}`",
            phrases.count(one["count"]),
            phrases.time(one["ns"]),
            phrases.share(one["ns"], length),
        ]
        for one in first
    ]
    if rest:
        count, ns = (sum(one[what] for one in rest) for what in ("count", "ns"))
        rows.append([f"{len(rest)} others", phrases.count(count), phrases.time(ns), phrases.share(ns, length)])
    note = "Sums of the medians of their nodes."
    return Table("Operators", note, ("type", "count", "time", "of the iteration"), "lrrr", rows)


def what_if(group: Group) -> Table:
    """How long an iteration would be with a change, by replay; below it why there is no number for the others."""
    rows, unsaid = [], dict[str, list[str]]()
    for one in group["what_if"]:
        change = phrases.CHANGES.get(one["change"], one["change"])
        if one["ns"] is None:
            unsaid.setdefault(one["why_not"] or "it was not replayed", []).append(change)
        else:
            rows.append([change, phrases.time(one["ns"]), phrases.gain(one["gain"])])
    below = " ".join(f"No number if {text.listed(changes)}: {why}." for why, changes in unsaid.items())
    note = (
        "Each line is a replay of the recorded iterations with this one change; all else stays as it was recorded. A "
        "real change can bring less, where it does not go as far, or more, where the recorder slowed the host."
    )
    return Table(WHAT_IF, note, ("if", "an iteration takes", "change"), "lrr", rows, below)


def framework(group: Group) -> Table:
    """What the framework's code of all threads does, by operator, range or function."""
    inside = [(one["part"].removeprefix(FRAMEWORK), one) for one in group["parts"] if one["part"].startswith(FRAMEWORK)]
    rows = [[name, phrases.time(one["ns"]), text.percent(one["share"])] for name, one in inside]
    note = "Time in each, without what it calls; of all threads, on the critical path or not."
    return Table("Framework code", note, ("operator, range or function", "time", "of the iteration"), "lrr", rows)


def of_itself(group: Group) -> bool:
    """Whether a program timed itself: then there is no account of a host and of devices, but what it says."""
    return group["shares"] is None and not group["host"] and not group["devices"]


def parts(group: Group) -> Table:
    """What does not fit into the exact account, by name and size; where there is no account, what there is instead."""
    length = group["length_ns"]["median"]
    beside = [(one["part"], one["ns"]) for one in group["parts"] if not one["part"].startswith(FRAMEWORK)]
    accounted = {"host": group["host"], "device": group["devices"]}
    left = [(f"rest of the {side}", ns) for side, ns in (group["residual_ns"] or {}).items() if accounted[side]]
    rows = [[name, phrases.signed(ns), text.percent(ns / length)] for name, ns in (*beside, *left)]
    headers = ("part", "time", "of the iteration")
    if of_itself(group):
        return Table("Parts of an iteration", "As the program itself times them.", headers, "lrr", rows)
    note = (
        "Time that is in none of the tables above. *Rest*: the median iteration less the sum of the parts' medians. In "
        "each iteration the parts sum up to the ns; medians of unlike iterations need not."
    )
    return Table("Not in the tables above", note, headers, "lrr", rows)


def groups(record: Record) -> Table:
    """The groups of like iterations."""
    rows = [
        [
            one["label"],
            phrases.count(one["count"]),
            text.percent(one["share"]),
            phrases.median(one["length_ns"]),
            f"{phrases.time(one['length_ns']['least'])} to {phrases.time(one['length_ns']['most'])}",
            one["verdict"]["name"] if one["verdict"] else "n/a",
        ]
        for one in record["groups"]
    ]
    headers = ("group", "iterations", "of all time", "median", "from, to", "verdict")
    note = "Iterations of unlike work are kept apart, not averaged."
    return Table("Groups of iterations", note, headers, "lrrrrl", rows)


def devices(record: Record) -> Table:
    """What the whole recording holds of each device."""
    rows = [
        [
            f"{one['device']}: {one['name']}" if one["name"] else str(one["device"]),
            *(phrases.count(one[name]) for name in ("processes", "streams", "kernels", "copies", "fills", "graphs")),
            f"{phrases.time(one['busy_ns'])} of {phrases.time(one['span_ns'])}",
        ]
        for one in record["devices"]
    ]
    headers = (
        "device",
        "processes",
        "streams",
        "kernels",
        "copies",
        "memory fills",
        "graph launches",
        "busy, first to last work",
    )
    return Table("The whole recording", "", headers, "l" + "r" * 7, rows)


def _costs(one: Mapping[str, Any], length: float) -> list[str]:
    each = one["ns"] / one["count"]
    return [
        phrases.count(one["count"]),
        phrases.time(each),
        phrases.time(one["ns"]),
        phrases.share(one["ns"], length),
        phrases.share(one["path_ns"], length),
    ]


def _device_headers(group: Group, first: str) -> tuple[str, ...]:
    return (first, *(f"device {one['device']}" for one in group["devices"]))


def _device_align(group: Group) -> str:
    return "l" + "r" * len(group["devices"])


def _by_device(group: Group, parts: Iterable[tuple[str, list[Mapping[str, float]]]]) -> list[list[str]]:
    """A row for each part that some device has, with a median a device; the largest first."""
    length = group["length_ns"]["median"]
    medians = [(label, [value["median"] for value in values]) for label, values in parts]
    kept = sorted((part for part in medians if any(part[1])), key=lambda part: -max(part[1]))
    return [[label, *(_with_share(ns, length) for ns in values)] for label, values in kept]


def _with_share(ns: float, length: float) -> str:
    return f"{phrases.time(ns)} ({phrases.share(ns, length)})"


def _largest(parts: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """The largest parts, and all others as one, so that they still sum up."""
    ranked = sorted((part for part in parts if part[1]), key=lambda part: (part[0].endswith(REST), -part[1]))
    first, rest = ranked[:MOST_PARTS], ranked[MOST_PARTS:]
    return [*first, (REST, sum(ns for _, ns in rest))] if len(rest) > 1 else ranked


def _first(values: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    return sorted(values, key=lambda one: -one["ns"])[:most]
