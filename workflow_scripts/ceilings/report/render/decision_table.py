"""The decision table: a row a device and model, its cells as texts that Markdown and the page both show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.advice import NOTHING, PROCESSES, Advice
from ceilings.report.analysis.decision import Decision, judged_latency, rate, undecidable
from ceilings.report.analysis.findings.operating import cost_per_million
from ceilings.report.analysis.measured import Cell, Measured
from ceilings.report.render.prediction_section import gain, speedup


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
    first = _first(advice)
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
            one,
            fastest,
            f"{_iteration(fastest)}{f'p99 {text.number(p99)} ms' if pd.notna(p99) else 'p50'}",
        ),
        _entry("highest throughput", _rate(queued), one, queued, _of_requests(queued)),
    ]
    if one.limit_ms is not None:
        heading = f"best within {text.number(one.limit_ms)} ms"
        if one.within is None:
            entries.append(Entry(heading, "no cell"))
        else:
            name, latency = judged_latency(one.within)
            detail = f"{name} {text.number(latency)} ms"
            entries.append(_entry(heading, _rate(one.within), one, one.within, detail))
    cost = cost_per_million(one.cheapest) if one.cheapest else None
    entries.append(
        _entry("lowest cost per million", text.number(cost.estimate), one, one.cheapest)
        if cost and one.cheapest
        else Entry("lowest cost per million", "")
    )
    entries.append(Entry("bound by", one.bound.name, detail=one.bound.proof))
    entries.append(Entry("next lever", advice.short, detail=expected(advice)) if advice else Entry("next lever", ""))
    entries.append(Entry("confidence", one.confidence.level, detail=one.confidence.short))
    return entries


def _entry(heading: str, value: str, one: Decision, cell: Cell, detail: str = "") -> Entry:
    doubt = one.doubts.get(cell.configuration)
    detail = "; ".join(filter(None, (detail, doubt.short if doubt else "")))
    return Entry(heading, value, f"{cell.label} {cell.shape}", detail, cell.name)


def _iteration(cell: Cell) -> str:
    """What the latency of a generating cell is of, before its percentile; empty of every other."""
    return f"{cell.per.strip()}, " if cell.per else ""


def _of_requests(cell: Cell) -> str:
    """What the rate of a generating cell is of, and that of its whole requests; empty of every other."""
    whole = cell.row.get("total_tokens_per_s")
    if cell.phase != "decode" or whole is None or pd.isna(whole):
        return ""
    return f"decode steps; {text.number(whole)}/s in whole requests"


def _rate(cell: Cell) -> str:
    return f"{text.number(rate(cell))}{' tokens' if cell.phase else ''}/s"


def expected(advice: Advice) -> str:
    """The speed-up to expect in a few words; empty where nothing changes."""
    if advice.lever in (NOTHING, PROCESSES):
        return ""
    return f"{speedup(advice)}{'; not possible here yet' if advice.missing else ''}"


def reasons(decisions: Sequence[Decision], advice: Sequence[Advice]) -> list[str]:
    """A line a row with what its cells have no room for: the change and why, the confidence, doubts about answers."""
    first = _first(advice)
    lines = []
    for one in decisions:
        parts = [f"**{one.model}** on `{one.device}`:", *_next(first.get((one.device, one.model)))]
        parts.append(f"Confidence {one.confidence.level}: {one.confidence.why}.")
        if one.as_high:
            labels = (f"{cell.label} {cell.shape}" for cell in one.as_high)
            parts.append(f"The throughput of {text.cut(labels, 2)} may be as high.")
        if one.within and (percentile := judged_latency(one.within)[0]) != "p99":
            parts.append(f"The limit is held against the {percentile}: there are too few iterations for a p99.")
        if one.doubts:
            parts.append(f"**Before you deploy**: {'; '.join(doubt.why for doubt in one.doubts.values())}.")
        if one.sound:
            fastest, queued = one.sound
            parts.append(
                f"Without what loses quality: {text.number(fastest.p50.estimate)} ms ({fastest.label} {fastest.shape}) "
                f"and {_rate(queued)} ({queued.label} {queued.shape})."
            )
        elif any(doubt.lost for doubt in one.doubts.values()):
            parts.append("No measured configuration keeps the quality.")
        lines.append(" ".join(parts))
    return lines


def _next(advice: Advice | None) -> list[str]:
    """The next lever in sentences."""
    if advice is None:
        return []
    if advice.lever == NOTHING:
        return [f"{advice.change[:1].upper()}{advice.change[1:]}. {advice.because}"]
    if advice.lever == PROCESSES:
        return [f"Next: {advice.change}. {advice.because}"]
    ends = f"{gain(advice)}{advice.cell.per_unit if advice.per_inference else ''}"
    lines = [f"Next: {advice.change}. Against {advice.cell.label} {advice.cell.shape}: {ends}. {advice.because}"]
    return [*lines, f"Not possible here yet: {advice.missing}."] if advice.missing else lines


def _first(advice: Sequence[Advice]) -> dict[tuple[str, str], Advice]:
    """The advice of each device and model: what can be tried here, then the largest gain."""
    first: dict[tuple[str, str], Advice] = {}
    for one in sorted(advice, key=lambda one: bool(one.missing)):
        first.setdefault((one.device, one.model), one)
    return first


def all_failed(measured: Measured) -> str:
    """One line on the models and devices that have no row; empty where every one has."""
    names = [f"{model} on `{device}`" for device, model in undecidable(measured)]
    return f"**Every cell failed** of {text.cut(names, 3)}: see Not run." if names else ""


def would_decide(decisions: Sequence[Decision]) -> str:
    """One line: the captures that would say what bounds the cells of which nothing does; empty where all is known."""
    entries = list(dict.fromkeys(one.bound.would_decide for one in decisions if one.bound.would_decide))
    return (
        f"Not measured: what bounds it. To measure it, add {text.cut((f'`{e}`' for e in entries), 2)}."
        if entries
        else ""
    )
