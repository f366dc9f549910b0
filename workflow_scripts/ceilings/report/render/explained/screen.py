"""An explanation on a terminal: one screen of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from ceilings import foreign
from ceilings.report import text
from ceilings.report.render.explained import answer, phrases

Record = Mapping[str, Any]
Group = Mapping[str, Any]

WIDTH, COLUMN = 100, 48
"""Columns of the screen, and of a half of it; four lie between the halves."""

ROWS, COSTLY = 6, 5
"""Lines of the parts, and of what takes most."""

WARNINGS = 4
BAR = 5

BOLD, RED, YELLOW, PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[0m"


def screen(record: Record, colours: bool) -> str:
    """The text, with its last line break.

    Args:
        record: Of kind ``explanation``.
        colours: Whether the terminal takes them.
    """
    return "\n".join(_Screen(colours).lines(record)) + "\n"


class _Screen:
    def __init__(self, colours: bool) -> None:
        self.colours = colours

    def lines(self, record: Record) -> Iterator[str]:
        group = answer.main_group(record)
        yield foreign.one_line(f"{record['name']}: {answer.origin(record)}", WIDTH)
        yield from self._wrapped(answer.headline(record), BOLD)
        if remark := answer.recorder(record):
            yield from self._wrapped(remark)
        warnings = answer.health(record, "error", "warning")
        for level, words in warnings[:WARNINGS]:
            yield from self._wrapped(f"{level}: {words}", RED if level == "error" else YELLOW)
        if len(warnings) > WARNINGS:
            yield f"{len(warnings) - WARNINGS} more warnings are on the page"
        if group is None:
            for words in (answer.cut_out(record), *(words for _, words in answer.health(record, "note"))):
                yield from self._wrapped(words)
            return
        length = group["length_ns"]["median"]
        yield ""
        yield from self._halves(("Critical path", _path(group)), ("Device", _device(group)))
        operators = answer.operators(group)
        if operators:
            yield from self._wrapped(f"Host code on the path: {', '.join(operators)}")
            yield ""
        if not group["shares"] and not group["devices"]:
            yield from self._halves(("Parts of an iteration", _parts(group)))
        for title, values, name in (
            ("Kernels of a mean iteration", group["kernels"], "short"),
            ("CUDA calls of a mean iteration", group["calls"], "name"),
            ("Operators of an iteration", answer.by_kind(group), "kind"),
            ("Layers of an iteration", group["layers"], "name"),
        ):
            if values:
                yield self._heading(f"{title:<68}{'count':>8} {'time':>8} {'share':>5} {'on path':>8}")
                yield from _costly(values, name, length)
                yield ""
        if any(one["ns"] is not None for one in group["what_if"]):
            yield self._heading("What if")
            yield from (_what_if(one) for one in group["what_if"] if one["ns"] is not None)
            yield ""
        if group["levers"]:
            yield self._heading("What to try")
            for number, (name, gain, why) in enumerate(answer.levers(group), 1):
                yield from self._wrapped(f"{number}. {name}{gain}: {why}")
            yield ""
        yield from self._wrapped(answer.cut_out(record))
        for other in [one for one in record["groups"] if one is not group][:WARNINGS]:
            verdict = f", {other['verdict']['name']}" if other["verdict"] else ""
            words = (
                f"{text.plural(other['count'], 'iteration')} of {phrases.time(other['length_ns']['median'])}{verdict}"
            )
            yield foreign.one_line(f"Group {other['label']}: {words}", WIDTH)

    def _halves(self, *lists: tuple[str, Sequence[str]]) -> Iterator[str]:
        """Two lists beside each other; one without lines leaves its half to the other."""
        kept = [(title, rows) for title, rows in lists if rows]
        if not kept:
            return
        titles = [self._heading(title) + " " * (COLUMN - len(title)) for title, _ in kept]
        yield "    ".join(titles).rstrip()
        for line in zip_longest(*(rows for _, rows in kept), fillvalue=""):
            yield "    ".join(row.ljust(COLUMN) for row in line).rstrip()
        yield ""

    def _heading(self, words: str) -> str:
        return self._painted(words, BOLD)

    def _wrapped(self, words: str, colour: str = "") -> Iterator[str]:
        for line in textwrap.wrap(foreign.one_line(words, 5 * WIDTH), WIDTH):
            yield self._painted(line, colour)

    def _painted(self, words: str, colour: str) -> str:
        return f"{colour}{words}{PLAIN}" if self.colours and colour else words


def _path(group: Group) -> list[str]:
    length = group["length_ns"]["median"]
    shares = group["shares"] or {}
    parts = [(phrases.PATH.get(name, name), share * length) for name, share in shares.items()]
    return [_bar(name, ns, length) for name, ns in _ranked(parts)]


def _parts(group: Group) -> list[str]:
    """What a program says of itself."""
    length = group["length_ns"]["median"]
    return [_bar(name, ns, length) for name, ns in _ranked([(one["part"], one["ns"]) for one in group["parts"]])]


def _device(group: Group) -> list[str]:
    """The device that works most; idle causes behind the classes."""
    if not group["devices"]:
        return []
    length = group["length_ns"]["median"]
    device = max(group["devices"], key=lambda one: one["busy_ns"]["median"])
    idle = [(f"idle: {phrases.IDLE.get(name, name)}", value["median"]) for name, value in device["idle"].items()]
    idle.append(("idle: not explained", device["idle_unexplained_ns"]["median"]))
    work = [(phrases.CLASSES.get(name, name), value["median"]) for name, value in device["classes"].items()]
    return [_bar(name, ns, length) for name, ns in _ranked([*work, *idle])]


def _ranked(parts: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The largest; what does not fit as one line, so that they still sum up."""
    ranked = sorted((part for part in parts if part[1] > 0), key=lambda part: -part[1])
    if len(ranked) <= ROWS:
        return ranked
    rest = ranked[ROWS - 1 :]
    return [*ranked[: ROWS - 1], (f"{len(rest)} others", sum(ns for _, ns in rest))]


def _bar(name: str, ns: float, length: float) -> str:
    filled = "█" * min(BAR, round(BAR * ns / length))
    return f"{_fit(name, 27)} {phrases.time(ns):>8} {phrases.share(ns, length):>5} {filled}".rstrip()


def _costly(values: Sequence[Mapping[str, Any]], name: str, length: float) -> list[str]:
    """What takes most, a line each."""
    ranked = sorted(values, key=lambda one: -one["ns"])[:COSTLY]
    return [
        f"{_fit(phrases.cut(one[name], 68), 68)}{phrases.count(one['count']) + '×':>8} {phrases.time(one['ns']):>8} "
        f"{phrases.share(one['ns'], length):>5} {_on_path(one, length):>8}".rstrip()
        for one in ranked
    ]


def _on_path(one: Mapping[str, Any], length: float) -> str:
    return "" if one.get("path_ns") is None else phrases.share(one["path_ns"], length)


def _what_if(one: Mapping[str, Any]) -> str:
    change = phrases.CHANGES.get(one["change"], one["change"])
    return f"{_fit(change, 52)} {phrases.time(one['ns']):>10} {phrases.gain(one['gain']):>7}"


def _fit(words: str, width: int) -> str:
    return foreign.one_line(words, width).ljust(width)
