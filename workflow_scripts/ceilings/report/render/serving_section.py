"""Models behind a server: a table a device and model of what clients wait for, and what was not measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ceilings.report import text
from ceilings.report.analysis.findings.serving_pairs import in_words
from ceilings.report.analysis.measured import Measured, group_by
from ceilings.report.analysis.served import Line, Served, ServedLoads
from ceilings.report.tables.quantities import heading
from ceilings.report.tables.served_quantities import BY_COLUMN, PARTS

MOST_ROWS = 20
"""Of all tables of the summary together."""

MOST_GONE = 4

LEGEND = (
    "A load is a number of clients that each send when they have their answer (closed loop), or a rate of Poisson "
    "arrivals (open loop, latency from the intended send time). The columns of means add up to the client's mean: what "
    "lies beyond the server is serialisation, HTTP or gRPC and network. *grows*: the queue grew, so there is no steady "
    "state and no latency. *short*: the windows ended before the queue had settled, so a latency would look too "
    "low; longer `window_seconds` show it. *disturbed*: the client could not keep up, or counts differ; it carries no "
    "claim. *bare runtime* is empty where over 5% of the requests were in batches of a size "
    "that the study does not measure bare. All loads with their intervals: `tables/serving.csv`."
)


@dataclass(frozen=True)
class Column:
    """One column of the table: its heading, and what it shows of a load."""

    heading: str
    shown: Callable[[Served], str]


def _number(column: str) -> Column:
    def shown(one: Served) -> str:
        value = one.known(column)
        return "" if value is None else text.number(value)

    return Column(heading(BY_COLUMN[column]), shown)


def _p50(one: Served) -> str:
    return text.interval(one.p50) if one.settled else str(one.row["state"])


def _p99(one: Served) -> str:
    value = one.known("p99_ms")
    return "" if value is None or not one.settled else text.number(value)


SMALL = ("input_ms", "output_ms", "rest_ms")
"""Parts of a request that are one column where there is little room."""


def _small(one: Served) -> str:
    values = [one.known(column) for column in SMALL]
    return "" if None in values else text.number(sum(value or 0.0 for value in values))


def _columns(whole: bool) -> tuple[Column, ...]:
    parts = [_number(part.column) for part in PARTS if whole or part.column not in SMALL]
    return (
        Column("p50, ms [95%]", _p50),
        Column("p99, ms", _p99),
        Column("requests/s", lambda one: text.number(one.throughput.estimate)),
        *parts,
        *([] if whole else [Column("input, output, rest, ms", _small)]),
        _number("bare_ms"),
        _number("batch_mean"),
        Column("", lambda one: "disturbed" if one.row["flagged"] else ""),
    )


def served(measured: Measured, whole: bool = False) -> str:
    """The section; empty where no deployment was asked for.

    Args:
        whole: Every load of every deployment; else of each cell the lightest and the heaviest, as far as there is room.
    """
    table = measured.tables.serving
    if table.empty:
        return ""
    loads = ServedLoads(measured)
    parts = ["## Serving"]
    rows = 0
    by_panel = group_by(loads.lines, lambda line: (line.head.model, line.head.device))
    for (model, device), lines in by_panel.items():
        most = len(table) if whole else max(1, MOST_ROWS // len(by_panel))
        shown = [(line, one) for line in lines for one in line.loads] if whole else _chosen(lines, most)
        rows += len(shown)
        parts += [f"### {model} behind a server on `{device}`", _table(shown, _columns(whole))]
    if loads.lines:
        parts.append(LEGEND)
        count = sum(len(line.loads) for line in loads.lines)
        parts += [f"{rows} of {count} loads; all are in `tables/serving.csv`."] if rows < count else []
    return "\n\n".join([*parts, *_gone(measured, whole)])


def _chosen(lines: Sequence[Line], most: int) -> list[tuple[Line, Served]]:
    """As many loads of each cell as there is room for, of every cell as many."""
    for count in (3, 2, 1):
        shown = [(line, one) for line in lines for one in _ends(line)[:count]]
        if len(shown) <= most:
            break
    return shown[:most]


def _ends(line: Line) -> list[Served]:
    """The lightest load, the heaviest closed loop and the highest rate that is sustained."""
    chosen = [line.lightest, *line.closed[-1:], *[one for one in line.open if one.settled][-1:]]
    kept = list(dict.fromkeys(one for one in chosen if one is not None))
    return kept or list(line.loads[:1])


def _table(shown: Sequence[tuple[Line, Served]], columns: Sequence[Column]) -> str:
    rows: list[list[str]] = []
    before: Line | None = None
    for line, one in shown:
        same = before is not None and before.head.deployment == one.deployment
        head = ["" if same else _deployment(one), "" if line is before else one.label, one.load]
        rows.append([*head, *(column.shown(one) for column in columns)])
        before = line
    headers = ["deployment", "served", "load", *(column.heading for column in columns)]
    used = [i for i in range(len(headers)) if i < 4 or any(row[i] for row in rows)]
    align = "llr" + "r" * (len(columns) - 1) + "l"
    return text.table(
        [[row[i] for i in used] for row in rows], [headers[i] for i in used], "".join(align[i] for i in used)
    )


def _deployment(one: Served) -> str:
    """A deployment's name and what it is, in short."""
    row = one.row
    words = [str(row["server"]), str(row["transport"])]
    words += [f"batching {in_words(one)}"] if in_words(one) != "off" else []
    words += [f"{text.number(row['round_trip_ms'])} ms round trip"] if row["round_trip_ms"] else []
    words += [f"{row['shared_memory']} shared memory"] if row["shared_memory"] != "none" else []
    words += [f"{row['instances']} instances"] if (one.known("instances") or 1) > 1 else []
    return f"{one.deployment} ({', '.join(words)})"


def _gone(measured: Measured, whole: bool) -> list[str]:
    """What was not measured and why, a line a reason."""
    rows = measured.tables.serving.to_dict("records")
    gone = group_by([row for row in rows if row["status"] != "ok"], lambda row: (row["status"], row["reason"]))
    lines = []
    for (status, reason), same in gone.items():
        names = text.cut(dict.fromkeys(str(row["deployment"]) for row in same), 3)
        lines.append(f"- {names}: {status}, {reason}{_remedy(same)}.")
    more = len(lines) - MOST_GONE
    if not whole and more > 0:
        lines = [*lines[:MOST_GONE], f"- {more} more in [the lab note](engineering_observations.md#serving)."]
    return ["\n".join(lines)] if lines else []


def _remedy(same: Sequence[Mapping[str, Any]]) -> str:
    """What mends deployments that were not measured for one reason, in brackets; of failures in code."""
    if same[0]["status"] == "failed":
        folders = dict.fromkeys(f"results/serving/{row['device']}/{row['deployment']}" for row in same)
        log = f"see `{same[0]['log']}`, " if isinstance(same[0]["log"], str) else ""
        return f" ({log}mend the cause, then `rm -r {' '.join(folders)}` and run again)"
    remedies = dict.fromkeys(row["remedy"] for row in same if isinstance(row["remedy"], str))
    return f" ({'; '.join(remedies)})" if remedies else ""
