"""The answer of an explanation in sentences: what bounds an iteration, what keeps the device idle, what would help."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ceilings.report import text
from ceilings.report.render.explained import phrases
from ceilings.schemas.explanation import RECORDINGS

Record = Mapping[str, Any]
Group = Mapping[str, Any]

LEVERS_SHOWN = 3

OF_SHARE = {
    "kernel": "kernel-bound",
    "transfer": "transfer-bound",
    "sync": "sync-bound",
    "communication": "communication-bound",
    "stalled": "stall-bound",
}
"""The share of the critical path that gives a verdict; the host's has two: :data:`OF_THE_HOST`."""

OF_THE_HOST = ("launch-bound", "host-bound")

SURE = 0.9
"""Certainty of the iterations from which on no warning stands."""

MUCH_BETWEEN = 0.1
"""Share of the time between iterations from which on it is said near the top."""

CHOOSE = "say it with --range NAME, --step, --graph or --between FROM TO"

DRAWN = 0.98
"""A picture with less of the critical path than this says so."""

FEWEST = 5
"""Fewer iterations do not say how widely they spread."""

WIDE = 3.0
"""Iterations of which the longest twentieth takes so many times as long as the shortest one are not alike."""

LEVELS = ("error", "warning", "note")
"""Of what the health check says, the gravest first."""


def main_group(record: Record) -> Group | None:
    """The group of iterations with the largest share of the time; None where there is none."""
    return max(record["groups"], key=lambda group: group["share"], default=None)


def headline(record: Record) -> str:
    """The answer in one line: bound by what, iterations and their length, how busy the devices are, what helps."""
    group = main_group(record)
    if group is None and not record["span_ns"]:
        return "It holds no times, so it says nothing of what takes them."
    if group is None:
        return f"No iteration was made out in {phrases.time(record['span_ns'])}; {whole_busy(record)}"
    if lost := without_device(record):
        return f"{lost} On the host: {iterations(record, group)}."
    verdict = group["verdict"]
    bound = phrases.BOUND_BY.get(verdict["name"], verdict["name"]) if verdict else None
    first = f"Bound by {bound}" if bound else "What bounds it is not in this file"
    return f"{first}: {'; '.join([iterations(record, group), *busy(group), *lever(group)])}."


def without_device(record: Record) -> str:
    """Why a recording holds no work of a device, in a sentence; empty where it does, or where none is expected."""
    if record["devices"] or record["source"]["format"] not in RECORDINGS:
        return ""
    return next((one["text"] for one in record["health"] if one["level"] == "error"), "It holds no work of a device.")


def iterations(record: Record, group: Group) -> str:
    """How many iterations a group has and how long they are: ``100 iterations of 2.24 ms [2.20, 2.29]``."""
    which = "" if len(record["groups"]) == 1 else f" ({group['label']})"
    words = f"{text.plural(group['count'], 'iteration')}{which} of {phrases.median(group['length_ns'])}"
    replayed = record.get("untraced") or {"how": "none"}
    return f"{words} without the recorder, by replay" if replayed["how"] == "fitted" else words


def busy(group: Group) -> list[str]:
    """How busy each device is in an iteration; nothing where the file does not say."""
    length = group["length_ns"]["median"]
    shares = [phrases.share(device["busy_ns"]["median"], length) for device in group["devices"]]
    if len(shares) == 1:
        return [f"device busy {shares[0]}"]
    return [f"devices busy {text.listed(shares)}"] if shares else []


def whole_busy(record: Record) -> str:
    """How busy the devices are over the whole recording."""
    devices = [device for device in record["devices"] if device["span_ns"]]
    if not devices:
        return "it holds no work of a device."
    each = [phrases.share(device["busy_ns"], device["span_ns"]) for device in devices]
    return f"device{'s' * (len(each) > 1)} busy {text.listed(each)} from the first to the last work."


