"""The answer of an explanation in sentences: what bounds an iteration, what keeps the device idle, what would help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ceilings.report import text
from ceilings.report.render.explained import phrases

Record = Mapping[str, Any]
Group = Mapping[str, Any]

LEVERS_SHOWN = 3
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
    verdict = group["verdict"]
    bound = phrases.BOUND_BY.get(verdict["name"], verdict["name"]) if verdict else None
    first = f"Bound by {bound}" if bound else "What bounds it is not in this file"
    return f"{first}: {'; '.join([iterations(record, group), *busy(group), *lever(group)])}."


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
    """What the verdict means and what it takes: a share of the path; without a path, how many iterations have it."""
    verdict = group["verdict"]
    if not verdict:
        return ""
    name = verdict["name"]
    words = f"{name[0].upper()}{name[1:]}: {verdict['meaning']}."
    least = text.percent(verdict["majority"])
    if name == "mixed":
        return words
    return (
        f"{words} That is {least} of the path or more." if group["shares"] else f"{words} In {least} of the iterations."
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
    others = [_other(one) for one in made["others"]]
    return f"{words} Also possible: {text.cut(others)}." if others else words


def health(record: Record, *levels: str) -> list[tuple[str, str]]:
    """What the health check says, the gravest first: level and sentence."""
    ranked = sorted(record["health"], key=lambda one: LEVELS.index(one["level"]))
    return [(one["level"], one["text"]) for one in ranked if not levels or one["level"] in levels]


def origin(record: Record) -> str:
    """What the file is: its form, its recorder and its size."""
    source = record["source"]
    form, tool = phrases.FORMATS.get(source["format"], source["format"]), source["tool"] or ""
    known = form.startswith(tool) or tool.startswith(form)
    made = max(form, tool, key=len) if known else f"{form} ({tool})"
    return f"{made}, {_size(source['bytes'])}"


def _other(one: Mapping[str, Any]) -> str:
    name = f" {one['name']}" if one["name"] else ""
    return f"{text.plural(one['count'], 'iteration')} by {phrases.BY.get(one['by'], one['by'])}{name}"


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{text.number(count / size)} {unit}"
    return text.plural(count, "byte")
