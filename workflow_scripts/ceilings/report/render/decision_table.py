"""The decision table: a row a device and model, its cells as texts that Markdown and the page both show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.advice import NOTHING, PROCESSES, Advice
from ceilings.report.analysis.decision import Decision, judged_latency, rate
from ceilings.report.analysis.findings.operating import cost_per_million
from ceilings.report.analysis.measured import Cell
from ceilings.report.render.prediction_section import gain


@dataclass(frozen=True)
class Entry:
    """One cell of the table.

    Attributes:
        value: What a reader looks for: a number with its unit, or a word.
        what: Of which configuration; empty where it is no cell's.
        detail: The rest.
        cell: Name of the cell that it is about; empty where it is about none.
    """

    heading: str
    value: str
    what: str = ""
    detail: str = ""
    cell: str = ""

    def __str__(self) -> str:
        what = f"`{self.what}`" if self.what else ""
        value = f"**{self.value}**" if self.cell else self.value
        return " ".join(filter(None, (value, what, f"({self.detail})" if self.detail else "")))


@dataclass(frozen=True)
class Row:
    """A device and a model with their entries."""

    device: str
    model: str
    entries: tuple[Entry, ...]


def rows(decisions: Sequence[Decision], advice: Sequence[Advice] = ()) -> list[Row]:
    """Rows with the same columns each: what no row has is left out."""
    first: dict[tuple[str, str], Advice] = {}
    for one in sorted(advice, key=lambda one: bool(one.missing)):  # what can be tried here, then the largest gain
        first.setdefault((one.device, one.model), one)
    made = [Row(one.device, one.model, tuple(_entries(one, first.get((one.device, one.model))))) for one in decisions]
    used = dict.fromkeys(entry.heading for row in made for entry in row.entries if entry.value)
    return [Row(row.device, row.model, tuple(entry for entry in row.entries if entry.heading in used)) for row in made]


def markdown(shown: Sequence[Row]) -> str:
    """The table."""
    headings = ["model, device", *(entry.heading for entry in shown[0].entries)]
    lines = [
        [f"**{row.model}**, `{row.device}`", *(str(entry) if entry.value else "none" for entry in row.entries)]
        for row in shown
    ]
    return text.table(lines, headings, "l" * len(headings))


def _entries(one: Decision, advice: Advice | None) -> list[Entry]:
    fastest, queued = one.fastest, one.throughput
    p99 = fastest.row["p99_ms"]
    entries = [
        _entry(
            "lowest latency",
            f"{text.number(fastest.p50.estimate)} ms",
            fastest,
            f"p50; p99 {text.number(p99)} ms" if pd.notna(p99) else "p50",
        ),
        _entry("highest throughput", f"{text.number(rate(queued))}/s", queued),
    ]
    if one.limit_ms is not None:
        heading = f"best within {text.number(one.limit_ms)} ms"
        if one.within is None:
            entries.append(Entry(heading, "no cell"))
        else:
            name, latency = judged_latency(one.within)
            detail = f"{name} {text.number(latency)} ms"
            entries.append(_entry(heading, f"{text.number(rate(one.within))}/s", one.within, detail))
    cost = cost_per_million(one.cheapest) if one.cheapest else None
    entries.append(
        _entry("cheapest million", text.number(cost.estimate), one.cheapest)
        if cost and one.cheapest
        else Entry("cheapest million", "")
    )
    entries.append(Entry("bound by", one.bound.name, detail=one.bound.proof))
    entries.append(Entry("next lever", advice.change, detail=expected(advice)) if advice else Entry("next lever", ""))
    entries.append(Entry("confidence", one.confidence.level, detail=one.confidence.why))
    return entries


def _entry(heading: str, value: str, cell: Cell, detail: str = "") -> Entry:
    return Entry(heading, value, f"{cell.label} {cell.shape}", detail, cell.name)


def expected(advice: Advice) -> str:
    """``expected 1.2 to 1.5× faster``, of bounds alone ``possible: ...``; empty where nothing changes."""
    if advice.lever in (NOTHING, PROCESSES):
        return ""
    word = "possible, no measurement near it:" if advice.ground == "bounds" else "expected"
    return f"{word} {gain(advice)}{' per inference' if advice.per_inference else ''}"


def would_decide(decisions: Sequence[Decision]) -> str:
    """One line: the captures that would say what bounds the cells of which nothing does; empty where all is known."""
    entries = list(dict.fromkeys(one.bound.would_decide for one in decisions if one.bound.would_decide))
    return (
        f"Not measured: what bounds it. To measure it, add {text.cut((f'`{e}`' for e in entries), 2)}."
        if entries
        else ""
    )