def lever(group: Group) -> list[str]:
    """The largest lever; nothing where there is none."""
    known = group["levers"]
    if not known:
        return []
    name = known[0]["lever"].partition(":")[0].partition(" (")[0]  # without how to do it
    return [f"the largest lever: {name}{gain(known[0]['gain'])}"]


def gain(share: float | None) -> str:
    """What a lever is expected to bring, in brackets; empty where that is not known."""
    return "" if share is None else f" (up to {phrases.gain(share)})"


def meaning(group: Group) -> str:
    """What the verdict means, and the shares of the path that give it; without a path, how many iterations have it."""
    verdict, shares = group["verdict"], group["shares"]
    if not verdict or (shares and not group["devices"]):
        return ""
    name = verdict["name"]
    words = f"{name[0].upper()}{name[1:]}: {verdict['meaning']}."
    if name == "mixed":
        return words
    if not shares:
        return f"{words} In {text.percent(verdict['majority'])} of the iterations."
    if name in OF_THE_HOST:
        host, launches = shares["host"], shares["launch"]
        return (
            f"{words} Launches ({text.percent(launches)}) and host code ({text.percent(host)}) are the host's work: "
            f"together {text.percent(host + launches)} of the critical path; the larger gives the name."
        )
    largest = next(part for part, bound in OF_SHARE.items() if bound == name)
    return (
        f"{words} {phrases.capitalised(phrases.PATH[largest])}: {text.percent(shares[largest])} of the critical path."
    )


def recorder(record: Record) -> str:
    """What the recorder may have to do with a verdict that names the host; empty where it has nothing to do with it."""
    group = main_group(record)
    verdict = group["verdict"] if group else None
    if not verdict or verdict["name"] not in OF_THE_HOST or not record["devices"]:
        return ""
    if (record.get("untraced") or {"how": "none"})["how"] == "fitted":
        return ""
    return (
        "A recorder makes the host slower, so the program alone may be bound by something else: measure its latency "
        "without the recorder, and give it with --latency MS."
    )


OPERATORS_SHOWN = 4
LEAST_SHOWN = 0.01


def operators(group: Group) -> list[str]:
    """What the host does on the critical path, by operator or range, the longest first: ``aten::addmm 12%``."""
    named = [
        (one["part"].removeprefix("host: "), one["share"]) for one in group["path"] if one["part"].startswith("host: ")
    ]
    known = [(name, share) for name, share in named if not name.startswith("code of ") and share >= LEAST_SHOWN]
    return [f"{phrases.cut(name, 40)} {text.percent(share)}" for name, share in known[:OPERATORS_SHOWN]]


def levers(group: Group) -> list[tuple[str, str, str]]:
    """The levers to try: name, expected gain, reason."""
    return [(one["lever"], gain(one["gain"]), one["why"]) for one in group["levers"][:LEVERS_SHOWN]]


def cut_out(record: Record) -> str:
    """How iterations were made out, how sure that is, and what else could have been chosen."""
    made = record["iterations"]
    name = f" {made['name']}" if made["name"] else ""
    how = (
        ""
        if made["by"] == "whole" or not made["count"]
        else f"Iterations by {phrases.BY.get(made['by'], made['by'])}{name}. "
    )
    words = f"{how}{made['why']}"
    words = words if words.endswith(".") else f"{words}."
    if made["between_ns"]:
        total = made["inside_ns"] + made["between_ns"]
        words += (
            f" {phrases.time(made['between_ns'])} ({phrases.share(made['between_ns'], total)}) lie between iterations."
        )
    others = [_other(one) for one in made["others"] if one["by"] != made["by"] or one["name"] != made["name"]]
    words += f" Also possible: {text.cut(others)}." if others else ""
    alike = [one["count"] for one in made["others"] if one["by"] == made["by"] and one["name"] == made["name"]]
    if alike:
        counts = " or ".join(f"{count:,}" for count in alike)
        words += (
            f" The same way could also give {counts} iterations. No option chooses among these: mark an iteration with "
            "a range (NVTX, record_function) and give --range NAME, or give an interval with --between FROM TO."
        )
    return words


