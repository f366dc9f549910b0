"""Results of models that generate: a table of decode steps and one of prefills a device and model, best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.baselines import baseline_of, baselines
from ceilings.report.analysis.limiter import limiter
from ceilings.report.analysis.measured import Cell, Measured
from ceilings.report.render.results_table import MOST_TABLES, kept_rows, speedup, table_heading
from ceilings.report.tables.quantities import BY_COLUMN, show, show_interval
from ceilings.workload.generation import Phase

ITERATION = (
    "An iteration of a generating cell is one output token: with g1 in its shape the first one (a prefill), else one "
    "after the first (a decode step). So its p50 is the time to the first token or per output token, and its "
    "throughput is in tokens/s."
)
"""What a reader must know before the first number; shown once a page."""

MOST_ROWS = {"decode": 22, "prefill": 10}
"""Of all tables of a phase together."""

NAMES: dict[Phase, str] = {"decode": "decode, time per output token", "prefill": "prefill, time to the first token"}

LEGEND = (
    "p50 and p99 are of single tokens in the closed loop. TTFT, end to end and tokens/s are of whole requests, one "
    "batch of prompts after the other: tokens/s of one row and of all rows together, the first token included. "
    "Intervals are of the processes' medians; that of tokens/s is that of end to end, as a share. Jitter: "
    "interquartile range of the gaps between a request's tokens. Memory: the highest of the process on the device; of "
    "a CPU, on the host. KV cache: what is held for keys and values. First answer: from the start of the process to "
    "its first token. Same tokens: share of the tokens that are those of FP32 PyTorch. Speed-up: *same* is within the "
    "noise, *undecided* is too noisy to say. Empty: not measured, or too few tokens for a p99."
)

TOKENS_PER_JOULE = "Tokens/J: ± what the counter of energy leaves open."
"""Of devices that count energy."""


@dataclass(frozen=True)
class Column:
    """One column of the tables: its heading, and what it shows of a cell."""

    heading: str
    shown: Callable[[Cell], str]


def _quantity(heading: str, name: str, scale: float = 1.0) -> Column:
    """A column of the table of cells; empty where the cell, or the tables, have none."""

    def shown(cell: Cell) -> str:
        value = cell.row.get(name)
        return "" if value is None or pd.isna(value) else text.number(value * scale)

    return Column(heading, shown)


def _interval(heading: str, name: str) -> Column:
    """As ``_quantity``, with the interval that the spread of the processes gives."""

    def shown(cell: Cell) -> str:
        return show_interval(BY_COLUMN[name], cell.row) if pd.notna(cell.row.get(name)) else ""

    return Column(f"{heading} [95%]", shown)


def _percent(heading: str, name: str) -> Column:
    def shown(cell: Cell) -> str:
        value = cell.row.get(name)
        return "" if value is None or pd.isna(value) else text.percent(value)

    return Column(heading, shown)


def _per_joule(cell: Cell) -> str:
    value, error = (cell.row.get(name) for name in ("tokens_per_j", "token_j_error"))
    if value is None or pd.isna(value):
        return ""
    return text.number(value) + (f" ±{text.percent(error)}" if error is not None and pd.notna(error) else "")


def _p99(cell: Cell) -> str:
    return show(BY_COLUMN["p99_ms"], cell.row) if pd.notna(cell.row["p99_ms"]) else ""


def _memory(cell: Cell) -> str:
    device, host = cell.row["peak_device_mb"], cell.row["peak_rss_mb"]
    return text.number(device if pd.notna(device) else host)


P50 = Column("p50, ms [95%]", lambda cell: text.interval(cell.p50))
P99 = Column("p99, ms", _p99)
MEMORY = Column("memory, MB", _memory)
CACHE = _quantity("KV cache, MB", "cache_mb")
FIRST = _quantity("first answer, s", "first_answer_ms", 1e-3)
AGREEMENT = _percent("same tokens", "token_agreement")

COLUMNS: dict[Phase, tuple[Column, ...]] = {
    "decode": (
        *(P50, P99, _quantity("jitter, ms", "jitter_ms"), _interval("TTFT, ms", "first_token_p50_ms")),
        _interval("end to end, ms", "request_p50_ms"),
        *(_quantity("tokens/s, one row", "tokens_per_s"), _quantity("tokens/s, all rows", "total_tokens_per_s")),
        *(Column("tokens/J", _per_joule), MEMORY, CACHE, FIRST, AGREEMENT),
    ),
    "prefill": (P50, P99, _interval("TTFT of requests, ms", "first_token_p50_ms"), MEMORY, CACHE, FIRST, AGREEMENT),
}
"""Before speed-up, bound and gap. Those that no row has a value in are left out."""


def generated(measured: Measured, plan: Mapping[str, Any]) -> str:
    """The section; empty where no measured model generates."""
    panels = [(panel, cells) for panel, cells in measured.panels.items() if cells[0].phase]
    if not panels:
        return ""
    chosen = baselines(measured, plan.get("baseline") or ())
    parts, rows, count = ["## Generation"], 0, sum(len(cells) for _, cells in panels)
    left = dict(MOST_ROWS)
    shown = panels[:MOST_TABLES]
    for number, (panel, cells) in enumerate(shown):
        for phase, columns in COLUMNS.items():
            same = [cell for cell in cells if cell.phase == phase]
            if not same:
                continue
            kept = kept_rows(same, measured.common_shapes[panel], left[phase] // (len(shown) - number))
            left[phase] -= sum(map(len, kept.values()))
            rows += sum(map(len, kept.values()))
            parts.append(table_heading(panel, chosen.get(panel), NAMES[phase]))
            parts.append(_table(measured, kept.values(), columns, chosen))
    per_joule = any(_per_joule(cell) for _, cells in shown for cell in cells)
    parts.append(f"{LEGEND} {TOKENS_PER_JOULE}" if per_joule else LEGEND)
    if rows < count:
        parts.append(f"The best {rows} of {count} measured cells; all are in [summary_table.md](summary_table.md).")
    return "\n\n".join(parts)


def _table(measured: Measured, kept: Any, columns: Sequence[Column], chosen: dict[Any, Any]) -> str:
    rows = []
    for cells in kept:
        for place, cell in enumerate(cells):
            floor, bound = measured.hardware_floor(cell), limiter(measured, cell)
            rows.append(
                [
                    *(str(cell.shape) if place == 0 else "", cell.label),
                    *(column.shown(cell) for column in columns),
                    speedup(measured, cell, baseline_of(measured, chosen, cell)),
                    bound.name if bound.known else "",
                    f"{text.number(floor['gap'])}×" if floor else "",
                ]
            )
    headers = [
        "shape",
        "configuration",
        *(column.heading for column in columns),
        "speed-up",
        "bound by",
        "gap to floor",
    ]
    used = [i for i in range(len(headers)) if i < 3 or any(row[i] not in ("", "n/a") for row in rows)]
    align = "ll" + "r" * len(columns) + "rlr"
    return text.table(
        [[row[i] for i in used] for row in rows], [headers[i] for i in used], "".join(align[i] for i in used)
    )
