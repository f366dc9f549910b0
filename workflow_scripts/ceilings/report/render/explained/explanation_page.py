"""An explanation as Markdown: the answer first, then what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ceilings import foreign
from ceilings.report import text
from ceilings.report.render.explained import account_tables as tables
from ceilings.report.render.explained import answer, phrases
from ceilings.report.render.explained.account_tables import Table

Record = Mapping[str, Any]
Group = Mapping[str, Any]

OTHERS_SHOWN = 4
"""Groups after the largest that have sections of their own."""

MOST_OF_OTHERS = 5
"""Kernels and calls that are shown of such a group."""


def page(record: Record, picture: str = "") -> str:
    """The page.

    Args:
        record: Of kind ``explanation``.
        picture: Where the picture lies from the page; empty: there is none.
    """
    marked: Record = foreign.marked(record)
    return foreign.markdown("\n\n".join(filter(None, _page(marked, picture))) + "\n")


def _page(record: Record, picture: str) -> Iterator[str]:
    yield f"# Where the time goes: `{record['name']}`"
    if "failure" in record:
        yield f"It cannot be explained: {record['failure']}"
        return
    yield f"**{answer.headline(record)}**"
    yield answer.recorder(record)
    yield "\n".join(
        f"> **{level.capitalize()}**: {words}  " for level, words in answer.health(record, "error", "warning")
    )
    group = answer.main_group(record)
    if group:
        yield levers(group)
        yield (
            f"![Critical path, host and device of an iteration, and one iteration in time]({picture})"
            if picture
            else ""
        )
        yield answer.meaning(group)
    yield from (table.markdown() for table in main_tables(record))
    for other in other_groups(record):
        yield f"## The group {other['label']}"
        yield f"{text.plural(other['count'], 'iteration')}, {phrases.median(other['length_ns'])} each."
        yield levers(other, 3)
        yield from (table.markdown(3) for table in group_tables(other, MOST_OF_OTHERS))
    yield "\n\n".join(["## What was read", *reading(record)])


def main_tables(record: Record) -> list[Table]:
    """The tables of the largest group, those of all groups where there are several, and those of the recording."""
    group = answer.main_group(record)
    several = [tables.groups(record)] if len(record["groups"]) > 1 else []
    return _with_rows([*several, *(_all_of(group) if group else []), tables.devices(record)])


def other_groups(record: Record) -> list[Group]:
    """The groups after the largest that have sections of their own."""
    first = answer.main_group(record)
    others = sorted((one for one in record["groups"] if one is not first), key=lambda one: -one["share"])
    return others[:OTHERS_SHOWN]


def group_tables(group: Group, most: int = tables.MOST) -> list[Table]:
    """The tables of a group that have rows, in the order of a reader's questions."""
    return _with_rows(_all_of(group, most))


def absent(record: Record) -> str:
    """Which tables of the largest group have no rows; empty where all have."""
    group = answer.main_group(record)
    names = [table.title.lower() for table in _all_of(group) if not table.says] if group else []
    return f"Not in this file, or none of it: {text.listed(names)}." if names else ""


def levers(group: Group, level: int = 2) -> str:
    """What to try, the largest first; why there is nothing, where there is none."""
    head = f"{'#' * level} What to try"
    known = answer.levers(group)
    if not known:
        return f"{head}\n\nNothing: no replay of it shows a gain, or nothing can be replayed."
    return "\n".join([head, "", *(f"{k}. **{name}**{gain}: {why}" for k, (name, gain, why) in enumerate(known, 1))])


def reading(record: Record) -> list[str]:
    """What the file is, how iterations were made out, what was counted and what it cannot tell."""
    source = record["source"]
    counted = ", ".join(f"{name} {number:,}" for name, number in source["counts"].items())
    lines = [f"{answer.origin(record)}. {answer.cut_out(record)}"]
    lines += [f"Counted: {counted}."] if counted else []
    lines += filter(None, [absent(record)])
    lines += ["\n".join(["It cannot tell:", "", *(f"- {one}" for one in source["lacks"])])] if source["lacks"] else []
    notes = [words for _, words in answer.health(record, "note")]
    lines += ["\n".join(["Notes:", "", *(f"- {one}" for one in notes)])] if notes else []
    return [*lines, f"SHA-256 of the file: `{source['sha256']}`."]


def _all_of(group: Group, most: int = tables.MOST) -> list[Table]:
    of_itself = tables.of_itself(group)  # then its own parts and operators come first
    return [
        *([tables.parts(group), *_with_rows([tables.operators(group)])] if of_itself else []),
        tables.what_if(group),
        tables.critical_path(group),
        tables.idle(group),
        tables.kernels(group, most),
        tables.calls(group, most),
        tables.layers(group, most),
        tables.busy(group),
        tables.host(group),
        tables.framework(group),
        *([] if of_itself else [tables.parts(group)]),
    ]


def _with_rows(all_: list[Table]) -> list[Table]:
    return [table for table in all_ if table.says]
