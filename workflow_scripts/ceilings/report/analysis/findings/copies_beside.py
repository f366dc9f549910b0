"""Copies beside compute: what three streams gain over one, from which shape on, and what pageable memory costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ceilings.measure.schedules import PAGEABLE, THREE
from ceilings.report import text
from ceilings.report.analysis.findings.finding import MARGIN, Finding
from ceilings.report.analysis.measured import Measured, configuration_label
from ceilings.report.tables.keys import KEY
from ceilings.statistics.pipelining import HOST
from ceilings.statistics.quantiles import Interval
from ceilings.workload.shape import Shape

TOPIC = "Copies beside compute"
CLAIM = "Copies on separate streams beside compute raise the throughput"
SERIES_CLAIM = "From some shape on, copies beside compute raise the throughput"
MEASURE = "throughput of three streams to that of one"

MIB = 1 << 20


def copies_beside(measured: Measured) -> list[Finding]:
    """A finding a cell, and one for the shapes of each model on a runtime: from which one on it pays."""
    rows = measured.tables.overlap
    rows = rows[rows["status"] == "ok"]
    made = [_cell(members) for _, members in rows.groupby(KEY, sort=False)]
    three = rows[rows["schedule"] == THREE]
    for _, members in three.groupby([name for name in KEY if name != "shape"], sort=False):
        if len(members) > 1:
            made.append(_series(members.to_dict("records")))
    return made


def gain_of(row: Mapping[str, Any]) -> Interval | None:
    """The gain of a schedule with its interval; None where one process bounds nothing."""
    if text.absent(row["gain_low"]):
        return None
    return Interval(row["gain_low"], row["gain"], row["gain_high"])


def pays(row: Mapping[str, Any]) -> bool:
    """Whether the whole interval of a gain is above 1, and its estimate beyond what one stream differs from itself."""
    gain = gain_of(row)
    return gain is not None and gain.low > 1 and gain.estimate > 1 + float(row["noise"])


def _cell(members: pd.DataFrame) -> Finding:
    by_name = {row["schedule"]: row for row in members.to_dict("records")}
    row = by_name[THREE]
    name, gain = _name(row), gain_of(row)
    common: dict[str, Any] = {"claim": CLAIM, "subject": name, "measure": MEASURE, "records": _records(row)}
    copied = f"{text.number((row['bytes_in'] + row['bytes_out']) / MIB)} MiB a request"
    if gain is None:
        sentence = f"{name}: three streams do {text.number(row['gain'])}× what one does; undecided, one process."
        common["missing"] = ("protocol: {processes: 3}",)
        return Finding(TOPIC, sentence, (), status="not decidable", **common)
    shown = text.interval(gain, "×")
    if pays(row):
        sentence = (
            f"{name}: three streams do **{shown}** what one stream does ({copied}). {_prediction(row)}{_hidden(row)}"
            f"{_pageable(by_name[PAGEABLE])}"
        )
        brief = f"{name}: copies on separate streams do {text.number(gain.estimate)}× what one stream does."
        return Finding(TOPIC, sentence, (), gain, status="supported", brief=brief, **common)
    if gain.high < 1 and gain.estimate < 1 / (1 + float(row["noise"])):
        sentence = (
            f"{name}: three streams do only **{shown}** what one stream does ({copied}): waits between streams cost "
            f"more than they hide. {_prediction(row)}{_hidden(row)}"
        )
        brief = f"{name}: three streams do only {text.number(gain.estimate)}× what one stream does."
        return Finding(TOPIC, sentence, (), gain, status="refuted", brief=brief, **common)
    if gain.low > 1 / (1 + MARGIN) and gain.high < 1 + MARGIN:
        sentence = f"{name}: three streams do {shown} what one does ({copied}). {_prediction(row)}{_hidden(row)}"
        return Finding(TOPIC, sentence, (), gain, status="refuted", **common)
    sentence = (
        f"{name}: undecided: three streams do {shown} what one does, and one stream differs from itself by up to "
        f"{text.percent(row['noise'])}. {_prediction(row)}"
    )
    common["missing"] = (f"protocol: {{processes: {2 * int(row['processes'])}}}",)
    return Finding(TOPIC, sentence, (), gain, status="not decidable", **common)


def _series(rows: Sequence[Mapping[str, Any]]) -> Finding:
    """From which measured shape on it pays: the smallest with all larger ones."""
    ordered = sorted(rows, key=lambda row: (row["bytes_in"] + row["bytes_out"], Shape.parse(row["shape"])))
    name = f"{configuration_label(ordered[0]['runtime'], ordered[0]['precision'])}, {ordered[0]['model']}"
    common: dict[str, Any] = {
        "claim": SERIES_CLAIM,
        "subject": name,
        "measure": MEASURE,
        "records": tuple(record for row in ordered for record in _records(row)),
    }
    paying = [row for row in ordered if pays(row)]
    listed = ", ".join(f"{row['shape']} {text.number(row['gain'])}×" for row in ordered)
    if any(gain_of(row) is None for row in ordered):
        sentence = f"{name}: from which shape on it pays is undecided, one process ({listed})."
        return Finding(TOPIC, sentence, (), status="not decidable", **common, missing=("protocol: {processes: 3}",))
    if not paying:
        return Finding(
            TOPIC,
            f"{name}: at none of the measured shapes do three streams gain ({listed}).",
            (),
            status="refuted",
            **common,
        )
    first = paying[0]
    after = ordered[ordered.index(first) :]
    exceptions = [row["shape"] for row in after if not pays(row)]
    but = f", but not at {text.listed(exceptions)}" if exceptions else ""
    smallest = "the smallest measured shape" if first is ordered[0] else "the smallest measured shape that gains"
    sentence = (
        f"{name}: copies beside compute pay from {first['shape']} on{but}, {smallest}: "
        f"{text.number((first['bytes_in'] + first['bytes_out']) / MIB)} MiB a request ({listed})."
    )
    return Finding(TOPIC, sentence, (), gain_of(first), status="supported", **common)


def _prediction(row: Mapping[str, Any]) -> str:
    parts = ", ".join(
        f"{words} {text.number(row[f'{part}_ms'])} ms"
        for part, words in (("copy_in", "copies in"), ("compute", "compute"), ("copy_out", "copies out"))
    )
    if row["bound"] == HOST:
        return (
            f"Its parts ({parts}) predict {text.number(row['predicted'])}×, since the host takes "
            f"{text.number(row['host_ms'])} ms to submit a request, longer than any part."
        )
    return f"Its parts ({parts}) predict at most {text.number(row['predicted'])}×; {row['bound']} takes longest."


def _hidden(row: Mapping[str, Any]) -> str:
    if text.absent(row["hidden_share"]):
        return " No capture says how much of the copies is hidden."
    return (
        f" In a capture {text.percent(row['hidden_share'])} of the time of copies lies under kernels of other requests."
    )


def _pageable(row: Mapping[str, Any]) -> str:
    gain = gain_of(row)
    if gain is None:
        return ""
    return (
        f" From pageable memory the same schedule does {text.interval(gain, '×')}: the runtimes here use pinned memory."
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"{configuration_label(row['runtime'], row['precision'])}, {row['model']}, {row['shape']}"


def _records(row: Mapping[str, Any]) -> tuple[str, ...]:
    paths = [row["path"], *([] if text.absent(row["hidden"]) else [row["hidden"]])]
    return tuple(str(path).partition("results/")[2] or str(path) for path in paths)
