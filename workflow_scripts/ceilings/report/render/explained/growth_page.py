"""Two explained traces side by side, as Markdown: what grew, what is new, what is gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ceilings import foreign
from ceilings.report import text
from ceilings.report.analysis.growth import IDLE, Growth, Share, cautions, growths, unpaired
from ceilings.report.render.explained import answer, phrases

Record = Mapping[str, Any]

MOST = 10
"""Kernels and calls that are shown."""


def page(before: Record, after: Record) -> str:
    """The page.

    Args:
        before, after: Records of kind ``explanation``.
    """
    return foreign.markdown("\n\n".join(filter(None, _page(before, after))) + "\n")


def headline(before: Record, after: Record) -> str:
    """The answer in one line: how much longer an iteration is, the part that grew most, the verdicts."""
    compared = growths(before, after)
    if not compared:
        return "Nothing can be compared: one of the two has no iterations."
    first = compared[0]
    words = [f"{_lengths(first)}, {_verdict(first)}"]
    parts, names = (first.path, phrases.PATH) if first.path else (first.device, phrases.CLASSES)
    if parts and first.verdict in ("longer", "shorter"):
        words.append(f"most of it: {_named(parts[0], names)} {phrases.signed(parts[0].growth, plus=True)}")
    sides = [group["verdict"]["name"] if group["verdict"] else "no verdict" for group in (first.before, first.after)]
    words.append(f"{sides[0]} before and after" if sides[0] == sides[1] else f"{sides[0]} before, {sides[1]} after")
    return f"{'; '.join(words)}."


def _page(before: Record, after: Record) -> Iterator[str]:
    # Compared as they are, since names that pages cut may differ in their ends only; marked where they are shown.
    shown = [foreign.marked({**record, "groups": record.get("groups", [])}) for record in (before, after)]
    yield f"# `{shown[1]['name']}` against `{shown[0]['name']}`"
    for side, record in zip(("before", "after"), shown, strict=True):
        if "failure" in record:
            yield f"Nothing can be compared: {side}, `{record['name']}`, cannot be explained: {record['failure']}"
            return
    yield f"**{headline(before, after)}**"
    yield "\n".join(f"> **Warning**: {foreign.marked(words)}  " for words in cautions(before, after))
    sides = zip(("before", "after"), shown, strict=True)
    yield text.table([_side(*side) for side in sides], ("", "trace", "format", "answer"))
    compared = growths(before, after)
    for number, growth in enumerate(compared):
        several = f": the group {foreign.marked(growth.after['label'])}" if len(compared) > 1 else ""
        yield f"## What grew{several}"
        yield f"{_lengths(growth)}, {_verdict(growth)}." if number else _METHOD
        yield from _sections(growth)
    for side, labels in zip(("before", "after"), unpaired(before, after), strict=True):
        yield f"Groups of iterations {side} only: {text.cut(foreign.marked(labels))}." if labels else ""


def _sections(growth: Growth) -> Iterator[str]:
    for title, shares, names in (
        ("the critical path", growth.path, phrases.PATH),
        ("the host's threads", growth.host, phrases.HOST),
        ("the devices", growth.device, phrases.CLASSES),
    ):
        yield f"### Parts of {title}"
        yield _parts(shares, names, growth) if shares else "One of the two files does not say."
    for title, shares in (("Kernels", growth.kernels), ("CUDA calls", growth.calls)):
        yield f"### {title}"
        yield _counts(shares)


def _parts(shares: Sequence[Share], names: Mapping[str, str], growth: Growth) -> str:
    length = growth.before["length_ns"]["median"]
    rows = [
        [
            _named(one, names),
            *(phrases.time(ns) for ns in (one.before, one.after)),
            phrases.signed(one.growth, plus=True),
            phrases.signed_share(one.growth, length),
        ]
        for one in shares
    ]
    headers = ("part", "before", "after", "growth", "of the iteration before")
    return text.table(rows, headers, "lrrrr")


def _counts(shares: Sequence[Share]) -> str:
    rows = [
        [
            f"`{foreign.marked(phrases.cut(one.name))}`",
            one.change,
            *("" if count is None else phrases.count(count) for count in one.counts),
            *("" if ns is None else phrases.time(ns) for ns in (one.before, one.after)),
            phrases.signed(one.growth, plus=True),
        ]
        for one in shares[:MOST]
    ]
    if not rows:
        return "None came, went or changed by 2% of an iteration, or one of the two files does not say."
    headers = ("name", "change", "count before", "count after", "before", "after", "growth")
    more = f"\n\n{len(shares) - MOST} more changed." if len(shares) > MOST else ""
    return f"{text.table(rows, headers, 'llrrrrr')}{more}"


def _side(side: str, record: Record) -> list[str]:
    return [side, f"`{record['name']}`", answer.origin(record), answer.headline(record)]


def _lengths(growth: Growth) -> str:
    before, after = (group["length_ns"]["median"] for group in (growth.before, growth.after))
    return f"An iteration takes {phrases.time(after)} instead of {phrases.time(before)}"


def _verdict(growth: Growth) -> str:
    ratio = growth.ratio
    if not ratio.bounded:
        return f"{text.number(ratio.estimate)} times as long, too few iterations to say how sure that is"
    bounds = f"{text.number(ratio.estimate)} times [{text.number(ratio.low)}, {text.number(ratio.high)}]"
    return f"{bounds}, {growth.verdict}"


def _named(share: Share, names: Mapping[str, str]) -> str:
    """A part as pages call it."""
    cause = share.name.removeprefix(IDLE)
    if cause != share.name:
        return f"{IDLE}{phrases.IDLE.get(cause, cause)}"
    return names.get(share.name, share.name)


_METHOD = (
    "Times are of one iteration, medians. The interval of the ratio covers the iterations of these two traces; two "
    "runs of the same program can differ by more."
)