def health(record: Record, *levels: str) -> list[tuple[str, str]]:
    """What must be known of the recording and of its iterations, the gravest first: level and sentence."""
    first = without_device(record)
    lines = [(one["level"], one["text"]) for one in record["health"] if one["text"] != first]
    ranked = sorted([*lines, *_of_iterations(record)], key=lambda one: LEVELS.index(one[0]))
    return [one for one in ranked if not levels or one[0] in levels]


def _of_iterations(record: Record) -> list[tuple[str, str]]:
    """What of the iterations decides whether the answer holds."""
    made, doubts = record["iterations"], list[str]()
    if made["count"] and made["by"] != "whole" and made["certainty"] < SURE:
        doubts.append(f"It is not sure what an iteration is (certainty {made['certainty']:.0%}); {CHOOSE}.")
    total = made["inside_ns"] + made["between_ns"]
    if made["by"] not in ("whole", "interval") and total and made["between_ns"] > MUCH_BETWEEN * total:
        doubts.append(
            f"{phrases.share(made['between_ns'], total)} of the time ({phrases.time(made['between_ns'])}) lie between "
            "iterations and are in none of these tables."
        )
    for group in record["groups"]:
        low, high = _most_of(group["lengths_ns"])
        if low and high > WIDE * low:
            which = "Iterations" if len(record["groups"]) == 1 else f"{group['label']}: iterations"
            doubts.append(
                f"{which} take from {phrases.time(low)} to {phrases.time(high)}, nine tenths of them; the tables are "
                "of one between."
            )
    group = main_group(record)
    timeline = (group["timeline"] if group else None) or {"path": [], "length": 0}
    drawn = max((end for _, end, _ in timeline.get("path", ())), default=0)
    if 0 < drawn < DRAWN * timeline["length"]:
        doubts.append(
            f"The picture of an iteration marks the critical path in its first {phrases.time(drawn)} of "
            f"{phrases.time(timeline['length'])} only; the tables have all of it."
        )
    return [("warning", words) for words in doubts]


def _most_of(lengths: Sequence[float]) -> tuple[float, float]:
    """The lengths between which nine tenths lie; zeros where there are too few to say."""
    ordered, n = sorted(lengths), len(lengths)
    return (ordered[int(0.05 * (n - 1))], ordered[math.ceil(0.95 * (n - 1))]) if n >= FEWEST else (0.0, 0.0)


def by_kind(group: Group) -> list[dict[str, Any]]:
    """Layers or nodes of a group, summed by their type; nothing where that is no shorter."""
    kinds: dict[str, dict[str, Any]] = {}
    for one in group["layers"]:
        total = kinds.setdefault(one["kind"], {"kind": one["kind"], "count": 0.0, "ns": 0.0})
        total["count"] += one["count"]
        total["ns"] += one["ns"]
    return list(kinds.values()) if len(kinds) < len(group["layers"]) else []


def origin(record: Record) -> str:
    """What the file is: its form, its recorder and its size."""
    source = record["source"]
    form, tool = phrases.FORMATS.get(source["format"], source["format"]), source["tool"] or ""
    known = form.startswith(tool) or tool.startswith(form)
    made = max(form, tool, key=len) if known else f"{form} ({tool})"
    return f"{made}, {_size(source['bytes'])}"


def _other(one: Mapping[str, Any]) -> str:
    name = f" {one['name']}" if one["name"] else ""
    option = f" (--{one['by']})" if one["by"] in ("step", "graph", "period", "whole", "range") else ""
    return f"{text.plural(one['count'], 'iteration')} by {phrases.BY.get(one['by'], one['by'])}{name}{option}"


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{text.number(count / size)} {unit}"
    return text.plural(count, "byte")
